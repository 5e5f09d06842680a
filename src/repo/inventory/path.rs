//! The WAL on the path to a timeline: which segments of it are there, and which are missing. Pure.
//!
//! The same judgement as `repo::hole`, for all segments at once: one is a hole when it belongs to the path,
//! it is not there, and later WAL of the path is. Where the archive begins on purpose (WAL before the oldest
//! backup is deleted) nothing is missing.

use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::{Inventory, missing};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;

/// Segments of one timeline that are missing though later WAL is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hole {
    pub timeline: Timeline,
    /// The numbers of the first and the last.
    pub first: u64,
    pub last: u64,
}

impl Hole {
    pub fn segments(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// What its first and its last segment are called.
    pub fn names(&self, size: SegmentSize) -> (SegmentName, SegmentName) {
        let name = |number| SegmentName::from_number(self.timeline, number, size);
        (name(self.first), name(self.last))
    }

    /// From the first byte that is missing to the first behind it.
    pub fn extent(&self, size: SegmentSize) -> (Lsn, Lsn) {
        (size.start_of(self.first), size.start_of(self.last.saturating_add(1)))
    }
}

/// The listing, seen along a path.
pub struct PathWal<'a> {
    inventory: &'a Inventory,
    /// Which timeline's files hold which numbers, in order.
    pieces: Vec<(Timeline, RangeInclusive<u64>)>,
}

impl<'a> PathWal<'a> {
    pub fn new(inventory: &'a Inventory, path: &TimelineHistory, size: SegmentSize) -> Self {
        let mut begins: Vec<u64> =
            path.entries().iter().map(|entry| size.segment_of(entry.switch_lsn)).chain([0]).collect();
        begins.sort();
        begins.dedup();
        let ends = begins.iter().skip(1).map(|next| next.saturating_sub(1)).chain([u64::MAX]);
        let pieces = begins
            .iter()
            .zip(ends)
            .map(|(begin, end)| (path.path_timeline_for_segment(*begin, size), *begin..=end));
        Self { inventory, pieces: pieces.collect() }
    }

    /// Runs of whole segments within a range, in order; those of two timelines may touch.
    pub fn present(&self, range: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        self.within(range).flat_map(|(timeline, part)| self.of(timeline, &part)).collect()
    }

    fn of(&self, timeline: Timeline, range: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let wal = self.inventory.timelines.get(&timeline);
        wal.map(|wal| wal.runs.within(range).collect()).unwrap_or_default()
    }

    /// The pieces of the path within a range.
    fn within(&self, range: &RangeInclusive<u64>) -> impl Iterator<Item = (Timeline, RangeInclusive<u64>)> {
        let (from, to) = (*range.start(), *range.end());
        let overlap = move |(timeline, piece): &(Timeline, RangeInclusive<u64>)| {
            let part = from.max(*piece.start())..=to.min(*piece.end());
            (!part.is_empty()).then_some((*timeline, part))
        };
        self.pieces.iter().filter_map(overlap)
    }

    /// The first whole segment.
    pub fn first(&self) -> Option<u64> {
        self.present(&(0..=u64::MAX)).first().map(|run| *run.start())
    }

    /// The last of the whole segments that follow `from` without a gap; None when `from` is missing.
    pub fn last_contiguous(&self, from: u64) -> Option<u64> {
        let range = from..=u64::MAX;
        let mut last = None;
        for run in self.present(&range) {
            if *run.start() > last.map_or(from, |last: u64| last.saturating_add(1)) {
                break;
            }
            last = Some(*run.end());
        }
        last
    }

    /// The newest whole segment from `from` on.
    pub fn newest(&self, from: u64) -> Option<u64> {
        self.present(&(from..=u64::MAX)).last().map(|run| *run.end())
    }

    /// When the newest of its segments was stored.
    pub fn newest_stored(&self) -> Option<Timestamp> {
        let number = self.newest(0)?;
        let (timeline, _) = self.within(&(number..=number)).next()?;
        self.inventory.timelines.get(&timeline)?.runs.around(number).map(|run| run.newest)
    }

