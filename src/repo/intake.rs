//! Taking a segment in: the checks before it is stored, the walk through it while it is compressed, and the
//! put. Alike for every program that brings WAL, whatever it got it from.
//!
//! Refuses a file that is not what its name says, and other content under a stored name. Damage inside a
//! segment is not refused: it is what the server has; it is stored, marked and logged as an error.
//! Invariant: what was reported as stored is durable in a repository that was there afterwards.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use super::segment::{self, Description, Stored};
use super::{Cluster, ClusterHeader};
use crate::error::{Error, IoContext, Result};
use crate::host;
use crate::pg::history::TimelineHistory;
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal::{Extent, SegmentFacts, SegmentHeader, TimelineMatch, Walk};
use crate::pipe::compress::{Compressed, Options, compress};

/// Threads that compress one segment: more of them gain nothing.
pub fn workers() -> usize {
    host::cores().get().min(4)
}

/// The header of the segment in `source`, which stands at its start before and after. `place` is what
/// messages call it.
pub fn read_header(source: &mut File, place: &str) -> Result<SegmentHeader> {
    let reading = || format!("read {place}");
    let mut first = Vec::with_capacity(SegmentHeader::LENGTH);
    source.take(SegmentHeader::LENGTH as u64).read_to_end(&mut first).doing(reading)?;
    source.seek(SeekFrom::Start(0)).doing(reading)?;
    SegmentHeader::parse(&first).map_err(|error| error.context(place))
}

/// What `cluster.json` says if this is its first segment, and must say otherwise.
pub fn cluster_header(header: &SegmentHeader) -> ClusterHeader {
    ClusterHeader {
        version: ClusterHeader::VERSION,
        system_id: header.system_id,
        postgres_major: header.format.major(),
        segment_size: header.segment_size,
        wal_block_size: header.block_size,
    }
}

/// A segment may begin with pages of an older timeline only where its history forks (XLogInitNewTimeline
/// copies the beginning of the parent's segment).
pub fn check_timeline(
    name: SegmentName,
    header: &SegmentHeader,
    timeline_match: TimelineMatch,
    history: Option<&TimelineHistory>,
) -> Result<()> {
    let TimelineMatch::Older(older) = timeline_match else { return Ok(()) };
    let begins = format!("could not accept {name}: it begins with a page of timeline {older}");
    let Some(history) = history else {
        return Err(Error::corrupt(format!(
            "{begins}, and there is no history of timeline {}",
            name.timeline
        ))
        .with_hint(format!("bring {} into its directory", WalFile::History(name.timeline))));
    };
    let size = header.segment_size;
    let leaves = history.switch_point(older).map(|fork| size.segment_of(fork));
    if leaves == Some(size.segment_of(header.page_address)) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{begins}, but the history of timeline {} does not leave that one in this segment",
        name.timeline
    )))
}

/// A segment, or a `.partial`, whose header was checked.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    pub cluster: &'a Cluster,
    pub name: SegmentName,
    pub extent: Extent,
    pub header: SegmentHeader,
    /// What messages call its source.
    pub place: String,
}

impl Incoming<'_> {
    /// Stores it, while nobody else stores one of that name; waits at most `lock_wait` for who does.
    pub fn store(self, mut source: File, options: &Options, lock_wait: Duration) -> Result<Stored> {
        let cluster = self.cluster;
        let _lock = cluster.store().lock(&cluster.layout().lock(self.file())?, lock_wait)?;
        let mut walk = Walk::new(&self.header, self.name, self.extent);
        let compressed = compress(&mut source, &self.place, options, &mut |bytes| walk.feed(bytes))?;
        let facts = walk.finish();
        self.refuse_changed_size(&compressed)?;
        self.report_damage(&facts);
        let description = Description {
            file: self.file(),
            postgres_major: self.header.format.major(),
            segment_size: self.header.segment_size,
            wal_block_size: self.header.block_size,
            host: host::name(),
            facts,
        };
        really_there(cluster, segment::put(cluster, description, compressed)?)
    }

    fn file(&self) -> WalFile {
        match self.extent {
            Extent::Whole => WalFile::Segment(self.name),
            Extent::Partial => WalFile::Partial(self.name),
        }
    }

    fn refuse_changed_size(&self, compressed: &Compressed) -> Result<()> {
        if compressed.raw_size == self.header.segment_size.bytes() {
            return Ok(());
        }
        Err(Error::transient(format!(
            "{} changed while it was read: {} bytes came instead of {}",
            self.place,
            compressed.raw_size,
            self.header.segment_size.bytes()
        )))
    }

    fn report_damage(&self, facts: &SegmentFacts) {
        if facts.damage.is_empty() {
            return;
        }
        let first = facts.damage.first.first().map(|damage| format!("{}: {}", damage.lsn, damage.what));
        tracing::error!(
            "{} is damaged in {} places; it is archived as it is; the first: {}",
            self.place,
            facts.damage.count,
            first.as_deref().unwrap_or("not kept")
        );
    }
}

/// If the repository's disk was unmounted after we opened it, what we created lies on the disk below.
pub fn really_there(cluster: &Cluster, stored: Stored) -> Result<Stored> {
    if stored == Stored::New {
        cluster.repository().confirm().map_err(|error| error.context("stored, but not in the repository"))?;
    }
    Ok(stored)
}
