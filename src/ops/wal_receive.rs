//! `wal-receive`: streams WAL through a physical replication slot into the repository, as it is written, so
//! that losing the primary loses nothing that was received.
//!
//! Refuses a server of another cluster, and to go on where WAL is missing. Reconnects for ever; ends when it
//! is told to, on a conflict, and on any error of its spool: nobody knows then what is durable.

mod archiver;
mod notify;
mod plan;
mod server;
mod spool;
mod status;
mod stream;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host;
use crate::interrupt::Interrupt;
use crate::pg::conninfo::ConnRequest;
use crate::pg::lsn::SystemId;
use crate::pg::replication::{Created, SlotName};
use crate::repo::Repository;
use crate::spool::sealed;
use archiver::{Archiver, Destination};
pub use notify::ServiceManager;
use server::Access;
use spool::Spool;
use status::{Pulse, RECORD};
pub use status::{Report, ServerSide, SlotSide, Status};
use stream::Progress;

/// How long leaving may take: what is not stored by then is found in the spool at the next start.
const LEAVING: Duration = Duration::from_secs(10);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// What was asked for, besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub connection: ConnRequest,
    /// The server's system identifier must be this one.
    pub system_id: Option<SystemId>,
    /// Go on where the slot begins, whatever is missing before.
    pub accept_gap: bool,
    pub manager: ServiceManager,
}

/// Receives until it is told to end.
pub fn run(config: &Config, request: &Request) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let slot: SlotName = config.receive.slot.parse()?;
    let location = config.repo()?;
    let repository = Repository::open(location, config.repo_id)?;
    host::refuse_foreign_root(location.directory())?;
    let spool = Spool::open(spool::directory(&spool_root(config)?, &config.cluster, &slot))?;
    let archiver = Archiver::start(Destination {
        repository: repository.clone(),
        cluster: config.cluster.clone(),
        level: config.compression_level,
        spool: spool.directory().to_path_buf(),
        lock_wait: config.push.lock_wait,
    })?;
    let mut receiver = Receiver {
        config,
        request,
        access: Access::new(config, &request.connection, &slot),
        slot,
        repository,
        spool,
        archiver,
        interrupt,
        pulse: Pulse::new(&request.manager, config.receive.lag_limit),
        progress: Progress::default(),
        system_id: None,
    };
    let outcome = receiver.receive();
    receiver.leave();
    outcome
}

/// Where WAL waits. Not in a temporary directory: it may be the only copy.
fn spool_root(config: &Config) -> Result<PathBuf> {
    config.spool.clone().ok_or_else(|| {
        Error::configuration("wal-receive needs a directory for the segment in progress")
            .with_hint("give --spool, or set `spool` in the configuration, to one on a durable disk")
    })
}

struct Receiver<'a> {
    config: &'a Config,
    request: &'a Request,
    access: Access,
    slot: SlotName,
    repository: Repository,
    spool: Spool,
    archiver: Archiver,
    interrupt: Interrupt,
    pulse: Pulse,
    progress: Progress,
    /// Of the first server that we were connected to.
    system_id: Option<SystemId>,
}

type Step<T> = std::result::Result<T, Ended>;

/// Why a connection, or all of it, ended.
enum Ended {
    /// By a signal.
    Asked,
    /// The next attempt may succeed.
    Lost(Error),
    Fatal(Error),
}

impl Receiver<'_> {
    /// What an earlier receiver left comes first, since the archive ends only behind that.
    fn receive(&mut self) -> Result<()> {
        for waiting in self.spool.take_stock()? {
            tracing::info!("{} was left in the spool and is stored now", waiting.path.display());
            self.archiver.take(waiting)?;
        }
        let mut failures = 0;
        loop {
            let ended = self.wait_for_archiver().and_then(|()| self.session());
            match ended {
                Ok(()) | Err(Ended::Asked) => return self.abandon(),
                Err(Ended::Fatal(error)) => return Err(error),
                Err(Ended::Lost(error)) => {
                    failures = if self.progress.connected { 1 } else { failures + 1 };
                    self.abandon()?;
                    match self.wait(&error, failures) {
                        Ok(()) => {}
                        Err(Ended::Asked) => return Ok(()),
                        Err(Ended::Lost(error) | Ended::Fatal(error)) => return Err(error),
                    }
                }
            }
        }
    }

    /// Before the first segment is chosen. Later what waits is known.
    fn wait_for_archiver(&mut self) -> Step<()> {
        while self.progress.next.is_none() && !self.archiver.drain(LOOK).map_err(Ended::Fatal)? {
            self.keep_going()?;
        }
        Ok(())
    }

    fn wait(&mut self, error: &Error, failures: u32) -> Step<()> {
        let wait = plan::back_off(failures, random());
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        tracing::error!("{error}{hint}; the next attempt follows in {:.1} s", wait.as_secs_f64());
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.keep_going()?;
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Stores what can be stored soon.
    fn leave(&mut self) {
        self.pulse.notifier.leaving();
        match self.archiver.drain(LEAVING) {
            Ok(true) => tracing::info!("everything that was received is stored"),
            Ok(false) => tracing::warn!(
                "leaving with WAL in {}: the next start stores it",
                self.spool.directory().display()
            ),
            // What failed is the outcome already.
            Err(error) => tracing::debug!("{error}"),
        }
        self.progress.connected = false;
        let status = self.status();
        self.pulse.record(self.spool.directory(), &status);
    }
}

/// Any number: where receivers shall not all do the same at once.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// Creates the slot, so that the server keeps WAL from now on. False: it was there.
pub fn create_slot(config: &Config, request: &Request) -> Result<bool> {
    let slot: SlotName = config.receive.slot.parse()?;
    let access = Access::new(config, &request.connection, &slot);
    Ok(access.connect()?.create_slot(&slot)? == Created::New)
}

/// Drops the slot. False: there was none.
pub fn drop_slot(config: &Config, request: &Request) -> Result<bool> {
    let slot: SlotName = config.receive.slot.parse()?;
    Access::new(config, &request.connection, &slot).connect()?.drop_slot(&slot)
}

/// How the receiver is, and how far the slot is behind.
pub fn status(config: &Config, request: &Request) -> Result<Report> {
    let slot: SlotName = config.receive.slot.parse()?;
    let directory = spool::directory(&spool_root(config)?, &config.cluster, &slot);
    let (server, server_error) = match ask_server(&Access::new(config, &request.connection, &slot), &slot) {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(error.message().to_string())),
    };
    Ok(Report {
        running: Spool::is_in_use(&directory)?,
        receiver: sealed::read(&directory.join(RECORD)),
        server,
        server_error,
    })
}

fn ask_server(access: &Access, slot: &SlotName) -> Result<ServerSide> {
    let mut connection = access.connect()?;
    let identity = connection.identify()?;
    let found = access.slot(&mut connection, slot)?;
    let side = |restart_lsn: Option<crate::pg::lsn::Lsn>| SlotSide {
        restart_lsn,
        behind: restart_lsn.map(|restart| identity.flushed.0.saturating_sub(restart.0)),
    };
    Ok(ServerSide {
        system_id: identity.system_id,
        timeline: identity.timeline,
        flushed: identity.flushed,
        slot: found.map(|slot| side(slot.restart_lsn)),
    })
}
