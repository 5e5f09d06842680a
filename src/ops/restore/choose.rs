//! Which backup, which timeline, how far: the decision, made from what the archive says of itself before
//! anything is written.
//!
//! A backup can reach a target when it lies on the target's timeline path, when its consistent point does
//! not lie behind the target, and when no segment is missing from its start to the record at which
//! PostgreSQL will stop (recoveryStopsBefore and recoveryStopsAfter in xlogrecovery.c; xlog.c in 14). That
//! record is looked up in the archive, so a target that PostgreSQL would not find is refused here.
//!
//! The end of the archive is no target of PostgreSQL's: without one it takes whatever comes next, and a
//! damaged record for the end. So it is planned as the LSN of the last archived record.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use super::target::{Aim, Target};
use super::window;
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::time::Timestamp;
use crate::pg::wal::{Landmark, Search, SegmentFacts, Sought, Unfinished};
use crate::repo::backup::BackupHeader;

/// A backup, as far as the choice goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub label: Name,
    /// Where recovery begins.
    pub start: Lsn,
    pub start_timeline: Timeline,
    /// Recovery must pass this point: the first byte that it does not need.
    pub consistent: Lsn,
    pub consistent_timeline: Timeline,
    /// The server's clock at the end of the backup.
    pub stop_time: Timestamp,
}

impl Candidate {
    pub fn of(header: &BackupHeader) -> Result<Self> {
        let stop_time = Timestamp::from_unix(header.stop.time.as_microsecond())
            .ok_or_else(|| Error::corrupt(format!("the end of backup {} is no time", header.label)))?;
        Ok(Self {
            label: header.label.clone(),
            start: header.start.lsn,
            start_timeline: header.start.timeline,
            consistent: header.consistent_lsn,
            consistent_timeline: header.stop.timeline,
            stop_time,
        })
    }

    /// Whether recovery along a path can begin with it.
    pub fn lies_on(&self, path: &TimelineHistory) -> bool {
        path.timeline_of(self.start) == self.start_timeline
            && path.descends_from(self.consistent_timeline, self.consistent)
    }
}

/// What the choice asks the archive. Segments are numbered along a path.
pub trait Archive {
    fn segment_size(&self) -> SegmentSize;
    /// The last of the segments that follow `from` without a gap; None when `from` is missing.
    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>>;
    /// The newest segment from `from` on, whether there is a gap before it or not.
    fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>>;
    /// The newest segment that bears the timeline's own number.
    fn newest_of(&self, timeline: Timeline) -> Result<Option<SegmentName>>;
    /// The end of the WAL that is there of an existing segment: the start of the next one, or where the part
    /// ends that was streamed.
    fn end_of(&self, path: &TimelineHistory, segment: u64) -> Lsn;
    /// Why a segment is missing, if the archive knows.
    fn why_missing(&self, name: SegmentName) -> Option<String>;
    /// Shows `visit` the facts of existing segments in order, until it breaks off.
    fn facts(
        &self,
        path: &TimelineHistory,
        segments: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<()>;
    /// What the record that a segment leaves unfinished says, read together with the following ones.
    fn join(&self, path: &TimelineHistory, segment: u64, unfinished: &Unfinished) -> Result<SegmentFacts>;
    /// The first record that is sought among those that lie wholly within a segment.
    fn find(&self, path: &TimelineHistory, segment: u64, search: &Search) -> Result<Option<Landmark>>;
}

/// Takes the facts of one segment.
pub type Visit<'a> = dyn FnMut(u64, SegmentFacts) -> Result<ControlFlow<()>> + 'a;

/// Where recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As soon as the backup is consistent.
    Consistent,
    /// At the first record from an LSN on: this one.
    Lsn(Lsn),
    /// At this record, which the target matches.
    At(Landmark),
    /// Behind the archive's last record, which begins here.
    End { last_record: Lsn },
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub backup: Candidate,
    pub path: TimelineHistory,
    pub stop: Stop,
    /// The segments that recovery needs, first and last.
    pub segments: RangeInclusive<u64>,
    /// The end of the WAL that follows the backup without a gap.
    pub archived: u64,
}

impl Choice {
    /// The LSN of the record at which recovery stops, or which it must pass.
    pub fn lsn(&self) -> Lsn {
        match &self.stop {
            Stop::Consistent => self.backup.consistent,
            Stop::Lsn(lsn) => *lsn,
            Stop::At(landmark) => landmark.lsn,
            Stop::End { last_record } => *last_record,
        }
    }

