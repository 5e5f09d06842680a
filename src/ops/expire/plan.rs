//! The plan of an expiry: which backups are kept and why, which go, and which WAL nobody needs any more. A pure
//! function of what was found.
//!
//! Kept is what any rule keeps. Rules that count or that look back a span are applied along each line of WAL that is
//! active; along those all WAL is kept from the oldest such backup on, without a break, to the newest. Of other kept
//! backups only the WAL that makes them consistent is.
//!
//! Invariants: of each incarnation the newest good backup stays, with its WAL to the end. Whatever can't be told
//! (an unknown history, a time that contradicts the order of the WAL) makes it keep more. More policy keeps more. A
//! second run right after the first finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::clock::{Clock, Reach, earlier};
use super::facts::{Backup, Facts, Pinned, Records, Restoring};
use super::lines::{Line, Placed, lines};
use super::needs;
use super::reason::{Reason, Verdict};
use super::rules;
use crate::config::Expire;
use crate::error::Result;
use crate::ident::Name;
use crate::pg::lsn::Timeline;
use crate::repo::runs::Runs;

/// A timeline of which nothing was heard for so long, and for as long as the recovery window, is not active.
const LATELY: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to keep and what to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of every backup, in the order of the WAL.
    pub verdicts: Vec<Verdict>,
    /// Segments that are there and go: whatever there is of them.
    pub wal: BTreeMap<Timeline, Runs>,
    /// Segments that nobody needs, whether they are there or not.
    pub unneeded: BTreeMap<Timeline, Runs>,
    pub windows: Vec<Covered>,
    /// Restores that were considered.
    pub restores: Vec<Restoring>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// How far back every moment of a line can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    pub timeline: Timeline,
    /// The begin of the window.
    pub wanted: Timestamp,
    pub since: Timestamp,
    /// The backup that recovery begins with.
    pub backup: Name,
}

impl Plan {
    pub fn kept(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.is_kept())
    }

    pub fn going(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.is_kept())
    }

    /// The WAL that has expired once this is carried out: between the first and the last that goes of a timeline, all
    /// that nobody needs. What was lost of that need not be missed any more.
    pub fn expired(&self) -> BTreeMap<Timeline, Runs> {
        let reach = |going: &Runs| Some(Runs::from(going.first()?..=going.last()?));
        let of = |(timeline, going): (&Timeline, &Runs)| {
            let unneeded = self.unneeded.get(timeline).unwrap_or(going);
            Some((*timeline, unneeded.within(&reach(going)?)))
        };
        self.wal.iter().filter_map(of).collect()
    }

    /// The same in the order in which they are deleted: those first whose time is contradicted by another. With that one
    /// gone before them, they would be believed by the next run of one that was killed.
    pub fn going_in_order(&self) -> impl Iterator<Item = &Verdict> {
        let of = |doubtful| self.going().filter(move |verdict| verdict.doubtful == doubtful);
        of(true).chain(of(false))
    }
}

/// Decides.
pub fn plan(facts: &Facts, policy: &Expire, clock: &Clock, records: &impl Records) -> Result<Plan> {
    let window = policy.recovery_window.map(|window| clock.back(window));
    let lately = earlier(clock.now, LATELY);
    let lines = lines(facts, clock, window.map_or(lately, |reach| reach.begin.min(lately)));
    let mut planner = Planner::new(facts, &lines);
    if !lines.iter().any(|line| line.good().next().is_some()) {
        return Ok(planner.keep_all());
    }
    for line in lines.iter().filter(|line| line.active) {
        planner.newest(line);
        planner.last(line, policy);
        if let Some(reach) = window {
            planner.window(line, reach);
        }
    }
    planner.last_resort();
    rules::periods(facts, &lines, policy, &mut planner.kept);
    planner.held(clock.now);
    planner.not_good();
    planner.unplaced();
    planner.witnesses();
    planner.tell_times();
    if let Some(silence) = window.and_then(|reach| reach.silence) {
        planner.tell_silence(silence);
    }
    planner.finish(records)
}

/// What is kept so far.
pub struct Kept {
    reasons: BTreeMap<usize, Vec<Reason>>,
}

