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

    proptest! {
        #[test]
        fn parsing_a_size_never_panics(text in "\\PC{0,12}") {
            drop(parse_size(&text));
        }
    }
}
