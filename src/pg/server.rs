//! A PostgreSQL server that pgark starts, follows and stops: the work of pg_ctl, with the reason when it
//! fails.
//!
//! Refuses to start one as root, which PostgreSQL refuses too. Invariants: a started server lives on when
//! this process ends, with none of its descriptors; dropping a `Server` leaves it running.

mod detach;
mod log;
mod pid_file;
mod place;
mod progress;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

pub use log::Reason;
pub use pid_file::{PidFile, Status, status};
pub use place::{check_socket_directory, first_free_port, free_port, socket_directory_value};
pub use progress::{Pause, RecoveryProgress, replayed_segment};

use super::binaries::Binaries;
use super::settings_file::Setting;
use crate::error::{Error, IoContext, Result};

/// pg_ctl looks as often.
const POLL: Duration = Duration::from_millis(100);

/// An operating system user by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// A server to be started.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    pub binaries: &'a Binaries,
    pub data_directory: &'a Path,
    /// None: postgresql.conf in the data directory.
    pub config_file: Option<&'a Path>,
    /// For this run only, over every file.
    pub settings: &'a [Setting],
    /// Appended to; created for the server's user alone.
    pub log: &'a Path,
    /// The user that the server runs as. Only root can choose another than itself, and has to.
    pub run_as: Option<User>,
}

/// How far a started server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet accepting connections.
    Starting,
    /// Accepting connections, read-only ones while it recovers.
    Ready,
    /// Recovering with hot_standby off.
    Standby,
    Stopping,
    Ended(ExitStatus),
}

/// As `pg_ctl -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Waits for the clients to leave.
    Smart,
    /// Disconnects the clients.
    Fast,
    /// As if it had crashed.
    Immediate,
}

/// A server that this process started.
#[derive(Debug)]
pub struct Server {
    child: Child,
    data_directory: PathBuf,
    log: PathBuf,
    /// How long the log was before.
    log_start: u64,
}

impl Server {
    /// Starts a server and does not wait for it.
    pub fn start(launch: &Launch<'_>) -> Result<Self> {
        check_user(launch.run_as)?;
        let program = launch.binaries.program("postgres")?;
        let data_directory = std::path::absolute(launch.data_directory)
            .doing(|| format!("find the data directory {}", launch.data_directory.display()))?;
        let log_start = log::length(launch.log)?;
        let log = open_log(launch.log, launch.run_as)?;
        let mut command = Command::new(&program);
        command.args(arguments(launch, &data_directory)).current_dir("/");
        let errors = log.try_clone().doing(|| "share the server's log")?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        if let Some(user) = launch.run_as {
            // As root this clears the supplementary groups, too.
            command.uid(user.uid).gid(user.gid);
        }
        detach::detach(&mut command).doing(|| "detach the server")?;
        let child = command.spawn().doing(|| format!("start {}", program.display()))?;
        Ok(Self { child, data_directory, log: launch.log.to_path_buf(), log_start })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How far it is now.
    pub fn state(&mut self) -> Result<State> {
        if let Some(ended) = self.child.try_wait().doing(|| "look after the server")? {
            return Ok(State::Ended(ended));
        }
        let file = PidFile::read(&self.data_directory)?.filter(|file| file.pid == self.pid());
        Ok(match file.and_then(|file| file.status) {
            None | Some(Status::Starting) => State::Starting,
            Some(Status::Stopping) => State::Stopping,
            Some(Status::Ready) => State::Ready,
            Some(Status::Standby) => State::Standby,
        })
    }

    /// Waits until it accepts connections, or recovers without. An error says why it ended instead, or that
    /// `limit` has passed; it is left running then.
    pub fn wait_ready(&mut self, limit: Option<Duration>) -> Result<State> {
        let started = Instant::now();
        loop {
            match self.state()? {
                State::Ended(status) => return Err(self.failure(status)),
                state @ (State::Ready | State::Standby) => return Ok(state),
                State::Starting | State::Stopping => {}
            }
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                return Err(Error::postgres(format!(
                    "could not wait any longer for the server in {}: it is still starting",
                    self.data_directory.display()
                ))
                .with_hint(format!("its log {} says what it is doing", self.log.display())));
            }
            sleep(POLL);
        }
    }

