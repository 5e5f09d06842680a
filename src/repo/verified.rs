//! What verifications leave behind: how each ended, how far a verification in portions has come, and which
//! frames were found damaged. All of it records (`records.rs`); `docs/repository-format.md` has their members.
//!
//! Nothing is decided by them alone: a record may be older than what was repaired or broken since. Invariants: two
//! verifications at once delete only what they saw and what says less than their own; what is lost with a killed one
//! is its news, never that of others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::layout::{Id, Name, PackId};
use super::records::{self, Found, Record};
use crate::error::Result;

/// How many ends of verifications are kept.
const KEPT: usize = 20;

/// Damaged objects and backups that a record names, each.
pub const NAMED: usize = 100;

/// How a verification ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub scope: Scope,
    /// Of the backup that was verified alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Name>,
    /// Whether frames were decompressed too.
    pub deep: bool,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub host: String,
    /// What was read.
    pub objects: u64,
    pub bytes: u64,
    /// Damaged objects, and the first of them by key.
    pub damaged: u64,
    pub damaged_first: Vec<String>,
    /// Objects that could not be read.
    pub unread: u64,
    /// Places where WAL is missing between a backup and the newest.
    pub holes: u64,
    /// Backups that do not restore, and the first of them.
    pub lost_backups: u64,
    pub lost_backups_first: Vec<Name>,
    /// Nothing wrong, and everything of the scope was read.
    pub sound: bool,
}

impl Record for Verification {
    const KIND: &'static str = "verified";
    const FORMAT: &'static str = "pgark verified";
    const VERSION: u32 = 1;
}

/// How much was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Everything,
    Backup,
    /// A portion of everything; the next one goes on behind it.
    Sample,
}

/// The order in which a verification in portions goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Backups,
    Wal,
    Packs,
}

/// How far: everything before it in that order, and itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub stage: Stage,
    /// The object, or the backup's directory.
    pub key: String,
    /// Of a map the chunk, of a pack the frame, counted from 1.
    pub part: u64,
}

/// Where a verification in portions stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// When its first portion began.
    pub round_started: Timestamp,
    /// None: at the start, because the last round is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Place>,
    /// When this portion ended, and where it ran.
    pub at: Timestamp,
    pub host: String,
}

impl Record for Position {
    const KIND: &'static str = "sampled";
    const FORMAT: &'static str = "pgark sampled";
    const VERSION: u32 = 1;
}

/// Frames of a pack that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPack {
    pub pack: PackId,
    /// Where in the pack, in bytes; empty where all of it is meant.
    pub frames: BTreeSet<u64>,
    /// The pack is missing, or more of its frames are damaged than are worth naming.
    pub whole: bool,
    pub found: Timestamp,
    pub host: String,
}

impl Record for DamagedPack {
    const KIND: &'static str = "damaged";
    const FORMAT: &'static str = "pgark damaged";
    const VERSION: u32 = 1;
}

impl DamagedPack {
    fn says_all_of(&self, other: &Self) -> bool {
        self.pack == other.pack && (self.whole || !other.whole && self.frames.is_superset(&other.frames))
    }
}

/// Records how a verification ended, and forgets the oldest.
pub fn finished(cluster: &Cluster, verification: &Verification) -> Result<()> {
    records::put(cluster, verification)?;
    let all = verifications(cluster)?;
    for old in all.iter().take(all.len().saturating_sub(KEPT)) {
        records::delete::<Verification>(cluster, old.id)?;
    }
    Ok(())
}

/// How verifications ended, oldest first.
pub fn verifications(cluster: &Cluster) -> Result<Vec<Found<Verification>>> {
    records::news(cluster)
}

/// Where the next portion goes on: the newest position, and all that it makes superfluous.
pub fn position(cluster: &Cluster) -> Result<(Option<Position>, Vec<Id>)> {
    let mut all = records::news::<Position>(cluster)?;
    let ids = all.iter().map(|found| found.id).collect();
    Ok((all.pop().map(|found| found.record), ids))
}

/// Remembers how far a portion came, then forgets the positions that it went out from.
pub fn reached(cluster: &Cluster, position: &Position, superfluous: &[Id]) -> Result<()> {
    records::put(cluster, position)?;
    for id in superfluous {
        records::delete::<Position>(cluster, *id)?;
    }
    Ok(())
}

/// What is known to be damaged in packs.
pub fn damaged_packs(cluster: &Cluster) -> Result<BTreeMap<PackId, DamagedPack>> {
    let mut packs: BTreeMap<PackId, DamagedPack> = BTreeMap::new();
    for found in records::list::<DamagedPack>(cluster)? {
        let record = found.record;
        match packs.get_mut(&record.pack) {
            Some(known) => {
                known.whole |= record.whole;
                known.frames.extend(record.frames);
            }
            None => drop(packs.insert(record.pack, record)),
        }
    }
    Ok(packs)
}

/// Records damage that is not recorded yet. Then forgets records that say less than these, those of packs that are
/// `sound` now, and those of packs that are gone.
pub fn note_damage(cluster: &Cluster, damage: &[DamagedPack], sound: impl Fn(PackId) -> bool) -> Result<()> {
    let recorded = records::news::<DamagedPack>(cluster)?;
    for found in damage {
        if !recorded.iter().any(|old| old.record.says_all_of(found)) {
            records::put(cluster, found)?;
        }
    }
    for old in recorded {
        let pack = old.record.pack;
        let repeated = |found: &DamagedPack| found.says_all_of(&old.record) && !old.record.says_all_of(found);
        if damage.iter().any(repeated) || sound(pack) || is_over(cluster, pack)? {
            records::delete::<DamagedPack>(cluster, old.id)?;
        }
    }
    Ok(())
}

