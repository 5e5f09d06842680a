//! This machine and the user we run as.

use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Error, IoContext, Result};

/// The machine's name, for people who read headers and leases.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Random, of each boot of each machine.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(path).map(|id| id.trim().to_string()).doing(|| format!("read {path}"))
}

/// The processors that this process may use; one when that can't be told.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Refuses to go on as root in a data directory or repository of another user: the server could not read
/// what root would leave behind.
pub fn refuse_foreign_root(directory: &Path) -> Result<()> {
    let metadata = directory.metadata().doing(|| format!("look at {}", directory.display()))?;
    if is_root() && metadata.uid() != 0 {
        return Err(Error::configuration(format!(
            "this runs as root, but {} belongs to user id {}: the server could not read what root leaves",
            directory.display(),
            metadata.uid()
        ))
        .with_hint("run it as the server's user, for example with `sudo -u postgres`"));
    }
    Ok(())
}

/// The C library's version, such as "2.36"; None where it has no way to say.
pub fn libc_version() -> Option<String> {
    let answer = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok().filter(|_| answer.status.success())?;
    text.trim().strip_prefix("glibc ").map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_has_a_version_of_numbers() {
        if let Some(version) = libc_version() {
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
        }
    }
}
