//! What the first page of a segment says about the file: which PostgreSQL wrote it, for which cluster,
//! at which place in the WAL. Refuses a file that is no segment of PostgreSQL 14 to 18, or not the one
//! that its name says.
//!
//! Sources: xlog_internal.h (XLOG_PAGE_MAGIC), xlogreader.c (XLogReaderValidatePageHeader), xlog.c
//! (XLogInitNewTimeline: the first segment of a timeline starts as a copy of the old timeline's).

use super::page::{LONG_HEADER, LongPart, PageHeader};
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;

/// The layout of WAL pages and records, one per major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFormat {
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl WalFormat {
    const ALL: [WalFormat; 5] =
        [WalFormat::V14, WalFormat::V15, WalFormat::V16, WalFormat::V17, WalFormat::V18];

    /// XLOG_PAGE_MAGIC.
    pub fn magic(self) -> u16 {
        match self {
            WalFormat::V14 => 0xD10D,
            WalFormat::V15 => 0xD110,
            WalFormat::V16 => 0xD113,
            WalFormat::V17 => 0xD116,
            WalFormat::V18 => 0xD118,
        }
    }

    /// The major version of PostgreSQL that writes it.
    pub fn major(self) -> u32 {
        match self {
            WalFormat::V14 => 14,
            WalFormat::V15 => 15,
            WalFormat::V16 => 16,
            WalFormat::V17 => 17,
            WalFormat::V18 => 18,
        }
    }

    pub fn from_magic(magic: u16) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.magic() == magic).ok_or_else(|| unknown_magic(magic))
    }
}

fn unknown_magic(magic: u16) -> Error {
    let known: Vec<String> = WalFormat::ALL
        .iter()
        .map(|format| format!("0x{:04X} (PostgreSQL {})", format.magic(), format.major()))
        .collect();
    let swapped = WalFormat::ALL.iter().any(|format| format.magic() == magic.swap_bytes());
    let error = Error::corrupt(format!(
        "could not read the WAL segment: page magic 0x{magic:04X} is none of {}",
        known.join(", ")
    ));
    match (magic, swapped) {
        (_, true) => error.with_hint("it was written on a big-endian machine, which pgark does not support"),
        (0, _) => error.with_hint("the file starts with zeros: PostgreSQL has written no WAL into it"),
        _ => error,
    }
}

/// The header of a segment's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub format: WalFormat,
    pub system_id: SystemId,
    /// The timeline of the first page: see [`TimelineMatch`].
    pub timeline: Timeline,
    /// The LSN of the file's first byte.
    pub page_address: Lsn,
    pub segment_size: SegmentSize,
    /// The size of a WAL page (XLOG_BLCKSZ) in bytes: a power of two from 1 KiB to 64 KiB.
    pub block_size: u32,
}

/// How the timeline of the first page relates to the one in the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimelineMatch {
    Same,
    /// The first page was written on this older timeline. That is right only if the history of the name's
    /// timeline says that it left the older one within this segment.
    Older(Timeline),
}

impl SegmentHeader {
    /// How many bytes from the start of the file [`SegmentHeader::parse`] needs.
    pub const LENGTH: usize = LONG_HEADER;

    /// From the first bytes of a file, at least [`SegmentHeader::LENGTH`].
    pub fn parse(first_bytes: &[u8]) -> Result<Self> {
        let refused = |cause: &str| Error::corrupt(format!("could not read the WAL segment: {cause}"));
        let too_short =
            || refused(&format!("{} bytes are fewer than its header's {LONG_HEADER}", first_bytes.len()));
        let magic =
            first_bytes.first_chunk().map(|bytes| u16::from_le_bytes(*bytes)).ok_or_else(too_short)?;
        let format = WalFormat::from_magic(magic)?;
        let (page, _) = PageHeader::parse(first_bytes).ok_or_else(too_short)?;
        if page.unknown_flags() != 0 {
            return Err(refused(&format!("unknown page flags 0x{:04X}", page.unknown_flags())));
        }
        let long = page.long.ok_or_else(|| {
            refused("its first page has the short header of a page from the middle of a segment")
        })?;
        Self::from_page(format, page, long).map_err(|cause| cause.context("could not read the WAL segment"))
    }

