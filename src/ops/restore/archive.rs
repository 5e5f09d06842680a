//! The archive as the choice sees it, read from the repository: headers several at a time, in the order of
//! the segments; the content of a segment only where one record of it is looked for. A streamed part that ends
//! a timeline counts as its last segment.
//!
//! Bounded: a few headers for each job at once.

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, RangeInclusive};

use super::choose::{Archive, Visit};
use super::streamed::{self, Ends};
use crate::error::{Error, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::wal::{Extent, Landmark, Search, SegmentFacts, SegmentHeader, Unfinished, Walk};
use crate::repo::catalog::Catalog;
use crate::repo::{gap, segment};
use crate::threads;

/// Headers that a job reads before they are looked at, once it is clear that many are wanted.
const MOST_PER_JOB: usize = 64;

pub struct StoredArchive<'a> {
    pub catalog: Catalog<'a>,
    pub jobs: NonZeroUsize,
    pub ends: &'a Ends,
}

impl StoredArchive<'_> {
    /// What the header of a segment, or of the part that stands in for it, says.
    pub fn facts_of(&self, name: SegmentName) -> Result<SegmentFacts> {
        let cluster = self.catalog.cluster();
        let header = match self.ends.at(name) {
            Some(part) => streamed::read_header(cluster, part),
            None => segment::read_header(cluster, name),
        };
        header.map(|header| header.facts)
    }

    /// The number of the segment of which a streamed part ends a path.
    fn streamed_on(&self, path: &TimelineHistory) -> Result<Option<u64>> {
        let Some(part) = self.ends.of(path.timeline()) else { return Ok(None) };
        let number = part.segment.number(self.segment_size())?;
        Ok(Some(number).filter(|number| self.catalog.name_on(path, *number) == part.segment))
    }

    /// The last of the segments from `from` on, when `whole` is the last whole one.
    pub fn with_streamed(
        &self,
        path: &TimelineHistory,
        from: u64,
        whole: Option<u64>,
    ) -> Result<Option<u64>> {
        let next = whole.map_or(from, |whole| whole.saturating_add(1));
        Ok(self.streamed_on(path)?.filter(|number| *number == next).or(whole))
    }

    /// The newest segment from `from` on, when `whole` is the newest whole one.
    pub fn newest_with_streamed(
        &self,
        path: &TimelineHistory,
        from: u64,
        whole: Option<u64>,
    ) -> Result<Option<u64>> {
        let streamed = self.streamed_on(path)?.filter(|number| *number >= from);
        Ok(whole.max(streamed))
    }

    /// How much of a segment holds WAL.
    pub fn extent(&self, name: SegmentName) -> Extent {
        self.ends.at(name).map_or(Extent::Whole, |_| Extent::Partial)
    }

    /// The facts of some segments, read by all jobs together.
    fn read(&self, names: &[SegmentName]) -> Result<Vec<SegmentFacts>> {
        let share = names.len().div_ceil(self.jobs.get()).max(1);
        if share == 1 {
            return names.iter().map(|name| self.facts_of(*name)).collect();
        }
        let shares = std::thread::scope(|scope| {
            let read = |names: &[SegmentName]| names.iter().map(|name| self.facts_of(*name)).collect();
            let start = |names| threads::start(scope, "headers", move || read(names));
            let jobs: Vec<_> = names.chunks(share).map(start).collect::<Result<_>>()?;
            let joined = jobs.into_iter().map(|job| match job.join() {
                Ok(facts) => facts,
                Err(_) => Err(Error::bug("a reader of segment headers ended early")),
            });
            joined.collect::<Result<Vec<Vec<SegmentFacts>>>>()
        });
        Ok(shares?.into_iter().flatten().collect())
    }

    /// Feeds a segment to the walk that `start` makes, until that needs no more of it, or `each`, which sees it after
    /// every piece, breaks off.
    pub fn walk(&self, name: SegmentName, start: &Start<'_>, each: &mut Each<'_>) -> Result<Walk> {
        let cluster = self.catalog.cluster();
        let mut sink = WalkSink::new(start, each);
        let read = match self.ends.at(name) {
            Some(part) => streamed::read(cluster, part, &mut sink),
            None => segment::read(cluster, name, &mut sink),
        };
        match (read, sink.refused, sink.done) {
            (Err(_), Some(refused), _) => return Err(refused),
            (Err(error), None, false) => return Err(error),
            (Err(_), None, true) | (Ok(_), ..) => {}
        }
        sink.walk.ok_or_else(|| too_short(name))
    }
}

