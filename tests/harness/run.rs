//! Running pgark's real programs: with a clean environment, as the server's user, with a time limit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::PATIENCE;
use super::host;

/// Where the server's user can execute the programs. See [`reachable`].
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Path::new(env!("CARGO_BIN_EXE_pgark")).parent().expect("a directory").to_path_buf();
    if reachable(&built) { built } else { copy_programs(&built) }
});

/// The absolute path of one of our programs, executable by the server's user.
pub fn program_path(name: &str) -> PathBuf {
    let path = PROGRAMS.join(name);
    assert!(path.exists(), "there is no program {name} in {}", PROGRAMS.display());
    path
}

/// A program with nothing in its environment, to be run by [`run`] or with assert_cmd's own `assert()`.
pub fn program(name: &str) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::from_std(std_program(name));
    command.timeout(PATIENCE);
    command
}

/// The same as a plain command, to be spawned and killed.
pub fn std_program(name: &str) -> std::process::Command {
    host::command(program_path(name))
}

pub fn pgark() -> assert_cmd::Command {
    program("pgark")
}

pub fn wal_push() -> assert_cmd::Command {
    program("wal-push")
}

pub fn wal_fetch() -> assert_cmd::Command {
    program("wal-fetch")
}

pub fn basebackup() -> assert_cmd::Command {
    program("basebackup")
}

pub fn bootstrap_restore() -> assert_cmd::Command {
    program("bootstrap-restore")
}

/// Runs a command to its end. One that does not end in time is killed, which its `code` tells (`None`).
pub fn run(command: &mut assert_cmd::Command) -> Outcome {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("run {shown}: {error}"));
    Outcome {
        shown,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    shown: String,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Panics unless it exited with 0; returns its standard output.
    #[track_caller]
    pub fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "should succeed: {self}");
        self.stdout
    }

    /// Panics unless it exited with `code` and said `message` on standard error; returns all that it said.
    #[track_caller]
    pub fn fails_with(self, code: i32, message: &str) -> String {
        assert_eq!(self.code, Some(code), "should exit with {code}: {self}");
        assert!(self.stderr.contains(message), "should say {message:?}: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit {:?}\nstdout: {}\nstderr: {}", self.shown, self.code, self.stdout, self.stderr)
    }
}

/// Whether the server's user gets to a directory: it may pass through every directory above.
fn reachable(dir: &Path) -> bool {
    let user = host::server_user();
    dir.ancestors().all(|above| {
        let metadata =
            fs::metadata(above).unwrap_or_else(|error| panic!("stat {}: {error}", above.display()));
        let bit = match (metadata.uid() == user.uid, metadata.gid() == user.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        metadata.mode() & bit != 0
    })
}

/// Copies the programs to where everyone gets to, once for all test processes that see the same builds: the
/// directory's name tells which. A rename publishes it whole, and the loser of a race uses the winner's.
fn copy_programs(built: &Path) -> PathBuf {
    let programs: Vec<PathBuf> = fs::read_dir(built)
        .expect("read the directory of the programs")
        .map(|entry| entry.expect("read the directory of the programs").path())
        .filter(|path| path.extension().is_none() && path.is_file())
        .collect();
    let target = PathBuf::from("/tmp").join(format!("pgark-programs-{}", fingerprint(&programs)));
    if target.exists() {
        return target;
    }
    let staging =
        tempfile::Builder::new().prefix("pgark-").tempdir_in("/tmp").expect("make a directory in /tmp");
    fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    for program in &programs {
        let copy = staging.path().join(program.file_name().expect("a name"));
        fs::copy(program, copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
    }
    match fs::rename(staging.path(), &target) {
        Ok(()) => drop(staging.keep()),
        Err(error) => assert!(target.exists(), "rename to {}: {error}", target.display()),
    }
    target
}

/// Tells builds apart: names, sizes and times of the programs.
fn fingerprint(programs: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    for program in programs {
        let metadata =
            fs::metadata(program).unwrap_or_else(|error| panic!("stat {}: {error}", program.display()));
        let line = format!(
            "{} {} {}.{}\n",
            program.display(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        hasher.update(line.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}