    fn from_page(format: WalFormat, page: PageHeader, long: LongPart) -> Result<Self> {
        let segment_size = SegmentSize::try_from(u64::from(long.segment_size))?;
        if !long.block_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&long.block_size) {
            return Err(Error::corrupt(format!(
                "{} is not a WAL block size: a power of two from 1 KiB to 64 KiB",
                long.block_size
            )));
        }
        if !page.address.0.is_multiple_of(segment_size.bytes()) {
            return Err(Error::corrupt(format!(
                "page address {} is not the start of a segment of {} bytes",
                page.address,
                segment_size.bytes()
            )));
        }
        if page.timeline == Timeline(0) {
            return Err(Error::corrupt("timeline 0 does not exist"));
        }
        Ok(Self {
            format,
            system_id: long.system_id,
            timeline: page.timeline,
            page_address: page.address,
            segment_size,
            block_size: long.block_size,
        })
    }

    /// Is a file of `file_size` bytes with this header what `name` says? Holds for whole segments and for
    /// `.partial` ones, which have the full size too.
    pub fn check(&self, name: SegmentName, file_size: u64) -> Result<TimelineMatch> {
        let refused = |cause: String| Error::corrupt(format!("could not accept WAL segment {name}: {cause}"));
        let size = self.segment_size;
        if file_size != size.bytes() {
            return Err(refused(format!(
                "it is {file_size} bytes long, but its header says {}",
                size.bytes()
            )));
        }
        let start = name.start(size)?;
        if start != self.page_address {
            let actual = SegmentName::containing(self.timeline, self.page_address, size);
            return Err(refused(format!(
                "its header says page address {} (segment {actual}), but its name says {start}",
                self.page_address
            )));
        }
        match self.timeline.cmp(&name.timeline) {
            std::cmp::Ordering::Equal => Ok(TimelineMatch::Same),
            std::cmp::Ordering::Less => Ok(TimelineMatch::Older(self.timeline)),
            std::cmp::Ordering::Greater => Err(refused(format!(
                "its header says timeline {}, which is later than its name's timeline {}",
                self.timeline, name.timeline
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;

    fn header_bytes(
        magic: u16,
        flags: u16,
        timeline: u32,
        address: u64,
        segment: u32,
        block: u32,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(magic.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(timeline.to_le_bytes());
        bytes.extend(address.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(7_654_321_u64.to_le_bytes());
        bytes.extend(segment.to_le_bytes());
        bytes.extend(block.to_le_bytes());
        bytes
    }

    fn good() -> Vec<u8> {
        header_bytes(0xD110, 2, 3, 0x1_0500_0000, 1 << 24, 8192)
    }

    fn name(text: &str) -> SegmentName {
        text.parse().expect("a name")
    }

    #[test]
    fn each_major_version_is_known_by_its_magic() {
        for (magic, major) in [(0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)] {
            let bytes = header_bytes(magic, 2, 1, 1 << 24, 1 << 24, 8192);
            let header = SegmentHeader::parse(&bytes).expect("good");
            assert_eq!(header.format.major(), major);
        }
    }

    #[test]
    fn every_field_is_read() {
        let header = SegmentHeader::parse(&good()).expect("good");
        assert_eq!(header.system_id, SystemId(7_654_321));
        assert_eq!(header.timeline, Timeline(3));
        assert_eq!(header.page_address, Lsn(0x1_0500_0000));
        assert_eq!(header.segment_size.bytes(), 1 << 24);
        assert_eq!(header.block_size, 8192);
    }

    #[test]
    fn a_file_that_is_no_segment_is_refused_with_its_reason() {
        let table: &[(&str, Vec<u8>, &str)] = &[
            ("empty", Vec::new(), "0 bytes are fewer than its header's 40"),
            ("short", good().into_iter().take(39).collect(), "39 bytes are fewer"),
            ("zeros", vec![0; 8192], "page magic 0x0000 is none of 0xD10D (PostgreSQL 14)"),
            ("version 13", header_bytes(0xD106, 2, 1, 0, 1 << 24, 8192), "page magic 0xD106"),
            ("short header", header_bytes(0xD110, 0, 1, 0, 1 << 24, 8192), "short header"),
            ("odd flags", header_bytes(0xD110, 0x12, 1, 0, 1 << 24, 8192), "page flags 0x0010"),
            (
                "segment size",
                header_bytes(0xD110, 2, 1, 0, 3 << 20, 8192),
                "3145728 is not a WAL segment size",
            ),
            ("block size", header_bytes(0xD110, 2, 1, 0, 1 << 24, 8000), "8000 is not a WAL block size"),
            ("tiny blocks", header_bytes(0xD110, 2, 1, 0, 1 << 24, 512), "512 is not a WAL block size"),
            ("address", header_bytes(0xD110, 2, 1, 8192, 1 << 24, 8192), "page address 0/2000 is not"),
            ("timeline", header_bytes(0xD110, 2, 0, 0, 1 << 24, 8192), "timeline 0"),
        ];
        for (case, bytes, expected) in table {
            let error = SegmentHeader::parse(bytes).expect_err(case);
            assert_eq!(error.kind(), Kind::Corrupt, "{case}");
            assert!(error.message().starts_with("could not read the WAL segment: "), "{case}: {error}");
            assert!(error.message().contains(expected), "{case}: {error}");
        }
    }

    #[test]
    fn a_big_endian_segment_is_called_so() {
        let error = SegmentHeader::parse(&[0xD1, 0x10, 0, 2]).expect_err("refused");
        assert!(error.hint().is_some_and(|hint| hint.contains("big-endian")));
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_refused() {
        let header = SegmentHeader::parse(&good()).expect("good");
        let size = 1 << 24;
        assert_eq!(header.check(name("000000030000000100000005"), size), Ok(TimelineMatch::Same));
        let table = [
            ("000000030000000100000006", size, "page address 1/5000000 (segment 000000030000000100000005)"),
            ("000000020000000100000005", size, "timeline 3, which is later than its name's timeline 2"),
            ("000000030000000100000005", size - 1, "16777215 bytes long, but its header says 16777216"),
            ("000000030000000100000105", size, "not possible with segments of"),
        ];
        for (text, size, expected) in table {
            let error = header.check(name(text), size).expect_err(text);
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_older_timeline_in_the_first_page_is_left_to_the_history() {
        let header = SegmentHeader::parse(&good()).expect("good");
        let outcome = header.check(name("000000070000000100000005"), 1 << 24);
        assert_eq!(outcome, Ok(TimelineMatch::Older(Timeline(3))));
    }

    proptest! {
        #[test]
        fn parsing_a_header_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut with_magic = bytes.clone();
            with_magic.splice(0..with_magic.len().min(4), [0x10, 0xD1, 2, 0]);
            for bytes in [bytes, with_magic] {
                if let Ok(header) = SegmentHeader::parse(&bytes) {
                    prop_assert_eq!(header.page_address.0 % header.segment_size.bytes(), 0);
                }
            }
        }
    }
}
