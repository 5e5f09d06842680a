//! What a fetch has to do with the prefetcher: takes a segment that is ready, notes what was asked for, and
//! starts a prefetcher where there is none.
//!
//! Invariant: no trouble here is ever an answer, and nothing that is missing here is ever "not there": the
//! repository is asked as if there were no prefetcher.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Request;
use super::asking_server::AskingServer;
use crate::config::Config;
use crate::detach;
use crate::error::{Error, IoContext, Kind, Result};
use crate::host;
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal_dir;
use crate::spool::Spool;
use crate::spool::prefetched::{Asked, Prefetched};

/// The flag that makes a `wal-fetch` a prefetcher.
pub const PREFETCH_FLAG: &str = "--prefetch";

/// Where a prefetcher's messages go, in the spool.
const LOG: &str = "prefetcher.log";
/// A log beyond this begins anew.
const MOST_LOG: u64 = 64 << 10;

/// How often to look at a segment that is just being prefetched, and for how long without any progress.
const LOOK: Duration = Duration::from_millis(1);
const STALLED: Duration = Duration::from_millis(20);

/// The spool of a recovery that runs.
pub(super) struct Ready<'a> {
    server: AskingServer<'a>,
    pub(super) system_id: SystemId,
    pub(super) prefetched: Prefetched,
}

impl<'a> Ready<'a> {
    /// None: prefetching is off, or nobody would need it.
    pub(super) fn of(config: &Config, request: &Request, server: AskingServer<'a>) -> Result<Option<Self>> {
        let Some(directory) = server.directory() else { return Ok(None) };
        if config.fetch.prefetch == 0 || !wal_dir::is_in_recovery(directory)? {
            return Ok(None);
        }
        let system_id = super::system_id(request, Some(directory))?;
        let spool = Spool::of(config.spool.as_deref(), directory);
        let prefetched = Prefetched::of(&spool, &binding(config, directory, system_id)?);
        Ok(Some(Self { server, system_id, prefetched }))
    }

    /// Puts a segment that is ready to `target`; false when it has to be fetched.
    pub(super) fn deliver(&self, name: SegmentName, target: &Path) -> Result<bool> {
        let segment = name.to_string();
        self.wait_for(&segment);
        let path = self.prefetched.ready(&segment);
        if !path.exists() {
            return Ok(false);
        }
        if let Err(error) = self.prefetched.trusted() {
            tracing::warn!("{error}; not used");
            return Ok(false);
        }
        if !wal_dir::is_segment(&path, name, self.system_id)? {
            tracing::warn!("{} is not what its name says: thrown away", path.display());
            self.prefetched.remove(&segment)?;
            return Ok(false);
        }
        self.server.check()?;
        match fs::rename(&path, target) {
            Ok(()) => {
                tracing::info!("{segment} was ready");
                Ok(true)
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::CrossesDevices => {
                self.copy(&path, target)?;
                tracing::info!("{segment} was ready on another file system");
                // Delivered is delivered.
                self.prefetched.remove(&segment).unwrap_or_else(|error| without(&error));
                Ok(true)
            }
            // The prefetcher has thrown it away meanwhile.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause).doing(|| format!("rename {} to {}", path.display(), target.display())),
        }
    }

    /// While the prefetcher is getting on with this very segment, that is faster than beginning again.
    fn wait_for(&self, segment: &str) {
        let mut seen = None;
        let mut since = Instant::now();
        while let Some(written) = self.prefetched.written(segment) {
            if seen != Some(written) {
                (seen, since) = (Some(written), Instant::now());
            } else if since.elapsed() > STALLED {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn copy(&self, path: &Path, target: &Path) -> Result<()> {
        let mut source = File::open(path).doing(|| format!("open {}", path.display()))?;
        super::deliver_into_place(target, self.server, |mut file| {
            std::io::copy(&mut source, &mut file).map(drop).doing(|| format!("copy {}", path.display()))
        })
    }

    /// Notes that a segment was asked for, and sees to it that somebody prefetches the next ones.
    pub(super) fn asked_for(&self, name: SegmentName) -> Result<()> {
        let history = self.prefetched.asked().and_then(|(asked, _)| asked.history);
        self.prefetched.note(&Asked { segment: Some(name.to_string()), history })?;
        match self.prefetched.hold()? {
            Some(_nobody_does) => {}
            None => return Ok(()),
        }
        start_prefetcher(&self.prefetched)
    }

    /// Notes the history that recovery follows.
    pub(super) fn follows(&self, timeline: Timeline) -> Result<()> {
        let segment = self.prefetched.asked().and_then(|(asked, _)| asked.segment);
        self.prefetched.note(&Asked { segment, history: Some(WalFile::History(timeline).to_string()) })
    }
}

/// Everything that a prefetched segment must have in common with the recovery that takes it. The boot,
/// because after a power cut files may hold anything.
fn binding(config: &Config, directory: &Path, system_id: SystemId) -> Result<String> {
    let metadata = directory.metadata().doing(|| format!("look at {}", directory.display()))?;
    let pinned = config.repo_id.map(|id| id.to_string()).unwrap_or_default();
    Ok([
        host::boot_id()?,
        config.repo()?.to_string(),
        pinned,
        config.cluster.to_string(),
        system_id.to_string(),
        directory.display().to_string(),
        format!("{}:{}", metadata.dev(), metadata.ino()),
    ]
    .join("\n"))
}

/// The same program with the same arguments, in a session of its own, holding nothing that was inherited:
/// PostgreSQL's log collector runs for as long as somebody holds its pipe.
fn start_prefetcher(prefetched: &Prefetched) -> Result<()> {
    let program = std::env::current_exe().doing(|| "find this program")?;
    let mut command = Command::new(&program);
    command.arg(PREFETCH_FLAG).args(std::env::args_os().skip(1));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(prefetched)?);
    detach::detach(&mut command).doing(|| "prepare a process of its own")?;
    command.spawn().map(drop).doing(|| format!("start {}", program.display()))
}

fn log(prefetched: &Prefetched) -> Result<File> {
    let path = prefetched.spool().directory().join(LOG);
    let long = path.metadata().is_ok_and(|metadata| metadata.len() > MOST_LOG);
    let mut options = File::options();
    if long {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    options.create(true).open(&path).doing(|| format!("open {}", path.display()))
}

/// Carries on without: whatever went wrong here, the repository has the answer. Except that a server that
/// is gone gets none.
pub(super) fn unless_gone(outcome: Result<bool>) -> Result<bool> {
    match outcome {
        Err(error) if error.kind() == Kind::Postgres => Err(error),
        Err(error) => {
            without(&error);
            Ok(false)
        }
        outcome => outcome,
    }
}

pub(super) fn without(error: &Error) {
    tracing::info!("no use of prefetched segments: {error}");
}
