//! `pgark init`: makes a directory a repository, once. Refuses a directory that holds something else, and a
//! store that would let an object be created twice.

use std::path::Path;

use crate::config::Config;
use crate::durable;
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::ident::Id;
use crate::location::Location;
use crate::repo::{self, Initialised, Repository};
use crate::store;

/// Creates the repository that the configuration names, or finds it there.
pub fn run(config: &Config) -> Result<Initialised> {
    let location = config.repo()?;
    if let Some(pinned) = config.repo_id {
        find_pinned(location, pinned)?;
    }
    refuse_file(location.directory())?;
    // The only place where a repository's directory is created: everywhere else a missing one is an error.
    durable::create_dir_all(location.directory(), store::DIRECTORY_MODE)?;
    host::refuse_foreign_root(location.directory())?;
    if host::is_root() {
        tracing::warn!(
            "this runs as root: the repository at {location} is root's, and no server can use it \
             (`chown -R` gives it to the server's user)"
        );
    }
    repo::init(location)
}

/// A repository whose id is known exists: where it is missing, a disk may be, and nothing is made in its place.
fn find_pinned(location: &Location, pinned: Id) -> Result<()> {
    Repository::open(location, Some(pinned)).map(drop).map_err(|error| match error.kind() {
        Kind::Configuration => error.with_hint(
            "is the right disk mounted? a new repository gets an id of its own: make it without repo_id",
        ),
        _ => error,
    })
}

fn refuse_file(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(Error::conflict(format!("{} is not a directory", path.display())));
    }
    Ok(())
}
