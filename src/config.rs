//! The configuration, alike for all programs: flags over environment over a TOML file over defaults.
//! `Config` is plain data that is passed down; nothing below `cli` reads the environment for it.
//!
//! Refuses unknown keys and values of the wrong kind with the line of the file that holds them.

mod expire;
pub mod keys;
mod units;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, IoContext, Result};
use crate::host;
use crate::ident::{Id, Name};
use crate::location::Location;
pub use expire::Expire;
use expire::ExpireFile;
use units::{Size, Span};
pub use units::{parse_duration, parse_span};

/// Read when it exists and no other file is named.
pub const DEFAULT_FILE: &str = "/etc/pgark/pgark.toml";

/// Segments that are pushed at a time by default, if there are as many cores.
const PUSH_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// The same for fetching. Of the usual four cores, recovery itself needs one; and memory stays below 8 MiB.
const FETCH_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// What every program knows once its flags, environment and file are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    repo: Option<Location>,
    pub cluster: Name,
    /// The repository must have this id.
    pub repo_id: Option<Id>,
    /// The file that was read, for commands that configure other programs to read it too.
    pub file: Option<PathBuf>,
    /// Where local state and big temporary files go; `None`: the former into the server's pg_wal, the latter
    /// into the system's temporary directory.
    pub spool: Option<PathBuf>,
    /// zstd level of WAL and backups.
    pub compression_level: i32,
    pub push: Push,
    pub fetch: Fetch,
    pub receive: Receive,
    pub backup: Backup,
    pub restore: Restore,
    pub expire: Expire,
}

/// `[push]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// How long to wait for another push of the same file.
    pub lock_wait: Duration,
    /// Files that are pushed at a time while a backlog waits.
    pub jobs: NonZeroUsize,
    /// Files that one call takes along at most; 0: none.
    pub batch: usize,
    /// Bytes of WAL that may wait; while more do and the repository can't be reached, what has waited longest is
    /// dropped. None: nothing is ever dropped.
    pub wal_queue_max: Option<u64>,
}

/// `[fetch]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// How long to retry what may pass before recovery is stopped.
    pub retry: Duration,
    /// The same for timeline history files, where a wrong "not there" would cost a timeline.
    pub history_retry: Duration,
    /// Segments that are kept ready; 0: none are.
    pub prefetch: usize,
    /// What these may take at most, bytes.
    pub prefetch_bytes: u64,
    /// How long the prefetcher waits for the next request before it ends.
    pub prefetch_linger: Duration,
    /// Segments that the prefetcher fetches at a time.
    pub jobs: NonZeroUsize,
}

/// `[receive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The replication slot's name.
    pub slot: String,
    /// Whether what the spool holds durably is reported as flushed.
    pub synchronous: bool,
    /// How long after a completed segment the unfinished one is stored.
    pub partial_every: Duration,
    /// Silence of the server that ends a connection.
    pub timeout: Duration,
    /// What may wait in the spool for the repository, bytes.
    pub backlog: u64,
    /// How far the slot may be behind the server before it is said, bytes.
    pub lag_limit: u64,
    /// Whether a server that asks for an md5 password gets it.
    pub allow_md5: bool,
}

/// `[backup]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub jobs: NonZeroUsize,
    /// How long to wait for the WAL that the backup needs.
    pub wal_wait: Duration,
}

/// `[restore]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub jobs: NonZeroUsize,
}

