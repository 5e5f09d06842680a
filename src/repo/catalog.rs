//! What the repository holds of one cluster: timelines and their histories, and which segments of WAL are
//! there and which are missing on the path to a timeline.
//!
//! Segments are counted by their number on a path ([`TimelineHistory`]): which file holds number `n` follows
//! from the histories, and only that file counts. Recovery would also take an older timeline's file of that
//! number, but behind the fork that one holds WAL that is not of the path.
//!
//! Only whole segments count; the streamed beginning of one is no segment (`streamed.rs`).
//!
//! Only listings and small objects are read. An absent object may also mean that the repository's disk went
//! away: whoever acts on "not there" calls [`Repository::confirm`](super::Repository::confirm) first.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Cluster, ClusterHeader};
use super::{layout, segment};
use crate::error::{Error, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;

/// Longer than any history file: 2000 promotions.
const MAX_HISTORY: u64 = 1 << 20;

/// One cluster's part of a repository. Cheap to make: it looks at nothing before it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Catalog<'a> {
    cluster: &'a Cluster,
    size: SegmentSize,
}

impl<'a> Catalog<'a> {
    /// `size` is the cluster's, as `cluster.json` or a segment's header says.
    pub fn new(cluster: &'a Cluster, size: SegmentSize) -> Self {
        Self { cluster, size }
    }

    /// With the segment size of `cluster.json`.
    pub fn open(cluster: &'a Cluster) -> Result<(Self, ClusterHeader)> {
        let header = cluster.header()?;
        Ok((Self::new(cluster, header.segment_size), header))
    }

    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Every timeline of which the repository has a history file or WAL, lowest first.
    pub fn timelines(&self) -> Result<Vec<Timeline>> {
        let level = self.cluster.store().level(&self.cluster.layout().wal()?)?;
        let histories = level.objects.iter().filter_map(|meta| layout::parse_history(&meta.key));
        let directories = level.prefixes.iter().filter_map(layout::parse_timeline_prefix);
        let mut timelines: Vec<Timeline> = histories.chain(directories).collect();
        timelines.sort();
        timelines.dedup();
        Ok(timelines)
    }

    /// See [`history`].
    pub fn history(&self, timeline: Timeline) -> Result<Option<TimelineHistory>> {
        history(self.cluster, timeline)
    }

    /// The paths to all timelines whose history is known.
    pub fn histories(&self) -> Result<BTreeMap<Timeline, TimelineHistory>> {
        let mut histories = BTreeMap::new();
        for timeline in self.timelines()? {
            if let Some(history) = self.history(timeline)? {
                histories.insert(timeline, history);
            }
        }
        Ok(histories)
    }

    /// See [`logs`].
    pub fn logs(&self, timeline: Timeline) -> Result<Vec<u32>> {
        logs(self.cluster, timeline)
    }

    /// The segments within one log number of a timeline, lowest first.
    pub fn segments(&self, timeline: Timeline, log: u32) -> Result<Vec<SegmentName>> {
        let level = self.cluster.store().level(&self.cluster.layout().log(timeline, log)?)?;
        let names = level.objects.iter().filter_map(|meta| layout::parse_segment(&meta.key));
        let mut names: Vec<SegmentName> =
            names.filter(|name| (name.timeline, name.log) == (timeline, log)).collect();
        names.sort();
        Ok(names)
    }

    pub fn exists(&self, name: SegmentName) -> Result<bool> {
        segment::exists(self.cluster, name)
    }

    /// The newest segment of a timeline.
    pub fn newest(&self, timeline: Timeline) -> Result<Option<SegmentName>> {
        for log in self.logs(timeline)?.into_iter().rev() {
            if let Some(newest) = self.segments(timeline, log)?.pop() {
                return Ok(Some(newest));
            }
        }
        Ok(None)
    }

    /// The file that holds segment `number` of a path.
    pub fn name_on(&self, path: &TimelineHistory, number: u64) -> SegmentName {
        SegmentName::from_number(path.path_timeline_for_segment(number, self.size), number, self.size)
    }

