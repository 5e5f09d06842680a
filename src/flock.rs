//! Locks on open files. The lock belongs to the open file: a killed process releases it, a child that
//! inherits the descriptor keeps it.
//!
//! fs2 by its full path: std's File has methods of the same names, which would win silently.

use std::fs::File;
use std::time::Duration;

/// Whether we hold the file alone now. Never waits.
pub fn try_exclusive(file: &File) -> std::io::Result<bool> {
    match fs2::FileExt::try_lock_exclusive(file) {
        Ok(()) => Ok(true),
        Err(cause) if cause.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// The same, but tries for a second: for a lock that nobody has for long, or that a process which is just being
/// started has of the one who starts it, until it runs its program.
pub fn exclusive_soon(file: &File) -> std::io::Result<bool> {
    for _ in 0..20 {
        if try_exclusive(file)? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
