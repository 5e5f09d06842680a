//! This machine and the user we run as.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Error, IoContext, Result};

/// The machine's name, for people who read headers and leases.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Refuses to go on as root for a server that belongs to another user: the server could not read what
/// root would leave behind.
pub fn refuse_foreign_root(data_directory: &Path) -> Result<()> {
    let metadata =
        data_directory.metadata().doing(|| format!("look at data directory {}", data_directory.display()))?;
    if rustix::process::geteuid().is_root() && metadata.uid() != 0 {
        return Err(Error::configuration(format!(
            "this runs as root, but {} belongs to user id {}: the server could not read what root leaves",
            data_directory.display(),
            metadata.uid()
        ))
        .with_hint("run it as the server's user, for example with `sudo -u postgres`"));
    }
    Ok(())
}
