//! Which segments are read, and in which order: lanes of consecutive segments, each on the path of one timeline.
//!
//! A file is searched once, though several paths lead through it: without `--timeline` each timeline's own files,
//! with it all files on the path to that timeline. Where the context of earlier records matters, a lane begins with the segment
//! in which the last checkpoint before it begins (its redo LSN): from there on every page is told whole at its
//! first change.
//!
//! Invariant: memory goes by how many stretches there are, not by how many segments.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use super::crew::{Heard, Tell, in_order};
use super::query::{Query, Range};
use super::reader;
use crate::error::{Error, Kind, Result};
use crate::ops::restore::archive::StoredArchive;
use crate::ops::restore::choose::Archive;
use crate::ops::restore::streamed::Ends;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::inventory::{Inventory, PathWal};

/// Segments of a path, with no hole between the first and the last.
#[derive(Clone, Debug)]
pub struct Lane<'a> {
    pub path: &'a TimelineHistory,
    /// The numbers of those that are read, in order; no two runs touch.
    runs: Vec<RangeInclusive<u64>>,
    /// Those before are read for their context only.
    counts_from: u64,
}

/// A segment to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    pub number: u64,
    pub name: SegmentName,
    /// Hits in it count; else it is read for the context of later ones.
    pub counts: bool,
}

impl<'a> Lane<'a> {
    fn new(path: &'a TimelineHistory) -> Self {
        Self { path, runs: Vec::new(), counts_from: 0 }
    }

    /// How many segments there are.
    pub fn segments(&self) -> u64 {
        let length = |run: &RangeInclusive<u64>| (run.end() - run.start()).saturating_add(1);
        self.runs.iter().fold(0, |sum: u64, run| sum.saturating_add(length(run)))
    }

    pub fn tasks(&self, size: SegmentSize) -> impl Iterator<Item = Task> {
        self.runs.iter().cloned().flatten().map(move |number| {
            let timeline = self.path.path_timeline_for_segment(number, size);
            let name = SegmentName::from_number(timeline, number, size);
            Task { number, name, counts: number >= self.counts_from }
        })
    }

    fn first(&self) -> Option<u64> {
        self.runs.first().map(|run| *run.start())
    }

    fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| *run.end())
    }

    /// Adds a run that begins no earlier than the last one.
    fn add(&mut self, run: RangeInclusive<u64>) {
        match self.runs.last_mut() {
            Some(last) if *run.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(run.end());
            }
            _ => self.runs.push(run),
        }
    }
}

/// The stretches of the archive without a hole.
pub fn lanes<'a>(
    inventory: &Inventory,
    histories: &'a BTreeMap<Timeline, TimelineHistory>,
    ends: &Ends,
    wanted: Option<Timeline>,
    size: SegmentSize,
) -> Result<Vec<Lane<'a>>> {
    let paths: Vec<&TimelineHistory> = match wanted {
        None => histories.values().collect(),
        Some(timeline) => vec![histories.get(&timeline).ok_or_else(|| no_history(timeline, histories))?],
    };
    let mut lanes = Vec::new();
    for path in paths {
        let from = match (wanted, path.entries().last()) {
            (None, Some(entry)) => size.segment_of(entry.switch_lsn),
            _ => 0,
        };
        lanes.extend(stretches(inventory, path, ends, from, size)?);
    }
    Ok(lanes)
}

fn no_history(timeline: Timeline, histories: &BTreeMap<Timeline, TimelineHistory>) -> Error {
    let known: Vec<String> = histories.keys().map(ToString::to_string).collect();
    Error::not_found(format!("the repository has no history of timeline {timeline}"))
        .with_hint(format!("it knows these timelines: {}", known.join(", ")))
}

/// The segments of a path from one on, whole ones and the streamed part that ends it.
fn stretches<'a>(
    inventory: &Inventory,
    path: &'a TimelineHistory,
    ends: &Ends,
    from: u64,
    size: SegmentSize,
) -> Result<Vec<Lane<'a>>> {
    let mut all = Lane::new(path);
    let present = PathWal::new(inventory, path, size).present(&(from..=u64::MAX));
    present.into_iter().for_each(|run| all.add(run));
    if let Some(part) = ends.of(path.timeline()) {
        let number = part.segment.number(size)?;
        all.add(number..=number);
    }
    let lane = |run| {
        let mut lane = Lane::new(path);
        lane.add(run);
        lane
    };
    Ok(all.runs.into_iter().map(lane).collect())
}

/// Leaves of a lane what may hold a hit, judged by the range and by the headers; and puts in front what the context
/// needs.
pub fn narrow(
    archive: &StoredArchive<'_>,
    lane: &mut Lane<'_>,
    query: &Query,
    range: &Range,
    watch: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let size = archive.segment_size();
    let path = lane.path;
    let all = std::mem::replace(lane, Lane::new(path));
    let touched = |task: &Task| {
        range.may_touch(size.start_of(task.number), size.start_of(task.number.saturating_add(1)))
    };
    let candidates = all.tasks(size).filter(touched);
    // Every segment with the end of a transaction in it may hold a drop: asking all headers would save nothing.
    if query.needs_context() && range.is_everything() {
        candidates.for_each(|task| lane.add(task.number..=task.number));
    } else {
        by_header(archive, candidates, lane, query, range, watch)?;
    }
    let (Some(first), Some(last)) = (lane.first(), lane.last()) else { return Ok(()) };
    if query.needs_context() {
        *lane = Lane { counts_from: first, ..Lane::new(path) };
        lane.add(context(archive, path, first, watch)?..=last);
    }
    Ok(())
}

