//! An archive in memory: segments of 1 MiB with the time at which each was written, backups, forks.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::Expire;
use crate::error::Result;
use crate::ident::{Id, Name};
use crate::ops::expire::clock::{Clock, Evidence};
use crate::ops::expire::facts::{Backup, Facts, Pinned, Records, Restoring, Wal};
use crate::ops::expire::plan::{self, Plan};
use crate::ops::restore::choose::Candidate;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;

pub const MIB: u64 = 1 << 20;

pub fn size() -> SegmentSize {
    SegmentSize::try_from(MIB).expect("a size")
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|_| format!("{text}T12:00:00Z").parse().expect("a time"))
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// Rules as one writes them: "last 3, daily 7, window 14".
pub fn policy(text: &str) -> Expire {
    let mut policy = Expire::default();
    for rule in text.split(", ").filter(|rule| !rule.is_empty()) {
        let (rule, number) = rule.split_once(' ').expect("a rule and a number");
        let number: u32 = number.parse().expect("a number");
        let count = NonZeroU32::new(number);
        match rule {
            "last" => policy.keep_last = count,
            "daily" => policy.keep_daily = count,
            "weekly" => policy.keep_weekly = count,
            "monthly" => policy.keep_monthly = count,
            "yearly" => policy.keep_yearly = count,
            "window" => policy.recovery_window = Some(Duration::from_secs(u64::from(number) * 86400)),
            other => panic!("no rule {other}"),
        }
    }
    policy
}

#[derive(Clone, Debug)]
pub struct World {
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    /// When each history was stored.
    pub forked: BTreeMap<Timeline, Timestamp>,
    /// Whole segments and when each was stored.
    pub segments: BTreeMap<(Timeline, u64), Timestamp>,
    pub backups: Vec<Backup>,
    pub pins: Vec<Pinned>,
    pub restores: Vec<Restoring>,
    pub unknown: BTreeSet<Timeline>,
    /// What this host's clock says.
    pub host: Timestamp,
    /// What the newest commit claims, if not the time at which the newest segment was stored.
    pub server: Option<Timestamp>,
}

impl World {
    pub fn new() -> Self {
        let first = Timeline(1);
        Self {
            histories: [(first, TimelineHistory::without_parents(first))].into(),
            forked: BTreeMap::new(),
            segments: BTreeMap::new(),
            backups: Vec::new(),
            pins: Vec::new(),
            restores: Vec::new(),
            unknown: BTreeSet::new(),
            host: hour(0),
            server: None,
        }
    }

    /// Segments of a timeline, all stored at one time.
    pub fn wal(mut self, timeline: u32, numbers: std::ops::RangeInclusive<u64>, time: &str) -> Self {
        self.segments.extend(numbers.map(|number| ((Timeline(timeline), number), at(time))));
        self.host = self.host.max(at(time));
        self
    }

    pub fn without(mut self, timeline: u32, number: u64) -> Self {
        self.segments.remove(&(Timeline(timeline), number)).expect("that segment");
        self
    }

    /// A backup that begins and becomes consistent in one segment, which is there, and so is the next.
    pub fn backup(mut self, label: &str, timeline: u32, number: u64, stop: &str) -> Self {
        self.add_backup(label, (timeline, number), number, at(stop));
        self.wal(timeline, number..=number + 1, stop)
    }

    /// The same with the time that the server's clock said.
    pub fn backup_that_claims(
        self,
        label: &str,
        timeline: u32,
        number: u64,
        stop: &str,
        claims: &str,
    ) -> Self {
        let mut world = self.backup(label, timeline, number, stop);
        world.backups.last_mut().expect("a backup").stop = at(claims);
        world
    }

    pub fn add_backup(&mut self, label: &str, start: (u32, u64), last: u64, stop: Timestamp) {
        let path = self.histories.get(&Timeline(start.0)).expect("a history");
        let (begin, consistent) = (Lsn(start.1 * MIB + 40), Lsn(last * MIB + 500));
        let candidate = Candidate {
            label: name(label),
            start: begin,
            start_timeline: path.timeline_of(begin),
            consistent,
            consistent_timeline: path.timeline_of(Lsn(consistent.0 - 1)),
            stop_time: crate::pg::time::Timestamp::from_unix(stop.as_microsecond()).expect("in range"),
        };
        let run = Id::random().expect("an id");
        self.backups.push(Backup { run, at: candidate, stop, damage: None });
    }

    /// A new timeline that leaves `parent` in the middle of a segment. The segment is there under the new name.
    pub fn fork(mut self, timeline: u32, parent: u32, number: u64, time: &str) -> Self {
        self.add_fork(timeline, parent, number, at(time));
        self
    }

    pub fn add_fork(&mut self, timeline: u32, parent: u32, number: u64, time: Timestamp) {
        let of_parent = self.histories.get(&Timeline(parent)).expect("a history").entries();
        let mut text: String =
            of_parent.iter().map(|entry| format!("{}\t{}\tx\n", entry.timeline, entry.switch_lsn)).collect();
        text.push_str(&format!("{parent}\t{}\tx\n", Lsn(number * MIB + 600)));
        let history = TimelineHistory::parse(Timeline(timeline), text.as_bytes()).expect("a history");
        self.histories.insert(Timeline(timeline), history);
        self.forked.insert(Timeline(timeline), time);
        self.segments.insert((Timeline(timeline), number), time);
        self.host = self.host.max(time);
    }

