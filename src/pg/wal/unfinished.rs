//! The last record of a segment, if it goes on in the next: what lies here of it, so that a reader who has
//! the following segment (or its first pages) can join both and learn what the record says.
//!
//! Only the bytes that decoding needs are kept, at most about 2 KiB however long the record is, besides
//! the checksum of all its bytes so far. So the joined record is checked as a whole one is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::decode::may_matter;
use super::facts::SegmentFacts;
use super::header::SegmentHeader;
use super::page::{LONG_HEADER, SHORT_HEADER};
use super::record::RecordHeader;
use super::walk::{Extent, Walk};
use crate::error::{Error, Result};
use crate::pg::lsn::Lsn;
use crate::pg::names::SegmentName;

/// The part of a record that lies in the segments up to `next`. Lengths and offsets in bytes of the
/// record, without page headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Where the record starts.
    pub lsn: Lsn,
    /// The first byte of the segment that continues it.
    pub next: Lsn,
    /// The record's length.
    pub length: u32,
    /// How many of its bytes lie in front of `next`.
    pub here: u32,
    /// CRC-32C of those, from offset 24 (behind the record's header) on.
    pub crc: u32,
    /// Those that are needed to decode it.
    pub pieces: Vec<Piece>,
}

/// A run of the record's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its offset within the record.
    pub at: u32,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub bytes: Vec<u8>,
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Unfinished {
    /// May the record hold a fact? Records of most kinds need no joining; one whose header is not all here
    /// might be any.
    pub fn may_matter(&self) -> bool {
        let header = self.pieces.first().filter(|piece| piece.at == 0);
        header.and_then(|piece| RecordHeader::parse(&piece.bytes)).is_none_or(|header| may_matter(&header))
    }

    /// How many bytes from the start of the next segment hold the rest of the record: at most the whole
    /// segment, of a record that does not end there either.
    pub fn needed_of_next(&self, next: &SegmentHeader) -> u64 {
        let segment = next.segment_size.bytes();
        let block = u64::from(next.block_size);
        let rest = u64::from(self.length.saturating_sub(self.here));
        let on_first_page = block.saturating_sub(LONG_HEADER as u64);
        let on_later_page = block.saturating_sub(SHORT_HEADER as u64).max(1);
        let later_pages = rest.saturating_sub(on_first_page).div_ceil(on_later_page);
        later_pages.saturating_add(1).saturating_mul(block).min(segment)
    }
}

/// What the unfinished record says, by joining it with the start of the segment that follows it: at least
/// [`Unfinished::needed_of_next`] bytes of that. (For a record of many megabytes, feed [`Walk::join`].)
///
/// The facts are those of this one record. Without a record they say either `unfinished` (it goes on in
/// yet another segment: join that), or damage, or nothing at all: then a crash cut the record off and
/// PostgreSQL wrote others in its place, so it never was.
pub fn join_unfinished(
    unfinished: &Unfinished,
    next: &SegmentHeader,
    name: SegmentName,
    first_bytes: &[u8],
) -> Result<SegmentFacts> {
    let needed = unfinished.needed_of_next(next);
    if (first_bytes.len() as u64) < needed {
        return Err(Error::bug(format!(
            "could not join the record at {}: {} bytes of segment {name} were given, {needed} are needed",
            unfinished.lsn,
            first_bytes.len()
        )));
    }
    let mut walk = Walk::join(unfinished, next, name, Extent::Whole)?;
    walk.feed(first_bytes);
    Ok(walk.finish())
}
