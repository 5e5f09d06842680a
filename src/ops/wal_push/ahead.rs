//! A backlog: the segments that wait behind the asked one are pushed with it, several at a time, and
//! remembered in the spool, so that the calls for them return in about the time of a process start.
//!
//! The asked segment alone decides how the call ends. What fails ahead of its turn is not counted as
//! pushed, and reported when its turn comes. Nothing is left running when the call returns, and nothing
//! depends on the record: lost, it costs a second push, which finds the same content and succeeds.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Push;
use crate::error::{Error, Result};
use crate::host;
use crate::pg::lsn::SegmentSize;
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal::{Extent, SegmentHeader};
use crate::repo::Cluster;
use crate::repo::segment::{self, Stored};
use crate::spool::Spool;
use crate::spool::pushed::{Entry, Identity, Pushed};

/// No further segment is begun after this: a server that stops waits for the call.
const LONGEST: Duration = Duration::from_secs(10);

/// Pushes the segment that PostgreSQL asked for, and those that wait behind it.
pub(super) fn push(asked: &Push, name: SegmentName) -> Result<Stored> {
    let Some(data_directory) = asked.data_directory.filter(|_| asked.config.push.batch > 0) else {
        return asked.segment(name, Extent::Whole);
    };
    let spool = Spool::of(asked.config.spool.as_deref(), data_directory);
    let header = asked.read_header(&mut asked.open()?)?;
    if was_pushed(asked, name, &header, &spool)? {
        return Ok(Stored::Same);
    }
    let following = following(asked, name, header.segment_size)?;
    if following.is_empty() {
        return asked.segment(name, Extent::Whole);
    }
    if let Err(error) = spool.prepare() {
        tracing::warn!("{error}; segments are pushed one by one");
        return asked.segment(name, Extent::Whole);
    }
    let done = Batch::new(asked, following).run();
    if !done.pushed.is_empty() {
        let destination = destination(&asked.cluster(header.system_id)?)?;
        remember(asked, &spool, destination, done.pushed);
    }
    done.asked
}

/// Whether an earlier call pushed this very file into this repository, and the repository still has it.
fn was_pushed(asked: &Push, name: SegmentName, header: &SegmentHeader, spool: &Spool) -> Result<bool> {
    let Some(pushed) = Pushed::read(spool) else { return Ok(false) };
    if !pushed.holds(&name.to_string(), Identity::of(asked.path)?) {
        return Ok(false);
    }
    let cluster = asked.cluster(header.system_id)?;
    Ok(pushed.destination == destination(&cluster)? && segment::exists(&cluster, name)?)
}

/// One repository and cluster among all, for as long as it exists.
fn destination(cluster: &Cluster) -> Result<String> {
    Ok(format!("{}/{}", cluster.repository().id(), cluster.layout().root()?))
}

/// The segments behind `name` that the server has marked as ready, without a break, as far as a batch goes.
fn following(asked: &Push, name: SegmentName, size: SegmentSize) -> Result<Vec<(SegmentName, PathBuf)>> {
    let Some(directory) = asked.path.parent() else { return Ok(Vec::new()) };
    let first = name.number(size)?;
    let candidates = (1..=asked.config.push.batch as u64)
        .map(|ahead| SegmentName::from_number(name.timeline, first.saturating_add(ahead), size));
    let ready = |next: &SegmentName| is_ready(directory, &next.to_string());
    Ok(candidates.take_while(ready).map(|next| (next, directory.join(next.to_string()))).collect())
}

/// StatusFilePath.
pub(in crate::ops) fn is_ready(pg_wal: &Path, file: &str) -> bool {
    pg_wal.join("archive_status").join(format!("{file}.ready")).exists()
}

