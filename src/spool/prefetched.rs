//! Segments that the prefetcher keeps ready for `wal-fetch`, and the note by which `wal-fetch` tells it what
//! was asked for last.
//!
//! Invariants: a file stands under a segment's name only when it was written and verified whole; all of one
//! directory was made for one binding (this boot, because nothing is fsynced; repository, cluster, data
//! directory), which is part of the directory's name, so that nothing made for another is ever looked at.
//! That something is missing here means nothing at all.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FILE_MODE, Hold, Spool, sealed};
use crate::disk::Space;
use crate::durable::StagedFile;
use crate::error::{IoContext, Result};

/// How the directories' names begin.
const PREFIX: &str = "prefetched-";
/// The note, in the directory.
const ASKED: &str = "asked";
/// What the names of files end with that are not complete.
const UNFINISHED: &str = ".part";
/// Held by the prefetcher. Beside the directory, which it removes.
const LOCK: &str = "prefetcher.lock";

/// What was asked for last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The segment; None before the first.
    pub segment: Option<String>,
    /// The last timeline history that was delivered: the path that recovery follows.
    pub history: Option<String>,
}

/// Tells one writing of the note from the next, also when it says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteId(u64, i64, i64);

/// The segments kept ready for one binding.
#[derive(Clone, Debug)]
pub struct Prefetched {
    spool: Spool,
    directory: PathBuf,
}

impl Prefetched {
    /// Touches nothing.
    pub fn of(spool: &Spool, binding: &str) -> Self {
        let digest: String = blake3::hash(binding.as_bytes()).to_hex().chars().take(32).collect();
        Self { spool: spool.clone(), directory: spool.directory().join(format!("{PREFIX}{digest}")) }
    }

    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Refuses a spool in which others can write.
    pub fn trusted(&self) -> Result<()> {
        self.spool.refuse_others()
    }

    /// The path of a segment that is ready, if there is one of that name.
    pub fn ready(&self, segment: &str) -> PathBuf {
        self.directory.join(segment)
    }

    /// The bytes that are written so far of a segment that is just being prefetched.
    pub fn written(&self, segment: &str) -> Option<u64> {
        self.unfinished(segment).metadata().map(|metadata| metadata.len()).ok()
    }

    fn unfinished(&self, segment: &str) -> PathBuf {
        self.directory.join(format!("{segment}{UNFINISHED}"))
    }

    /// Starts a segment; `StagedFile::place` makes it ready.
    pub fn begin(&self, segment: &str) -> Result<StagedFile> {
        StagedFile::create_as(self.unfinished(segment), &self.ready(segment), FILE_MODE)
    }

    /// Notes what was asked for.
    pub fn note(&self, asked: &Asked) -> Result<()> {
        if !self.directory.is_dir() {
            self.spool.prepare()?;
            make(&self.directory)?;
        }
        let note = self.directory.join(ASKED);
        sealed::place(&note, asked)
    }

    /// The note, and which writing of it.
    pub fn asked(&self) -> Option<(Asked, NoteId)> {
        let path = self.directory.join(ASKED);
        let id = path.metadata().ok()?;
        Some((sealed::read(&path)?, NoteId(id.ino(), id.mtime(), id.mtime_nsec())))
    }

    /// The names of the segments that are ready.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).doing(|| format!("list {}", self.directory.display()))? {
            let entry = entry.doing(|| format!("list {}", self.directory.display()))?;
            if let Ok(name) = entry.file_name().into_string()
                && name != ASKED
                && !name.contains('.')
            {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Removes a segment that is not wanted, if it is still there.
    pub fn remove(&self, segment: &str) -> Result<()> {
        remove(&self.ready(segment))
    }

    /// Removes what a killed prefetcher left unfinished, and all that was made for another binding.
    pub fn sweep(&self, _hold: &Hold) -> Result<()> {
        let spool = self.spool.directory();
        for path in paths_in(&self.directory)? {
            if path.to_string_lossy().ends_with(UNFINISHED) {
                remove(&path)?;
            }
        }
        for path in paths_in(spool)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && path != self.directory {
                remove_all(&path)?;
            }
        }
        Ok(())
    }

    /// Removes everything, the note included.
    pub fn clear(&self, _hold: &Hold) -> Result<()> {
        remove_all(&self.directory)
    }