    /// A path to a newer timeline that is left before it gets there is better called by the timeline on which
    /// it stops: PostgreSQL would write a history that names the newer one as the parent. Only where the same
    /// files are read.
    fn on_its_own_timeline(
        mut self,
        size: SegmentSize,
        histories: &BTreeMap<Timeline, TimelineHistory>,
        aim: &Aim,
    ) -> Self {
        let timeline = self.path.path_timeline_for_segment(*self.segments.end(), size);
        let newer_begin = |path: &TimelineHistory| path.switch_point(timeline);
        let same_files =
            newer_begin(&self.path).is_some_and(|begin| size.segment_of(begin) > *self.segments.end());
        if let Some(path) = histories.get(&timeline).filter(|_| same_files && aim.timeline.is_none()) {
            self.path = path.clone();
        }
        self
    }
}

/// What one timeline path has to say.
enum Verdict {
    Chosen(Box<Choice>),
    /// No backup lies on it that can be used.
    NoBackup,
    /// All of its backups ended after the target.
    TooEarly,
    /// It does not have the target.
    NotThere,
    /// The target lies behind a segment that is missing.
    Gap(SegmentName),
}

/// Chooses, or says what can be reached instead. `now` is the time before which targets must lie.
pub fn choose<A: Archive>(
    archive: &A,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
    aim: &Aim,
    now: Timestamp,
) -> Result<Choice> {
    let refuse = |cause: String| window::refuse(archive, histories, backups, aim, Error::not_found(cause));
    if let Target::Time(time) = aim.target
        && time > now
    {
        return refuse(format!("the time {time} has not come yet: it is {now}"));
    }
    let mut cause = None;
    for path in paths(archive, histories, aim)? {
        let chooser = Chooser { archive, path, backups, aim };
        let first = cause.is_none();
        let verdict = match chooser.verdict() {
            // A damaged segment is like a missing one: what lies before it can be reached.
            Err(error) if error.kind() == Kind::Corrupt => {
                return window::refuse(archive, histories, backups, aim, error);
            }
            verdict => verdict?,
        };
        match verdict {
            Verdict::Chosen(choice) if first || !matches!(choice.stop, Stop::End { .. }) => {
                return Ok(choice.on_its_own_timeline(archive.segment_size(), histories, aim));
            }
            // Never on to an older branch that would give something else than what is missing.
            Verdict::Gap(name) => {
                let why = archive.why_missing(name).map(|why| format!(": {why}"));
                return refuse(format!("{name} is missing from the archive{}", why.unwrap_or_default()));
            }
            Verdict::NoBackup => {}
            Verdict::TooEarly => {
                cause = Some(format!("{} lies before the end of the oldest backup", aim.target))
            }
            Verdict::NotThere | Verdict::Chosen(_) => {
                cause.get_or_insert_with(|| format!("{} is not in the archive", aim.target));
            }
        }
    }
    refuse(cause.unwrap_or_else(|| "no backup can be used".to_string()))
}

