//! Log sequence numbers, timelines, system identifiers and segment sizes: the coordinates of WAL.
//!
//! An LSN is a byte position in the WAL of one system identifier. It says nothing about the timeline.
//! Invariant: a `SegmentSize` is a power of two from 1 MiB to 1 GiB (xlog_internal.h, IsValidWalSegSize).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A byte position in the WAL, written `XXXXXXXX/XXXXXXXX` as PostgreSQL does (`%X/%X`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's InvalidXLogRecPtr.
    pub const INVALID: Lsn = Lsn(0);

    pub fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    /// As pg_lsn_in: one to eight hex digits, a slash, one to eight hex digits.
    fn from_str(text: &str) -> Result<Self> {
        let part = |part: &str| {
            let fits = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once('/').and_then(|(high, low)| Some(Lsn((part(high)? << 32) | part(low)?))).ok_or_else(
            || {
                Error::configuration(format!("\"{text}\" is not an LSN"))
                    .with_hint("write it as PostgreSQL does, for example 0/3000148")
            },
        )
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A timeline identifier. 1 is the one that initdb made; 0 is no timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identifier that initdb gave the cluster. Written in decimal, as pg_controldata does; JSON holds
/// it as a string, because it does not fit a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(SystemId).map_err(|_| {
            Error::configuration(format!("\"{text}\" is not a system identifier"))
                .with_hint("it is the decimal number that pg_controldata shows")
        })
    }
}

impl Serialize for SystemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The size of a WAL segment in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u32);

impl SegmentSize {
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share one 4 GiB log number (XLogSegmentsPerXLogId): the carry in the file name.
    pub fn segments_per_log(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }

    /// The number of the segment that holds `lsn` (XLByteToSeg).
    pub fn segment_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// The number of the segment that holds the byte before `lsn` (XLByteToPrevSeg): the last segment
    /// that is needed to read WAL up to, not including, `lsn`.
    pub fn segment_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    /// The LSN of the first byte of a segment.
    pub fn start_of(self, segment_number: u64) -> Lsn {
        Lsn(segment_number.saturating_mul(self.bytes()))
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self> {
        let valid = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        u32::try_from(bytes).ok().filter(|_| valid).map(SegmentSize).ok_or_else(|| {
            Error::corrupt(format!("{bytes} is not a WAL segment size: a power of two from 1 MiB to 1 GiB"))
        })
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_lsn_is_written_as_postgresql_writes_it() {
        assert_eq!(Lsn(0x3_0000_0148).to_string(), "3/148");
        assert_eq!("3/148".parse::<Lsn>(), Ok(Lsn(0x3_0000_0148)));
        for bad in ["", "/", "0/", "/0", "0x1/0", "1/123456789", "+1/0", "1/2/3", " 1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn segment_sizes_are_powers_of_two_from_one_mib_to_one_gib() {
        for bytes in [0, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert!(SegmentSize::try_from(bytes).is_err(), "{bytes}");
        }
        for shift in 20..=30 {
            assert_eq!(SegmentSize::try_from(1 << shift).map(u64::from), Ok(1 << shift));
        }
    }

    proptest! {
        #[test]
        fn every_lsn_survives_its_text(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>(), Ok(Lsn(raw)));
        }

        #[test]
        fn parsing_an_lsn_never_panics(text in ".{0,24}") {
            if let Ok(lsn) = text.parse::<Lsn>() {
                prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
            }
        }
    }
}
