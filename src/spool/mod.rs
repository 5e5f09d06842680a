//! Local state beside the server: what `wal-push` pushed ahead, what `wal-fetch` prefetched, which WAL had to
//! be dropped. Everything here may vanish at any time without harm to an archive, except for recorded gaps.
//!
//! By default it is the directory `pgark.spool` in the server's pg_wal. PostgreSQL 14 to 18 leaves unknown names
//! there alone (RemoveOldXlogFiles, RemoveTempXlogFiles, KillExistingXLOG and so on look at WAL file names
//! only), and no base backup contains it (basebackup.c skips the contents of pg_wal). pg_rewind may copy it to
//! another server, a file system snapshot to another disk: so every record is bound to what it was made for.

pub mod prefetched;
pub mod pushed;
pub mod sealed;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::flock;

/// The modes of what is in it, before the umask: a server's own umask lets its group in where the data directory
/// does (initdb --allow-group-access), and nobody elsewhere (miscinit.c, checkDataDir).
pub const DIRECTORY_MODE: u32 = 0o750;
pub const FILE_MODE: u32 = 0o640;

/// Its name in pg_wal.
const NAME: &str = "pgark.spool";

/// The local state of one data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool of the server in `data_directory`; `configured` holds those of several servers. Touches nothing.
    pub fn of(configured: Option<&Path>, data_directory: &Path) -> Self {
        let directory = match configured {
            None => data_directory.join("pg_wal").join(NAME),
            Some(directory) => directory.join(own_name(data_directory)),
        };
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory if it is missing and checks that it is ours and that files can be made in it.
    pub fn prepare(&self) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory)
            .doing(|| format!("create the spool directory {}", self.directory.display()))?;
        self.refuse_others()?;
        rustix::fs::access(&self.directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(std::io::Error::from)
            .doing(|| format!("write into the spool directory {}", self.directory.display()))
    }

    /// The same for a record that must survive a power cut, names of directories included.
    pub fn prepare_durable(&self) -> Result<()> {
        let above = durable::parent(&self.directory);
        durable::create_dir_all(above, DIRECTORY_MODE)?;
        self.prepare()?;
        // Whoever made ours may have been killed before its name was durable.
        durable::sync_dir(above)
    }

    /// Keeps other processes out that ask for the lock of this name; None when one has it. Needs
    /// [`Spool::prepare`].
    pub fn hold(&self, lock: &str) -> Result<Option<Hold>> {
        self.lock(lock, flock::try_exclusive)
    }

    /// The same for a lock that nobody has for long: waits for it a moment.
    pub fn hold_soon(&self, lock: &str) -> Result<Option<Hold>> {
        self.lock(lock, flock::exclusive_soon)
    }

    fn lock(&self, name: &str, take: fn(&File) -> std::io::Result<bool>) -> Result<Option<Hold>> {
        let path = self.directory.join(name);
        let doing = || format!("lock {}", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(&path).doing(doing)?;
        Ok(take(&file).doing(doing)?.then_some(Hold { _file: file }))
    }

    fn refuse_others(&self) -> Result<()> {
        refuse_others(&self.directory, "remove it, or set `spool` to a directory of the server's user")
    }

    /// Reads a record. None: there is none, or none that can be relied on.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.directory.join(name);
        if !self.directory.exists() {
            return None;
        }
        if let Err(error) = self.refuse_others() {
            tracing::warn!("{error}; not used");
            return None;
        }
        sealed::read(&path)
    }

    /// Writes a record durably under its name, replacing what is there. Needs [`Spool::prepare`].
    pub fn write<T: Serialize>(&self, name: &str, record: &T) -> Result<()> {
        sealed::write(&self.directory.join(name), record)
    }

    /// Removes a record durably, if there is one.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()), &cause))
            }
            _ => durable::sync_dir(&self.directory),
        }
    }
}

/// A lock, until dropped.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// What lies in a spool is believed: nobody else may have written it. The name of one in /tmp can be guessed.
pub fn refuse_others(directory: &Path, hint: &str) -> Result<()> {
    let name = directory.display();
    let metadata = directory.metadata().doing(|| format!("look at the spool directory {name}"))?;
    if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "the spool directory {name} belongs to user id {} with mode {:o}: others can write there",
        metadata.uid(),
        metadata.mode() & 0o7777
    ))
    .with_hint(hint))
}

/// A name for the spool of one data directory among others: the start of a digest of its path.
fn own_name(data_directory: &Path) -> String {
    let digest = blake3::hash(data_directory.as_os_str().as_bytes()).to_hex();
    format!("pgark-{}", digest.chars().take(16).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_lies_in_pg_wal_or_has_a_name_of_its_own() {
        let data = Path::new("/var/lib/postgresql/15/main");
        let inside = Spool::of(None, data);
        assert_eq!(inside.directory(), data.join("pg_wal/pgark.spool"));
        let (one, other) = (
            Spool::of(Some(Path::new("/spool")), data),
            Spool::of(Some(Path::new("/spool")), Path::new("/x")),
        );
        assert!(one.directory().starts_with("/spool"));
        assert_ne!(one, other);
    }

    #[test]
    fn a_spool_is_made_when_it_is_prepared_and_refused_where_it_cannot_be() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = Spool::of(Some(&dir.path().join("a/b")), Path::new("/x"));
        spool.prepare().expect("made");
        spool.prepare().expect("again");
        assert!(spool.directory().is_dir());
        spool.write("x", &7).expect("written");
        assert_eq!(spool.read::<u32>("x"), Some(7));
        std::fs::write(dir.path().join("file"), "").expect("written");
        let error =
            Spool::of(Some(&dir.path().join("file")), Path::new("/x")).prepare().expect_err("no directory");
        assert!(error.message().contains("could not create the spool directory"), "{error}");
    }

    #[test]
    fn records_that_others_may_have_written_are_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = Spool::of(Some(dir.path()), Path::new("/x"));
        spool.prepare().expect("made");
        spool.write("x", &7).expect("written");
        std::fs::set_permissions(spool.directory(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
        assert_eq!(spool.read::<u32>("x"), None);
        assert!(spool.prepare().expect_err("open to all").message().contains("with mode 777"));
    }
}
