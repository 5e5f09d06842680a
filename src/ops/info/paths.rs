//! Where one can go back to along each path, and what is missing on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::backups::Backups;
use super::summary::{Ancestor, HoleSummary, PathSummary, WindowSummary};
use crate::error::{Error, Result};
use crate::ops::restore::choose::{Archive, Candidate, on_path};
use crate::ops::restore::listed::ListedArchive;
use crate::ops::restore::window::{self, Window};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::time;
use crate::repo::expired::Gone;
use crate::repo::gap::Gap;
use crate::repo::inventory::{Hole, Inventory, PathWal};

/// The paths of all timelines whose history is known, with their windows.
pub fn look(
    archive: &ListedArchive<'_>,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &Backups,
    gone: &Gone,
) -> Result<Vec<PathSummary>> {
    let windows = window::windows(archive, histories, &backups.candidates)?;
    let of = |path: &TimelineHistory| {
        let own = windows.iter().filter(|window| window.timeline == path.timeline());
        summary(archive, path, own, &backups.candidates, gone)
    };
    histories.values().map(of).collect()
}

fn summary<'a>(
    archive: &ListedArchive<'_>,
    path: &TimelineHistory,
    windows: impl Iterator<Item = &'a Window>,
    backups: &[Candidate],
    gone: &Gone,
) -> Result<PathSummary> {
    let wal = archive.wal(path);
    let lost = missing_on(&wal, path, backups, gone, archive.segment_size());
    let entries = path.entries().iter();
    let newest = wal.newest(0).map(|number| archive.name_on(path, number));
    Ok(PathSummary {
        timeline: path.timeline(),
        ancestors: entries
            .map(|entry| Ancestor { timeline: entry.timeline, until_lsn: entry.switch_lsn })
            .collect(),
        windows: windows.map(|window| window_summary(archive, path, window, &lost)).collect::<Result<_>>()?,
        backups: on_path(backups, path).into_iter().rev().map(|backup| backup.label.clone()).collect(),
        newest_segment: newest,
        newest_time: wal.newest_stored(),
    })
}

fn window_summary(
    archive: &ListedArchive<'_>,
    path: &TimelineHistory,
    window: &Window,
    missing: &[Missing],
) -> Result<WindowSummary> {
    // Behind the last whole segment; within the last one when that was streamed.
    let next = archive.segment_size().segment_of(window.to_lsn);
    let behind = missing.iter().find(|missing| missing.range.contains(&next));
    Ok(WindowSummary {
        backup: window.backup.clone(),
        from_time: moment(window.from_time)?,
        from_lsn: window.from_lsn,
        to_time: window.to_time.map(moment).transpose()?,
        to_lsn: window.to_lsn,
        missing: behind.map(|_| archive.name_on(path, next)),
        expired: behind.is_some_and(|missing| missing.expired),
    })
}

fn moment(time: time::Timestamp) -> Result<Timestamp> {
    Timestamp::from_microsecond(time.as_unix())
        .map_err(|cause| Error::bug(format!("{time} is no time: {cause}")))
}

/// The first segment that any of the backups needs.
fn needed(backups: &[&Candidate], size: SegmentSize) -> Option<u64> {
    backups.iter().map(|backup| size.segment_of(backup.start)).min()
}

/// Consecutive segments that are missing on a path.
struct Missing {
    range: RangeInclusive<u64>,
    /// By `pgark expire`, as its records say.
    expired: bool,
}

fn missing_on(
    wal: &PathWal<'_>,
    path: &TimelineHistory,
    backups: &[Candidate],
    gone: &Gone,
    size: SegmentSize,
) -> Vec<Missing> {
    let missing = wal.missing(needed(&on_path(backups, path), size)).into_iter();
    missing.map(|range| Missing { expired: gone.has(path, &range, size), range }).collect()
}

/// What is missing on any path, and why, as far as records tell. A timeline whose history is not known is judged
/// by its own segments.
pub fn holes(
    inventory: &Inventory,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
    (gaps, gone): (&[Gap], &Gone),
    size: SegmentSize,
) -> Vec<HoleSummary> {
    let mut found = BTreeSet::new();
    for timeline in inventory.known_timelines() {
        let alone = TimelineHistory::without_parents(timeline);
        let path = histories.get(&timeline).unwrap_or(&alone);
        let wal = PathWal::new(inventory, path, size);
        for missing in missing_on(&wal, path, backups, gone, size) {
            found.extend(wal.split(&missing.range).into_iter().map(|hole| (hole, missing.expired)));
        }
    }
    merge(found).into_iter().map(|(hole, expired)| hole_summary(hole, expired, gaps, size)).collect()
}

/// Two paths may see different parts of one hole; and if it is a loss for one of them, it is one.
fn merge(holes: BTreeSet<(Hole, bool)>) -> Vec<(Hole, bool)> {
    let mut merged: Vec<(Hole, bool)> = Vec::new();
    for (hole, expired) in holes {
        match merged.last_mut() {
            Some((last, both))
                if last.timeline == hole.timeline && hole.first <= last.last.saturating_add(1) =>
            {
                last.last = last.last.max(hole.last);
                *both &= expired;
            }
            _ => merged.push((hole, expired)),
        }
    }
    merged
}

fn hole_summary(hole: Hole, expired: bool, gaps: &[Gap], size: SegmentSize) -> HoleSummary {
    let (first_segment, last_segment) = hole.names(size);
    let (from_lsn, to_lsn) = hole.extent(size);
    let within = |gap: &&Gap| {
        let overlaps = |numbers: std::ops::RangeInclusive<u64>| {
            *numbers.start() <= hole.last && hole.first <= *numbers.end()
        };
        gap.first.timeline == hole.timeline && gap.numbers().is_ok_and(overlaps)
    };
    let stories: Vec<String> = gaps.iter().filter(within).map(Gap::story).collect();
    HoleSummary {
        timeline: hole.timeline,
        first_segment,
        last_segment,
        segments: hole.segments(),
        from_lsn,
        to_lsn,
        expired: expired && stories.is_empty(),
        stories,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_paths_see_of_one_hole_is_one_hole() {
        let hole = |timeline, first, last| Hole { timeline: Timeline(timeline), first, last };
        let seen = [
            (hole(1, 3, 4), true),
            (hole(1, 3, 5), false),
            (hole(1, 6, 6), true),
            (hole(1, 9, 9), true),
            (hole(2, 9, 9), true),
            (hole(2, 10, 12), true),
        ];
        let merged = [(hole(1, 3, 6), false), (hole(1, 9, 9), true), (hole(2, 9, 12), true)];
        assert_eq!(merge(seen.into_iter().collect()), merged);
        assert_eq!(merge(BTreeSet::new()), []);
    }
}
