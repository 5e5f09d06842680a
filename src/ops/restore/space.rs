//! Whether the file systems have room for what will be written to them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::disk::Space;
use crate::error::{Error, IoContext, Result};

/// Bytes that will be written below a directory, which need not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub directory: PathBuf,
    pub bytes: u64,
}

/// A file system, by one of the directories on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    directory: PathBuf,
    needed: u64,
    available: u64,
}

/// Refuses when a file system has too little room. `freed` are directories that are emptied before.
pub fn check(demands: &[Demand], freed: &[PathBuf]) -> Result<()> {
    let mut shares: BTreeMap<u64, Share> = BTreeMap::new();
    for demand in demands {
        let existing = existing(&demand.directory);
        let device = device(&existing)?;
        if let Some(share) = shares.get_mut(&device) {
            share.needed = share.needed.saturating_add(demand.bytes);
            continue;
        }
        let available = Space::of(&existing)?.free;
        shares.insert(device, Share { directory: existing, needed: demand.bytes, available });
    }
    for (device, share) in &mut shares {
        // Looked at only if it matters: it means a walk through all files.
        if share.needed > share.available {
            for directory in freed {
                if self::device(&existing(directory))? == *device {
                    share.available = share.available.saturating_add(used_by(directory)?);
                }
            }
        }
    }
    shares.values().try_for_each(judge)
}

fn judge(share: &Share) -> Result<()> {
    if share.needed <= share.available {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "the file system of {} has {} free, and the restore needs {} there",
        share.directory.display(),
        gib(share.available),
        gib(share.needed)
    ))
    .with_hint(
        "free some space, restore to another file system, or put tablespaces elsewhere (--tablespace-map)",
    ))
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// The nearest directory that is there.
fn existing(directory: &Path) -> PathBuf {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

/// The file system that a directory is or will be on.
pub fn device_of(directory: &Path) -> Result<u64> {
    device(&existing(directory))
}

fn device(existing: &Path) -> Result<u64> {
    Ok(existing.metadata().doing(|| format!("look at {}", existing.display()))?.dev())
}

/// Bytes that the files in a directory take on its own file system.
fn used_by(directory: &Path) -> Result<u64> {
    let mut used: u64 = 0;
    for entry in WalkDir::new(directory).same_file_system(true) {
        let entry = entry.map_err(|cause| {
            Error::transient(format!("could not add up the files in {}: {cause}", directory.display()))
        })?;
        let metadata = entry.metadata().map_err(|cause| {
            Error::transient(format!("could not look at {}: {cause}", entry.path().display()))
        })?;
        used = used.saturating_add(metadata.blocks().saturating_mul(512));
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(directory: &Path, bytes: u64) -> Demand {
        Demand { directory: directory.to_path_buf(), bytes }
    }

    #[test]
    fn demands_on_one_file_system_are_added_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let free = Space::of(dir.path()).expect("asked").free;
        let (a, b) = (dir.path().join("not/yet"), dir.path().join("b"));
        assert_eq!(check(&[demand(&a, 1 << 20), demand(&b, 1 << 20)], &[]), Ok(()));
        let error = check(&[demand(&a, free), demand(&b, free)], &[]).expect_err("too much");
        assert!(error.message().contains("free, and the restore needs") && error.hint().is_some(), "{error}");
    }

    #[test]
    fn what_is_emptied_before_counts_as_free() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("x"), vec![1; 1 << 20]).expect("written");
        assert!(used_by(dir.path()).expect("added up") >= 1 << 20);
        let share = |available| Share { directory: "/x".into(), needed: 100, available };
        assert_eq!(judge(&share(100)), Ok(()));
        assert!(judge(&share(99)).is_err());
    }
}