/// A failure costs time later, nothing else.
fn remember(asked: &Push, spool: &Spool, destination: String, new: Vec<Entry>) {
    let known = Pushed::read(spool).filter(|pushed| pushed.destination == destination);
    let mut pushed = known.unwrap_or_else(|| Pushed::new(destination));
    let pg_wal = asked.path.parent().unwrap_or(Path::new(""));
    pushed.add(new, |file| is_ready(pg_wal, file));
    if let Err(error) = pushed.write(spool) {
        tracing::warn!("{error}; the segments that were pushed ahead will be pushed again");
    }
}

/// The asked segment and those behind it, while they are pushed.
struct Batch<'a> {
    asked: Push<'a>,
    following: Vec<(SegmentName, PathBuf)>,
    jobs: usize,
    deadline: Instant,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Segments begun, the asked one included.
    begun: usize,
    /// Something failed: no other segment is begun.
    failed: bool,
    asked: Option<Result<Stored>>,
    pushed: Vec<Entry>,
    /// The first failure ahead of its turn.
    ahead: Option<Error>,
}

struct Done {
    asked: Result<Stored>,
    pushed: Vec<Entry>,
}

impl<'a> Batch<'a> {
    fn new(asked: &Push<'a>, following: Vec<(SegmentName, PathBuf)>) -> Self {
        let jobs = asked.config.push.jobs.get().min(following.len() + 1);
        let workers = (host::cores().get() / jobs).clamp(1, asked.workers);
        Self {
            asked: Push { workers, ..*asked },
            following,
            jobs,
            deadline: Instant::now() + LONGEST,
            progress: Mutex::default(),
        }
    }

    fn run(self) -> Done {
        std::thread::scope(|scope| {
            for _ in 1..self.jobs {
                if let Err(cause) = std::thread::Builder::new().spawn_scoped(scope, || self.work()) {
                    tracing::debug!("could not start another thread: {cause}");
                    break;
                }
            }
            self.work();
        });
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let asked = progress.asked.unwrap_or_else(|| Err(Error::bug("the asked segment was not pushed")));
        match progress.ahead {
            // The same trouble, most likely, and the asked segment's error says it.
            Some(error) if asked.is_err() => tracing::debug!("ahead of its turn: {error}"),
            Some(error) => {
                tracing::warn!("ahead of its turn: {error}; it will be pushed when it is asked for")
            }
            None => {}
        }
        Done { asked, pushed: progress.pushed }
    }

    /// What each job does.
    fn work(&self) {
        while let Some(number) = self.begin() {
            let following = number.checked_sub(1).and_then(|index| self.following.get(index));
            let push = match following {
                None => self.asked,
                Some((name, path)) => {
                    // Who pushes that one already will finish it.
                    Push { path, file: WalFile::Segment(*name), lock_wait: Duration::ZERO, ..self.asked }
                }
            };
            let (outcome, entry) = push_and_identify(&push);
            let mut progress = self.progress();
            progress.failed |= outcome.is_err();
            progress.pushed.extend(entry);
            match (following, outcome) {
                (None, outcome) => progress.asked = Some(outcome),
                (Some(_), Err(error)) => progress.ahead = progress.ahead.take().or(Some(error)),
                (Some(_), Ok(_)) => {}
            }
        }
    }

    /// The number of the next segment: 0 is the asked one.
    fn begin(&self) -> Option<usize> {
        let mut progress = self.progress();
        let number = progress.begun;
        let stop = progress.failed || Instant::now() >= self.deadline || number > self.following.len();
        if number > 0 && stop {
            return None;
        }
        progress.begun += 1;
        Some(number)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pushes one segment. An entry comes with it if the file under that name was the same all the time.
fn push_and_identify(push: &Push) -> (Result<Stored>, Option<Entry>) {
    let WalFile::Segment(name) = push.file else {
        return (Err(Error::bug(format!("{} is not a segment", push.file))), None);
    };
    let before = match Identity::of(push.path) {
        Ok(before) => before,
        Err(error) => return (Err(error), None),
    };
    let outcome = push.segment(name, Extent::Whole);
    let same = outcome.is_ok() && Identity::of(push.path).is_ok_and(|after| after == before);
    (outcome, same.then(|| Entry { file: name.to_string(), identity: before }))
}
