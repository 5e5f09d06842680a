//! `wal-fetch %f %p`: PostgreSQL's restore_command. Brings one WAL file back, verified before it appears.
//!
//! PostgreSQL takes every exit status from 1 to 125 as "not in the archive", and may then end recovery and
//! promote. So [`Outcome::Absent`] (exit 1) is said only when the repository was really read, has no such
//! file, and that is not a hole. Everything else is retried and then ends above 125, which stops recovery
//! and leaves it restartable. `docs/decisions/wal-fetch-exit-codes.md` has the reasons.
//!
//! A segment that the prefetcher (`prefetch.rs`) has ready is taken; all else comes from the repository.

mod asking_server;
mod prefetch;
mod ready;
mod streamed;
mod window;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::config::Config;
use crate::durable::{self, StagedFile};
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, SystemId, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal_dir;
use crate::repo::catalog::Catalog;
use crate::repo::hole::{self, Found};
use crate::repo::streamed::StreamedPart;
use crate::repo::{Cluster, Repository, gap, segment};
use crate::spool;
use asking_server::AskingServer;
pub use prefetch::run as prefetch;
use ready::Ready;

/// What PostgreSQL asked for, and what `bootstrap-restore` told.
#[derive(Clone, Debug)]
pub struct Request {
    pub file: WalFile,
    /// Where to put it; relative to the data directory, which is the working directory.
    pub target: PathBuf,
    /// The last segment that the recovery target needs: absence beyond it is never a hole.
    pub last_segment: Option<SegmentName>,
    /// The streamed part that stands in for its segment as long as that is not there.
    pub streamed: Option<StreamedPart>,
    /// Whose WAL; else pg_control tells.
    pub system_id: Option<SystemId>,
}

/// The two answers that PostgreSQL may build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Proven: PostgreSQL may try pg_wal, older timelines, and end recovery.
    Absent,
}

/// The exit code for an error: above 125, so that recovery stops, and nothing like a signal's.
pub fn exit_code(kind: Kind) -> u8 {
    200 + kind.exit_code().min(55)
}

/// How the names of files begin that are not complete yet; then the process, a dot, and the final name.
const STAGED: &str = "xlogtemp.pgark.";

/// Pauses between tries grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

pub fn run(config: &Config, request: &Request) -> Result<Outcome> {
    // No use in trying that again.
    config.repo()?;
    let data_directory = wal_dir::data_directory(&request.target)?;
    if let Some(directory) = &data_directory {
        host::refuse_foreign_root(directory)?;
    }
    let standby = match &data_directory {
        Some(directory) => wal_dir::is_standby(directory)?,
        None => false,
    };
    let server = AskingServer::of(data_directory.as_deref())?;
    let ready = Ready::of(config, request, server).unwrap_or_else(|error| {
        ready::without(&error);
        None
    });
    let known = ready.as_ref().map(|ready| ready.system_id);
    let fetch = Fetch { config, request, data_directory: data_directory.as_deref(), known, server, standby };
    let outcome = match (standby, request.file) {
        // A wrong "no such history" makes a promotion take a timeline that is in use: never guessed.
        (_, WalFile::History(_)) => {
            remove_leftovers(&request.target);
            fetch.insist(config.fetch.history_retry)?
        }
        (_, WalFile::Segment(name)) if fetch.take_ready(ready.as_ref(), name)? => Outcome::Delivered,
        (true, _) => fetch.once_for_a_standby()?,
        (false, _) => fetch.insist(config.fetch.retry)?,
    };
    if let Some(Err(error)) = ready.map(|ready| tell(&ready, request.file, outcome)) {
        ready::without(&error);
    }
    Ok(outcome)
}

/// Tells the prefetcher what recovery asks for.
fn tell(ready: &Ready, file: WalFile, outcome: Outcome) -> Result<()> {
    match (file, outcome) {
        (WalFile::Segment(name), _) => ready.asked_for(name),
        (WalFile::History(timeline), Outcome::Delivered) => ready.follows(timeline),
        _ => Ok(()),
    }
}

fn system_id(request: &Request, data_directory: Option<&Path>) -> Result<SystemId> {
    match request.system_id {
        Some(system_id) => Ok(system_id),
        None => Ok(wal_dir::control_file(data_directory)?.system_id),
    }
}

struct Fetch<'a> {
    config: &'a Config,
    request: &'a Request,
    data_directory: Option<&'a Path>,
    /// Whose WAL, where that was looked up already.
    known: Option<SystemId>,
    server: AskingServer<'a>,
    standby: bool,
}