impl Kept {
    pub fn keep(&mut self, index: usize, reason: Reason) {
        let reasons = self.reasons.entry(index).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    pub fn has(&self, index: usize) -> bool {
        self.reasons.contains_key(&index)
    }
}

struct Planner<'a> {
    facts: &'a Facts,
    lines: &'a [Line<'a>],
    kept: Kept,
    /// By line: the backups from which on all WAL is kept.
    continuous: BTreeMap<Timeline, BTreeSet<usize>>,
    windows: Vec<Covered>,
    notes: Vec<String>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, lines: &'a [Line<'a>]) -> Self {
        Self {
            facts,
            lines,
            kept: Kept { reasons: BTreeMap::new() },
            continuous: BTreeMap::new(),
            windows: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn label(&self, index: usize) -> Option<&Name> {
        self.facts.backups.get(index).map(|backup| &backup.at.label)
    }

    /// All WAL behind it stays, on every active line that it lies on: else the WAL that one line keeps would end at the
    /// fork of another, where a hole looks like a loss.
    fn keep_with_wal(&mut self, line: &Line<'_>, index: usize, reason: Reason) {
        self.kept.keep(index, reason);
        let has_it =
            |other: &&Line<'_>| other.active && other.backups.iter().any(|placed| placed.index == index);
        let others = self.lines.iter().filter(has_it).map(Line::timeline);
        for timeline in others.chain([line.timeline()]) {
            self.continuous.entry(timeline).or_default().insert(index);
        }
    }

    fn newest(&mut self, line: &Line<'_>) {
        if let Some(newest) = line.good().next_back() {
            self.keep_with_wal(line, newest.index, Reason::Newest { timeline: line.timeline() });
        }
    }

    fn last(&mut self, line: &Line<'_>, policy: &Expire) {
        let count = policy.keep_last.map_or(0, |count| count.get());
        for (nth, backup) in (1..=count).zip(line.good().rev()) {
            self.keep_with_wal(line, backup.index, Reason::Last { nth });
        }
    }

    /// The newest good backup that was consistent when the window began, and all that came later.
    fn window(&mut self, line: &Line<'_>, reach: Reach) {
        // Times never decrease along a line.
        let anchor = line.good().rfind(|backup| backup.time <= reach.begin).or_else(|| line.good().next());
        let Some(anchor) = anchor else { return };
        self.keep_with_wal(line, anchor.index, Reason::WindowBegin);
        let later = line.backups.iter().skip_while(|backup| backup.index != anchor.index).skip(1);
        for backup in later {
            self.keep_with_wal(line, backup.index, Reason::Window);
        }
        if let Some(backup) = self.label(anchor.index).cloned() {
            let (timeline, wanted) = (line.timeline(), reach.begin);
            self.windows.push(Covered { timeline, wanted, since: anchor.time.max(wanted), backup });
        }
    }

    /// Where no active line has a good backup, the newest of the line that was active last stays.
    fn last_resort(&mut self) {
        if !self.kept.reasons.is_empty() {
            return;
        }
        let heard = |line: &&Line<'_>| (self.facts.activity.get(&line.timeline()).copied(), line.timeline());
        let lines = self.lines.iter().filter(|line| line.good().next().is_some());
        if let Some(line) = lines.max_by_key(heard) {
            self.newest(line);
        }
    }

    /// What people and restores hold.
    fn held(&mut self, now: Timestamp) {
        for (index, backup) in (0..).zip(&self.facts.backups) {
            let holds =
                |pin: &&Pinned| pin.label == backup.at.label && pin.until.is_none_or(|until| now < until);
            for pin in self.facts.pins.iter().filter(holds) {
                self.kept.keep(index, Reason::Pinned { until: pin.until });
            }
            for restore in self.facts.restores.iter().filter(|restore| restore.label == backup.at.label) {
                self.kept.keep(index, Reason::Restoring { who: restore.who.clone() });
            }
        }
    }

    /// A backup that can't be restored goes only where a later one on its line can be, and is kept.
    fn not_good(&mut self) {
        for line in self.lines.iter().filter(|line| line.active) {
            let mut replaced = false;
            for backup in line.backups.iter().rev() {
                replaced |= backup.good && self.kept.has(backup.index);
                if !replaced {
                    self.kept.keep(backup.index, Reason::NothingNewer { timeline: line.timeline() });
                }
            }
        }
    }

    fn unplaced(&mut self) {
        for (index, backup) in (0..).zip(&self.facts.backups) {
            let on_line = |line: &Line<'_>| line.backups.iter().any(|placed| placed.index == index);
            if !self.lines.iter().any(on_line) {
                self.kept.keep(index, Reason::UnknownTimeline { timeline: backup.at.consistent_timeline });
            }
        }
        if !self.facts.unknown.is_empty() {
            let unknown: Vec<String> = self.facts.unknown.iter().map(ToString::to_string).collect();
            self.notes.push(format!(
                "the history of timeline {} can't be read, so no WAL of these and of older timelines goes",
                unknown.join(", ")
            ));
        }
    }

    /// What tells that the time of a kept backup is wrong stays with it: else the next run would believe it.
    fn witnesses(&mut self) {
        loop {
            let count = self.kept.reasons.len();
            for line in self.lines {
                let mut latest = None;
                for backup in &line.backups {
                    if backup.believed {
                        latest = Some(backup.index);
                    } else if let Some(witness) = latest.filter(|_| self.kept.has(backup.index))
                        && let Some(against) = self.label(backup.index).cloned()
                        && !self.kept.has(witness)
                    {
                        self.kept.keep(witness, Reason::Witness { against });
                    }
                }
            }
            // On another line its own time may be contradicted.
            if self.kept.reasons.len() == count {
                return;
            }
        }
    }

    /// Backups whose time is not believed on some line.
    fn doubtful(&self) -> BTreeSet<usize> {
        let backups = self.lines.iter().flat_map(|line| &line.backups);
        backups.filter(|backup| !backup.believed).map(|backup| backup.index).collect()
    }

    fn tell_times(&mut self) {
        for index in self.doubtful() {
            let Some(backup) = self.facts.backups.get(index) else { continue };
            self.notes.push(format!(
                "backup {} claims to have ended at {:.0}, which contradicts its place in the WAL or lies in the \
                 future: it counts as late as the one after it",
                backup.at.label, backup.stop
            ));
        }
    }

    fn tell_silence(&mut self, (from, to): (Timestamp, Timestamp)) {
        self.notes.push(format!(
            "nothing was heard of this cluster from {from:.0} to {to:.0}: the recovery window does not count that, \
             in case a clock jumped"
        ));
    }

    fn keep_all(mut self) -> Plan {
        for index in 0..self.facts.backups.len() {
            self.kept.keep(index, Reason::NoGoodBackup);
        }
        if !self.facts.backups.is_empty() {
            self.notes.push("no backup has all the WAL that it needs, so nothing goes".to_string());
        }
        Plan {
            verdicts: self.verdicts(),
            wal: BTreeMap::new(),
            unneeded: BTreeMap::new(),
            windows: Vec::new(),
            restores: self.facts.restores.clone(),
            notes: self.notes,
        }
    }

    fn finish(mut self, records: &impl Records) -> Result<Plan> {
        let needs = needs::Needs { facts: self.facts, lines: self.lines, continuous: &self.continuous };
        let unneeded = needs.unneeded(|index| self.kept.has(index), records, &mut self.notes)?;
        let there = |timeline: &Timeline| self.facts.wal.get(timeline).map(|wal| &wal.any);
        let wal = unneeded
            .iter()
            .filter_map(|(timeline, free)| Some((*timeline, there(timeline)?.within(free))))
            .filter(|(_, going)| !going.is_empty())
            .collect();
        let verdicts = self.verdicts();
        let restores = self.facts.restores.clone();
        Ok(Plan { verdicts, wal, unneeded, windows: self.windows, restores, notes: self.notes })
    }

    fn verdicts(&mut self) -> Vec<Verdict> {
        let doubtful = self.doubtful();
        let mut verdicts: Vec<Verdict> = (0..)
            .zip(&self.facts.backups)
            .map(|(index, backup)| Verdict {
                label: backup.at.label.clone(),
                run: backup.run,
                stop: backup.stop,
                timeline: backup.at.consistent_timeline,
                consistent: backup.at.consistent,
                reasons: self.kept.reasons.remove(&index).unwrap_or_default(),
                doubtful: doubtful.contains(&index),
                trouble: self.trouble(index, backup),
            })
            .collect();
        verdicts.sort_by(|one, other| {
            let key = |verdict: &Verdict| (verdict.consistent, verdict.stop, verdict.label.clone());
            key(one).cmp(&key(other))
        });
        verdicts
    }

    /// Why a backup can't be restored along any line.
    fn trouble(&self, index: usize, backup: &Backup) -> Option<String> {
        let on_lines =
            self.lines.iter().flat_map(|line| &line.backups).filter(|placed| placed.index == index);
        let placed: Vec<&Placed> = on_lines.collect();
        if placed.iter().any(|placed| placed.good) {
            return None;
        }
        let missing = placed.iter().find_map(|placed| placed.missing);
        backup.damage.clone().or(missing.map(|name| format!("{name} is missing")))
    }
}