    /// The newest segment of which there is a `.partial` or a streamed part: it proves what lies before it.
    fn newest_beginning(&self) -> Option<u64> {
        let newest = |(timeline, piece): &(Timeline, RangeInclusive<u64>)| {
            self.inventory.timelines.get(timeline)?.beginnings.range(piece.clone()).next_back().copied()
        };
        self.pieces.iter().filter_map(newest).max()
    }

    /// What is missing on the path, from its first segment on, or from `needed`, where a backup begins. Ranges may
    /// cross from one timeline to the next.
    pub fn missing(&self, needed: Option<u64>) -> Vec<RangeInclusive<u64>> {
        let Some(from) = self.first().into_iter().chain(needed).min() else { return Vec::new() };
        let before = self.newest_beginning().and_then(|beginning| beginning.checked_sub(1));
        match self.newest(0).max(before).filter(|to| *to >= from) {
            Some(to) => missing(from..=to, self.present(&(from..=to))),
            None => Vec::new(),
        }
    }

    /// The same in the files of each timeline.
    pub fn holes(&self, needed: Option<u64>) -> Vec<Hole> {
        self.missing(needed).iter().flat_map(|range| self.split(range)).collect()
    }

    /// The files in which a range is.
    pub fn split(&self, range: &RangeInclusive<u64>) -> Vec<Hole> {
        let hole = |(timeline, part): (Timeline, RangeInclusive<u64>)| Hole {
            timeline,
            first: *part.start(),
            last: *part.end(),
        };
        self.within(range).map(hole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::catalog::Catalog;
    use crate::repo::fixture::Fixture;
    use crate::repo::hole;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(MIB).expect("a size")
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(Timeline(timeline), number, size())
    }

    /// Which segments there are whole, of which there is a streamed part, and where timelines began: (timeline,
    /// parent, segment of the fork).
    struct Scene<'a> {
        whole: &'a [(u32, u64)],
        streamed: &'a [(u32, u64)],
        forks: &'a [(u32, u32, u64)],
    }

    fn fill(fixture: &Fixture, scene: &Scene<'_>) -> BTreeMap<Timeline, TimelineHistory> {
        let (layout, store) = (fixture.cluster.layout(), fixture.cluster.store());
        for (timeline, number) in scene.whole {
            store
                .create(&layout.segment(name(*timeline, *number)).expect("key"), &b"x"[..])
                .expect("created");
        }
        for (timeline, number) in scene.streamed {
            let key = layout.streamed(name(*timeline, *number), Lsn(number * MIB + 9)).expect("key");
            store.create(&key, &b"part"[..]).expect("created");
        }
        let mut texts = BTreeMap::from([(1, String::new())]);
        for (timeline, parent, fork) in scene.forks {
            let text = format!("{}{parent}\t{}\tx\n", texts[parent], Lsn(fork * MIB + 99));
            store
                .create(&layout.history(Timeline(*timeline)).expect("key"), text.clone().into_bytes())
                .expect("created");
            texts.insert(*timeline, text);
        }
        Catalog::new(&fixture.cluster, size()).histories().expect("histories")
    }

    fn holes(scene: &Scene<'_>, needed: Option<u64>) -> Vec<String> {
        let fixture = Fixture::create();
        let histories = fill(&fixture, scene);
        let inventory = Inventory::take(&fixture.cluster, size()).expect("listed");
        let of = |path| PathWal::new(&inventory, path, size()).holes(needed);
        let found: BTreeSet<Hole> = histories.values().flat_map(of).collect();
        found.iter().map(|hole| format!("{}:{}-{}", hole.timeline, hole.first, hole.last)).collect()
    }

