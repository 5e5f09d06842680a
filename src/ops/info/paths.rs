//! Where one can go back to along each path, and what is missing on it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::backups::Backups;
use super::listed::ListedArchive;
use super::summary::{Ancestor, HoleSummary, PathSummary, WindowSummary};
use crate::error::{Error, Result};
use crate::ops::restore::choose::{Archive, Candidate, on_path};
use crate::ops::restore::window::{self, Window};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::time;
use crate::repo::gap::Gap;
use crate::repo::inventory::{Hole, Inventory, PathWal};

/// The paths of all timelines whose history is known, with their windows.
pub fn look(
    archive: &ListedArchive<'_>,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &Backups,
) -> Result<Vec<PathSummary>> {
    let windows = window::windows(archive, histories, &backups.candidates)?;
    let of = |path: &TimelineHistory| {
        let own = windows.iter().filter(|window| window.timeline == path.timeline());
        summary(archive, path, own, &backups.candidates)
    };
    histories.values().map(of).collect()
}

fn summary<'a>(
    archive: &ListedArchive<'_>,
    path: &TimelineHistory,
    windows: impl Iterator<Item = &'a Window>,
    backups: &[Candidate],
) -> Result<PathSummary> {
    let wal = archive.wal(path);
    let holes = wal.holes(needed(backups, path, archive.segment_size()));
    let entries = path.entries().iter();
    let newest = wal.newest(0).map(|number| archive.name_on(path, number));
    Ok(PathSummary {
        timeline: path.timeline(),
        ancestors: entries
            .map(|entry| Ancestor { timeline: entry.timeline, until_lsn: entry.switch_lsn })
            .collect(),
        windows: windows
            .map(|window| window_summary(archive, path, window, &holes))
            .collect::<Result<_>>()?,
        backups: on_path(backups, path).into_iter().rev().map(|backup| backup.label.clone()).collect(),
        newest_segment: newest,
        newest_time: wal.newest_stored(),
    })
}

fn window_summary(
    archive: &ListedArchive<'_>,
    path: &TimelineHistory,
    window: &Window,
    holes: &[Hole],
) -> Result<WindowSummary> {
    // Behind the last whole segment; within the last one when that was streamed.
    let next = archive.segment_size().segment_of(window.to_lsn);
    let name = archive.name_on(path, next);
    let missing =
        holes.iter().any(|hole| hole.timeline == name.timeline && (hole.first..=hole.last).contains(&next));
    Ok(WindowSummary {
        backup: window.backup.clone(),
        from_time: moment(window.from_time)?,
        from_lsn: window.from_lsn,
        to_time: window.to_time.map(moment).transpose()?,
        to_lsn: window.to_lsn,
        missing: missing.then_some(name),
    })
}

fn moment(time: time::Timestamp) -> Result<Timestamp> {
    Timestamp::from_microsecond(time.as_unix())
        .map_err(|cause| Error::bug(format!("{time} is no time: {cause}")))
}

/// The first segment that a backup on the path needs.
fn needed(backups: &[Candidate], path: &TimelineHistory, size: SegmentSize) -> Option<u64> {
    on_path(backups, path).into_iter().map(|backup| size.segment_of(backup.start)).min()
}

/// What is missing on any path, and why, as far as records tell. A timeline whose history is not known is judged
/// by its own segments.
pub fn holes(
    inventory: &Inventory,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
    gaps: &[Gap],
    size: SegmentSize,
) -> Vec<HoleSummary> {
    let mut found = BTreeSet::new();
    for timeline in inventory.known_timelines() {
        let alone = TimelineHistory::without_parents(timeline);
        let path = histories.get(&timeline).unwrap_or(&alone);
        found.extend(PathWal::new(inventory, path, size).holes(needed(backups, path, size)));
    }
    merge(found).into_iter().map(|hole| hole_summary(hole, gaps, size)).collect()
}

/// Two paths may see different parts of one hole.
fn merge(holes: BTreeSet<Hole>) -> Vec<Hole> {
    let mut merged: Vec<Hole> = Vec::new();
    for hole in holes {
        match merged.last_mut() {
            Some(last) if last.timeline == hole.timeline && hole.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(hole.last);
            }
            _ => merged.push(hole),
        }
    }
    merged
}

fn hole_summary(hole: Hole, gaps: &[Gap], size: SegmentSize) -> HoleSummary {
    let (first_segment, last_segment) = hole.names(size);
    let (from_lsn, to_lsn) = hole.extent(size);
    let within = |gap: &&Gap| {
        let overlaps = |numbers: std::ops::RangeInclusive<u64>| {
            *numbers.start() <= hole.last && hole.first <= *numbers.end()
        };
        gap.first.timeline == hole.timeline && gap.numbers().is_ok_and(overlaps)
    };
    HoleSummary {
        timeline: hole.timeline,
        first_segment,
        last_segment,
        segments: hole.segments(),
        from_lsn,
        to_lsn,
        stories: gaps.iter().filter(within).map(Gap::story).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_paths_see_of_one_hole_is_one_hole() {
        let hole = |timeline, first, last| Hole { timeline: Timeline(timeline), first, last };
        let seen =
            [hole(1, 3, 4), hole(1, 3, 5), hole(1, 6, 6), hole(1, 9, 9), hole(2, 9, 9), hole(2, 10, 12)];
        assert_eq!(merge(seen.into_iter().collect()), [hole(1, 3, 6), hole(1, 9, 9), hole(2, 9, 12)]);
        assert_eq!(merge(BTreeSet::new()), []);
    }
}
