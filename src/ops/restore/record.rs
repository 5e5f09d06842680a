//! What a restore leaves behind about itself: in the data directory which backup it was made from, in each
//! tablespace's directory whose it is, and, until it is whole, a mark that says so.
//!
//! Invariant: `--replace` empties a tablespace's directory only when both say the same restore: one that
//! another data directory links to, such as the source's own, has no such note.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::ident::{Id, Name};
use crate::pg::lsn::SystemId;
use crate::pg::oid::Oid;
use crate::pg::version::PgMajor;
use crate::repo::escape::StoredPath;

/// In the data directory as long as it is not a whole cluster.
pub const INCOMPLETE: &str = "pgark-restore-incomplete";

const INCOMPLETE_TEXT: &str = "bootstrap-restore has not finished here: this directory is not a whole cluster, \
and no server starts in it.\nRun bootstrap-restore again with --replace, or remove the directory.\n";

/// In the data directory, from the first write on.
const RECORD: &str = "pgark-restore.json";
/// In the directory of a tablespace.
const OWNER: &str = "pgark-tablespace.json";

/// `pgark-restore.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of this restore.
    pub id: Id,
    pub started: Timestamp,
    pub pgark: String,
    pub repository: Id,
    pub cluster: Name,
    pub system_id: SystemId,
    pub major: PgMajor,
    pub backup: Name,
    pub target: String,
    /// The directories that this restore filled outside the data directory.
    pub tablespaces: Vec<OwnedTablespace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedTablespace {
    pub oid: Oid,
    pub location: StoredPath,
}

/// `pgark-tablespace.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    restore: Id,
    data_directory: StoredPath,
}

impl Record {
    /// The record of a data directory, if a restore made it.
    pub fn read(data: &Path) -> Result<Option<Self>> {
        read_json(&data.join(RECORD))
    }

    pub fn write(&self, data: &Path) -> Result<()> {
        durable::write_file(&data.join(RECORD), &crate::repo::to_json(self)?, 0o600)
    }

    /// Notes in a tablespace's directory whose it is.
    pub fn claim(&self, location: &Path, data: &Path) -> Result<()> {
        let owner = Owner { restore: self.id, data_directory: data.to_path_buf().into() };
        durable::write_file(&location.join(OWNER), &crate::repo::to_json(&owner)?, 0o600)
    }

    /// The directories of tablespaces that are still this restore's.
    pub fn owned(&self) -> Result<Vec<PathBuf>> {
        let mut owned = Vec::new();
        for tablespace in &self.tablespaces {
            let location = tablespace.location.as_path();
            let owner: Option<Owner> = read_json(&location.join(OWNER))?;
            if owner.is_some_and(|owner| owner.restore == self.id) {
                owned.push(location.to_path_buf());
            }
        }
        Ok(owned)
    }
}

/// Empties a tablespace's directory of what a major version made there.
pub fn release(location: &Path, major: PgMajor) -> Result<()> {
    remove_tree(&location.join(major.tablespace_directory()))?;
    remove_file(&location.join(OWNER))?;
    durable::sync_dir(location)
}

/// Marks a data directory, which exists, as not whole.
pub fn mark_incomplete(data: &Path) -> Result<()> {
    durable::write_file(&data.join(INCOMPLETE), INCOMPLETE_TEXT.as_bytes(), 0o600)
}

/// Takes the mark away: the last step of all.
pub fn mark_complete(data: &Path) -> Result<()> {
    remove_file(&data.join(INCOMPLETE))?;
    durable::sync_dir(data)
}

/// Removes a directory and what is in it. Links in it are removed, not followed. None there is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing(|| format!("remove {}", path.display())),
    }
}

/// Removes a file or a link. None there is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing(|| format!("remove {}", path.display())),
    }
}

/// None when the file is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        read => read.doing(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|cause| Error::corrupt(format!("could not read {}: {cause}", path.display())))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn record(tablespaces: &[&Path]) -> Record {
        let tablespaces = (16_400..).zip(tablespaces).map(|(oid, location)| OwnedTablespace {
            oid: Oid(oid),
            location: location.to_path_buf().into(),
        });
        Record {
            id: Id::random().expect("an id"),
            started: "2026-11-22T10:00:00Z".parse().expect("a time"),
            pgark: "0.1.0".into(),
            repository: Id::random().expect("an id"),
            cluster: "main".parse().expect("a name"),
            system_id: SystemId(7),
            major: PgMajor::try_from(15).expect("supported"),
            backup: "one".parse().expect("a name"),
            target: "the end of the archive".into(),
            tablespaces: tablespaces.collect(),
        }
    }

    #[test]
    fn only_directories_that_both_notes_name_are_owned() {
        let dir = tempfile::tempdir().expect("a directory");
        let [data, ours, another] = ["data", "ours", "another"].map(|name| dir.path().join(name));
        for path in [&data, &ours, &another] {
            std::fs::create_dir(path).expect("made");
        }
        let mine = record(&[&ours, &another, &dir.path().join("gone")]);
        mine.write(&data).expect("written");
        assert_eq!(Record::read(&data), Ok(Some(mine.clone())));
        mine.claim(&ours, &data).expect("claimed");
        record(&[]).claim(&another, &data).expect("claimed by another");
        assert_eq!(mine.owned(), Ok(vec![ours.clone()]));

        std::fs::create_dir_all(ours.join("PG_15_202209061/5")).expect("made");
        std::fs::create_dir(ours.join("PG_16_202307071")).expect("made");
        release(&ours, mine.major).expect("released");
        let left: Vec<_> =
            std::fs::read_dir(&ours).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(left, ["PG_16_202307071"]);
        assert_eq!(mine.owned(), Ok(vec![]));
    }

    #[test]
    fn the_mark_comes_and_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        mark_incomplete(dir.path()).expect("marked");
        let text = std::fs::read_to_string(dir.path().join(INCOMPLETE)).expect("read");
        assert!(text.contains("--replace"));
        mark_complete(dir.path()).expect("whole");
        mark_complete(dir.path()).expect("again");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }
}
