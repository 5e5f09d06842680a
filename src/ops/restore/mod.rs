//! `bootstrap-restore`: creates a server like the one that was backed up, as it was at a chosen moment.
//! `run()` is the sequence; each step has its file.
//!
//! Refuses before the first write whatever would not end well, and says what can be reached instead.
//! Invariants: a directory that is not whole is marked so and has no pg_control; the restored server archives
//! nothing, runs no jobs and touches no file of its source, unless it shall take over.

pub mod archive;
pub mod choose;
mod configure;
mod crew;
pub mod debian;
mod direct;
pub mod directory;
mod durability;
pub mod files;
mod follow;
mod libraries;
pub mod listed;
pub mod memory;
mod neighbours;
mod notes;
mod perform;
pub mod place;
pub mod plan;
mod preflight;
mod protect;
pub mod record;
pub mod report;
#[cfg(test)]
mod round_trip;
mod scatter;
mod size;
pub mod source;
pub mod space;
pub mod streamed;
pub mod survey;
pub mod tablespaces;
pub mod target;
mod tree;
pub mod window;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ident::Name;
use crate::interrupt::Interrupt;
use crate::pg::control::RecoverySettings;
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::recovery::Minimums;
use crate::pg::settings_file::Setting;
use crate::pg::time::Timestamp;
use crate::progress::Display;
use crate::repo::backup::BackupHeader;
use debian::DebianName;
use directory::Replace;
use plan::{Decision, Plan, StandbyOf};
use report::Report;
use source::Source;
use streamed::Ends;
use tablespaces::Mapping;
use target::{Action, Aim, Target};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The data directory that is to be; absolute.
    pub data: PathBuf,
    /// The cluster of Debian's that it is to be.
    pub debian: Option<DebianName>,
    pub aim: Aim,
    pub action: Action,
    /// None: the newest backup from which the target can be reached.
    pub backup: Option<Name>,
    /// None: the only incarnation of the cluster, or the one with the newest backup.
    pub system_id: Option<SystemId>,
    /// None: recovery ends at the target.
    pub standby: Option<StandbyOf>,
    pub takeover: bool,
    pub replace: Replace,
    pub tablespace_map: Vec<Mapping>,
    pub set: Vec<Setting>,
    /// None: as configured.
    pub jobs: Option<NonZeroUsize>,
    /// None: a free one.
    pub port: Option<u16>,
    pub socket_directory: Option<PathBuf>,
    pub bin_dir: Option<PathBuf>,
    /// Where programs are looked for (PATH).
    pub path: Option<OsString>,
    pub start: bool,
    pub dry_run: bool,
    pub display: Display,
}

impl Request {
    /// A setting as the restored server will have it: as asked for, else as the source had it.
    fn setting<'a>(&'a self, header: &'a BackupHeader, name: &str) -> Option<&'a str> {
        let set = self.set.iter().rev().find(|setting| setting.name.eq_ignore_ascii_case(name));
        set.map(|setting| setting.value.as_str()).or_else(|| header.settings.get(name).map(String::as_str))
    }
}

/// Restores, or, for a dry run, only plans. `planned` is shown the plan before anything is done.
pub fn run(config: &Config, request: &Request, planned: impl FnOnce(&Plan) -> Result<()>) -> Result<Report> {
    check_request(request)?;
    let interrupt = Interrupt::install()?;
    let source = Source::open(config, request.system_id)?;
    let jobs = request.jobs.unwrap_or(config.restore.jobs);
    let decision = decide(&source, request, jobs)?;
    let notes = notes::notes(&source, request, &decision, jobs)?;
    let plan = preflight::plan(config, request, &source, decision, notes)?;
    planned(&plan)?;
    if request.dry_run {
        return Ok(Report::of_plan(&plan));
    }
    // Until recovery is where it was to end; dropped on errors too.
    let lease = protect::protect(&plan.cluster, &plan.decision, request.display, &interrupt)?;
    let written = perform::write(&plan, jobs, request.display, &interrupt)?;
    let ended = follow::start(&plan, request.display, &interrupt)?;
    drop(lease);
    match ended {
        Some(ended) => Ok(Report::of_server(&plan, written, ended)),
        None => Ok(Report::of_files(&plan, written)),
    }
}

