//! A disk that loses its power: an ext4 on a loop device, which is shut down (EXT4_IOC_SHUTDOWN) while programs work
//! on it. From then on nothing gets to the device; what comes back after [`LossyDisk::restart`] is what was synced,
//! and with luck more. Left out is what disks do on their own: the device keeps all that the kernel sent to it.
//!
//! ```ignore
//! let Some(mut disk) = LossyDisk::make(64) else { return };
//! let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
//! disk.lose_power(Journal::Lost);
//! disk.restart();                                          // replays the journal
//! ```

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use super::host::{is_root, server_user};
use super::mounts::Mount;
use super::scratch::Scratch;

/// ext4.h: _IOR('X', 125, __u32).
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;

/// What becomes of the changes to the file system that nobody synced yet (ext4.h, EXT4_GOING_FLAGS_...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// All that is dirty is written before: as on an orderly end.
    Synced,
    /// They are in the journal, with the data that they need.
    Written,
    /// They are lost.
    Lost,
}

pub struct LossyDisk {
    // Before the directory that it is mounted on: fields are dropped in this order.
    mount: Option<Mount>,
    scratch: Scratch,
}

impl LossyDisk {
    /// An empty one, owned by the server's user. `None`, and a reason on standard error, where that can't be made.
    pub fn make(mebibytes: u64) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: this test mounts a file system on a loop device, which needs root");
            return None;
        }
        let mut disk = Self { mount: None, scratch: Scratch::new() };
        let file = File::create_new(disk.image()).expect("make an image");
        file.set_len(mebibytes << 20).expect("extend the image");
        let user = server_user();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-J", "size=8", "-E"]);
        mkfs.arg(format!("lazy_itable_init=1,root_owner={}:{}", user.uid, user.gid)).arg(disk.image());
        match mkfs.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr)),
            Err(cause) => {
                eprintln!("skipped: could not start mkfs.ext4: {cause}: apt-get install e2fsprogs");
                return None;
            }
        }
        disk.mount()?;
        Some(disk)
    }

    /// A copy, which is mounted. This one must not be.
    pub fn copy(&self) -> Option<Self> {
        assert!(self.mount.is_none(), "a disk in use is not copied");
        let mut copy = Self { mount: None, scratch: Scratch::new() };
        let copied = Command::new("cp").arg("--sparse=always").arg(self.image()).arg(copy.image()).status();
        assert!(copied.expect("start cp").success(), "copy the image");
        copy.mount()?;
        Some(copy)
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.join("disk")
    }

    fn image(&self) -> PathBuf {
        self.scratch.join("image")
    }

    /// The kernel writes nothing on its own while a test runs, nor more than it is asked to: what was not synced
    /// shall be lost.
    fn mount(&mut self) -> Option<()> {
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", "loop,commit=600,noauto_da_alloc"]).arg(self.image());
        self.mount = Some(Mount::make(command, &self.scratch.make_dir("disk"))?);
        Some(())
    }

    /// From now on every change fails, with EIO.
    pub fn lose_power(&self, journal: Journal) {
        let flags: u32 = match journal {
            Journal::Synced => 0,
            Journal::Written => 1,
            Journal::Lost => 2,
        };
        let root = File::open(self.path()).expect("open the file system");
        // The kernel reads a number at this address.
        #[allow(unsafe_code)]
        // SAFETY: the descriptor and the number live until the call returns.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &flags) };
        assert_eq!(done, 0, "EXT4_IOC_SHUTDOWN: {}", std::io::Error::last_os_error());
    }

    /// What is there now is lost by no cut.
    pub fn sync(&self) {
        let root = File::open(self.path()).expect("open the file system");
        rustix::fs::syncfs(root).expect("sync the file system");
    }

    /// The machine is on again. Whoever worked there must have ended, or be about to.
    pub fn restart(&mut self) {
        self.unmount();
        self.mount().expect("it was mounted before");
    }

    pub fn unmount(&mut self) {
        if let Some(mount) = self.mount.take() {
            mount.end();
        }
    }
}
