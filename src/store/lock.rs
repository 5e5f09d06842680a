//! A lock file that serializes processes working on one key. Only a courtesy: `create` is what keeps two
//! writers apart; the lock saves the second the work, and keeps its error from being a race.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Key;
use crate::error::{Error, IoContext, Result};
use crate::flock;

/// How long to sleep between tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Held until dropped. The lock belongs to the open file: a killed process releases it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    // Open for as long as the lock is held.
    _file: File,
}

impl Lock {
    /// Waits for the lock, at most `wait`.
    pub(super) fn acquire(root: &Path, key: &Key, wait: Duration) -> Result<Self> {
        super::local::make_parent(root, key).map_err(super::store_failed)?;
        let path = root.join(key.as_str());
        let deadline = Instant::now() + wait;
        loop {
            if let Some(file) = try_lock(&path).map_err(super::store_failed)? {
                return Ok(Self { path, _file: file });
            }
            if Instant::now() >= deadline {
                return Err(Error::transient(format!("could not lock {} within {wait:?}", path.display()))
                    .with_hint(
                        "another process has been working on the same file for that long: is it stuck?",
                    ));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// None: another process holds it, or removed the file between our open and our lock.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .doing(|| format!("create lock file {}", path.display()))?;
    if !flock::try_exclusive(&file).doing(|| format!("lock {}", path.display()))? {
        return Ok(None);
    }
    let ours = file.metadata().doing(|| format!("look at lock file {}", path.display()))?;
    match path.metadata() {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::io(format!("look at lock file {}", path.display()), &cause)),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked: who opened the old file meanwhile sees that its name is gone.
        if let Err(cause) = std::fs::remove_file(&self.path) {
            tracing::warn!("could not remove lock file {}: {cause}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_holder_at_a_time_and_nothing_left_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        let key = Key::new("lock/x").expect("key");
        let (inside, total) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lock = Lock::acquire(dir.path(), &key, Duration::from_secs(60)).expect("lock");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_millis(2));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    total.fetch_add(1, Ordering::SeqCst);
                    drop(lock);
                });
            }
        });
        assert_eq!(total.load(Ordering::SeqCst), 8);
        assert!(!dir.path().join("lock/x").exists());
    }

    #[test]
    fn a_lock_that_is_never_released_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let key = Key::new("lock/x").expect("key");
        let _held = Lock::acquire(dir.path(), &key, Duration::ZERO).expect("lock");
        let error = Lock::acquire(dir.path(), &key, Duration::from_millis(1)).expect_err("held");
        assert!(error.message().contains("lock/x"), "{error}");
        assert!(!error.is_unreachable(), "somebody works there");
        let away = Lock::acquire(&dir.path().join("away"), &key, Duration::ZERO).expect_err("no root");
        assert!(away.is_unreachable(), "{away}");
    }
}
