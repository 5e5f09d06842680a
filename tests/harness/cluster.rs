//! A PostgreSQL server of a test: started as a child of the test, so that its pid is known, and stopped
//! with it. A server that somebody else started (`bootstrap-restore`) is adopted by its postmaster.pid.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::builder::{ClusterBuilder, StandbyBuilder};
use super::host::pg_command;
use super::scratch::{Scratch, is_running, own, processes_inside, signal};
use super::{PATIENCE, wait_for};

/// How to stop a server, as `pg_ctl -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Smart,
    Fast,
    Immediate,
}

pub struct Cluster {
    pub(super) scratch: Scratch,
    pub(super) data_dir: PathBuf,
    /// Where postgresql.conf lives: the data directory unless the layout is Debian's.
    pub(super) config_dir: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) port: u16,
    pub(super) log: PathBuf,
    pub(super) server_env: Vec<(String, String)>,
    pub(super) postmaster: RefCell<Option<Postmaster>>,
}

/// A running postmaster: our child, or one that we only know by pid.
pub(super) enum Postmaster {
    Child(Child),
    Adopted(i32),
}

impl Postmaster {
    fn pid(&self) -> i32 {
        match self {
            Postmaster::Child(child) => i32::try_from(child.id()).expect("a pid"),
            Postmaster::Adopted(pid) => *pid,
        }
    }

    /// `Some` once it ended; the status is known of a child only.
    fn ended(&mut self) -> Option<Option<ExitStatus>> {
        match self {
            Postmaster::Child(child) => child.try_wait().expect("wait for the postmaster").map(Some),
            Postmaster::Adopted(pid) => (!is_running(*pid)).then_some(None),
        }
    }
}

impl Cluster {
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A running cluster with the harness's defaults.
    pub fn start_new() -> Self {
        Self::builder().start()
    }

    /// A server that runs already, started by one of our programs. It is stopped when this is dropped; its
    /// data directory stays for whoever made it.
    pub fn adopt(data_dir: &Path) -> Self {
        let lines = postmaster_pid_file(data_dir);
        let line =
            |number: usize| lines.get(number).unwrap_or_else(|| panic!("postmaster.pid: {lines:?}")).trim();
        let pid = line(0).parse().expect("a pid");
        // pidfile.h: pid, data directory, start time, port, socket directory, ...
        let socket_dir = PathBuf::from(line(4));
        Self::over(data_dir, line(3).parse().expect("a port"), socket_dir, Some(Postmaster::Adopted(pid)))
    }

    /// A data directory that one of our programs made, with its server down.
    pub fn adopt_stopped(data_dir: &Path) -> Self {
        let ask = |setting: &str| {
            let output = pg_command("postgres").args(["-C", setting, "-D"]).arg(data_dir).output();
            let output = output.expect("start postgres -C");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let socket_dirs = ask("unix_socket_directories");
        // A list whose parts may be quoted (varlena.c, SplitDirectoriesString).
        let socket_dir = socket_dirs.split(',').next().expect("one part at least").trim().trim_matches('"');
        Self::over(data_dir, ask("port").parse().expect("a port"), PathBuf::from(socket_dir), None)
    }

    fn over(data_dir: &Path, port: u16, socket_dir: PathBuf, postmaster: Option<Postmaster>) -> Self {
        let scratch = Scratch::new();
        Self {
            log: scratch.join("server.log"),
            scratch,
            data_dir: data_dir.to_path_buf(),
            config_dir: data_dir.to_path_buf(),
            port,
            socket_dir,
            server_env: Vec::new(),
            postmaster: RefCell::new(postmaster),
        }
    }

    /// Where an adopted server logs to, if not where we would have told it.
    pub fn with_log(mut self, log: &Path) -> Self {
        self.log = log.to_path_buf();
        self
    }

    /// A standby of this server, made with pg_basebackup.
    pub fn standby(&self) -> StandbyBuilder<'_> {
        StandbyBuilder::of(self)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    pub fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory of this cluster outside PGDATA, for whatever a test keeps beside it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The location of a tablespace that [`ClusterBuilder::tablespace`] made.
    pub fn tablespace_dir(&self, name: &str) -> PathBuf {
        self.scratch.join("ts").join(name)
    }

    /// What libpq reads from the environment in order to reach this server.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("PGHOST", self.socket_dir.display().to_string()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", "postgres".to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir.display(), self.port)
    }

