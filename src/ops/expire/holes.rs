//! The holes that a plan would leave. One that does not look as retention leaves holes (`restore::left_out`) would be
//! taken for a loss by `pgark verify` and `info` ever after: on a path where WAL of the parent is kept for the parent's own
//! sake, say, up to a fork behind which nobody needs any. So what lies in it stays.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::lines::Line;
use super::needs::on_path;
use super::runs::Runs;
use crate::ops::restore::choose::Candidate;
use crate::ops::restore::left_out;
use crate::pg::lsn::Timeline;

/// What is going by a plan, along one line.
pub struct Left<'a> {
    pub facts: &'a Facts,
    pub line: &'a Line<'a>,
    /// Of each timeline.
    pub unneeded: &'a BTreeMap<Timeline, Runs>,
}

impl Left<'_> {
    /// What has to stay so that no hole looks like a loss.
    pub fn odd(&self, is_kept: impl Fn(usize) -> bool) -> Vec<(Timeline, Runs)> {
        let size = self.facts.size;
        let kept = self.line.backups.iter().filter(|placed| is_kept(placed.index));
        let kept: Vec<&Candidate> =
            kept.filter_map(|placed| self.facts.backups.get(placed.index)).map(|backup| &backup.at).collect();
        let Some(first) = kept.iter().map(|backup| size.segment_of(backup.start)).min() else {
            return Vec::new();
        };
        let mut left = Runs::default();
        for (timeline, part) in on_path(self.line.path, &(first..=u64::MAX), |lsn| size.segment_of(lsn)) {
            let Some(wal) = self.facts.wal.get(&timeline) else { continue };
            let stays = wal.whole.within(&Runs::from(part)).without(self.of(timeline));
            stays.iter().for_each(|run| left.add(run));
        }
        let Some(last) = left.last() else { return Vec::new() };
        let holes = Runs::from(first..=last).without(&left);
        let odd = holes.iter().filter(|hole| !left_out::is_expired(hole, &kept, size));
        odd.flat_map(|hole| on_path(self.line.path, &hole, |lsn| size.segment_of(lsn)))
            .filter_map(|(timeline, part)| {
                let there = self.facts.wal.get(&timeline)?.any.within(self.of(timeline));
                Some((timeline, there.within(&Runs::from(part))))
            })
            .filter(|(_, going)| !going.is_empty())
            .collect()
    }

    fn of(&self, timeline: Timeline) -> &Runs {
        const NONE: &Runs = &Runs::none();
        self.unneeded.get(&timeline).unwrap_or(NONE)
    }
}
