//! The flags of `pgark check`, and how its result looks: first the line that monitoring systems read, then a
//! table for people. Exit codes are those of monitoring plugins, for errors too.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command};

use super::connection::Connection;
use super::present::{self, Style, lines};
use super::{Output, print};
use crate::config::{Config, parse_duration};
use crate::error::{Kind, Result};
use crate::ops::check::finding::{Finding, Level, Limits};
use crate::ops::check::{self, AllLimits, Report, Request, one_line, plugin_line};
use crate::pg::lsn::SystemId;
use crate::pg::settings_value::{MemoryUnit, parse_memory};

/// The version of the JSON shape in docs/schema/check.v1.json.
const VERSION: u32 = 1;

const AFTER_HELP: &str = "Run it on the database host, as the server's user, to see most; from elsewhere, as a role with \
pg_monitor and the right to execute pg_switch_wal(), it sees all but the spool and pg_wal's file system. The first line of \
output, with performance data, is for the monitoring system.\n\n\
Exit codes, as monitoring plugins have them, not those of the other verbs: 0 all is well; 1 warning; 2 critical, a server \
or repository that can't be reached among them; 3 could not be told: wrong flags or configuration, or something that \
the role may not see";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct CheckArgs {
    /// Bring WAL and histories that the archive lacks out of the server's pg_wal: after a failover the segments
    /// that the dead primary did not archive are there. Runs on the database host, as the server's user
    #[arg(long)]
    heal: bool,

    /// Do not end a WAL segment on the server to see it arrive
    #[arg(long)]
    no_switch: bool,

    /// Do not keep the result in the repository for `pgark report`
    #[arg(long)]
    no_record: bool,

    /// How long to wait for the segment that was ended
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    timeout: Duration,

    /// Look at this incarnation of the cluster while the server can't be asked
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    thresholds: Thresholds,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
#[command(next_help_heading = "Thresholds: from where on a value is a warning, and critical")]
struct Thresholds {
    /// So much work may be lost with the server: archive_timeout must not be longer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rpo: Option<Duration>,

    /// The repository must have been verified, all of it, since: else it is a warning
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_verify_age: Option<Duration>,

    /// Age of the newest backup from which on it is a warning
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "26h")]
    warn_backup_age: Duration,
    /// The same, critical
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "50h")]
    crit_backup_age: Duration,

    /// Age of the newest archived segment, while the server has WAL that is not in the repository
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30m")]
    warn_wal_age: Duration,
    /// The same, critical
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2h")]
    crit_wal_age: Duration,

    /// Segments that wait to be archived
    #[arg(long, value_name = "COUNT", default_value = "16")]
    warn_backlog: u64,
    /// The same, critical
    #[arg(long, value_name = "COUNT", default_value = "256")]
    crit_backlog: u64,

    /// Free space of the file systems of the repository and of pg_wal, in percent: so little is a warning
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = clap::value_parser!(u64).range(..=100))]
    warn_free: u64,
    /// The same, critical
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = clap::value_parser!(u64).range(..=100))]
    crit_free: u64,

    /// Until the repository's file system is full at the present rate: so soon is a warning
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "72h")]
    warn_full_in: Duration,
    /// The same, critical
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "12h")]
    crit_full_in: Duration,

    /// WAL that the server keeps for a slot that nobody reads
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "4GB")]
    warn_slot_wal: u64,
    /// The same, critical
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "32GB")]
    crit_slot_wal: u64,

    /// Difference between the server's clock and ours
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    warn_clock: Duration,
    /// The same, critical
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5m")]
    crit_clock: Duration,

    /// Age of the oldest transaction that waits prepared
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h")]
    warn_prepared_age: Duration,
    /// The same, critical
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "24h")]
    crit_prepared_age: Duration,
}

fn size(text: &str) -> std::result::Result<u64, String> {
    parse_memory(text, MemoryUnit::Bytes).map_err(|error| error.to_string())
}

