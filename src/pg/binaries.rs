//! Finding the server programs of a wanted major version of PostgreSQL.
//!
//! Refuses another major version: a data directory belongs to exactly one. Invariant: a `Binaries` holds a
//! `postgres` that was run and said which version it is.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::version::PgMajor;
use crate::error::{Error, Result};

/// A directory with the programs of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    version: ServerVersion,
}

/// What `postgres --version` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// 15, also of a version that pgark does not support.
    major: u32,
    /// "15.18", "18beta1".
    full: String,
}

impl ServerVersion {
    /// Reads "postgres (PostgreSQL) 15.18 (Debian 15.18-1.pgdg12+1)".
    fn parse(text: &str) -> Option<Self> {
        let full = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
        let digits = full.find(|c: char| !c.is_ascii_digit()).unwrap_or(full.len());
        let major = full.split_at_checked(digits)?.0.parse().ok()?;
        Some(Self { major, full: full.to_string() })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl Binaries {
    /// The programs in `explicit`, else the first found by pg_config, in PATH, and where packages put them.
    pub fn find(wanted: PgMajor, explicit: Option<&Path>, path: Option<&OsStr>) -> Result<Self> {
        let directories = match explicit {
            Some(directory) => vec![directory.to_path_buf()],
            None => candidates(wanted, pg_config_bindir(path), path),
        };
        let mut seen = Vec::new();
        for directory in directories {
            match inspect(&directory) {
                Ok(version) if version.major == wanted.number() => return Ok(Self { directory, version }),
                Ok(version) => seen.push(format!("{} is PostgreSQL {version}", directory.display())),
                Err(cause) => seen.push(format!("{} {cause}", directory.display())),
            }
        }
        Err(Error::postgres(format!(
            "could not find the server programs of PostgreSQL {wanted}: {}",
            seen.join("; ")
        ))
        .with_hint(format!(
            "install them (Debian: apt-get install postgresql-{wanted}), or name their directory with --bin-dir"
        )))
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Major and minor version, as PostgreSQL writes it.
    pub fn version(&self) -> &str {
        &self.version.full
    }

    /// The path of one of the programs; an error if it is not there.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::postgres(format!("could not find {}", path.display()))
            .with_hint("the package of PostgreSQL's server is incomplete: install it again"))
    }

    /// Where the server looks for libraries without a path ($libdir), such as those that
    /// shared_preload_libraries names. None if it is none of the usual places.
    pub fn library_directory(&self) -> Option<PathBuf> {
        let asked = ask(&self.directory.join("pg_config"), "--pkglibdir").map(PathBuf::from);
        let root = self.directory.parent()?;
        let usual = ["lib", "lib/postgresql", "lib/pgsql", "lib64/postgresql"].map(|name| root.join(name));
        // plpgsql comes with every server.
        asked.into_iter().chain(usual).find(|directory| directory.join("plpgsql.so").exists())
    }
}

/// Where to look, in this order, each once.
fn candidates(wanted: PgMajor, bindir: Option<PathBuf>, path: Option<&OsStr>) -> Vec<PathBuf> {
    let in_path =
        path.into_iter().flat_map(std::env::split_paths).filter(|dir| dir.join("postgres").is_file());
    let packaged = [
        format!("/usr/lib/postgresql/{wanted}/bin"),
        format!("/usr/pgsql-{wanted}/bin"),
        format!("/usr/lib/postgresql{wanted}/bin"),
        format!("/usr/libexec/postgresql{wanted}"),
        "/usr/local/pgsql/bin".to_string(),
    ];
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in bindir.into_iter().chain(in_path).chain(packaged.map(PathBuf::from)) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

fn pg_config_bindir(path: Option<&OsStr>) -> Option<PathBuf> {
    let program =
        path.into_iter().flat_map(std::env::split_paths).map(|directory| directory.join("pg_config"));
    let program = program.into_iter().find(|program| program.is_file())?;
    ask(&program, "--bindir").map(PathBuf::from)
}

/// The one line that a program answers; None if it is not there or fails.
fn ask(program: &Path, question: &str) -> Option<String> {
    let output = Command::new(program).arg(question).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    Some(answer.trim().to_string()).filter(|answer| output.status.success() && !answer.is_empty())
}

/// Runs a directory's `postgres --version`.
fn inspect(directory: &Path) -> std::result::Result<ServerVersion, String> {
    let program = directory.join("postgres");
    if !program.is_file() {
        return Err("has no postgres".into());
    }
    let output =
        Command::new(&program).arg("--version").output().map_err(|cause| format!("can't be run: {cause}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ServerVersion::parse(text.trim()).ok_or_else(|| format!("has a postgres that says \"{}\"", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn major(number: u32) -> PgMajor {
        PgMajor::try_from(number).expect("supported")
    }

    /// A directory whose `postgres` says `version`. Another process writes it: a program that this one has
    /// open for writing, if only while a thread forks, can't be run (ETXTBSY).
    fn fake(version: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let text = directory.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))
            .expect("written");
        let program = directory.path().join("postgres");
        let installed = Command::new("install").args(["-m", "755"]).arg(text).arg(program).status();
        assert!(installed.is_ok_and(|status| status.success()));
        directory
    }

    #[test]
    fn versions_are_read_whatever_the_packager_added() {
        for (text, number, full) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-1.pgdg12+1)", 15, "15.18"),
            ("postgres (PostgreSQL) 18beta1", 18, "18beta1"),
            ("postgres (PostgreSQL) 9.6.24", 9, "9.6.24"),
        ] {
            assert_eq!(ServerVersion::parse(text), Some(ServerVersion { major: number, full: full.into() }));
        }
        for text in ["", "postgres (PostgreSQL) ", "postgres (PostgreSQL) devel", "psql (PostgreSQL) 15.1"] {
            assert_eq!(ServerVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_first_directory_of_the_wanted_major_is_taken() {
        let (old, new) = (fake("14.2"), fake("16.1 (x)"));
        let path = std::env::join_paths([old.path(), new.path()]).expect("a PATH");
        let found = Binaries::find(major(16), None, Some(&path)).expect("found");
        assert_eq!((found.directory(), found.version()), (new.path(), "16.1"));
        assert!(found.program("postgres").is_ok());
        assert!(found.program("pg_nothing").is_err());
    }

    #[test]
    fn what_was_looked_at_is_listed_with_what_was_found() {
        let other = fake("14.2");
        let error = Binaries::find(major(17), Some(other.path()), None).expect_err("another version");
        assert!(error.message().contains("is PostgreSQL 14.2"), "{error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("postgresql-17") && hint.contains("--bin-dir"))
        );
        let error = Binaries::find(major(17), Some(Path::new("/nonexistent")), None).expect_err("nothing");
        assert!(error.message().contains("/nonexistent has no postgres"), "{error}");
    }

    #[test]
    fn pg_config_comes_first_and_packages_last() {
        let first = fake("15.1");
        let path = first.path().as_os_str();
        let directories = candidates(major(15), Some("/asked".into()), Some(path));
        assert_eq!(directories.first(), Some(&PathBuf::from("/asked")));
        assert_eq!(directories.get(1).map(PathBuf::as_path), Some(first.path()));
        assert!(directories.contains(&"/usr/lib/postgresql/15/bin".into()));
        let once = candidates(major(15), Some("/usr/lib/postgresql/15/bin".into()), None);
        assert_eq!(once.len(), 5);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(tail in "\\PC{0,20}") {
            ServerVersion::parse(&format!("postgres (PostgreSQL) {tail}"));
        }
    }
}
