//! One WAL record: its header, its checksum, and where its main data lies (xlogrecord.h, xlogreader.c
//! DecodeXLogRecord and ValidXLogRecord).
//!
//! A record may be spread over pages and segments, so it is read through [`RecordBytes`], which may hold
//! only parts of it. A reader that needs bytes which are not held stops with [`Stop::Missing`] and is run
//! again, from the start, once they are there. So one decoder serves records that lie in one piece, those
//! that span pages (of which only the needed bytes are kept) and those joined from two segments.

use super::bytes::Reader;
use super::header::WalFormat;
use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::page::BlockNumber;
use crate::pg::relfile::RelFileLocator;

/// SizeOfXLogRecord.
pub(super) const RECORD_HEADER: usize = 24;
/// The part of the header that the checksum covers: all but the checksum itself.
const CHECKSUMMED_HEADER: usize = 20;
/// Longer than any record: PostgreSQL refuses more than 1020 MiB since 16 (XLogRecordMaxSize), and could
/// not read back more than 1 GiB before (MaxAllocSize).
pub(super) const MAX_RECORD: u32 = 1 << 30;

const XLR_MAX_BLOCK_ID: u8 = 32;
const XLR_BLOCK_ID_TOPLEVEL_XID: u8 = 252;
const XLR_BLOCK_ID_ORIGIN: u8 = 253;
const XLR_BLOCK_ID_DATA_LONG: u8 = 254;
const XLR_BLOCK_ID_DATA_SHORT: u8 = 255;
const BKPBLOCK_HAS_IMAGE: u8 = 0x10;
const BKPBLOCK_SAME_REL: u8 = 0x80;
const BKPBLOCK_FORK_MASK: u8 = 0x0F;
pub(super) const BKPIMAGE_HAS_HOLE: u8 = 0x01;

/// XLogRecord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub total_len: u32,
    pub xid: u32,
    pub prev: Lsn,
    pub info: u8,
    pub rmgr: u8,
    pub checksum: u32,
}

impl RecordHeader {
    #[inline]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = Reader(record);
        let total_len = fields.u32()?;
        let xid = fields.u32()?;
        let prev = Lsn(fields.u64()?);
        let info = fields.u8()?;
        let rmgr = fields.u8()?;
        fields.u16()?; // padding
        let checksum = fields.u32()?;
        Some(Self { total_len, xid, prev, info, rmgr, checksum })
    }
}

/// The checksum of a record whose bytes behind the header have the checksum `of_data`: the header comes
/// last, without its checksum field (ValidXLogRecord).
#[inline]
pub(super) fn checksum(of_data: u32, record: &[u8]) -> u32 {
    record.get(..CHECKSUMMED_HEADER).map_or(of_data, |header| crc32c::crc32c_append(of_data, header))
}

/// Why a record could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// These bytes of the record are needed and not held.
    Missing { at: u32, len: u32 },
    /// PostgreSQL writes no such record.
    Malformed(&'static str),
}

/// A record of which all or some bytes are held.
pub(super) trait RecordBytes {
    fn total_len(&self) -> u32;

    /// The bytes [at, at + len) if they are held; `at + len` is within the record.
    fn held(&self, at: u32, len: u32) -> Option<&[u8]>;

    fn get(&self, at: u32, len: u32) -> Result<&[u8], Stop> {
        if at.checked_add(len).is_none_or(|end| end > self.total_len()) {
            return Err(Stop::Malformed("it is shorter than what it should hold"));
        }
        self.held(at, len).ok_or(Stop::Missing { at, len })
    }

    fn header(&self) -> Result<RecordHeader, Stop> {
        let bytes = self.get(0, RECORD_HEADER as u32)?;
        RecordHeader::parse(bytes).ok_or(Stop::Malformed("it has no header"))
    }
}

/// A record that lies in one piece.
pub(super) struct Whole<'a>(pub &'a [u8]);

impl RecordBytes for Whole<'_> {
    fn total_len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn held(&self, at: u32, len: u32) -> Option<&[u8]> {
        self.0.get(at as usize..)?.get(..len as usize)
    }
}

/// Reads forward through a record.
pub(super) struct Cursor<'a, R> {
    record: &'a R,
    pub at: u32,
}

impl<'a, R: RecordBytes> Cursor<'a, R> {
    pub fn new(record: &'a R, at: u32) -> Self {
        Self { record, at }
    }