impl Thresholds {
    fn limits(&self) -> AllLimits {
        AllLimits {
            backup_age: Limits { warning: self.warn_backup_age, critical: self.crit_backup_age },
            wal_age: Limits { warning: self.warn_wal_age, critical: self.crit_wal_age },
            backlog: Limits { warning: self.warn_backlog, critical: self.crit_backlog },
            free: Limits { warning: self.warn_free, critical: self.crit_free },
            full_in: Limits { warning: self.warn_full_in, critical: self.crit_full_in },
            slot_wal: Limits { warning: self.warn_slot_wal, critical: self.crit_slot_wal },
            clock: Limits { warning: self.warn_clock, critical: self.crit_clock },
            prepared_age: Limits { warning: self.warn_prepared_age, critical: self.crit_prepared_age },
        }
    }
}

impl CheckArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let request = Request {
            connection: self.connection.request(),
            system_id: self.system_id,
            switch: !self.no_switch,
            timeout: self.timeout,
            heal: self.heal,
            record: !self.no_record,
            rpo: self.thresholds.rpo,
            verify_age: self.thresholds.max_verify_age,
            limits: self.thresholds.limits(),
        };
        let report = check::run(config, &request)?;
        match self.output {
            Output::Text => print(&text(&report, Style::of_stdout()))?,
            Output::Json => print(&present::json(&report, "check", VERSION)?)?,
        };
        Ok(ExitCode::from(report.level().exit_code()))
    }
}

/// Whether the command line asks for this verb, even if it can't be understood otherwise.
pub fn is_asked(pgark: Command) -> bool {
    let asked = pgark.ignore_errors(true).try_get_matches();
    asked.is_ok_and(|matches| matches.subcommand_name() == Some("check"))
}

/// Whatever kept the check from coming to an end: it could not be told.
pub fn exit_code(_: Kind) -> u8 {
    Level::Unknown.exit_code()
}

/// The line for the monitoring system.
pub fn announce(failure: &str) {
    let first = failure.lines().next().unwrap_or_default();
    let line = plugin_line(Level::Unknown, first.trim_start_matches("error: "));
    // With standard output closed there is nobody to tell; the exit code says it all the same.
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn text(report: &Report, style: Style) -> String {
    let mut table = style.table(&["", "check", "finding"]);
    for finding in report.sorted() {
        table.add_row([level(finding.level, style), finding.check.clone(), describe(finding, style)]);
    }
    let mut parts = vec![report.plugin_line()];
    for healed in &report.healed {
        parts.push(format!("healed: {}", healed.file));
    }
    parts.push(String::new());
    parts.push(lines(&table, ""));
    parts.join("\n")
}

fn level(level: Level, style: Style) -> String {
    let word = level.word().to_lowercase();
    match level {
        Level::Ok => style.good(word),
        Level::Unknown | Level::Warning => style.warn(word),
        Level::Critical => style.bad(word),
    }
}

fn describe(finding: &Finding, style: Style) -> String {
    let mut text = one_line(&finding.what);
    for (word, part) in [("why:", &finding.why), ("do: ", &finding.remedy)] {
        if let Some(part) = part {
            text.push_str(&format!("\n{} {}", style.dim(word), one_line(part)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_unknown_to_the_monitoring_system() {
        for kind in [Kind::Configuration, Kind::NotFound, Kind::Corrupt, Kind::Bug] {
            assert_eq!(exit_code(kind), 3);
        }
    }

    #[test]
    fn a_finding_is_told_with_its_reason_and_what_to_do() {
        let finding = Finding::critical("x", "a | b").because("c").remedy("d");
        assert_eq!(describe(&finding, Style::plain()), "a \u{a6} b\nwhy: c\ndo:  d");
        assert_eq!(describe(&Finding::ok("x", "fine"), Style::plain()), "fine");
    }
}
