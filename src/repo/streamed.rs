//! Streamed parts: the beginning of a segment that is still being received, up to an end LSN. Stored as a
//! segment is, under a key that carries that end, so that losing the primary loses nothing that was received.
//! Not PostgreSQL's own `.partial` files, which a promotion leaves and `segment.rs` stores.
//!
//! A longer part follows a shorter one; [`sweep`] removes what a longer one, or the whole segment, holds too.
//! Refuses other bytes under an end that is there, and removes nothing when parts and segment contradict each
//! other. Invariant: at every moment the longest part, or the whole segment, is in the repository.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use super::segment::{self, Description, Stored, StoredSegment};
use super::{Cluster, catalog, intake, layout};
use crate::error::{Error, Result};
use crate::host;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal::{Extent, SegmentFacts, SegmentHeader, Walk};
use crate::pipe::compress::{Compressed, Options, compress};
use crate::store::Key;

mod sweep;

pub use sweep::sweep;

/// The bytes of `segment` before `end`, which lies within it. Written `<segment>@<LSN>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamedPart {
    pub segment: SegmentName,
    pub end: Lsn,
}

impl fmt::Display for StreamedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.segment, self.end)
    }
}

impl FromStr for StreamedPart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = text
            .split_once('@')
            .and_then(|(segment, end)| Some(Self { segment: segment.parse().ok()?, end: end.parse().ok()? }));
        part.ok_or_else(|| {
            Error::configuration(format!("\"{text}\" is not a streamed part of a segment"))
                .with_hint("write the segment and the end, for example 000000010000000000000003@0/3000148")
        })
    }
}

impl StreamedPart {
    /// How many bytes it has. Fails when the end does not lie within the segment.
    pub fn bytes(self, size: SegmentSize) -> Result<u64> {
        let bytes = self.end.0.checked_sub(self.segment.start(size)?.0);
        bytes.filter(|bytes| (1..size.bytes()).contains(bytes)).ok_or_else(|| {
            Error::corrupt(format!("{} does not lie within segment {}", self.end, self.segment))
        })
    }

    /// What the object says of itself.
    pub(super) fn name(self) -> String {
        format!("{}.streamed", self.segment)
    }

    fn key(self, cluster: &Cluster) -> Result<Key> {
        cluster.layout().streamed(self.segment, self.end)
    }
}

/// Takes in what was received of a segment so far: the first bytes of `source`, up to the part's end, which
/// begin with `header`. Durable, in a repository that was there afterwards, when this returns.
/// `place` is what messages call the source.
pub fn store(
    cluster: &Cluster,
    part: StreamedPart,
    header: &SegmentHeader,
    source: &mut (dyn Read + Send),
    place: &str,
    options: &Options,
) -> Result<Stored> {
    header.check(part.segment, header.segment_size.bytes())?;
    if header.system_id != cluster.system_id() {
        return Err(Error::conflict(format!(
            "could not store {part}: {place} is of system identifier {}, not {}",
            header.system_id,
            cluster.system_id()
        )));
    }
    let bytes = part.bytes(header.segment_size)?;
    let mut walk = Walk::new(header, part.segment, Extent::Partial);
    let compressed = compress(&mut source.take(bytes), place, options, &mut |bytes| walk.feed(bytes))?;
    if compressed.raw_size != bytes {
        return Err(Error::transient(format!(
            "could not store {part}: {place} has {} bytes of {bytes}",
            compressed.raw_size
        )));
    }
    let description = Description {
        file: WalFile::Segment(part.segment),
        postgres_major: header.format.major(),
        segment_size: header.segment_size,
        wal_block_size: header.block_size,
        host: host::name(),
        facts: facts(walk, bytes, header),
    };
    intake::really_there(cluster, put(cluster, part, description, compressed)?)
}

/// The walk sees whole pages only, so the last one is filled up as a reader will fill it up.
fn facts(mut walk: Walk, bytes: u64, header: &SegmentHeader) -> SegmentFacts {
    let block = u64::from(header.block_size);
    let missing = bytes.next_multiple_of(block).saturating_sub(bytes);
    walk.feed(&vec![0; missing as usize]);
    // A record in the last page could be said to go on in the next segment: of that nothing is here.
    SegmentFacts { unfinished: None, ..walk.finish() }
}

