//! Around the file that PostgreSQL hands to `archive_command` or asks `restore_command` for: the server
//! runs both in its data directory and names the file relative to it.

use std::path::{Path, PathBuf};

use super::control::ControlFile;
use crate::error::{Error, IoContext, Result};

/// The data directory that a WAL file's path belongs to: the working directory, as PostgreSQL sets it, or,
/// when a person gave an absolute path, the parent of its pg_wal. None: the path lies in no data directory.
pub fn data_directory(wal_file: &Path) -> Result<Option<PathBuf>> {
    let working = std::env::current_dir().doing(|| "find the working directory")?;
    if wal_file.is_absolute()
        && let Some(owner) = wal_file.parent().and_then(Path::parent)
        && is_data_directory(owner)
    {
        return Ok(Some(owner.to_path_buf()));
    }
    Ok(Some(working).filter(|path| is_data_directory(path)))
}

fn is_data_directory(path: &Path) -> bool {
    ControlFile::path(path).exists()
}

/// The control file of the cluster in `data_directory`, or an error that says how to name that.
pub fn control_file(data_directory: Option<&Path>) -> Result<ControlFile> {
    match data_directory {
        Some(directory) => ControlFile::read(directory),
        None => Err(Error::configuration(
            "could not tell which cluster this is: there is no global/pg_control here",
        )
        .with_hint("PostgreSQL runs this in its data directory; by hand, change to it first")),
    }
}

/// Whether the server that runs in `data_directory` is, or will start as, a standby: one that asks again
/// and again (CheckRecoveryConfig, readRecoverySignalFile).
pub fn is_standby(data_directory: &Path) -> Result<bool> {
    let signal = data_directory.join("standby.signal");
    signal.try_exists().doing(|| format!("look for {}", signal.display()))
}
