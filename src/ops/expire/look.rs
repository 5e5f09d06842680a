//! Looking: everything that a plan is made from, read from the repository in an order that overlooks nothing.
//!
//! Leases first, then headers, pins and WAL: whoever began before is seen, and who begins later waits for us or is seen
//! when we look again (`act.rs`). Refuses to leave out what can't be read. Holds of WAL only runs of numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use jiff::Timestamp;

use super::clock::Evidence;
use super::facts::{Backup, Facts, Pinned, Restoring, Wal};
use crate::error::{Error, Kind, Result};
use crate::ops::restore::choose::Candidate;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::backup::BackupHeader;
use crate::repo::catalog::Catalog;
use crate::repo::layout::PackId;
use crate::repo::lease::{self, LeaseKind};
use crate::repo::verified::DamagedPack;
use crate::repo::{Cluster, ClusterHeader, backup, layout, pin, segment, verified};
use crate::store::{Key, Meta};

/// So many of the newest segments of a timeline are asked when a transaction last ended.
const ASKED_FOR_TIME: usize = 16;

/// Everything of one incarnation. What tells the time goes to `evidence`.
pub fn look(cluster: &Cluster, header: &ClusterHeader, evidence: &mut Evidence) -> Result<Facts> {
    let size = header.segment_size;
    let mut facts = Facts {
        size,
        histories: BTreeMap::new(),
        unknown: BTreeSet::new(),
        backups: Vec::new(),
        wal: BTreeMap::new(),
        activity: BTreeMap::new(),
        pins: Vec::new(),
        restores: restores(cluster)?,
    };
    let stored = Stored::look(cluster)?;
    for header in backup::iter(cluster)? {
        let header = header.map_err(unreadable)?;
        let damage = stored.damage(cluster, &header)?;
        facts.backups.push(of_header(&header, size, damage)?);
    }
    newest_stops(&facts, evidence);
    facts.pins = pins(cluster)?;
    Looking { cluster, size, facts: &mut facts, evidence }.wal()?;
    // A repository that has gone looks like one without WAL.
    cluster.repository().confirm()?;
    Ok(facts)
}

/// Packs as they are stored: a backup that lacks one is no reason to delete another.
struct Stored {
    sizes: HashMap<PackId, u64>,
    /// As verifications found.
    damaged: BTreeMap<PackId, DamagedPack>,
}

impl Stored {
    fn look(cluster: &Cluster) -> Result<Self> {
        let damaged =
            verified::damaged_packs(cluster).map_err(|error| error.context("nothing was expired"))?;
        let mut sizes = HashMap::new();
        for object in cluster.store().walk(&cluster.layout().packs()?) {
            let object = object?;
            sizes.extend(layout::parse_pack(&object.key).map(|pack| (pack, object.size)));
        }
        Ok(Self { sizes, damaged })
    }

    /// Why a backup can't be restored, though its WAL may be there.
    fn damage(&self, cluster: &Cluster, header: &BackupHeader) -> Result<Option<String>> {
        for pack in &header.packs {
            if self.damaged.contains_key(&pack.id) {
                return Ok(Some(format!("pack {} is damaged, as `pgark verify` found", pack.id)));
            }
            // Not listed: of a backup that ended meanwhile, perhaps.
            let listed = self.sizes.get(&pack.id) == Some(&pack.size);
            if !listed && !has(cluster, &cluster.layout().pack(pack.id)?, pack.size)? {
                return Ok(Some(format!("pack {} is missing, or not whole", pack.id)));
            }
        }
        let map = has(cluster, &cluster.layout().backup_map(&header.label)?, header.map.size)?;
        Ok((!map).then(|| "its map is missing, or not whole".to_string()))
    }
}

