//! `pgark pin` and `pgark unpin`: keep a backup from being expired, and let it go again.
//!
//! Refuses a backup that does not exist, and a label that several incarnations of the cluster have.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::ident::Name;
use crate::pg::lsn::SystemId;
use crate::repo::pin::Pin;
use crate::repo::{Cluster, Repository, backup, incarnations, pin};

/// What to pin.
#[derive(Clone, Debug)]
pub struct Request {
    pub label: Name,
    /// None: until it is unpinned.
    pub until: Option<Timestamp>,
    pub note: Option<String>,
    pub system_id: Option<SystemId>,
}

/// The pins of a cluster, or those of the one backup that was just pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pinned {
    pub cluster: Name,
    pub pins: Vec<PinReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinReport {
    pub system_id: String,
    pub label: Name,
    /// None: until it is unpinned.
    pub until: Option<Timestamp>,
    pub note: Option<String>,
    pub created: Timestamp,
    pub host: String,
    /// False when it has run out.
    pub holds: bool,
}

/// What was unpinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unpinned {
    pub cluster: Name,
    pub system_id: String,
    pub label: Name,
    pub removed: u64,
}

pub fn pin(config: &Config, request: &Request) -> Result<Pinned> {
    let found = find(config, request.system_id)?;
    let cluster = holder(&found, &request.label)?;
    let created = Timestamp::now();
    let (label, until, note) = (request.label.clone(), request.until, request.note.clone());
    pin::put(cluster, &Pin { label, until, note, created, host: host::name() })?;
    let pins = reports(cluster)?.into_iter().filter(|pin| pin.label == request.label).collect();
    Ok(Pinned { cluster: config.cluster.clone(), pins })
}

/// Removes all pins of a backup; one that has none is [`Kind::NotFound`].
pub fn unpin(config: &Config, label: &Name, system_id: Option<SystemId>) -> Result<Unpinned> {
    let mut found = Vec::new();
    for cluster in find(config, system_id)? {
        if pin::list(&cluster)?.iter().any(|pin| pin.record.label == *label) {
            found.push(cluster);
        }
    }
    let cluster = one(&found, label)?
        .ok_or_else(|| Error::not_found(format!("backup {label} of {} is not pinned", config.cluster)))?;
    Ok(Unpinned {
        cluster: config.cluster.clone(),
        system_id: cluster.system_id().to_string(),
        label: label.clone(),
        removed: pin::remove(cluster, label)?,
    })
}

/// All pins of a cluster.
pub fn list(config: &Config, system_id: Option<SystemId>) -> Result<Pinned> {
    let mut pins = Vec::new();
    for cluster in find(config, system_id)? {
        pins.extend(reports(&cluster)?);
    }
    Ok(Pinned { cluster: config.cluster.clone(), pins })
}

fn find(config: &Config, system_id: Option<SystemId>) -> Result<Vec<Cluster>> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let found = incarnations::find(&repository, &config.cluster, system_id)?;
    Ok(found.into_iter().map(|(cluster, _)| cluster).collect())
}

/// The incarnation that has a backup of that label.
fn holder<'a>(clusters: &'a [Cluster], label: &Name) -> Result<&'a Cluster> {
    let mut holders = Vec::new();
    for cluster in clusters {
        if backup::labels(cluster)?.contains(label) {
            holders.push(cluster);
        }
    }
    one(&holders, label)?.copied().ok_or_else(|| {
        Error::not_found(format!("there is no backup {label}"))
            .with_hint("`pgark info` lists those there are")
    })
}

fn one<'a, T>(found: &'a [T], label: &Name) -> Result<Option<&'a T>> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Error::new(
            Kind::Conflict,
            format!("{} incarnations of the cluster have a backup {label}", found.len()),
        )
        .with_hint("say which one with --system-id")),
    }
}

fn reports(cluster: &Cluster) -> Result<Vec<PinReport>> {
    let now = Timestamp::now();
    let report = |pin: Pin| PinReport {
        system_id: cluster.system_id().to_string(),
        holds: pin.holds_at(now),
        label: pin.label,
        until: pin.until,
        note: pin.note,
        created: pin.created,
        host: pin.host,
    };
    Ok(pin::list(cluster)?.into_iter().map(|found| report(found.record)).collect())
}
