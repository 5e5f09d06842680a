//! Running pgark's real programs: with a clean environment, as the server's user, with a time limit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::PATIENCE;
use super::host;
use super::scratch::is_running;

/// Where the server's user can execute the programs. See [`reachable`].
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let pgark = Path::new(env!("CARGO_BIN_EXE_pgark"));
    let built = pgark.parent().expect("a directory");
    if reachable(pgark) { built.to_path_buf() } else { copy_programs(built) }
});

/// Where copies of the programs go, with the pid of the test process behind it. `scripts/test.sh` removes the last.
const COPIES: &str = "/tmp/pgark-programs-";

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
    pub(super) shown: String,
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

/// Whether the server's user can execute the programs where cargo put them: not below /root, say.
fn reachable(program: &Path) -> bool {
    host::command("test").arg("-x").arg(program).status().expect("start test").success()
}

/// Copies the programs to where everyone gets to. The directory's name tells the process that made it, so that
/// the next one can remove it: nothing of ours runs when a process ends.
fn copy_programs(built: &Path) -> PathBuf {
    remove_copies_of_the_dead();
    let target = PathBuf::from(format!("{COPIES}{}", std::process::id()));
    fs::create_dir(&target).unwrap_or_else(|error| panic!("make {}: {error}", target.display()));
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).expect("chmod");
    for entry in fs::read_dir(built).expect("read the directory of the programs") {
        let program = entry.expect("read the directory of the programs").path();
        if program.is_file() && program.extension().is_none() {
            let copy = target.join(program.file_name().expect("a name"));
            fs::copy(&program, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
    }
    target
}

fn remove_copies_of_the_dead() {
    for entry in fs::read_dir("/tmp").expect("read /tmp") {
        let path = entry.expect("read /tmp").path();
        let pid = path.to_str().and_then(|path| path.strip_prefix(COPIES)).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !is_running(pid)) {
            fs::remove_dir_all(&path).unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
        }
    }
}
