//! WAL made by hand for tests: records laid out over pages and segments as CopyXLogRecordToWAL does.

use super::header::{SegmentHeader, WalFormat};
use super::page::SHORT_HEADER;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;

pub(super) const SEGMENT: u64 = 1 << 20;
pub(super) const SYSTEM_ID: u64 = 0x6543_2100_1234_5678;
/// The first segment that is made.
const FIRST: u64 = 3;

/// Resource managers and kinds of records, as the walk's own constants are not for tests to trust.
pub(super) const XLOG: u8 = 0;
pub(super) const XACT: u8 = 1;
pub(super) const TBLSPC: u8 = 5;
pub(super) const HEAP: u8 = 10;
pub(super) const SWITCH: u8 = 0x40;
pub(super) const OVERWRITE: u8 = 0xD0;

pub(crate) struct Synthetic {
    format: WalFormat,
    block: usize,
    pub timeline: u32,
    /// From the start of the first segment on.
    pub bytes: Vec<u8>,
    pub previous: u64,
    /// The flags of the next page's header.
    pub next_flags: u16,
}

impl std::fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} WAL of {} bytes in blocks of {}", self.format, self.bytes.len(), self.block)
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub lsn: Lsn,
    pub end: Lsn,
}

impl Synthetic {
    pub fn new(format: WalFormat, block: usize) -> Self {
        Self { format, block, timeline: 5, bytes: Vec::new(), previous: 777, next_flags: 0 }
    }

    pub fn v15() -> Self {
        Self::new(WalFormat::V15, 8192)
    }

    pub fn position(&self) -> u64 {
        FIRST * SEGMENT + self.bytes.len() as u64
    }

    pub fn left_in_segment(&self) -> usize {
        (SEGMENT - self.position() % SEGMENT) as usize
    }

