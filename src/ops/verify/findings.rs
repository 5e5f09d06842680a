//! What the workers of a verification find: counted, and named as far as memory has a bound.
//!
//! Invariants: damage is what the repository really holds in another form than it was written; what could not be
//! looked at is kept apart, and what was deleted meanwhile is neither. Each list has an exact count beside it.
//! What damage costs is kept per object: packs (some dozen bytes for each GiB), backups, and segments up to
//! [`MOST_SEGMENTS`]; frames of a pack up to [`MOST_FRAMES`], beyond which all of the pack counts as damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pg::names::SegmentName;
use crate::repo::layout::PackId;
use crate::repo::pack::FrameLocation;
use crate::repo::streamed::StreamedPart;
use crate::store::Key;

/// Entries that a list names; the others are counted.
pub const NAMED: usize = 1000;
/// Damaged segments that are remembered for what they cost.
pub const MOST_SEGMENTS: usize = 100_000;
/// Damaged frames of one pack that are remembered one by one.
pub const MOST_FRAMES: usize = 1024;

/// The first so many of a list, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bounded<T> {
    pub count: u64,
    pub first: Vec<T>,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Bounded<T> {
    pub fn push(&mut self, item: T) {
        self.push_within(NAMED, item);
    }

    pub fn push_within(&mut self, most: usize, item: T) {
        self.count += 1;
        if self.first.len() < most {
            self.first.push(item);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A damaged object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    pub key: String,
    /// What was found first.
    pub what: String,
    /// In how many places.
    pub places: u64,
}

/// Damaged objects by key, the first [`NAMED`] of them, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamagedObjects {
    pub count: u64,
    named: BTreeMap<String, Damaged>,
}

impl DamagedObjects {
    /// `known`: the object was counted before.
    fn add(&mut self, key: &Key, what: &str, known: bool) {
        if let Some(damaged) = self.named.get_mut(key.as_str()) {
            damaged.places += 1;
            return;
        }
        self.count += u64::from(!known);
        if self.named.len() < NAMED && !known {
            let damaged = Damaged { key: key.to_string(), what: what.to_string(), places: 1 };
            self.named.insert(key.to_string(), damaged);
        }
    }

    /// Those that are named, by key.
    pub fn named(&self) -> impl Iterator<Item = &Damaged> {
        self.named.values()
    }

    pub fn into_bounded(self) -> Bounded<Damaged> {
        Bounded { count: self.count, first: self.named.into_values().collect() }
    }
}

/// An object and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Said {
    pub key: String,
    pub what: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub objects: u64,
    pub bytes: u64,
    pub backups: u64,
    pub packs: u64,
    pub frames: u64,
    pub segments: u64,
    pub histories: u64,
    pub records: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.backups += other.backups;
        self.packs += other.packs;
        self.frames += other.frames;
        self.segments += other.segments;
        self.histories += other.histories;
        self.records += other.records;
    }
}

/// What the damage of an object harms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// No restore.
    Nothing,
    /// Every restore: none is planned as long as this can't be read.
    Everything,
    Segment(SegmentName),
    Part(StreamedPart),
    Frame(FrameLocation),
    /// All frames of a pack.
    Pack(PackId),
    /// The list of a pack. Restores read by the maps, which have all that it says.
    PackList(PackId),
    /// A backup, without its files being known.
    Backup(Name),
    /// What a backup says of one frame.
    Reference(Name, FrameLocation),
}

/// Damaged frames of one pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamagedFrames {
    /// Offsets in the pack.
    pub offsets: BTreeSet<u64>,
    /// None of its frames can be relied on.
    pub whole: bool,
    /// Its list is damaged; what that says of the frames is not.
    pub list: bool,
}

impl DamagedFrames {
    fn add(&mut self, offset: u64) {
        self.offsets.insert(offset);
        self.whole |= self.offsets.len() > MOST_FRAMES;
    }

    pub fn hits(&self, offset: u64) -> bool {
        self.whole || self.offsets.contains(&offset)
    }

