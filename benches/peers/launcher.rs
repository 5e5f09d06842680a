//! The process that runs what is measured, and counts all that it leaves behind.
//!
//! It is this binary started once more, for two reasons. As a *child subreaper* (prctl(2)) it becomes the parent of
//! every background process whose own parent ends, so it can wait for all of them and add up their CPU time, and
//! nothing else runs below it. And it is small: Linux counts towards the peak memory of a program that of the process
//! which called exec (exec_mmap, setmax_mm_hiwater_rss), and that must not be one that has filled tables and logs. What
//! remains of that is the peak which the start-up row shows for /bin/true.
//!
//! Orders come on standard input, an answer to each goes to standard output, one JSON object in a line. At the end
//! of the input it waits for all descendants and tells what they used.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// Makes this binary a launcher.
pub const FLAG: &str = "--launcher";

/// How long background processes may go on after the last call. They are killed then, which the usage tells.
const LINGER: Duration = Duration::from_secs(60);

/// A program to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Order {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// As wait(2) has it: 0 is success.
    pub status: i32,
    /// From before the start until it was waited for.
    pub wall: Duration,
}

/// What all of them, and all that they started, used together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Peak resident memory of the largest single process, bytes: not a sum over those that run side by side.
    pub peak: u64,
    /// Background processes did not end by themselves.
    pub killed: bool,
}

pub fn serve() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
    let mut usage = Usage::default();
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line.expect("read an order")).expect("an order");
        answer(&run(&order, &mut usage));
    }
    wait_for_the_rest(&mut usage);
    answer(&usage);
}

fn answer(what: &impl Serialize) {
    let line = serde_json::to_string(what).expect("JSON");
    writeln!(std::io::stdout(), "{line}").expect("answer");
}

// wait4 waits for it, and tells what it used, which Child::wait does not.
#[allow(clippy::zombie_processes)]
fn run(order: &Order, usage: &mut Usage) -> Answer {
    let mut command = Command::new(&order.program);
    command.args(&order.arguments).current_dir(&order.directory).envs(order.environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", order.program.display()));
    let pid = i32::try_from(child.id()).expect("a pid");
    let (_, status) = wait(pid, 0, usage).expect("wait for the program");
    Answer { status, wall: began.elapsed() }
}

fn wait_for_the_rest(usage: &mut Usage) {
    let deadline = Instant::now() + LINGER;
    while let Some((pid, _)) = wait(-1, libc::WNOHANG, usage) {
        if pid == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        if Instant::now() > deadline {
            usage.killed = true;
            kill_children();
        }
    }
}

/// wait4(2), with what the process and its own children used added to `usage`. None: there is nobody to wait for.
#[allow(unsafe_code)]
fn wait(pid: i32, options: i32, usage: &mut Usage) -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, and both places outlive the call.
    let (ended, used) = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, options, &mut used), used)
    };
    if ended > 0 {
        usage.cpu += time(used.ru_utime) + time(used.ru_stime);
        usage.peak = usage.peak.max(u64::try_from(used.ru_maxrss).expect("a size") * 1024);
    }
    (ended >= 0).then_some((ended, status))
}

fn time(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}

fn kill_children() {
    let me = std::process::id();
    let children =
        std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).expect("list the children");
    for pid in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("kill {pid:?}: {error}"),
        }
    }
}
