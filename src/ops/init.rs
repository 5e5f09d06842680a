//! `pgark init`: makes a directory a repository, once. Refuses a directory that holds something else, and a
//! store that would let an object be created twice.

use std::path::Path;

use crate::config::Config;
use crate::durable;
use crate::error::{Error, Result};
use crate::host;
use crate::repo::{self, Initialised};

/// Creates the repository that the configuration names, or finds it there.
pub fn run(config: &Config) -> Result<Initialised> {
    let location = config.repo()?;
    // The only place where a repository's directory is created: everywhere else a missing one is an error.
    durable::create_dir_all(location.directory())?;
    refuse_file(location.directory())?;
    host::refuse_foreign_root(location.directory())?;
    if host::is_root() {
        tracing::warn!(
            "this runs as root: the repository at {location} is root's, and no server can use it \
             (`chown -R` gives it to the server's user)"
        );
    }
    let initialised = repo::init(location)?;
    let id = initialised.id();
    if let Some(pinned) = config.repo_id
        && pinned != id
    {
        return Err(Error::configuration(format!(
            "the repository at {location} has id {id}, but the configuration pins {pinned}"
        ))
        .with_hint("is the right disk mounted? otherwise correct repo_id"));
    }
    Ok(initialised)
}

fn refuse_file(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(Error::conflict(format!("{} is not a directory", path.display())))
}
