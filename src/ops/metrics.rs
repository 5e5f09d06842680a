//! `pgark metrics`: the numbers of the repository for a monitor, as text, into a file for the node exporter's
//! textfile collector, or over HTTP.
//!
//! Reads only. When the repository can't be read, the text says so (`pgark_up 0`) and nothing else: a monitor must
//! not go on seeing yesterday's numbers.

mod gather;
mod looks;
mod serve;
mod sheet;

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::info;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pg::lsn::SystemId;
use crate::repo::Repository;
use sheet::Sheet;

/// Of what.
#[derive(Clone, Debug)]
pub struct Request {
    /// All clusters of the repository, not only the configured one.
    pub all_clusters: bool,
    /// Only this incarnation.
    pub system_id: Option<SystemId>,
}

/// A text that says at least whether the repository could be read, and why it could not.
#[derive(Clone, Debug)]
pub struct Collected {
    pub text: String,
    pub failed: Option<Error>,
}

/// Collects once.
pub fn collect(config: &Config, request: &Request) -> Result<Collected> {
    let (mut sheet, now) = (Sheet::default(), Timestamp::now());
    let failed = match fill(&mut sheet, config, request, now) {
        Ok(()) => None,
        Err(error) => {
            // Half of the numbers would look like all of them.
            sheet = Sheet::default();
            Some(error)
        }
    };
    gather::looked(&mut sheet, &config.cluster, failed.is_none(), now);
    Ok(Collected { text: sheet.text()?, failed })
}

fn fill(sheet: &mut Sheet, config: &Config, request: &Request, now: Timestamp) -> Result<()> {
    let Request { all_clusters, system_id } = *request;
    let look = info::Request { all_clusters, system_id, now };
    let summary = info::look(config, &look)?;
    gather::summary(sheet, &summary);
    looks::add(sheet, &Repository::open(config.repo()?, config.repo_id)?, &summary)?;
    gather::space(sheet, config.repo()?.directory())
}

/// Serves them until it is asked to end. `bound` is told the address.
pub fn serve(
    config: &Config,
    request: &Request,
    address: SocketAddr,
    bound: impl FnOnce(SocketAddr),
) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let (config, request) = (config.clone(), request.clone());
    let collect = move || {
        let collected = collect(&config, &request)?;
        if let Some(error) = collected.failed {
            tracing::error!("{error}");
        }
        Ok(collected.text)
    };
    serve::serve(address, Arc::new(collect), &interrupt, bound)
}
