//! Leases: how backups, expiry and sweeps on different hosts keep out of each other's way.
//!
//! A lease is an object that names a run; it is created and deleted, never edited. To acquire: create
//! one's own, then list all; whoever sees another living lease that its kind must wait for deletes its own. Both
//! create before they list, so of two at least one sees the other. Held leases are renewed by creating another object of
//! the same run; an object is deleted only one renewal after its successor was created, so that a listing
//! in progress, which may miss what appears meanwhile, sees one of them.
//!
//! A lease is stale when its process is seen to be dead, or, where it can't be looked up, when its newest
//! object is older than [`TTL`], by the store's clock: compared with the object that we just created.
//! Whoever acquires deletes stale leases, and only after that may a sweep take the packs of their runs. A
//! sweep itself judges nothing: every lease object that it sees protects its run.
//!
//! Frozen: a process that slept longer than [`TTL`] finds its objects gone when it wakes, and its lease is lost.
//! It may wake between its last look and creating its header, so it looks again after that and removes
//! the header if need be (`repo::backup::write`). The look requires a renewal within half of [`TTL`].

mod holder;
mod process;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use holder::Lease;
pub use process::Process;

use super::layout::{Id, Name};
use super::{Cluster, parse_json};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::Timeline;
use crate::pg::names::SegmentName;
use crate::store::Meta;

/// How long a lease lives without being renewed.
pub const TTL: Duration = Duration::from_secs(30 * 60);

const VERSION: u32 = 1;

/// What a lease is for. All kinds protect their run's packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseKind {
    /// One at a time, and not while an expiry is at work: what it builds on must not go.
    Backup,
    /// One at a time. It may begin while a backup runs, and then leaves that what it may need.
    Expire,
    /// Any number.
    Restore,
}

impl LeaseKind {
    /// Whether a run of this kind can't begin while one of the other kind is at work.
    fn waits_for(self, other: LeaseKind) -> bool {
        matches!(
            (self, other),
            (LeaseKind::Backup, LeaseKind::Backup | LeaseKind::Expire)
                | (LeaseKind::Expire, LeaseKind::Expire)
        )
    }
}

impl fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeaseKind::Backup => "backup",
            LeaseKind::Expire => "expiry",
            LeaseKind::Restore => "restore",
        })
    }
}

/// What a run wants to do, and what must stay meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    kind: LeaseKind,
    label: Option<Name>,
    wal: Option<NeededWal>,
}

impl Purpose {
    /// To write the backup `label`.
    pub fn backup(label: &Name) -> Self {
        Self { kind: LeaseKind::Backup, label: Some(label.clone()), wal: None }
    }

    pub fn expire() -> Self {
        Self { kind: LeaseKind::Expire, label: None, wal: None }
    }

    /// To restore the backup `label`, with WAL from `wal` on.
    pub fn restore(label: &Name, wal: NeededWal) -> Self {
        Self { kind: LeaseKind::Restore, label: Some(label.clone()), wal: Some(wal) }
    }
}

/// The WAL that a restore reads: all of a path from a segment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeededWal {
    pub first: SegmentName,
    /// The one to which the path leads.
    pub timeline: Timeline,
}

/// A lease object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub kind: LeaseKind,
    pub run: Id,
    /// Of the backup that the run writes or restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Name>,
    /// What a restore reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<NeededWal>,
    pub process: Process,
    /// When the run began, by its host's clock: for people.
    pub started: Timestamp,
    /// The lease object before this one, of the same run.
    pub renews: Option<Id>,
}

impl Record {
    /// "backup 20261123-101502", "expiry"
    pub fn what(&self) -> String {
        self.label.as_ref().map_or_else(|| self.kind.to_string(), |label| format!("{} {label}", self.kind))
    }

    /// "process 77 of postgres on db2, since 2026-11-23T03:10:00Z"
    pub fn who(&self) -> String {
        let process = &self.process;
        format!("process {} of {} on {}, since {:.0}", process.pid, process.user, process.host, self.started)
    }
}

