//! Which WAL `pgark expire` deleted: records, so that nobody takes it for lost, nor lost WAL for expired.
//! `docs/repository-format.md`, "Expired WAL", is the norm.
//!
//! Invariant: what is going is recorded, durably, before the first of it is deleted. So whoever first misses a segment
//! and then reads the records finds it there, however an expiry ended, or while it is at work.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::records::{self, Found, Record};
use super::runs::Runs;
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;

/// All that has expired so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// When and where the last of it went, by that host's clock.
    at: Timestamp,
    host: String,
    runs: Vec<Run>,
}

/// Segments of one timeline, whether they were ever there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first: SegmentName,
    last: SegmentName,
}

impl Record for Expired {
    const KIND: &'static str = "expired";
    const FORMAT: &'static str = "pgark expired";
    const VERSION: u32 = 1;
}

/// What need not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone(BTreeMap<Timeline, Runs>);

impl Gone {
    /// By the records that there are. If one can't be read, nothing has expired: then what is missing looks lost, and
    /// somebody looks.
    pub fn read(cluster: &Cluster, size: SegmentSize) -> Result<Self> {
        match Self::of(&records::news(cluster)?, size) {
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::warn!("{error}; no WAL counts as expired");
                Ok(Self::default())
            }
            gone => gone,
        }
    }

    fn of(records: &[Found<Expired>], size: SegmentSize) -> Result<Self> {
        let mut gone = Self::default();
        for run in records.iter().flat_map(|found| &found.record.runs) {
            let (first, last) = (run.first.number(size)?, run.last.number(size)?);
            if run.first.timeline != run.last.timeline || last < first {
                return Err(Error::corrupt(format!("{} to {} is no run of segments", run.first, run.last)));
            }
            gone.add(run.first.timeline, &Runs::from(first..=last));
        }
        Ok(gone)
    }

    pub fn add(&mut self, timeline: Timeline, runs: &Runs) {
        let known = self.0.entry(timeline).or_default();
        runs.iter().for_each(|run| known.add(run));
    }

    fn covers(&self, timeline: Timeline, runs: &Runs) -> bool {
        let known = self.0.get(&timeline);
        runs.iter().all(|run| known.is_some_and(|known| known.covers(&run)))
    }

    /// Whether all of these segments of a path have expired, by their numbers.
    pub fn has(&self, path: &TimelineHistory, range: &RangeInclusive<u64>, size: SegmentSize) -> bool {
        range.clone().all(|number| {
            let runs = self.0.get(&path.path_timeline_for_segment(number, size));
            runs.is_some_and(|runs| runs.contains(number))
        })
    }

    fn runs(&self, size: SegmentSize) -> Vec<Run> {
        let name = |timeline, number| SegmentName::from_number(timeline, number, size);
        let run = |timeline: Timeline, run: RangeInclusive<u64>| Run {
            first: name(timeline, *run.start()),
            last: name(timeline, *run.end()),
        };
        self.0.iter().flat_map(|(timeline, runs)| runs.iter().map(|range| run(*timeline, range))).collect()
    }
}

/// Records that these are going; durable when this returns. One record takes the place of all before it.
pub fn note(cluster: &Cluster, size: SegmentSize, going: &BTreeMap<Timeline, Runs>) -> Result<()> {
    let records: Vec<Found<Expired>> = records::list(cluster)?;
    let mut gone = Gone::of(&records, size)?;
    if records.len() < 2 && going.iter().all(|(timeline, runs)| gone.covers(*timeline, runs)) {
        return Ok(());
    }
    going.iter().for_each(|(timeline, runs)| gone.add(*timeline, runs));
    records::put(cluster, &Expired { at: Timestamp::now(), host: host::name(), runs: gone.runs(size) })?;
    for record in records {
        records::delete::<Expired>(cluster, record.id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::Fixture;

    fn size() -> SegmentSize {
        SegmentSize::try_from(1 << 20).expect("a size")
    }

    fn going(timeline: u32, runs: &[RangeInclusive<u64>]) -> BTreeMap<Timeline, Runs> {
        let mut all = Runs::default();
        runs.iter().for_each(|run| all.add(run.clone()));
        BTreeMap::from([(Timeline(timeline), all)])
    }

    #[test]
    fn what_has_expired_adds_up_in_one_record() {
        let fixture = Fixture::create();
        let cluster = &fixture.cluster;
        let read = || Gone::read(cluster, size()).expect("read");
        let records = || fixture.objects().iter().filter(|key| key.starts_with("expired/")).count();
        assert_eq!(read(), Gone::default());
        note(cluster, size(), &going(1, &[])).expect("noted");
        assert_eq!(records(), 0, "nothing goes");
        note(cluster, size(), &going(1, &[3..=4, 8..=9])).expect("noted");
        note(cluster, size(), &going(1, &[5..=6])).expect("noted");
        note(cluster, size(), &going(2, &[7..=7])).expect("noted");
        assert_eq!(records(), 1);
        let mut all = Gone(going(1, &[3..=6, 8..=9]));
        all.add(Timeline(2), &Runs::from(7..=7));
        assert_eq!(read(), all);
        let before = fixture.objects();
        note(cluster, size(), &going(1, &[4..=5])).expect("noted");
        assert_eq!(fixture.objects(), before, "that is known");
    }

    #[test]
    fn all_of_a_run_along_a_path_must_have_expired() {
        let mut gone = Gone(going(1, &[3..=6]));
        gone.add(Timeline(2), &Runs::from(7..=9));
        let path = TimelineHistory::parse(Timeline(2), b"1\t0/700028\tx\n").expect("a history");
        let alone = TimelineHistory::without_parents(Timeline(1));
        assert!(gone.has(&path, &(3..=9), size()) && gone.has(&alone, &(4..=6), size()));
        for (path, range) in [(&path, 2..=9), (&path, 3..=10), (&alone, 3..=7)] {
            assert!(!gone.has(path, &range, size()), "{range:?}");
        }
    }

    #[test]
    fn records_that_can_not_be_read_excuse_nothing_and_stop_an_expiry() {
        let fixture = Fixture::create();
        note(&fixture.cluster, size(), &going(1, &[3..=4])).expect("noted");
        let key = fixture.objects().into_iter().find(|key| key.starts_with("expired/")).expect("a record");
        let file = fixture.file(&fixture.cluster.layout().root().expect("a key")).join(key);
        std::fs::write(file, "{").expect("damaged");
        assert_eq!(Gone::read(&fixture.cluster, size()), Ok(Gone::default()));
        assert!(note(&fixture.cluster, size(), &going(1, &[5..=5])).is_err());
    }
}