/// A pack that is gone and that no backup refers to any more.
fn is_over(cluster: &Cluster, pack: PackId) -> Result<bool> {
    if cluster.store().exists(&cluster.layout().pack(pack)?)? {
        return Ok(false);
    }
    cluster.repository().confirm()?;
    for header in super::backup::iter(cluster)? {
        match header {
            Ok(header) if header.packs.iter().any(|listed| listed.id == pack) => return Ok(false),
            Ok(_) => {}
            // Perhaps that one does.
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::{Fixture, name};
    use crate::repo::pack::PackSummary;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn verification(objects: u64) -> Verification {
        Verification {
            scope: Scope::Everything,
            backup: None,
            deep: false,
            started: time(0),
            ended: time(1),
            host: "db1".into(),
            objects,
            bytes: 1,
            damaged: 0,
            damaged_first: Vec::new(),
            unread: 0,
            holes: 0,
            lost_backups: 0,
            lost_backups_first: vec![name("a")],
            sound: true,
        }
    }

    fn damaged(pack: PackId, frames: &[u64], whole: bool) -> DamagedPack {
        let frames = frames.iter().copied().collect();
        DamagedPack { pack, frames, whole, found: time(5), host: "db1".into() }
    }

    fn a_pack() -> PackId {
        PackId { backup: Id::random().expect("an id"), number: 0 }
    }

    #[test]
    fn the_newest_ends_of_verifications_are_kept() {
        let fixture = Fixture::create();
        for number in 0..KEPT as u64 + 3 {
            finished(&fixture.cluster, &verification(number)).expect("recorded");
        }
        let kept = verifications(&fixture.cluster).expect("listed");
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.last().map(|found| found.record.objects), Some(KEPT as u64 + 2));
    }

    #[test]
    fn a_position_takes_the_place_of_those_it_went_out_from() {
        let fixture = Fixture::create();
        let at = |part| Position {
            round_started: time(0),
            reached: Some(Place { stage: Stage::Wal, key: "main/7/wal/x".into(), part }),
            at: time(1),
            host: "db1".into(),
        };
        assert_eq!(position(&fixture.cluster), Ok((None, Vec::new())));
        reached(&fixture.cluster, &at(1), &[]).expect("recorded");
        let (_, seen) = position(&fixture.cluster).expect("read");
        // Another one ends meanwhile: it is not forgotten by us.
        reached(&fixture.cluster, &at(2), &[]).expect("recorded");
        reached(&fixture.cluster, &at(3), &seen).expect("recorded");
        let (newest, all) = position(&fixture.cluster).expect("read");
        assert_eq!((newest, all.len()), (Some(at(3)), 2));
    }

    #[test]
    fn a_record_that_can_not_be_read_starts_the_round_anew() {
        let fixture = Fixture::create();
        let start = Position { round_started: time(0), reached: None, at: time(1), host: "db1".into() };
        reached(&fixture.cluster, &start, &[]).expect("recorded");
        let (_, ids) = position(&fixture.cluster).expect("read");
        let key = fixture.cluster.layout().record(Position::KIND, ids[0]).expect("a key");
        fixture.damage(&key, |bytes| bytes.truncate(10));
        assert_eq!(position(&fixture.cluster), Ok((None, Vec::new())));
    }

    #[test]
    fn places_have_the_order_of_the_round() {
        let place = |stage, key: &str, part| Place { stage, key: key.into(), part };
        let order = [
            place(Stage::Backups, "b", 1),
            place(Stage::Backups, "b", 2),
            place(Stage::Backups, "c", 1),
            place(Stage::Wal, "a", 1),
            place(Stage::Packs, "a", 1),
        ];
        assert!(order.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn damage_is_recorded_once_and_forgotten_when_it_is_over() {
        let fixture = Fixture::create();
        let (run, cluster) = (Id::random().expect("an id"), &fixture.cluster);
        let kept = PackId { backup: run, number: 0 };
        cluster.store().create(&cluster.layout().pack(kept).expect("a key"), &b"x"[..]).expect("created");
        fixture.backup("a", run, &[PackSummary { id: kept, size: 1, frames: 1 }]);
        let count = || fixture.objects().iter().filter(|key| key.starts_with("damaged/")).count();
        let note = |damage: &[DamagedPack], sound: &[PackId]| {
            note_damage(cluster, damage, |pack| sound.contains(&pack)).expect("recorded");
        };
        note(&[damaged(kept, &[0, 100], false)], &[]);
        note(&[damaged(kept, &[0], false)], &[]);
        assert_eq!(count(), 1, "the same again");
        note(&[damaged(kept, &[0, 100, 200], false)], &[]);
        assert_eq!(count(), 1, "more than before");
        assert_eq!(damaged_packs(cluster).expect("read")[&kept].frames.len(), 3);
        note(&[], &[]);
        assert_eq!(count(), 1, "not looked at, it stays");
        note(&[], &[kept]);
        assert_eq!(count(), 0, "sound again");
        note(&[damaged(kept, &[], true), damaged(a_pack(), &[], true)], &[]);
        assert_eq!(count(), 2);
        note(&[], &[]);
        assert_eq!(count(), 1, "the pack that no backup refers to is over");
        cluster.store().delete(&cluster.layout().pack(kept).expect("a key")).expect("deleted");
        note(&[], &[]);
        assert_eq!(count(), 1, "a backup misses it");
        crate::repo::backup::remove(cluster, &name("a")).expect("removed");
        note(&[], &[]);
        assert_eq!(count(), 0);
    }
}
