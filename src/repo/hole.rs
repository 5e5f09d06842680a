//! Is a missing segment a hole? A segment that is not in the archive is either not written yet, or it was
//! lost. Telling PostgreSQL "not there" in the second case ends recovery early and loses what follows.
//!
//! It is a hole when later segments exist on its timeline, or on a descendant that leaves the timeline
//! after it, and the histories say that it belongs to the path. A `.partial` or a streamed part of a later
//! segment proves as much as the segment itself. Invariant: "no hole" is said only when every
//! listing and history needed was really read; any failure on the way is an error.

use std::fmt;

use super::catalog::{self, Catalog};
use super::streamed::StreamedPart;
use super::{Cluster, layout};
use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::store::Key;

/// The proof that the missing segment was once written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub later: Found,
}

/// WAL of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A segment or a `.partial`.
    File(WalFile),
    Streamed(StreamedPart),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::File(file) => write!(f, "{file}"),
            Found::Streamed(part) => write!(f, "{part}, a streamed part,"),
        }
    }
}

/// Looks for the proof that `missing`, which is not in the archive, was written.
pub fn find(cluster: &Cluster, missing: SegmentName, size: SegmentSize) -> Result<Option<Hole>> {
    let number = missing.number(size)?;
    if !belongs_to_its_timeline(cluster, missing.timeline, number, size)? {
        return Ok(None);
    }
    if let Some(later) = first_after(cluster, missing.timeline, Some(number), size)? {
        return Ok(Some(Hole { later }));
    }
    let catalog = Catalog::new(cluster, size);
    for timeline in catalog.timelines()? {
        let history = catalog.history(timeline)?;
        let needed = history.as_ref().and_then(|history| needed_before(history, missing.timeline, size));
        if let Some(fork) = needed.filter(|fork| number < *fork)
            && let Some(later) = first_after(cluster, timeline, fork.checked_sub(1), size)?
        {
            return Ok(Some(Hole { later }));
        }
    }
    Ok(None)
}

/// A timeline begins in the segment of its fork: what lies before was never written under its name.
fn belongs_to_its_timeline(
    cluster: &Cluster,
    timeline: Timeline,
    number: u64,
    size: SegmentSize,
) -> Result<bool> {
    let history = Catalog::new(cluster, size).history(timeline)?;
    let begin = history.as_ref().and_then(|history| history.entries().last().map(|entry| entry.switch_lsn));
    Ok(begin.is_none_or(|begin| size.segment_of(begin) <= number))
}

/// The number of the segment in which the path of `history` leaves `timeline`: those before it are needed
/// whole. The segment of the fork itself is read under a newer timeline's name (XLogFileReadAnyTLI).
fn needed_before(history: &TimelineHistory, timeline: Timeline, size: SegmentSize) -> Option<u64> {
    history.switch_point(timeline).map(|fork| size.segment_of(fork))
}

/// Whether the repository holds any segment, `.partial` or streamed part of a timeline.
pub fn any_segment(cluster: &Cluster, timeline: Timeline, size: SegmentSize) -> Result<Option<Found>> {
    first_after(cluster, timeline, None, size)
}