/// Refuses combinations that PostgreSQL would ignore in silence.
fn check_request(request: &Request) -> Result<()> {
    let has_sides = matches!(request.aim.target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_));
    if !request.aim.inclusive && !has_sides {
        return Err(Error::configuration(
            "--exclusive has a meaning for a time, an LSN and a transaction only",
        )
        .with_hint("leave it out, or name one of these targets"));
    }
    Ok(())
}

/// Which backup, which timeline, how far: and what the WAL on the way says. Streamed parts count where they may.
fn decide(source: &Source, request: &Request, jobs: NonZeroUsize) -> Result<Decision> {
    let mut ends = source.streamed_ends()?;
    if request.standby.is_some() {
        ends.refuse_all("a standby goes on behind it");
    }
    let decision = decide_with(source, request, jobs, &ends)?;
    let Some(part) = decision.streamed() else { return Ok(decision) };
    if !streamed::archives_always(request, &decision.header) {
        // Found damaged only when recovery comes to it, it would cost a whole restore.
        streamed::read(&source.cluster, part, &mut std::io::sink()).map_err(|error| ends.explain(error))?;
        return Ok(decision);
    }
    ends.refuse_all(
        "with archive_mode = always the server would archive it as a whole segment; add --set archive_mode=on",
    );
    decide_with(source, request, jobs, &ends)
}

fn decide_with(source: &Source, request: &Request, jobs: NonZeroUsize, ends: &Ends) -> Result<Decision> {
    let archive = source.archive(jobs, ends);
    let candidates = source.candidates(request.backup.as_ref())?;
    let aim = match &request.standby {
        Some(standby) => standby_aim(source, standby)?,
        None => request.aim.clone(),
    };
    let now = Timestamp::from_unix(jiff::Timestamp::now().as_microsecond())
        .ok_or_else(|| Error::configuration("the clock of this host is out of its range"))?;
    let choice = choose::choose(&archive, &source.histories, &candidates, &aim, now)
        .map_err(|error| ends.explain(error))?;
    let header = source.header(&choice.backup.label)?.clone();
    let survey = survey::survey(&archive, &choice, &aim, minimums(&header)?)?;
    source.cluster.repository().confirm()?;
    Ok(Decision {
        header,
        choice,
        survey,
        aim,
        action: request.action,
        standby: request.standby.clone(),
        asked_backup: request.backup.is_some(),
        segment_size: source.segment_size,
        ends: ends.clone(),
    })
}

/// A standby goes on along the newest timeline. One that streams needs the archive for the backup only; one that
/// does not must find all of it there.
fn standby_aim(source: &Source, standby: &StandbyOf) -> Result<Aim> {
    let newest = source.histories.keys().next_back().copied();
    let timeline: Timeline =
        newest.ok_or_else(|| Error::not_found("the repository has no WAL of this cluster"))?;
    let target = if standby.primary_conninfo.is_some() { Target::Immediate } else { Target::Latest };
    Ok(Aim { target, inclusive: true, timeline: Some(timeline) })
}

/// What recovery needs from its first record on: what the server had when the backup was taken, which is never
/// less than what its pg_control says.
fn minimums(header: &BackupHeader) -> Result<Minimums> {
    let number = |name: &str| -> Result<u32> {
        let text = header.settings.get(name).map_or("0", String::as_str);
        text.parse().map_err(|_| {
            Error::corrupt(format!("backup {} says {name} = \"{text}\", which is no number", header.label))
        })
    };
    Ok(Minimums::of_control(&RecoverySettings {
        max_connections: number("max_connections")?,
        max_worker_processes: number("max_worker_processes")?,
        max_wal_senders: number("max_wal_senders")?,
        max_prepared_transactions: number("max_prepared_transactions")?,
        max_locks_per_transaction: number("max_locks_per_transaction")?,
    }))
}