    /// All that the server printed, over all of its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// The end of the log, for a failure message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
        format!("--- last lines of {}:\n{}", self.log_path().display(), tail.join("\n"))
    }

    /// Polls until `done`, or panics with the end of the server's log.
    pub fn wait_for(&self, what: &str, done: impl FnMut() -> bool) {
        wait_for(what, || self.log_tail(), done);
    }

    pub fn wait_for_log(&self, needle: &str) {
        self.wait_for(&format!("{needle:?} in the log"), || self.log().contains(needle));
    }

    /// Starts the server and waits until it accepts connections (read-only ones, if a standby).
    pub fn start(&self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the server without waiting: for recoveries that must fail. See [`Cluster::wait_exit`].
    pub fn spawn(&self) {
        assert!(!self.is_running(), "the server runs already");
        self.wait_gone();
        self.forget_zombie();
        let log =
            File::options().create(true).append(true).open(self.log_path()).expect("open the server's log");
        own(&self.log_path());
        let mut command = pg_command("postgres");
        command.arg("-D").arg(&self.data_dir).envs(self.server_env.clone());
        if self.config_dir != self.data_dir {
            command
                .arg("-c")
                .arg(format!("config_file={}", self.config_dir.join("postgresql.conf").display()));
        }
        command.stdout(log.try_clone().expect("dup")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("start postgres: {error}"));
        *self.postmaster.borrow_mut() = Some(Postmaster::Child(child));
    }

    /// Waits until the server accepts connections. Panics if it ends instead.
    pub fn wait_ready(&self) {
        let pid = self.pid().to_string();
        self.wait_for("the server to accept connections", || {
            assert!(self.is_running(), "the server ended while it started\n{}", self.log_tail());
            // miscinit.c, AddToDataDirLockFile: line 8 is the status, "ready" or "standby" when it accepts.
            let lines = fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = lines.lines().map(str::trim).collect();
            lines.first() == Some(&pid.as_str()) && matches!(lines.get(7), Some(&"ready" | &"standby"))
        });
    }

    /// Waits until the server ended by itself and tells how (`None` if it was adopted).
    pub fn wait_exit(&self) -> Option<ExitStatus> {
        let mut status = None;
        self.wait_for("the server to end", || {
            status = self.postmaster.borrow_mut().as_mut().and_then(Postmaster::ended);
            status.is_some()
        });
        *self.postmaster.borrow_mut() = None;
        self.wait_gone();
        status.flatten()
    }

    pub fn is_running(&self) -> bool {
        self.postmaster.borrow_mut().as_mut().is_some_and(|postmaster| postmaster.ended().is_none())
    }

    pub fn pid(&self) -> i32 {
        self.postmaster.borrow().as_ref().map(Postmaster::pid).expect("the server runs")
    }

    pub fn stop(&self, mode: Stop) {
        let sent = match mode {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        signal(self.pid(), sent);
        self.wait_exit();
    }

    pub fn restart(&self) {
        self.stop(Stop::Fast);
        self.start();
    }

    pub fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    /// `kill -9` of the postmaster alone: its children notice and leave, an archive_command may finish.
    pub fn kill_postmaster(&self) {
        signal(self.pid(), Signal::KILL);
        self.wait_exit();
    }

    /// `kill -9` of the postmaster and of everything that it started, archive_command included.
    pub fn crash(&self) {
        signal(self.pid(), Signal::KILL);
        for pid in processes_inside(&self.data_dir) {
            signal(pid, Signal::KILL);
        }
        self.wait_exit();
    }

    /// Promotes a standby and waits until it accepts writes.
    pub fn promote(&self) {
        self.psql("select pg_promote(true, 100)");
        self.wait_sql("select pg_is_in_recovery()", "f");
    }

    /// Appends to postgresql.conf. Takes effect with [`Cluster::reload`] or [`Cluster::restart`].
    pub fn append_config(&self, lines: &str) {
        append(&self.config_dir.join("postgresql.conf"), lines);
    }

    /// Of an adopted server that was killed a zombie may be left for good, where no init waits for it, as in some
    /// containers. PostgreSQL (CreateLockFile, miscinit.c) would take that for another postmaster.
    fn forget_zombie(&self) {
        let socket = self.socket_dir.join(format!(".s.PGSQL.{}.lock", self.port));
        for lock in [self.data_dir.join("postmaster.pid"), socket] {
            let Ok(text) = fs::read_to_string(&lock) else { continue };
            let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
            if pid.is_some_and(|pid: i32| !is_running(pid)) {
                fs::remove_file(&lock).expect("remove the dead server's lock file");
            }
        }
    }

    /// Until no process works in the data directory: a postmaster refuses to start beside old children.
    fn wait_gone(&self) {
        self.wait_for("the old server's processes to leave", || {
            processes_inside(&self.data_dir).into_iter().all(|pid| !is_running(pid))
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        let Some(mut postmaster) = self.postmaster.borrow_mut().take() else { return };
        signal(postmaster.pid(), Signal::QUIT);
        let deadline = Instant::now() + PATIENCE;
        while postmaster.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in processes_inside(&self.data_dir) {
            signal(pid, Signal::KILL);
        }
    }
}

/// Appends lines to a configuration file of the server.
pub(super) fn append(path: &Path, lines: &str) {
    use std::io::Write;
    let file = File::options().create(true).append(true).open(path);
    let mut file = file.unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    file.write_all(format!("{lines}\n").as_bytes()).expect("write the configuration");
    own(path);
}

fn postmaster_pid_file(data_dir: &Path) -> Vec<String> {
    let path = data_dir.join("postmaster.pid");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("no server in {}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}
