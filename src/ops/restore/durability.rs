//! Making a restored directory durable: everything at once, per file system, or file by file.
//!
//! `syncfs` writes all of a file system, and since Linux 5.8 it fails if anything was not written since the
//! descriptor was opened, so that one call says of any number of files what `fsync` says of one. It is
//! used where the kernel is that new and the file system is one that is known to keep this; elsewhere each
//! file is fsynced before it is closed, and each directory at the end. `docs/decisions/restore-durability.md`.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use walkdir::WalkDir;

use crate::durable;
use crate::error::{Error, IoContext, Result};

/// statfs(2)'s f_type of ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs, and overlayfs (which asks its upper one).
const WHOLE: [u64; 7] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x0102_1994, 0x794C_7630];

/// Bytes after which what was written so far is sent to the disk, while more is being written.
const FLUSH_EVERY: u64 = 512 << 20;

/// How the directories of one restore become durable.
pub enum Durability {
    /// One descriptor per file system, opened before anything was written.
    Whole(Vec<(PathBuf, File)>),
    EachFile,
}

impl Durability {
    /// For these directories, which exist and will be written to.
    pub fn of<'a>(roots: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let mut file_systems: Vec<(u64, PathBuf, File)> = Vec::new();
        for root in roots {
            let directory = File::open(root).doing(|| format!("open directory {}", root.display()))?;
            let statfs = rustix::fs::fstatfs(&directory).map_err(|cause| {
                Error::io(format!("look at the file system of {}", root.display()), &cause.into())
            })?;
            if !syncfs_reports_errors() || !WHOLE.contains(&(statfs.f_type as u64)) {
                return Ok(Durability::EachFile);
            }
            let device = directory.metadata().doing(|| format!("look at {}", root.display()))?.dev();
            if file_systems.iter().all(|(known, ..)| *known != device) {
                file_systems.push((device, root.to_path_buf(), directory));
            }
        }
        Ok(Durability::Whole(file_systems.into_iter().map(|(_, root, file)| (root, file)).collect()))
    }

    /// Whether whoever writes a file must fsync it.
    pub fn each_file(&self) -> bool {
        matches!(self, Durability::EachFile)
    }

    /// Makes all that was written in `roots` durable.
    pub fn settle<'a>(&self, roots: impl Iterator<Item = &'a Path>) -> Result<()> {
        match self {
            Durability::Whole(_) => self.flush(),
            Durability::EachFile => roots.into_iter().try_for_each(sync_directories),
        }
    }

    fn flush(&self) -> Result<()> {
        let Durability::Whole(file_systems) = self else { return Ok(()) };
        file_systems.iter().try_for_each(|(root, file)| {
            rustix::fs::syncfs(file)
                .map_err(|cause| Error::io(format!("make {} durable", root.display()), &cause.into()))
        })
    }
}

/// Linux 5.8 is the first whose syncfs does (commit 735e4ae5ba28).
fn syncfs_reports_errors() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    kernel_version(&release).is_some_and(|version| version >= (5, 8))
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn sync_directories(root: &Path) -> Result<()> {
    for entry in WalkDir::new(root).follow_links(false) {
        let entry =
            entry.map_err(|cause| Error::transient(format!("could not list {}: {cause}", root.display())))?;
        if entry.file_type().is_dir() {
            durable::sync_dir(entry.path())?;
        }
    }
    Ok(())
}

/// Counts what is written and says when it is time to send it to the disk.
pub struct Counter {
    written: AtomicU64,
    due: Sender<()>,
}

impl Counter {
    /// The counter, and what [`flush_when_due`] listens to.
    pub fn new() -> (Self, Receiver<()>) {
        let (due, listen) = bounded(1);
        (Self { written: AtomicU64::new(0), due }, listen)
    }

    pub fn add(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / FLUSH_EVERY != (before + bytes) / FLUSH_EVERY {
            // Full: a flush is due already. Disconnected: one failed, and that error ends the restore.
            match self.due.try_send(()) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Keeps the disk busy while files are written, so that little is left to do at the end. Ends with the counter.
pub fn flush_when_due(durability: &Durability, due: Receiver<()>) -> Result<()> {
    due.iter().try_for_each(|()| durability.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_first_two_numbers() {
        for (release, version) in [
            ("5.8.0", Some((5, 8))),
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.10", Some((5, 10))),
            ("x", None),
        ] {
            assert_eq!(kernel_version(release), version, "{release}");
        }
        assert!(kernel_version("5.10.1") > kernel_version("5.8"));
    }

    #[test]
    fn two_directories_on_one_file_system_are_flushed_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let durability = Durability::of([dir.path(), dir.path()].into_iter()).expect("opened");
        if let Durability::Whole(file_systems) = &durability {
            assert_eq!(file_systems.len(), 1);
        }
        durability.settle([dir.path()].into_iter()).expect("durable");
        Durability::EachFile.settle([dir.path()].into_iter()).expect("durable");
    }

    #[test]
    fn a_flush_is_due_once_for_each_full_measure() {
        let (counter, due) = Counter::new();
        counter.add(FLUSH_EVERY - 1);
        assert!(due.try_recv().is_err());
        counter.add(1);
        assert!(due.try_recv().is_ok());
        counter.add(FLUSH_EVERY * 3);
        counter.add(FLUSH_EVERY);
        assert!(due.try_recv().is_ok() && due.try_recv().is_err(), "one pending flush is enough");
    }
}
