//! What the local store needs beyond the object_store trait: directories that are durable also when two
//! processes race to create them, names that are durable though their creator died, and the sweeping of
//! files that killed writers left unpublished.
//!
//! object_store writes `<key>#<n>`, fsyncs it, links it to `<key>`, fsyncs the directory, removes `#<n>`.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::SystemTime;

use walkdir::WalkDir;

use super::Key;
use super::listing::is_gone;
use crate::durable;
use crate::error::{Error, IoContext, Result};

/// `Kind::NotFound` unless the root is a directory.
pub fn require_directory(root: &Path) -> Result<()> {
    let missing = || Error::not_found(format!("there is no directory {}", root.display()));
    match root.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(missing()),
        Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(missing())
        }
        Err(cause) => Err(Error::io(format!("open repository {}", root.display()), &cause)),
    }
}

/// Makes sure that the directory of `key` exists and that its name and its parents' names are durable.
/// The root itself is never created here: a repository that is not there must stay not there.
///
/// A directory may stand whose creator was killed between mkdir and fsync. One that holds a file is durable
/// all the same: whoever put its first file there came through here and found none.
pub fn prepare_parent(root: &Path, key: &Key) -> Result<()> {
    let path = root.join(key.as_str());
    let Some(parent) = path.parent() else { return Ok(()) };
    match holds_a_file(parent) {
        Ok(true) => Ok(()),
        Ok(false) => sync_up_to(root, parent),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            make_parent(root, key)?;
            sync_up_to(root, parent)
        }
        Err(cause) => Err(Error::io(format!("open directory {}", parent.display()), &cause)),
    }
}

/// The same for a file that need not outlive a power cut.
pub fn make_parent(root: &Path, key: &Key) -> Result<()> {
    let path = root.join(key.as_str());
    let Some(parent) = path.parent() else { return Ok(()) };
    root.metadata().doing(|| format!("open repository {}", root.display()))?;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(super::DIRECTORY_MODE)
        .create(parent)
        .doing(|| format!("create directory {}", parent.display()))
}

fn holds_a_file(directory: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        if entry?.file_type()?.is_file() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes an existing object's bytes and name durable.
pub fn settle(root: &Path, key: &Key) -> Result<()> {
    let path = root.join(key.as_str());
    std::fs::File::open(&path)
        .and_then(|file| file.sync_all())
        .doing(|| format!("make {} durable", path.display()))?;
    path.parent().map_or(Ok(()), |parent| sync_up_to(root, parent))
}

/// Makes deletions in a directory durable. One that is not there was removed as a whole, so the nearest one above
/// it tells; but a root that is not there tells nothing.
pub fn sync_removals(root: &Path, place: &Key) -> Result<()> {
    let directory = root.join(place.as_str());
    for dir in directory.ancestors().take_while(|dir| dir.starts_with(root)) {
        match std::fs::File::open(dir).and_then(|handle| handle.sync_all()) {
            Ok(()) => return Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => {
                return Err(Error::io(format!("make deletions in {} durable", dir.display()), &cause));
            }
        }
    }
    require_directory(root)
}

/// Removes an empty directory; one that is not empty, or gone, is left as it is.
pub fn remove_if_empty(root: &Path, prefix: &Key) -> Result<()> {
    let directory = root.join(prefix.as_str());
    match std::fs::remove_dir(&directory) {
        Ok(()) => Ok(()),
        Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
        Err(cause) => Err(Error::io(format!("remove directory {}", directory.display()), &cause)),
    }
}

/// Gives the memory of an object's bytes back to those who need it more. They are durable already, and a
/// page cache that stays as it is hurts nobody but the database beside us, so a failure is only noted.
pub fn uncache(root: &Path, key: &Key) {
    let path = root.join(key.as_str());
    let advised = std::fs::File::open(&path)
        .and_then(|file| Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?));
    if let Err(cause) = advised {
        tracing::debug!("could not drop {} from the page cache: {cause}", path.display());
    }
}

fn sync_up_to(root: &Path, dir: &Path) -> Result<()> {
    dir.ancestors().take_while(|dir| dir.starts_with(root)).try_for_each(durable::sync_dir)
}

/// Removes `<key>#<n>` files below a prefix that nobody has written to since `before`.
pub fn sweep_staged(root: &Path, prefix: &Key, before: SystemTime) -> Result<u64> {
    let mut swept = 0;
    for entry in WalkDir::new(root.join(prefix.as_str())).follow_links(false) {
        let entry = match entry {
            Ok(entry) => entry,
            // Another sweep, or a writer that finished, removed it while we looked.
            Err(cause) if is_gone(&cause) => continue,
            Err(cause) => {
                return Err(Error::transient(format!("could not list {}: {cause}", root.display())));
            }
        };
        if entry.file_type().is_file() && is_staged(entry.path()) && is_older(entry.path(), before)? {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => swept += 1,
                Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => return Err(Error::io(format!("remove {}", entry.path().display()), &cause)),
            }
        }
    }
    Ok(swept)
}

fn is_staged(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.rsplit_once('#'))
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn is_older(path: &Path, before: SystemTime) -> Result<bool> {
    match path.metadata().and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(modified <= before),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::io(format!("look at {}", path.display()), &cause)),
    }
}
