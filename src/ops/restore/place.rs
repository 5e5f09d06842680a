//! Where a path of a backup goes on this host: the data directory, a tablespace's, or the place for configuration.
//!
//! Refuses the files of a tablespace for which nobody named a directory: its location at the source may be in
//! use by the source. Links are never followed from the map: a tablespace's files go straight to its directory.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::pg::oid::Oid;
use crate::repo::backup::Tablespace;
use crate::repo::map::{MapPath, Root};

/// The directories that a restore fills; absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The data directory: exists and is empty.
    pub data: PathBuf,
    /// The directory of each tablespace of the backup: exists, and holds nothing that the backup does.
    pub tablespaces: BTreeMap<Oid, PathBuf>,
    /// Receives the configuration files that were outside the data directory, below their absolute paths.
    pub config: PathBuf,
}

impl Places {
    /// An error unless every tablespace of the backup has a directory.
    pub fn check(&self, tablespaces: &[Tablespace]) -> Result<()> {
        match tablespaces.iter().find(|tablespace| !self.tablespaces.contains_key(&tablespace.oid)) {
            None => Ok(()),
            Some(Tablespace { oid, name, location }) => Err(Error::bug(format!(
                "no directory for tablespace {name} ({oid}), which was at {}",
                location.as_path().display()
            ))),
        }
    }

    /// Where a path of the map goes.
    pub fn locate(&self, path: &MapPath) -> PathBuf {
        match path.root() {
            Root::Config => join(&self.config, path.as_path()),
            Root::Data => {
                let mapped = |(oid, rest)| self.tablespaces.get(&oid).map(|directory| join(directory, rest));
                // One without a directory is in place (allow_in_place_tablespaces): below the data directory.
                let in_tablespace = in_tablespace(path.as_path()).and_then(mapped);
                in_tablespace.unwrap_or_else(|| join(&self.data, path.as_path()))
            }
        }
    }

    /// Every directory that is filled.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        let others = self.tablespaces.values().chain([&self.config]);
        [&self.data].into_iter().chain(others).map(PathBuf::as_path)
    }
}

/// Not `Path::join`, which ends the path of a root with a slash.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) }
}

/// The tablespace of `pg_tblspc/<oid>/…`, and what comes behind.
fn in_tablespace(path: &Path) -> Option<(Oid, &Path)> {
    let below = path.strip_prefix("pg_tblspc").ok()?;
    let oid = below.iter().next()?;
    let rest = below.strip_prefix(oid).ok()?;
    Some((Oid::from_file_name(std::str::from_utf8(oid.as_bytes()).ok()?)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            data: "/data".into(),
            tablespaces: BTreeMap::from([(Oid(16400), "/fast".into())]),
            config: "/sink".into(),
        }
    }

    #[test]
    fn every_path_has_its_place() {
        for (path, place) in [
            (".", "/data"),
            ("base/5/1259", "/data/base/5/1259"),
            ("pg_tblspc", "/data/pg_tblspc"),
            ("pg_tblspc/16400", "/fast"),
            ("pg_tblspc/16400/PG_15_202209061/5/1259", "/fast/PG_15_202209061/5/1259"),
            ("pg_tblspc/16401/PG_15_202209061", "/data/pg_tblspc/16401/PG_15_202209061"),
            ("pg_tblspc/016400/x", "/data/pg_tblspc/016400/x"),
            ("base/pg_tblspc/16400/x", "/data/base/pg_tblspc/16400/x"),
        ] {
            assert_eq!(places().locate(&MapPath::data(path).expect("path")), Path::new(place), "{path}");
        }
        let conf = MapPath::config("/etc/postgresql/15/main/pg_hba.conf").expect("path");
        assert_eq!(places().locate(&conf), Path::new("/sink/etc/postgresql/15/main/pg_hba.conf"));
    }

    #[test]
    fn a_tablespace_without_a_directory_is_refused() {
        let tablespace = |oid| Tablespace { oid, name: "t".into(), location: PathBuf::from("/src").into() };
        assert!(places().check(&[tablespace(Oid(16400))]).is_ok());
        assert!(places().check(&[tablespace(Oid(16400)), tablespace(Oid(7))]).is_err());
    }
}
