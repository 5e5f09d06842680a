//! What `wal-push` pushed ahead of its turn: so that the next calls know it and return at once.
//!
//! Invariant: an entry is written only after the file was durable in the repository, and it is valid only for
//! that repository and that very file: WAL files are recycled, so the name says nothing. A file that was
//! renamed, written to or replaced since has another inode, size, modification or change time.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Spool;
use crate::error::{IoContext, Result};

/// More than a batch, and a bound to what a record may grow to.
const MOST: usize = 1024;

/// Its name in the spool.
const NAME: &str = "pushed.json";

const FORMAT: &str = "pgark pushed 1";

/// What tells a file from every other one, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// Bytes.
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = path.metadata().doing(|| format!("look at {}", path.display()))?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// A file that was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// As PostgreSQL names it.
    pub file: String,
    pub identity: Identity,
}

/// All that was pushed ahead into one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    format: String,
    /// Which repository, and which cluster in it.
    pub destination: String,
    entries: Vec<Entry>,
}

impl Pushed {
    pub fn new(destination: String) -> Self {
        Self { format: FORMAT.to_string(), destination, entries: Vec::new() }
    }

    /// What the spool knows, wherever it went.
    pub fn read(spool: &Spool) -> Option<Self> {
        spool.read(NAME).filter(|pushed: &Self| pushed.format == FORMAT)
    }

    /// Whether this very file was pushed.
    pub fn holds(&self, file: &str, identity: Identity) -> bool {
        self.entries.iter().any(|entry| entry.file == file && entry.identity == identity)
    }

    /// Adds entries in front of the older ones, of which those that `still_needed` refuses are dropped.
    pub fn add(&mut self, new: Vec<Entry>, still_needed: impl Fn(&str) -> bool) {
        let old = std::mem::replace(&mut self.entries, new);
        for entry in old {
            if self.entries.len() < MOST
                && self.entries.iter().all(|known| known.file != entry.file)
                && still_needed(&entry.file)
            {
                self.entries.push(entry);
            }
        }
        self.entries.truncate(MOST);
    }

    /// Writes the record durably.
    pub fn write(&self, spool: &Spool) -> Result<()> {
        spool.write(NAME, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn entry(file: &str, path: &Path) -> Entry {
        Entry { file: file.to_string(), identity: Identity::of(path).expect("there") }
    }

    #[test]
    fn a_record_is_for_one_file_and_not_for_its_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&path, "one").expect("written");
        let mut pushed = Pushed::new("repository".into());
        pushed.add(vec![entry("a", &path)], |_| true);
        let holds = |path: &Path| pushed.holds("a", Identity::of(path).expect("there"));
        assert!(holds(&path));
        assert!(!pushed.holds("b", Identity::of(&path).expect("there")));

        // Recycling renames a file; two renames bring the name and the content back, not the identity.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::rename(&path, &other).expect("renamed");
        fs::rename(&other, &path).expect("renamed back");
        assert!(!holds(&path));
    }

    #[test]
    fn a_file_that_was_written_again_is_another() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a");
        fs::write(&path, "one").expect("written");
        let before = Identity::of(&path).expect("there");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, "two").expect("written");
        assert_ne!(Identity::of(&path).expect("there"), before);
    }

    #[test]
    fn old_entries_stay_as_long_as_they_are_needed_and_there_is_room() {
        let dir = tempfile::tempdir().expect("tempdir");
        let here = entry("x", dir.path());
        let named = |file: &str| Entry { file: file.to_string(), ..here.clone() };
        let files =
            |pushed: &Pushed| -> Vec<String> { pushed.entries.iter().map(|e| e.file.clone()).collect() };
        let mut pushed = Pushed::new("repository".into());
        pushed.add(vec![named("1"), named("2"), named("3")], |_| true);
        pushed.add(vec![named("3"), named("4")], |file| file != "1");
        assert_eq!(files(&pushed), ["3", "4", "2"]);
        pushed.add((0..MOST).map(|n| named(&format!("n{n}"))).collect(), |_| true);
        assert_eq!(pushed.entries.len(), MOST);
        assert!(!files(&pushed).contains(&"2".to_string()));
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = Spool::of(Some(dir.path()), Path::new("/x"));
        spool.prepare().expect("made");
        assert_eq!(Pushed::read(&spool), None);
        let mut pushed = Pushed::new("repository".into());
        pushed.add(vec![entry("x", dir.path())], |_| true);
        pushed.write(&spool).expect("written");
        assert_eq!(Pushed::read(&spool), Some(pushed));
    }
}
