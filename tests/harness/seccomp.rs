//! seccomp_unotify(2) for a command that is about to be started: its chosen system calls, and those of all
//! that it starts, wait until we say whether they happen. See `faults.rs` for what this is used for.

// The kernel's interface takes raw structures; all of it is in this file.
#![allow(unsafe_code)]

use std::fs;
use std::io::{Error, Result};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Has the command, once started, install a filter for `calls` and send us its listener over `socket`.
pub fn listen_on_exec(command: &mut Command, calls: &[libc::c_long], socket: UnixDatagram) {
    let filter = filter(calls);
    let install = move || {
        let listener = install(&filter)?;
        // SAFETY: getpid has no preconditions.
        send_descriptor(socket.as_raw_fd(), listener.as_raw_fd(), unsafe { libc::getpid() })
    };
    // SAFETY: between fork and exec: system calls only, no allocation, no lock.
    unsafe { command.pre_exec(install) };
}

/// BPF: the chosen calls of the native architecture ask us, all else is allowed.
fn filter(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let (architecture, number) =
        (mem::offset_of!(libc::seccomp_data, arch), mem::offset_of!(libc::seccomp_data, nr));
    let count = u8::try_from(calls.len()).expect("a jump reaches 255 steps");
    let mut steps = vec![step(load, architecture as u32, 0, 0), step(equal, ARCHITECTURE, 0, count + 1)];
    steps.push(step(load, number as u32, 0, 0));
    for (call, to_the_end) in calls.iter().zip((0..count).rev()) {
        steps.push(step(equal, *call as u32, to_the_end + 1, 0));
    }
    steps.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    steps.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    steps
}

fn install(filter: &[libc::sock_filter]) -> Result<OwnedFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call; the kernel copies it. The answer is a descriptor of ours.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(Error::last_os_error());
        }
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program);
        if listener < 0 {
            return Err(Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(listener as RawFd))
    }
}

/// Room for the control message that carries one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn send_descriptor(socket: RawFd, descriptor: RawFd, pid: i32) -> Result<()> {
    let mut payload = pid.to_ne_bytes();
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut control = Control([0; 64]);
    // SAFETY: a zeroed msghdr is a valid empty one; all that it points to lives until sendmsg returns.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        if libc::sendmsg(socket, &message, 0) < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }
}

/// Waits for the listener and the pid of the program. `None` if the program could not be started.
pub fn receive_listener(socket: &UnixDatagram) -> Option<(Listener, i32)> {
    let mut payload = [0_u8; 4];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut control = Control([0; 64]);
    // SAFETY: as in send_descriptor; the header is read only if the kernel wrote one.
    let descriptor = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
        let header = libc::CMSG_FIRSTHDR(&message);
        if received != payload.len() as isize || header.is_null() {
            return None;
        }
        OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned())
    };
    Some((Listener(descriptor), i32::from_ne_bytes(payload)))
}

/// The kernel's end of the questions.
pub struct Listener(OwnedFd);

impl Listener {
    /// The next call that waits. `None` once no process with the filter is left.
    pub fn next(&self) -> Option<Notification> {
        loop {
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd; a zeroed seccomp_notif is what the kernel demands.
            let asked = unsafe {
                if libc::poll(&mut poll, 1, -1) < 0 {
                    continue;
                }
                if poll.revents & libc::POLLIN == 0 {
                    return None;
                }
                let mut asked: libc::seccomp_notif = mem::zeroed();
                let done = libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &mut asked);
                (done == 0).then_some(asked)
            };
            // ENOENT: the one who asked was killed meanwhile.
            if let Some(asked) = asked {
                return Some(Notification(asked));
            }
        }
    }

    /// Lets a call happen.
    pub fn proceed(&self, asked: &Notification) {
        self.answer(asked, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// The call does not happen and returns an error.
    pub fn fail(&self, asked: &Notification, errno: Errno) {
        self.answer(asked, -errno.raw_os_error(), 0);
    }

    /// The call does not happen and returns 0.
    pub fn skip(&self, asked: &Notification) {
        self.answer(asked, 0, 0);
    }

    fn answer(&self, asked: &Notification, error: i32, flags: u32) {
        let mut answer = libc::seccomp_notif_resp { id: asked.0.id, val: 0, error, flags };
        // SAFETY: a valid answer. It fails only if the one who asked is gone.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &mut answer) };
    }
}

/// A system call that waits for our answer.
pub struct Notification(libc::seccomp_notif);

impl Notification {
    pub fn call(&self) -> libc::c_long {
        self.0.data.nr.into()
    }

    pub fn argument(&self, number: usize) -> u64 {
        self.0.data.args[number]
    }

    pub fn is_thread_of(&self, process: i32) -> bool {
        Path::new(&format!("/proc/{process}/task/{}", self.0.pid)).exists()
    }

    /// What an open descriptor names: a path, or something like "pipe:[1]". `None` if it is not open.
    pub fn path_of_descriptor(&self, descriptor: u64) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{}", self.0.pid, descriptor as RawFd)).ok()
    }

    /// The working directory.
    pub fn directory(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.0.pid)).ok()
    }

    /// The directory that an `...at` call means.
    pub fn directory_of(&self, descriptor: u64) -> Option<PathBuf> {
        if descriptor as RawFd == libc::AT_FDCWD {
            self.directory()
        } else {
            self.path_of_descriptor(descriptor)
        }
    }

    /// The path at an address of the asking process.
    pub fn path_at(&self, address: u64) -> Option<PathBuf> {
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let length =
            fs::File::open(format!("/proc/{}/mem", self.0.pid)).ok()?.read_at(&mut bytes, address).ok()?;
        let end = bytes[..length].iter().position(|byte| *byte == 0)?;
        bytes.truncate(end);
        Some(PathBuf::from(std::ffi::OsString::from(String::from_utf8(bytes).ok()?)))
    }
}
