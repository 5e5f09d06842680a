//! The names of WAL files, built and parsed. Refuses every name that PostgreSQL would not archive.
//!
//! Sources: xlog_internal.h (XLogFileName, IsXLogFileName, IsPartialXLogFileName, IsTLHistoryFileName,
//! BackupHistoryFileName). PostgreSQL writes upper-case hex only, and so do we.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lsn::{Lsn, SegmentSize, Timeline};
use crate::error::{Error, Result};

/// The name of a segment: timeline, log number and segment within the log, 8 hex digits each. Which
/// LSN that is depends on the segment size, so the name alone does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    pub timeline: Timeline,
    pub log: u32,
    pub segment: u32,
}

impl SegmentName {
    /// XLogFileName.
    pub fn from_number(timeline: Timeline, number: u64, size: SegmentSize) -> Self {
        let per_log = size.segments_per_log();
        Self { timeline, log: (number / per_log) as u32, segment: (number % per_log) as u32 }
    }

    /// The segment of `timeline` that holds `lsn`.
    pub fn containing(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self::from_number(timeline, size.segment_of(lsn), size)
    }

    /// XLogFromFileName. Fails when the segment part is beyond what this size allows.
    pub fn number(self, size: SegmentSize) -> Result<u64> {
        if u64::from(self.segment) >= size.segments_per_log() {
            return Err(Error::corrupt(format!(
                "segment name {self} is not possible with segments of {} bytes",
                size.bytes()
            )));
        }
        Ok(u64::from(self.log) * size.segments_per_log() + u64::from(self.segment))
    }

    /// The LSN of the segment's first byte.
    pub fn start(self, size: SegmentSize) -> Result<Lsn> {
        Ok(size.start_of(self.number(size)?))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.segment)
    }
}

/// Eight upper-case hex digits, no more and no less.
pub fn parse_hex8(text: &str) -> Option<u32> {
    let fits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if fits { u32::from_str_radix(text, 16).ok() } else { None }
}

impl FromStr for SegmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |range: std::ops::Range<usize>| text.get(range).and_then(parse_hex8);
        match (text.len(), part(0..8), part(8..16), part(16..24)) {
            (24, Some(timeline), Some(log), Some(segment)) if timeline > 0 => {
                Ok(Self { timeline: Timeline(timeline), log, segment })
            }
            _ => Err(not_a_wal_file(text)),
        }
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Every kind of file that PostgreSQL archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalFile {
    Segment(SegmentName),
    /// The last, unfinished segment of a timeline that a promotion ended.
    Partial(SegmentName),
    /// Timeline history.
    History(Timeline),
    /// Backup history: the segment in which the backup starts, and the start's offset within it.
    BackupHistory(SegmentName, u32),
}

impl WalFile {
    pub fn timeline(self) -> Timeline {
        match self {
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupHistory(name, _) => {
                name.timeline
            }
            WalFile::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFile::Segment(name) => write!(f, "{name}"),
            WalFile::Partial(name) => write!(f, "{name}.partial"),
            WalFile::History(timeline) => write!(f, "{:08X}.history", timeline.0),
            WalFile::BackupHistory(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || not_a_wal_file(text);
        match text.split_once('.') {
            None => text.parse().map(WalFile::Segment),
            Some((name, "partial")) => name.parse().map(WalFile::Partial).map_err(|_| refused()),
            Some((timeline, "history")) => parse_hex8(timeline)
                .filter(|timeline| *timeline > 0)
                .map(|timeline| WalFile::History(Timeline(timeline)))
                .ok_or_else(refused),
            Some((name, rest)) => {
                let offset = rest.strip_suffix(".backup").and_then(parse_hex8).ok_or_else(refused)?;
                name.parse().map(|name| WalFile::BackupHistory(name, offset)).map_err(|_| refused())
            }
        }
    }
}

fn not_a_wal_file(text: &str) -> Error {
    Error::configuration(format!("\"{text}\" is not the name of a WAL file")).with_hint(
        "expected a segment (24 hex digits), <segment>.partial, <timeline>.history or <segment>.<offset>.backup",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::try_from(mib << 20).expect("a valid size")
    }

    #[test]
    fn the_carry_into_the_log_number_depends_on_the_segment_size() {
        for (mib, last) in [(1, 0xFFF), (16, 0xFF), (64, 0x3F), (1024, 3)] {
            let name = SegmentName { timeline: Timeline(1), log: 7, segment: last };
            let number = name.number(size(mib)).expect("possible");
            let next = SegmentName::from_number(Timeline(1), number + 1, size(mib));
            assert_eq!(next, SegmentName { timeline: Timeline(1), log: 8, segment: 0 });
            assert!(SegmentName { segment: last + 1, ..name }.number(size(mib)).is_err());
        }
    }

    #[test]
    fn every_kind_of_wal_file_survives_its_name() {
        for text in [
            "000000010000000000000001",
            "0000000A00000010000000FE.partial",
            "00000002.history",
            "000000010000000000000002.00000028.backup",
        ] {
            assert_eq!(text.parse::<WalFile>().map(|file| file.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            ".",
            "..",
            "000000010000000000000001.gz",
            "00000001000000000000000a",
            "00000001.History",
            "000000000000000000000001",
            "00000000.history",
            "000000010000000000000001.partial.x",
            "000000010000000000000002.28.backup",
            "../000000010000000000000001",
            "RECOVERYXLOG",
            "000000010000000000000002.backup",
            "archive_status",
            "00000001000000000000000\u{e9}",
        ] {
            assert!(text.parse::<WalFile>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_name_never_panics(text in "\\PC{0,44}") {
            if let Ok(file) = text.parse::<WalFile>() {
                prop_assert_eq!(file.to_string(), text);
            }
        }

        #[test]
        fn numbers_and_names_agree(number in 0u64..1 << 44, shift in 20u32..=30) {
            let size = SegmentSize::try_from(1u64 << shift).expect("valid");
            let number = number % (size.segments_per_log() << 32);
            let name = SegmentName::from_number(Timeline(3), number, size);
            prop_assert_eq!(name.number(size), Ok(number));
        }
    }
}
