//! The flags of `basebackup`: one definition each, for parser and help; and what it prints.

use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::connection::Connection;
use super::{Common, HasCommon, Output, expire, print};
use crate::config::{self, Config, parse_duration};
use crate::error::{Error, Result};
use crate::ident::Name;
use crate::ops::expire::report::Report;
use crate::ops::{self, backup};
use crate::pg::settings_value::{MemoryUnit, parse_memory};
use crate::repo::backup::CheckpointMode;

/// The backup stands, but pages of the cluster are damaged.
const DAMAGED_PAGES: u8 = 8;

/// The backup stands, but expiring older ones failed.
const NOT_EXPIRED: u8 = 9;

const AFTER_HELP: &str = "It connects as any PostgreSQL client does (PGHOST, PGPORT, PGUSER, PGSERVICE, ~/.pgpass; the \
Unix socket by default), reads the files itself, and so runs on the database host, as the server's user.\n\n\
Exit codes: 0 done; 2 wrong flags, configuration or host; 3 not found; 4 conflict (another backup runs, or \
the label is taken); 5 damaged data; 6 input or output failed, try again; 7 PostgreSQL failed or refused; 8 the backup \
stands, but pages of the cluster are damaged; 9 the backup stands, but what --expire does failed; 70 a bug in pgark";

/// Copy a running cluster, primary or standby, into the repository
#[derive(Parser)]
#[command(name = "basebackup", version, after_help = AFTER_HELP)]
pub struct BasebackupArgs {
    /// The backup's name; the time (UTC) unless told otherwise, such as 20261123-101502
    #[arg(long, value_name = "NAME")]
    label: Option<Name>,

    /// The checkpoint that the backup begins with: at once, or spread over time to spare the disks
    #[arg(long, value_enum, default_value = "fast")]
    checkpoint: Checkpoint,

    /// Parallel workers; as many as there are cores unless configured [config: backup.jobs]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Read at most so much in a second, all workers together, such as 50MB
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate_limit: Option<NonZeroU64>,

    /// How long to wait, after the copy, for the WAL that the backup needs [config: backup.wal_wait]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wal_timeout: Option<Duration>,

    /// Make no backup when pages of the cluster are damaged (without: make it, report them, exit with 8)
    #[arg(long)]
    fail_on_damaged_pages: bool,

    /// After success, delete what the configuration's rules do not keep, as `pgark expire` does [config: expire]
    #[arg(long)]
    expire: bool,

    /// As --expire if the configuration has rules; without rules delete nothing: for units that suit every host
    #[arg(long, conflicts_with = "expire")]
    expire_if_configured: bool,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Checkpoint {
    Fast,
    Spread,
}

impl HasCommon for BasebackupArgs {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl BasebackupArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        if self.expire {
            // Not after hours of copying.
            config.expire.require_rule()?;
        }
        let report = backup::run(config, &self.request())?;
        if matches!(self.output, Output::Text) {
            print(&report)?;
        }
        let expires = self.expire || self.expire_if_configured && config.expire.has_rule();
        let expired = expires.then(|| Expired::run(config));
        match (self.output, &expired) {
            (Output::Json, _) => print(&report.json(expired.as_ref())?)?,
            (Output::Text, Some(Expired { report: Some(expired), .. })) => print(&expire::done(expired))?,
            (Output::Text, _) => ExitCode::SUCCESS,
        };
        let failed = expired.and_then(|expired| expired.error);
        if let Some(error) = &failed {
            let label = report.label();
            tracing::error!("backup {label} is complete, but expiring older ones failed: {error}");
        }
        Ok(match failed {
            _ if report.has_damage() => ExitCode::from(DAMAGED_PAGES),
            Some(_) => ExitCode::from(NOT_EXPIRED),
            None => ExitCode::SUCCESS,
        })
    }

    fn request(&self) -> backup::Request {
        backup::Request {
            connection: self.connection.request(),
            label: self.label.clone(),
            checkpoint: match self.checkpoint {
                Checkpoint::Fast => CheckpointMode::Fast,
                Checkpoint::Spread => CheckpointMode::Spread,
            },
            jobs: self.jobs,
            rate_limit: self.rate_limit,
            wal_wait: self.wal_timeout,
            fail_on_damage: self.fail_on_damaged_pages,
            display: self.common.display(),
        }
    }
}

/// What became of `--expire`.
#[derive(Serialize)]
struct Expired {
    report: Option<Report>,
    error: Option<String>,
}

impl Expired {
    /// With the rules of the configuration, for all incarnations.
    fn run(config: &Config) -> Self {
        let request =
            ops::expire::Request { policy: config::Expire::default(), system_id: None, dry_run: false };
        let told = |error: &Error| match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        match ops::expire::run(config, &request, Timestamp::now(), |_| Ok(())) {
            Ok(outcome) => Self { report: Some(outcome.report), error: outcome.failed.as_ref().map(told) },
            Err(error) => Self { report: None, error: Some(told(&error)) },
        }
    }
}

pub(super) fn rate(text: &str) -> std::result::Result<NonZeroU64, String> {
    let bytes = parse_memory(text, MemoryUnit::Bytes).map_err(|error| error.to_string())?;
    NonZeroU64::new(bytes).ok_or_else(|| "nothing could ever be read".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        BasebackupArgs::command().debug_assert();
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(rate("50MB"), Ok(NonZeroU64::new(50 << 20).expect("not 0")));
        assert_eq!(rate("1000"), Ok(NonZeroU64::new(1000).expect("not 0")));
        for bad in ["", "0", "fast", "-1MB", "50Mb"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
