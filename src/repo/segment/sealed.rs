//! The object that a stored segment is, and its header: built, sealed with a checksum, parsed again.
//! `docs/repository-format.md`, "A stored segment", is the norm.
//!
//! Refuses a header of another kind or a newer version. Invariant: a header always fits its frame; facts
//! that do not go behind the data.

use serde::{Deserialize, Serialize};

use super::Description;
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::wal::SegmentFacts;
use crate::pipe::compress::Compressed;
use crate::pipe::decompress::Expected;
use crate::pipe::digest::{RawDigest, Sha256Digest};
use crate::repo::{Cluster, parse_versioned};

/// Bytes in front of a stored segment's data.
pub const HEADER_SIZE: usize = 4096;

/// zstd's first skippable frame magic, little-endian in the file.
const SKIPPABLE: u32 = 0x184D_2A50;
/// Magic and length.
pub(super) const FRAME_HEAD: usize = 8;
/// `{"crc32c":"01234567"}` and a newline, at the very end of the header.
const TRAILER: usize = 22;
/// What is left for the JSON.
pub(super) const ROOM: usize = HEADER_SIZE - FRAME_HEAD - TRAILER;
/// No facts are this long: `pg::wal` bounds each of its lists.
pub(super) const MAX_MORE: u64 = 16 << 20;

/// The version of this object's format.
const VERSION: u32 = 1;
const FORMAT: &str = "pgark segment";

/// The header of a stored segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSegment {
    pub format: String,
    pub version: u32,
    /// The name that PostgreSQL knows it by.
    pub name: String,
    pub system_id: SystemId,
    pub timeline: Timeline,
    pub postgres_major: u32,
    pub segment_size: SegmentSize,
    /// XLOG_BLCKSZ, bytes.
    pub wal_block_size: u32,
    /// Of a streamed part: where it ends, within the segment. Absent: all of the segment is here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streamed_to: Option<Lsn>,
    /// BLAKE3 of the raw bytes: decides "the same bytes again".
    pub blake3: RawDigest,
    /// Where the data is in the object.
    pub data: Extent,
    /// Where the facts are when they do not fit here; then `facts` has its lists emptied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub more: Option<Extent>,
    pub archived: jiff::Timestamp,
    /// The host that archived it.
    pub host: String,
    pub facts: SegmentFacts,
}

/// A run of bytes of a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub offset: u64,
    pub size: u64,
    pub sha256: Sha256Digest,
}

impl StoredSegment {
    /// What the header says of content that was just compressed.
    pub fn of(cluster: &Cluster, description: Description, compressed: &Compressed) -> Self {
        Self {
            format: FORMAT.to_string(),
            version: VERSION,
            name: description.file.to_string(),
            system_id: cluster.system_id(),
            timeline: description.file.timeline(),
            postgres_major: description.postgres_major,
            segment_size: description.segment_size,
            wal_block_size: description.wal_block_size,
            streamed_to: None,
            blake3: compressed.raw,
            data: Extent {
                offset: HEADER_SIZE as u64,
                size: compressed.body.len(),
                sha256: compressed.sha256,
            },
            more: None,
            archived: jiff::Timestamp::now(),
            host: description.host,
            facts: description.facts,
        }
    }

    /// Raw bytes that the object holds: the segment's size, or less of a streamed part.
    pub fn raw_size(&self) -> u64 {
        let size = self.segment_size.bytes();
        // A part that ends where the next segment begins would be all of this one.
        self.streamed_to.map_or(size, |end| end.0 % size)
    }

    pub fn expected(&self) -> Expected {
        Expected { stored: self.data.size, sha256: self.data.sha256, raw: self.raw_size() }
    }

    /// Moves the facts behind the data if they do not fit; answers with what goes there.
    pub fn fit(mut self) -> Result<(Self, Vec<u8>)> {
        if json(&self)?.len() <= ROOM {
            return Ok((self, Vec::new()));
        }
        let facts = json(&self.facts)?;
        let more = skippable(&facts)?;
        let offset = self.data.offset + self.data.size + FRAME_HEAD as u64;
        self.more = Some(Extent { offset, size: facts.len() as u64, sha256: Sha256Digest::of(&facts) });
        self.facts = without_lists(&self.facts);
        Ok((self, more))
    }
}

/// The facts that fit into any header: the lists keep only their counts.
fn without_lists(facts: &SegmentFacts) -> SegmentFacts {
    SegmentFacts {
        restore_points: facts.restore_points.emptied(),
        settings: facts.settings.emptied(),
        tablespaces: facts.tablespaces.emptied(),
        timelines: facts.timelines.emptied(),
        damage: facts.damage.emptied(),
        unfinished: None,
        ..facts.clone()
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))
}

pub(super) fn skippable(content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len()).map_err(|_| Error::bug("a skippable frame of over 4 GiB"))?;
    let mut frame = Vec::with_capacity(FRAME_HEAD + content.len());
    frame.extend_from_slice(&SKIPPABLE.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(content);
    Ok(frame)
}

/// The header as it is stored: the JSON, spaces up to the trailer, the trailer.
pub(super) fn seal(header: &StoredSegment) -> Result<Vec<u8>> {
    let mut content = json(header)?;
    if content.len() > ROOM {
        return Err(Error::bug(format!("the header of {} has {} bytes", header.name, content.len())));
    }
    content.resize(ROOM, b' ');
    let checksum = crc32c::crc32c(&content);
    content.extend_from_slice(format!("{{\"crc32c\":\"{checksum:08x}\"}}\n").as_bytes());
    skippable(&content)
}

/// Parses what [`seal`] wrote.
pub(super) fn unseal(bytes: &[u8], name: &str) -> Result<StoredSegment> {
    let damaged = |what: &str| Error::corrupt(format!("the header of {name} is damaged: {what}"));
    let frame_head = [SKIPPABLE.to_le_bytes(), ((HEADER_SIZE - FRAME_HEAD) as u32).to_le_bytes()].concat();
    let content = bytes.strip_prefix(&frame_head[..]).ok_or_else(|| damaged("it is not a pgark segment"))?;
    let (content, trailer) = content
        .split_at_checked(ROOM)
        .filter(|(_, t)| t.len() == TRAILER)
        .ok_or_else(|| damaged("it is cut off"))?;
    let expected = format!("{{\"crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(content));
    if trailer != expected.as_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    parse_versioned(content, name, (FORMAT, VERSION))
}

#[cfg(any(test, feature = "fuzzing"))]
/// A header of these bytes, as a fuzzer wants it (`crate::fuzz`): with a right checksum.
pub(crate) fn fuzz(data: &[u8]) {
    let mut content = data.get(..ROOM).unwrap_or(data).to_vec();
    content.resize(ROOM, b' ');
    let checksum = crc32c::crc32c(&content);
    content.extend_from_slice(format!("{{\"crc32c\":\"{checksum:08x}\"}}\n").as_bytes());
    let Ok(header) = skippable(&content).and_then(|sealed| unseal(&sealed, "a segment")) else { return };
    std::hint::black_box((header.raw_size(), header.expected()));
    if let Ok((fits, more)) = header.clone().fit()
        && more.is_empty()
    {
        let sealed = seal(&fits).expect("it fits");
        assert_eq!(unseal(&sealed, "a segment"), Ok(header));
    }
}