    /// Whether a restore misses anything.
    pub fn costs(&self) -> bool {
        self.whole || !self.offsets.is_empty()
    }
}

/// What is wrong with one backup itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupDamage {
    /// Why it can't be restored.
    pub reasons: Bounded<String>,
    /// Frames of which its map says something that is not so.
    pub references: BTreeSet<(PackId, u64)>,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Found {
    pub counts: Counts,
    pub damage: DamagedObjects,
    /// What could not be looked at, or is of a newer version.
    pub unread: Bounded<Said>,
    /// WAL that was damaged when the server handed it over, and is stored as it was.
    pub by_server: Bounded<Said>,
    /// What is no object of a repository.
    pub foreign: Bounded<String>,
    /// Objects that were deleted between listing and reading.
    pub vanished: u64,
    pub segments: BTreeSet<SegmentName>,
    /// More segments are damaged than `segments` holds.
    pub more_segments: bool,
    pub parts: BTreeSet<StreamedPart>,
    pub packs: BTreeMap<PackId, DamagedFrames>,
    pub backups: BTreeMap<Name, BackupDamage>,
    /// Why no restore would be planned.
    pub blocks: Bounded<String>,
}

/// Shared by the workers.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Found>);

impl Findings {
    fn lock(&self) -> MutexGuard<'_, Found> {
        // A worker that panicked has ended the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn into_found(self) -> Found {
        let mut found = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.unread.first.sort();
        found.by_server.first.sort();
        found
    }

    pub fn count(&self, counts: Counts) {
        self.lock().counts.add(&counts);
    }

    pub fn foreign(&self, key: &Key) {
        self.lock().foreign.push(key.to_string());
    }

    pub fn saw_vanishing(&self) -> bool {
        self.lock().vanished > 0
    }

    pub fn vanished(&self) {
        self.lock().vanished += 1;
    }

    pub fn damaged_by_server(&self, key: &Key, what: String) {
        self.lock().by_server.push(Said { key: key.to_string(), what });
    }

    /// Takes what an object's check answered. An error only for what must end the verification.
    pub fn settle(&self, key: &Key, harm: &Harm, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {}
            Err(error) => match error.kind() {
                Kind::Corrupt => self.damaged(key, harm, &error),
                Kind::NotFound => self.vanished(),
                Kind::Transient | Kind::Configuration => self.unread(key, &error),
                Kind::Conflict | Kind::Postgres | Kind::Bug => return Err(error),
            },
        }
        Ok(())
    }

    pub fn unread(&self, key: &Key, error: &Error) {
        self.lock().unread.push(Said { key: key.to_string(), what: error.message().to_string() });
    }

    pub fn damaged(&self, key: &Key, harm: &Harm, error: &Error) {
        let mut found = self.lock();
        // A label with a damaged header has no map that is looked at, so a backup counts once.
        let known = found.knows(harm);
        found.damage.add(key, error.message(), known);
        found.harm(harm, error.message());
    }

    /// Whether what a pack says that it holds is not to be trusted.
    pub fn distrusts_list(&self, pack: PackId) -> bool {
        self.lock().packs.get(&pack).is_some_and(|damaged| damaged.list)
    }

    /// Whether a pack is known to be lost already, or this frame of it.
    pub fn knows_frame(&self, pack: PackId, offset: Option<u64>) -> bool {
        let found = self.lock();
        let damaged = found.packs.get(&pack);
        damaged.is_some_and(|damaged| damaged.whole || offset.is_some_and(|offset| damaged.hits(offset)))
    }
}

impl Found {
    /// Whether the object is among the damaged ones that are not named any more. Of most objects there is one
    /// finding; of packs and maps there can be many.
    fn knows(&self, harm: &Harm) -> bool {
        match harm {
            Harm::Frame(frame) => self.packs.contains_key(&frame.pack),
            Harm::Pack(pack) | Harm::PackList(pack) => self.packs.contains_key(pack),
            Harm::Backup(label) | Harm::Reference(label, _) => self.backups.contains_key(label),
            Harm::Nothing | Harm::Everything | Harm::Segment(_) | Harm::Part(_) => false,
        }
    }

