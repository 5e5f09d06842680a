//! What is restored from: the repository, one incarnation of the cluster in it, and its backups.
//!
//! pg_upgrade and initdb make a new incarnation with a system identifier of its own. Without being told,
//! the one with the newest backup is taken, and that is said.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::archive::StoredArchive;
use super::choose::Candidate;
use super::streamed::Ends;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, SystemId, Timeline};
use crate::repo::backup::{self, BackupHeader};
use crate::repo::catalog::Catalog;
use crate::repo::{Cluster, ClusterHeader, Repository, incarnations};

pub struct Source {
    pub cluster: Cluster,
    pub segment_size: SegmentSize,
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    pub backups: Vec<BackupHeader>,
    /// What the operator should know about the choice of the incarnation and about what can't be read.
    pub notes: Vec<String>,
}

impl Source {
    /// The incarnations of the cluster, or the one that is asked for; never none.
    pub fn all(config: &Config, system_id: Option<SystemId>) -> Result<Vec<Self>> {
        let repository = Repository::open(config.repo()?, config.repo_id)?;
        let found = incarnations::find(&repository, &config.cluster, system_id)?.into_iter();
        found.map(|(cluster, header)| Self::incarnation(cluster, &header)).collect()
    }

    pub fn open(config: &Config, system_id: Option<SystemId>) -> Result<Self> {
        let mut found = Self::all(config, system_id)?;
        let newest = |source: &Self| source.backups.iter().map(|header| header.stop.time).max();
        found.sort_by_key(newest);
        let Some(mut chosen) = found.pop() else { return Err(Error::bug("no incarnation was found")) };
        if !found.is_empty() {
            let others: Vec<String> =
                found.iter().map(|other| other.cluster.system_id().to_string()).collect();
            chosen.notes.push(format!(
                "the repository holds other incarnations of {} too, with system identifier {}; --system-id chooses",
                config.cluster,
                others.join(", ")
            ));
        }
        Ok(chosen)
    }

    fn incarnation(cluster: Cluster, header: &ClusterHeader) -> Result<Self> {
        let histories = Catalog::new(&cluster, header.segment_size).histories()?;
        let (backups, notes) = readable_backups(&cluster)?;
        // Absent history files and backups count as such only while the repository is there.
        cluster.repository().confirm()?;
        Ok(Self { segment_size: header.segment_size, histories, backups, notes, cluster })
    }

    /// The archive, in which these streamed parts end their timelines.
    pub fn archive<'a>(&'a self, jobs: NonZeroUsize, ends: &'a Ends) -> StoredArchive<'a> {
        StoredArchive { catalog: self.catalog(), jobs, ends }
    }

    pub fn catalog(&self) -> Catalog<'_> {
        Catalog::new(&self.cluster, self.segment_size)
    }

    pub fn streamed_ends(&self) -> Result<Ends> {
        Ends::find(&self.catalog(), &self.histories)
    }

    /// The backups to choose from: all, or the one that was asked for.
    pub fn candidates(&self, label: Option<&Name>) -> Result<Vec<Candidate>> {
        let wanted = |header: &&BackupHeader| label.is_none_or(|label| *label == header.label);
        let candidates = self.backups.iter().filter(wanted).map(Candidate::of).collect::<Result<Vec<_>>>()?;
        match (candidates.is_empty(), label) {
            (true, Some(label)) => {
                let known: Vec<&str> = self.backups.iter().map(|header| header.label.as_str()).collect();
                Err(Error::not_found(format!("there is no backup {label} of {}", self.cluster.name()))
                    .with_hint(format!("there are these: {}", known.join(", "))))
            }
            (true, None) => Err(Error::not_found(format!(
                "the repository has no backup of {} with system identifier {}",
                self.cluster.name(),
                self.cluster.system_id()
            ))
            .with_hint("a backup exists when `basebackup` has ended with exit status 0")),
            (false, _) => Ok(candidates),
        }
    }

    pub fn header(&self, label: &Name) -> Result<&BackupHeader> {
        let found = self.backups.iter().find(|header| header.label == *label);
        found.ok_or_else(|| Error::bug(format!("chose a backup {label} that was not listed")))
    }
}

/// One backup that can't be read must not keep the others from being restored.
fn readable_backups(cluster: &Cluster) -> Result<(Vec<BackupHeader>, Vec<String>)> {
    let (mut headers, mut notes) = (Vec::new(), Vec::new());
    for label in backup::labels(cluster)? {
        match backup::read(cluster, &label) {
            Ok(header) => headers.push(header),
            // Deleted since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => notes.push(format!("backup {label} is left out: {error}")),
        }
    }
    Ok((headers, notes))
}
