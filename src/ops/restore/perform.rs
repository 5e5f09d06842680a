//! Carrying out the plan up to the whole directory, in an order in which a crash at any point leaves either
//! what was there before, or a directory that is marked and has no pg_control, or a whole one.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::configure;
use super::directory;
use super::files::{FilesJob, Summary, restore_files};
use super::place::Places;
use super::plan::Plan;
use super::record::{self, OwnedTablespace, Record};
use super::tablespaces;
use crate::durable;
use crate::error::Result;
use crate::ident::Id;
use crate::interrupt::Interrupt;
use crate::pg::server::{self, Stop};
use crate::progress::{Display, Progress};

/// How long the server that is replaced may take to shut down: it may have to write a checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(600);

/// Receives, inside the data directory, the configuration files that were outside the source's.
const CONFIG_SINK: &str = "pgark-restore-config";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub files: Summary,
    pub notes: Vec<String>,
}

/// Replaces what is there and writes everything, pg_control last.
pub fn write(plan: &Plan, jobs: NonZeroUsize, display: Display, interrupt: &Interrupt) -> Result<Written> {
    if plan.clearing.stop_server {
        server::stop(&plan.data, Stop::Fast, STOP_LIMIT)?;
    }
    if let Some(registration) = &plan.debian {
        registration.withdraw()?;
    }
    directory::prepare(&plan.data, &plan.clearing, &plan.freed)?;
    write_marked(plan, jobs, display, interrupt).map_err(|error| {
        let data = plan.data.display();
        let hint = format!("{data} is incomplete and no server starts in it; --replace removes it");
        let hint = error.hint().map_or_else(|| hint.clone(), |own| format!("{own}; {hint}"));
        error.with_hint(hint)
    })
}

fn write_marked(plan: &Plan, jobs: NonZeroUsize, display: Display, interrupt: &Interrupt) -> Result<Written> {
    let record = record(plan)?;
    record.write(&plan.data)?;
    for place in &plan.tablespaces {
        durable::create_dir_all(&place.location, durable::PRIVATE)?;
        tablespaces::keep_others_out(&place.location, plan.decision.header.server.major)?;
        record.claim(&place.location, &plan.data)?;
    }
    let make = |directory: &PathBuf| durable::create_dir_all(directory, durable::PRIVATE);
    plan.made_for_replay.iter().try_for_each(make)?;
    let sink = plan.data.join(CONFIG_SINK);
    let progress = Progress::start(display, "restoring");
    let job = FilesJob {
        cluster: &plan.cluster,
        header: &plan.decision.header,
        places: Places { data: plan.data.clone(), tablespaces: plan.locations(), config: sink.clone() },
        jobs,
        progress: &progress,
        interrupt,
    };
    let restored = restore_files(&job);
    progress.finish();
    let restored = restored?;
    let notes = configure::configure(plan, &sink)?;
    let files = restored.complete()?;
    record::remove_tree(&sink)?;
    if let Some(registration) = &plan.debian {
        registration.register(&plan.data)?;
    }
    record::mark_complete(&plan.data)?;
    Ok(Written { files, notes })
}

fn record(plan: &Plan) -> Result<Record> {
    let header = &plan.decision.header;
    let owned = plan
        .tablespaces
        .iter()
        .map(|place| OwnedTablespace { oid: place.oid, location: place.location.clone().into() });
    Ok(Record {
        id: Id::random()?,
        started: Timestamp::now(),
        pgark: env!("CARGO_PKG_VERSION").to_string(),
        repository: plan.cluster.repository().id(),
        cluster: plan.cluster.name().clone(),
        system_id: plan.cluster.system_id(),
        major: header.server.major,
        backup: header.label.clone(),
        target: plan.decision.aim.target.to_string(),
        tablespaces: owned.collect(),
    })
}