fn has(cluster: &Cluster, key: &Key, size: u64) -> Result<bool> {
    match cluster.store().head(key) {
        Ok(object) => Ok(object.size == size),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn unreadable(error: Error) -> Error {
    let kind = error.kind();
    let error = error.context("nothing was expired");
    match kind {
        Kind::Corrupt => error.with_hint(
            "a header that can't be read hides what its backup needs: move the directory of that backup out of the \
             repository, if you know that you can do without it, and run this again",
        ),
        _ => error,
    }
}

fn of_header(header: &BackupHeader, size: SegmentSize, damage: Option<String>) -> Result<Backup> {
    if header.segment_size != size {
        return Err(Error::corrupt(format!(
            "nothing was expired: backup {} says that segments have {} bytes, the cluster's have {}",
            header.label,
            header.segment_size.bytes(),
            size.bytes()
        )));
    }
    let (run, stop) = (header.run, header.stop.time);
    Ok(Backup { run, at: Candidate::of(header)?, stop, damage })
}

/// The backup of each timeline that ended last, in the order of the WAL, tells the server's time.
fn newest_stops(facts: &Facts, evidence: &mut Evidence) {
    let mut newest: BTreeMap<Timeline, &Backup> = BTreeMap::new();
    for backup in &facts.backups {
        evidence.heard(backup.stop);
        let known = newest.entry(backup.at.consistent_timeline).or_insert(backup);
        if backup.at.consistent > known.at.consistent {
            *known = backup;
        }
    }
    newest.values().for_each(|backup| evidence.ended(backup.stop));
}

fn heard(facts: &mut Facts, timeline: Timeline, at: Timestamp) {
    let known = facts.activity.entry(timeline).or_insert(at);
    *known = at.max(*known);
}

pub fn restores(cluster: &Cluster) -> Result<Vec<Restoring>> {
    let mut restores = Vec::new();
    for held in lease::list(cluster)? {
        let record = held.record.ok_or_else(unreadable_lease)?;
        if record.kind != LeaseKind::Restore {
            continue;
        }
        match (record.label.clone(), record.wal) {
            (Some(label), Some(wal)) => restores.push(Restoring { label, wal, who: record.who() }),
            _ => return Err(unreadable_lease()),
        }
    }
    Ok(restores)
}

pub fn unreadable_lease() -> Error {
    Error::conflict("nothing was expired: there is a lease that can't be read").with_hint(
        "a newer pgark may be at work; the lease lapses in half an hour unless renewed, and the next backup removes it",
    )
}

pub fn pins(cluster: &Cluster) -> Result<Vec<Pinned>> {
    let pins = pin::list(cluster).map_err(|error| error.context("nothing was expired"))?;
    Ok(pins.into_iter().map(|pin| Pinned { label: pin.record.label, until: pin.record.until }).collect())
}

struct Looking<'a> {
    cluster: &'a Cluster,
    size: SegmentSize,
    facts: &'a mut Facts,
    evidence: &'a mut Evidence,
}

impl Looking<'_> {
    fn wal(&mut self) -> Result<()> {
        let catalog = Catalog::new(self.cluster, self.size);
        for object in self.cluster.store().level(&self.cluster.layout().wal()?)?.objects {
            if let Some(timeline) = layout::parse_history(&object.key) {
                self.at(timeline, object.modified)?;
            }
        }
        for timeline in catalog.timelines()? {
            let newest = self.timeline(&catalog, timeline)?;
            match catalog.history(timeline) {
                Ok(Some(history)) => drop(self.facts.histories.insert(timeline, history)),
                // An empty directory is no timeline.
                Ok(None) if newest.is_none() => {}
                Ok(None) => drop(self.facts.unknown.insert(timeline)),
                Err(error) if error.kind() == Kind::Corrupt => {
                    tracing::warn!("{error}");
                    self.facts.unknown.insert(timeline);
                }
                Err(error) => return Err(error),
            }
            if let Some(newest) = newest {
                self.evidence.stored(time(newest.modified)?);
            }
            self.newest_transaction(timeline)?;
        }
        Ok(())
    }

    fn at(&mut self, timeline: Timeline, modified: SystemTime) -> Result<()> {
        let at = time(modified)?;
        self.evidence.heard(at);
        heard(self.facts, timeline, at);
        Ok(())
    }

    /// Lists a timeline. Answers with the newest object of it, in the order of the WAL.
    fn timeline(&mut self, catalog: &Catalog<'_>, timeline: Timeline) -> Result<Option<Meta>> {
        let (mut wal, mut newest) = (Wal::default(), None);
        for log in catalog.logs(timeline)? {
            for object in objects(self.cluster, timeline, log)? {
                let number = object.name.number(self.size)?;
                wal.any.insert(number);
                if object.whole {
                    wal.whole.insert(number);
                }
                self.at(timeline, object.meta.modified)?;
                newest = Some(object.meta);
            }
        }
        if newest.is_some() {
            self.facts.wal.insert(timeline, wal);
        }
        Ok(newest)
    }

    fn newest_transaction(&mut self, timeline: Timeline) -> Result<()> {
        let Some(wal) = self.facts.wal.get(&timeline) else { return Ok(()) };
        let numbers: Vec<u64> = wal.whole.newest(ASKED_FOR_TIME).collect();
        for number in numbers {
            let name = SegmentName::from_number(timeline, number, self.size);
            let latest = match segment::read_header(self.cluster, name) {
                Ok(header) => header.facts.latest_time,
                // It only tells the time.
                Err(error) if error.kind() == Kind::Corrupt => continue,
                Err(error) => return Err(error),
            };
            if let Some(at) = latest.and_then(|at| Timestamp::from_microsecond(at.as_unix()).ok()) {
                self.evidence.ended(at);
                heard(self.facts, timeline, at);
                break;
            }
        }
        Ok(())
    }
}

/// An object of a timeline's WAL.
pub struct Object {
    pub name: SegmentName,
    /// All of the segment.
    pub whole: bool,
    pub meta: Meta,
}

/// The objects within one log number of a timeline, in the order of the WAL.
pub fn objects(cluster: &Cluster, timeline: Timeline, log: u32) -> Result<Vec<Object>> {
    let level = cluster.store().level(&cluster.layout().log(timeline, log)?)?;
    let object = |meta: Meta| {
        let name =
            layout::parse_wal(&meta.key).filter(|name| (name.timeline, name.log) == (timeline, log))?;
        Some(Object { name, whole: layout::parse_segment(&meta.key).is_some(), meta })
    };
    let mut objects: Vec<Object> = level.objects.into_iter().filter_map(object).collect();
    objects.sort_by_key(|object| object.name);
    Ok(objects)
}

fn time(modified: SystemTime) -> Result<Timestamp> {
    Timestamp::try_from(modified)
        .map_err(|cause| Error::corrupt(format!("could not tell when an object was stored: {cause}")))
}
