//! A temporary directory of a test, owned by the server's user, short enough for a socket path.
//!
//! Dropping it kills the processes that still have their working directory inside (a server that a failed
//! test left running, its archiver's children) and removes it. They can only be ours: the name is random.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::host::server_user;

#[derive(Debug)]
pub struct Scratch {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Directly under /tmp: a socket path is at most 107 bytes long, and every directory above is open to
    /// the server's user, which $TMPDIR need not be.
    pub fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("pgark-").tempdir_in("/tmp").expect("make a directory in /tmp");
        let path = dir.path().to_path_buf();
        own(&path);
        Self { dir: Some(dir), path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory inside, owned by the server's user, and its parents.
    pub fn make_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let mut path = self.path.clone();
        for part in name.as_ref().components() {
            path.push(part);
            // PostgreSQL refuses a data directory that others can read.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => own(&path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("make {}: {error}", path.display()),
            }
        }
        path
    }

    /// Writes a file inside, owned by the server's user.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        own(&path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for pid in processes_inside(&self.path) {
            signal(pid, Signal::KILL);
        }
        let Some(dir) = self.dir.take() else { return };
        if std::env::var_os("PGARK_TEST_KEEP").is_some() {
            eprintln!("kept {}", dir.keep().display());
        } else if let Err(error) = dir.close() {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// Gives a path to the server's user.
pub fn own(path: &Path) {
    let user = server_user();
    chown(path, Some(user.uid), Some(user.gid))
        .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
}

/// The processes whose working directory is `dir` or lies in it, zombies not counted. A server and all
/// that it starts, archive_command included, work in its data directory.
pub fn processes_inside(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .collect()
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    let Some(target) = Pid::from_raw(pid) else { return };
    match kill_process(target, signal) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound || error == rustix::io::Errno::SRCH => {}
        Err(error) => panic!("could not send {signal:?} to {pid}: {error}"),
    }
}

/// Whether a process runs; a zombie does not.
pub fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
