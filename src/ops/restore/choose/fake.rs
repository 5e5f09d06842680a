//! An archive in memory for tests: segments of 1 MiB with a few records each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Archive, Candidate, Visit};
use crate::error::{Error, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::pg::time::Timestamp;
use crate::pg::wal::{
    Landmark, RestorePoint, Search, SegmentFacts, Sought, TablespaceAction, TablespaceChange, Unfinished,
    XidRange,
};

pub const SEGMENT: u64 = 1 << 20;
/// Where the first record of a segment lies, and the length of each.
const FIRST: u64 = 40;
const LENGTH: u64 = 64;

/// A record of which only this matters.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// Nothing of interest.
    Other,
    /// The end of a transaction: its id and second.
    End(u32, i64),
    Point(&'static str, i64),
    CreateTablespace(u32, &'static str),
}

/// A record and where it lies.
#[derive(Clone, Copy, Debug)]
struct Placed {
    lsn: Lsn,
    end: Lsn,
    record: Record,
}

#[derive(Clone, Debug, Default)]
pub struct Fake {
    segments: BTreeMap<SegmentName, Vec<Placed>>,
    /// Where the segments end of which only a part is there.
    ends: BTreeMap<SegmentName, Lsn>,
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    pub backups: Vec<Candidate>,
}

pub fn second(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds * 1_000_000).expect("in range")
}

pub fn size() -> SegmentSize {
    SegmentSize::try_from(SEGMENT).expect("a size")
}

/// The LSN of the `record`th record of a segment.
pub fn lsn(segment: u64, record: u64) -> Lsn {
    Lsn(segment * SEGMENT + FIRST + record * LENGTH)
}

impl Fake {
    pub fn new() -> Self {
        let mut fake = Self::default();
        fake.histories.insert(Timeline(1), TimelineHistory::without_parents(Timeline(1)));
        fake
    }

    /// A segment. A last record marked by `spills` ends in the following segment, 64 bytes in.
    pub fn segment(mut self, timeline: u32, number: u64, records: &[Record]) -> Self {
        let placed = (0..).zip(records).map(|(index, record)| Placed {
            lsn: lsn(number, index),
            end: lsn(number, index + 1),
            record: *record,
        });
        self.segments.insert(name(timeline, number), placed.collect());
        self
    }

    /// The last record of a segment ends in the one after it.
    pub fn spilling(mut self, timeline: u32, number: u64) -> Self {
        let records = self.segments.get_mut(&name(timeline, number)).expect("that segment");
        records.last_mut().expect("a record").end = Lsn((number + 1) * SEGMENT + 64);
        self
    }

    /// Only the part before `end` is there of a segment.
    pub fn streamed(mut self, timeline: u32, number: u64, end: Lsn) -> Self {
        self.ends.insert(name(timeline, number), end);
        self
    }

    pub fn without(mut self, timeline: u32, number: u64) -> Self {
        self.segments.remove(&name(timeline, number)).expect("that segment");
        self
    }

    pub fn history(mut self, timeline: u32, lines: &[(u32, Lsn)]) -> Self {
        let text: String = lines.iter().map(|(parent, lsn)| format!("{parent}\t{lsn}\tx\n")).collect();
        let history = TimelineHistory::parse(Timeline(timeline), text.as_bytes()).expect("a history");
        self.histories.insert(Timeline(timeline), history);
        self
    }

    pub fn backup(mut self, label: &str, timeline: u32, start: Lsn, consistent: Lsn, stop: i64) -> Self {
        self.backups.push(Candidate {
            label: label.parse().expect("a label"),
            start,
            start_timeline: Timeline(timeline),
            consistent,
            consistent_timeline: Timeline(timeline),
            stop_time: second(stop),
        });
        self
    }

    fn on(&self, path: &TimelineHistory, number: u64) -> Option<&Vec<Placed>> {
        self.segments.get(&SegmentName::from_number(
            path.path_timeline_for_segment(number, size()),
            number,
            size(),
        ))
    }
}

pub fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(Timeline(timeline), number, size())
}

fn facts(number: u64, records: &[Placed]) -> SegmentFacts {
    let end = Lsn((number + 1) * SEGMENT);
    let mut facts = SegmentFacts::default();
    for placed in records {
        facts.first_lsn.get_or_insert(placed.lsn);
        if placed.end > end {
            facts.unfinished = Some(unfinished(placed, end));
            continue;
        }
        facts.records += 1;
        facts.last_lsn = Some(placed.lsn);
        facts.end_lsn = Some(placed.end);
        note(&mut facts, placed);
    }
    facts
}

