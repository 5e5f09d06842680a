//! Gaps: WAL that a server dropped because it could not be archived for too long (`push.wal_queue_max`). A
//! gap says that a run of segments is missing on purpose, since when and where; it makes nothing restorable.
//! `docs/repository-format.md`, "Gaps", is the norm.
//!
//! Invariant: a gap object is created once, whole, under its random id, and never changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::layout::{self, Id};
use super::{Cluster, parse_versioned, to_json};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::{SegmentSize, SystemId};
use crate::pg::names::SegmentName;
use crate::store::Created;

const FORMAT: &str = "pgark gap";
const VERSION: u32 = 1;

/// A run of segments of one timeline that were dropped. A dropped `.partial` counts as its segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    format: String,
    version: u32,
    pub id: Id,
    pub system_id: SystemId,
    pub segment_size: SegmentSize,
    pub first: SegmentName,
    /// Of the same timeline as `first`, not before it.
    pub last: SegmentName,
    /// When the first and the last were dropped, by the server's clock.
    pub since: Timestamp,
    pub until: Timestamp,
    /// The host that dropped them.
    pub host: String,
}

impl Gap {
    /// One segment, dropped now.
    pub fn of(
        name: SegmentName,
        system_id: SystemId,
        segment_size: SegmentSize,
        host: String,
    ) -> Result<Self> {
        let now = Timestamp::now();
        Ok(Self {
            format: FORMAT.to_string(),
            version: VERSION,
            id: Id::random()?,
            system_id,
            segment_size,
            first: name,
            last: name,
            since: now,
            until: now,
            host,
        })
    }

    /// The same drop, but of fewer segments.
    fn part(&self, first: u64, last: u64) -> Result<Self> {
        let name = |number| SegmentName::from_number(self.first.timeline, number, self.segment_size);
        Ok(Self { id: Id::random()?, first: name(first), last: name(last), ..self.clone() })
    }

    /// The numbers of its segments.
    pub fn numbers(&self) -> Result<std::ops::RangeInclusive<u64>> {
        Ok(self.first.number(self.segment_size)?..=self.last.number(self.segment_size)?)
    }

    /// Takes the dropped `name` in, if it belongs to this gap or is the next behind it. A gap that has grown
    /// is another one: a copy of the spool may have recorded the shorter.
    pub fn extend(&mut self, name: SegmentName, system_id: SystemId) -> Result<bool> {
        if system_id != self.system_id || name.timeline != self.first.timeline {
            return Ok(false);
        }
        let (number, mine) = (name.number(self.segment_size)?, self.numbers()?);
        if number == mine.end().saturating_add(1) {
            (self.id, self.last, self.until) = (Id::random()?, name, Timestamp::now());
            return Ok(true);
        }
        Ok(mine.contains(&number))
    }

    /// A clause that tells why its segments are missing.
    pub fn story(&self) -> String {
        format!(
            "{} to {} were dropped by {} between {:.0} and {:.0}, because the repository could not be reached and \
             more WAL waited than push.wal_queue_max",
            self.first, self.last, self.host, self.since, self.until
        )
    }
}

/// Records a gap; once more is success.
pub fn put(cluster: &Cluster, gap: &Gap) -> Result<()> {
    let key = cluster.layout().gap(gap.id)?;
    let content = to_json(gap)?;
    if cluster.store().create(&key, content.clone())? == Created::New {
        return Ok(());
    }
    if cluster.store().get(&key)? != content {
        return Err(Error::conflict(format!("{} is another gap", cluster.store().name(&key))));
    }
    cluster.store().settle(&key)
}

