//! Acquiring a lease, keeping it, and giving it back. The protocol is in the parent module.
//!
//! Invariant: while a `Lease` exists and is not lost, at least one of its objects is in the repository. It is
//! lost for good as soon as the newest one is found gone: somebody took it for stale.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::{Held, LeaseKind, Process, Purpose, Record, TTL, VERSION, list};
use crate::error::{Error, Kind, Result};
use crate::repo::layout::Id;
use crate::repo::{Cluster, to_json};
use crate::store::Created;

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(TTL.as_secs() / 6);

/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(30);

/// How often to try again when two may have withdrawn because of each other.
const ATTEMPTS: u32 = 4;

/// Two first objects that were created within this time of each other may be such a pair.
const RACE: Duration = Duration::from_secs(5);

/// A lease that this process holds, renewed in the background until it is dropped or released.
pub struct Lease {
    shared: Arc<Shared>,
    /// Dropped to stop the renewer.
    stop: Option<Sender<()>>,
    renewer: Option<JoinHandle<()>>,
}

struct Shared {
    cluster: Cluster,
    record: Record,
    /// When the first object was created, by the store's clock.
    since: SystemTime,
    acquired: Uptime,
    state: Mutex<State>,
}

struct State {
    /// Ours, oldest first: the current one and the one before.
    objects: Vec<Id>,
    /// When the newest was created.
    renewed: Uptime,
    lost: bool,
}

/// Time since boot, with the time that the machine slept.
#[derive(Clone, Copy)]
struct Uptime(Duration);

