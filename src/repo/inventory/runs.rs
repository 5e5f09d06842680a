//! Runs of consecutive segments: what a long listing becomes. Pure.
//!
//! Invariant: runs are in increasing order and never touch, so there are as many as there are holes, and one.

use std::ops::RangeInclusive;

use jiff::Timestamp;

/// Consecutive segments of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The numbers of its first and last segment.
    pub first: u64,
    pub last: u64,
    /// Bytes in the store.
    pub stored: u64,
    /// When its objects were stored, by the store's clock.
    pub oldest: Timestamp,
    pub newest: Timestamp,
}

impl Run {
    pub fn segments(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// The runs of one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// Takes in the next segment. False, and nothing happens, unless it is above all that came before.
    pub fn push(&mut self, number: u64, stored: u64, at: Timestamp) -> bool {
        match self.0.last_mut() {
            Some(run) if number <= run.last => return false,
            Some(run) if number.checked_sub(1) == Some(run.last) => {
                run.last = number;
                run.stored = run.stored.saturating_add(stored);
                run.oldest = run.oldest.min(at);
                run.newest = run.newest.max(at);
            }
            _ => self.0.push(Run { first: number, last: number, stored, oldest: at, newest: at }),
        }
        true
    }

    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|run| run.first)
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|run| run.last)
    }

    pub fn segments(&self) -> u64 {
        self.0.iter().map(Run::segments).sum()
    }

    pub fn stored(&self) -> u64 {
        self.0.iter().map(|run| run.stored).sum()
    }

    /// The run that holds a segment.
    pub fn around(&self, number: u64) -> Option<&Run> {
        let after = self.0.partition_point(|run| run.last < number);
        self.0.get(after).filter(|run| run.first <= number)
    }

    /// What there is within a range, in order.
    pub fn within(&self, range: &RangeInclusive<u64>) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let (from, to) = (*range.start(), *range.end());
        let after = self.0.partition_point(|run| run.last < from);
        let rest = self.0.get(after..).unwrap_or_default().iter();
        rest.take_while(move |run| run.first <= to).map(move |run| run.first.max(from)..=run.last.min(to))
    }
}

/// What of a range is not in `present`, which is in order.
pub fn missing(
    range: RangeInclusive<u64>,
    present: impl IntoIterator<Item = RangeInclusive<u64>>,
) -> Vec<RangeInclusive<u64>> {
    let (mut next, end) = (*range.start(), *range.end());
    let mut missing = Vec::new();
    for run in present {
        if *run.start() > end {
            break;
        }
        if next < *run.start() {
            missing.push(next..=run.start().saturating_sub(1));
        }
        let Some(behind) = run.end().checked_add(1) else { return missing };
        next = next.max(behind);
    }
    if next <= end {
        missing.push(next..=end);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn runs(numbers: &BTreeSet<u64>) -> Runs {
        let mut runs = Runs::default();
        for number in numbers {
            assert!(runs.push(*number, 10, at(*number as i64)));
        }
        runs
    }

    fn flat(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> BTreeSet<u64> {
        ranges.into_iter().flatten().collect()
    }

    #[test]
    fn what_comes_again_or_out_of_order_is_refused() {
        let mut found = Runs::default();
        assert!(found.push(5, 1, at(0)) && found.push(6, 2, at(9)) && found.push(8, 4, at(3)));
        for number in [8, 7, 1] {
            assert!(!found.push(number, 100, at(0)));
        }
        assert_eq!((found.segments(), found.stored(), found.as_slice().len()), (3, 7, 2));
        assert_eq!(
            found.around(6),
            Some(&Run { first: 5, last: 6, stored: 3, oldest: at(0), newest: at(9) })
        );
        assert_eq!(found.around(7), None);
        assert_eq!(Runs::default().around(0), None);
    }

    #[test]
    fn the_last_number_of_all_is_no_trouble() {
        let found = runs(&BTreeSet::from([u64::MAX - 1, u64::MAX]));
        assert_eq!(found.segments(), 2);
        assert_eq!(missing(u64::MAX..=u64::MAX, found.within(&(u64::MAX..=u64::MAX))), []);
    }

    proptest! {
        #[test]
        fn runs_say_what_the_numbers_said(
            numbers in proptest::collection::btree_set(0u64..60, 0..40),
            from in 0u64..60,
            length in 0u64..60,
        ) {
            let found = runs(&numbers);
            prop_assert_eq!(flat(found.as_slice().iter().map(|run| run.first..=run.last)), numbers.clone());
            prop_assert_eq!(found.segments(), numbers.len() as u64);
            prop_assert_eq!(found.stored(), 10 * numbers.len() as u64);
            prop_assert_eq!((found.first(), found.last()), (numbers.first().copied(), numbers.last().copied()));
            for pair in found.as_slice().windows(2) {
                prop_assert!(pair[0].last + 1 < pair[1].first, "they never touch");
            }
            for number in 0..60 {
                prop_assert_eq!(found.around(number).is_some(), numbers.contains(&number));
            }
            let range = from..=from + length;
            let (there, gone): (BTreeSet<u64>, BTreeSet<u64>) =
                range.clone().partition(|number| numbers.contains(number));
            prop_assert_eq!(flat(found.within(&range)), there);
            prop_assert_eq!(flat(missing(range.clone(), found.within(&range))), gone);
        }
    }
}
