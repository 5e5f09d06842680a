#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgark::fuzz::run("backup_header", data));
