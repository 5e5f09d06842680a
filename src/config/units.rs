//! Durations and sizes as people write them in a configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A duration: "30s", "5m", "1h 30m".
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Span).map_err(serde::de::Error::custom)
    }
}

/// Parses "30s", "5m", "1h 30m". Not negative.
pub fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration: write for example \"30s\", \"5m\" or \"1h 30m\"");
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// Parses "14 days", "2 weeks", "1 year": a calendar's units at their longest, so that a window of a month is never
/// shorter than one. More than nothing.
pub fn parse_span(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a span of time: write for example \"14 days\" or \"3 months\"");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    let (years, months) = (i64::from(span.get_years()), i64::from(span.get_months()));
    let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days()) + years * 366 + months * 31;
    let rest = span.years(0).months(0).weeks(0).days(0);
    let rest = jiff::SignedDuration::try_from(rest).map_err(|_| wrong())?;
    let whole = jiff::SignedDuration::from_hours(days * 24).checked_add(rest).ok_or_else(wrong)?;
    Duration::try_from(whole).ok().filter(|span| !span.is_zero()).ok_or_else(wrong)
}

/// A window: "14 days".
#[derive(Clone, Copy, Debug)]
pub(super) struct Days(pub Duration);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Days).map_err(serde::de::Error::custom)
    }
}

/// Bytes: "512MiB", "1GiB".
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Size).map_err(serde::de::Error::custom)
    }
}

/// Parses "512MiB", "1 GiB" and, because PostgreSQL means the same by it, "1GB".
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size: write for example \"512MiB\" or \"1GiB\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let shift = match unit.trim() {
        "B" => 0,
        "kB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        "TB" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_written_as_postgresql_writes_them() {
        for (text, bytes) in
            [("0B", 0), ("512MiB", 512 << 20), ("1 GiB", 1 << 30), ("1GB", 1 << 30), ("2TB", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "1", "GiB", "-1GiB", "1.5GiB", "1gib", "99999999TiB", "\u{661}MiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_is_never_shorter_than_the_calendar_says() {
        let days = |text: &str| parse_span(text).map(|span| span.as_secs() / 86400);
        for (text, expected) in
            [("14 days", 14), ("14d", 14), ("2 weeks", 14), ("1 month", 31), ("1 year", 366), ("48h", 2)]
        {
            assert_eq!(days(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_span("1 day 12 hours"), Ok(Duration::from_secs(36 * 3600)));
        for bad in ["", "14", "0 days", "-3 days", "days", "a week", "14 days ago", "99999999999 years"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_span_never_panics(text in "(-?[0-9]{1,9} ?(years?|months?|days?|h|w|s)? ?){1,3}") {
            drop(parse_span(&text));
        }

        #[test]
        fn parsing_a_size_never_panics(text in "\\PC{0,12}") {
            drop(parse_size(&text));
        }
    }
}
