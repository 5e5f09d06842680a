//! A receiver that runs, and what it brought.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;

/// A `wal-receive` in the background. Dropped, it is killed.
pub struct Receiver {
    child: Child,
    log: PathBuf,
}

impl Receiver {
    /// From the server, through its Unix socket.
    pub fn start(repo: &TestRepo, server: &Cluster, arguments: &[&str]) -> Self {
        let mut command = command(repo);
        command.envs(server.env()).args(arguments);
        Self::spawn(repo, command)
    }

    /// From the servers that a connection string names.
    pub fn start_at(repo: &TestRepo, conninfo: &str, arguments: &[&str]) -> Self {
        let mut command = command(repo);
        command.args(["--dbname", conninfo]).args(arguments);
        Self::spawn(repo, command)
    }

    pub fn spawn(repo: &TestRepo, mut command: Command) -> Self {
        let count = fs::read_dir(logs(repo)).expect("list").count();
        let log = logs(repo).join(count.to_string());
        let file = File::options().create_new(true).append(true).open(&log).expect("open the log");
        command.stdout(Stdio::null()).stderr(file);
        Self { child: command.spawn().expect("start wal-receive"), log }
    }

    /// All that it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("read the log")
    }

    pub fn wait_for_log(&self, needle: &str) {
        wait_for(&format!("{needle:?} in the receiver's log"), || self.log(), || self.log().contains(needle));
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("signalled");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asked for").is_none()
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let mut status = None;
        wait_for(
            "the receiver to end",
            || fs::read_to_string(&log).unwrap_or_default(),
            || {
                status = self.child.try_wait().expect("asked for");
                status.is_some()
            },
        );
        status.expect("ended")
    }

    /// Asks it to leave, which must go well.
    #[track_caller]
    pub fn leave(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "leaving: {status}\n{}", self.log());
    }

    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended();
    }

    /// It must end by itself with this code, and say this.
    #[track_caller]
    pub fn fails_with(mut self, code: i32, message: &str) -> String {
        let status = self.ended();
        assert_eq!(status.code(), Some(code), "{status}\n{}", self.log());
        assert!(self.log().contains(message), "should say {message:?}: {}", self.log());
        self.log()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().expect("killed");
            self.child.wait().expect("waited for");
        }
        if std::thread::panicking() {
            eprintln!("--- the receiver said:\n{}", self.log());
        }
    }
}

fn command(repo: &TestRepo) -> Command {
    let mut command = repo.std_program("wal-receive");
    command.arg("--spool").arg(spool(repo));
    command
}

/// What each receiver said, in a file of its own.
fn logs(repo: &TestRepo) -> PathBuf {
    repo.scratch().make_dir("logs")
}

/// What all receivers with this repository said.
pub fn all_logs(repo: &TestRepo) -> String {
    let entries = fs::read_dir(logs(repo)).expect("list").map(|entry| entry.expect("an entry").path());
    entries.map(|path| fs::read_to_string(path).expect("read")).collect()
}

pub fn spool(repo: &TestRepo) -> PathBuf {
    repo.scratch().make_dir("spool")
}

/// `wal-receive` for what it does besides receiving.
pub fn once(repo: &TestRepo, server: &Cluster, arguments: &[&str]) -> Outcome {
    let mut command = repo.program("wal-receive");
    run(command.arg("--spool").arg(spool(repo)).envs(server.env()).args(arguments))
}

/// The stored whole segments by name, as PostgreSQL wrote them.
pub fn segments(repo: &TestRepo) -> BTreeMap<String, Vec<u8>> {
    let names = repo.matching("/wal/").into_iter().filter_map(|key| {
        let name = key.rsplit('/').next()?.strip_suffix(".zst")?.to_owned();
        (name.len() == 24).then_some((name, key))
    });
    names.map(|(name, key)| (name, zstd::decode_all(&repo.read(&key)[..]).expect("zstd"))).collect()
}

/// Panics unless `found` has all of `expected`, byte for byte.
#[track_caller]
pub fn assert_holds(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in expected {
        let stored = found.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", found.keys()));
        assert!(stored == bytes, "{name} differs");
    }
}

/// The whole segments in a directory such as pg_wal or one of pg_receivewal.
pub fn segment_files(directory: &Path, from: &str, to: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("list").map(|entry| entry.expect("an entry").path());
    let named = entries.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    let wanted = named.filter(|(name, _)| name.len() == 24 && (from..=to).contains(&name.as_str()));
    wanted.map(|(name, path)| (name, fs::read(path).expect("read"))).collect()
}

/// Fills segments, switches, and returns the name of the last one that is whole.
pub fn write_segments(server: &Cluster, count: u32) -> String {
    server.psql("create table if not exists filler (i int, t text)");
    let mut name = String::new();
    for _ in 0..count {
        server.psql("insert into filler select i, repeat('x', 100) from generate_series(1, 1000) i");
        name = server.psql("select pg_walfile_name(pg_current_wal_lsn())");
        server.psql("select pg_switch_wal()");
    }
    name
}

/// Waits until the repository holds a segment.
pub fn wait_for_segment(repo: &TestRepo, name: &str) {
    wait_for(
        &format!("{name} in the repository"),
        || format!("{:#?}\n{}", repo.list(), all_logs(repo)),
        || !repo.matching(&format!("{name}.zst")).is_empty(),
    );
}