/// Stores a part whose bytes were compressed and walked through, unless the same is there.
pub fn put(
    cluster: &Cluster,
    part: StreamedPart,
    description: Description,
    compressed: Compressed,
) -> Result<Stored> {
    let bytes = part.bytes(description.segment_size)?;
    if description.file != WalFile::Segment(part.segment) || compressed.raw_size != bytes {
        return Err(Error::bug(format!(
            "{part} was to be stored from {} bytes of {}",
            compressed.raw_size, description.file
        )));
    }
    let header = StoredSegment::of(cluster, description, &compressed);
    let header = StoredSegment { name: part.name(), streamed_to: Some(part.end), ..header };
    segment::put_object(cluster, &part.key(cluster)?, header, compressed.body)
}

/// The parts of a segment that the repository has, the longest last.
pub fn parts(cluster: &Cluster, segment: SegmentName) -> Result<Vec<StreamedPart>> {
    let mut parts = within_log(cluster, segment.timeline, segment.log)?;
    parts.retain(|part| part.segment == segment);
    Ok(parts)
}

/// The longest part of a segment, whether the whole one is there or not.
pub fn longest(cluster: &Cluster, segment: SegmentName) -> Result<Option<StreamedPart>> {
    Ok(parts(cluster, segment)?.pop())
}

/// The longest part of the last segment of a timeline of which there is any.
pub fn newest(cluster: &Cluster, timeline: Timeline) -> Result<Option<StreamedPart>> {
    for log in catalog::logs(cluster, timeline)?.into_iter().rev() {
        if let Some(newest) = within_log(cluster, timeline, log)?.pop() {
            return Ok(Some(newest));
        }
    }
    Ok(None)
}

/// All parts of a timeline within one log number, in the order of the WAL.
fn within_log(cluster: &Cluster, timeline: Timeline, log: u32) -> Result<Vec<StreamedPart>> {
    let level = cluster.store().level(&cluster.layout().log(timeline, log)?)?;
    let found = level.objects.iter().filter_map(|meta| layout::parse_streamed(&meta.key));
    let mut parts: Vec<StreamedPart> = found
        .filter(|(segment, _)| (segment.timeline, segment.log) == (timeline, log))
        .map(|(segment, end)| StreamedPart { segment, end })
        .collect();
    parts.sort();
    Ok(parts)
}

/// Reads a part into `sink`, with every check, and zeros behind it up to the size of a segment: PostgreSQL
/// reads those as the end of WAL. `Kind::NotFound` only when the object is not there. Until this returns
/// success, what is in the sink may be wrong.
pub fn read(cluster: &Cluster, part: StreamedPart, sink: &mut impl Write) -> Result<StoredSegment> {
    let header = segment::read_key(cluster, &part.key(cluster)?, &part.name(), sink)?;
    check(part, &header)?;
    let zeros = header.segment_size.bytes().saturating_sub(header.raw_size());
    std::io::copy(&mut std::io::repeat(0).take(zeros), sink)
        .map_err(|cause| Error::io(format!("write the zeros behind {part}"), &cause))?;
    Ok(header)
}

/// The header of a part, with all its facts.
pub fn read_header(cluster: &Cluster, part: StreamedPart) -> Result<StoredSegment> {
    let header = segment::read_header_of(cluster, &part.key(cluster)?, &part.name())?;
    check(part, &header).map(|()| header)
}

/// The header says of a part what its key says.
pub(super) fn check(part: StreamedPart, header: &StoredSegment) -> Result<()> {
    part.bytes(header.segment_size)?;
    if header.streamed_to == Some(part.end) {
        return Ok(());
    }
    let found = header.streamed_to.map_or("all of the segment".to_string(), |end| format!("up to {end}"));
    Err(Error::corrupt(format!("the object of {part} says that it holds {found}")))
}

/// The part that was planned with, or, where that was swept since, the longest, which holds all of it.
/// `Kind::NotFound` when neither is there: the whole segment is, or the part was lost.
pub fn covering(cluster: &Cluster, planned: StreamedPart) -> Result<StreamedPart> {
    let parts = parts(cluster, planned.segment)?;
    let exact = parts.iter().find(|part| **part == planned);
    let longer = parts.last().filter(|part| part.end > planned.end);
    exact.or(longer).copied().ok_or_else(|| {
        Error::not_found(format!("the repository has neither {planned} nor a longer part of that segment"))
    })
}

#[cfg(test)]
mod tests;