/// All recorded gaps, sorted by their first segment.
pub fn list(cluster: &Cluster) -> Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    for object in cluster.store().level(&cluster.layout().gaps()?)?.objects {
        if layout::parse_id(&object.key).is_none() {
            continue;
        }
        match cluster.store().get(&object.key) {
            Ok(bytes) => gaps.push(parse(&bytes, &cluster.store().name(&object.key))?),
            // Deleted since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    gaps.sort_by_key(|gap: &Gap| (gap.first, gap.id));
    Ok(gaps)
}

/// The recorded gap that `segment` lies in. For messages only: it proves nothing, and a record that can't be read
/// must not hide what there is to say.
pub fn around(cluster: &Cluster, segment: SegmentName) -> Option<Gap> {
    let gaps = list(cluster).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    gaps.into_iter().find(|gap| {
        let lies_in = |number| gap.numbers().is_ok_and(|numbers| numbers.contains(&number));
        gap.first.timeline == segment.timeline && segment.number(gap.segment_size).is_ok_and(lies_in)
    })
}

/// What of a gap the repository really lacks: a dropped segment may be there all the same, from another server,
/// pushed by hand, or because the server that dropped it crashed before it noted that and asked again. Those
/// that are there are durable when this returns.
pub fn missing(cluster: &Cluster, gap: &Gap) -> Result<Vec<Gap>> {
    let (numbers, per_log) = (gap.numbers()?, gap.segment_size.segments_per_log());
    let (timeline, mut next) = (gap.first.timeline, *numbers.start());
    let mut runs = Vec::new();
    for log in numbers.start() / per_log..=numbers.end() / per_log {
        let log =
            u32::try_from(log).map_err(|_| Error::corrupt(format!("{} is beyond all WAL", gap.last)))?;
        for name in Catalog::new(cluster, gap.segment_size).segments(timeline, log)? {
            let number = name.number(gap.segment_size)?;
            if !numbers.contains(&number) {
                continue;
            }
            cluster.store().settle(&cluster.layout().segment(name)?)?;
            if next < number {
                runs.push((next, number.saturating_sub(1)));
            }
            next = number.saturating_add(1);
        }
    }
    if next <= *numbers.end() {
        runs.push((next, *numbers.end()));
    }
    match runs.as_slice() {
        [(first, last)] if (*first..=*last) == numbers => Ok(vec![gap.clone()]),
        runs => runs.iter().map(|(first, last)| gap.part(*first, *last)).collect(),
    }
}

fn parse(bytes: &[u8], name: &str) -> Result<Gap> {
    parse_versioned(bytes, name, (FORMAT, VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::Fixture;

    const OURS: SystemId = SystemId(7_650_000_000_000_000_001);

    fn size() -> SegmentSize {
        SegmentSize::try_from(16 << 20).expect("a size")
    }

    fn segment(name: &str) -> SegmentName {
        name.parse().expect("a name")
    }

    fn gap(name: &str) -> Gap {
        Gap::of(segment(name), OURS, size(), "db1".into()).expect("a gap")
    }

    #[test]
    fn a_gap_grows_by_what_follows_it_and_by_nothing_else() {
        let mut gap = gap("0000000100000000000000FE");
        let grows = |gap: &mut Gap, name: &str| gap.extend(segment(name), OURS).expect("names");
        assert!(grows(&mut gap, "0000000100000000000000FE"));
        assert_eq!(gap.first, gap.last);
        assert!(grows(&mut gap, "0000000100000000000000FF"));
        assert!(grows(&mut gap, "000000010000000100000000"));
        assert_eq!(gap.last.to_string(), "000000010000000100000000");
        assert!(!grows(&mut gap, "000000010000000100000002"));
        assert!(!grows(&mut gap, "0000000100000000000000FD"));
        assert!(!grows(&mut gap, "000000020000000100000001"));
        assert!(!gap.extend(segment("000000010000000100000001"), SystemId(1)).expect("names"));
        assert_eq!(gap.numbers().expect("names").count(), 3);
    }

    #[test]
    fn gaps_are_recorded_once_and_listed_in_order() {
        let fixture = Fixture::create();
        assert_eq!(list(&fixture.cluster).expect("none"), []);
        let (later, earlier) = (gap("000000010000000000000009"), gap("000000010000000000000002"));
        for gap in [&later, &earlier, &later] {
            put(&fixture.cluster, gap).expect("recorded");
        }
        assert_eq!(list(&fixture.cluster).expect("listed"), [earlier.clone(), later.clone()]);
        let changed = Gap { host: "db2".into(), ..later };
        assert_eq!(put(&fixture.cluster, &changed).expect_err("another").kind(), Kind::Conflict);
        let key = fixture.cluster.layout().gap(earlier.id).expect("key");
        fixture.damage(&key, |bytes| bytes.truncate(20));
        assert_eq!(list(&fixture.cluster).expect_err("damaged").kind(), Kind::Corrupt);
    }

    fn store(fixture: &Fixture, name: &str) {
        let key = fixture.cluster.layout().segment(segment(name)).expect("key");
        fixture.cluster.store().create(&key, &b"a segment"[..]).expect("stored");
    }

    fn long_gap() -> Gap {
        let mut gap = gap("0000000100000000000000FD");
        for name in ["0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000"] {
            assert!(gap.extend(segment(name), OURS).expect("names"));
        }
        gap
    }

    #[test]
    fn what_is_there_all_the_same_is_no_gap() {
        let fixture = Fixture::create();
        let gap = long_gap();
        let left = || -> Vec<String> {
            let parts = missing(&fixture.cluster, &gap).expect("listed");
            parts.iter().map(|gap| format!("{}-{}", gap.first, gap.last)).collect()
        };
        assert_eq!(missing(&fixture.cluster, &gap), Ok(vec![gap.clone()]));
        store(&fixture, "0000000100000000000000FC");
        store(&fixture, "0000000200000000000000FE");
        assert_eq!(missing(&fixture.cluster, &gap), Ok(vec![gap.clone()]));
        store(&fixture, "0000000100000000000000FE");
        assert_eq!(
            left(),
            [
                "0000000100000000000000FD-0000000100000000000000FD",
                "0000000100000000000000FF-000000010000000100000000"
            ]
        );
        store(&fixture, "000000010000000100000000");
        store(&fixture, "0000000100000000000000FD");
        assert_eq!(left(), ["0000000100000000000000FF-0000000100000000000000FF"]);
        store(&fixture, "0000000100000000000000FF");
        assert_eq!(left(), Vec::<String>::new());
    }

    #[test]
    fn a_segment_is_found_in_its_gap_and_a_damaged_record_is_none() {
        let fixture = Fixture::create();
        let gap = long_gap();
        put(&fixture.cluster, &gap).expect("recorded");
        let found = |name: &str| around(&fixture.cluster, segment(name));
        assert_eq!(found("0000000100000000000000FF"), Some(gap.clone()));
        for other in ["0000000100000000000000FC", "000000010000000100000001", "0000000200000000000000FF"] {
            assert_eq!(found(other), None, "{other}");
        }
        let key = fixture.cluster.layout().gap(gap.id).expect("key");
        fixture.damage(&key, |bytes| bytes.truncate(20));
        assert_eq!(found("0000000100000000000000FF"), None);
    }

    #[test]
    fn a_gap_that_grows_is_another_one() {
        let (gap, same) = (gap("000000010000000000000002"), segment("000000010000000000000002"));
        let (mut grown, mut unchanged) = (gap.clone(), gap.clone());
        assert!(grown.extend(segment("000000010000000000000003"), OURS).expect("names"));
        assert!(unchanged.extend(same, OURS).expect("names"));
        assert_ne!(grown.id, gap.id);
        assert_eq!(unchanged, gap);
    }

    #[test]
    fn a_gap_of_a_newer_version_is_refused() {
        let text = String::from_utf8(to_json(&gap("000000010000000000000009")).expect("json")).expect("text");
        let newer = text.replace("\"version\": 1", "\"version\": 2");
        let error = parse(newer.as_bytes(), "x").expect_err("newer");
        assert!(error.message().contains("up to version 1"), "{error}");
    }
}
