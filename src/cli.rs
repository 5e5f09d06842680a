//! The edge of every program: flags and environment become a `Config`, the log is set up, an error becomes
//! a message and an exit code. The only place that decides how the process ends.
//!
//! Standard output is for results, standard error for logs. Invariant: no failure of the log itself (a
//! closed pipe) changes the exit code, and a panic ends in SIGABRT, never in a status below 126.

pub mod basebackup;
pub mod check;
pub mod connection;
pub mod expire;
pub mod find;
pub mod info;
pub mod manual;
pub mod metrics;
pub mod pin;
pub mod present;
pub mod reference;
pub mod repo;
pub mod report;
pub mod restore;
pub mod verify;
pub mod wal_fetch;
pub mod wal_push;
pub mod wal_receive;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use rustix::fs::Mode;
use rustix::process::umask;

use crate::config::{Config, Overrides};
use crate::error::{Error, IoContext, Kind, Result};
use crate::progress::Display;

/// The exit codes of every program but `wal-fetch`, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 2 wrong flags, configuration or host; 3 not found; 4 conflict; \
5 damaged data; 6 input or output failed, try again; 7 PostgreSQL failed or refused; 70 a bug in pgark";

/// The exit codes of `wal-fetch`, for `--help`.
pub const FETCH_EXIT_CODES: &str = "Exit codes: 0 delivered; 1 proven not to be in the archive; \
above 125 no answer, recovery stops and can be started again: 202 wrong flags, configuration or host; \
203 a hole in the archive; 204 conflict; 205 damaged data; 206 input or output failed; 255 a bug in pgark";

/// Flags that all programs share.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The repository: an absolute path or a file:// URL [config: repo]
    #[arg(long, env = "PGARK_REPO", value_name = "PATH|URL", global = true)]
    repo: Option<String>,

    /// The cluster's name in the repository; "main" unless told otherwise [config: cluster]
    #[arg(long, env = "PGARK_CLUSTER", value_name = "NAME", global = true)]
    cluster: Option<String>,

    /// Insist on the repository with this id, as `pgark init` printed it [config: repo_id]
    #[arg(long, env = "PGARK_REPO_ID", value_name = "ID", global = true)]
    repo_id: Option<String>,

    /// The configuration file; /etc/pgark/pgark.toml is read if it exists
    #[arg(long, env = "PGARK_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How logs look on standard error
    #[arg(long, env = "PGARK_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,

    /// Say more (-v: what is being done; -vv: every detail)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,

    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

/// How a result looks on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What a program's own flags must give us: the common ones.
pub trait HasCommon {
    fn common(&self) -> &Common;

    /// What is logged without `-v` and `-q`.
    fn log_level(&self) -> tracing::Level {
        tracing::Level::WARN
    }
}

/// Runs a program: parses, resolves the configuration, calls `run`, reports.
///
/// `exit_code` maps an error's kind; all programs but `wal-fetch` pass [`Kind::exit_code`].
pub fn run<A: Parser + HasCommon>(
    exit_code: fn(Kind) -> u8,
    run: impl FnOnce(A, &Config) -> Result<ExitCode>,
) -> ExitCode {
    run_announcing(exit_code, |_| {}, run)
}

/// The same for those whose standard output is read by a machine: failures are announced there, too.
pub fn run_announcing<A: Parser + HasCommon>(
    exit_code: fn(Kind) -> u8,
    announce: fn(&str),
    run: impl FnOnce(A, &Config) -> Result<ExitCode>,
) -> ExitCode {
    abort_on_panic();
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(cause) => {
            if cause.use_stderr() {
                announce(&cause.to_string());
            }
            return usage(&cause, exit_code);
        }
    };
    let common = args.common().clone();
    start_log(&common, args.log_level());
    tighten_umask();
    let outcome = Config::resolve(&common.overrides()).and_then(|config| run(args, &config));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            announce(error.message());
            report(&error, common.log_format);
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

/// The repository holds everything the company knows: whatever our umask was, others may not read it, nor the group
/// write. Whether the group may read is for who runs us to say: PostgreSQL's umask keeps it out, unless initdb was
/// told --allow-group-access.
fn tighten_umask() {
    let least = Mode::WGRP | Mode::RWXO;
    let before = umask(least);
    umask(before | least);
}

/// A panic, on any thread, must not become exit status 101: PostgreSQL would read that from `wal-fetch` as
/// "not in the archive" and end recovery. SIGABRT stops recovery instead.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        drop(writeln!(std::io::stderr(), "error: a bug in pgark: {panic}"));
        std::process::abort();
    }));
}

/// clap prints help and version to standard output and ends well; everything else is a wrong flag.
fn usage(cause: &clap::Error, exit_code: fn(Kind) -> u8) -> ExitCode {
    // Nothing can be done about a closed terminal; the exit code says it all the same.
    drop(cause.print());
    if cause.use_stderr() { ExitCode::from(exit_code(Kind::Configuration)) } else { ExitCode::SUCCESS }
}

impl Common {
    /// How progress is shown.
    pub fn display(&self) -> Display {
        match self.log_format {
            _ if self.quiet => Display::Silent,
            LogFormat::Json => Display::Json,
            LogFormat::Text if std::io::stderr().is_terminal() => Display::Bar,
            LogFormat::Text => Display::Lines,
        }
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            file: self.config.clone(),
            repo: self.repo.clone(),
            cluster: self.cluster.clone(),
            repo_id: self.repo_id.clone(),
        }
    }
}

/// Writes a result to standard output; an error when nobody can read it.
pub fn print(result: &impl std::fmt::Display) -> Result<ExitCode> {
    writeln!(std::io::stdout(), "{result}").doing(|| "write the result to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(common: &Common, usual: tracing::Level) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => tracing::Level::ERROR,
        (false, 0) => usual,
        (false, 1) => tracing::Level::INFO.max(usual),
        (false, _) => tracing::Level::DEBUG,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false);
    match common.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// The error for the person (two lines) or the machine (one JSON line).
fn report(error: &Error, format: LogFormat) {
    match format {
        LogFormat::Json => {
            tracing::error!(kind = error.kind().as_str(), hint = error.hint(), "{error}");
        }
        LogFormat::Text => {
            let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            // With standard error closed there is nobody to tell; the exit code still says it.
            drop(std::io::stderr().write_all(format!("error: {error}\n{hint}").as_bytes()));
        }
    }
}