/// A stored segment, or beginning of one, of `timeline` with a number above `after`. Lists one log at a time.
fn first_after(
    cluster: &Cluster,
    timeline: Timeline,
    after: Option<u64>,
    size: SegmentSize,
) -> Result<Option<Found>> {
    let from_log = after.map_or(0, |after| SegmentName::from_number(timeline, after, size).log);
    for log in catalog::logs(cluster, timeline)?.into_iter().filter(|log| *log >= from_log) {
        for meta in cluster.store().level(&cluster.layout().log(timeline, log)?)?.objects {
            if let Some((name, found)) = wal(&meta.key)
                && name.timeline == timeline
                && after.is_none_or(|after| name.number(size).is_ok_and(|number| number > after))
            {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// The segment of which an object is, if it holds WAL.
fn wal(key: &Key) -> Option<(SegmentName, Found)> {
    if let Some(name) = layout::parse_segment(key) {
        return Some((name, Found::File(WalFile::Segment(name))));
    }
    if let Some((name, _)) = layout::parse_partial(key) {
        return Some((name, Found::File(WalFile::Partial(name))));
    }
    let (segment, end) = layout::parse_streamed(key)?;
    Some((segment, Found::Streamed(StreamedPart { segment, end })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::{self, Repository};
    use crate::store::Location;

    const MIB: u64 = 1 << 20;

    struct Archive {
        cluster: Cluster,
        _dir: tempfile::TempDir,
    }

    fn size() -> SegmentSize {
        SegmentSize::try_from(16 * MIB).expect("size")
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(Timeline(timeline), number, size())
    }

    /// An archive with the given segments, and histories as (timeline, [(parent, fork segment)]).
    fn archive(segments: &[(u32, u64)], histories: &[(u32, &[(u32, u64)])]) -> Archive {
        let dir = tempfile::tempdir().expect("tempdir");
        let location = Location::parse(&dir.path().display().to_string()).expect("location");
        repo::init(&location).expect("init");
        let repository = Repository::open(&location, None).expect("open");
        let cluster = repository.cluster(&"main".parse().expect("name"), crate::pg::lsn::SystemId(7));
        for (timeline, number) in segments {
            let key = cluster.layout().segment(name(*timeline, *number)).expect("key");
            cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        for (timeline, entries) in histories {
            // Forks lie in the middle of their segment.
            let text: String = entries
                .iter()
                .map(|(parent, fork)| {
                    let lsn = crate::pg::lsn::Lsn(fork * size().bytes() + 8 * MIB);
                    format!("{parent}\t{lsn}\tno recovery target specified\n")
                })
                .collect();
            repo::segment::put_plain(&cluster, WalFile::History(Timeline(*timeline)), text.as_bytes())
                .expect("stored");
        }
        Archive { cluster, _dir: dir }
    }

    fn is_hole(archive: &Archive, timeline: u32, number: u64) -> bool {
        find(&archive.cluster, name(timeline, number), size()).expect("looked").is_some()
    }

    #[test]
    fn the_end_of_the_archive_is_no_hole() {
        let archive = archive(&[(1, 1), (1, 2)], &[]);
        assert!(!is_hole(&archive, 1, 3));
        assert!(!is_hole(&archive, 1, 300));
    }

    #[test]
    fn a_segment_with_later_ones_is_a_hole_also_across_logs() {
        let archive = archive(&[(1, 1), (1, 3), (1, 600)], &[]);
        assert!(is_hole(&archive, 1, 2));
        assert!(is_hole(&archive, 1, 256));
        assert!(!is_hole(&archive, 1, 601));
    }

    #[test]
    fn what_a_dead_primary_never_archived_is_a_hole_before_the_fork_only() {
        // Timeline 2 left timeline 1 in segment 5; 1 was archived up to 2.
        let archive = archive(&[(1, 1), (1, 2), (2, 5), (2, 6)], &[(2, &[(1, 5)])]);
        assert!(is_hole(&archive, 1, 3));
        assert!(is_hole(&archive, 1, 4));
        assert!(!is_hole(&archive, 1, 5), "the fork's segment is read as timeline 2's");
        assert!(!is_hole(&archive, 1, 6), "timeline 2 does not need it");
        assert!(!is_hole(&archive, 2, 7));
        assert!(!is_hole(&archive, 2, 4), "timeline 2 begins in segment 5");
    }

    #[test]
    fn a_hole_is_seen_through_descendants_of_descendants() {
        // 1 -> 2 in segment 5, 2 -> 3 in segment 6; timeline 2 archived nothing.
        let archive = archive(&[(1, 1), (3, 6)], &[(2, &[(1, 5)]), (3, &[(1, 5), (2, 6)])]);
        assert!(is_hole(&archive, 1, 4));
        assert!(is_hole(&archive, 2, 5));
        assert!(!is_hole(&archive, 2, 6));
    }

    #[test]
    fn a_descendant_that_archived_nothing_proves_nothing() {
        let archive = archive(&[(1, 1)], &[(2, &[(1, 5)])]);
        assert!(!is_hole(&archive, 1, 2));
    }

    #[test]
    fn a_streamed_part_proves_what_lies_before_it_and_not_itself() {
        let archive = archive(&[(1, 1)], &[(2, &[(1, 5)])]);
        let stream = |timeline, number| {
            let end = crate::pg::lsn::Lsn(number * size().bytes() + MIB);
            let key = archive.cluster.layout().streamed(name(timeline, number), end).expect("key");
            archive.cluster.store().create(&key, &b"x"[..]).expect("created");
        };
        stream(1, 3);
        assert!(is_hole(&archive, 1, 2));
        assert!(!is_hole(&archive, 1, 3) && !is_hole(&archive, 1, 4));
        let proof = find(&archive.cluster, name(1, 2), size()).expect("looked").expect("a hole");
        assert_eq!(
            format!("{} is there", proof.later),
            "000000010000000000000003@0/3100000, a streamed part, is there"
        );
        // Of a timeline that begins later, too.
        stream(2, 5);
        assert!(is_hole(&archive, 1, 4));
    }
}
