//! Listing a local store. object_store's own listing skips in silence whatever it fails to look at; but "no
//! later segment exists" and "nobody holds a lease" are concluded from listings, so that here everything
//! that can't be looked at is an error.
//!
//! Skipped are only: what was deleted while we looked, unpublished files (`<key>#<n>`), and names that are
//! no keys (`lost+found`).

use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::{Key, Level, Meta};
use crate::error::{Error, IoContext, Result};

/// One level below a prefix, sorted. Empty when there is no such prefix.
pub fn level(root: &Path, prefix: &Key) -> Result<Level> {
    let mut level = Level::default();
    for entry in entries(root, prefix, 1) {
        let (key, entry) = entry?;
        if entry.file_type().is_dir() {
            level.prefixes.push(key);
        } else {
            level.objects.extend(object(key, &entry)?);
        }
    }
    level.prefixes.sort();
    level.objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(level)
}

/// Every object below a prefix, in no order, one at a time.
pub fn walk(root: &Path, prefix: &Key) -> impl Iterator<Item = Result<Meta>> + use<> {
    entries(root, prefix, usize::MAX).filter_map(|entry| match entry {
        Ok((_, entry)) if entry.file_type().is_dir() => None,
        Ok((key, entry)) => object(key, &entry).transpose(),
        Err(error) => Some(Err(error)),
    })
}

/// Directories and published files with their keys, down to a depth.
fn entries(root: &Path, prefix: &Key, depth: usize) -> impl Iterator<Item = Result<(Key, DirEntry)>> + use<> {
    let root = root.to_path_buf();
    let top = root.join(prefix.as_str());
    let name = top.display().to_string();
    let within = root.clone();
    WalkDir::new(top)
        .min_depth(1)
        .max_depth(depth)
        .follow_links(true)
        .into_iter()
        .filter_entry(move |entry| entry.depth() == 0 || key(&within, entry.path()).is_some())
        .filter_map(move |entry| match entry {
            Ok(entry) => key(&root, entry.path()).map(|key| Ok((key, entry))),
            Err(cause) if is_gone(&cause) => None,
            Err(cause) => Some(Err(Error::transient(format!("could not list {name}: {cause}")))),
        })
}

fn key(root: &Path, path: &Path) -> Option<Key> {
    path.strip_prefix(root).ok()?.to_str().and_then(|text| Key::new(text).ok())
}

/// None: it was deleted while we looked.
fn object(key: Key, entry: &DirEntry) -> Result<Option<Meta>> {
    let looking = || format!("look at {}", entry.path().display());
    let metadata = match entry.path().metadata() {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io(looking(), &cause)),
    };
    Ok(Some(Meta { key, size: metadata.len(), modified: metadata.modified().doing(looking)? }))
}

/// Deleted while we looked, or never there. A link that leads nowhere (to a disk that is not mounted) says
/// "not found" too, but is there.
pub fn is_gone(cause: &walkdir::Error) -> bool {
    let not_found = cause.io_error().is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound);
    not_found && cause.path().is_none_or(|path| path.symlink_metadata().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn names(keys: impl IntoIterator<Item = Key>) -> Vec<String> {
        keys.into_iter().map(|key| key.to_string()).collect()
    }

    fn some_files(dir: &Path) -> Key {
        fs::create_dir_all(dir.join("p/q")).expect("created");
        fs::create_dir_all(dir.join("p/lost+found")).expect("created");
        for name in ["p/b", "p/a", "p/a#1", "p/q/c", "p/lost+found/x"] {
            fs::write(dir.join(name), "x").expect("written");
        }
        Key::new("p").expect("key")
    }

    #[test]
    fn objects_and_prefixes_are_listed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let prefix = some_files(dir.path());
        let listed = level(dir.path(), &prefix).expect("listed");
        assert_eq!(names(listed.objects.into_iter().map(|meta| meta.key)), ["p/a", "p/b"]);
        assert_eq!(names(listed.prefixes), ["p/q"]);
        let mut walked =
            names(walk(dir.path(), &prefix).map(|meta| meta.map(|meta| meta.key).expect("walked")));
        walked.sort();
        assert_eq!(walked, ["p/a", "p/b", "p/q/c"]);
        let nothing = Key::new("nothing").expect("key");
        assert_eq!(level(dir.path(), &nothing), Ok(Level::default()));
        assert_eq!(walk(dir.path(), &nothing).count(), 0);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_taken_for_an_empty_directory() {
        let dir = tempfile::tempdir().expect("tempdir");
        let prefix = some_files(dir.path());
        symlink("/nonexistent/disk", dir.path().join("p/r")).expect("linked");
        let error = level(dir.path(), &prefix).expect_err("can't know what is there");
        assert!(error.message().contains("/p/r"), "{error}");
        assert!(walk(dir.path(), &prefix).any(|meta| meta.is_err()));
        let link = Key::new("p/r").expect("key");
        assert!(level(dir.path(), &link).is_err());
    }
}
