//! Locks on open files. The lock belongs to the open file: a killed process releases it, a child that
//! inherits the descriptor keeps it.
//!
//! fs2 by its full path: std's File has methods of the same names, which would win silently.

use std::fs::File;

/// Whether we hold the file alone now. Never waits.
pub fn try_exclusive(file: &File) -> std::io::Result<bool> {
    match fs2::FileExt::try_lock_exclusive(file) {
        Ok(()) => Ok(true),
        Err(cause) if cause.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
        Err(cause) => Err(cause),
    }
}