    fn page_header(&mut self, remaining: usize) {
        let position = self.position();
        let long = position.is_multiple_of(SEGMENT);
        let flags = std::mem::take(&mut self.next_flags)
            | if remaining > 0 { 1 } else { 0 }
            | if long { 2 } else { 0 };
        self.bytes.extend(self.format.magic().to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(position.to_le_bytes());
        self.bytes.extend((remaining as u64).to_le_bytes());
        if long {
            self.bytes.extend(SYSTEM_ID.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((self.block as u32).to_le_bytes());
        }
    }

    /// A record with its checksum, to be put at the present position.
    pub fn record(&self, rmgr: u8, info: u8, xid: u32, rest: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((24 + rest.len() as u32).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(rest), &record);
        record.extend(crc.to_le_bytes());
        record.extend(rest);
        record
    }

    /// Lays out a record, and padding behind it.
    pub fn put(&mut self, record: &[u8]) -> Place {
        let mut lsn = None;
        let mut rest = record;
        while !rest.is_empty() {
            if self.bytes.len().is_multiple_of(self.block) {
                self.page_header(if lsn.is_some() { rest.len() } else { 0 });
            }
            lsn.get_or_insert(Lsn(self.position()));
            let room = self.block - self.bytes.len() % self.block;
            let (here, behind) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(here);
            rest = behind;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let place = Place { lsn: lsn.expect("a record"), end: Lsn(self.position()) };
        self.previous = place.lsn.0;
        place
    }

    /// A record with main data only.
    pub fn insert(&mut self, rmgr: u8, info: u8, xid: u32, main: &[u8]) -> Place {
        let record = self.record(rmgr, info, xid, &with_data_header(main));
        self.put(&record)
    }

    /// A record of no interest that takes `length` bytes of main data.
    pub fn filler(&mut self, length: usize) -> Place {
        let main: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        self.insert(HEAP, 0, 0, &main)
    }

    /// Fills the segment with records of no interest until `left` bytes of it (a multiple of 8) remain.
    pub fn fill_until(&mut self, left: usize) {
        while self.bytes.is_empty() || self.left_in_segment() > left + 40_000 {
            self.filler(5000);
        }
        let (from, to) = (self.bytes.len(), self.bytes.len() + self.left_in_segment() - left);
        let pages = (from..to).step_by(8).filter(|at| at.is_multiple_of(self.block)).count();
        self.filler(to - from - pages * SHORT_HEADER - 24 - 5);
        assert_eq!(self.left_in_segment() % SEGMENT as usize, left);
    }

    pub fn switch(&mut self) -> Place {
        let record = self.record(XLOG, SWITCH, 0, &[]);
        let place = self.put(&record);
        let left = (SEGMENT - self.position() % SEGMENT) % SEGMENT;
        self.bytes.resize(self.bytes.len() + left as usize, 0);
        place
    }

    /// The page that is next replaces the record at `lsn`, which was cut off.
    pub fn overwrite(&mut self, lsn: Lsn) -> Place {
        self.next_flags = 8;
        let mut main = lsn.0.to_le_bytes().to_vec();
        main.extend(1_u64.to_le_bytes());
        self.insert(XLOG, OVERWRITE, 0, &main)
    }

    /// The first part of a record, up to the end of its `pages`-th page; the rest was never written.
    pub fn cut_off(&mut self, record: &[u8], pages: usize) -> Place {
        let previous = self.previous;
        let start = self.bytes.len() / self.block;
        let place = self.put(record);
        assert!(self.bytes.len() > (start + pages) * self.block, "the record is too short to be cut off");
        self.bytes.truncate((start + pages) * self.block);
        self.previous = previous;
        place
    }

    /// The whole segments, the last one filled with zeros.
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let chunks = self.bytes.chunks(SEGMENT as usize);
        chunks
            .map(|chunk| {
                let mut segment = chunk.to_vec();
                segment.resize(SEGMENT as usize, 0);
                segment
            })
            .collect()
    }

    pub fn name(&self, index: usize) -> SegmentName {
        let size = SegmentSize::try_from(SEGMENT).expect("a size");
        SegmentName::from_number(Timeline(self.timeline), FIRST + index as u64, size)
    }
}

pub(super) fn header_of(segment: &[u8]) -> SegmentHeader {
    SegmentHeader::parse(segment).expect("a header")
}

/// Main data behind its short or long header.
pub(super) fn with_data_header(main: &[u8]) -> Vec<u8> {
    let mut bytes = match u8::try_from(main.len()) {
        Ok(length) => vec![255, length],
        Err(_) => {
            let mut long = vec![254];
            long.extend((main.len() as u32).to_le_bytes());
            long
        }
    };
    bytes.extend(main);
    bytes
}

/// Main data of the end of a transaction: its time, then (if `info` has 0x80) what `xinfo` announces.
pub(super) struct End {
    pub time: i64,
    pub subxacts: u32,
    pub relations: u32,
    pub stats: u32,
    pub invals: u32,
    pub twophase_xid: Option<u32>,
}

impl End {
    pub fn at(time: i64) -> Self {
        Self { time, subxacts: 0, relations: 0, stats: 0, invals: 0, twophase_xid: None }
    }

    pub fn main_data(&self, stats_item: usize) -> Vec<u8> {
        let mut xinfo = 1_u32;
        let mut parts = vec![7; 8];
        let lists = [
            (self.subxacts, 1 << 1, 4),
            (self.relations, 1 << 2, 12),
            (self.stats, 1 << 8, stats_item),
            (self.invals, 1 << 3, 16),
        ];
        for (count, flag, size) in lists {
            if count > 0 {
                xinfo |= flag;
                parts.extend(count.to_le_bytes());
                parts.extend((0..count as usize * size).map(|n| (n % 7) as u8));
            }
        }
        if let Some(xid) = self.twophase_xid {
            xinfo |= 1 << 4 | 1 << 7;
            parts.extend(xid.to_le_bytes());
            parts.extend(b"the gid\0");
        }
        let mut main = self.time.to_le_bytes().to_vec();
        main.extend(xinfo.to_le_bytes());
        main.extend(parts);
        main
    }
}
