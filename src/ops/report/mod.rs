//! `pgark report`: what `pgark info` tells, as one self-contained page: the timelines drawn as a map, sizes over time,
//! what checks and verifications found. No network and no script is needed to read it, on a desk, a phone or paper.
//!
//! All text that comes from outside (labels, hosts, notes, errors) is escaped. The file is there whole or not at all.

mod axis;
mod events;
mod html;
mod map;
mod page;
mod sizes;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Config;
use crate::durable;
use crate::error::{Kind, Result};
use crate::ops::info::summary::{Summary, Unreadable, What};
use crate::ops::info::{self, Request};
use crate::repo::Repository;
use events::Event;
use page::Part;

/// Readable for whoever the directory lets in: the page goes to a web server or into a mail. The umask takes away
/// what it takes away.
const MODE: u32 = 0o644;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    pub file: PathBuf,
    pub bytes: u64,
    /// What the exit code must tell: what can't be read is on the page.
    #[serde(skip)]
    pub worst: Option<Kind>,
}

/// Writes the page, in place of what is there.
pub fn run(config: &Config, request: &Request, file: &Path) -> Result<Written> {
    let mut summary = info::look(config, request)?;
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let events = all_events(&repository, &mut summary);
    let page = render(&summary, &events);
    durable::write_file(file, page.as_bytes(), MODE)?;
    Ok(Written { file: file.to_path_buf(), bytes: page.len() as u64, worst: summary.worst() })
}

/// Of each incarnation, in the summary's order. Records that can't be read are told like all else that can't.
fn all_events(repository: &Repository, summary: &mut Summary) -> Vec<Vec<Event>> {
    let mut all = Vec::new();
    for cluster in &mut summary.clusters {
        for incarnation in &mut cluster.incarnations {
            let of = repository.cluster(&cluster.name, incarnation.system_id);
            all.push(events::read(&of).unwrap_or_else(|error| {
                incarnation.unreadable.push(Unreadable::new(What::Records, None, &error));
                Vec::new()
            }));
        }
    }
    all
}

/// The page of a summary, with what happened to each of its incarnations, in order. The one that is in use comes
/// first.
fn render(summary: &Summary, events: &[Vec<Event>]) -> String {
    let incarnations = summary
        .clusters
        .iter()
        .flat_map(|cluster| cluster.incarnations.iter().map(|incarnation| (&cluster.name, incarnation)));
    let mut parts: Vec<Part<'_>> = incarnations
        .zip(events)
        .map(|((cluster, incarnation), events)| Part { cluster, incarnation, events })
        .collect();
    parts.sort_by_key(|part| (part.cluster, std::cmp::Reverse(part.incarnation.newest())));
    page::page(summary, &parts)
}
