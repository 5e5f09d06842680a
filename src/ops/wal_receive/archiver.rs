//! Files of the spool on their way into the repository: a thread of its own, so that a slow repository does
//! not hold up the stream. It stores them in the order in which they came, each as `wal-push` would.
//!
//! What may pass is tried again for ever; a conflict or damage ends the receiver, loudly. Invariant: a file
//! leaves the spool only after the repository holds it, or more of the same segment.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan;
use super::spool::{self, Waiting};
use crate::error::{Error, IoContext, Kind, Result};
use crate::ident::Name;
use crate::interrupt::Interrupt;
use crate::pg::lsn::{Lsn, SegmentSize};
use crate::pg::names::SegmentName;
use crate::pg::wal::{Extent, SegmentHeader};
use crate::pipe::compress::Options;
use crate::repo::catalog::Catalog;
use crate::repo::intake::{self, Incoming};
use crate::repo::overlap::{self, Overlap};
use crate::repo::streamed::{self, StreamedPart};
use crate::repo::{Cluster, Repository};

/// What is needed to store a segment.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub repository: Repository,
    pub cluster: Name,
    pub level: i32,
    /// Where compressed output goes that is too large for memory.
    pub spool: PathBuf,
    pub lock_wait: Duration,
}

/// The thread, and what it has done.
pub(super) struct Archiver {
    shared: Arc<Shared>,
}

struct Shared {
    destination: Destination,
    state: Mutex<State>,
    /// Signalled when `state` has changed.
    changed: Condvar,
    /// Nobody waits for the rest.
    stop: Interrupt,
}

#[derive(Default)]
struct State {
    /// The first is the one that is worked on.
    queue: VecDeque<Task>,
    failure: Option<Error>,
}

/// One thing to be stored.
#[derive(Debug)]
struct Task {
    name: SegmentName,
    /// None: the whole segment.
    end: Option<Lsn>,
    path: PathBuf,
    /// The file is still in progress: it is copied, and stays.
    copy: Option<File>,
    /// Where the segment begins.
    start: Lsn,
    /// Bytes.
    size: u64,
}

impl Archiver {
    pub fn start(destination: Destination) -> Result<Self> {
        let shared = Arc::new(Shared {
            destination,
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: Interrupt::default(),
        });
        let worker = shared.clone();
        std::thread::Builder::new()
            .name("archiver".into())
            .spawn(move || worker.work())
            .doing(|| "start a thread")?;
        Ok(Self { shared })
    }

    /// A file of the spool shall be stored and removed there.
    pub fn take(&self, waiting: Waiting) -> Result<()> {
        let size = waiting.path.metadata().doing(|| format!("look at {}", waiting.path.display()))?.len();
        let Waiting { name, path, end } = waiting;
        // A whole segment has its size, and one that has not is refused when it is stored.
        let start = SegmentSize::try_from(size).and_then(|size| name.start(size)).unwrap_or_default();
        self.queue(Task { name, end, path, copy: None, start, size });
        Ok(())
    }

    /// The beginning of the segment in progress, up to `end`, shall be stored too.
    pub fn copy(&self, name: SegmentName, end: Lsn, path: &Path, file: File) {
        let path = path.to_path_buf();
        self.queue(Task { name, end: Some(end), path, copy: Some(file), start: Lsn::INVALID, size: 0 });
    }

    fn queue(&self, task: Task) {
        self.shared.state().queue.push_back(task);
        self.shared.changed.notify_all();
    }

    /// An error once something failed for good.
    pub fn check(&self) -> Result<()> {
        self.shared.state().failure.clone().map_or(Ok(()), Err)
    }

    /// Where the first of the whole segments begins that wait. None: none does.
    pub fn first_waiting(&self) -> Option<Lsn> {
        let state = self.shared.state();
        state.queue.iter().filter(|task| task.end.is_none()).map(|task| task.start).min()
    }

    /// Bytes and files that wait.
    pub fn waiting(&self) -> (u64, usize) {
        let state = self.shared.state();
        (state.queue.iter().map(|task| task.size).sum(), state.queue.len())
    }

    /// Waits until nothing is left to store, or `limit` has passed. True: nothing is left.
    pub fn drain(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state();
        while !state.queue.is_empty() && state.failure.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.failure.clone().map_or(Ok(true), Err)
    }
}

