//! Killing a program, or failing one of its system calls, at the n-th change that it makes to files.
//!
//! ```ignore
//! let push = || { let mut push = repo.std_program("wal-push"); push.current_dir(&data).arg(&segment); push };
//! let (_, calls) = run_with_fault(push(), Fault::none());               // how many changes there are
//! for n in 1..=calls.len() {
//!     let (outcome, _) = run_with_fault(push(), Fault::kill_at(n));      // ended by SIGKILL before the n-th
//!     let (outcome, _) = run_with_fault(push(), Fault::fail_at(n, Errno::IO).under(repo.root()));
//!     let (outcome, _) = run_with_fault(push(), Fault::fail_from(n, Errno::NOSPC).only(&["write", "fallocate"]));
//! }
//! ```
//!
//! Counted are all threads of the program together, in one order, which `strace -e inject=...:when=n` does
//! not do (it counts each thread alone), but not what the program starts. The kernel asks us before each such
//! call (seccomp_unotify(2)): so nothing else is slowed down, and a call that is to fail is never made.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::PATIENCE;
use super::run::Outcome;
use super::scratch::{Scratch, signal};
use super::seccomp::{self, Notification};

/// Where a system call says which file it changes: an open descriptor, or a path with or without a directory.
#[derive(Clone, Copy)]
enum Target {
    Fd(usize),
    Path(usize),
    At(usize, usize),
}

/// The system calls that change files, and the argument that says which.
const CALLS: &[(&str, libc::c_long, Target)] = &[
    ("write", libc::SYS_write, Target::Fd(0)),
    ("pwrite64", libc::SYS_pwrite64, Target::Fd(0)),
    ("writev", libc::SYS_writev, Target::Fd(0)),
    ("pwritev", libc::SYS_pwritev, Target::Fd(0)),
    ("sendfile", libc::SYS_sendfile, Target::Fd(0)),
    ("copy_file_range", libc::SYS_copy_file_range, Target::Fd(2)),
    ("fallocate", libc::SYS_fallocate, Target::Fd(0)),
    ("ftruncate", libc::SYS_ftruncate, Target::Fd(0)),
    ("fsync", libc::SYS_fsync, Target::Fd(0)),
    ("fdatasync", libc::SYS_fdatasync, Target::Fd(0)),
    ("syncfs", libc::SYS_syncfs, Target::Fd(0)),
    ("openat", libc::SYS_openat, Target::At(0, 1)),
    ("mkdirat", libc::SYS_mkdirat, Target::At(0, 1)),
    ("unlinkat", libc::SYS_unlinkat, Target::At(0, 1)),
    ("symlinkat", libc::SYS_symlinkat, Target::At(1, 2)),
    ("linkat", libc::SYS_linkat, Target::At(2, 3)),
    ("renameat2", libc::SYS_renameat2, Target::At(2, 3)),
    ("renameat", libc::SYS_renameat, Target::At(2, 3)),
    #[cfg(target_arch = "x86_64")]
    ("open", libc::SYS_open, Target::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("creat", libc::SYS_creat, Target::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir, Target::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("rmdir", libc::SYS_rmdir, Target::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink, Target::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("symlink", libc::SYS_symlink, Target::Path(1)),
    #[cfg(target_arch = "x86_64")]
    ("link", libc::SYS_link, Target::Path(1)),
    #[cfg(target_arch = "x86_64")]
    ("rename", libc::SYS_rename, Target::Path(1)),
];

/// A change to a file that a program was about to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    pub path: PathBuf,
}

#[derive(Clone, Copy)]
enum Effect {
    Kill,
    Fail(Errno),
    Skip,
}

/// What goes wrong, and when. Calls are counted from 1.
#[derive(Clone)]
pub struct Fault {
    first: usize,
    last: usize,
    effect: Effect,
    under: PathBuf,
    only: Option<&'static [&'static str]>,
}

impl Fault {
    fn new(first: usize, last: usize, effect: Effect) -> Self {
        Self { first, last, effect, under: PathBuf::from("/"), only: None }
    }

    /// Nothing goes wrong: to count the calls.
    pub fn none() -> Self {
        Self::new(usize::MAX, usize::MAX, Effect::Kill)
    }

    /// The program gets SIGKILL instead of the n-th call.
    pub fn kill_at(n: usize) -> Self {
        Self::new(n, usize::MAX, Effect::Kill)
    }

    /// The n-th call fails, and only that.
    pub fn fail_at(n: usize, errno: Errno) -> Self {
        Self::new(n, n, Effect::Fail(errno))
    }

    /// The n-th call and all after it fail, as on a disk that is full or gone.
    pub fn fail_from(n: usize, errno: Errno) -> Self {
        Self::new(n, usize::MAX, Effect::Fail(errno))
    }

    /// The n-th call and all after it succeed and do nothing, as on a disk that lies.
    pub fn skip_from(n: usize) -> Self {
        Self::new(n, usize::MAX, Effect::Skip)
    }

    /// Counts only calls that change something in this directory. The default is every path, but never what is
    /// printed, nor pipes, sockets and other things without a path.
    pub fn under(mut self, dir: &Path) -> Self {
        self.under = dir.to_path_buf();
        self
    }

    /// Counts only these calls. See the table `CALLS`.
    pub fn only(mut self, names: &'static [&'static str]) -> Self {
        assert!(
            names.iter().all(|name| CALLS.iter().any(|call| call.0 == *name)),
            "unknown call in {names:?}"
        );
        self.only = Some(names);
        self
    }

    fn counts(&self, call: &Call) -> bool {
        call.path.starts_with(&self.under) && self.only.is_none_or(|names| names.contains(&call.name))
    }
}

