//! postmaster.pid: which server runs in a data directory, and how far it is (pidfile.h, miscinit.c).
//!
//! A file that a crash left behind names a process that is gone, or one that has nothing to do with the
//! directory: a server works in its data directory, so that is what is compared. Shared memory of a dead
//! server is left to the next one's own check.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use crate::error::{IoContext, Result};

const NAME: &str = "postmaster.pid";

/// What postmaster.pid says. Every line but the first can be missing while the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    pub pid: i32,
    /// A backend that runs alone (`postgres --single`), not a server.
    pub standalone: bool,
    pub data_directory: PathBuf,
    /// When it was started, seconds since 1970.
    pub started: Option<i64>,
    pub port: Option<u16>,
    pub socket_directory: Option<PathBuf>,
    pub status: Option<Status>,
}

/// The status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    Stopping,
    /// Connections are accepted, read-only ones if it recovers.
    Ready,
    /// It recovers and accepts none (hot_standby = off).
    Standby,
}

impl PidFile {
    pub fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number - 1).copied().filter(|line| !line.is_empty());
        let pid: i32 = line(1)?.parse().ok()?;
        Some(Self {
            pid: pid.checked_abs().filter(|pid| *pid > 0)?,
            standalone: pid < 0,
            data_directory: PathBuf::from(line(2).unwrap_or_default()),
            started: line(3).and_then(|started| started.parse().ok()),
            port: line(4).and_then(|port| port.parse().ok()),
            socket_directory: line(5).map(PathBuf::from),
            status: line(8).and_then(Status::parse),
        })
    }

    /// The file of a data directory, if there is one with a pid in it.
    pub fn read(data_directory: &Path) -> Result<Option<Self>> {
        let path = data_directory.join(NAME);
        match std::fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                let bytes = read.doing(|| format!("read {}", path.display()))?;
                Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
            }
        }
    }

    /// Whether the process is there and is this directory's server.
    fn is_of(&self, data_directory: &Path) -> Result<bool> {
        if !is_alive(self.pid) {
            return Ok(false);
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        match std::fs::read_link(format!("/proc/{}/cwd", self.pid)) {
            Ok(works_in) => Ok(works_in == real(data_directory)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            // Another user's process: the file is all there is to go by.
            Err(_) => Ok(real(&self.data_directory) == real(data_directory)),
        }
    }
}

impl Status {
    fn parse(line: &str) -> Option<Self> {
        match line {
            "starting" => Some(Status::Starting),
            "stopping" => Some(Status::Stopping),
            "ready" => Some(Status::Ready),
            "standby" => Some(Status::Standby),
            _ => None,
        }
    }
}

/// The server that runs in a data directory, if one does.
pub fn status(data_directory: &Path) -> Result<Option<PidFile>> {
    match PidFile::read(data_directory)? {
        Some(file) if file.is_of(data_directory)? => Ok(Some(file)),
        _ => Ok(None),
    }
}

/// A process that we may not signal is alive too.
fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = "4711\n/data\n1763800000\n5433\n/run/pg\nlocalhost\n  12345  67\nready   \n";

    #[test]
    fn a_whole_file_says_everything() {
        let file = PidFile::parse(WHOLE).expect("a pid");
        let expected = PidFile {
            pid: 4711,
            standalone: false,
            data_directory: "/data".into(),
            started: Some(1_763_800_000),
            port: Some(5433),
            socket_directory: Some("/run/pg".into()),
            status: Some(Status::Ready),
        };
        assert_eq!(file, expected);
    }

    #[test]
    fn a_file_that_is_being_written_says_less() {
        let started = PidFile::parse("-12\n/data\n1\n5432\n\n").expect("a pid");
        assert!(started.standalone && started.pid == 12);
        assert_eq!((started.socket_directory, started.status), (None, None));
        for text in ["", "\n", "x\n", "0\n", "-2147483648\n", "99999999999\n"] {
            assert_eq!(PidFile::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_stale_file_is_no_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |pid: u32, of: &Path| {
            std::fs::write(directory.path().join(NAME), format!("{pid}\n{}\n1\n", of.display()))
                .expect("written");
        };
        assert_eq!(status(directory.path()), Ok(None));
        // This process is alive and works somewhere else.
        write(std::process::id(), directory.path());
        assert_eq!(status(directory.path()), Ok(None));
        let mut ended = std::process::Command::new("true").spawn().expect("started");
        write(ended.id(), directory.path());
        ended.wait().expect("ended");
        assert_eq!(status(directory.path()), Ok(None));
        let mut inside = std::process::Command::new("sleep")
            .arg("600")
            .current_dir(directory.path())
            .spawn()
            .expect("started");
        write(inside.id(), directory.path());
        let found = status(directory.path());
        inside.kill().expect("killed");
        // Dead, and nobody has collected it yet.
        write(inside.id(), directory.path());
        inside.wait().expect("ended");
        assert!(found.is_ok_and(|found| found.is_some()));
        assert_eq!(status(directory.path()), Ok(None));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[-0-9a-z /\\n]{0,60}") {
            if let Some(file) = PidFile::parse(&text) {
                prop_assert!(file.pid > 0);
            }
        }
    }
}