impl Uptime {
    fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }

    fn age(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl Lease {
    /// Takes the lease for the run `run`. `Kind::Conflict` says who holds it.
    pub fn acquire(cluster: &Cluster, purpose: Purpose, run: Id) -> Result<Self> {
        Self::acquire_after(cluster, purpose, run, |_| Ok(false))
    }

    /// The same, but asks `wait`, each time that somebody else is in the way, whether to try once more.
    pub fn acquire_after(
        cluster: &Cluster,
        purpose: Purpose,
        run: Id,
        mut wait: impl FnMut(&Held) -> Result<bool>,
    ) -> Result<Self> {
        let record = Record {
            version: VERSION,
            kind: purpose.kind,
            run,
            label: purpose.label,
            wal: purpose.wal,
            process: Process::current()?,
            started: Timestamp::now(),
            renews: None,
        };
        let mut attempt = 1;
        loop {
            match Shared::try_acquire(cluster, &record)? {
                Outcome::Acquired(shared) => return shared.keep(),
                Outcome::Taken { by, perhaps_a_race } if perhaps_a_race && attempt < ATTEMPTS => {
                    tracing::debug!("withdrew from {:?}, attempt {attempt}", by.record);
                    std::thread::sleep(random_pause(attempt)?);
                    attempt += 1;
                }
                Outcome::Taken { by, .. } if wait(&by)? => attempt = 1,
                Outcome::Taken { by, .. } => return Err(by.conflict(&record.process)),
            }
        }
    }

    /// The run that the lease protects.
    pub fn run(&self) -> Id {
        self.shared.record.run
    }

    /// When the lease was acquired, by the store's clock.
    pub fn since(&self) -> SystemTime {
        self.shared.since
    }

    /// An error unless the lease is still held, and was renewed recently enough that nobody can have taken it
    /// for stale since. Also renews it if that is due.
    pub fn still_held(&self) -> Result<()> {
        self.shared.still_held()
    }

    /// Another run of that kind that is at work now.
    pub fn beside(&self, kind: LeaseKind) -> Result<Option<Held>> {
        let now = self.shared.since + self.shared.acquired.age();
        let record = &self.shared.record;
        let others = list(&self.shared.cluster)?.into_iter().filter(|held| !held.is_of(record.run));
        let is_it = |held: &Held| held.record.as_ref().is_some_and(|other| other.kind == kind);
        Ok(others.filter(is_it).find(|held| held.is_live(&record.process, now)))
    }

    /// As the background thread does when it is time.
    #[cfg(test)]
    pub(super) fn renew_now(&self) -> Result<()> {
        self.shared.renew(&mut self.shared.lock())
    }

    /// Gives the lease back.
    pub fn release(mut self) -> Result<()> {
        self.stop_renewing();
        self.shared.delete_objects()
    }

    fn stop_renewing(&mut self) {
        self.stop = None;
        if let Some(renewer) = self.renewer.take()
            && renewer.join().is_err()
        {
            tracing::warn!("the thread that renewed the lease had panicked");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewing();
        if let Err(error) = self.shared.delete_objects() {
            tracing::warn!("could not release the lease of the {}: {error}", self.shared.record.what());
        }
    }
}

enum Outcome {
    Acquired(Arc<Shared>),
    Taken {
        by: Box<Held>,
        /// Both may have seen each other and withdrawn.
        perhaps_a_race: bool,
    },
}

impl Shared {
    /// Creates an object, lists, and withdraws when somebody else is there.
    fn try_acquire(cluster: &Cluster, record: &Record) -> Result<Outcome> {
        let renewed = Uptime::now();
        let first = create(cluster, record)?;
        let decided = Self::decide(cluster, record, first, renewed);
        if !matches!(decided, Ok(Outcome::Acquired(_)))
            && let Err(error) = delete(cluster, first)
        {
            tracing::warn!("could not withdraw the lease {first}: {error}");
        }
        decided
    }

    fn decide(cluster: &Cluster, record: &Record, first: Id, renewed: Uptime) -> Result<Outcome> {
        let now = cluster.store().head(&cluster.layout().lease(first)?)?.modified;
        let others = list(cluster)?.into_iter().filter(|held| !held.is_of(record.run));
        let (live, stale): (Vec<Held>, Vec<Held>) =
            others.partition(|held| held.is_live(&record.process, now));
        if let Some(by) = live.into_iter().find(|held| held.excludes(record.kind)) {
            let perhaps_a_race = by.is_first_object() && by.renewed() + RACE >= now;
            return Ok(Outcome::Taken { by: Box::new(by), perhaps_a_race });
        }
        stale.iter().try_for_each(|held| remove_stale(cluster, held))?;
        let state = State { objects: vec![first], renewed, lost: false };
        Ok(Outcome::Acquired(Arc::new(Self {
            cluster: cluster.clone(),
            record: record.clone(),
            since: now,
            acquired: renewed,
            state: Mutex::new(state),
        })))
    }

    /// Starts to renew in the background.
    fn keep(self: Arc<Self>) -> Result<Lease> {
        let (stop, stopped) = bounded::<()>(0);
        let mut lease = Lease { shared: self.clone(), stop: Some(stop), renewer: None };
        let renew_until_stopped = move || {
            let mut pause = RENEWAL;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = match self.renew(&mut self.lock()) {
                    Ok(()) => RENEWAL,
                    Err(error) => {
                        tracing::warn!("could not renew the lease of the {}: {error}", self.record.what());
                        RETRY
                    }
                };
            }
        };
        let renewer = std::thread::Builder::new()
            .name("lease".into())
            .spawn(renew_until_stopped)
            .map_err(|cause| Error::io("start the thread that renews the lease", &cause))?;
        lease.renewer = Some(renewer);
        Ok(lease)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a further object. The one before stays until the next renewal (see the parent module).
    fn renew(&self, state: &mut State) -> Result<()> {
        self.check_newest(state)?;
        let before = state.objects.last().copied();
        let renewed = Uptime::now();
        let object = create(&self.cluster, &Record { renews: before, ..self.record.clone() })?;
        // Whoever took us for stale deleted what it saw; it did not see the new one.
        if let Err(error) = self.check_newest(state) {
            delete(&self.cluster, object)?;
            return Err(error);
        }
        state.objects.push(object);
        state.renewed = renewed;
        while state.objects.len() > 2 {
            delete(&self.cluster, state.objects[0])?;
            state.objects.remove(0);
        }
        Ok(())
    }

    fn still_held(&self) -> Result<()> {
        let mut state = self.lock();
        if state.renewed.age() > TTL / 2 {
            self.renew(&mut state)?;
        }
        self.check_newest(&mut state)
    }

    /// An error when the newest object is gone.
    fn check_newest(&self, state: &mut State) -> Result<()> {
        if !state.lost {
            let newest = *state.objects.last().ok_or_else(|| Error::bug("a lease without objects"))?;
            match self.cluster.store().head(&self.cluster.layout().lease(newest)?) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == Kind::NotFound => {
                    // Not there, or the whole repository is not.
                    self.cluster.repository().confirm()?;
                    state.lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::conflict(format!(
            "lost the lease of the {}: another run took it for dead",
            self.record.what()
        ))
        .with_hint(
            "was this machine suspended, or the repository out of reach, for longer than the lease lives?",
        ))
    }

    fn delete_objects(&self) -> Result<()> {
        let mut state = self.lock();
        while let Some(object) = state.objects.first().copied() {
            delete(&self.cluster, object)?;
            state.objects.remove(0);
        }
        Ok(())
    }
}

impl Held {
    fn is_of(&self, run: Id) -> bool {
        self.record.as_ref().is_some_and(|record| record.run == run)
    }

    fn is_first_object(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.renews.is_none())
    }
}

fn create(cluster: &Cluster, record: &Record) -> Result<Id> {
    let object = Id::random()?;
    let key = cluster.layout().lease(object)?;
    match cluster.store().create(&key, to_json(record)?)? {
        Created::New => Ok(object),
        Created::AlreadyThere => Err(Error::bug(format!("a random key was taken: {key}"))),
    }
}

fn delete(cluster: &Cluster, object: Id) -> Result<()> {
    cluster.store().delete(&cluster.layout().lease(object)?).map(drop)
}

/// Deletes a stale lease, newest object first: that is the one that a run which wakes meanwhile looks for.
fn remove_stale(cluster: &Cluster, held: &Held) -> Result<()> {
    if let Some(record) = &held.record {
        tracing::info!("removing the lease of the {}, whose process is gone", record.what());
    }
    held.objects.iter().rev().try_for_each(|object| cluster.store().delete(&object.key).map(drop))
}

/// Some 50 to 800 milliseconds, more with each attempt.
fn random_pause(attempt: u32) -> Result<Duration> {
    let mut byte = [0];
    getrandom::fill(&mut byte)
        .map_err(|cause| Error::transient(format!("could not get random bytes: {cause}")))?;
    Ok(Duration::from_millis(50 + u64::from(byte[0]) * u64::from(attempt)))
}
