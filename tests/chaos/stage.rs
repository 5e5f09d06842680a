//! What all threads share: where the primary is, whether clients may go there, what they were told, and the moments
//! that were written down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pgark::pg::history::TimelineHistory;
use pgark::pg::lsn::Timeline;

use super::journal::{Journal, Point, Upto};
use super::ledger::LANES;
use crate::harness::*;

/// A primary. After a failover it is another one, with a higher number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub number: u64,
    pub conninfo: String,
    pub timeline: u32,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Lsn,
    Time,
    /// A restore point. Nothing was written meanwhile, if there is the content of all tables.
    Name(String, Option<Content>),
}

/// A moment to which one may want to go back.
#[derive(Clone, Debug)]
pub struct Moment {
    pub timeline: u32,
    pub point: Point,
    pub kind: Kind,
}

impl Moment {
    pub fn upto(&self) -> Upto {
        match self.kind {
            Kind::Time => Upto::Time(self.point.time),
            Kind::Lsn | Kind::Name(..) => Upto::Lsn(self.point.lsn),
        }
    }

    pub fn arguments(&self) -> Vec<String> {
        let (flag, value) = match &self.kind {
            Kind::Lsn => ("--target-lsn", show_lsn(self.point.lsn)),
            Kind::Time => ("--target-time", show_time(self.point.time)),
            Kind::Name(name, _) => ("--target-name", name.clone()),
        };
        vec![flag.to_owned(), value]
    }
}

pub fn show_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

pub fn show_time(microseconds: i64) -> String {
    jiff::Timestamp::from_microsecond(microseconds).expect("a time").to_string()
}

/// A timeline, and what was done on the path to it and on it.
pub struct Branch {
    pub history: TimelineHistory,
    pub journal: Journal,
}

#[derive(Default)]
pub struct Chronicle {
    pub branches: BTreeMap<u32, Branch>,
    pub moments: Vec<Moment>,
}

impl Chronicle {
    /// From here on there is a new timeline. One of the same number that never came into the archive is forgotten.
    pub fn branch(&mut self, history: TimelineHistory, journal: Journal) {
        let timeline = history.timeline().0;
        self.moments.retain(|moment| moment.timeline != timeline);
        self.branches.insert(timeline, Branch { history, journal });
    }

    pub fn journal(&mut self, timeline: u32) -> &mut Journal {
        &mut self.branches.get_mut(&timeline).expect("a known timeline").journal
    }
}

pub struct Stage {
    pub dir: Scratch,
    place: Mutex<Option<Place>>,
    places: AtomicU64,
    gate: RwLock<()>,
    chronicle: Mutex<Chronicle>,
    tally: Mutex<BTreeMap<String, u32>>,
    /// Commits wait for the receiver.
    pub guarded: AtomicBool,
    /// How often the repository was taken away.
    pub absences: AtomicU64,
    ended: AtomicBool,
}

impl Stage {
    pub fn new() -> Self {
        let mut chronicle = Chronicle::default();
        chronicle.branch(TimelineHistory::without_parents(Timeline(1)), Journal::new(LANES));
        Self {
            dir: Scratch::new(),
            place: Mutex::new(None),
            places: AtomicU64::new(0),
            gate: RwLock::new(()),
            chronicle: Mutex::new(chronicle),
            tally: Mutex::default(),
            guarded: AtomicBool::new(false),
            absences: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    pub fn place(&self) -> Option<Place> {
        self.place.lock().expect("nobody panicked").clone()
    }

    /// Clients may go there.
    pub fn open(&self, conninfo: String, timeline: u32) {
        let number = self.places.fetch_add(1, Ordering::SeqCst);
        *self.place.lock().expect("nobody panicked") = Some(Place { number, conninfo, timeline });
    }

    /// No client may go anywhere, and none is in a transaction any more.
    pub fn close(&self) {
        self.guarded.store(false, Ordering::SeqCst);
        *self.place.lock().expect("nobody panicked") = None;
        drop(self.hold());
    }

    /// While this is held the director keeps still, if the primary is still this one.
    pub fn enter(&self, place: &Place) -> Option<RwLockReadGuard<'_, ()>> {
        // Whose holder panicked ended all the others: they need not fail as well.
        let inside = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        (self.place().as_ref() == Some(place)).then_some(inside)
    }

    /// Nobody writes meanwhile.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn chronicle(&self) -> MutexGuard<'_, Chronicle> {
        self.chronicle.lock().expect("nobody panicked")
    }

    pub fn count(&self, what: &str) {
        *self.tally.lock().expect("nobody panicked").entry(what.to_owned()).or_default() += 1;
    }

    pub fn counted(&self, what: &str) -> u32 {
        self.tally.lock().expect("nobody panicked").get(what).copied().unwrap_or(0)
    }

    pub fn tally(&self) -> String {
        let tally = self.tally.lock().expect("nobody panicked");
        let lines: Vec<String> = tally.iter().map(|(what, count)| format!("{count} {what}")).collect();
        lines.join(", ")
    }

    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Ends the others when one of the threads ends, be it by a panic.
pub struct EndsAll<'a>(pub &'a Stage);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}
