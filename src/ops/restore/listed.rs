//! The archive as the choice of a restore sees it, answered from an inventory instead of further listings: for those
//! who look at many backups.
//! Only the headers at the ends of windows are opened.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use crate::error::Result;
use crate::ops::restore::archive::StoredArchive;
use crate::ops::restore::choose::{Archive, Visit};
use crate::ops::restore::streamed::Ends;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::wal::{Landmark, Search, SegmentFacts, Unfinished};
use crate::repo::catalog::Catalog;
use crate::repo::inventory::{Inventory, PathWal};

pub struct ListedArchive<'a> {
    inventory: &'a Inventory,
    stored: StoredArchive<'a>,
}

impl<'a> ListedArchive<'a> {
    pub fn new(inventory: &'a Inventory, catalog: Catalog<'a>, ends: &'a Ends) -> Self {
        Self { inventory, stored: StoredArchive { catalog, jobs: NonZeroUsize::MIN, ends } }
    }

    pub fn wal(&self, path: &TimelineHistory) -> PathWal<'a> {
        PathWal::new(self.inventory, path, self.segment_size())
    }

    pub fn name_on(&self, path: &TimelineHistory, segment: u64) -> SegmentName {
        self.stored.catalog.name_on(path, segment)
    }
}

impl Archive for ListedArchive<'_> {
    fn segment_size(&self) -> SegmentSize {
        self.stored.segment_size()
    }

    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        let whole = self.wal(path).last_contiguous(from);
        self.stored.with_streamed(path, from, whole)
    }

    fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        self.stored.newest_with_streamed(path, from, self.wal(path).newest(from))
    }

    fn newest_of(&self, timeline: Timeline) -> Result<Option<SegmentName>> {
        let number = self.inventory.timelines.get(&timeline).and_then(|wal| wal.runs.last());
        let whole = number.map(|number| SegmentName::from_number(timeline, number, self.segment_size()));
        Ok(whole.max(self.stored.ends.of(timeline).map(|part| part.segment)))
    }

    fn end_of(&self, path: &TimelineHistory, segment: u64) -> Lsn {
        self.stored.end_of(path, segment)
    }

    fn why_missing(&self, name: SegmentName) -> Option<String> {
        self.stored.why_missing(name)
    }

    fn facts(
        &self,
        path: &TimelineHistory,
        segments: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.stored.facts(path, segments, visit)
    }

    fn join(&self, path: &TimelineHistory, segment: u64, unfinished: &Unfinished) -> Result<SegmentFacts> {
        self.stored.join(path, segment, unfinished)
    }

    fn find(&self, path: &TimelineHistory, segment: u64, search: &Search) -> Result<Option<Landmark>> {
        self.stored.find(path, segment, search)
    }
}