    /// Why it ended, from its log, as an error.
    pub fn failure(&self, status: ExitStatus) -> Error {
        let what = format!("the server in {} ended", self.data_directory.display());
        match self.reason() {
            Err(error) => error.context(format!("{what} ({status}), and its log says nothing")),
            Ok(None) => Error::postgres(format!("{what}: {status}"))
                .with_hint(format!("look into its log {}", self.log.display())),
            Ok(Some(reason)) => {
                let see = format!("its log is {}", self.log.display());
                Error::postgres(format!("{what}: {}", reason.sentence)).with_hint(reason.hint.unwrap_or(see))
            }
        }
    }

    /// What the log says about its end, so far; if need be the log that its logging collector writes.
    pub fn reason(&self) -> Result<Option<Reason>> {
        let own = log::since(&self.log, self.log_start)?;
        let collected = match collected_log(&self.data_directory)? {
            Some(path) => log::since(&path, 0)?,
            None => String::new(),
        };
        Ok(log::reason(&format!("{own}\n{collected}")))
    }

    /// Stops it and waits until it is gone.
    pub fn stop(&mut self, mode: Stop, limit: Duration) -> Result<()> {
        if let State::Ended(_) = self.state()? {
            return Ok(());
        }
        send(self.pid(), mode.signal())?;
        let started = Instant::now();
        while !matches!(self.state()?, State::Ended(_)) {
            give_up_after(limit, started, &self.data_directory)?;
            sleep(POLL);
        }
        Ok(())
    }
}

/// Stops the server that runs in a data directory, whoever started it, and waits until it is gone. False
/// if none runs.
pub fn stop(data_directory: &Path, mode: Stop, limit: Duration) -> Result<bool> {
    let Some(running) = status(data_directory)? else { return Ok(false) };
    send(running.pid, mode.signal())?;
    let started = Instant::now();
    while status(data_directory)?.is_some_and(|still| still.pid == running.pid) {
        give_up_after(limit, started, data_directory)?;
        sleep(POLL);
    }
    Ok(true)
}

impl Stop {
    fn signal(self) -> Signal {
        match self {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        }
    }
}

fn give_up_after(limit: Duration, started: Instant, data_directory: &Path) -> Result<()> {
    if started.elapsed() <= limit {
        return Ok(());
    }
    Err(Error::postgres(format!(
        "could not stop the server in {} within {} s",
        data_directory.display(),
        limit.as_secs()
    ))
    .with_hint("its log says what it waits for"))
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    let Some(target) = Pid::from_raw(pid) else { return Err(Error::bug(format!("{pid} is no process id"))) };
    match kill_process(target, signal) {
        // It ended by itself meanwhile.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(cause) => Err(cause.into()).doing(|| format!("stop process {pid}")),
    }
}

/// PostgreSQL refuses root, before it has a log (main.c, check_root).
fn check_user(run_as: Option<User>) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    match run_as {
        None if root => {}
        Some(user) if user.uid == 0 => {}
        _ => return Ok(()),
    }
    Err(Error::configuration("could not start a server as root: PostgreSQL refuses that")
        .with_hint("run this as the server's operating system user, for example with `sudo -u postgres`"))
}

fn arguments(launch: &Launch<'_>, data_directory: &Path) -> Vec<std::ffi::OsString> {
    let mut arguments = vec!["-D".into(), data_directory.into()];
    let mut set = |assignment: std::ffi::OsString| arguments.extend(["-c".into(), assignment]);
    if let Some(file) = launch.config_file {
        let mut assignment = std::ffi::OsString::from("config_file=");
        assignment.push(file);
        set(assignment);
    }
    // The reason of a failure is read from the log.
    set("lc_messages=C".into());
    for setting in launch.settings {
        set(format!("{}={}", setting.name, setting.value).into());
    }
    arguments
}

fn open_log(path: &Path, owner: Option<User>) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = opened.doing(|| format!("open the log {}", path.display()))?;
    if let Some(user) = owner {
        fchown(&file, Some(user.uid), Some(user.gid))
            .doing(|| format!("give the log {} to the server", path.display()))?;
    }
    Ok(file)
}

/// Where a logging collector writes plain text now (current_logfiles, syslogger.c).
fn collected_log(data_directory: &Path) -> Result<Option<PathBuf>> {
    let path = data_directory.join("current_logfiles");
    let text = match std::fs::read_to_string(&path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.doing(|| format!("read {}", path.display()))?,
    };
    let named = text.lines().find_map(|line| line.strip_prefix("stderr "));
    Ok(named.map(|name| data_directory.join(name)).filter(|log| log.is_file()))
}
