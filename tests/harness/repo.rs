//! A repository of a test, the programs that use it, and ways to damage it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::Cluster;
use super::run::{program, run, std_program};
use super::scratch::{Scratch, own};

/// What can happen to a stored object.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// All bits of the byte at this offset are inverted; negative counts from the end.
    FlipByte(i64),
    /// Only this many bytes remain.
    Truncate(u64),
    /// This many zero bytes are added at the end.
    Extend(u64),
    Delete,
    /// Nobody but root may read it.
    Unreadable,
}

pub struct TestRepo {
    scratch: Scratch,
    root: PathBuf,
    config: PathBuf,
}

impl TestRepo {
    /// A repository made by `pgark init`.
    pub fn init() -> Self {
        let repo = Self::not_initialised();
        run(&mut repo.pgark(&["init"])).succeeds();
        repo
    }

    /// An empty directory and the configuration file that names it as the repository.
    pub fn not_initialised() -> Self {
        let scratch = Scratch::new();
        let root = scratch.make_dir("repo");
        Self::at(scratch, root)
    }

    /// A copy of the repository that format version 1 wrote, which is released with one backup.
    pub fn golden() -> Self {
        let repo = Self::not_initialised();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1/.");
        let copied = Command::new("cp").args(["-R"]).arg(golden).arg(&repo.root).status().expect("start cp");
        assert!(copied.success(), "copy the golden repository");
        for entry in walkdir::WalkDir::new(&repo.root) {
            own(entry.expect("list the copy").path());
        }
        repo
    }

    /// A repository to be at `root`, for example on a file system of its own.
    pub fn at(scratch: Scratch, root: PathBuf) -> Self {
        let config = scratch.write("pgark.toml", format!("repo = {:?}\n", root.display().to_string()));
        Self { scratch, root, config }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The configuration file, for PGARK_CONFIG.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Adds lines of TOML to the configuration file.
    pub fn configure(&self, lines: &str) {
        super::cluster::append(&self.config, lines);
    }

    /// Any of our programs with this repository.
    pub fn program(&self, name: &str) -> assert_cmd::Command {
        let mut command = program(name);
        command.env("PGARK_CONFIG", &self.config).env("HOME", self.scratch.path());
        command
    }

    /// The same as a plain command, to be spawned and killed, or run with a [`super::Fault`].
    pub fn std_program(&self, name: &str) -> Command {
        let mut command = std_program(name);
        command.env("PGARK_CONFIG", &self.config).env("HOME", self.scratch.path());
        command
    }

    pub fn pgark(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = self.program("pgark");
        command.args(arguments);
        command
    }

    /// `wal-push`, run where PostgreSQL runs it: in the data directory.
    pub fn wal_push(&self, data_dir: &Path) -> assert_cmd::Command {
        let mut command = self.program("wal-push");
        command.current_dir(data_dir);
        command
    }

    /// `wal-fetch`, run where PostgreSQL runs it: in the data directory.
    pub fn wal_fetch(&self, data_dir: &Path) -> assert_cmd::Command {
        let mut command = self.program("wal-fetch");
        command.current_dir(data_dir);
        command
    }

    pub fn basebackup(&self, cluster: &Cluster) -> assert_cmd::Command {
        let mut command = self.program("basebackup");
        command.envs(cluster.env());
        command
    }

    pub fn bootstrap_restore(&self) -> assert_cmd::Command {
        self.program("bootstrap-restore")
    }

    /// `bootstrap-restore` into `name` of a directory of the test, which must succeed; the running server. Its
    /// sockets are beside it.
    #[track_caller]
    pub fn restore(&self, scratch: &Scratch, name: &str, arguments: &[&str]) -> Cluster {
        let target = scratch.join(name);
        let sockets = scratch.make_dir("s");
        let mut command = self.bootstrap_restore();
        command.arg("-D").arg(&target).arg("--socket-dir").arg(sockets).args(arguments);
        run(&mut command).succeeds();
        Cluster::adopt(&target)
    }

    /// Every stored file relative to the root, sorted.
    pub fn list(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in walkdir::WalkDir::new(&self.root) {
            let entry = entry.expect("list the repository");
            if entry.file_type().is_file() {
                let relative = entry.path().strip_prefix(&self.root).expect("a path below the root");
                found.push(relative.to_str().expect("a key is UTF-8").to_owned());
            }
        }
        found.sort();
        found
    }

    /// The stored files whose key contains `part`.
    pub fn matching(&self, part: &str) -> Vec<String> {
        self.list().into_iter().filter(|key| key.contains(part)).collect()
    }

    /// The one stored file whose key contains `part`. Panics with the listing if there is none or more.
    #[track_caller]
    pub fn only(&self, part: &str) -> String {
        let mut found = self.matching(part);
        assert_eq!(found.len(), 1, "not exactly one key with {part:?} in {:#?}", self.list());
        found.remove(0)
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub fn read(&self, key: &str) -> Vec<u8> {
        fs::read(self.path(key)).unwrap_or_else(|error| panic!("read {key}: {error}"))
    }

    /// Other content under a key.
    pub fn replace(&self, key: &str, content: impl AsRef<[u8]>) {
        self.scratch.write(self.path(key), content);
    }

    pub fn damage(&self, key: &str, damage: Damage) {
        damage_file(&self.path(key), damage);
    }
}

/// Damages any file. The file is replaced, not written in place, so that a hard link to it stays whole.
pub fn damage_file(path: &Path, damage: Damage) {
    match damage {
        Damage::Delete => fs::remove_file(path).expect("remove"),
        Damage::Unreadable => {
            own_by_root(path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("chmod");
        }
        Damage::FlipByte(offset) => rewrite(path, |bytes| {
            let length = i64::try_from(bytes.len()).expect("a length");
            let position =
                usize::try_from(if offset < 0 { length + offset } else { offset }).expect("an offset");
            bytes[position] ^= 0xFF;
        }),
        Damage::Truncate(length) => {
            rewrite(path, |bytes| bytes.truncate(usize::try_from(length).expect("a length")))
        }
        Damage::Extend(count) => {
            rewrite(path, |bytes| bytes.resize(bytes.len() + usize::try_from(count).expect("a length"), 0))
        }
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    change(&mut bytes);
    let mode = fs::metadata(path).expect("stat").permissions();
    fs::remove_file(path).expect("remove the whole one");
    fs::write(path, bytes).expect("write the damaged one");
    fs::set_permissions(path, mode).expect("chmod");
    own(path);
}

/// A file of mode 000 is still readable for a program that runs as root, but ours do not.
fn own_by_root(path: &Path) {
    if super::is_root() {
        std::os::unix::fs::chown(path, Some(0), Some(0)).expect("chown");
    }
}
