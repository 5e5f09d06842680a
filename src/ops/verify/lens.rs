//! The archive as it would be without damage, and as it is with it: what is damaged counts as missing. What the
//! difference costs is the difference between the windows that both show.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::error::{Kind, Result};
use crate::ops::restore::choose::{Archive, Visit};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::wal::{Landmark, Search, SegmentFacts, Unfinished};

use super::continuity::Hole;

/// How to look at an archive.
pub enum View<'a> {
    /// As if these segments were there.
    Whole(&'a [Hole]),
    /// As if these were not.
    Damaged(&'a BTreeSet<SegmentName>),
}

pub struct Lens<'a, A> {
    pub archive: &'a A,
    pub view: View<'a>,
}

impl<A: Archive> Lens<'_, A> {
    fn name_on(&self, path: &TimelineHistory, number: u64) -> SegmentName {
        let size = self.archive.segment_size();
        SegmentName::from_number(path.path_timeline_for_segment(number, size), number, size)
    }

    /// The last segment of the hole in which a segment of the path lies.
    fn filled_to(&self, path: &TimelineHistory, number: u64, holes: &[Hole]) -> Option<u64> {
        let within = |hole: &&Hole| {
            (hole.numbers.0..=hole.numbers.1).contains(&number)
                && self.name_on(path, hole.numbers.0) == hole.first
        };
        holes.iter().find(within).map(|hole| hole.numbers.1)
    }

    fn through_holes(&self, path: &TimelineHistory, from: u64, holes: &[Hole]) -> Result<Option<u64>> {
        let mut last = None;
        let mut next = from;
        loop {
            let reached = self.archive.last_contiguous(path, next)?;
            next = reached.map_or(next, |reached| reached.saturating_add(1));
            last = reached.or(last);
            match self.filled_to(path, next, holes) {
                Some(filled) => (last, next) = (Some(filled), filled.saturating_add(1)),
                None => return Ok(last),
            }
        }
    }

    fn up_to_damage(
        &self,
        path: &TimelineHistory,
        from: u64,
        damaged: &BTreeSet<SegmentName>,
    ) -> Result<Option<u64>> {
        let Some(last) = self.archive.last_contiguous(path, from)? else { return Ok(None) };
        let mut first_damaged = None;
        for name in damaged {
            let number = name.number(self.archive.segment_size())?;
            if (from..=last).contains(&number) && self.name_on(path, number) == *name {
                first_damaged = Some(first_damaged.map_or(number, |first: u64| first.min(number)));
            }
        }
        Ok(match first_damaged {
            Some(damaged) => damaged.checked_sub(1).filter(|before| *before >= from),
            None => Some(last),
        })
    }
}

impl<A: Archive> Archive for Lens<'_, A> {
    fn segment_size(&self) -> SegmentSize {
        self.archive.segment_size()
    }

    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        match self.view {
            View::Whole(holes) => self.through_holes(path, from, holes),
            View::Damaged(damaged) => self.up_to_damage(path, from, damaged),
        }
    }

    fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        self.archive.newest_on(path, from)
    }

    fn newest_of(&self, timeline: Timeline) -> Result<Option<SegmentName>> {
        self.archive.newest_of(timeline)
    }

    fn end_of(&self, path: &TimelineHistory, segment: u64) -> Lsn {
        self.archive.end_of(path, segment)
    }

    fn why_missing(&self, name: SegmentName) -> Option<String> {
        self.archive.why_missing(name)
    }

    /// Of segments that are missing or damaged nothing is known.
    fn facts(
        &self,
        path: &TimelineHistory,
        segments: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        for number in segments {
            let mut flow = std::ops::ControlFlow::Continue(());
            let read = self.archive.facts(path, number..=number, &mut |number, facts| {
                flow = visit(number, facts)?;
                Ok(flow)
            });
            match read {
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                    flow = visit(number, SegmentFacts::default())?;
                }
                read => read?,
            }
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn join(&self, path: &TimelineHistory, segment: u64, unfinished: &Unfinished) -> Result<SegmentFacts> {
        self.archive.join(path, segment, unfinished)
    }

    fn find(&self, path: &TimelineHistory, segment: u64, search: &Search) -> Result<Option<Landmark>> {
        self.archive.find(path, segment, search)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::restore::choose::fake::{Fake, Record, lsn, size};

    fn archive(numbers: &[u64]) -> Fake {
        let fake = Fake::new().backup("a", 1, lsn(3, 0), lsn(3, 1), 0);
        numbers.iter().fold(fake, |fake, number| fake.segment(1, *number, &[Record::Other, Record::Other]))
    }

    fn name(number: u64) -> SegmentName {
        SegmentName::from_number(Timeline(1), number, size())
    }

    fn hole(first: u64, last: u64) -> Hole {
        Hole {
            timeline: Timeline(1),
            first: name(first),
            last: name(last),
            numbers: (first, last),
            retention: false,
        }
    }

    fn path() -> TimelineHistory {
        TimelineHistory::without_parents(Timeline(1))
    }

    #[test]
    fn damaged_segments_count_as_missing() {
        let archive = archive(&[3, 4, 5, 6]);
        let last = |damaged: &[u64], from| {
            let damaged = damaged.iter().map(|number| name(*number)).collect();
            let lens = Lens { archive: &archive, view: View::Damaged(&damaged) };
            lens.last_contiguous(&path(), from).expect("looked")
        };
        assert_eq!(last(&[], 3), Some(6));
        assert_eq!(last(&[5, 6], 3), Some(4));
        assert_eq!(last(&[5], 6), Some(6));
        assert_eq!(last(&[3], 3), None);
        assert_eq!(last(&[2], 3), Some(6), "it lies before");
    }

    #[test]
    fn without_damage_holes_would_be_filled() {
        let archive = archive(&[4, 5, 8, 9]);
        let last = |holes: &[Hole], from| {
            let lens = Lens { archive: &archive, view: View::Whole(holes) };
            lens.last_contiguous(&path(), from).expect("looked")
        };
        assert_eq!(last(&[], 4), Some(5));
        assert_eq!(last(&[hole(6, 7)], 4), Some(9));
        assert_eq!(last(&[hole(3, 3), hole(6, 7)], 3), Some(9), "a hole right at the start");
        assert_eq!(last(&[hole(3, 3)], 3), Some(5));
        assert_eq!(last(&[], 3), None);
    }
}
