//! Making files and names durable. The sequence write, fsync, rename, fsync of the directory lives here
//! only (and, for objects of a local repository, inside the object_store crate's local store).
//!
//! Invariant: when a function here returns success, a power cut loses neither the bytes nor the name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, RenameFlags, access, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .doing(|| format!("make directory {} durable", dir.display()))
}

/// The directory that a file's name is in; the parent of a bare name is the working directory.
pub fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The mode of directories that a server's own files go into: nobody else's.
pub const PRIVATE: u32 = 0o700;

/// Creates `dir` and whatever is missing above it, and makes the names durable, also of what was there: another
/// process may have created that and died before its own fsync, as one of an earlier run or in a race with us.
/// `mode` is the Unix permission of new ones, before the umask.
///
/// Every directory is fsynced from the deepest up to the first in which we can't have created anything: it is on
/// another file system, or not ours to write to.
pub fn create_dir_all(dir: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.doing(|| format!("create directory {}", dir.display()))?;
    let device = dir.metadata().doing(|| format!("look at {}", dir.display()))?.dev();
    let here = |above| if above == Path::new("") { Path::new(".") } else { above };
    let above = dir.ancestors().map(here);
    above.take_while(|above| *above == dir || may_hold_ours(above, device)).try_for_each(sync_dir)
}

/// Whether a process of our user can have created an entry in a directory on this file system.
fn may_hold_ours(directory: &Path, device: u64) -> bool {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    directory.metadata().is_ok_and(|metadata| metadata.dev() == device) && access(directory, all).is_ok()
}

/// A file that is being written under a temporary name beside its final one. Dropped without
/// [`StagedFile::publish`], it is removed, so nobody ever sees a half-written file under the final name.
#[derive(Debug)]
pub struct StagedFile {
    file: Option<File>,
    staged: PathBuf,
    target: PathBuf,
}

impl StagedFile {
    /// Starts a file that will be called `target`. `mode` is the Unix permission, before the umask.
    pub fn create(target: &Path, mode: u32) -> Result<Self> {
        let mut name = target
            .file_name()
            .ok_or_else(|| Error::configuration(format!("{} is not a file name", target.display())))?
            .to_os_string();
        name.push(format!(".{}.pgark-tmp", std::process::id()));
        Self::create_as(target.with_file_name(name), target, mode)
    }

    /// The same with a temporary name of the caller's choice, in the same directory.
    pub fn create_as(staged: PathBuf, target: &Path, mode: u32) -> Result<Self> {
        // A file of our own, never what a link that somebody put there leads to.
        let create = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged);
        let created = match create() {
            // A leftover under this name is from a killed process whose id we now have: nobody writes it.
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&staged).and_then(|()| create())
            }
            created => created,
        };
        let file = created.doing(|| format!("create {}", staged.display()))?;
        Ok(Self { file: Some(file), staged, target: target.to_path_buf() })
    }

    /// What is being written, for who writes to places of its own choice.
    pub fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or_else(|| Error::bug("the file is already published"))
    }

    /// Renames to the final name without any fsync: for a file that can be had again after a power cut.
    pub fn place(mut self) -> Result<()> {
        fs::rename(&self.staged, &self.target)
            .doing(|| format!("rename {} to {}", self.staged.display(), self.target.display()))?;
        self.staged = PathBuf::new();
        Ok(())
    }

    /// As [`StagedFile::publish`], unless something has the final name already: that is a conflict.
    pub fn publish_new(mut self) -> Result<()> {
        self.sync()?;
        let (staged, target) = (std::mem::take(&mut self.staged), self.target.clone());
        match renameat_with(CWD, &staged, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => sync_dir(parent(&target)),
            Err(cause) => {
                // Removed when this is dropped.
                self.staged = staged;
                Err(match cause {
                    Errno::EXIST => Error::conflict(format!("{} exists already", target.display())),
                    cause => Error::io(format!("create {}", target.display()), &cause.into()),
                })
            }
        }
    }

    fn sync(&mut self) -> Result<()> {
        match self.file.take() {
            Some(file) => file.sync_all().doing(|| format!("make {} durable", self.staged.display())),
            None => Ok(()),
        }
    }

    /// fsync, rename to the final name (replacing what is there), fsync of the directory.
    pub fn publish(mut self) -> Result<()> {
        let target = self.target.clone();
        self.sync()?;
        fs::rename(&self.staged, &target)
            .doing(|| format!("rename {} to {}", self.staged.display(), target.display()))?;
        self.staged = PathBuf::new();
        sync_dir(parent(&target))
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(std::io::Error::other("the file is already published")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.staged.as_os_str().is_empty()
            && let Err(cause) = fs::remove_file(&self.staged)
        {
            tracing::warn!("could not remove {}: {cause}", self.staged.display());
        }
    }
}

/// Writes a whole small file under its final name, or nothing.
pub fn write_file(target: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut staged = StagedFile::create(target, mode)?;
    staged.write_all(bytes).doing(|| format!("write {}", target.display()))?;
    staged.publish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("readable")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let target = dir.path().join("a file's \"name\"");
        let mut staged = StagedFile::create(&target, 0o600).expect("created");
        staged.write_all(b"half").expect("written");
        drop(staged);
        assert!(entries(dir.path()).is_empty());
        let mut staged = StagedFile::create(&target, 0o600).expect("created");
        staged.write_all(b"first").expect("written");
        staged.publish_new().expect("published");
        let staged = StagedFile::create(&target, 0o600).expect("created");
        let taken = staged.publish_new().expect_err("the name is taken");
        assert_eq!(taken.kind(), crate::error::Kind::Conflict);
        assert_eq!(fs::read(&target).expect("read"), b"first");
        write_file(&target, b"whole", 0o600).expect("written");
        assert_eq!(entries(dir.path()), ["a file's \"name\""]);
        assert_eq!(fs::read(&target).expect("read"), b"whole");
    }

    #[test]
    fn what_somebody_put_under_the_temporary_name_is_not_written_to() {
        let dir = tempfile::tempdir().expect("tempdir");
        let [target, precious] = ["target", "precious"].map(|name| dir.path().join(name));
        let staged = dir.path().join(format!("target.{}.pgark-tmp", std::process::id()));
        for plant in [std::os::unix::fs::symlink::<&Path, &Path>, fs::hard_link::<&Path, &Path>] {
            fs::write(&precious, b"precious").expect("written");
            plant(&precious, &staged).expect("planted");
            write_file(&target, b"whole", 0o600).expect("written");
            assert_eq!(fs::read(&precious).expect("read"), b"precious");
            assert_eq!(fs::read(&target).expect("read"), b"whole");
            assert!(!target.symlink_metadata().expect("there").is_symlink());
        }
    }

    #[test]
    fn directories_are_created_down_to_the_last() {
        let dir = tempfile::tempdir().expect("tempdir");
        let deep = dir.path().join("a/b/c");
        create_dir_all(&deep, PRIVATE).expect("created");
        create_dir_all(&deep, PRIVATE).expect("again");
        assert_eq!(deep.metadata().expect("there").permissions().mode() & 0o777, PRIVATE);
        assert!(create_dir_all(Path::new("/proc/self/nothing"), PRIVATE).is_err());
    }
}
