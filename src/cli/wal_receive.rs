//! The flags of `wal-receive`, and what a service manager puts into its environment.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::connection::Connection;
use super::{Common, EXIT_CODES, HasCommon, Output, print};
use crate::config::{Config, parse_duration};
use crate::error::Result;
use crate::ops::wal_receive::{self, Request, ServiceManager};
use crate::pg::lsn::SystemId;

/// Stream WAL into the repository as it is written, through a replication slot
///
/// It runs until it is told to end, best under a service manager, on any host. It connects as any PostgreSQL
/// client does (PGHOST, PGPORT, PGUSER, PGSERVICE, ~/.pgpass), as a role with the attribute REPLICATION.
#[derive(Parser)]
#[command(name = "wal-receive", version, after_help = EXIT_CODES)]
pub struct Args {
    /// The replication slot, created if it is missing; also the name in synchronous_standby_names
    /// [config: receive.slot]
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,

    /// Where the segment in progress lies [config: spool]
    #[arg(long, value_name = "DIRECTORY")]
    spool: Option<PathBuf>,

    /// Report WAL as flushed as soon as the spool holds it durably, for synchronous commits
    /// [config: receive.synchronous]
    #[arg(long)]
    synchronous: bool,

    /// How long after a completed segment the unfinished one is stored [config: receive.partial_every]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    partial_every: Option<Duration>,

    /// The server's system identifier: needed once when the repository knows the cluster by another
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// Go on where the slot begins although WAL is missing before
    #[arg(long)]
    accept_gap: bool,

    /// Answer a server that asks for an md5 password [config: receive.allow_md5]
    #[arg(long)]
    allow_md5: bool,

    /// Create the slot and do nothing else
    #[arg(long, group = "instead")]
    create_slot_only: bool,

    /// Drop the slot and do nothing else
    #[arg(long, group = "instead")]
    drop_slot: bool,

    /// Show how the receiver on this host is, and how far its slot is behind
    #[arg(long, group = "instead")]
    status: bool,

    /// How the status looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    /// A service says what it does.
    fn log_level(&self) -> tracing::Level {
        if self.status { tracing::Level::WARN } else { tracing::Level::INFO }
    }
}

pub fn run(args: Args, config: &Config) -> Result<ExitCode> {
    let config = args.over(config);
    let request = Request {
        connection: args.connection.request(),
        system_id: args.system_id,
        accept_gap: args.accept_gap,
        manager: service_manager(),
    };
    let slot = &config.receive.slot;
    if args.create_slot_only {
        let created = wal_receive::create_slot(&config, &request)?;
        return print(&format!("slot {slot} {}", if created { "is created" } else { "was there already" }));
    }
    if args.drop_slot {
        let dropped = wal_receive::drop_slot(&config, &request)?;
        return print(&format!("slot {slot} {}", if dropped { "is dropped" } else { "was not there" }));
    }
    if args.status {
        let report = wal_receive::status(&config, &request)?;
        return match args.output {
            Output::Text => print(&report),
            Output::Json => print(&report.json()?),
        };
    }
    wal_receive::run(&config, &request).map(|()| ExitCode::SUCCESS)
}

impl Args {
    /// Flags win over the configuration.
    fn over(&self, config: &Config) -> Config {
        let mut config = config.clone();
        let receive = &mut config.receive;
        receive.slot = self.slot.clone().unwrap_or_else(|| receive.slot.clone());
        receive.synchronous |= self.synchronous;
        receive.allow_md5 |= self.allow_md5;
        receive.partial_every = self.partial_every.unwrap_or(receive.partial_every);
        config.spool = self.spool.clone().or(config.spool);
        config
    }
}

/// sd_notify(3), sd_watchdog_enabled(3).
fn service_manager() -> ServiceManager {
    let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse().ok());
    ServiceManager {
        socket: std::env::var_os("NOTIFY_SOCKET"),
        watchdog: watchdog.map(Duration::from_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["wal-receive", "--status", "--drop-slot"]).is_err());
    }
}
