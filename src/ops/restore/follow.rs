//! Starts the restored server and follows it until recovery is where it was to end: what it replays, why it
//! stops, and what is left over.
//!
//! It is asked over its socket. One that does not let us in is followed by what it leaves in its data
//! directory: pg_control and the log. Invariant: success means that the server itself said it got there.

use std::path::PathBuf;
use std::time::Duration;

use super::plan::Plan;
use super::target::Action;
use crate::error::{Error, IoContext, Result};
use crate::interrupt::Interrupt;
use crate::pg::binaries::Binaries;
use crate::pg::client::Client;
use crate::pg::conninfo::{ConnSettings, Environment};
use crate::pg::control::{ControlFile, DbState};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::server::{Launch, Pause, RecoveryProgress, Server, State, replayed_segment};
use crate::pg::time::Timestamp;
use crate::progress::{Display, Progress};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A server that turns us away is not asked more often.
const MOST_LOGINS: u32 = 3;
/// In the data directory: where the server logs to until it is started by somebody else.
const LOG: &str = "pgark-restore.log";

const WITHOUT_HOT_STANDBY: &str = "a prepared transaction was pending where a timeline began, and a hot standby looks \
    for it in a file that recovery does without: restore again with --replace --set hot_standby=off, or from a newer \
    backup";

const PREPARED: &str = "select gid, owner::text, database::text from pg_prepared_xacts order by prepared";

/// Where recovery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// None: the server has shut down.
    pub pid: Option<i32>,
    /// It still recovers: paused, or as a standby.
    pub in_recovery: bool,
    pub lsn: Option<Lsn>,
    /// The last transaction that was replayed.
    pub time: Option<Timestamp>,
    pub timeline: Option<Timeline>,
    /// None: it did not let us in.
    pub login: Option<Login>,
    pub log: PathBuf,
}

/// What could be asked over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub database: String,
    pub prepared: Vec<Prepared>,
}

/// A prepared transaction that nobody has decided about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Prepared {
    pub gid: String,
    pub owner: String,
    pub database: String,
}

/// Starts the server, if it is to be started, and waits for the end of recovery.
pub fn start(plan: &Plan, display: Display, interrupt: &Interrupt) -> Result<Option<Ended>> {
    let Some(binaries) = &plan.server.binaries else { return Ok(None) };
    let mut follower = Follower::start(plan, binaries, display)?;
    let ended = follower.follow(interrupt);
    follower.progress.finish();
    ended.map(Some)
}

struct Follower<'a> {
    plan: &'a Plan,
    server: Server,
    log: PathBuf,
    progress: Progress,
    client: Option<Client>,
    logins: u32,
    /// Where replay was last seen.
    seen: Lsn,
    last: Option<RecoveryProgress>,
    login: Option<(String, String)>,
}

impl<'a> Follower<'a> {
    fn start(plan: &'a Plan, binaries: &Binaries, display: Display) -> Result<Self> {
        let log = plan.debian.as_ref().map_or_else(|| plan.data.join(LOG), |registration| registration.log());
        let config_file = plan.debian.as_ref().map(|registration| registration.config_file());
        let server = Server::start(&Launch {
            binaries,
            data_directory: &plan.data,
            config_file: config_file.as_deref(),
            settings: &[],
            log: &log,
            run_as: None,
        })?;
        let choice = &plan.decision.choice;
        let progress = Progress::start(display, "replaying");
        if plan.decision.standby.is_none() {
            progress.set_total(choice.lsn().0.saturating_sub(choice.backup.start.0));
        }
        let seen = choice.backup.start;
        Ok(Self { plan, server, log, progress, client: None, logins: 0, seen, last: None, login: None })
    }

    fn follow(&mut self, interrupt: &Interrupt) -> Result<Ended> {
        loop {
            let state = self.server.state()?;
            if let State::Ended(status) = state {
                let wanted =
                    self.plan.decision.action == Action::Shutdown && self.plan.decision.standby.is_none();
                return if wanted && status.success() { self.shut_down() } else { Err(self.failed(status)) };
            }
            self.look(state)?;
            if self.is_there(state)? {
                return self.running();
            }
            self.progress.tick();
            interrupt.sleep(LOOK_EVERY).map_err(|error| self.interrupted(error))?;
        }
    }

    /// Asks how far it is, in the best way that there is now.
    fn look(&mut self, state: State) -> Result<()> {
        if state == State::Ready && self.client.is_none() && self.logins < MOST_LOGINS {
            self.logins += 1;
            self.log_in()?;
        }
        if let Some(client) = &mut self.client {
            match RecoveryProgress::ask(client) {
                Ok(progress) => self.last = Some(progress),
                // It may be shutting down or ending recovery; the next look tells.
                Err(error) => {
                    tracing::debug!("{error}");
                    self.client = None;
                    self.logins = self.logins.saturating_sub(1);
                }
            }
        }
        let segment = || replayed_segment(self.server.pid())?.start(self.plan.decision.segment_size).ok();
        let replayed = self.last.and_then(|progress| progress.replayed).or_else(segment);
        if let Some(lsn) = replayed.filter(|lsn| *lsn > self.seen) {
            self.progress.add(lsn.0.saturating_sub(self.seen.0));
            self.seen = lsn;
            let time = self.last.and_then(|progress| progress.replayed_time);
            let time = time.map(|time| format!(", {time}")).unwrap_or_default();
            self.progress.describe(format!("at LSN {lsn}{time}"));
        }
        Ok(())
    }