impl Archive for StoredArchive<'_> {
    fn segment_size(&self) -> SegmentSize {
        self.catalog.segment_size()
    }

    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        self.with_streamed(path, from, self.catalog.last_contiguous(path, from)?)
    }

    fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        self.newest_with_streamed(path, from, self.catalog.newest_on(path, from)?)
    }

    fn newest_of(&self, timeline: Timeline) -> Result<Option<SegmentName>> {
        Ok(self.catalog.newest(timeline)?.max(self.ends.of(timeline).map(|part| part.segment)))
    }

    fn end_of(&self, path: &TimelineHistory, segment: u64) -> Lsn {
        let part = self.ends.at(self.catalog.name_on(path, segment));
        part.map_or_else(|| self.segment_size().start_of(segment.saturating_add(1)), |part| part.end)
    }

    fn why_missing(&self, name: SegmentName) -> Option<String> {
        gap::around(self.catalog.cluster(), name).map(|gap| gap.story())
    }

    fn facts(
        &self,
        path: &TimelineHistory,
        segments: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let (mut next, last) = (*segments.start(), *segments.end());
        let mut at_once = 1;
        while next <= last {
            let until = next.saturating_add(at_once as u64 - 1).min(last);
            let names: Vec<SegmentName> =
                (next..=until).map(|number| self.catalog.name_on(path, number)).collect();
            for (number, facts) in (next..).zip(self.read(&names)?) {
                if visit(number, facts)?.is_break() {
                    return Ok(());
                }
            }
            next = until.saturating_add(1);
            at_once = (at_once * 4).min(self.jobs.get() * MOST_PER_JOB);
        }
        Ok(())
    }

    fn join(&self, path: &TimelineHistory, segment: u64, unfinished: &Unfinished) -> Result<SegmentFacts> {
        let mut number = segment;
        let mut facts = SegmentFacts { unfinished: Some(unfinished.clone()), ..SegmentFacts::default() };
        while let Some(unfinished) = &facts.unfinished {
            number = number.saturating_add(1);
            let name = self.catalog.name_on(path, number);
            if self.ends.at(name).is_none() && !self.catalog.exists(name)? {
                break;
            }
            let extent = self.extent(name);
            let start = |header: &SegmentHeader| Walk::join(unfinished, header, name, extent);
            facts = self.walk(name, &start, &mut |_| ControlFlow::Continue(()))?.finish();
        }
        Ok(facts)
    }

    fn find(&self, path: &TimelineHistory, segment: u64, search: &Search) -> Result<Option<Landmark>> {
        let name = self.catalog.name_on(path, segment);
        let extent = self.extent(name);
        let start = |header: &SegmentHeader| Ok(Walk::new(header, name, extent).searching(search.clone()));
        let mut until_found = |walk: &mut Walk| match walk.found() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        };
        Ok(self.walk(name, &start, &mut until_found)?.found().cloned())
    }
}

fn too_short(name: SegmentName) -> Error {
    Error::corrupt(format!("segment {name} in the repository is shorter than its own header"))
}

/// Makes the walk from the segment's own header.
pub type Start<'a> = dyn Fn(&SegmentHeader) -> Result<Walk> + 'a;
/// Sees the walk on its way, and may break it off.
pub type Each<'a> = dyn FnMut(&mut Walk) -> ControlFlow<()> + 'a;

/// Starts a walk as soon as the segment's header is there, and breaks off when it is done. A record that
/// was found has had its own checksum looked at, so nothing is lost by not reading on.
struct WalkSink<'a> {
    start: &'a Start<'a>,
    each: &'a mut Each<'a>,
    head: Vec<u8>,
    walk: Option<Walk>,
    refused: Option<Error>,
    done: bool,
}

impl<'a> WalkSink<'a> {
    fn new(start: &'a Start<'a>, each: &'a mut Each<'a>) -> Self {
        Self { start, each, head: Vec::new(), walk: None, refused: None, done: false }
    }

    fn started(&mut self) -> std::io::Result<()> {
        let walk = SegmentHeader::parse(&self.head).and_then(|header| (self.start)(&header));
        match walk {
            Ok(mut walk) => {
                walk.feed(&self.head);
                self.walk = Some(walk);
                Ok(())
            }
            Err(refused) => {
                self.refused = Some(refused);
                Err(std::io::Error::other("the segment was refused"))
            }
        }
    }
}

impl Write for WalkSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.walk {
            Some(walk) => walk.feed(bytes),
            None => {
                self.head.extend_from_slice(bytes);
                if self.head.len() >= SegmentHeader::LENGTH {
                    self.started()?;
                }
            }
        }
        self.done = self.walk.as_mut().is_some_and(|walk| (self.each)(walk).is_break() || walk.is_done());
        if self.done {
            return Err(std::io::Error::other("enough was read"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
