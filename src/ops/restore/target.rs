//! Where recovery shall end, as the operator says it: a time, an LSN, a transaction, a restore point, the
//! end of the backup, or the end of the archive.
//!
//! A time must name its zone. PostgreSQL would take one without in the zone of the server's
//! configuration, which nobody has in mind who restores in a hurry.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Disambiguation;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::time::Timestamp;

/// MAXFNAMELEN without its NUL: PostgreSQL takes no longer name of a restore point.
const MAX_NAME: usize = 63;

/// What recovery aims at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Everything archived.
    Latest,
    /// The end of the backup.
    Immediate,
    Time(Timestamp),
    Lsn(Lsn),
    Xid(Xid),
    Name(PointName),
}

/// A transaction, as recovery_target_xid takes it: without its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Xid(pub u32);

/// The name of a restore point (pg_create_restore_point).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PointName(String);

/// recovery_target_action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Stay read-only at the target, to look around
    Pause,
    /// Become a server of its own, on a new timeline
    #[default]
    Promote,
    /// Shut down at the target; a start goes on from there
    Shutdown,
}

/// The target with what qualifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    pub target: Target,
    /// Include what stands exactly at the target (recovery_target_inclusive).
    pub inclusive: bool,
    /// None: the newest timeline on which the target can be reached.
    pub timeline: Option<Timeline>,
}

impl fmt::Display for Target {
    /// As the end of "restores to …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("the end of the archive"),
            Target::Immediate => f.write_str("the end of the backup"),
            Target::Time(time) => write!(f, "time {time}"),
            Target::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Target::Xid(xid) => write!(f, "transaction {xid}"),
            Target::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Xid {
    type Err = Error;

    /// A plain number, or one with its epoch, as pg_current_xact_id() gives it: recovery_target_xid too
    /// takes the lower half of that (assign_recovery_target_xid).
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse::<u64>().ok() } else { None };
        // FirstNormalTransactionId is 3: no transaction that ends has a lower one.
        let low = number.map(|number| (number & 0xFFFF_FFFF) as u32).filter(|low| *low >= 3);
        low.map(Xid).ok_or_else(|| {
            Error::configuration(format!("\"{text}\" is not a transaction id"))
                .with_hint("give the number that pg_current_xact_id() or txid_current() returned")
        })
    }
}

impl PointName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PointName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > MAX_NAME || text.contains('\0') {
            return Err(Error::configuration(format!("\"{text}\" can't be the name of a restore point"))
                .with_hint(format!(
                    "give the name that pg_create_restore_point got: at most {MAX_NAME} bytes"
                )));
        }
        Ok(Self(text.to_string()))
    }
}

/// Reads a moment that names its zone, or one that lies some time before `now`: "10 minutes ago".
/// Fractions beyond the microsecond, which PostgreSQL does not know, are cut off.
pub fn parse_time(text: &str, now: &Zoned) -> Result<Timestamp> {
    let text = text.trim();
    let moment = match absolute(text)? {
        Some(moment) => moment,
        None => relative(text, now)?,
    };
    Timestamp::from_unix(moment.as_microsecond()).ok_or_else(|| not_a_time(text))
}

/// A time with its zone; None when it is something else, such as a span.
pub fn absolute(text: &str) -> Result<Option<jiff::Timestamp>> {
    let bracketed = zone_in_brackets(text);
    let parser = DateTimeParser::new().disambiguation(Disambiguation::Reject);
    if bracketed.contains('[') {
        let zoned = parser.parse_zoned(&bracketed).map_err(|cause| {
            Error::configuration(format!("could not read the time \"{text}\": {cause}"))
                .with_hint("give the offset instead of the zone, for example 2026-11-22 10:00:00+01")
        })?;
        return Ok(Some(zoned.timestamp()));
    }
    if let Ok(moment) = parser.parse_timestamp(&bracketed) {
        return Ok(Some(moment));
    }
    if parser.parse_datetime(&bracketed).is_ok() {
        return Err(Error::configuration(format!("the time \"{text}\" names no zone")).with_hint(format!(
            "write it with its offset, \"{text}+00\", or with its zone, \"{text}[Europe/Berlin]\""
        )));
    }
    Ok(None)
}

/// What PostgreSQL's log and psql write after a time becomes what the parser reads: "… UTC" and
/// "… Europe/Berlin". Other abbreviations are ambiguous and stay as they are, to be refused.
fn zone_in_brackets(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((time, "UTC" | "GMT" | "Z" | "z")) => format!("{time}Z"),
        Some((time, zone)) if zone.contains('/') && !zone.contains('[') => format!("{time}[{zone}]"),
        Some((time, offset)) if offset.starts_with(['+', '-']) => format!("{time}{offset}"),
        _ => text.to_string(),
    }
}