/// Runs a program to its end, or to the fault, and tells which of the counted calls it came to, in order.
pub fn run_with_fault(command: Command, fault: Fault) -> (Outcome, Vec<Call>) {
    run_with_fault_for(command, fault, None)
}

/// The same; after this time a program that does not end by itself gets SIGTERM.
pub fn run_with_fault_for(
    mut command: Command,
    fault: Fault,
    life: Option<Duration>,
) -> (Outcome, Vec<Call>) {
    let shown = format!("{command:?}");
    let scratch = Scratch::new();
    let file = |name: &str| File::create(scratch.join(name)).expect("make a file for the output");
    command.stdout(file("stdout")).stderr(file("stderr"));
    let numbers: Vec<libc::c_long> = CALLS.iter().map(|call| call.1).collect();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (ours, theirs) = UnixDatagram::pair().expect("make a socket pair");
    seccomp::listen_on_exec(&mut command, &numbers, theirs);
    let supervisor = {
        let (calls, output) = (Arc::clone(&calls), scratch.path().to_path_buf());
        let (when, effect) = (fault.first..=fault.last, fault.effect);
        let counts = move |call: &Call| fault.counts(call) && !call.path.starts_with(&output);
        std::thread::spawn(move || supervise(&ours, when, effect, counts, &calls))
    };
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {shown}: {error}"));
    // Closes our copy of the child's end, so that the supervisor sees the end if there is no child.
    drop(command);
    let status = wait_with_deadline(&mut child, &shown, life);
    // The supervisor may outlive the program, to serve what that left running (a server, say).
    drop(supervisor);
    let read =
        |name: &str| String::from_utf8_lossy(&fs::read(scratch.join(name)).expect("read")).into_owned();
    let outcome = Outcome { shown, code: status.code(), stdout: read("stdout"), stderr: read("stderr") };
    let calls = calls.lock().expect("the supervisor did not panic").clone();
    (outcome, calls)
}

fn wait_with_deadline(child: &mut Child, shown: &str, life: Option<Duration>) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    let mut leave = life.map(|life| Instant::now() + life);
    loop {
        if let Some(status) = child.try_wait().expect("wait for the program") {
            return status;
        }
        if leave.take_if(|leave| Instant::now() > *leave).is_some() {
            signal(i32::try_from(child.id()).expect("a pid"), Signal::TERM);
        }
        if Instant::now() > deadline {
            child.kill().expect("kill the program");
            panic!("{shown} did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Answers the kernel's questions until no process with our filter is left.
fn supervise(
    socket: &UnixDatagram,
    when: RangeInclusive<usize>,
    effect: Effect,
    counts: impl Fn(&Call) -> bool,
    calls: &Mutex<Vec<Call>>,
) {
    let Some((listener, program)) = seccomp::receive_listener(socket) else { return };
    while let Some(asked) = listener.next() {
        let call = if asked.is_thread_of(program) { call_of(&asked) } else { None };
        let Some(call) = call.filter(&counts) else {
            listener.proceed(&asked);
            continue;
        };
        let number = {
            let mut calls = calls.lock().expect("nobody panics with it");
            calls.push(call);
            calls.len()
        };
        match effect {
            _ if !when.contains(&number) => listener.proceed(&asked),
            Effect::Kill => signal(program, Signal::KILL),
            Effect::Fail(errno) => listener.fail(&asked, errno),
            Effect::Skip => listener.skip(&asked),
        }
    }
}

/// The change that is about to be made; `None` if it is none: no path (a pipe), or an open that makes nothing.
fn call_of(asked: &Notification) -> Option<Call> {
    let (name, _, target) = CALLS.iter().find(|call| call.1 == asked.call())?;
    let flags = match *name {
        "open" => Some(asked.argument(1)),
        "openat" => Some(asked.argument(2)),
        _ => None,
    };
    let creating = (libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) as u64 & !(libc::O_DIRECTORY as u64);
    if flags.is_some_and(|flags| flags & creating == 0) {
        return None;
    }
    let path = match *target {
        Target::Fd(fd) => asked.path_of_descriptor(asked.argument(fd))?,
        Target::Path(path) => asked.directory()?.join(asked.path_at(asked.argument(path))?),
        Target::At(dir, path) => {
            asked.directory_of(asked.argument(dir))?.join(asked.path_at(asked.argument(path))?)
        }
    };
    path.is_absolute().then_some(Call { name, path })
}