    fn harm(&mut self, harm: &Harm, reason: &str) {
        match harm {
            Harm::Nothing => {}
            Harm::Everything => self.blocks.push(reason.to_string()),
            Harm::Segment(name) => {
                self.more_segments |= self.segments.len() >= MOST_SEGMENTS;
                if !self.more_segments {
                    self.segments.insert(*name);
                }
            }
            Harm::Part(part) => drop(self.parts.insert(*part)),
            Harm::Frame(frame) => self.packs.entry(frame.pack).or_default().add(frame.offset),
            Harm::Pack(pack) => self.packs.entry(*pack).or_default().whole = true,
            Harm::PackList(pack) => self.packs.entry(*pack).or_default().list = true,
            Harm::Backup(label) => {
                self.backups.entry(label.clone()).or_default().reasons.push_within(5, reason.to_string());
            }
            Harm::Reference(label, frame) => self.refer(label, frame, reason),
        }
    }

    fn refer(&mut self, label: &Name, frame: &FrameLocation, reason: &str) {
        let backup = self.backups.entry(label.clone()).or_default();
        if backup.references.len() < MOST_FRAMES {
            backup.references.insert((frame.pack, frame.offset));
        } else {
            backup.reasons.push_within(5, reason.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Id;
    use crate::pg::lsn::Timeline;
    use crate::pipe::digest::Sha256Digest;

    fn key() -> Key {
        Key::new("main/7/x").expect("a key")
    }

    fn frame(pack: PackId, offset: u64) -> FrameLocation {
        FrameLocation { pack, offset, stored: 1, raw: 1, sha256: Sha256Digest([0; 32]) }
    }

    #[test]
    fn only_what_is_corrupt_is_damage() {
        let findings = Findings::default();
        for error in
            [Error::corrupt("a"), Error::not_found("b"), Error::transient("c"), Error::configuration("d")]
        {
            findings.settle(&key(), &Harm::Nothing, Err(error)).expect("settled");
        }
        findings.settle(&key(), &Harm::Everything, Ok(())).expect("settled");
        assert!(findings.settle(&key(), &Harm::Nothing, Err(Error::bug("e"))).is_err());
        let found = findings.into_found();
        assert_eq!((found.damage.count, found.unread.count, found.vanished), (1, 2, 1));
        assert!(found.blocks.is_empty());
    }

    #[test]
    fn lists_are_bounded_and_their_counts_are_not() {
        let findings = Findings::default();
        let pack = PackId { backup: Id::random().expect("an id"), number: 0 };
        let many = MOST_FRAMES as u64 + 2;
        for offset in 0..many {
            findings.damaged(&key(), &Harm::Frame(frame(pack, offset)), &Error::corrupt("x"));
        }
        let found = findings.into_found();
        let damage = found.damage.clone().into_bounded();
        assert_eq!(
            (damage.count, damage.first.len(), damage.first[0].places),
            (1, 1, many),
            "it is one pack"
        );
        assert!(found.packs[&pack].whole, "more frames than are remembered count as all of them");
        assert!(found.packs[&pack].hits(many + 1));
    }

    #[test]
    fn objects_beyond_those_that_are_named_are_counted() {
        let findings = Findings::default();
        for number in 0..NAMED as u64 + 5 {
            let key = Key::new(&format!("main/7/{number:05}")).expect("a key");
            findings.damaged(&key, &Harm::Nothing, &Error::corrupt("x"));
        }
        let damage = findings.into_found().damage.into_bounded();
        assert_eq!((damage.count, damage.first.len()), (NAMED as u64 + 5, NAMED));
    }

    #[test]
    fn damaged_segments_beyond_the_bound_are_said_to_be_more() {
        let mut found = Found::default();
        for number in 0..=MOST_SEGMENTS as u32 {
            assert!(!found.more_segments);
            let name = SegmentName { timeline: Timeline(1), log: number, segment: 0 };
            found.harm(&Harm::Segment(name), "x");
        }
        assert!(found.more_segments);
        assert_eq!(found.segments.len(), MOST_SEGMENTS);
    }
}
