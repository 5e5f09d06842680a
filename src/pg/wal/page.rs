//! The header that every WAL page starts with (xlog_internal.h, XLogPageHeaderData), and the longer one of
//! a segment's first page (XLogLongPageHeaderData). Reads the fields and says what is wrong with them at
//! their place; whether that refuses a file or is noted as damage is for `header` and `walk` to decide.

use std::ops::RangeInclusive;

use super::bytes::Reader;
use super::header::SegmentHeader;
use crate::pg::lsn::{Lsn, SystemId, Timeline};

/// SizeOfXLogShortPHD, SizeOfXLogLongPHD.
pub(super) const SHORT_HEADER: usize = 24;
pub(super) const LONG_HEADER: usize = 40;

const XLP_FIRST_IS_CONTRECORD: u16 = 0x1;
const XLP_LONG_HEADER: u16 = 0x2;
const XLP_FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x8;
const XLP_ALL_FLAGS: u16 = 0xF;

/// The LSN that a page says it has. None: it is too short to say one.
pub fn page_address(page: &[u8]) -> Option<Lsn> {
    PageHeader::parse(page).map(|(header, _)| header.address)
}

/// A page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub magic: u16,
    flags: u16,
    pub timeline: Timeline,
    pub address: Lsn,
    /// How many bytes of a record begun on an earlier page are still to come, from this page on.
    pub remaining: u32,
    /// Only on a segment's first page.
    pub long: Option<LongPart>,
}

/// What only the longer header holds. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongPart {
    pub system_id: SystemId,
    pub segment_size: u32,
    pub block_size: u32,
}

impl PageHeader {
    /// The header and what follows it. None if the page is too short for its header.
    #[inline]
    pub fn parse(page: &[u8]) -> Option<(PageHeader, &[u8])> {
        let mut fields = Reader(page);
        let magic = fields.u16()?;
        let flags = fields.u16()?;
        let timeline = Timeline(fields.u32()?);
        let address = Lsn(fields.u64()?);
        let remaining = fields.u32()?;
        fields.u32()?; // alignment
        let long = if flags & XLP_LONG_HEADER == 0 { None } else { Some(LongPart::parse(&mut fields)?) };
        Some((PageHeader { magic, flags, timeline, address, remaining, long }, fields.0))
    }

    /// The first bytes continue a record that began on an earlier page.
    pub fn continues_record(self) -> bool {
        self.flags & XLP_FIRST_IS_CONTRECORD != 0
    }

    /// A crash cut off the record that this page should continue; the page begins with a record that says
    /// so instead (xlog.c, CreateOverwriteContrecordRecord).
    pub fn replaces_record(self) -> bool {
        self.flags & XLP_FIRST_IS_OVERWRITE_CONTRECORD != 0
    }

    /// Flags that no version up to 18 knows.
    pub fn unknown_flags(self) -> u16 {
        self.flags & !XLP_ALL_FLAGS
    }

    /// What is wrong with the page at `address` of the segment with this header, if something is
    /// (XLogReaderValidatePageHeader).
    pub fn fault(
        &self,
        segment: &SegmentHeader,
        address: Lsn,
        timelines: RangeInclusive<Timeline>,
    ) -> Option<String> {
        let magic = segment.format.magic();
        if self.magic != magic {
            return Some(format!("page magic is 0x{:04X} instead of 0x{magic:04X}", self.magic));
        }
        if self.unknown_flags() != 0 {
            return Some(format!("page flags 0x{:04X} are unknown", self.unknown_flags()));
        }
        if self.replaces_record() && (self.continues_record() || self.remaining > 0) {
            return Some("the page both continues and replaces a record".to_string());
        }
        if self.address != address {
            return Some(format!("page address is {}", self.address));
        }
        if !timelines.contains(&self.timeline) {
            let (from, to) = (timelines.start(), timelines.end());
            return Some(format!("page timeline is {}, outside of {from} to {to}", self.timeline));
        }
        match self.long {
            None if address == segment.page_address => {
                Some("the first page has the short header of a later one".to_string())
            }
            None => None,
            Some(long) => long.fault(segment),
        }
    }
}

impl LongPart {
    fn parse(fields: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            system_id: SystemId(fields.u64()?),
            segment_size: fields.u32()?,
            block_size: fields.u32()?,
        })
    }

    fn fault(&self, segment: &SegmentHeader) -> Option<String> {
        let (size, block) = (segment.segment_size.bytes(), segment.block_size);
        if self.system_id != segment.system_id {
            return Some(format!("system identifier is {} instead of {}", self.system_id, segment.system_id));
        }
        if u64::from(self.segment_size) != size {
            return Some(format!("segment size is {} instead of {size}", self.segment_size));
        }
        (self.block_size != block).then(|| format!("block size is {} instead of {block}", self.block_size))
    }
}
