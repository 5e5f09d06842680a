//! The space of file systems.

use std::path::Path;

use crate::error::{IoContext, Result};

/// A file system's, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// For those who are not root.
    pub free: u64,
    pub total: u64,
}

impl Space {
    /// Of the file system that a directory is on.
    pub fn of(directory: &Path) -> Result<Self> {
        let found = fs2::statvfs(directory).doing(|| format!("look for space in {}", directory.display()))?;
        Ok(Self { free: found.available_space(), total: found.total_space() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_room_for_what_is_free_on_it() {
        let space = Space::of(Path::new("/")).expect("a root");
        assert!(space.free <= space.total && space.total > 0, "{space:?}");
        let error = Space::of(Path::new("/nowhere")).expect_err("nothing there");
        assert!(error.to_string().contains("look for space in /nowhere"), "{error}");
    }
}