    /// Becomes the only prefetcher of the data directory; None when there is one.
    pub fn hold(&self) -> Result<Option<Hold>> {
        self.spool.hold(LOCK)
    }

    /// The file system's space that we may use, bytes.
    pub fn space(&self) -> Result<u64> {
        Ok(Space::of(&self.directory)?.free)
    }
}

/// Removes whatever was prefetched for a data directory, if nobody prefetches any more: it was promoted.
pub fn clear_all(spool: &Spool) -> Result<()> {
    let any = Prefetched::of(spool, "");
    if !paths_in(spool.directory())?.iter().any(|path| path.to_string_lossy().contains(PREFIX)) {
        return Ok(());
    }
    match any.hold()? {
        Some(hold) => any.sweep(&hold),
        None => Ok(()),
    }
}

fn make(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.doing(|| format!("create {}", directory.display())),
    }
}

/// Nothing when the directory is not there.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    match list() {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.doing(|| format!("list {}", directory.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.doing(|| format!("remove {}", path.display())),
    }
}

/// A worker that is just finishing may put a file in once more.
fn remove_all(directory: &Path) -> Result<()> {
    let mut tries = 1;
    loop {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound && !directory.exists() => return Ok(()),
            Err(cause)
                if tries < 5
                    && matches!(cause.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) =>
            {
                tries += 1;
            }
            Err(cause) => return Err(cause).doing(|| format!("remove {}", directory.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Place {
        spool: Spool,
        _dir: tempfile::TempDir,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = Spool::of(Some(dir.path()), Path::new("/x"));
        spool.prepare().expect("made");
        Place { spool, _dir: dir }
    }

    fn asked(segment: &str) -> Asked {
        Asked { segment: Some(segment.to_string()), history: None }
    }

    fn put(prefetched: &Prefetched, segment: &str) {
        let mut staged = prefetched.begin(segment).expect("begun");
        staged.write_all(b"content").expect("written");
        assert_eq!(prefetched.written(segment), Some(7));
        assert!(!prefetched.ready(segment).exists());
        staged.place().expect("placed");
        assert_eq!(prefetched.written(segment), None);
    }

    #[test]
    fn segments_are_ready_for_their_binding_only() {
        let place = place();
        let (ours, other) = (Prefetched::of(&place.spool, "a"), Prefetched::of(&place.spool, "b"));
        ours.note(&asked("1")).expect("noted");
        other.note(&asked("7")).expect("noted");
        put(&ours, "2");
        put(&other, "8");
        assert_eq!(ours.list().expect("listed"), ["2"]);
        assert!(!other.ready("2").exists());

        let hold = ours.hold().expect("no error").expect("nobody else");
        assert!(other.hold().expect("no error").is_none(), "one prefetcher for one data directory");
        ours.sweep(&hold).expect("swept");
        assert!(ours.ready("2").exists() && !other.ready("8").exists());
        ours.clear(&hold).expect("cleared");
        ours.clear(&hold).expect("again");
        assert!(ours.asked().is_none() && !ours.ready("2").exists());
    }

    #[test]
    fn every_note_is_a_new_one() {
        let place = place();
        let prefetched = Prefetched::of(&place.spool, "a");
        assert_eq!(prefetched.asked(), None);
        prefetched.note(&asked("1")).expect("noted");
        let (first, id) = prefetched.asked().expect("noted");
        assert_eq!(first, asked("1"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        prefetched.note(&asked("1")).expect("noted");
        assert_ne!(prefetched.asked().expect("noted").1, id);
    }

    #[test]
    fn what_was_left_unfinished_is_swept() {
        let place = place();
        let prefetched = Prefetched::of(&place.spool, "a");
        prefetched.note(&asked("1")).expect("noted");
        std::mem::forget(prefetched.begin("2").expect("begun"));
        put(&prefetched, "3");
        let hold = prefetched.hold().expect("no error").expect("nobody else");
        prefetched.sweep(&hold).expect("swept");
        assert_eq!(prefetched.written("2"), None);
        assert!(prefetched.ready("3").exists());
        drop(hold);
        // A process that another test starts just now has the lock until it runs its program.
        let cleared = (0..200).any(|_| {
            clear_all(&place.spool).expect("cleared");
            !prefetched.ready("3").exists() || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                false
            }
        });
        assert!(cleared, "nobody prefetches any more");
        clear_all(&Spool::of(None, Path::new("/nowhere"))).expect("nothing to clear");
    }
}
