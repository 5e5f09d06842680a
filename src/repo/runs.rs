//! Sets of segment numbers as runs: what an archive holds is a few long runs, however long it is.
//!
//! Invariant: the runs are in order, and between two of them at least one number is missing.

use std::ops::RangeInclusive;

/// Numbers of segments of one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Takes in one more number; they come in any order, but neighbours cost nothing when they come in theirs.
    pub fn insert(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((first, last)) if (*first..=*last).contains(&number) => {}
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            Some((_, last)) if number <= *last => self.add(number..=number),
            _ => self.0.push((number, number)),
        }
    }

    /// Takes in all numbers of a range.
    pub fn add(&mut self, range: RangeInclusive<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut first, mut last) = range.into_inner();
        let touches = |run: &(u64, u64)| run.0 <= last.saturating_add(1) && first <= run.1.saturating_add(1);
        let (touching, mut rest): (Vec<_>, Vec<_>) = self.0.iter().copied().partition(touches);
        for run in touching {
            (first, last) = (first.min(run.0), last.max(run.1));
        }
        rest.push((first, last));
        rest.sort_unstable();
        self.0 = rest;
    }

    /// What is in both.
    pub fn within(&self, other: &Runs) -> Runs {
        let cut = |one: &(u64, u64), two: &(u64, u64)| (one.0.max(two.0), one.1.min(two.1));
        let pairs = self.0.iter().flat_map(|one| other.0.iter().map(move |two| cut(one, two)));
        Runs(pairs.filter(|(first, last)| first <= last).collect())
    }

    /// What is in this, but not in the other.
    pub fn without(&self, other: &Runs) -> Runs {
        let mut left = Vec::new();
        for (first, last) in &self.0 {
            let mut next = Some(*first);
            for (from, to) in other.0.iter().filter(|(from, to)| to >= first && from <= last) {
                if let Some(start) = next.filter(|start| start < from) {
                    left.push((start, from.saturating_sub(1)));
                }
                next = to.checked_add(1);
            }
            left.extend(next.filter(|start| start <= last).map(|start| (start, *last)));
        }
        Runs(left)
    }

    pub fn contains(&self, number: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        behind.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|(_, last)| number <= *last)
    }

    pub fn covers(&self, range: &RangeInclusive<u64>) -> bool {
        self.0.iter().any(|(first, last)| first <= range.start() && range.end() <= last)
    }

    /// The greatest numbers, greatest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().rev().flat_map(|(first, last)| (*first..=*last).rev()).take(count)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.iter().map(|run| run.end().saturating_sub(*run.start()).saturating_add(1)).sum()
    }

    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(first, _)| *first)
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(first, last)| *first..=*last)
    }
}

impl From<RangeInclusive<u64>> for Runs {
    fn from(range: RangeInclusive<u64>) -> Self {
        let mut runs = Self::default();
        runs.add(range);
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn runs(numbers: &BTreeSet<u64>) -> Runs {
        let mut runs = Runs::default();
        numbers.iter().for_each(|number| runs.insert(*number));
        runs
    }

    fn set(runs: &Runs) -> BTreeSet<u64> {
        runs.iter().flatten().collect()
    }

    fn is_tidy(runs: &Runs) -> bool {
        runs.0.iter().all(|(first, last)| first <= last)
            && runs.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
    }

    #[test]
    fn the_ends_of_the_number_line_do_not_overflow() {
        let all = Runs::from(0..=u64::MAX);
        assert!(all.contains(u64::MAX) && all.covers(&(0..=u64::MAX)));
        assert_eq!(all.without(&Runs::from(5..=u64::MAX)), Runs::from(0..=4));
        assert_eq!(all.without(&all), Runs::default());
        assert_eq!(Runs::from(1..=1).without(&Runs::default()).last(), Some(1));
    }

    proptest! {
        #[test]
        fn runs_are_sets(
            one in proptest::collection::btree_set(0u64..40, 0..30),
            two in proptest::collection::btree_set(0u64..40, 0..30),
            shuffled in proptest::collection::vec(0u64..40, 0..30),
            probe in 0u64..40,
        ) {
            let (a, b) = (runs(&one), runs(&two));
            prop_assert_eq!(set(&a), one.clone());
            prop_assert_eq!(set(&a.within(&b)), one.intersection(&two).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(set(&a.without(&b)), one.difference(&two).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.contains(probe), one.contains(&probe));
            prop_assert_eq!(a.count(), one.len() as u64);
            let mut all = a.clone();
            b.iter().for_each(|run| all.add(run));
            prop_assert_eq!(set(&all), one.union(&two).copied().collect::<BTreeSet<_>>());
            let mut any_order = Runs::default();
            shuffled.iter().for_each(|number| any_order.insert(*number));
            prop_assert_eq!(set(&any_order), shuffled.iter().copied().collect::<BTreeSet<_>>());
            for tidy in [&a, &all, &any_order, &a.without(&b), &a.within(&b)] {
                prop_assert!(is_tidy(tidy), "{tidy:?}");
            }
        }
    }
}
