//! The prefetcher: a process that keeps the next segments of a recovery ready, so that fetching overlaps
//! replay. `wal-fetch` starts it, and tells it by a note in the spool what was asked for last.
//!
//! It ends by itself, and removes what it made, when nobody has asked for a while, when the server is gone or
//! has left recovery, and at the first trouble with the repository: the next fetch starts another. Nothing is
//! ever concluded from what it did or did not find.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Request;
use super::asking_server::AskingServer;
use super::ready::Ready;
use super::window::Window;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::SegmentSize;
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal_dir;
use crate::repo::{Cluster, Repository, segment};
use crate::spool::prefetched::{Asked, NoteId, Prefetched};

/// How often to look for a new note: shortly after one, and later.
const BUSY: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_millis(50);
/// Shortly.
const RECENT: Duration = Duration::from_secs(1);
/// How often to look whether the server is still there and in recovery.
const WATCH: Duration = Duration::from_millis(100);

/// What a prefetcher does from start to end.
pub fn run(config: &Config, request: &Request) -> Result<()> {
    let data_directory = wal_dir::data_directory(&request.target)?;
    let server = AskingServer::of(data_directory.as_deref())?;
    let Some(Ready { prefetched, .. }) = Ready::of(config, request, server)? else { return Ok(()) };
    let Some(hold) = prefetched.hold()? else { return Ok(()) };
    prefetched.sweep(&hold)?;
    let outcome = Prefetcher::open(config, request, server, &prefetched).and_then(|mut p| p.keep_ready());
    prefetched.clear(&hold).and(outcome)
}

struct Prefetcher<'a> {
    config: &'a Config,
    request: &'a Request,
    server: AskingServer<'a>,
    crew: Arc<Crew>,
    size: SegmentSize,
    path: Option<TimelineHistory>,
    noticed: Option<NoteId>,
    last_asked: Instant,
}

impl<'a> Prefetcher<'a> {
    fn open(
        config: &'a Config,
        request: &'a Request,
        server: AskingServer<'a>,
        prefetched: &Prefetched,
    ) -> Result<Self> {
        let repository = Repository::open(config.repo()?, config.repo_id)?;
        let system_id = super::system_id(request, server.directory())?;
        let cluster = repository.cluster(&config.cluster, system_id);
        let size = cluster.header()?.segment_size;
        let crew = Arc::new(Crew {
            cluster,
            prefetched: prefetched.clone(),
            work: Mutex::default(),
            changed: Condvar::new(),
        });
        Ok(Self {
            config,
            request,
            server,
            crew,
            size,
            path: None,
            noticed: None,
            last_asked: Instant::now(),
        })
    }

    fn keep_ready(&mut self) -> Result<()> {
        // Not scoped: a worker that hangs in a read of the repository must not keep the process.
        for _ in 0..self.config.fetch.jobs.get() {
            let crew = Arc::clone(&self.crew);
            std::thread::spawn(move || crew.work());
        }
        let outcome = self.follow_notes();
        self.crew.end();
        outcome
    }

    fn follow_notes(&mut self) -> Result<()> {
        let mut watched = Instant::now();
        loop {
            // No note: somebody removed the spool.
            let Some((asked, id)) = self.crew.prefetched.asked() else { return Ok(()) };
            if self.noticed != Some(id) {
                (self.noticed, self.last_asked) = (Some(id), Instant::now());
                self.plan(&asked)?;
            }
            if let Some(error) = self.crew.failure() {
                return Err(error);
            }
            if watched.elapsed() > WATCH {
                watched = Instant::now();
                if !self.is_needed()? {
                    return Ok(());
                }
            }
            std::thread::sleep(if self.last_asked.elapsed() < RECENT { BUSY } else { IDLE });
        }
    }

    fn is_needed(&self) -> Result<bool> {
        let Some(directory) = self.server.directory() else { return Ok(false) };
        Ok(self.last_asked.elapsed() <= self.config.fetch.prefetch_linger
            && self.server.is_still_there()?
            && wal_dir::is_in_recovery(directory)?)
    }

    /// Throws away what is not needed any more and has the rest of the window fetched.
    fn plan(&mut self, asked: &Asked) -> Result<()> {
        let Some(segment) = &asked.segment else { return Ok(()) };
        self.read_path(asked.history.as_deref())?;
        let bytes = self.size.bytes();
        let count = (self.config.fetch.prefetch as u64).min(self.config.fetch.prefetch_bytes / bytes);
        let window =
            Window { path: self.path.as_ref(), size: self.size, last: self.request.last_segment, count };
        let mut wanted = window.after(segment.parse()?)?;
        let ready = self.crew.prefetched.list()?;
        for name in &ready {
            if wanted.iter().all(|wanted| wanted.to_string() != *name) {
                self.crew.prefetched.remove(name)?;
            }
        }
        wanted.retain(|wanted| !ready.contains(&wanted.to_string()));
        // The server itself needs room on that disk.
        let room = self.crew.prefetched.space()? / bytes;
        wanted.truncate(usize::try_from(room.saturating_sub(2 * count)).unwrap_or(usize::MAX));
        self.crew.take_on(wanted);
        Ok(())
    }

    fn read_path(&mut self, history: Option<&str>) -> Result<()> {
        let Some(history) = history else { return Ok(()) };
        let file: WalFile = history.parse()?;
        if self.path.as_ref().is_none_or(|path| path.timeline() != file.timeline()) {
            let content = segment::read_plain(&self.crew.cluster, file)?;
            self.path = Some(TimelineHistory::parse(file.timeline(), &content)?);
        }
        Ok(())
    }
}

/// The workers and what they share.
struct Crew {
    cluster: Cluster,
    prefetched: Prefetched,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<SegmentName>,
    at_work: Vec<SegmentName>,
    failed: Option<Error>,
    ended: bool,
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what was still to be done.
    fn take_on(&self, wanted: Vec<SegmentName>) {
        let mut work = self.lock();
        work.queue = wanted.into_iter().filter(|name| !work.at_work.contains(name)).collect();
        self.changed.notify_all();
    }

    fn failure(&self) -> Option<Error> {
        self.lock().failed.take()
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn work(&self) {
        while let Some(name) = self.next() {
            let outcome = self.fetch(name);
            let mut work = self.lock();
            work.at_work.retain(|other| *other != name);
            match outcome {
                Ok(()) => {}
                // The end of the archive, for now: looked at again when the next segment is asked for.
                Err(error) if error.kind() == Kind::NotFound => work.queue.clear(),
                Err(error) => work.failed = Some(error),
            }
        }
    }

    fn next(&self) -> Option<SegmentName> {
        let idle = |work: &mut Work| work.queue.is_empty() && !work.ended;
        let mut work = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let name = work.queue.pop_front().filter(|_| !work.ended)?;
        work.at_work.push(name);
        Some(name)
    }

    fn fetch(&self, name: SegmentName) -> Result<()> {
        let segment = name.to_string();
        let staged = self.prefetched.begin(&segment)?;
        segment::read_into_file(&self.cluster, name, staged.file()?, 1)?;
        staged.place()
    }
}
