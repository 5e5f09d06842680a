//! Lines: the path to each timeline with the backups that lie on it, in the order of the WAL. That order is the only one
//! that is believed: a label says nothing, and a clock may lie.
//!
//! A backup's time is *believed* when it is not in the future and no backup before it claims a later one. Others
//! count as late as the next one that is believed: late enough that nothing is taken for older than it is.
//! Invariant: along a line, times never decrease.

use jiff::{SignedDuration, Timestamp};

use super::clock::Clock;
use super::facts::{Backup, Facts};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::SegmentName;

/// So far the clocks of a server and of the store may be apart.
const SLACK: SignedDuration = SignedDuration::from_hours(1);

/// The path to a timeline.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    pub path: &'a TimelineHistory,
    /// Whether something was heard of its timeline lately.
    pub active: bool,
    /// In the order in which recovery would pass their ends.
    pub backups: Vec<Placed>,
}

/// A backup on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Among the facts' backups.
    pub index: usize,
    /// Its end; of one whose time is not believed: that of the next one.
    pub time: Timestamp,
    pub believed: bool,
    /// A segment without which it never becomes consistent on this line.
    pub missing: Option<SegmentName>,
    /// It can be restored along this line.
    pub good: bool,
}

/// All lines, by timeline. `since`: who was heard of at that time or later is active.
pub fn lines<'a>(facts: &'a Facts, clock: &Clock, since: Timestamp) -> Vec<Line<'a>> {
    let heard = |timeline: &Timeline| facts.activity.get(timeline).copied();
    let last = facts.histories.keys().max_by_key(|timeline| (heard(timeline), **timeline));
    let line = |(timeline, path): (&Timeline, &'a TimelineHistory)| Line {
        path,
        // If none was heard of lately, the last one stands for the cluster.
        active: heard(timeline).is_some_and(|at| at >= since) || last == Some(timeline),
        backups: placed(facts, path, clock),
    };
    facts.histories.iter().map(line).collect()
}

fn placed(facts: &Facts, path: &TimelineHistory, clock: &Clock) -> Vec<Placed> {
    let mut order: Vec<usize> = (0..)
        .zip(&facts.backups)
        .filter(|(_, backup)| backup.at.lies_on(path))
        .map(|(index, _)| index)
        .collect();
    let key = |index: &usize| {
        facts.backups.get(*index).map(|backup| (backup.at.consistent, backup.stop, &backup.at.label))
    };
    order.sort_by(|one, other| key(one).cmp(&key(other)));
    let mut latest = Timestamp::MIN;
    let mut placed: Vec<Placed> = Vec::new();
    for index in order {
        let Some(backup) = facts.backups.get(index) else { continue };
        let believed = backup.stop.duration_since(clock.now) <= SLACK && backup.stop >= latest;
        if believed {
            latest = backup.stop;
        }
        let missing = first_missing(facts, path, backup);
        let good = missing.is_none() && backup.damage.is_none();
        placed.push(Placed { index, time: backup.stop, believed, missing, good });
    }
    let mut next = clock.now.max(latest);
    for backup in placed.iter_mut().rev() {
        if !backup.believed {
            backup.time = next;
        }
        next = backup.time;
    }
    placed
}

/// The first segment that is missing of those that make a backup consistent.
fn first_missing(facts: &Facts, path: &TimelineHistory, backup: &Backup) -> Option<SegmentName> {
    let size = facts.size;
    let first = size.segment_of(backup.at.start);
    let last = size.segment_before(backup.at.consistent).max(first);
    let name = |number| SegmentName::from_number(path.path_timeline_for_segment(number, size), number, size);
    let is_there = |name: &SegmentName, number| {
        facts.wal.get(&name.timeline).is_some_and(|wal| wal.whole.contains(number))
    };
    (first..=last)
        .map(|number| (name(number), number))
        .find(|(name, number)| !is_there(name, *number))
        .map(|(name, _)| name)
}

impl Line<'_> {
    pub fn timeline(&self) -> Timeline {
        self.path.timeline()
    }

    pub fn good(&self) -> impl DoubleEndedIterator<Item = &Placed> {
        self.backups.iter().filter(|backup| backup.good)
    }

    /// Whether `later` comes behind `earlier` on this line.
    pub fn has_in_order(&self, earlier: usize, later: usize) -> bool {
        let at = |index: usize| self.backups.iter().position(|backup| backup.index == index);
        matches!((at(earlier), at(later)), (Some(earlier), Some(later)) if earlier < later)
    }
}