/// The timelines to try, best first: the highest number is the newest. One of which nothing is archived yet
/// has only what its parent has, so its parent stands for it.
fn paths<'a, A: Archive>(
    archive: &A,
    histories: &'a BTreeMap<Timeline, TimelineHistory>,
    aim: &Aim,
) -> Result<Vec<&'a TimelineHistory>> {
    if let Some(timeline) = aim.timeline {
        let known = || histories.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let path = histories.get(&timeline).ok_or_else(|| {
            Error::not_found(format!("the repository has no history of timeline {timeline}"))
                .with_hint(format!("it knows these timelines: {}", known()))
        })?;
        return Ok(vec![path]);
    }
    let mut paths = Vec::new();
    for (timeline, path) in histories.iter().rev() {
        if archive.newest_of(*timeline)?.is_some() {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// One timeline path and the backups, of which some lie on it.
struct Chooser<'a, A> {
    archive: &'a A,
    path: &'a TimelineHistory,
    backups: &'a [Candidate],
    aim: &'a Aim,
}

impl<A: Archive> Chooser<'_, A> {
    /// Tries the backups of the path, newest first.
    fn verdict(&self) -> Result<Verdict> {
        let mut worst = None;
        let mut missing = None;
        let mut scanned = Scanned::default();
        for backup in on_path(self.backups, self.path) {
            let size = self.archive.segment_size();
            let from = size.segment_of(backup.start);
            let end = self.archive.last_contiguous(self.path, from)?;
            let archived = end.map(|end| self.archive.end_of(self.path, end));
            let Some(end) = end.filter(|_| archived >= Some(backup.consistent)) else {
                missing.get_or_insert(archived.map_or(from, |archived| size.segment_of(archived)));
                continue;
            };
            match self.locate(backup, from, end, &mut scanned)? {
                Located::At(stop, last) => return self.chosen(backup, stop, from..=last, end),
                Located::Before => worst = Some(Verdict::TooEarly),
                Located::NotFound => worst = Some(Verdict::NotThere),
                Located::Behind => return self.behind(backup, from, end),
            }
        }
        let unusable = || missing.map_or(Verdict::NoBackup, |missing| Verdict::Gap(self.name(missing)));
        Ok(worst.unwrap_or_else(unusable))
    }

    fn name(&self, segment: u64) -> SegmentName {
        let size = self.archive.segment_size();
        SegmentName::from_number(self.path.path_timeline_for_segment(segment, size), segment, size)
    }

    fn chosen(
        &self,
        backup: &Candidate,
        stop: Stop,
        segments: RangeInclusive<u64>,
        archived: u64,
    ) -> Result<Verdict> {
        let (backup, path) = (backup.clone(), self.path.clone());
        Ok(Verdict::Chosen(Box::new(Choice { backup, path, stop, segments, archived })))
    }

    /// The target lies behind all WAL that follows the backup without a gap.
    fn behind(&self, backup: &Candidate, from: u64, end: u64) -> Result<Verdict> {
        let next = end.saturating_add(1);
        if self.archive.newest_on(self.path, next)?.is_some() {
            return Ok(Verdict::Gap(self.name(next)));
        }
        let stop = self.end(from..=end)?;
        self.chosen(backup, stop, from..=end, end)
    }

    fn end(&self, segments: RangeInclusive<u64>) -> Result<Stop> {
        let last = self.name(*segments.end());
        let last_record = last_record(self.archive, self.path, segments)?;
        let last_record = last_record.ok_or_else(|| {
            Error::corrupt(format!("could not find a whole record in the archived WAL up to {last}"))
        })?;
        Ok(Stop::End { last_record })
    }

    fn locate(&self, backup: &Candidate, from: u64, end: u64, scanned: &mut Scanned) -> Result<Located> {
        match &self.aim.target {
            Target::Latest => Ok(Located::Behind),
            Target::Immediate => match self.record_from(backup.consistent, end, |_| Stop::Consistent)? {
                Located::At(stop, last) => Ok(Located::At(stop, last)),
                _ => Ok(Located::At(self.end(from..=end)?, end)),
            },
            Target::Lsn(lsn) if *lsn < backup.consistent => Ok(Located::Before),
            Target::Lsn(lsn) if self.archive.end_of(self.path, end) < *lsn => {
                match self.archive.newest_on(self.path, end.saturating_add(1))? {
                    Some(_) => Ok(Located::Behind),
                    None => Ok(Located::NotFound),
                }
            }
            Target::Lsn(lsn) => self.record_from(*lsn, end, Stop::Lsn),
            Target::Time(time) if *time < backup.stop_time => Ok(Located::Before),
            Target::Time(time) => {
                let sought = Sought::EndedAfter { time: *time, or_at: !self.aim.inclusive };
                self.landmark(backup, sought, from, end, scanned)
            }
            Target::Xid(xid) => self.landmark(backup, Sought::Transaction(xid.0), from, end, scanned),
            Target::Name(name) => {
                self.landmark(backup, Sought::RestorePoint(name.as_str().into()), from, end, scanned)
            }
        }
    }

    /// PostgreSQL stops at the first record that begins at or behind `lsn`: that one must be there.
    fn record_from(&self, lsn: Lsn, end: u64, stop: impl Fn(Lsn) -> Stop) -> Result<Located> {
        let Some((segment, record)) = record_from(self.archive, self.path, lsn, end)? else {
            return Ok(Located::Behind);
        };
        let record = match record {
            Some(record) => record,
            None => {
                let search = Search { from: lsn, sought: Sought::AnyRecord };
                self.archive.find(self.path, segment, &search)?.map_or(lsn, |found| found.lsn)
            }
        };
        Ok(Located::At(stop(record), segment))
    }

    /// The first record of the backup's WAL that is sought. What newer backups searched is not searched again.
    fn landmark(
        &self,
        backup: &Candidate,
        sought: Sought,
        from: u64,
        end: u64,
        scanned: &mut Scanned,
    ) -> Result<Located> {
        let by_time = matches!(sought, Sought::EndedAfter { .. });
        let search = Search { from: backup.start, sought };
        // The segment in which a newer backup began was searched only from there on.
        let until = scanned.from.map_or(end, |newer| newer.min(end));
        let known = scanned.found.take().filter(|_| until < end);
        scanned.found = first_match(self.archive, self.path, from..=until, &search)?.or(known);
        scanned.from = Some(from);
        match &scanned.found {
            Some(found) if found.lsn >= backup.consistent => {
                let last = self.archive.segment_size().segment_before(found.end_lsn);
                Ok(Located::At(Stop::At(found.clone()), last))
            }
            Some(_) => Ok(Located::Before),
            None if by_time => Ok(Located::Behind),
            None => Ok(Located::NotFound),
        }
    }
}