fn relative(text: &str, now: &Zoned) -> Result<jiff::Timestamp> {
    let span: jiff::Span = text.parse().map_err(|_| not_a_time(text))?;
    if span.is_positive() {
        return Err(Error::configuration(format!("the time \"{text}\" does not lie in the past"))
            .with_hint(format!("write \"{text} ago\"")));
    }
    now.checked_add(span).map(|moment| moment.timestamp()).map_err(|_| not_a_time(text))
}

fn not_a_time(text: &str) -> Error {
    Error::configuration(format!("\"{text}\" is not a time")).with_hint(
        "write for example \"2026-11-22 10:00:00+00\", \"2026-11-22 10:00:00[Europe/Berlin]\" or \"10 minutes ago\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        "2026-11-22T12:00:00+00:00[UTC]".parse().expect("a moment")
    }

    fn read(text: &str) -> Result<String> {
        parse_time(text, &now()).map(|time| time.to_string())
    }

    #[test]
    fn a_time_is_read_with_any_offset_or_zone() {
        let expected = "2026-11-22T10:00:00.000000Z";
        for text in [
            "2026-11-22 10:00:00+00",
            "2026-11-22T10:00:00Z",
            " 2026-11-22 10:00:00Z ",
            "2026-11-22 10:00:00 UTC",
            "2026-11-22 11:00:00+01:00",
            "2026-11-22 11:00:00 +01",
            "2026-11-22 11:00:00+0100",
            "2026-11-22 11:00+01",
            "2026-11-22 04:30:00-05:30",
            "2026-11-22 11:00:00[Europe/Berlin]",
            "2026-11-22 11:00:00 Europe/Berlin",
            "2026-11-22T11:00:00+01:00[Europe/Berlin]",
            "2 hours ago",
            "120m ago",
            "1h 60m ago",
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(read("2026-11-22 10:00:00.1234567+00").as_deref(), Ok("2026-11-22T10:00:00.123456Z"));
        assert_eq!(read("1 day ago").as_deref(), Ok("2026-11-21T12:00:00.000000Z"));
        assert_eq!(read("0 seconds ago").as_deref(), Ok("2026-11-22T12:00:00.000000Z"));
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_the_two_ways_to_write_it() {
        for text in ["2026-11-22 10:00:00", "2026-11-22T10:00:00.5", "2026-11-22 10:00"] {
            let error = read(text).expect_err(text);
            assert!(error.message().contains("names no zone"), "{text}: {error}");
            let hint = error.hint().expect("a hint");
            for way in [format!("{text}+00"), format!("{text}[Europe/Berlin]")] {
                assert!(hint.contains(&way) && read(&way).is_ok(), "{hint}");
            }
        }
    }

    #[test]
    fn a_time_that_means_two_moments_or_none_is_refused() {
        for (text, cause) in [
            ("2026-10-25 02:30:00[Europe/Berlin]", "2026-10-25 02:30:00"),
            ("2026-03-29 02:30:00[Europe/Berlin]", "2026-03-29 02:30:00"),
            ("2026-11-22 10:00:00+05[Europe/Berlin]", "Europe/Berlin"),
            ("2026-11-22 10:00:00[Europe/Nowhere]", "Europe/Nowhere"),
            ("2026-11-22 10:00:00 CET", "is not a time"),
            ("10 minutes", "does not lie in the past"),
            ("yesterday", "is not a time"),
            ("", "is not a time"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.message().contains(cause) && error.hint().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn a_transaction_id_is_taken_with_or_without_its_epoch() {
        assert_eq!("741".parse(), Ok(Xid(741)));
        assert_eq!("4294968037".parse(), Ok(Xid(741)));
        for bad in ["", "0", "2", "4294967296", "-5", "+5", "0x10", "1e3", "99999999999999999999"] {
            assert!(bad.parse::<Xid>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_name_of_a_restore_point_is_what_postgresql_takes() {
        assert!("before \u{fc}pgrade".parse::<PointName>().is_ok());
        assert!("x".repeat(63).parse::<PointName>().is_ok());
        assert!("x".repeat(64).parse::<PointName>().is_err());
        assert!("".parse::<PointName>().is_err());
    }

    proptest! {
        #[test]
        fn reading_a_time_never_panics(text in "\\PC{0,40}|[-0-9: +TZ\\[\\]a-z]{0,40}") {
            let _ignored = parse_time(&text, &now());
        }

        #[test]
        fn every_moment_is_read_back_from_its_text(seconds in 0_i64..4_000_000_000, micros in 0_i64..1_000_000) {
            let time = Timestamp::from_unix(seconds * 1_000_000 + micros).expect("in range");
            prop_assert_eq!(parse_time(&time.to_string(), &now()), Ok(time));
        }
    }
}
