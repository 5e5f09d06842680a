//! Days, weeks, months and years, in UTC: which of them a moment lies in, and how people write it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A kind of periods. Weeks are those of ISO 8601: they begin on Monday, and the first has the year's first Thursday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    Day,
    Week,
    Month,
    Year,
}

/// One of them. Later ones are greater; those of different kinds are not to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Which {
    year: i16,
    /// Of the year: its day, its week or its month.
    part: i16,
}

impl Period {
    pub fn of(self, at: Timestamp) -> Which {
        let date = at.to_zoned(TimeZone::UTC).date();
        let week = date.iso_week_date();
        match self {
            Period::Day => Which { year: date.year(), part: date.day_of_year() },
            Period::Week => Which { year: week.year(), part: week.week().into() },
            Period::Month => Which { year: date.year(), part: date.month().into() },
            Period::Year => Which { year: date.year(), part: 0 },
        }
    }

    pub fn noun(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Year => "year",
        }
    }

    /// "day 2026-11-22", "week 2026-W47", "month 2026-11", "year 2026"
    pub fn name(self, at: Timestamp) -> String {
        let date = at.to_zoned(TimeZone::UTC).date();
        let Which { year, part } = self.of(at);
        let which = match self {
            Period::Day => date.to_string(),
            Period::Week => format!("{year:04}-W{part:02}"),
            Period::Month => format!("{year:04}-{part:02}"),
            Period::Year => format!("{year:04}"),
        };
        format!("{} {which}", self.noun())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn periods_have_the_names_that_people_know() {
        for (time, names) in [
            ("2026-11-22T23:59:59Z", ["day 2026-11-22", "week 2026-W47", "month 2026-11", "year 2026"]),
            ("2026-11-23T00:00:00Z", ["day 2026-11-23", "week 2026-W48", "month 2026-11", "year 2026"]),
            // The last days of a year may be in the first week of the next, and the other way round.
            ("2024-12-31T12:00:00Z", ["day 2024-12-31", "week 2025-W01", "month 2024-12", "year 2024"]),
            ("2027-01-01T00:00:00Z", ["day 2027-01-01", "week 2026-W53", "month 2027-01", "year 2027"]),
        ] {
            let at: Timestamp = time.parse().expect("a time");
            let found =
                [Period::Day, Period::Week, Period::Month, Period::Year].map(|period| period.name(at));
            assert_eq!(found, names);
        }
    }

    proptest! {
        #[test]
        fn later_moments_lie_in_the_same_or_a_later_period(one in 0i64..4_000_000_000, two in 0i64..4_000_000_000) {
            let at = |second: i64| Timestamp::from_second(second).expect("in range");
            for period in [Period::Day, Period::Week, Period::Month, Period::Year] {
                let (early, late) = (period.of(at(one.min(two))), period.of(at(one.max(two))));
                prop_assert!(early <= late);
                prop_assert_eq!(early == late, period.name(at(one)) == period.name(at(two)));
            }
        }
    }
}
