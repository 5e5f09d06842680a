//! The machine that the tests run on: which PostgreSQL, which unprivileged user, and commands with an
//! environment that holds nothing but what a test put there.
//!
//! PostgreSQL refuses to run as root. When the tests do, servers and programs run as `postgres`, or as
//! `nobody` where that user is missing. When they do not, everything runs as the caller.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// An operating system user by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

static SERVER_USER: LazyLock<User> = LazyLock::new(|| {
    if !is_root() {
        return User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    }
    user_named("postgres")
        .or_else(|| user_named("nobody"))
        .expect("neither postgres nor nobody in /etc/passwd")
});

static BIN_DIR: LazyLock<PathBuf> = LazyLock::new(find_bin_dir);

static MAJOR: LazyLock<u32> = LazyLock::new(|| {
    let output =
        Command::new(bin_dir().join("postgres")).arg("--version").output().expect("run postgres --version");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digits = text.split_whitespace().nth(2).map(|version| version.split(|c: char| !c.is_ascii_digit()));
    digits.and_then(|mut parts| parts.next()).and_then(|major| major.parse().ok()).unwrap_or_else(|| {
        panic!("could not read a major version from {text:?}");
    })
});

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that servers and programs run as.
pub fn server_user() -> User {
    *SERVER_USER
}

/// Where PostgreSQL's programs are.
pub fn bin_dir() -> &'static Path {
    &BIN_DIR
}

/// The major version of PostgreSQL in [`bin_dir`].
pub fn pg_major() -> u32 {
    *MAJOR
}

/// A command that runs as the server's user in `/`, with a clean environment and no standard input.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin_dir().display()));
    command.env("LANG", "C.UTF-8").env("TZ", "UTC").env("HOME", "/nonexistent");
    for passed_on in ["RUST_BACKTRACE", "TSAN_OPTIONS"] {
        command.envs(std::env::var_os(passed_on).map(|value| (passed_on, value)));
    }
    if is_root() {
        // The standard library clears the supplementary groups when it changes the user as root.
        command.uid(server_user().uid).gid(server_user().gid);
    }
    command
}

/// One of PostgreSQL's own programs, as [`command`].
pub fn pg_command(program: &str) -> Command {
    let path = bin_dir().join(program);
    assert!(path.exists(), "{} is missing: apt-get install postgresql-{}", path.display(), pg_major());
    command(path)
}

fn user_named(name: &str) -> Option<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        match fields.as_slice() {
            [found, _, uid, gid, ..] if *found == name => {
                Some(User { uid: uid.parse().expect("a uid"), gid: gid.parse().expect("a gid") })
            }
            _ => None,
        }
    })
}

fn find_bin_dir() -> PathBuf {
    if let Some(chosen) = std::env::var_os("PGARK_TEST_BINDIR") {
        let chosen = PathBuf::from(chosen);
        assert!(chosen.join("postgres").exists(), "PGARK_TEST_BINDIR={} holds no postgres", chosen.display());
        return chosen;
    }
    let asked =
        Command::new("pg_config").arg("--bindir").output().map(|output| output.stdout).unwrap_or_default();
    let asked = PathBuf::from(String::from_utf8_lossy(&asked).trim());
    let found = debian_bin_dirs().into_iter().chain([asked]).find(|dir| dir.join("postgres").exists());
    found.expect("the tests need a PostgreSQL server: apt-get install postgresql-15")
}

/// Where Debian puts PostgreSQL: 15, which the tests are for, then the others.
fn debian_bin_dirs() -> Vec<PathBuf> {
    let root = Path::new("/usr/lib/postgresql");
    let versions =
        std::fs::read_dir(root).map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())));
    let mut versions: Vec<PathBuf> = versions.map(Iterator::collect).unwrap_or_default();
    versions.sort_by_key(|version| (!version.ends_with("15"), version.clone()));
    versions.into_iter().map(|version| version.join("bin")).collect()
}
