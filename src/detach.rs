//! Letting a process live on when we are gone: a session of its own, and nothing inherited but its standard
//! descriptors. One that kept another would keep a pipe open that somebody waits on.
//!
//! The only unsafe code of pgark: two system calls for which the standard library has no safe way.

#![allow(
    unsafe_code,
    reason = "two system calls that std has no safe way for; `Cargo.toml` denies it elsewhere"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Prepares a command so that its process leads a session of its own and gets no descriptor beyond its
/// standard ones.
pub fn detach(command: &mut Command) -> io::Result<()> {
    keep_descriptors()?;
    // SAFETY: between fork and exec only functions that are safe in a signal handler may be called;
    // setsid is one, and nothing is allocated or locked here.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
    Ok(())
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