    /// The first of the segments `from` to `to`, both included, that is not there.
    pub fn first_missing(&self, path: &TimelineHistory, from: u64, to: u64) -> Result<Option<u64>> {
        let mut shelf = Shelf::default();
        for number in from..=to {
            if !shelf.holds(self, self.name_on(path, number))? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The last segment of those that follow `from` on a path without a gap. None when `from` is missing.
    pub fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        let missing = self.first_missing(path, from, u64::MAX)?;
        Ok(missing.filter(|missing| *missing > from).map(|missing| missing.saturating_sub(1)))
    }

    /// The runs of segments between `from` and `to`, both included, that are not there: the first `most` of them,
    /// and how many segments are missing in all.
    pub fn missing(&self, path: &TimelineHistory, from: u64, to: u64, most: usize) -> Result<Missing> {
        let (mut shelf, mut missing) = (Shelf::default(), Missing::default());
        for number in from..=to {
            if shelf.holds(self, self.name_on(path, number))? {
                continue;
            }
            missing.count = missing.count.saturating_add(1);
            let adjoins = |run: &&mut RangeInclusive<u64>| run.end().saturating_add(1) == number;
            if let Some(run) = missing.runs.last_mut().filter(adjoins) {
                *run = *run.start()..=number;
            } else if missing.runs.len() < most {
                missing.runs.push(number..=number);
            }
        }
        Ok(missing)
    }

    /// The newest segment of a path from `from` on, whether there is a gap before it or not.
    pub fn newest_on(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        let mut newest = None;
        let ancestors = path.entries().iter().map(|entry| entry.timeline);
        for timeline in ancestors.chain([path.timeline()]) {
            let wanted = from / self.size.segments_per_log();
            for log in self.logs(timeline)?.into_iter().filter(|log| u64::from(*log) >= wanted) {
                for name in self.segments(timeline, log)? {
                    let number = name.number(self.size)?;
                    if number >= from && self.name_on(path, number) == name {
                        newest = newest.max(Some(number));
                    }
                }
            }
        }
        Ok(newest)
    }
}

/// Segments of a path that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Their numbers, run by run, lowest first.
    pub runs: Vec<RangeInclusive<u64>>,
    pub count: u64,
}

/// The listing of one log number: neighbours are asked for one after the other.
#[derive(Default)]
struct Shelf {
    place: Option<(Timeline, u32)>,
    names: Vec<SegmentName>,
}

impl Shelf {
    fn holds(&mut self, catalog: &Catalog<'_>, name: SegmentName) -> Result<bool> {
        let place = (name.timeline, name.log);
        if self.place != Some(place) {
            self.names = catalog.segments(name.timeline, name.log)?;
            self.place = Some(place);
        }
        Ok(self.names.binary_search(&name).is_ok())
    }
}