impl Drop for Archiver {
    /// The thread ends with what it does now; what it leaves is found at the next start.
    fn drop(&mut self) {
        // Under the lock: else the thread might have looked just before, and wait for ever.
        let state = self.shared.state();
        self.shared.stop.set();
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.state();
            while state.queue.is_empty() {
                if self.stop.is_set() {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(task) = state.queue.front_mut().map(Task::for_work) else { return };
            drop(state);
            let outcome = self.store_at_last(&task);
            if self.stop.is_set() {
                return;
            }
            let mut state = self.state();
            match outcome {
                Ok(()) => drop(state.queue.pop_front()),
                Err(error) => state.failure = Some(error),
            }
            let failed = state.failure.is_some();
            drop(state);
            self.changed.notify_all();
            if failed {
                return;
            }
        }
    }

    /// Tries until it is stored or can't be, ever.
    fn store_at_last(&self, task: &Task) -> Result<()> {
        let mut failures = 0;
        loop {
            let error = match self.store(task) {
                Ok(()) => return Ok(()),
                Err(error) if is_final(error.kind()) || self.stop.is_set() => return Err(error),
                Err(error) => error,
            };
            failures += 1;
            let wait = plan::back_off(failures, super::random());
            tracing::error!("{error}; {} waits in the spool and is tried again", task.name);
            if self.stop.sleep(wait).is_err() {
                return Err(error);
            }
        }
    }

    fn store(&self, task: &Task) -> Result<()> {
        let Some(mut source) = task.open()? else { return Ok(()) };
        let header = intake::read_header(&mut source, &task.place())?;
        let cluster = self.destination.repository.cluster(&self.destination.cluster, header.system_id);
        cluster.ensure_header(&intake::cluster_header(&header))?;
        match task.end {
            None => self.store_whole(&cluster, task, header, source)?,
            Some(end) => self.store_part(&cluster, task, &header, end, source)?,
        }
        if task.copy.is_none() {
            spool::remove(&task.path)?;
        }
        Ok(())
    }

    fn store_whole(&self, cluster: &Cluster, task: &Task, header: SegmentHeader, source: File) -> Result<()> {
        let length = source.metadata().doing(|| format!("look at {}", task.place()))?.len();
        let timeline_match = header.check(task.name, length)?;
        let history = Catalog::new(cluster, header.segment_size).history(task.name.timeline)?;
        intake::check_timeline(task.name, &header, timeline_match, history.as_ref())?;
        match self.put(cluster, task, header, Extent::Whole, source) {
            Err(error) if error.kind() == Kind::Conflict => self.settle(cluster, task, header, error),
            stored => stored.and_then(|()| streamed::sweep(cluster, task.name)).map(drop),
        }
    }

    fn put(
        &self,
        cluster: &Cluster,
        task: &Task,
        header: SegmentHeader,
        extent: Extent,
        source: File,
    ) -> Result<()> {
        let incoming = Incoming { cluster, name: task.name, extent, header, place: task.place() };
        let stored = incoming.store(source, &self.options(), self.destination.lock_wait)?;
        tracing::debug!("{} is stored: {stored:?}", task.name);
        Ok(())
    }

    /// Another segment of the same name is no conflict if the one merely goes on where the other ends: a
    /// standby that is promoted archives its last segment as it is, where its primary wrote on.
    fn settle(&self, cluster: &Cluster, task: &Task, header: SegmentHeader, conflict: Error) -> Result<()> {
        let mut source = task.open()?.ok_or_else(|| conflict.clone())?;
        let name = task.name;
        match overlap::compare(cluster, name, &header, &mut source)? {
            Overlap::Differ => Err(conflict),
            Overlap::StoredIsLonger { ours } => {
                tracing::warn!(
                    "the {name} that was received ends at {ours}; the stored one goes on from there"
                );
                Ok(())
            }
            Overlap::StoredIsShorter { stored } => {
                tracing::error!(
                    "the stored {name} ends at {stored}; the one that was received goes on from there, and is \
                     stored beside it as {name}.partial"
                );
                source.rewind().doing(|| format!("read {}", task.place()))?;
                self.put(cluster, task, header, Extent::Partial, source)
            }
        }
    }

    /// Stores the segment up to `end`.
    fn store_part(
        &self,
        cluster: &Cluster,
        task: &Task,
        header: &SegmentHeader,
        end: Lsn,
        mut source: File,
    ) -> Result<()> {
        let part = StreamedPart { segment: task.name, end };
        streamed::store(cluster, part, header, &mut source, &task.place(), &self.options())?;
        streamed::sweep(cluster, task.name)?;
        tracing::debug!("{} is stored up to {end}", task.name);
        Ok(())
    }

    fn options(&self) -> Options {
        Options {
            level: self.destination.level,
            workers: intake::workers(),
            spool: self.destination.spool.clone(),
        }
    }
}

impl Task {
    /// The task for the worker, while its place in the queue is kept.
    fn for_work(&mut self) -> Self {
        let (path, copy) = (self.path.clone(), self.copy.take());
        Self { name: self.name, end: self.end, path, copy, start: self.start, size: self.size }
    }

    /// What messages call it.
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// None: it is gone, because a longer one replaced it.
    fn open(&self) -> Result<Option<File>> {
        let opened = match &self.copy {
            Some(file) => file.try_clone().and_then(|mut file| file.rewind().map(|()| file)),
            None => File::open(&self.path),
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && self.end.is_some() => Ok(None),
            Err(cause) => Err(Error::io(format!("open {}", self.path.display()), &cause)),
        }
    }
}

/// Trying again does not help. An unmounted disk looks like a wrong configuration, and is not final.
fn is_final(kind: Kind) -> bool {
    match kind {
        Kind::Conflict | Kind::Corrupt | Kind::Postgres | Kind::Bug => true,
        Kind::Configuration | Kind::NotFound | Kind::Transient => false,
    }
}
