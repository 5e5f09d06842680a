//! File systems that fill up, are read-only, or are not mounted. Mounting needs root (more exactly
//! CAP_SYS_ADMIN, which some containers withhold even from root), so each constructor returns `None` after
//! printing why, and the test ends there:
//!
//! ```ignore
//! let Some(disk) = SmallDisk::mount(8 << 20) else { return };
//! let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{is_root, server_user};
use super::scratch::Scratch;
use super::wait_for;

/// A file system in memory of a given size, owned by the server's user.
pub struct SmallDisk {
    // Before the directory that it is mounted on: fields are dropped in this order.
    mount: Option<Mount>,
    scratch: Scratch,
}

impl SmallDisk {
    pub fn mount(bytes: u64) -> Option<Self> {
        let scratch = Scratch::new();
        let user = server_user();
        let options = format!("size={bytes},mode=700,uid={},gid={}", user.uid, user.gid);
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        let mount = Mount::make(command, &scratch.make_dir("disk"))?;
        Some(Self { mount: Some(mount), scratch })
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.join("disk")
    }

    /// As if the disk were missing after a reboot: the empty mount point remains.
    pub fn unmount(&mut self) {
        self.mount = None;
    }
}

/// A directory that can't be written while this lives, not even by root.
pub struct ReadOnly(Mount);

impl ReadOnly {
    pub fn mount(dir: &Path) -> Option<Self> {
        let mut bind = Command::new("mount");
        bind.arg("--bind").arg(dir);
        let mount = Mount::make(bind, dir)?;
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,ro,bind"]).arg(dir);
        run_mount(&mut remount)?;
        Some(Self(mount))
    }
}

pub(super) struct Mount(PathBuf);

impl Mount {
    pub(super) fn make(mut command: Command, mount_point: &Path) -> Option<Self> {
        run_mount(command.arg(mount_point))?;
        Some(Self(mount_point.to_path_buf()))
    }

    /// Unmounts for good when this returns, which takes until nobody works there any more.
    pub(super) fn end(self) {
        let said = RefCell::new(String::new());
        wait_for(
            &format!("{} to be unmounted", self.0.display()),
            || said.borrow().clone(),
            || {
                let output = Command::new("umount").arg(&self.0).output().expect("start umount");
                *said.borrow_mut() = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success()
            },
        );
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    /// Lazily, so that a process that still works there can't keep it.
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.0).status().expect("start umount");
        if !status.success() && !std::thread::panicking() {
            panic!("could not unmount {}", self.0.display());
        }
    }
}

/// `None`, and a reason on standard error, where this machine does not let us mount.
pub(super) fn run_mount(command: &mut Command) -> Option<()> {
    if !is_root() {
        eprintln!("skipped: this test mounts a file system, which needs root");
        return None;
    }
    let output = command.output().expect("start mount: apt-get install mount");
    if !output.status.success() {
        eprintln!("skipped: could not mount: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(())
}
