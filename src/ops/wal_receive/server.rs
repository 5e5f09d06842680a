//! What has to be right about the server before WAL is streamed from it: that it is the cluster's, that its
//! slot is there, and that the repository has the histories of its timelines.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pg::client::Client;
use crate::pg::conninfo::{ConnRequest, ConnSettings, Environment};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::pg::names::WalFile;
use crate::pg::replication::{Created, Login, Replication, Slot, SlotName};
use crate::repo::catalog::Catalog;
use crate::repo::{Cluster, Repository, intake, segment};

/// The first version that tells a slot's position to a walsender.
const TELLS_SLOTS: u32 = 15;
/// The database that a passfile's line for replication names, as in libpq.
const PASSFILE_DATABASE: &str = "replication";

/// How to reach the server, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Access {
    connection: ConnRequest,
    login: Login,
}

impl Access {
    pub fn new(config: &Config, connection: &ConnRequest, slot: &SlotName) -> Self {
        let login =
            Login { application_name: slot.as_str().to_string(), allow_md5: config.receive.allow_md5 };
        Self { connection: connection.clone(), login }
    }

    /// The environment and the files that it names are read afresh each time.
    pub fn connect(&self) -> Result<Replication> {
        let database = Some(PASSFILE_DATABASE.to_string());
        let request = ConnRequest { dbname: database, ..self.connection.clone() };
        let settings = ConnSettings::resolve(&request, &Environment::from_process()?)?;
        Replication::connect(&settings, &self.login)
    }

    /// The slot; None: there is none. PostgreSQL 14 tells it in a session for statements only.
    pub fn slot(&self, connection: &mut Replication, slot: &SlotName) -> Result<Option<Slot>> {
        if connection.major()?.number() >= TELLS_SLOTS {
            return connection.read_slot(slot);
        }
        let settings = ConnSettings::resolve(&self.connection, &Environment::from_process()?)?;
        let mut client = Client::connect(&settings).map_err(|error| {
            Error::new(error.kind(), format!("could not ask PostgreSQL 14 where slot {slot} stands: {error}"))
                .with_hint("let the role connect to a database too (--dbname), or use PostgreSQL 15 or newer")
        })?;
        let question = "select restart_lsn::text from pg_replication_slots where slot_name = $1";
        let rows = client.query(question, &[&slot.as_str()])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let restart_lsn = row.get::<Option<String>>(0)?.map(|lsn| lsn.parse()).transpose()?;
        Ok(Some(Slot { restart_lsn }))
    }

    /// The oldest WAL that the slot keeps, which is created if it is missing. None: it keeps none, or nobody
    /// tells.
    pub fn reserve(&self, connection: &mut Replication, slot: &SlotName) -> Result<Option<Lsn>> {
        let told = |found: Option<Slot>| found.and_then(|slot| slot.restart_lsn);
        match self.slot(connection, slot) {
            Ok(Some(found)) => {
                if found.restart_lsn.is_none() {
                    tracing::warn!(
                        "slot {slot} keeps no WAL: it is new, or the server has invalidated it \
                         (max_slot_wal_keep_size); then --drop-slot and a new start help"
                    );
                }
                return Ok(found.restart_lsn);
            }
            Ok(None) => {}
            Err(error) if connection.major()?.number() < TELLS_SLOTS => {
                tracing::warn!("{error}; an empty repository begins with the WAL of now");
                return connection.create_slot(slot).map(|_| None);
            }
            Err(error) => return Err(error),
        }
        if connection.create_slot(slot)? == Created::New {
            tracing::info!("created the replication slot {slot}");
        }
        self.slot(connection, slot).map(told)
    }
}

/// Refuses a server whose WAL would lie beside that of another one under the same name. After pg_upgrade or a
/// new initdb that is right, and has to be said.
pub(super) fn check_cluster(
    repository: &Repository,
    config: &Config,
    found: SystemId,
    expected: Option<SystemId>,
) -> Result<()> {
    let refused = |cause: String| {
        Err(Error::configuration(format!(
            "could not receive WAL of this server: its system identifier is {found}, {cause}"
        )))
    };
    match expected {
        Some(expected) if expected == found => return Ok(()),
        Some(expected) => return refused(format!("not {expected}")),
        None => {}
    }
    let known = repository.system_ids(&config.cluster)?;
    if known.is_empty() || known.contains(&found) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    refused(format!("but the repository's cluster {} is {}", config.cluster, known.join(" or "))).map_err(
        |error| {
            error.with_hint(format!(
                "is this the right server? If it is (after pg_upgrade), say so once with --system-id {found}"
            ))
        },
    )
}

/// The path that led to a timeline, from the server, stored with those of its ancestors that the repository
/// lacks: a timeline without history can't be restored.
pub(super) fn bring_history(
    connection: &mut Replication,
    cluster: &Cluster,
    catalog: &Catalog<'_>,
    timeline: Timeline,
) -> Result<TimelineHistory> {
    if timeline == Timeline(1) {
        return Ok(TimelineHistory::without_parents(timeline));
    }
    let Some(content) = connection.history(timeline)? else {
        return catalog.history(timeline)?.ok_or_else(|| {
            Error::postgres(format!("the server has no {} in its pg_wal", WalFile::History(timeline)))
                .with_hint("a copy from another server or from the old archive belongs there")
        });
    };
    let history = TimelineHistory::parse(timeline, &content)?;
    store(cluster, timeline, &content)?;
    for ancestor in history.entries().iter().map(|entry| entry.timeline) {
        if ancestor > Timeline(1) && !segment::has_history(cluster, ancestor)? {
            match connection.history(ancestor)? {
                Some(content) => store(cluster, ancestor, &content)?,
                None => tracing::warn!(
                    "neither the repository nor the server has {}: targets on timeline {ancestor} can't be reached",
                    WalFile::History(ancestor)
                ),
            }
        }
    }
    Ok(history)
}

fn store(cluster: &Cluster, timeline: Timeline, content: &[u8]) -> Result<()> {
    TimelineHistory::parse(timeline, content)?;
    let stored = segment::put_plain(cluster, WalFile::History(timeline), content)?;
    intake::really_there(cluster, stored).map(drop)
}

/// The server does not have the WAL that is next, or its slot can't be used. Neither passes by waiting.
pub(super) fn explain(error: Error, next: impl std::fmt::Display, slot: &SlotName) -> Error {
    match error.kind() {
        Kind::NotFound => {}
        Kind::Configuration => {
            return error.with_hint(format!(
                "if the server has invalidated slot {slot} (max_slot_wal_keep_size), drop it with --drop-slot and \
                 start again: a new one is created"
            ));
        }
        _ => return error,
    }
    Error::not_found(format!(
        "the archive ends before {next}, and the server does not have that segment any more: {error}"
    ))
    .with_hint(format!(
        "if a standby's pg_wal or another archive still has it and what follows, wal-push these; else \
         --accept-gap goes on where slot {slot} begins, and a new base backup is needed to restore beyond the gap"
    ))
}