fn unfinished(placed: &Placed, next: Lsn) -> Unfinished {
    Unfinished { lsn: placed.lsn, next, length: 100, here: 50, crc: 0, pieces: Vec::new() }
}

fn note(facts: &mut SegmentFacts, placed: &Placed) {
    match placed.record {
        Record::Other => {}
        Record::End(xid, seconds) => {
            facts.earliest_time =
                Some(facts.earliest_time.map_or(second(seconds), |earliest| earliest.min(second(seconds))));
            facts.latest_time = facts.latest_time.max(Some(second(seconds)));
            let range = facts.xids.get_or_insert(XidRange { lowest: xid, highest: xid });
            (range.lowest, range.highest) = (range.lowest.min(xid), range.highest.max(xid));
        }
        Record::Point(name, seconds) => {
            facts.restore_points.count += 1;
            facts.restore_points.first.push(RestorePoint {
                name: name.into(),
                lsn: placed.lsn,
                end_lsn: placed.end,
                time: second(seconds),
            });
        }
        Record::CreateTablespace(oid, path) => {
            facts.tablespaces.count += 1;
            let change = TablespaceAction::Created(path.into());
            facts.tablespaces.first.push(TablespaceChange { lsn: placed.lsn, oid: Oid(oid), change });
        }
    }
}

fn matches(sought: &Sought, record: Record) -> Option<(Option<Timestamp>, Option<u32>)> {
    if *sought == Sought::AnyRecord {
        return Some((None, None));
    }
    match (sought, record) {
        (Sought::EndedAfter { time, or_at }, Record::End(xid, at)) => {
            let fits = second(at) > *time || (*or_at && second(at) == *time);
            fits.then_some((Some(second(at)), Some(xid)))
        }
        (Sought::Transaction(sought), Record::End(xid, at)) => {
            (xid == *sought).then_some((Some(second(at)), Some(xid)))
        }
        (Sought::RestorePoint(sought), Record::Point(name, at)) => {
            (sought.as_bytes() == name.as_bytes()).then_some((Some(second(at)), None))
        }
        _ => None,
    }
}

impl Archive for Fake {
    fn segment_size(&self) -> SegmentSize {
        size()
    }

    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        Ok((from..).take_while(|number| self.on(path, *number).is_some()).last())
    }

    fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        Ok((from..from + 100).rev().find(|number| self.on(path, *number).is_some()))
    }

    fn newest_of(&self, timeline: Timeline) -> Result<Option<SegmentName>> {
        Ok(self.segments.keys().rfind(|name| name.timeline == timeline).copied())
    }

    fn end_of(&self, path: &TimelineHistory, segment: u64) -> Lsn {
        let timeline = path.path_timeline_for_segment(segment, size());
        let part = self.ends.get(&name(timeline.0, segment));
        part.copied().unwrap_or_else(|| size().start_of(segment + 1))
    }

    fn why_missing(&self, name: SegmentName) -> Option<String> {
        (name.segment == 3).then(|| "somebody knows".to_string())
    }

    fn facts(
        &self,
        path: &TimelineHistory,
        segments: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        for number in segments {
            let records =
                self.on(path, number).ok_or_else(|| Error::not_found(format!("no segment {number}")))?;
            if visit(number, facts(number, records))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn join(&self, path: &TimelineHistory, segment: u64, unfinished: &Unfinished) -> Result<SegmentFacts> {
        let placed = self.on(path, segment).and_then(|records| records.last()).expect("a record");
        assert_eq!(placed.lsn, unfinished.lsn);
        let mut facts = SegmentFacts { end_lsn: Some(placed.end), ..SegmentFacts::default() };
        note(&mut facts, placed);
        if self.on(path, segment + 1).is_none() {
            return Ok(SegmentFacts { unfinished: Some(unfinished.clone()), ..SegmentFacts::default() });
        }
        Ok(facts)
    }

    fn find(&self, path: &TimelineHistory, segment: u64, search: &Search) -> Result<Option<Landmark>> {
        let end = Lsn((segment + 1) * SEGMENT);
        let whole = self.on(path, segment).into_iter().flatten().filter(|placed| placed.end <= end);
        Ok(whole.filter(|placed| placed.lsn >= search.from).find_map(|placed| {
            let (time, xid) = matches(&search.sought, placed.record)?;
            Some(Landmark { lsn: placed.lsn, end_lsn: placed.end, time, xid })
        }))
    }
}
