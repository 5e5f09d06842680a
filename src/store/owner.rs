//! Whose the objects of a local repository are. Root may restore from a repository that belongs to the server's user;
//! what it leaves there must be that user's, or the server could neither read nor delete it, and would archive no more.
//!
//! While root creates something, its thread acts as the owner of the nearest directory above. So nothing is ever there
//! with another owner, wherever we are killed. Linux keeps these ids for each thread (setresuid(2)).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::{getegid, geteuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::error::{Error, IoContext, Result};

/// Until this is dropped, the thread creates files as the owner of the directory that they are to be in.
#[must_use]
pub struct AsOwner {
    /// Whom to be again.
    before: Option<(Uid, Gid)>,
}

impl AsOwner {
    /// For a file to be at `path`, whose directory need not be there yet.
    pub fn of(path: &Path) -> Result<Self> {
        let (uid, gid) = (geteuid(), getegid());
        if !uid.is_root() {
            return Ok(Self { before: None });
        }
        let Some(owner) = owner_above(path)?.filter(|owner| !owner.0.is_root()) else {
            return Ok(Self { before: None });
        };
        let failed = |cause| Error::io(format!("create {} for its owner", path.display()), &cause);
        set_thread_res_gid(None::<Gid>, owner.1, None::<Gid>).map_err(|cause| failed(cause.into()))?;
        // From here on dropping this undoes it.
        let acting = Self { before: Some((uid, gid)) };
        set_thread_res_uid(None::<Uid>, owner.0, None::<Uid>).map_err(|cause| failed(cause.into()))?;
        Ok(acting)
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        let Some((uid, gid)) = self.before else { return };
        let back = set_thread_res_uid(None::<Uid>, uid, None::<Uid>)
            .and_then(|()| set_thread_res_gid(None::<Gid>, gid, None::<Gid>));
        if let Err(cause) = back {
            tracing::error!("could not act as root again: {cause}");
        }
    }
}

/// Whether what we create at `path` belongs to whoever owns the directory above: we are that user, or root.
pub fn is_ours(path: &Path) -> Result<bool> {
    let euid = geteuid();
    Ok(euid.is_root() || owner_above(path)?.is_some_and(|(uid, _)| uid == euid))
}

/// The owner of the nearest directory above that is there.
fn owner_above(path: &Path) -> Result<Option<(Uid, Gid)>> {
    for directory in path.ancestors().skip(1) {
        match directory.metadata() {
            Ok(metadata) => {
                return Ok(Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()))));
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(cause).doing(|| format!("look at {}", directory.display())),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_creates_belongs_to_the_owner_of_the_directory_above() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/c");
        assert!(is_ours(&path).expect("looked"));
        if !geteuid().is_root() {
            eprintln!("skipped the rest: only root can act for others");
            return;
        }
        let create = || {
            let acting = AsOwner::of(&path).expect("acting");
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, "x").expect("written");
            drop(acting);
        };
        let (uid, gid) = (12_345, 54_321);
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("given away");
        create();
        for made in ["a", "a/b", "a/b/c"] {
            let metadata = dir.path().join(made).metadata().expect("there");
            assert_eq!((metadata.uid(), metadata.gid()), (uid, gid), "{made}");
        }
        assert!(geteuid().is_root() && getegid().is_root(), "and is root again");
        std::fs::remove_dir_all(dir.path().join("a")).expect("removed");
        std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).expect("taken back");
        create();
        assert_eq!(path.metadata().expect("there").uid(), 0);
    }
}