impl Fetch<'_> {
    /// Whether the prefetcher had it.
    fn take_ready(&self, ready: Option<&Ready>, name: SegmentName) -> Result<bool> {
        let Some(ready) = ready else { return Ok(false) };
        ready::unless_gone(ready.deliver(name, &self.request.target))
    }

    /// A standby asks again by itself, and may stream the segment meanwhile: better told "no" at once.
    fn once_for_a_standby(&self) -> Result<Outcome> {
        self.attempt().or_else(|error| {
            tracing::error!(
                hint = error.hint(),
                "{error}; a standby asks again, so this is answered as not there"
            );
            Ok(Outcome::Absent)
        })
    }

    /// Tries until it knows the answer or the budget is spent.
    fn insist(&self, budget: Duration) -> Result<Outcome> {
        let deadline = Instant::now() + budget;
        let mut pause = FIRST_PAUSE;
        let mut tries: u32 = 1;
        loop {
            let error = match self.attempt() {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (tries > 1 && !may_pass(error.kind())) {
                return Err(error.context(format!("could not fetch {} in {tries} tries", self.request.file)));
            }
            tracing::warn!(hint = error.hint(), "{error}; trying again for {left:.0?}");
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_PAUSE);
            tries += 1;
        }
    }

    fn attempt(&self) -> Result<Outcome> {
        let system_id = match self.known {
            Some(known) => known,
            None => system_id(self.request, self.data_directory)?,
        };
        let repository = Repository::open(self.config.repo()?, self.config.repo_id)?;
        let cluster = repository.cluster(&self.config.cluster, system_id);
        match self.deliver(&cluster) {
            Ok(()) => Ok(Outcome::Delivered),
            Err(error) if error.kind() == Kind::NotFound => self.absent(&cluster),
            Err(error) if error.kind() == Kind::Corrupt => Err(error.with_hint(format!(
                "move the damaged object out of the repository, and push {} again from a server that still has it",
                self.request.file
            ))),
            Err(error) => Err(error),
        }
    }

    fn deliver(&self, cluster: &Cluster) -> Result<()> {
        match self.request.file {
            WalFile::Segment(name) => {
                let workers = self.config.fetch.jobs.get();
                self.deliver_into_place(|file| {
                    segment::read_into_file(cluster, name, file, workers).map(drop)
                })
            }
            WalFile::Partial(name) => {
                self.deliver_into_place(|mut file| segment::read_partial(cluster, name, &mut file).map(drop))
            }
            WalFile::History(timeline) => {
                let content = segment::read_plain(cluster, self.request.file)?;
                TimelineHistory::parse(timeline, &content)?;
                self.deliver_into_place(|file| write_all(file, &content))
            }
            WalFile::BackupHistory(..) => {
                let content = segment::read_plain(cluster, self.request.file)?;
                self.deliver_into_place(|file| write_all(file, &content))
            }
        }
    }

    fn deliver_into_place(&self, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        deliver_into_place(&self.request.target, self.server, write)
    }

    /// The object is not there. Is that the truth about the archive?
    fn absent(&self, cluster: &Cluster) -> Result<Outcome> {
        let size = cluster.header().map_err(|error| no_such_cluster(cluster, error))?.segment_size;
        let outcome = match self.request.file {
            WalFile::Segment(name) => self.absent_segment(cluster, name, size)?,
            WalFile::History(timeline) => self.absent_history(cluster, timeline, size)?,
            // PostgreSQL never asks for these; a person did.
            WalFile::Partial(_) | WalFile::BackupHistory(..) => Outcome::Absent,
        };
        // A disk that was unmounted while we looked says "not there" to all questions, so this comes last.
        cluster.repository().confirm()?;
        Ok(outcome)
    }

    /// A timeline of which the archive has segments or descendants, but no history, is in use all the same:
    /// "no" would let a promotion take its number again. Timeline 1 never has a history; a promotion asks for
    /// that too (writeTimeLineHistory begins with the parent's).
    fn absent_history(&self, cluster: &Cluster, timeline: Timeline, size: SegmentSize) -> Result<Outcome> {
        if timeline == Timeline(1) {
            return Ok(Outcome::Absent);
        }
        let Some(proof) = proof_of_timeline(cluster, timeline, size)? else { return Ok(Outcome::Absent) };
        if segment::has_history(cluster, timeline)? {
            // A server that was promoted just now has archived it after our first look.
            self.deliver(cluster)?;
            return Ok(Outcome::Delivered);
        }
        Err(Error::not_found(format!(
            "the archive has no history of timeline {timeline}, but {proof}: the timeline is in use"
        ))
        .with_hint(format!(
            "push {} from the pg_wal of a server that was on it or on a descendant",
            WalFile::History(timeline)
        )))
    }

    fn absent_segment(&self, cluster: &Cluster, name: SegmentName, size: SegmentSize) -> Result<Outcome> {
        let number = name.number(size)?;
        if let Some(last) = self.request.last_segment
            && number > last.number(size)?
        {
            return Ok(Outcome::Absent);
        }
        if let Some(part) = self.planned_part(name) {
            return self.deliver_part(cluster, part);
        }
        let Some(hole) = hole::find(cluster, name, size)? else {
            return self.absent_unless_streamed(cluster, name, size);
        };
        if self.is_in_pg_wal(name, cluster.system_id()) {
            return Ok(Outcome::Absent);
        }
        // A server that archives while we look may have stored it after our first look.
        if segment::exists(cluster, name)? {
            self.deliver(cluster)?;
            return Ok(Outcome::Delivered);
        }
        let missing = Error::not_found(format!(
            "{name} is missing from the archive, but {} is there: recovery must not end at this hole",
            hole.later
        ));
        if let Some(gap) = gap::around(cluster, name) {
            return Err(missing.with_hint(format!(
                "{}; restore up to there only, or a backup that was taken later",
                gap.story()
            )));
        }
        Err(missing.with_hint(format!(
            "bring {name} back from the server that wrote it or its standby (wal-push), then start the server again"
        )))
    }

    /// Whether PostgreSQL will find the segment in pg_wal. A copy that can't be read counts as none: the
    /// answer is then the stricter one.
    fn is_in_pg_wal(&self, name: SegmentName, system_id: SystemId) -> bool {
        let Some(directory) = &self.data_directory else { return false };
        wal_dir::holds_segment(directory, name, system_id).unwrap_or_else(|error| {
            tracing::warn!("{error}; it does not count");
            false
        })
    }
}

