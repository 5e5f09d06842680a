#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgark::fuzz::run("stored_segment", data));
