//! Moments as WAL records carry them: microseconds, no zone.
//!
//! PostgreSQL counts from 2000-01-01 00:00 UTC (timestamp.h, POSTGRES_EPOCH_JDATE); here they count from
//! the Unix epoch. JSON holds RFC 3339 in UTC with six decimals. Refuses a text that names no zone, and
//! infinity. Invariant: the year lies within -9999..=9999, so every timestamp has a text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// From the Unix epoch to PostgreSQL's, in microseconds.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A moment, in microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const UNIX_EPOCH: Timestamp = Timestamp(0);

    /// From a TimestampTz: microseconds since PostgreSQL's epoch. None for infinity and for years that
    /// have no text.
    pub fn from_postgres(microseconds: i64) -> Option<Self> {
        microseconds.checked_add(POSTGRES_EPOCH).and_then(Self::from_unix)
    }

    /// From microseconds since the Unix epoch.
    pub fn from_unix(microseconds: i64) -> Option<Self> {
        let known = |at: i64| jiff::Timestamp::from_microsecond(at).is_ok();
        known(microseconds).then_some(Self(microseconds))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_unix(self) -> i64 {
        self.0
    }

    /// As TimestampTz: microseconds since PostgreSQL's epoch.
    pub fn as_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{moment:.6}")
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_microsecond())).map_err(|cause| {
            Error::configuration(format!("\"{text}\" is not a moment: {cause}"))
                .with_hint("write it with its zone, for example 2026-11-22 10:00:00+01")
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn postgresqls_epoch_is_the_year_2000() {
        let epoch = Timestamp::from_postgres(0).expect("in range");
        assert_eq!(epoch.to_string(), "2000-01-01T00:00:00.000000Z");
        assert_eq!(epoch.as_postgres(), 0);
        let later = Timestamp::from_postgres(846_000_000_123_456).expect("in range");
        assert_eq!(later.to_string(), "2026-10-22T16:00:00.123456Z");
    }

    #[test]
    fn infinity_is_no_moment() {
        assert_eq!(Timestamp::from_postgres(i64::MAX), None);
        assert_eq!(Timestamp::from_postgres(i64::MIN), None);
    }

    #[test]
    fn a_text_without_a_zone_is_refused() {
        assert!("2026-11-22 10:00:00".parse::<Timestamp>().is_err());
        let with_zone: Timestamp = "2026-11-22 10:00:00+01".parse().expect("a moment");
        assert_eq!(with_zone.to_string(), "2026-11-22T09:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn every_moment_survives_its_text(raw: i64) {
            if let Some(moment) = Timestamp::from_postgres(raw) {
                prop_assert_eq!(moment.as_postgres(), raw);
                prop_assert_eq!(moment.to_string().parse::<Timestamp>(), Ok(moment));
            }
        }

        #[test]
        fn moments_of_this_era_survive_their_text(raw in -1_000_000_000_000_000_i64..3_000_000_000_000_000) {
            let moment = Timestamp::from_unix(raw).expect("in range");
            prop_assert_eq!(moment.to_string().parse::<Timestamp>(), Ok(moment));
        }
    }
}