    pub fn bytes(&mut self, len: u32) -> Result<&'a [u8], Stop> {
        let bytes = self.record.get(self.at, len)?;
        self.at = self.at.saturating_add(len);
        Ok(bytes)
    }

    /// Skips `count` items of `size` bytes.
    pub fn skip(&mut self, count: u32, size: u32) -> Result<(), Stop> {
        let end = u64::from(count) * u64::from(size) + u64::from(self.at);
        let end = u32::try_from(end).ok().filter(|end| *end <= self.record.total_len());
        self.at = end.ok_or(Stop::Malformed("it is shorter than the items it counts"))?;
        Ok(())
    }

    fn field<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.bytes(N as u32)?;
        bytes.first_chunk().copied().ok_or(Stop::Malformed("it is shorter than its fields"))
    }

    pub fn u8(&mut self) -> Result<u8, Stop> {
        self.field().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Stop> {
        self.field().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Stop> {
        self.field().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Stop> {
        self.field().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Stop> {
        self.field().map(u64::from_le_bytes)
    }

    /// RelFileLocator (RelFileNode up to 15).
    pub fn locator(&mut self) -> Result<RelFileLocator, Stop> {
        let (tablespace, database) = (Oid(self.u32()?), Oid(self.u32()?));
        Ok(RelFileLocator { tablespace, database, number: Oid(self.u32()?) })
    }

    pub fn i64(&mut self) -> Result<i64, Stop> {
        self.field().map(i64::from_le_bytes)
    }
}

/// The part of a record that belongs to its resource manager alone: always the last bytes of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MainData {
    pub at: u32,
    pub len: u32,
}

/// Goes through the headers of block references and data, and checks that what they announce is what
/// follows them: a wrong total length shows here even where the checksum is out of reach.
pub(super) fn main_data<R: RecordBytes>(record: &R, format: WalFormat) -> Result<MainData, Stop> {
    headers(record, format, &mut |_| {})
}

/// The same; `visit` sees each block reference's header.
pub(super) fn headers<R: RecordBytes>(
    record: &R,
    format: WalFormat,
    visit: &mut dyn FnMut(BlockHeader),
) -> Result<MainData, Stop> {
    let total = record.total_len();
    let mut cursor = Cursor::new(record, RECORD_HEADER as u32);
    let mut payload: u64 = 0;
    let mut main_len = 0;
    let mut next_block = 0;
    while u64::from(total.saturating_sub(cursor.at)) > payload {
        match cursor.u8()? {
            XLR_BLOCK_ID_DATA_SHORT => main_len = u32::from(cursor.u8()?),
            XLR_BLOCK_ID_DATA_LONG => main_len = cursor.u32()?,
            XLR_BLOCK_ID_ORIGIN => {
                cursor.u16()?;
                continue;
            }
            XLR_BLOCK_ID_TOPLEVEL_XID => {
                cursor.u32()?;
                continue;
            }
            id if (next_block..=XLR_MAX_BLOCK_ID).contains(&id) => {
                next_block = id + 1;
                let block = block_header(&mut cursor, format)?;
                payload += u64::from(block.payload());
                visit(block);
                continue;
            }
            _ => return Err(Stop::Malformed("it names a part that no record has")),
        }
        payload += u64::from(main_len);
        break;
    }
    if u64::from(total.saturating_sub(cursor.at)) != payload {
        return Err(Stop::Malformed("its length is not that of its parts"));
    }
    Ok(MainData { at: total - main_len, len: main_len })
}

/// XLogRecordBlockHeader with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub fork: u8,
    /// Bytes of data behind the image.
    pub data: u16,
    pub image: Option<ImageHeader>,
    /// None: that of the block before.
    pub file: Option<RelFileLocator>,
    pub block: BlockNumber,
}

/// XLogRecordBlockImageHeader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageHeader {
    pub len: u16,
    pub hole_offset: u16,
    pub info: u8,
    /// Only of a compressed image; else what is missing up to the size of a page.
    pub hole_length: Option<u16>,
}

impl BlockHeader {
    /// Bytes behind all headers.
    pub fn payload(&self) -> u32 {
        u32::from(self.data) + self.image.map_or(0, |image| u32::from(image.len))
    }
}

