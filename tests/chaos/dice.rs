//! Chance that can be repeated, and the words about it: whoever decides something has dice of its own, made from
//! the seed and its name, so that no thread's pace changes what another one draws.

use std::io::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Steele, Lea and Flood: Fast splittable pseudorandom number generators (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, who: &str) -> Self {
        let digest = blake3::hash(format!("{seed} {who}").as_bytes());
        let start: [u8; 8] = digest.as_bytes()[..8].try_into().expect("eight bytes");
        Self(u64::from_le_bytes(start))
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).expect("below a usize")
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.number() % (range.end() - range.start() + 1)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len())) }
    }

    pub fn shuffle<T>(&mut self, cards: &mut [T]) {
        for last in (1..cards.len()).rev() {
            cards.swap(last, self.below(last + 1));
        }
    }

    pub fn pause(&mut self, milliseconds: RangeInclusive<u64>) {
        std::thread::sleep(Duration::from_millis(self.within(milliseconds)));
    }
}

/// Tells at once what happens, not only when the test has failed, and with the time that the servers' logs have.
pub fn say(who: &str, what: &str) {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S%.3f");
    writeln!(std::io::stderr(), "{now} {who}: {what}").expect("write to standard error");
}

#[test]
fn the_same_seed_draws_the_same_and_another_name_draws_something_else() {
    let draw = |seed, who| {
        let mut dice = Dice::new(seed, who);
        (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
    };
    assert_eq!(draw(7, "a"), draw(7, "a"));
    assert_ne!(draw(7, "a"), draw(7, "b"));
    assert_ne!(draw(7, "a"), draw(8, "a"));
    assert!(draw(7, "a").iter().all(|number| *number < 1000));
}
