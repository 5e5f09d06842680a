//! Is the WAL continuous, along each timeline path, from the oldest backup on it to the newest segment? What is missing
//! in between is a hole: no restore gets past it.
//!
//! One kind of hole is no finding: what `pgark expire` leaves out behind a backup that is kept for itself, as its records
//! say (`repo::expired`).

use std::collections::BTreeMap;

use crate::error::Result;
use crate::ops::restore::choose::{Candidate, on_path};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::SegmentName;
use crate::repo::catalog::Catalog;
use crate::repo::expired::Gone;

use super::findings::Bounded;

/// Segments that are missing, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The timeline to which the path leads on which it was found.
    pub timeline: Timeline,
    pub first: SegmentName,
    pub last: SegmentName,
    /// Their numbers on that path.
    pub numbers: (u64, u64),
    /// It has expired.
    pub retention: bool,
}

impl Hole {
    pub fn segments(&self) -> u64 {
        self.numbers.1.saturating_sub(self.numbers.0).saturating_add(1)
    }
}

/// The holes of all paths, each once.
pub fn holes(
    catalog: &Catalog<'_>,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
    streamed: impl Fn(Timeline) -> Result<Option<u64>>,
) -> Result<Bounded<Hole>> {
    let size = catalog.segment_size();
    let mut found: BTreeMap<SegmentName, ()> = BTreeMap::new();
    let mut holes = Bounded::default();
    for path in histories.values() {
        let backups = on_path(backups, path);
        let Some(from) = backups.iter().map(|backup| size.segment_of(backup.start)).min() else { continue };
        let mut gaps = Gaps {
            next: from,
            visit: &mut |first, last| {
                let hole = Hole {
                    timeline: path.timeline(),
                    first: catalog.name_on(path, first),
                    last: catalog.name_on(path, last),
                    numbers: (first, last),
                    retention: false,
                };
                // What two paths share was found on the first of them.
                if found.len() < super::findings::NAMED && found.insert(hole.first, ()).is_none() {
                    holes.push(hole);
                } else if found.len() >= super::findings::NAMED && !found.contains_key(&hole.first) {
                    holes.count += 1;
                }
            },
        };
        numbers(catalog, path, from, &mut |number| gaps.pass(number))?;
        if let Some(number) = streamed(path.timeline())?.filter(|number| *number >= from) {
            gaps.pass(number);
        }
    }
    // Behind the listing: what expired before that is recorded by now.
    let gone = Gone::read(catalog.cluster(), size)?;
    for hole in &mut holes.first {
        let path = histories.get(&hole.timeline);
        hole.retention = path.is_some_and(|path| gone.has(path, &(hole.numbers.0..=hole.numbers.1), size));
    }
    Ok(holes)
}

/// Turns numbers that increase into the runs between them.
struct Gaps<'a> {
    next: u64,
    visit: &'a mut dyn FnMut(u64, u64),
}

impl Gaps<'_> {
    fn pass(&mut self, number: u64) {
        if number > self.next {
            (self.visit)(self.next, number.saturating_sub(1));
        }
        self.next = self.next.max(number.saturating_add(1));
    }
}