/// Reads one block reference's header, behind its id.
fn block_header<R: RecordBytes>(cursor: &mut Cursor<'_, R>, format: WalFormat) -> Result<BlockHeader, Stop> {
    let flags = cursor.u8()?;
    let data = cursor.u16()?;
    let image = if flags & BKPBLOCK_HAS_IMAGE == 0 { None } else { Some(image_header(cursor, format)?) };
    let file = if flags & BKPBLOCK_SAME_REL == 0 { Some(cursor.locator()?) } else { None };
    let block = BlockNumber(cursor.u32()?);
    Ok(BlockHeader { fork: flags & BKPBLOCK_FORK_MASK, data, image, file, block })
}

fn image_header<R: RecordBytes>(cursor: &mut Cursor<'_, R>, format: WalFormat) -> Result<ImageHeader, Stop> {
    let (len, hole_offset, info) = (cursor.u16()?, cursor.u16()?, cursor.u8()?);
    let with_length = info & BKPIMAGE_HAS_HOLE != 0 && info & compressed(format) != 0;
    let hole_length = if with_length { Some(cursor.u16()?) } else { None };
    Ok(ImageHeader { len, hole_offset, info, hole_length })
}

/// Flags of a compressed page image: BKPIMAGE_IS_COMPRESSED in 14, one per method since 15.
pub(super) fn compressed(format: WalFormat) -> u8 {
    if format == WalFormat::V14 { 0x02 } else { 0x04 | 0x08 | 0x10 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_HEADER];
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes
    }

    fn block(id: u8, flags: u8, data: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![id, flags];
        bytes.extend(data.to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    const V15: WalFormat = WalFormat::V15;

    #[test]
    fn main_data_lies_behind_everything_else() {
        let plain = record(&[&[255, 3], b"abc"]);
        assert_eq!(main_data(&Whole(&plain), V15), Ok(MainData { at: 26, len: 3 }));
        let marked = record(&[&[253, 1, 0], &[252, 9, 0, 0, 0], &[254, 2, 0, 0, 0], b"xy"]);
        assert_eq!(main_data(&Whole(&marked), V15), Ok(MainData { at: 37, len: 2 }));
        let blocks = record(&[
            &block(0, 0x20, 5, &[0; 16]),
            &block(1, 0xA0, 4, &[0; 4]),
            &[255, 1],
            b"fiveS",
            b"four",
            b"M",
        ]);
        let total = blocks.len() as u32;
        assert_eq!(main_data(&Whole(&blocks), V15), Ok(MainData { at: total - 1, len: 1 }));
        assert_eq!(main_data(&Whole(&record(&[])), V15), Ok(MainData { at: 24, len: 0 }));
    }

    #[test]
    fn compressed_images_are_flagged_differently_in_14() {
        let image = |info: u8, more: &[u8]| {
            let mut rest = vec![3, 0, 1, 0, info];
            rest.extend(more);
            rest.extend([0; 16]);
            record(&[&block(0, 0x10, 0, &rest), b"img"])
        };
        let with_hole_length = [7, 0];
        for (format, info, more) in [
            (WalFormat::V14, 0x03, &with_hole_length[..]),
            (WalFormat::V14, 0x05, &[]),
            (WalFormat::V15, 0x05, &with_hole_length),
            (WalFormat::V18, 0x13, &with_hole_length),
            (WalFormat::V15, 0x03, &[]),
        ] {
            let bytes = image(info, more);
            assert!(main_data(&Whole(&bytes), format).is_ok(), "{format:?} {info}");
        }
        assert!(main_data(&Whole(&image(0x05, &with_hole_length)), WalFormat::V14).is_err());
    }

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        for bytes in [
            record(&[&[255, 3], b"ab"]),
            record(&[&[255, 3], b"abcd"]),
            record(&[&[254, 0xFF, 0xFF, 0xFF, 0xFF], b"ab"]),
            record(&[&[200]]),
            record(&[&block(1, 0x80, 0, &[0; 4]), &block(1, 0x80, 0, &[0; 4]), &[255, 0]]),
            record(&[&block(0, 0, 0, &[0; 3])]),
        ] {
            assert!(matches!(main_data(&Whole(&bytes), V15), Err(Stop::Malformed(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn locating_main_data_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(main) = main_data(&Whole(&bytes), V15) {
                prop_assert_eq!((main.at + main.len) as usize, bytes.len());
            }
        }
    }
}
