//! Locks on open files. The lock belongs to the open file: a killed process releases it, a child that
//! inherits the descriptor keeps it.

use std::fs::File;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Whether we hold the file alone now. Never waits.
pub fn try_exclusive(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(cause) => Err(cause.into()),
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
