//! `pgark info`: what the repository has of each cluster, and above all where one can go back to. `look()` makes
//! the account; the command line prints it.
//!
//! Reads only. What can't be read, a damaged header above all, is listed as such, and the rest is told all the
//! same. One pass over the listing; opened are headers of backups, small objects, and the headers of the segments
//! at which windows end. Memory grows with backups, packs and holes, not with segments.

mod backups;
pub mod detail;
mod incarnation;
mod paths;
pub mod summary;
#[cfg(test)]
mod tests;
mod timelines;

use jiff::Timestamp;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pg::lsn::SystemId;
use crate::repo::{Repository, incarnations};
use summary::{ClusterSummary, RepositorySummary, Summary, Unreadable, What};

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Request {
    /// All clusters of the repository, not only the configured one.
    pub all_clusters: bool,
    /// Only this incarnation.
    pub system_id: Option<SystemId>,
    /// Ages are counted from here.
    pub now: Timestamp,
}

/// The account of the configured cluster, or of all.
pub fn look(config: &Config, request: &Request) -> Result<Summary> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let names = match request.all_clusters {
        true => incarnations::clusters(&repository)?,
        false => vec![config.cluster.clone()],
    };
    let mut clusters = Vec::new();
    for name in &names {
        match cluster(&repository, name, request) {
            // Of all those that there are, one into which nothing was archived yet, or that has gone, is none.
            Err(error) if request.all_clusters && error.kind() == Kind::NotFound => {}
            found => clusters.push(found?),
        }
    }
    let location = config.repo()?.to_string();
    let repository = RepositorySummary { id: repository.id(), location };
    Ok(Summary { repository, time: request.now, clusters })
}

fn cluster(repository: &Repository, name: &Name, request: &Request) -> Result<ClusterSummary> {
    let ids = match request.system_id {
        Some(id) => vec![id],
        None => repository.system_ids(name)?,
    };
    let mut found = ClusterSummary { name: name.clone(), incarnations: Vec::new(), unreadable: Vec::new() };
    for id in ids {
        let cluster = repository.cluster(name, id);
        match cluster.header() {
            Ok(header) => found.incarnations.push(incarnation::look(&cluster, &header, request.now)?),
            // Nothing was archived into it yet.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                found.unreadable.push(Unreadable::new(What::Cluster, Some(id.to_string()), &error));
            }
        }
    }
    if found.incarnations.is_empty() && found.unreadable.is_empty() {
        // Says what there is instead.
        incarnations::find(repository, name, request.system_id)?;
        return Err(Error::transient(format!("cluster {name} appeared while the repository was read")));
    }
    found.incarnations.sort_by_key(|incarnation| (incarnation.newest(), incarnation.system_id));
    Ok(found)
}
