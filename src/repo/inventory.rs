//! What the repository holds of one incarnation of a cluster, from one pass over the listing: no object is
//! opened. Which segments there are, in runs; what else; how much of it; and how fast WAL came in.
//!
//! Memory grows with holes, timelines, packs and days, not with segments: of those one log number's listing
//! is held at a time. What changes while we look may be seen or not. A repository that went away looks like
//! an empty one, so [`Inventory::take`] confirms it at the end.

mod pace;
mod path;
mod runs;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::layout::{self, PackId};
use super::streamed::StreamedPart;
use super::{Cluster, catalog};
use crate::error::{Error, Result};
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::WalFile;
use crate::store::{Key, Meta};
pub use pace::{Pace, Rate};
pub use path::{Hole, PathWal};
pub use runs::{Run, Runs, missing};

/// A number of objects and what they take in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    pub objects: u64,
    pub bytes: u64,
}

impl Volume {
    pub fn add(&mut self, bytes: u64) {
        self.objects = self.objects.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub fn plus(self, other: Volume) -> Volume {
        let objects = self.objects.saturating_add(other.objects);
        Volume { objects, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// The WAL of one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineWal {
    /// Whole segments.
    pub runs: Runs,
    /// The numbers of segments of which there is a `.partial` or a streamed part.
    pub beginnings: BTreeSet<u64>,
    pub partials: Volume,
    pub streamed: Volume,
    /// The longest streamed part of the last segment that has any.
    pub newest_streamed: Option<StreamedPart>,
    /// Backup history files.
    pub backup_histories: Volume,
    pub pace: Pace,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub timelines: BTreeMap<Timeline, TimelineWal>,
    /// History files and when they were stored.
    pub histories: BTreeMap<Timeline, Timestamp>,
    history_files: Volume,
    /// Packs and their sizes, sorted.
    pub packs: Vec<(PackId, u64)>,
    /// Headers and maps of backups; a map without a header too.
    pub backups: Volume,
    /// Everything else: cluster.json, pins, gaps, leases, what is being written, what is not ours.
    pub other: Volume,
}

impl Inventory {
    /// Lists everything below an incarnation.
    pub fn take(cluster: &Cluster, size: SegmentSize) -> Result<Self> {
        let mut inventory = Self::of_wal(cluster, size)?;
        let (layout, store) = (cluster.layout(), cluster.store());
        let (packs, backups) = (layout.packs()?, layout.backups()?);
        for object in store.walk(&packs) {
            let object = object?;
            match layout::parse_pack(&object.key) {
                Some(pack) => inventory.packs.push((pack, object.size)),
                None => inventory.other.add(object.size),
            }
        }
        inventory.packs.sort();
        for object in store.walk(&backups) {
            inventory.backups.add(object?.size);
        }
        let level = store.level(&layout.root()?)?;
        let known = [&packs, &backups, &layout.wal()?];
        level.objects.iter().for_each(|object| inventory.other.add(object.size));
        for prefix in level.prefixes.iter().filter(|prefix| !known.contains(prefix)) {
            inventory.count_other(cluster, prefix)?;
        }
        cluster.repository().confirm()?;
        Ok(inventory)
    }

    /// Lists WAL and histories only.
    pub fn of_wal(cluster: &Cluster, size: SegmentSize) -> Result<Self> {
        let mut inventory = Self::default();
        inventory.list_wal(cluster, size)?;
        Ok(inventory)
    }

    fn count_other(&mut self, cluster: &Cluster, prefix: &Key) -> Result<()> {
        cluster.store().walk(prefix).try_for_each(|object| object.map(|object| self.other.add(object.size)))
    }

    fn list_wal(&mut self, cluster: &Cluster, size: SegmentSize) -> Result<()> {
        let level = cluster.store().level(&cluster.layout().wal()?)?;
        for object in level.objects {
            match layout::parse_history(&object.key) {
                Some(timeline) => {
                    self.history_files.add(object.size);
                    self.histories.insert(timeline, stored_at(&object)?);
                }
                None => self.other.add(object.size),
            }
        }
        for prefix in level.prefixes {
            match layout::parse_timeline_prefix(&prefix) {
                Some(timeline) => self.list_timeline(cluster, size, timeline)?,
                None => self.count_other(cluster, &prefix)?,
            }
        }
        Ok(())
    }

    fn list_timeline(&mut self, cluster: &Cluster, size: SegmentSize, timeline: Timeline) -> Result<()> {
        let mut wal = TimelineWal::default();
        for log in catalog::logs(cluster, timeline)? {
            for object in cluster.store().level(&cluster.layout().log(timeline, log)?)?.objects {
                if !wal.take_in(&object, (timeline, log), size)? {
                    self.other.add(object.size);
                }
            }
        }
        self.timelines.insert(timeline, wal);
        Ok(())
    }

    /// Every timeline of which there is a history file or WAL.
    pub fn known_timelines(&self) -> BTreeSet<Timeline> {
        self.timelines.keys().chain(self.histories.keys()).copied().collect()
    }

    /// Whole segments of all timelines.
    pub fn segments(&self) -> Volume {
        self.timelines.values().fold(Volume::default(), |sum, wal| sum.plus(wal.segments()))
    }

    /// All that is there of WAL: segments, parts of them, history files.
    pub fn wal(&self) -> Volume {
        self.timelines.values().fold(self.history_files, |sum, wal| sum.plus(wal.volume()))
    }

    /// The size of a pack that is there.
    pub fn pack(&self, pack: PackId) -> Option<u64> {
        let at = self.packs.binary_search_by_key(&pack, |(id, _)| *id).ok()?;
        self.packs.get(at).map(|(_, size)| *size)
    }
}

impl TimelineWal {
    /// False: nothing that belongs there.
    fn take_in(&mut self, object: &Meta, place: (Timeline, u32), size: SegmentSize) -> Result<bool> {
        let key = &object.key;
        let segment = layout::parse_segment(key);
        let partial = layout::parse_partial(key).map(|(name, _)| name);
        let streamed = layout::parse_streamed(key).map(|(segment, end)| StreamedPart { segment, end });
        let backup_history = match key.last().parse() {
            Ok(WalFile::BackupHistory(name, _)) => Some(name),
            _ => None,
        };
        let name = segment.or(partial).or(streamed.map(|part| part.segment)).or(backup_history);
        let Some(name) = name.filter(|name| (name.timeline, name.log) == place) else { return Ok(false) };
        // A name that is not possible with segments of this size.
        let Ok(number) = name.number(size) else { return Ok(false) };
        if segment.is_some() {
            let at = stored_at(object)?;
            self.pace.note(object.size, at);
            return Ok(self.runs.push(number, object.size, at));
        }
        if backup_history.is_some() {
            self.backup_histories.add(object.size);
            return Ok(true);
        }
        self.beginnings.insert(number);
        match streamed {
            Some(part) => {
                self.streamed.add(object.size);
                self.newest_streamed = self.newest_streamed.max(Some(part));
            }
            None => self.partials.add(object.size),
        }
        Ok(true)
    }

    /// Whole segments.
    pub fn segments(&self) -> Volume {
        Volume { objects: self.runs.segments(), bytes: self.runs.stored() }
    }

    fn volume(&self) -> Volume {
        self.segments().plus(self.partials).plus(self.streamed).plus(self.backup_histories)
    }

    /// When the newest segment was stored.
    pub fn newest(&self) -> Option<Timestamp> {
        self.runs.as_slice().iter().map(|run| run.newest).max()
    }
}

fn stored_at(object: &Meta) -> Result<Timestamp> {
    Timestamp::try_from(object.modified)
        .map_err(|cause| Error::corrupt(format!("the time of {} is none: {cause}", object.key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Lsn;
    use crate::pg::names::SegmentName;
    use crate::repo::fixture::Fixture;
    use crate::repo::layout::Id;

    #[test]
    fn every_object_is_counted_once() {
        let fixture = Fixture::create();
        let (layout, store) = (fixture.cluster.layout(), fixture.cluster.store());
        let size = SegmentSize::try_from(64 << 20).expect("a size");
        let name = |number| SegmentName::from_number(Timeline(1), number, size);
        let pack = PackId { backup: Id::random().expect("id"), number: 3 };
        let misplaced = format!("{}/{}.zst", layout.log(Timeline(2), 7).expect("key"), name(1));
        // 64 segments of this size share a log number.
        let impossible = format!("{}/0000000100000000000000FF.zst", layout.log(Timeline(1), 0).expect("key"));
        let keys = [
            layout.segment(name(63)),
            layout.segment(name(64)),
            layout.partial(name(65), "0123456789abcdef"),
            layout.streamed(name(66), Lsn((66 << 26) + 5)),
            layout.streamed(name(66), Lsn((66 << 26) + 9)),
            layout.backup_history(name(63), 0x28),
            layout.history(Timeline(2)),
            layout.pack(pack),
            layout.backup_map(&"one".parse().expect("name")),
            layout.cluster(),
            layout.gap(Id::random().expect("id")),
            Key::new(&misplaced),
            Key::new(&impossible),
        ];
        for (bytes, key) in keys.into_iter().enumerate() {
            store.create(&key.expect("key"), vec![b'x'; bytes + 1]).expect("created");
        }
        let found = Inventory::take(&fixture.cluster, size).expect("listed");
        let wal = &found.timelines[&Timeline(1)];
        assert_eq!((wal.runs.first(), wal.runs.last(), wal.segments()), (Some(63), Some(64), volume(2, 3)));
        assert_eq!(wal.beginnings, BTreeSet::from([65, 66]));
        assert_eq!(
            (wal.partials, wal.streamed, wal.backup_histories),
            (volume(1, 3), volume(2, 9), volume(1, 6))
        );
        assert_eq!(wal.newest_streamed.map(|part| part.end), Some(Lsn((66 << 26) + 9)));
        assert_eq!(wal.pace.rate().map(|rate| rate.last_day), Some(2));
        assert_eq!(found.histories.keys().copied().collect::<Vec<_>>(), [Timeline(2)]);
        assert_eq!((found.packs.as_slice(), found.pack(pack)), (&[(pack, 8)][..], Some(8)));
        assert_eq!((found.backups, found.other), (volume(1, 9), volume(4, 10 + 11 + 12 + 13)));
        assert_eq!((found.segments(), found.wal()), (volume(2, 3), volume(7, 28)));
        assert_eq!(found.known_timelines().len(), 2);
    }

    fn volume(objects: u64, bytes: u64) -> Volume {
        Volume { objects, bytes }
    }

    #[test]
    fn a_repository_that_went_away_is_not_an_empty_one() {
        let fixture = Fixture::create();
        let size = SegmentSize::try_from(16 << 20).expect("a size");
        assert_eq!(Inventory::take(&fixture.cluster, size).expect("listed").known_timelines().len(), 0);
        std::fs::remove_file(fixture.dir.path().join("pgark.json")).expect("removed");
        assert!(Inventory::take(&fixture.cluster, size).is_err());
    }
}