/// The segments of a path that are there, from `from` on, lowest first. One log is listed at a time.
fn numbers(
    catalog: &Catalog<'_>,
    path: &TimelineHistory,
    from: u64,
    visit: &mut dyn FnMut(u64),
) -> Result<()> {
    let first_log = from / catalog.segment_size().segments_per_log();
    let ancestors = path.entries().iter().map(|entry| entry.timeline);
    for timeline in ancestors.chain([path.timeline()]) {
        for log in catalog.logs(timeline)?.into_iter().filter(|log| u64::from(*log) >= first_log) {
            for name in catalog.segments(timeline, log)? {
                let number = name.number(catalog.segment_size())?;
                if number >= from && catalog.name_on(path, number) == name {
                    visit(number);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::restore::choose::fake::{Fake, lsn, size};
    use crate::repo::expired;
    use crate::repo::fixture::Fixture;
    use crate::repo::runs::Runs;
    use proptest::prelude::*;

    /// The holes of an archive with these segments (timeline, number).
    fn found(fake: &Fake, segments: &[(u32, u64)], streamed: Option<u64>) -> Vec<(String, u64, bool)> {
        let fixture = Fixture::create();
        for (timeline, number) in segments {
            let name = SegmentName::from_number(Timeline(*timeline), *number, size());
            let key = fixture.cluster.layout().segment(name).expect("a key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        let catalog = Catalog::new(&fixture.cluster, size());
        let found = holes(&catalog, &fake.histories, &fake.backups, |_| Ok(streamed)).expect("looked");
        assert_eq!(found.count, found.first.len() as u64);
        found.first.iter().map(|hole| (hole.first.to_string(), hole.segments(), hole.retention)).collect()
    }

    fn on(numbers: &[u64]) -> Vec<(u32, u64)> {
        numbers.iter().map(|number| (1, *number)).collect()
    }

    fn hole(name: &str, segments: u64, retention: bool) -> (String, u64, bool) {
        (name.to_string(), segments, retention)
    }

    #[test]
    fn what_is_missing_behind_the_oldest_backup_is_a_hole() {
        let fake = Fake::new().backup("a", 1, lsn(3, 0), lsn(3, 2), 0);
        let look = |numbers: &[u64]| found(&fake, &on(numbers), None);
        assert_eq!(look(&[1, 3, 4, 5]), []);
        assert_eq!(
            look(&[3, 4, 7, 9]),
            [hole("000000010000000000000005", 2, false), hole("000000010000000000000008", 1, false)]
        );
        assert_eq!(look(&[4]), [hole("000000010000000000000003", 1, false)], "the first that it needs");
        assert_eq!(look(&[]), [], "nothing behind it proves that there was more");
        assert_eq!(found(&fake, &on(&[3]), Some(5)), [hole("000000010000000000000004", 1, false)]);
        assert_eq!(found(&Fake::new(), &on(&[3, 7]), None), [], "no backup could be restored anyway");
    }

    #[test]
    fn a_hole_before_a_fork_is_told_once() {
        let fake = Fake::new().history(2, &[(1, lsn(6, 0))]).backup("a", 1, lsn(3, 0), lsn(3, 2), 0);
        let segments = [(1, 3), (1, 5), (1, 6), (2, 6), (2, 8)];
        assert_eq!(
            found(&fake, &segments, None),
            [hole("000000010000000000000004", 1, false), hole("000000020000000000000007", 1, false)]
        );
    }

    #[test]
    fn what_has_expired_is_told_from_what_is_lost() {
        let fixture = Fixture::create();
        let fake =
            Fake::new().backup("old", 1, lsn(3, 0), lsn(4, 2), 0).backup("new", 1, lsn(9, 0), lsn(9, 2), 1);
        for number in [3, 4, 9, 10, 12] {
            let name = SegmentName::from_number(Timeline(1), number, size());
            let key = fixture.cluster.layout().segment(name).expect("a key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        let look = || {
            let catalog = Catalog::new(&fixture.cluster, size());
            let found = holes(&catalog, &fake.histories, &fake.backups, |_| Ok(None)).expect("looked");
            found.first.iter().map(|hole| (hole.numbers, hole.retention)).collect::<Vec<_>>()
        };
        let note = |run| {
            let going = BTreeMap::from([(Timeline(1), Runs::from(run))]);
            expired::note(&fixture.cluster, size(), &going).expect("noted");
        };
        assert_eq!(look(), [((5, 8), false), ((11, 11), false)], "wherever it lies");
        note(5..=7);
        assert_eq!(look(), [((5, 8), false), ((11, 11), false)], "not all of it");
        note(8..=8);
        assert_eq!(look(), [((5, 8), true), ((11, 11), false)]);
    }

    proptest! {
        #[test]
        fn holes_and_segments_together_are_all_numbers(mut numbers: Vec<u8>) {
            numbers.sort();
            numbers.dedup();
            let mut runs = Vec::new();
            let mut gaps = Gaps { next: 0, visit: &mut |first, last| runs.push((first, last)) };
            numbers.iter().for_each(|number| gaps.pass(u64::from(*number)));
            let next = gaps.next;
            let missing = runs.iter().flat_map(|(first, last)| *first..=*last);
            let mut all: Vec<u64> = missing.chain(numbers.iter().map(|number| u64::from(*number))).collect();
            all.sort();
            prop_assert_eq!(all, (0..next).collect::<Vec<u64>>());
        }
    }
}
