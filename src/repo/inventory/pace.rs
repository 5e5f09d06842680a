//! How fast WAL comes in: segments by the hour and by the day in which they were stored. Pure.
//!
//! Bounded: a number for each hour of the last week, and one for each day of the archive.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Volume;

const HOUR: i64 = 3600;
const DAY_HOURS: i64 = 24;
const WEEK_HOURS: i64 = 7 * DAY_HOURS;

/// What was stored when, by the store's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// By the number of the hour since 1970.
    hours: BTreeMap<i64, u64>,
    /// The number of the first hour.
    oldest: Option<i64>,
    /// By the number of the day (UTC) since 1970.
    days: BTreeMap<i64, Volume>,
}

/// Segments that were stored in the last hours before the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// In the last day.
    pub last_day: u64,
    /// In the last week, or since the first if that is less; and how many hours that were, at least one.
    pub last_week: u64,
    pub hours: u64,
}

impl Pace {
    pub fn note(&mut self, stored: u64, at: Timestamp) {
        let second = at.as_second();
        let hour = second.div_euclid(HOUR);
        self.oldest = Some(self.oldest.map_or(hour, |oldest| oldest.min(hour)));
        *self.hours.entry(hour).or_default() += 1;
        self.days.entry(second.div_euclid(DAY_HOURS * HOUR)).or_default().add(stored);
        let Some(newest) = self.newest_hour() else { return };
        while let Some(oldest) = self.hours.first_entry()
            && *oldest.key() <= newest.saturating_sub(WEEK_HOURS)
        {
            oldest.remove();
        }
    }

    fn newest_hour(&self) -> Option<i64> {
        self.hours.last_key_value().map(|(hour, _)| *hour)
    }

    /// None as long as there is nothing.
    pub fn rate(&self) -> Option<Rate> {
        let newest = self.newest_hour()?;
        let since =
            |hours: i64| -> u64 { self.hours.range(newest - hours + 1..).map(|(_, count)| count).sum() };
        let age = newest.saturating_sub(self.oldest?).saturating_add(1);
        let hours = age.min(WEEK_HOURS);
        Some(Rate {
            last_day: since(DAY_HOURS),
            last_week: since(WEEK_HOURS),
            hours: u64::try_from(hours).unwrap_or(1).max(1),
        })
    }

    /// The number of each day (UTC, since 1970) with what was stored in it, in order.
    pub fn days(&self) -> impl Iterator<Item = (i64, Volume)> + '_ {
        self.days.iter().map(|(day, volume)| (*day, *volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * HOUR + 7).expect("in range")
    }

    #[test]
    fn a_young_archive_is_measured_by_its_age() {
        let mut pace = Pace::default();
        assert_eq!(pace.rate(), None);
        for hour in [1000, 1000, 1001, 1003] {
            pace.note(50, at(hour));
        }
        assert_eq!(pace.rate(), Some(Rate { last_day: 4, last_week: 4, hours: 4 }));
        assert_eq!(pace.days().collect::<Vec<_>>(), [(41, Volume { objects: 4, bytes: 200 })]);
    }

    #[test]
    fn an_old_archive_is_measured_by_its_last_week() {
        let mut pace = Pace::default();
        for hour in 0..1000 {
            pace.note(1, at(hour));
        }
        assert_eq!(pace.rate(), Some(Rate { last_day: 24, last_week: 168, hours: 168 }));
        assert_eq!(pace.hours.len(), 7 * 24);
        assert_eq!(pace.days().map(|(_, volume)| volume.objects).sum::<u64>(), 1000);
    }

    proptest! {
        #[test]
        fn the_order_in_which_segments_are_seen_does_not_matter(hours in proptest::collection::vec(0i64..400, 1..60)) {
            let mut forward = Pace::default();
            let mut sorted = Pace::default();
            hours.iter().for_each(|hour| forward.note(1, at(*hour)));
            let mut in_order = hours.clone();
            in_order.sort();
            in_order.iter().for_each(|hour| sorted.note(1, at(*hour)));
            let newest = in_order.last().copied().unwrap_or(0);
            let within = |span: i64| hours.iter().filter(|hour| **hour > newest - span).count() as u64;
            prop_assert_eq!(forward.rate(), sorted.rate());
            prop_assert_eq!(forward.rate().map(|rate| (rate.last_day, rate.last_week)), Some((within(24), within(168))));
        }
    }
}
