//! What `bootstrap-restore` says on standard output: the plan, and what came of it; for people or, with
//! `--output json`, for machines.

use std::fmt;

use serde::Serialize;

use super::follow::{Ended, Prepared};
use super::perform::Written;
use super::plan::Plan;
use super::target::{Action, Target};
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::recovery::{Role, shell_quote};
use crate::pg::time::Timestamp;
use crate::repo::escape::StoredPath;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    plan: PlanReport,
    /// None after a dry run.
    restored: Option<Restored>,
    /// None when it was not started.
    server: Option<ServerReport>,
    #[serde(skip)]
    standby: bool,
    #[serde(skip)]
    action: Action,
}

#[derive(Clone, Debug, Serialize)]
struct PlanReport {
    cluster: String,
    system_id: String,
    data_directory: StoredPath,
    /// The cluster of Debian's that it is.
    debian: Option<String>,
    /// What starts the server.
    #[serde(skip)]
    start: String,
    target: Target,
    /// Where recovery ends, in words.
    end: String,
    end_lsn: Option<Lsn>,
    backup: String,
    backup_stop_time: Timestamp,
    backup_consistent_lsn: Lsn,
    timeline: Timeline,
    path: Vec<PathStep>,
    first_segment: String,
    last_segment: String,
    /// What recovery gets in place of the last segment.
    streamed: Option<StreamedReport>,
    files: u64,
    bytes: u64,
    tablespaces: Vec<TablespaceReport>,
    quarantined: bool,
    port: u16,
    socket_directory: StoredPath,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct StreamedReport {
    end_lsn: Lsn,
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct PathStep {
    timeline: Timeline,
    until: Option<Lsn>,
}

#[derive(Clone, Debug, Serialize)]
struct TablespaceReport {
    name: String,
    source: StoredPath,
    location: StoredPath,
}

#[derive(Clone, Debug, Serialize)]
struct Restored {
    files: u64,
    bytes: u64,
    bytes_written: u64,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ServerReport {
    pid: Option<i32>,
    in_recovery: bool,
    lsn: Option<Lsn>,
    /// Of the last transaction that was replayed.
    last_transaction: Option<Timestamp>,
    timeline: Option<Timeline>,
    /// None when the server did not let us look.
    prepared_transactions: Option<Vec<Prepared>>,
    psql: String,
    log: StoredPath,
}

impl Report {
    pub fn of_plan(plan: &Plan) -> Self {
        let decision = &plan.decision;
        Self {
            plan: PlanReport::new(plan),
            restored: None,
            server: None,
            standby: decision.standby.is_some(),
            action: decision.action,
        }
    }

    pub fn of_files(plan: &Plan, written: Written) -> Self {
        let restored = Restored {
            files: written.files.files,
            bytes: written.files.bytes,
            bytes_written: written.files.written,
            notes: written.notes,
        };
        Self { restored: Some(restored), ..Self::of_plan(plan) }
    }

    pub fn of_server(plan: &Plan, written: Written, ended: Ended) -> Self {
        let (user, database) = match &ended.login {
            Some(login) => (login.user.clone(), login.database.clone()),
            None => ("postgres".to_string(), "postgres".to_string()),
        };
        let socket = plan.server.socket_directory.to_string_lossy();
        let words = [&*socket, &plan.server.port.to_string(), &user, &database].map(shell_quote);
        let [socket, port, user, database] = words;
        let server = ServerReport {
            pid: ended.pid,
            in_recovery: ended.in_recovery,
            lsn: ended.lsn,
            last_transaction: ended.time,
            timeline: ended.timeline,
            prepared_transactions: ended.login.map(|login| login.prepared),
            psql: format!("psql -h {socket} -p {port} -U {user} -d {database}"),
            log: ended.log.into(),
        };
        Self { server: Some(server), ..Self::of_files(plan, written) }
    }

    pub fn json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))
    }
}