/// All lease objects of one run; or one object that can't be read, which may be of any run and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of the newest object. None when it can't be read.
    pub record: Option<Record>,
    /// Oldest first; never empty.
    objects: Vec<Meta>,
}

impl Held {
    /// When the newest object was created, by the store's clock.
    pub fn renewed(&self) -> SystemTime {
        self.objects.last().map_or(SystemTime::UNIX_EPOCH, |object| object.modified)
    }

    /// Whether the lease may still be held. `here` is this process, `now` the store's clock.
    fn is_live(&self, here: &Process, now: SystemTime) -> bool {
        match &self.record {
            Some(record) if record.process.is_beside(here) => record.process.is_alive(),
            // An object from the future (the store's clock was set back) counts as new.
            _ => now.duration_since(self.renewed()).map_or(true, |age| age <= TTL),
        }
    }

    /// Whether a run of that kind can't begin beside this one.
    fn excludes(&self, kind: LeaseKind) -> bool {
        self.record.as_ref().is_none_or(|record| kind.waits_for(record.kind))
    }

    /// Why somebody else can't have the lease now.
    fn conflict(&self, here: &Process) -> Error {
        let Some(record) = &self.record else {
            let keys: Vec<&str> = self.objects.iter().map(|object| object.key.as_str()).collect();
            return Error::conflict(format!(
                "somebody holds a lease that can't be read: {}",
                keys.join(", ")
            ))
            .with_hint(format!(
                "a newer pgark may be at work; it lapses at {} unless renewed",
                self.lapses()
            ));
        };
        let article = if record.kind == LeaseKind::Expire { "an" } else { "a" };
        let error = Error::conflict(format!(
            "{article} {} is running already: {}",
            record.kind,
            record.label.as_ref().map_or_else(|| record.who(), |label| format!("{label}, {}", record.who()))
        ));
        if record.process.is_beside(here) {
            error.with_hint("wait for it to end")
        } else {
            error.with_hint(format!(
                "wait for it to end; if it has died, its lease lapses at {}",
                self.lapses()
            ))
        }
    }

    fn lapses(&self) -> String {
        Timestamp::try_from(self.renewed() + TTL)
            .map_or_else(|_| "an unknown time".into(), |at| at.to_string())
    }
}

/// Every lease of a cluster, live or stale.
pub fn list(cluster: &Cluster) -> Result<Vec<Held>> {
    let mut runs: BTreeMap<Id, Vec<(Meta, Record)>> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for object in cluster.store().level(&cluster.layout().leases()?)?.objects {
        match read(cluster, &object) {
            Ok(record) => runs.entry(record.run).or_default().push((object, record)),
            // Released since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::warn!("{error}");
                unreadable.push(Held { record: None, objects: vec![object] });
            }
            Err(error) => return Err(error),
        }
    }
    // A repository that has gone looks like one without leases.
    cluster.repository().confirm()?;
    let readable = runs.into_values().map(|mut objects| {
        objects.sort_by_key(|(object, _)| object.modified);
        let record = objects.last().map(|(_, record)| record.clone());
        Held { record, objects: objects.into_iter().map(|(object, _)| object).collect() }
    });
    Ok(readable.chain(unreadable).collect())
}

/// Whether a run still has a lease, live or stale.
pub fn is_listed(cluster: &Cluster, run: Id) -> Result<bool> {
    Ok(list(cluster)?.iter().any(|held| held.record.as_ref().is_some_and(|record| record.run == run)))
}

fn read(cluster: &Cluster, object: &Meta) -> Result<Record> {
    let name = cluster.store().name(&object.key);
    let record: Record = parse_json(&cluster.store().get(&object.key)?, &name)?;
    if record.version != VERSION {
        return Err(Error::corrupt(format!("could not read {name}: it has version {}", record.version)));
    }
    Ok(record)
}