/// What flags and environment said; they win over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub file: Option<PathBuf>,
    pub repo: Option<String>,
    pub cluster: Option<String>,
    pub repo_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    repo: Option<String>,
    cluster: Option<String>,
    repo_id: Option<String>,
    spool: Option<PathBuf>,
    compression_level: Option<i32>,
    push: PushFile,
    fetch: FetchFile,
    receive: ReceiveFile,
    backup: BackupFile,
    restore: RestoreFile,
    expire: ExpireFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PushFile {
    lock_wait: Option<Span>,
    jobs: Option<NonZeroUsize>,
    batch: Option<usize>,
    wal_queue_max: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FetchFile {
    retry: Option<Span>,
    history_retry: Option<Span>,
    prefetch: Option<usize>,
    prefetch_bytes: Option<Size>,
    prefetch_linger: Option<Span>,
    jobs: Option<NonZeroUsize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReceiveFile {
    slot: Option<String>,
    synchronous: Option<bool>,
    partial_every: Option<Span>,
    timeout: Option<Span>,
    backlog: Option<Size>,
    lag_limit: Option<Size>,
    allow_md5: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BackupFile {
    jobs: Option<NonZeroUsize>,
    wal_wait: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RestoreFile {
    jobs: Option<NonZeroUsize>,
}

impl Config {
    /// Puts flags and environment over the file. The default file may be absent; a named one may not.
    pub fn resolve(overrides: &Overrides) -> Result<Self> {
        let (path, must_exist) = match &overrides.file {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::over(parse(&text, &path)?, overrides, Some(path)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                Self::over(File::default(), overrides, None)
            }
            Err(cause) => Err(cause).doing(|| format!("read configuration {}", path.display())),
        }
    }

    fn over(file: File, overrides: &Overrides, path: Option<PathBuf>) -> Result<Self> {
        let repo = overrides.repo.as_ref().or(file.repo.as_ref());
        let cluster = overrides.cluster.as_deref().or(file.cluster.as_deref()).unwrap_or("main");
        let repo_id = overrides.repo_id.as_ref().or(file.repo_id.as_ref());
        let compression_level = file.compression_level.unwrap_or(1);
        if !zstd::compression_level_range().contains(&compression_level) || compression_level == 0 {
            return Err(Error::configuration(format!(
                "compression_level {compression_level} is not one of zstd's"
            ))
            .with_hint("1 is the default; 3 stores a little less and takes longer; at most 22"));
        }
        let cores = host::cores();
        let span = |span: Option<Span>, default: u64| span.map_or(Duration::from_secs(default), |s| s.0);
        Ok(Self {
            repo: repo.map(|text| Location::parse(text)).transpose()?,
            cluster: cluster.parse().map_err(|error: Error| error.context("cluster"))?,
            repo_id: repo_id.map(|text| text.parse()).transpose().map_err(|e: Error| e.context("repo_id"))?,
            file: path,
            spool: file.spool,
            compression_level,
            push: Push {
                lock_wait: span(file.push.lock_wait, 60),
                jobs: file.push.jobs.unwrap_or(cores.min(PUSH_JOBS)),
                batch: file.push.batch.unwrap_or(64),
                wal_queue_max: queue_max(file.push.wal_queue_max)?,
            },
            fetch: Fetch {
                retry: span(file.fetch.retry, 60),
                history_retry: span(file.fetch.history_retry, 300),
                prefetch: file.fetch.prefetch.unwrap_or(16),
                prefetch_bytes: file.fetch.prefetch_bytes.map_or(1 << 30, |size| size.0),
                prefetch_linger: span(file.fetch.prefetch_linger, 60),
                jobs: file.fetch.jobs.unwrap_or(cores.min(FETCH_JOBS)),
            },
            receive: Receive {
                slot: file.receive.slot.unwrap_or_else(|| "pgark".to_string()),
                synchronous: file.receive.synchronous.unwrap_or(false),
                partial_every: span(file.receive.partial_every, 60),
                timeout: span(file.receive.timeout, 60),
                backlog: file.receive.backlog.map_or(1 << 30, |size| size.0),
                lag_limit: file.receive.lag_limit.map_or(1 << 30, |size| size.0),
                allow_md5: file.receive.allow_md5.unwrap_or(false),
            },
            backup: Backup {
                jobs: file.backup.jobs.unwrap_or(cores),
                wal_wait: span(file.backup.wal_wait, 600),
            },
            restore: Restore { jobs: file.restore.jobs.unwrap_or(cores) },
            expire: file.expire.into(),
        })
    }

    /// Where the repository is; an error that says how to tell when nobody told.
    pub fn repo(&self) -> Result<&Location> {
        self.repo.as_ref().ok_or_else(|| {
            Error::configuration("no repository is configured").with_hint(format!(
                "give --repo, set PGARK_REPO, or write repo = \"/path\" into {DEFAULT_FILE}"
            ))
        })
    }
}

/// Zero means "no limit" in many a program, and would mean "drop everything" here.
fn queue_max(size: Option<Size>) -> Result<Option<u64>> {
    match size {
        Some(Size(0)) => Err(Error::configuration("push.wal_queue_max is 0").with_hint(
            "leave it out to drop no WAL, ever; else give the size of a long queue, such as \"200GiB\"",
        )),
        size => Ok(size.map(|size| size.0)),
    }
}

fn parse(text: &str, path: &Path) -> Result<File> {
    toml::from_str(text).map_err(|cause| {
        let line =
            cause.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count());
        let place = match line {
            Some(line) => {
                let source = text.lines().nth(line).unwrap_or("").trim();
                format!("{} line {}: {} in \"{source}\"", path.display(), line + 1, cause.message())
            }
            None => format!("{}: {}", path.display(), cause.message()),
        };
        Error::configuration(format!("could not read configuration {place}"))
    })
}

#[cfg(any(test, feature = "fuzzing"))]
/// A file of this text, as a fuzzer wants it (`crate::fuzz`).
pub(crate) fn fuzz(text: &str) {
    if let Ok(file) = parse(text, &PathBuf::from(DEFAULT_FILE)) {
        drop(Config::over(file, &Overrides::default(), None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, overrides: &Overrides) -> Result<Config> {
        let path = PathBuf::from("/x.toml");
        Config::over(parse(text, &path)?, overrides, Some(path))
    }

    #[test]
    fn the_defaults_need_no_file() {
        let config = config("", &Overrides::default()).expect("defaults");
        assert_eq!((config.cluster.as_str(), config.compression_level), ("main", 1));
        assert!(config.repo().is_err_and(|e| e.hint().is_some_and(|hint| hint.contains("PGARK_REPO"))));
    }

    #[test]
    fn flags_and_environment_win_over_the_file() {
        let overrides = Overrides { cluster: Some("b".into()), ..Overrides::default() };
        let config =
            config("repo = \"/r\"\ncluster = \"a\"\n[fetch]\nretry = \"5s\"\n", &overrides).expect("fine");
        assert_eq!(config.cluster.as_str(), "b");
        assert_eq!(config.repo().map(|l| l.to_string()), Ok("/r".to_string()));
        assert_eq!(config.fetch.retry, Duration::from_secs(5));
    }

    #[test]
    fn wal_is_dropped_only_where_that_is_configured() {
        let limit = |text| config(text, &Overrides::default()).expect("fine").push.wal_queue_max;
        assert_eq!(limit(""), None);
        assert_eq!(limit("[push]\nwal_queue_max = \"2GiB\"\n"), Some(2 << 30));
    }

    #[test]
    fn mistakes_in_the_file_are_shown_with_their_line() {
        for (text, expected) in [
            ("repo = \"/r\"\nrepoid = \"x\"\n", "line 2: unknown field `repoid`"),
            ("[fetch]\nretry = \"soon\"\n", "line 2: \"soon\" is not a duration"),
            ("[backup]\njobs = 0\n", "line 2: "),
            ("[fetch]\nprefetch_bytes = \"much\"\n", "line 2: \"much\" is not a size"),
            ("[push]\nwal_queue_max = \"0GiB\"\n", "push.wal_queue_max is 0"),
            ("[push]\nwal_queue_max = 1000\n", "line 2: "),
            ("cluster = \"a/b\"\n", "cluster: \"a/b\" can't be a name"),
            ("compression_level = 99\n", "compression_level 99"),
            ("repo = [\n", "line 1: unclosed array"),
        ] {
            let error = config(text, &Overrides::default()).expect_err(text);
            assert!(error.message().contains(expected), "{}", error.message());
        }
    }
}