/// Adds those to a lane whose headers say that they may hold a hit. One that can't be read may.
fn by_header(
    archive: &StoredArchive<'_>,
    tasks: impl Iterator<Item = Task>,
    lane: &mut Lane<'_>,
    query: &Query,
    range: &Range,
    watch: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let look = |task: &Task, tell: &mut Tell<'_, bool>| {
        let may = match archive.facts_of(task.name) {
            Ok(facts) => query.may_be_in(&facts) && range.may_be_in(&facts),
            Err(error) if error.kind() == Kind::Corrupt => true,
            Err(error) => return Err(error),
        };
        match tell(may) {
            // That nobody listens any more is noticed at the next task.
            ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(()),
        }
    };
    in_order(archive.jobs, tasks, look, watch, &mut |task, heard| {
        match heard {
            Heard::Message(false) | Heard::End(Ok(())) => {}
            // One that failed is read, and then told as what can't be read.
            Heard::Message(true) | Heard::End(Err(_)) => lane.add(task.number..=task.number),
        }
        Ok(())
    })
}

/// The segment from which on all pages that are changed in segment `number` are known: that of the redo LSN of the last
/// checkpoint before it. Or as far as the archive goes back without a hole.
fn context(
    archive: &StoredArchive<'_>,
    path: &TimelineHistory,
    number: u64,
    watch: &dyn Fn() -> Result<()>,
) -> Result<u64> {
    let size = archive.segment_size();
    let mut from = number;
    let mut redo = None;
    while let Some(before) = from.checked_sub(1).filter(|before| redo.is_none_or(|redo| *before >= redo)) {
        watch()?;
        let name = archive.catalog.name_on(path, before);
        if archive.ends.at(name).is_none() && !archive.catalog.exists(name)? {
            break;
        }
        if redo.is_none() {
            match reader::last_checkpoint(archive, name) {
                Ok(found) => redo = found.map(|lsn| size.segment_of(lsn)),
                // It is no context then, and what lies before it is none either.
                Err(error) if error.kind() == Kind::Corrupt => break,
                Err(error) => return Err(error),
            }
        }
        from = before;
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Lsn;
    use crate::repo::catalog::Catalog;
    use crate::repo::fixture::Fixture;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(MIB).expect("a size")
    }

    /// The lanes of an archive with these segments, timeline 2 having left timeline 1 in segment 5; the last
    /// segment of timeline 2 is a streamed part.
    fn told(segments: &[(u32, u64)], streamed: u64, wanted: Option<u32>) -> Vec<String> {
        let fixture = Fixture::create();
        let (layout, store) = (fixture.cluster.layout(), fixture.cluster.store());
        let name = |timeline, number| SegmentName::from_number(Timeline(timeline), number, size());
        for (timeline, number) in segments {
            let key = layout.segment(name(*timeline, *number)).expect("key");
            store.create(&key, &b"x"[..]).expect("created");
        }
        let part = layout.streamed(name(2, streamed), Lsn(streamed * MIB + 9)).expect("key");
        store.create(&part, &b"x"[..]).expect("created");
        let history = format!("1\t{}\tx\n", Lsn(5 * MIB + 99));
        store.create(&layout.history(Timeline(2)).expect("key"), history.into_bytes()).expect("created");
        let catalog = Catalog::new(&fixture.cluster, size());
        let histories = catalog.histories().expect("histories");
        let ends = Ends::find(&catalog, &histories).expect("ends");
        let inventory = Inventory::take(&fixture.cluster, size()).expect("listed");
        let lanes = lanes(&inventory, &histories, &ends, wanted.map(Timeline), size()).expect("lanes");
        let words = |task: Task| format!("{}:{}", task.name.timeline, task.number);
        lanes.iter().map(|lane| lane.tasks(size()).map(words).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn every_file_is_in_one_lane_and_holes_end_a_lane() {
        let segments = [(1, 2), (1, 3), (1, 5), (1, 6), (2, 5), (2, 6)];
        assert_eq!(told(&segments, 7, None), ["1:2 1:3", "1:5 1:6", "2:5 2:6 2:7"]);
        assert_eq!(told(&segments, 7, Some(1)), ["1:2 1:3", "1:5 1:6"]);
        assert_eq!(told(&segments, 7, Some(2)), ["1:2 1:3", "2:5 2:6 2:7"]);
        assert_eq!(told(&[(1, 3), (1, 4), (2, 5)], 8, Some(2)), ["1:3 1:4 2:5", "2:8"]);
    }

    #[test]
    fn a_million_segments_take_one_run_and_those_that_lie_apart_one_each() {
        let path = TimelineHistory::without_parents(Timeline(1));
        let mut lane = Lane::new(&path);
        (100..1_000_100).for_each(|number| lane.add(number..=number));
        assert_eq!((lane.runs.len(), lane.segments()), (1, 1_000_000));
        lane.add(1_000_050..=1_000_099);
        lane.add(2_000_000..=2_000_001);
        assert_eq!((lane.runs.len(), lane.segments()), (2, 1_000_002));
        assert_eq!((lane.first(), lane.last()), (Some(100), Some(2_000_001)));
        lane.counts_from = 2_000_001;
        let told: Vec<(u64, bool)> =
            lane.tasks(size()).skip(999_999).map(|task| (task.number, task.counts)).collect();
        assert_eq!(told, [(1_000_099, false), (2_000_000, false), (2_000_001, true)]);
    }

    #[test]
    fn a_timeline_that_is_not_known_is_refused() {
        let history = BTreeMap::from([(Timeline(1), TimelineHistory::without_parents(Timeline(1)))]);
        let refused = lanes(&Inventory::default(), &history, &Ends::default(), Some(Timeline(7)), size());
        let error = refused.expect_err("not known");
        assert_eq!((error.kind(), error.hint()), (Kind::NotFound, Some("it knows these timelines: 1")));
    }
}
