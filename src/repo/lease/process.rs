//! Which process holds a lease, and whether it is still alive.
//!
//! Only a process of this boot of this machine, in our own process namespace, can be looked up; then the
//! answer is exact, because a process id with its start time is never used again. Of others nothing is
//! claimed. Refuses to call a process dead that it merely may not see.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::host;

/// A process somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The host's name: for people. It does not identify a machine.
    pub host: String,
    /// The operating system user.
    pub user: String,
    pub pid: i32,
    /// In clock ticks since boot (proc(5), /proc/pid/stat, field 22).
    pub start_time: u64,
    /// Random, of each boot of each machine.
    pub boot_id: String,
    /// As /proc/self/ns/pid names it. Containers on one machine have the same boot id and other processes.
    pub pid_namespace: String,
}

impl Process {
    /// This process.
    pub fn current() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).doing(|| format!("read {path}"));
        let (_, start_time) = parse_stat(&read("/proc/self/stat")?)
            .ok_or_else(|| Error::bug("could not read /proc/self/stat: it has an unknown form"))?;
        let namespace = fs::read_link("/proc/self/ns/pid").doing(|| "read /proc/self/ns/pid")?;
        Ok(Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            user: user_name(),
            pid: rustix::process::getpid().as_raw_pid(),
            start_time,
            boot_id: host::boot_id()?,
            pid_namespace: namespace.to_string_lossy().into_owned(),
        })
    }

    /// Whether it runs where `here` does, so that [`Process::is_alive`] can tell.
    pub fn is_beside(&self, here: &Process) -> bool {
        self.boot_id == here.boot_id && self.pid_namespace == here.pid_namespace
    }

    /// Whether a process beside this one is still running.
    pub fn is_alive(&self) -> bool {
        // A number below 0 would mean a group of processes.
        let Some(pid) = Pid::from_raw(self.pid.max(0)) else { return false };
        // Anything but "no such process" means that there is one, also "not permitted".
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return false;
        }
        // /proc may be mounted so that it hides other users' processes (hidepid).
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return true };
        match parse_stat(&stat) {
            Some((state, start_time)) => start_time == self.start_time && !matches!(state, 'Z' | 'X'),
            None => true,
        }
    }
}

/// State and start time. The command's name comes before, in parentheses, and may hold anything.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3.
    Some((state, fields.nth(22 - 3 - 1)?.parse().ok()?))
}

/// The effective user's name, or its number where /etc/passwd does not have it.
fn user_name() -> String {
    let uid = geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_else(|cause| {
        tracing::debug!("could not read /etc/passwd: {cause}");
        String::new()
    });
    let of_uid = |line: &&str| line.split(':').nth(2) == Some(uid.as_str());
    let name = passwd.lines().find(of_uid).and_then(|line| line.split(':').next());
    name.map_or(uid.clone(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().expect("sleep is part of coreutils")
    }

    /// The child as a lease would name it.
    fn named(child: &Child) -> Process {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("stat");
        let (_, start_time) = parse_stat(&stat).expect("parsed");
        Process { pid: child.id() as i32, start_time, ..Process::current().expect("current") }
    }

    #[test]
    fn this_process_is_alive_and_beside_itself() {
        let here = Process::current().expect("current");
        assert!(here.is_alive() && here.is_beside(&here));
        assert!(!here.user.is_empty() && !here.host.is_empty());
    }

    #[test]
    fn a_killed_process_is_dead_even_before_its_parent_has_looked() {
        let mut child = sleeper();
        let process = named(&child);
        assert!(process.is_alive());
        child.kill().expect("killed");
        // Not reaped yet: wait until it is a zombie.
        while fs::read_to_string(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| parse_stat(&stat).is_some_and(|(state, _)| state != 'Z'))
        {
            std::thread::yield_now();
        }
        assert!(!process.is_alive());
        child.wait().expect("reaped");
        assert!(!process.is_alive());
    }

    #[test]
    fn another_process_with_the_same_id_is_not_the_one_of_the_lease() {
        let here = Process::current().expect("current");
        assert!(!Process { start_time: here.start_time + 1, ..here.clone() }.is_alive());
        for bad in [0, -1, i32::MAX] {
            assert!(!Process { pid: bad, ..here.clone() }.is_alive(), "{bad}");
        }
    }

    #[test]
    fn a_container_with_the_same_boot_is_not_beside_us() {
        let here = Process::current().expect("current");
        let container = Process { pid_namespace: "pid:[1]".into(), ..here.clone() };
        let rebooted = Process { boot_id: "other".into(), ..here.clone() };
        assert!(!container.is_beside(&here) && !rebooted.is_beside(&here));
    }

    #[test]
    fn the_name_of_a_command_may_hold_anything() {
        let fields: Vec<String> = (4..=22).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) Z 1 (b c) R {} 23", fields.join(" "));
        assert_eq!(parse_stat(&stat), Some(('R', 22)));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) R 4 5"), None);
    }
}