/// Where a target lies, seen from one backup.
enum Located {
    /// Recovery stops there and needs no segment behind this one.
    At(Stop, u64),
    /// Before the backup's consistent point.
    Before,
    NotFound,
    /// Behind the last record.
    Behind,
}

/// What was searched for newer backups: from this segment to the end, with this outcome.
#[derive(Default)]
struct Scanned {
    from: Option<u64>,
    found: Option<Landmark>,
}

/// The backups that recovery along a path can begin with, newest first.
pub fn on_path<'a>(backups: &'a [Candidate], path: &TimelineHistory) -> Vec<&'a Candidate> {
    let mut fitting: Vec<&Candidate> = backups.iter().filter(|backup| backup.lies_on(path)).collect();
    fitting.sort_by_key(|backup| std::cmp::Reverse((backup.consistent, backup.stop_time)));
    fitting
}

/// Where the first whole record is that begins at or behind `lsn`: the segment up to which recovery reads for
/// it, and its LSN if that is an earlier segment's. The segments up to `end` must exist.
pub fn record_from<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    lsn: Lsn,
    end: u64,
) -> Result<Option<(u64, Option<Lsn>)>> {
    let first = archive.segment_size().segment_of(lsn);
    let mut unfinished = None;
    let mut found = None;
    archive.facts(path, first..=end, &mut |segment, facts| {
        // A record that an earlier segment left unfinished is whole when another one follows it.
        if let Some(record) = unfinished.filter(|_| facts.first_lsn.is_some()) {
            found = Some((segment, Some(record)));
        } else if facts.last_lsn.is_some_and(|last| last >= lsn) {
            found = Some((segment, None));
        }
        let here = facts.unfinished.map(|record| record.lsn);
        unfinished = unfinished.or(here.filter(|record| *record >= lsn));
        Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The first record of consecutive segments that is sought.
fn first_match<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    segments: RangeInclusive<u64>,
    search: &Search,
) -> Result<Option<Landmark>> {
    let mut found = None;
    archive.facts(path, segments, &mut |segment, facts| {
        if search.sought.may_be_in(&facts) {
            found = archive.find(path, segment, search)?;
        }
        if found.is_none()
            && let Some(unfinished) = facts.unfinished.filter(Unfinished::may_matter)
        {
            let joined = archive.join(path, segment, &unfinished)?;
            found = search.in_joined(unfinished.lsn, &joined);
        }
        Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// Where the last whole record of consecutive segments begins.
pub fn last_record<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    segments: RangeInclusive<u64>,
) -> Result<Option<Lsn>> {
    let (first, mut segment) = (*segments.start(), *segments.end());
    let mut followed = false;
    loop {
        let mut facts = None;
        archive.facts(path, segment..=segment, &mut |_, found| {
            facts = Some(found);
            Ok(ControlFlow::Break(()))
        })?;
        let Some(facts) = facts else { return Ok(None) };
        // What a segment leaves unfinished is whole when a later record begins, or when a part that was
        // streamed of the next one ends right behind it.
        if let Some(record) = &facts.unfinished
            && (followed || archive.join(path, segment, record)?.end_lsn.is_some())
        {
            return Ok(Some(record.lsn));
        }
        if facts.last_lsn.is_some() {
            return Ok(facts.last_lsn);
        }
        if segment <= first {
            return Ok(None);
        }
        followed |= facts.first_lsn.is_some();
        segment = segment.saturating_sub(1);
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