/// Writes under a temporary name and renames once all is verified. No fsync: PostgreSQL does that
/// itself for what it keeps (KeepFileRestoredFromArchive), and asks again for what it does not.
fn deliver_into_place(
    target: &Path,
    server: AskingServer,
    write: impl FnOnce(&File) -> Result<()>,
) -> Result<()> {
    let staged = StagedFile::create_as(staged_path(target)?, target, spool::FILE_MODE)?;
    write(staged.file()?)?;
    server.check()?;
    staged.place()
}

/// Beside the target. A server that starts after a crash removes what is called xlogtemp.*
/// (RemoveTempXlogFiles), and so do we ([`remove_leftovers`]).
fn staged_path(target: &Path) -> Result<PathBuf> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::configuration(format!("{} is not a file to put WAL into", target.display())))?;
    Ok(target.with_file_name(format!("{STAGED}{}.{}", std::process::id(), name.to_string_lossy())))
}

/// Removes what killed fetches left beside the target. Done when a history is asked for, at the beginning
/// and the end of a recovery, so that fetching a segment need not list pg_wal. Nothing depends on it.
fn remove_leftovers(target: &Path) {
    let directory = durable::parent(target);
    let remove = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if writer_of(&path).is_some_and(is_gone) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    };
    if let Err(cause) = remove() {
        tracing::warn!("could not remove leftovers in {}: {cause}", directory.display());
    }
}

/// The process that a file from [`staged_path`] is of.
fn writer_of(path: &Path) -> Option<Pid> {
    let (pid, _) = path.file_name()?.to_str()?.strip_prefix(STAGED)?.split_once('.')?;
    Pid::from_raw(pid.parse::<u32>().ok()?.try_into().ok()?)
}

fn is_gone(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// What in the archive proves that a timeline was used.
fn proof_of_timeline(cluster: &Cluster, timeline: Timeline, size: SegmentSize) -> Result<Option<Found>> {
    if let Some(segment) = hole::any_segment(cluster, timeline, size)? {
        return Ok(Some(segment));
    }
    let histories = Catalog::new(cluster, size).histories()?;
    let descendant = histories.values().find(|history| history.contains(timeline));
    Ok(descendant.map(|history| Found::File(WalFile::History(history.timeline()))))
}

/// What a later try may find changed: a disk that comes back, a segment that is archived late.
fn may_pass(kind: Kind) -> bool {
    matches!(kind, Kind::Transient | Kind::NotFound | Kind::Configuration)
}

fn no_such_cluster(cluster: &Cluster, error: Error) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    Error::not_found(format!(
        "the repository has nothing of cluster \"{}\" with system identifier {}",
        cluster.name(),
        cluster.system_id()
    ))
    .with_hint("is the cluster's name right? is this the repository that its server archives into?")
}

fn write_all(mut file: &File, content: &[u8]) -> Result<()> {
    file.write_all(content).map_err(|cause| Error::io("write the WAL file", &cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_stops_recovery_and_none_looks_like_sigterm() {
        for kind in [
            Kind::Configuration,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Corrupt,
            Kind::Transient,
            Kind::Postgres,
            Kind::Bug,
        ] {
            let code = exit_code(kind);
            assert!(code > 125 && code != 143, "{kind:?}: {code}");
        }
    }
}