    /// As whoever the environment says, else as the superuser of most clusters.
    fn log_in(&mut self) -> Result<()> {
        let server = &self.plan.server;
        let own = ConnSettings::local(&server.socket_directory, server.port, &Environment::from_process()?)?;
        let users = [own.user.clone(), "postgres".to_string()];
        for user in users {
            for database in [own.dbname.as_str(), "template1"] {
                let mut settings = own.clone();
                (settings.user, settings.dbname) = (user.clone(), database.to_string());
                match Client::connect(&settings) {
                    Ok(client) => {
                        self.client = Some(client);
                        self.login = Some((user, database.to_string()));
                        return Ok(());
                    }
                    Err(error) => tracing::debug!("could not log in as {user} to {database}: {error}"),
                }
            }
        }
        Ok(())
    }

    /// Whether recovery is where it was to end.
    fn is_there(&self, state: State) -> Result<bool> {
        let decision = &self.plan.decision;
        let ready = matches!(state, State::Ready | State::Standby);
        if decision.standby.is_some() {
            return Ok(ready && (self.client.is_some() || self.logins >= MOST_LOGINS));
        }
        match (decision.action, &self.last) {
            (Action::Shutdown, _) => Ok(false),
            (Action::Promote, Some(progress)) if progress.pause == Pause::Paused => Err(self.paused_early()),
            (Action::Promote, Some(progress)) => Ok(!progress.in_recovery && ready),
            (Action::Promote, None) => Ok(ready && self.logins >= MOST_LOGINS && self.is_in_production()?),
            (Action::Pause, Some(progress)) => Ok(progress.pause == Pause::Paused),
            (Action::Pause, None) => {
                Ok(self.logins >= MOST_LOGINS && self.log_says("pausing at the end of recovery")?)
            }
        }
    }

    fn is_in_production(&self) -> Result<bool> {
        Ok(ControlFile::read(&self.plan.data)?.state == DbState::InProduction)
    }

    fn log_says(&self, words: &str) -> Result<bool> {
        let log = std::fs::read(&self.log).doing(|| format!("read the log {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&log).contains(words))
    }

    fn running(&mut self) -> Result<Ended> {
        let prepared = match &mut self.client {
            Some(client) => prepared(client)?,
            None => Vec::new(),
        };
        let login = self.login.take().filter(|_| self.client.is_some());
        let login = login.map(|(user, database)| Login { user, database, prepared });
        let progress = self.last;
        let control = ControlFile::read(&self.plan.data)?;
        Ok(Ended {
            pid: Some(self.server.pid()),
            in_recovery: progress
                .map_or(control.state != DbState::InProduction, |progress| progress.in_recovery),
            lsn: progress.and_then(|progress| progress.replayed),
            time: progress.and_then(|progress| progress.replayed_time),
            timeline: progress.and_then(|progress| progress.timeline).or(Some(control.checkpoint_timeline)),
            login,
            log: self.log.clone(),
        })
    }

    fn shut_down(&self) -> Result<Ended> {
        let control = ControlFile::read(&self.plan.data)?;
        if control.state != DbState::ShutDownInRecovery {
            return Err(Error::postgres(format!(
                "the server in {} ended, and its state is \"{}\" instead of shut down in recovery",
                self.plan.data.display(),
                control.state.as_str()
            ))
            .with_hint(format!("its log is {}", self.log.display())));
        }
        Ok(Ended {
            pid: None,
            in_recovery: true,
            lsn: Some(control.min_recovery_point),
            time: None,
            timeline: Some(control.min_recovery_timeline),
            login: None,
            log: self.log.clone(),
        })
    }

    fn failed(&self, status: std::process::ExitStatus) -> Error {
        let reached = format!("recovery had reached LSN {}", self.seen);
        let target = &self.plan.decision.aim.target;
        let error = self.server.failure(status).context(format!("could not recover to {target}, {reached}"));
        if lost_a_prepared_transaction(&error.to_string()) {
            error.with_hint(WITHOUT_HOT_STANDBY)
        } else {
            error
        }
    }

    fn paused_early(&self) -> Error {
        Error::postgres(format!("recovery paused at LSN {}, before its target", self.seen)).with_hint(
            format!(
                "the log {} says why; a setting may be lower than at the source: restore again with --set",
                self.log.display()
            ),
        )
    }

    fn interrupted(&self, error: Error) -> Error {
        error
            .context(format!(
                "the server in {} goes on recovering by itself, at LSN {}",
                self.plan.data.display(),
                self.seen
            ))
            .with_hint(format!("its log is {}; `{}` stops it", self.log.display(), stop_command(self.plan)))
    }
}

/// A hot standby that replays the shutdown checkpoint with which a timeline begins reads what is prepared from pg_wal
/// (StandbyRecoverPreparedTransactions in twophase.c), under the name of the timeline before, since the last replayed
/// one is not the new one yet (XLogReadDetermineTimeline in xlogutils.c). Recovery brought the segment under the new
/// timeline's name alone. Seen in 15.20 and 17.11.
fn lost_a_prepared_transaction(said: &str) -> bool {
    said.contains("requested WAL segment ") && said.contains(" has already been removed")
}

fn stop_command(plan: &Plan) -> String {
    match &plan.debian {
        Some(registration) => registration.command("stop"),
        None => format!("pg_ctl stop -D {}", crate::pg::recovery::shell_quote(&plan.data.to_string_lossy())),
    }
}

fn prepared(client: &mut Client) -> Result<Vec<Prepared>> {
    let rows = client.query(PREPARED, &[])?;
    rows.iter()
        .map(|row| Ok(Prepared { gid: row.get(0)?, owner: row.get(1)?, database: row.get(2)? }))
        .collect()
}
