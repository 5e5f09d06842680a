//! Which segments somebody needs. What is left is garbage only if the histories say so: a segment belongs to a line
//! by its timeline and number, and all lines must be known that might pass it.
//!
//! Refuses to call a segment unneeded whose timeline, or any younger one, has no history that can be read; and one
//! that lies before its own timeline begins, which no line explains.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::facts::{Facts, Records};
use super::lines::Line;
use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, Timeline};
use crate::repo::runs::Runs;

pub struct Needs<'a> {
    pub facts: &'a Facts,
    pub lines: &'a [Line<'a>],
    /// By line: the backups from which on all WAL is kept.
    pub continuous: &'a BTreeMap<Timeline, BTreeSet<usize>>,
}

impl Needs<'_> {
    /// Of each timeline the segments that no line needs, whether they are there or not.
    pub fn unneeded(
        &self,
        is_kept: impl Fn(usize) -> bool,
        records: &impl Records,
        notes: &mut Vec<String>,
    ) -> Result<BTreeMap<Timeline, Runs>> {
        let mut needed: BTreeMap<Timeline, Runs> = BTreeMap::new();
        for line in self.lines {
            for range in self.of_line(line, &is_kept, records, notes)? {
                for (timeline, part) in on_path(line.path, &range, |lsn| self.facts.size.segment_of(lsn)) {
                    needed.entry(timeline).or_default().add(part);
                }
            }
        }
        if self.restores_on_unknown_paths(notes) {
            return Ok(BTreeMap::new());
        }
        let safe = |timeline: &Timeline| !self.facts.unknown.iter().any(|unknown| unknown >= timeline);
        let mut unneeded = BTreeMap::new();
        for (timeline, path) in self.facts.histories.iter().filter(|(timeline, _)| safe(timeline)) {
            let begin = path.entries().last().map_or(Lsn::INVALID, |entry| entry.switch_lsn);
            let own = Runs::from(self.facts.size.segment_of(begin)..=u64::MAX);
            let free = own.without(needed.get(timeline).unwrap_or(&Runs::default()));
            if !free.is_empty() {
                unneeded.insert(*timeline, free);
            }
        }
        Ok(unneeded)
    }

    /// What is needed along one line.
    fn of_line(
        &self,
        line: &Line<'_>,
        is_kept: impl Fn(usize) -> bool,
        records: &impl Records,
        notes: &mut Vec<String>,
    ) -> Result<Vec<RangeInclusive<u64>>> {
        let size = self.facts.size;
        // WAL that no backup leads to yet: the first may be under way, or a standby follows it.
        if line.active && line.good().next().is_none() {
            return Ok(vec![0..=u64::MAX]);
        }
        let none = BTreeSet::new();
        let continuous = self.continuous.get(&line.timeline()).unwrap_or(&none);
        let mut ranges = Vec::new();
        for placed in line.backups.iter().filter(|placed| is_kept(placed.index)) {
            let Some(backup) = self.facts.backups.get(placed.index) else { continue };
            let first = size.segment_of(backup.at.start);
            let last = match continuous.contains(&placed.index) {
                true => Some(u64::MAX),
                // Here it can't be restored, whatever follows.
                false if placed.missing.is_some() => Some(0),
                false => records.last_needed(line.path, &backup.at)?,
            };
            if last.is_none() {
                notes.push(format!(
                    "the archive does not say which record follows backup {} on timeline {}: all WAL from it on stays",
                    backup.at.label,
                    line.timeline()
                ));
            }
            ranges.push(first..=last.unwrap_or(u64::MAX).max(size.segment_before(backup.at.consistent)));
        }
        for restore in &self.facts.restores {
            if restore.wal.timeline == line.timeline() {
                ranges.push(restore.wal.first.number(size)?..=u64::MAX);
            }
        }
        Ok(ranges)
    }

    fn restores_on_unknown_paths(&self, notes: &mut Vec<String>) -> bool {
        let is_unknown = |timeline: &Timeline| !self.facts.histories.contains_key(timeline);
        let unknown = self.facts.restores.iter().find(|restore| is_unknown(&restore.wal.timeline));
        if let Some(restore) = unknown {
            notes.push(format!(
                "{} restores along timeline {}, whose history is not known here: no WAL goes",
                restore.who, restore.wal.timeline
            ));
        }
        unknown.is_some()
    }
}

/// The parts of a range of a path that each of its timelines has: a segment is read from the newest timeline that
/// begins in or before it ([`TimelineHistory::path_timeline_for_segment`]).
fn on_path(
    path: &TimelineHistory,
    range: &RangeInclusive<u64>,
    segment_of: impl Fn(Lsn) -> u64,
) -> Vec<(Timeline, RangeInclusive<u64>)> {
    let mut parts = Vec::new();
    let begins = path.entries().iter().rev().map(|entry| segment_of(entry.switch_lsn)).chain([0]);
    let timelines =
        [path.timeline()].into_iter().chain(path.entries().iter().rev().map(|entry| entry.timeline));
    // The newest first: what it does not have is left to its ancestors.
    let mut rest = Some(*range.end());
    for (timeline, begin) in timelines.zip(begins) {
        let Some(last) = rest else { break };
        let first = begin.max(*range.start());
        if first <= last {
            parts.push((timeline, first..=last));
        }
        rest = begin.checked_sub(1).map(|before| before.min(last)).filter(|last| last >= range.start());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::SegmentSize;
    use proptest::prelude::*;

    proptest! {
        /// Also where the switch points decrease.
        #[test]
        fn each_segment_is_needed_of_the_timeline_from_which_recovery_reads_it(
            switches in proptest::collection::vec(1u64..4000, 0..5),
            first in 0u64..45,
            length in 0u64..45,
        ) {
            let size = SegmentSize::try_from(1 << 20).expect("a size");
            let lines: String = (1..).zip(&switches).map(|(n, at)| format!("{n}\t{}\tx\n", Lsn(at * 10_000))).collect();
            let timeline = Timeline(switches.len() as u32 + 1);
            let path = match switches.is_empty() {
                true => TimelineHistory::without_parents(timeline),
                false => TimelineHistory::parse(timeline, lines.as_bytes())?,
            };
            let mut parts = on_path(&path, &(first..=first + length), |lsn| size.segment_of(lsn));
            parts.sort_by_key(|(_, part)| *part.start());
            let found: Vec<(u64, Timeline)> =
                parts.into_iter().flat_map(|(timeline, part)| part.map(move |number| (number, timeline))).collect();
            let expected: Vec<(u64, Timeline)> = (first..=first + length)
                .map(|number| (number, path.path_timeline_for_segment(number, size)))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
