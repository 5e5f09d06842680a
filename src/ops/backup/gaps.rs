//! Gaps that a backup closes: WAL on its path that was dropped after the backup before it and before its own
//! start. What lies beyond such a gap can be restored from this backup on.
//!
//! Only told: whatever goes wrong here must not keep a cluster from the backup that it needs most.

use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::repo::catalog::Catalog;
use crate::repo::gap::{self, Gap};
use crate::repo::{Cluster, backup};

/// A sentence for each gap that a backup closes which starts at `start` of `timeline`, logged and kept in its
/// header. Asked when the backup's own WAL is archived: what was dropped before that is recorded by then.
pub(super) fn closed(cluster: &Cluster, size: SegmentSize, start: Lsn, timeline: Timeline) -> Vec<String> {
    let sentences = find(cluster, size, start, timeline).unwrap_or_else(|error| {
        tracing::warn!("could not tell which gaps of the archive this backup closes: {error}");
        Vec::new()
    });
    sentences.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    sentences
}

fn find(cluster: &Cluster, size: SegmentSize, start: Lsn, timeline: Timeline) -> Result<Vec<String>> {
    let gaps = gap::list(cluster)?;
    if gaps.is_empty() {
        return Ok(Vec::new());
    }
    let history = Catalog::new(cluster, size).history(timeline)?;
    let path = history.unwrap_or_else(|| TimelineHistory::without_parents(timeline));
    let stops = backup::iter(cluster)?.filter_map(|header| match header {
        Ok(header) => Some((header.stop.timeline, header.stop.lsn)),
        Err(error) => {
            tracing::warn!("{error}; passed over");
            None
        }
    });
    let place = Place { size, start: size.segment_of(start), before: newest_stop(stops, &path, start), path };
    let mut sentences = Vec::new();
    for gap in gaps {
        if place.closes(&gap)? && !gap::missing(cluster, &gap)?.is_empty() {
            sentences.push(sentence(&gap));
        }
    }
    Ok(sentences)
}

/// Where the newest of the earlier backups on the path ends.
fn newest_stop(
    stops: impl Iterator<Item = (Timeline, Lsn)>,
    path: &TimelineHistory,
    start: Lsn,
) -> Option<Lsn> {
    let earlier = stops.filter(|(timeline, stop)| *stop <= start && path.descends_from(*timeline, *stop));
    earlier.map(|(_, stop)| stop).max()
}

/// Where the new backup stands.
struct Place {
    size: SegmentSize,
    path: TimelineHistory,
    /// The segment in which it starts.
    start: u64,
    /// Where the backup before it ends.
    before: Option<Lsn>,
}

impl Place {
    fn closes(&self, gap: &Gap) -> Result<bool> {
        let on_path = |n: &u64| self.path.path_timeline_for_segment(*n, self.size) == gap.first.timeline;
        let Some(last) = gap.numbers()?.rev().find(on_path) else { return Ok(false) };
        Ok(last < self.start && self.before.is_none_or(|stop| last >= self.size.segment_of(stop)))
    }
}

fn sentence(gap: &Gap) -> String {
    format!(
        "this backup closes a gap in the archive, beyond which no earlier one can be restored: {}",
        gap.story()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::SystemId;
    use crate::repo::fixture::Fixture;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(1 << 20).expect("a size")
    }

    fn gap(first: &str, last: u64) -> Gap {
        let first: crate::pg::names::SegmentName = first.parse().expect("a name");
        let mut gap = Gap::of(first, SystemId(7), size(), "db1".into()).expect("a gap");
        for number in first.number(size()).expect("a number")..=last {
            let name = crate::pg::names::SegmentName::from_number(first.timeline, number, size());
            assert!(gap.extend(name, SystemId(7)).expect("the next"));
        }
        gap
    }

    fn place(path: &TimelineHistory, before: Option<u64>, start: u64) -> Place {
        Place { size: size(), path: path.clone(), start, before: before.map(|n| Lsn(n * MIB + 40)) }
    }

    #[test]
    fn a_gap_is_closed_by_the_first_backup_behind_it() {
        let path = TimelineHistory::without_parents(Timeline(1));
        let gap = gap("000000010000000000000005", 6);
        let closes = |before, start| place(&path, before, start).closes(&gap).expect("names");
        assert!(closes(Some(4), 7));
        assert!(closes(None, 9));
        assert!(!closes(Some(7), 9), "the backup before has closed it");
        assert!(!closes(Some(4), 6), "it lies ahead");
    }

    #[test]
    fn only_what_the_path_needs_counts() {
        let path = TimelineHistory::parse(Timeline(2), b"1\t0/600028\tno reason\n").expect("a history");
        let closes = |gap: &Gap| place(&path, Some(3), 9).closes(gap).expect("names");
        assert!(closes(&gap("000000010000000000000004", 5)));
        assert!(closes(&gap("000000010000000000000005", 8)), "its first segment is needed");
        assert!(!closes(&gap("000000010000000000000006", 8)), "timeline 1 after the fork");
        assert!(!closes(&gap("000000030000000000000004", 4)), "another branch");
        assert!(closes(&gap("000000020000000000000007", 8)));
    }

    #[test]
    fn a_backup_of_another_branch_closes_nothing_for_this_one() {
        let path = TimelineHistory::parse(Timeline(2), b"1\t0/600028\tno reason\n").expect("a history");
        let stops = [(Timeline(1), Lsn(3 * MIB)), (Timeline(1), Lsn(8 * MIB)), (Timeline(2), Lsn(20 * MIB))];
        assert_eq!(newest_stop(stops.into_iter(), &path, Lsn(9 * MIB)), Some(Lsn(3 * MIB)));
        assert_eq!(newest_stop(stops.into_iter(), &path, Lsn(30 * MIB)), Some(Lsn(20 * MIB)));
        assert_eq!(newest_stop(stops.into_iter().take(0), &path, Lsn(30 * MIB)), None);
    }

    #[test]
    fn recorded_gaps_are_told_and_a_damaged_record_stops_nobody() {
        let fixture = Fixture::create();
        let gap = gap("000000010000000000000005", 6);
        gap::put(&fixture.cluster, &gap).expect("recorded");
        let told = |start| closed(&fixture.cluster, size(), Lsn(start * MIB), Timeline(1));
        assert_eq!(told(7).len(), 1);
        assert!(
            told(7)[0].contains("000000010000000000000005 to 000000010000000000000006 were dropped by db1")
        );
        assert_eq!(told(5), Vec::<String>::new());
        let key = fixture.cluster.layout().gap(gap.id).expect("key");
        fixture.damage(&key, |bytes| bytes.truncate(20));
        assert_eq!(told(7), Vec::<String>::new());
    }
}
