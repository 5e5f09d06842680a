//! The directories of a restore, the links to its tablespaces, and the modes that keep their owner out.
//!
//! While files are written, every file and directory lets its owner write. The few that shall not, such as a
//! private key with mode 0400, get their mode at the end, children before their parents.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::place::Places;
use crate::error::{Error, IoContext, Result};
use crate::repo::map::{Chunk, Entry, FileMode, MapReader, Root};

const OWNER_ALL: u32 = 0o700;
const OWNER_WRITE: u32 = 0o200;

/// Makes the directories of a chunk, and those that its configuration files need.
pub fn make_directories(places: &Places, chunk: &Chunk) -> Result<()> {
    for entry in &chunk.entries {
        let attributes = entry.attributes();
        let place = places.locate(&attributes.path);
        match entry {
            Entry::Directory(_) => make_directory(&place, attributes.mode)?,
            Entry::File(_) if attributes.path.root() == Root::Config => make_parents(&place)?,
            Entry::File(_) => {}
        }
    }
    Ok(())
}

fn make_directory(place: &Path, mode: FileMode) -> Result<()> {
    match DirBuilder::new().mode(OWNER_ALL).create(place) {
        Ok(()) => {}
        // The roots are there already; a link is not, and would lead somewhere else.
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists && is_directory(place)? => {}
        Err(cause) => return Err(Error::io(format!("create directory {}", place.display()), &cause)),
    }
    let mode = Permissions::from_mode(mode.bits() | OWNER_ALL);
    fs::set_permissions(place, mode).doing(|| format!("set the mode of {}", place.display()))
}

fn is_directory(place: &Path) -> Result<bool> {
    let metadata = fs::symlink_metadata(place).doing(|| format!("look at {}", place.display()))?;
    Ok(metadata.is_dir())
}

fn make_parents(place: &Path) -> Result<()> {
    let Some(parent) = place.parent() else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ALL)
        .create(parent)
        .doing(|| format!("create directory {}", parent.display()))
}

/// Makes `pg_tblspc/<oid>` a link to each tablespace's directory.
pub fn link_tablespaces(places: &Places) -> Result<()> {
    for (oid, directory) in &places.tablespaces {
        let link = places.data.join("pg_tblspc").join(oid.to_string());
        make_parents(&link)?;
        std::os::unix::fs::symlink(directory, &link)
            .doing(|| format!("link {} to {}", link.display(), directory.display()))?;
    }
    Ok(())
}

/// Whether a chunk has a mode that must wait for [`lock_modes`].
pub fn has_locked_modes(chunk: &Chunk) -> bool {
    chunk.entries.iter().any(|entry| locked_mode(entry).is_some())
}

/// The entry's mode if it keeps its owner from writing.
fn locked_mode(entry: &Entry) -> Option<FileMode> {
    let needed = match entry {
        Entry::Directory(_) => OWNER_ALL,
        Entry::File(_) => OWNER_WRITE,
    };
    Some(entry.attributes().mode).filter(|mode| mode.bits() & needed != needed)
}

/// Gives their modes to those that keep their owner out. Backwards, since a directory comes before what it
/// contains. Reads the map once more, so that nothing must be remembered.
pub fn lock_modes(places: &Places, map: &MapReader) -> Result<()> {
    for index in (0..map.chunks()).rev() {
        let chunk = map.read_chunk(index)?;
        for entry in chunk.entries.iter().rev().filter(|_| !chunk.is_final) {
            if let Some(mode) = locked_mode(entry) {
                set_mode(&places.locate(&entry.attributes().path), mode)?;
            }
        }
    }
    Ok(())
}

/// Durably: whoever made the file durable did so with another mode.
pub fn set_mode(place: &Path, mode: FileMode) -> Result<()> {
    let set = || {
        let file = File::open(place)?;
        file.set_permissions(Permissions::from_mode(mode.bits()))?;
        file.sync_all()
    };
    set().doing(|| format!("set the mode of {}", place.display()))
}