impl PlanReport {
    fn new(plan: &Plan) -> Self {
        let decision = &plan.decision;
        let (first, last) = decision.segments();
        let path = decision.path().into_iter().map(|(timeline, until)| PathStep { timeline, until });
        let tablespaces = plan.tablespaces.iter().map(|place| TablespaceReport {
            name: place.name.clone(),
            source: place.source.clone().into(),
            location: place.location.clone().into(),
        });
        Self {
            cluster: plan.cluster.name().to_string(),
            system_id: plan.cluster.system_id().to_string(),
            data_directory: plan.data.clone().into(),
            debian: plan.debian.as_ref().map(|registration| registration.name.to_string()),
            start: match &plan.debian {
                Some(registration) => registration.command("start"),
                None => format!("pg_ctl start -D {}", shell_quote(&plan.data.to_string_lossy())),
            },
            target: decision.aim.target.clone(),
            end: decision.end(),
            end_lsn: decision.standby.is_none().then(|| decision.choice.lsn()),
            backup: decision.header.label.to_string(),
            backup_stop_time: decision.choice.backup.stop_time,
            backup_consistent_lsn: decision.header.consistent_lsn,
            timeline: decision.choice.path.timeline(),
            path: path.collect(),
            first_segment: first.to_string(),
            last_segment: last.to_string(),
            streamed: decision.streamed().map(|part| StreamedReport {
                end_lsn: part.end,
                bytes: part.end.0 % decision.segment_size.bytes(),
            }),
            files: decision.header.map.files,
            bytes: decision.header.map.raw_bytes,
            tablespaces: tablespaces.collect(),
            quarantined: plan.server.role == Role::Quarantine,
            port: plan.server.port,
            socket_directory: plan.server.socket_directory.clone().into(),
            notes: plan.notes.clone(),
        }
    }
}

impl fmt::Display for Report {
    /// What came of the plan, which was shown before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.plan.data_directory.as_path().display();
        let Some(restored) = &self.restored else {
            return write!(f, "Dry run: nothing was written.");
        };
        writeln!(f, "Restored {} files, {} bytes, into {data}.", restored.files, restored.bytes)?;
        restored.notes.iter().try_for_each(|note| line(f, "note", note))?;
        match &self.server {
            None => self.not_started(f)?,
            Some(server) => self.started(f, server)?,
        }
        if let Some(name) = &self.plan.debian {
            line(f, "cluster", &format_args!("{name}, as pg_lsclusters shows it"))?;
        }
        if self.plan.quarantined {
            line(
                f,
                "quarantine",
                &"archives nothing, runs no subscriptions or jobs; --takeover restores a successor",
            )?;
        }
        write!(f, "  {:<12}users and their passwords are those of the source", "passwords")
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<12}{text}")
}

impl Report {
    fn not_started(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "server", &"not started: recovery begins when it is")?;
        line(f, "start it", &self.plan.start)
    }

    fn started(&self, f: &mut fmt::Formatter<'_>, server: &ServerReport) -> fmt::Result {
        let timeline = server.timeline.map(|timeline| format!(" on timeline {timeline}")).unwrap_or_default();
        let state = match (self.standby, self.action, server.pid) {
            (true, ..) => "runs as a standby".to_string(),
            (false, Action::Pause, _) => "is paused at the target, read-only".to_string(),
            (false, Action::Shutdown, _) | (.., None) => "has shut down at the target".to_string(),
            (false, Action::Promote, _) => "accepts reads and writes".to_string(),
        };
        line(f, "server", &format_args!("{state}{timeline}, port {}", self.plan.port))?;
        if let Some(lsn) = server.lsn {
            line(f, "replayed", &format_args!("up to LSN {lsn}"))?;
        }
        if let Some(time) = server.last_transaction {
            line(f, "", &format_args!("the last transaction ended at {time}"))?;
        }
        self.prepared(f, server)?;
        if server.pid.is_some() {
            line(f, "connect", &server.psql)?;
        }
        if !self.standby && self.action == Action::Pause {
            line(
                f,
                "go on",
                &"select pg_wal_replay_resume()  -- promotes it; or restore again to another target",
            )?;
        }
        line(f, "log", &server.log.as_path().display())
    }

    fn prepared(&self, f: &mut fmt::Formatter<'_>, server: &ServerReport) -> fmt::Result {
        let Some(prepared) = &server.prepared_transactions else {
            if server.pid.is_none() {
                return Ok(());
            }
            return line(f, "prepared", &"unknown: the server did not let us look into pg_prepared_xacts");
        };
        prepared.iter().try_for_each(|transaction| {
            let Prepared { gid, owner, database } = transaction;
            let text = format!(
                "transaction '{gid}' of {owner} in {database} holds its locks: COMMIT or ROLLBACK PREPARED"
            );
            line(f, "prepared", &text)
        })
    }
}
