//! Letting a server live on when we are gone: a session of its own, and nothing inherited but the log.
//!
//! The only unsafe code of pgark: two system calls for which the standard library has no safe way. A
//! server that kept a descriptor of ours would keep a pipe open that somebody waits on.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// What would move a server's port, place, date format or time zone (guc.c, InitializeGUCOptionsFromEnvironment
/// and libpq in its background workers), or hand it a secret.
const REMOVED_VARIABLES: [&str; 9] = [
    "PGDATA",
    "PGPORT",
    "PGHOST",
    "PGHOSTADDR",
    "PGDATESTYLE",
    "PGTZ",
    "PGCLIENTENCODING",
    "PGOPTIONS",
    "PGPASSWORD",
];

/// Prepares a command so that its process leads a session of its own and gets no descriptor beyond its
/// standard ones.
pub(super) fn detach(command: &mut Command) -> io::Result<()> {
    keep_descriptors()?;
    // SAFETY: between fork and exec only functions that are safe in a signal handler may be called;
    // setsid is one, and nothing is allocated or locked here.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
    for variable in REMOVED_VARIABLES {
        command.env_remove(variable);
    }
    speak_english(command, std::env::var_os("LC_ALL").as_deref());
    Ok(())
}

/// Messages before the configuration is read follow the environment; the other categories stay as they are.
fn speak_english(command: &mut Command, all: Option<&OsStr>) {
    if let Some(locale) = all.filter(|locale| !locale.is_empty()) {
        for category in ["LC_COLLATE", "LC_CTYPE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"] {
            command.env(category, locale);
        }
    }
    command.env_remove("LC_ALL").env_remove("LANGUAGE").env("LC_MESSAGES", "C");
}

/// Marks what we inherited ourselves: what Rust opens is marked already.
fn keep_descriptors() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number <= 2 {
            continue;
        }
        // SAFETY: the descriptor is borrowed for one call that neither closes it nor reads or writes. If
        // another thread has closed it meanwhile, the call fails or marks its successor, which Rust marks
        // as well.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_messages_change_their_language() {
        let mut command = Command::new("env");
        speak_english(&mut command, Some(OsStr::new("de_DE.UTF-8")));
        let output = command.output().expect("env");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in ["LC_CTYPE=de_DE.UTF-8", "LC_COLLATE=de_DE.UTF-8", "LC_MESSAGES=C"] {
            assert!(shown.lines().any(|found| found == line), "{line} in {shown}");
        }
        assert!(!shown.contains("LC_ALL="));
    }

    #[test]
    fn a_detached_process_has_its_own_session_and_no_descriptor_of_ours() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        fcntl_setfd(&reader, FdFlags::empty()).expect("inheritable");
        let mut command = Command::new("sh");
        command.args(["-c", "ls /proc/$$/fd; cut -d' ' -f1,6 /proc/$$/stat"]);
        detach(&mut command).expect("prepared");
        let output = command.output().expect("sh");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!shown.lines().any(|line| line == reader.as_raw_fd().to_string()), "{shown}");
        let session = shown.lines().last().and_then(|line| line.split_once(' '));
        assert!(session.is_some_and(|(pid, session)| pid == session), "{shown}");
    }
}
