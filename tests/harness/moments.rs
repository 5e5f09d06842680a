//! Which moments a test picks when there are too many to try all of them, and the seed that decides.
//!
//! `PGARK_TEST_EVERY=1` tries every moment, or 200 of more. `PGARK_TEST_SEED=<number>` repeats a run: each prints its own.

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers that look like chance, and come again with the same seed.
pub struct Seed(u64);

impl Seed {
    /// A new one, or that of `PGARK_TEST_SEED`. Prints it with what it is for.
    pub fn new(purpose: &str) -> Self {
        let chosen = std::env::var("PGARK_TEST_SEED").ok();
        let seed = match chosen {
            Some(text) => text.parse().expect("PGARK_TEST_SEED is a number"),
            None => SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos().into(),
        };
        eprintln!("{purpose}: PGARK_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// About `wanted` of the numbers 1 to `count`, evenly spread from a random one on; the last is always among them.
pub fn moments(purpose: &str, count: usize, wanted: usize) -> Vec<usize> {
    let all = std::env::var("PGARK_TEST_EVERY").is_ok_and(|every| every == "1");
    let stride = count.div_ceil(if all { 200 } else { wanted }).max(1);
    let first = 1 + Seed::new(purpose).below(stride as u64) as usize;
    let mut chosen: Vec<usize> = (first..=count).step_by(stride).collect();
    if chosen.last() != Some(&count) {
        chosen.push(count);
    }
    eprintln!("{purpose}: {} of {count} moments", chosen.len());
    chosen
}