    #[test]
    fn what_lies_before_the_first_segment_is_missing_only_where_a_backup_needs_it() {
        let scene = Scene { whole: &[(1, 5), (1, 6), (1, 9)], streamed: &[], forks: &[] };
        assert_eq!(holes(&scene, None), ["1:7-8"]);
        assert_eq!(holes(&scene, Some(6)), ["1:7-8"]);
        assert_eq!(holes(&scene, Some(3)), ["1:3-4", "1:7-8"]);
        let nothing = Scene { whole: &[], streamed: &[], forks: &[] };
        assert_eq!(holes(&nothing, Some(3)), Vec::<String>::new());
    }

    #[test]
    fn a_hole_at_a_promotion_is_missing_from_both_timelines() {
        // Timeline 2 left timeline 1 in segment 5; the old primary archived one more than was replayed.
        let forks = [(2, 1, 5)];
        let scene = Scene { whole: &[(1, 1), (1, 2), (1, 6), (2, 7)], streamed: &[], forks: &forks };
        assert_eq!(holes(&scene, None), ["1:3-4", "1:3-5", "2:5-6"]);
    }

    #[test]
    fn a_streamed_part_proves_what_lies_before_it() {
        let scene = Scene { whole: &[(1, 1)], streamed: &[(1, 3), (1, 4)], forks: &[] };
        assert_eq!(holes(&scene, None), ["1:2-3"]);
    }

    #[test]
    fn a_path_answers_as_the_catalog_does() {
        let fixture = Fixture::create();
        let whole = [(1, 1), (1, 2), (1, 3), (1, 5), (2, 3), (2, 4), (2, 7)];
        let histories = fill(&fixture, &Scene { whole: &whole, streamed: &[], forks: &[(2, 1, 3)] });
        let inventory = Inventory::take(&fixture.cluster, size()).expect("listed");
        let catalog = Catalog::new(&fixture.cluster, size());
        for path in histories.values() {
            let wal = PathWal::new(&inventory, path, size());
            for from in 0..9 {
                assert_eq!(Ok(wal.last_contiguous(from)), catalog.last_contiguous(path, from), "{from}");
                assert_eq!(Ok(wal.newest(from)), catalog.newest_on(path, from), "{from}");
            }
        }
        let older = PathWal::new(&inventory, &histories[&Timeline(2)], size());
        assert_eq!(older.newest_stored(), inventory.timelines[&Timeline(2)].newest());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn holes_are_what_a_look_for_each_segment_finds(
            whole in proptest::collection::btree_set((1u32..4, 1u64..10), 0..16),
            streamed in proptest::collection::btree_set((1u32..4, 1u64..10), 0..3),
            second in 1u64..9,
            third in 1u64..9,
            parent in 1u32..3,
        ) {
            let whole: Vec<_> = whole.into_iter().collect();
            let streamed: Vec<_> = streamed.into_iter().collect();
            // A timeline can't leave another one before that began.
            let third = if parent == 2 { third.max(second) } else { third };
            let forks = [(2, 1, second), (3, parent, third)];
            let fixture = Fixture::create();
            let histories = fill(&fixture, &Scene { whole: &whole, streamed: &streamed, forks: &forks });
            let inventory = Inventory::take(&fixture.cluster, size())?;
            let paths: Vec<_> = histories.values().map(|path| PathWal::new(&inventory, path, size())).collect();
            let mine: BTreeSet<(u32, u64)> = paths
                .iter()
                .flat_map(|path| path.holes(None))
                .flat_map(|hole| (hole.first..=hole.last).map(move |number| (hole.timeline.0, number)))
                .collect();
            for timeline in 1..4 {
                for number in 0..11 {
                    let key = (timeline, number);
                    if whole.contains(&key) {
                        prop_assert!(!mine.contains(&key));
                        continue;
                    }
                    let lost = hole::find(&fixture.cluster, name(timeline, number), size())?.is_some();
                    let begun = |path: &PathWal<'_>| {
                        let own = path.within(&(number..=number)).any(|(owner, _)| owner.0 == timeline);
                        own && path.first().is_some_and(|first| first <= number)
                    };
                    prop_assert_eq!(mine.contains(&key), lost && paths.iter().any(begun), "{:?}", key);
                }
            }
        }
    }
}