    pub fn damaged(mut self, label: &str) -> Self {
        let backup = self.backups.iter_mut().find(|backup| backup.at.label == name(label));
        backup.expect("that backup").damage = Some("a pack is damaged".into());
        self
    }

    pub fn pin(mut self, label: &str, until: Option<&str>) -> Self {
        self.pins.push(Pinned { label: name(label), until: until.map(at) });
        self
    }

    pub fn now(mut self, time: &str) -> Self {
        self.host = at(time);
        self
    }

    pub fn facts(&self) -> Facts {
        let mut wal: BTreeMap<Timeline, Wal> = BTreeMap::new();
        let mut activity: BTreeMap<Timeline, Timestamp> = self.forked.clone();
        let mut heard = |timeline: Timeline, at: Timestamp| {
            let known = activity.entry(timeline).or_insert(at);
            *known = at.max(*known);
        };
        for ((timeline, number), time) in &self.segments {
            let wal = wal.entry(*timeline).or_default();
            wal.whole.insert(*number);
            wal.any.insert(*number);
            heard(*timeline, *time);
        }
        let known = self.histories.iter().filter(|(timeline, _)| !self.unknown.contains(timeline));
        Facts {
            size: size(),
            histories: known.map(|(timeline, path)| (*timeline, path.clone())).collect(),
            unknown: self.unknown.clone(),
            backups: self.backups.clone(),
            wal,
            activity,
            pins: self.pins.clone(),
            restores: self.restores.clone(),
        }
    }

    pub fn clock(&self) -> Clock {
        let mut evidence = Evidence::default();
        let mut newest: BTreeMap<Timeline, Timestamp> = BTreeMap::new();
        for ((timeline, _), time) in &self.segments {
            evidence.heard(*time);
            newest.insert(*timeline, *time);
        }
        for time in newest.values() {
            evidence.stored(*time);
            evidence.ended(self.server.unwrap_or(*time));
        }
        for backup in &self.backups {
            evidence.heard(backup.stop);
        }
        Clock::new(self.host, evidence)
    }

    pub fn plan(&self, policy: &Expire) -> Plan {
        let facts = self.facts();
        plan::plan(&facts, policy, &self.clock(), &Next { facts: &facts }).expect("a plan")
    }

    /// Carries a plan out.
    pub fn apply(&mut self, plan: &Plan) {
        let going: BTreeSet<Name> = plan.going().map(|verdict| verdict.label.clone()).collect();
        self.backups.retain(|backup| !going.contains(&backup.at.label));
        self.segments
            .retain(|(timeline, number), _| !plan.wal.get(timeline).is_some_and(|wal| wal.contains(*number)));
    }
}

impl World {
    /// Carries a plan out in the order of `act.rs`, up to a share of it.
    pub fn apply_part(&mut self, plan: &Plan, done: f64) {
        let headers: Vec<&Name> = plan.going_in_order().map(|verdict| &verdict.label).collect();
        let wal: Vec<(Timeline, u64)> = plan
            .wal
            .iter()
            .flat_map(|(timeline, runs)| runs.iter().flatten().map(|number| (*timeline, number)))
            .collect();
        let steps = ((headers.len() + wal.len()) as f64 * done) as usize;
        for label in headers.iter().take(steps) {
            self.backups.retain(|backup| backup.at.label != **label);
        }
        for segment in wal.iter().take(steps.saturating_sub(headers.len())) {
            self.segments.remove(segment);
        }
    }
}

/// The record behind a backup lies in the next segment.
pub struct Next<'a> {
    pub facts: &'a Facts,
}

impl Records for Next<'_> {
    fn last_needed(&self, path: &TimelineHistory, backup: &Candidate) -> Result<Option<u64>> {
        let next = size().segment_of(backup.consistent) + 1;
        Ok(Some(next).filter(|next| self.facts.holds(path, *next)))
    }
}

impl Facts {
    pub fn holds(&self, path: &TimelineHistory, number: u64) -> bool {
        let timeline = path.path_timeline_for_segment(number, self.size);
        self.wal.get(&timeline).is_some_and(|wal| wal.whole.contains(number))
    }
}

/// The labels that are kept, in the order of the WAL.
pub fn kept(plan: &Plan) -> String {
    plan.kept().map(|verdict| verdict.label.as_str()).collect::<Vec<_>>().join(" ")
}

/// The WAL that goes: "1:3-5 1:9 2:4".
pub fn gone(plan: &Plan) -> String {
    let runs = plan.wal.iter().flat_map(|(timeline, runs)| {
        runs.iter().map(move |run| match run.start() == run.end() {
            true => format!("{timeline}:{}", run.start()),
            false => format!("{timeline}:{}-{}", run.start(), run.end()),
        })
    });
    runs.collect::<Vec<_>>().join(" ")
}

pub fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(Timeline(timeline), number, size())
}

/// `hours` after the year began.
pub fn hour(hours: i64) -> Timestamp {
    at("2026-01-01T00:00:00Z") + SignedDuration::from_hours(hours)
}