/// The path that led to a timeline. None when its history file is not there; timeline 1 has none and
/// needs none.
pub fn history(cluster: &Cluster, timeline: Timeline) -> Result<Option<TimelineHistory>> {
    if timeline == Timeline(1) {
        return Ok(Some(TimelineHistory::without_parents(timeline)));
    }
    let key = cluster.layout().history(timeline)?;
    let store = cluster.store();
    let read = store.head(&key).and_then(|meta| match meta.size {
        0..=MAX_HISTORY => store.get(&key),
        size => Err(Error::corrupt(format!("{} is no history file: {size} bytes", store.name(&key)))),
    });
    match read {
        Ok(content) => TimelineHistory::parse(timeline, &content)
            .map(Some)
            .map_err(|error| error.context(store.name(&key))),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The log numbers of a timeline of which there is anything, lowest first.
pub fn logs(cluster: &Cluster, timeline: Timeline) -> Result<Vec<u32>> {
    let level = cluster.store().level(&cluster.layout().timeline(timeline)?)?;
    Ok(level.prefixes.iter().filter_map(layout::parse_log_prefix).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;
    use crate::pg::lsn::SystemId;
    use crate::repo::{self, Repository};

    /// 64 segments in a log number.
    const SIZE: u64 = 64 << 20;

    struct Fixture {
        _dir: tempfile::TempDir,
        cluster: Cluster,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let location = Location::parse(&dir.path().display().to_string()).expect("location");
            repo::init(&location).expect("initialised");
            let repository = Repository::open(&location, None).expect("opened");
            let cluster = repository.cluster(&"main".parse().expect("name"), SystemId(7));
            Self { _dir: dir, cluster }
        }

        fn catalog(&self) -> Catalog<'_> {
            Catalog::new(&self.cluster, SegmentSize::try_from(SIZE).expect("a size"))
        }

        fn put(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
            for number in numbers {
                let name = SegmentName::from_number(Timeline(timeline), number, self.catalog().size);
                let key = self.cluster.layout().segment(name).expect("key");
                self.cluster.store().create(&key, &b"x"[..]).expect("created");
            }
        }

        fn put_history(&self, timeline: u32, content: &str) {
            let key = self.cluster.layout().history(Timeline(timeline)).expect("key");
            self.cluster.store().create(&key, content.as_bytes().to_vec()).expect("created");
        }
    }

    fn switch(number: u64) -> String {
        crate::pg::lsn::Lsn(number * SIZE + 0x100).to_string()
    }

    #[test]
    fn an_empty_repository_has_nothing() {
        let fixture = Fixture::new();
        let catalog = fixture.catalog();
        assert_eq!(catalog.timelines(), Ok(vec![]));
        assert_eq!(catalog.newest(Timeline(1)), Ok(None));
        let path = catalog.history(Timeline(1)).expect("read").expect("needs no file");
        assert_eq!(catalog.history(Timeline(2)), Ok(None));
        assert_eq!(catalog.last_contiguous(&path, 3), Ok(None));
        assert_eq!(catalog.first_missing(&path, 3, 5), Ok(Some(3)));
        assert_eq!(catalog.newest_on(&path, 0), Ok(None));
    }

    #[test]
    fn gaps_are_found_across_log_numbers() {
        let fixture = Fixture::new();
        fixture.put(1, (60..130).chain(132..140));
        let catalog = fixture.catalog();
        let path = TimelineHistory::without_parents(Timeline(1));
        assert_eq!(catalog.logs(Timeline(1)), Ok(vec![0, 1, 2]));
        assert_eq!(catalog.segments(Timeline(1), 0).map(|names| names.len()), Ok(4));
        assert_eq!(catalog.first_missing(&path, 60, 129), Ok(None));
        assert_eq!(catalog.first_missing(&path, 61, 135), Ok(Some(130)));
        assert_eq!(catalog.first_missing(&path, 131, 135), Ok(Some(131)));
        assert_eq!(catalog.last_contiguous(&path, 60), Ok(Some(129)));
        assert_eq!(catalog.last_contiguous(&path, 133), Ok(Some(139)));
        assert_eq!(catalog.newest_on(&path, 60), Ok(Some(139)));
        assert_eq!(catalog.newest(Timeline(1)).map(|name| name.map(|n| n.to_string())), {
            Ok(Some("00000001000000020000000B".to_string()))
        });
        assert_eq!(catalog.exists("00000001000000020000000B".parse().expect("name")), Ok(true));
        assert_eq!(catalog.exists("00000001000000020000000C".parse().expect("name")), Ok(false));
    }

    #[test]
    fn a_path_takes_each_segment_from_the_timeline_that_it_belongs_to() {
        let fixture = Fixture::new();
        fixture.put(1, 1..9);
        fixture.put(2, 5..7);
        fixture.put_history(2, &format!("1\t{}\tno recovery target specified\n", switch(5)));
        fixture.put_history(3, &format!("1\t{}\tx\n\n2\t{}\ty\n", switch(5), switch(6)));
        let catalog = fixture.catalog();
        assert_eq!(catalog.timelines(), Ok(vec![Timeline(1), Timeline(2), Timeline(3)]));
        let histories = catalog.histories().expect("read");
        let last = |timeline| catalog.last_contiguous(&histories[&Timeline(timeline)], 2);
        assert_eq!([last(1), last(2), last(3)], [Ok(Some(8)), Ok(Some(6)), Ok(Some(5))]);
        // Timeline 2's own copy of the segment in which timeline 3 begins is not timeline 3's.
        assert_eq!(catalog.first_missing(&histories[&Timeline(3)], 2, 8), Ok(Some(6)));
        assert_eq!(catalog.newest_on(&histories[&Timeline(3)], 2), Ok(Some(5)));
        assert_eq!(catalog.name_on(&histories[&Timeline(3)], 5).timeline, Timeline(2));
    }

    #[test]
    fn what_is_missing_is_told_in_runs_and_counted() {
        let fixture = Fixture::new();
        fixture.put(1, [1, 2, 5, 7, 66]);
        let path = TimelineHistory::without_parents(Timeline(1));
        let missing = |from, to, most| fixture.catalog().missing(&path, from, to, most).expect("listed");
        assert_eq!(missing(1, 2, 9), Missing::default());
        assert_eq!(missing(1, 66, 9).runs, [3..=4, 6..=6, 8..=65]);
        assert_eq!(missing(1, 66, 9).count, 61);
        assert_eq!(missing(1, 66, 1), Missing { runs: vec![3..=4], count: 61 });
        assert_eq!(missing(67, 68, 9).runs, [67..=68]);
    }

    #[test]
    fn a_damaged_history_is_an_error_that_names_it() {
        let fixture = Fixture::new();
        fixture.put_history(2, "nonsense");
        let error = fixture.catalog().history(Timeline(2)).expect_err("damaged");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.message().contains("00000002.history"), "{error}");
    }

    #[test]
    fn what_is_no_whole_segment_is_not_counted() {
        let fixture = Fixture::new();
        fixture.put(1, [1]);
        let layout = fixture.cluster.layout();
        let name = SegmentName::from_number(Timeline(1), 2, fixture.catalog().size);
        let partial = layout.partial(name, "0011223344556677").expect("key");
        fixture.cluster.store().create(&partial, &b"x"[..]).expect("created");
        let streamed = layout.streamed(name, crate::pg::lsn::Lsn(2 * SIZE + 77)).expect("key");
        fixture.cluster.store().create(&streamed, &b"x"[..]).expect("created");
        let backup = layout.backup_history(name, 0x28).expect("key");
        fixture.cluster.store().create(&backup, &b"x"[..]).expect("created");
        let path = TimelineHistory::without_parents(Timeline(1));
        assert_eq!(fixture.catalog().last_contiguous(&path, 1), Ok(Some(1)));
        assert_eq!(fixture.catalog().newest_on(&path, 1), Ok(Some(1)));
        assert_eq!(fixture.catalog().newest(Timeline(1)).map(|newest| newest.is_some()), Ok(true));
    }
}
