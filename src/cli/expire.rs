//! The flags of `pgark expire`, and what it prints: the plan as a table, then what was done.

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::present::{self, Style, bytes, counted, lines, moment};
use super::{Output, print};
use crate::config::{Config, Expire, parse_span};
use crate::error::Result;
use crate::ops::expire::report::{DoneLine, Incarnation, Report};
use crate::ops::expire::{self, Request};
use crate::pg::lsn::SystemId;

/// The version of the JSON shape in docs/schema/expire.v1.json.
const VERSION: u32 = 1;

#[derive(Args)]
pub struct ExpireArgs {
    /// Only show the plan; delete nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Which incarnation of the cluster; all of them unless told otherwise
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    rules: Rules,
}

/// What to keep: whatever any rule keeps.
#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Rules: what any of them keeps is kept")]
pub struct Rules {
    /// Keep every moment of this span reachable, such as "14 days" [config: expire.recovery_window]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    recovery_window: Option<Duration>,

    /// Keep the last N good backups, and all WAL from them on [config: expire.keep_last]
    #[arg(long, value_name = "N")]
    keep_last: Option<NonZeroU32>,

    /// Keep the last good backup of each of the N most recent days that have one [config: expire.keep_daily]
    #[arg(long, value_name = "N")]
    keep_daily: Option<NonZeroU32>,

    /// The same for weeks, which begin on Monday (UTC) [config: expire.keep_weekly]
    #[arg(long, value_name = "N")]
    keep_weekly: Option<NonZeroU32>,

    /// The same for months [config: expire.keep_monthly]
    #[arg(long, value_name = "N")]
    keep_monthly: Option<NonZeroU32>,

    /// The same for years [config: expire.keep_yearly]
    #[arg(long, value_name = "N")]
    keep_yearly: Option<NonZeroU32>,
}

impl Rules {
    fn policy(self) -> Expire {
        Expire {
            keep_last: self.keep_last,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            keep_yearly: self.keep_yearly,
            recovery_window: self.recovery_window,
        }
    }
}

impl ExpireArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let request =
            Request { policy: self.rules.policy(), system_id: self.system_id, dry_run: self.dry_run };
        let text = matches!(self.output, Output::Text);
        let outcome = expire::run(config, &request, Timestamp::now(), |report| {
            if text { print(&plan(report)).map(drop) } else { Ok(()) }
        })?;
        match self.output {
            Output::Json => drop(print(&present::json(&outcome.report, "expire", VERSION)?)?),
            Output::Text => drop(print(&done(&outcome.report))?),
        }
        outcome.failed.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// The plan, as people read it.
pub fn plan(report: &Report) -> String {
    let style = Style::of_stdout();
    let whose = match report.clock {
        "host" => "",
        "store" => ", when the newest WAL was stored",
        _ => ", when the newest transaction or backup ended",
    };
    let mut text =
        vec![format!("cluster {}, judged as of {}{whose}", style.bold(&report.cluster), moment(report.now))];
    for incarnation in &report.incarnations {
        text.push(incarnation_text(incarnation, style));
    }
    text.join("\n")
}

fn incarnation_text(incarnation: &Incarnation, style: Style) -> String {
    let mut text = vec![format!("\nsystem identifier {}", incarnation.system_id)];
    if let Some(error) = &incarnation.error {
        text.push(format!("  {}", style.bad(error)));
        return text.join("\n");
    }
    if incarnation.backups.is_empty() {
        text.push("  no backups".to_string());
    } else {
        text.push(backups(incarnation, style));
    }
    for window in &incarnation.windows {
        let (timeline, backup) = (window.timeline, &window.backup);
        let reach = format!(
            "every moment since {} of timeline {timeline} stays reachable, from backup {backup}",
            moment(window.since)
        );
        text.push(match window.since > window.wanted {
            true => format!(
                "  {}",
                style.warn(format!(
                    "{reach}; the window begins at {}: no backup is that old",
                    moment(window.wanted)
                ))
            ),
            false => format!("  {reach}"),
        });
    }
    for wal in &incarnation.wal {
        text.push(match wal.first == wal.last {
            true => format!("  WAL that goes: {}", wal.first),
            false => format!("  WAL that goes: {} to {}", wal.first, wal.last),
        });
    }
    let frees = incarnation.frees;
    text.push(match (frees.backups, frees.wal_objects) {
        (0, 0) => "  nothing goes".to_string(),
        (backups, wal) => format!(
            "  frees {}: {} in {}, {} in {} of WAL",
            style.bold(bytes(frees.bytes())),
            bytes(frees.backup_bytes),
            counted(backups, "backup"),
            bytes(frees.wal_bytes),
            counted(wal, "object")
        ),
    });
    text.extend(incarnation.notes.iter().map(|note| format!("  {}", style.warn(format!("note: {note}")))));
    text.join("\n")
}

fn backups(incarnation: &Incarnation, style: Style) -> String {
    let mut table = style.table(&["backup", "ended", ">timeline", "", "why"]);
    for backup in &incarnation.backups {
        let verdict = if backup.keep { style.good("keep") } else { style.warn("delete") };
        let mut why = backup.why.join("; ");
        if let Some(trouble) = backup.trouble.as_ref().filter(|_| backup.keep) {
            why = format!("{why}; {}", style.bad(format!("can't be restored: {trouble}")));
        }
        table.add_row([
            backup.label.to_string(),
            moment(backup.stop_time),
            backup.timeline.to_string(),
            verdict,
            why,
        ]);
    }
    lines(&table, "  ")
}

/// What was done.
pub fn done(report: &Report) -> String {
    if report.dry_run {
        return "\ndry run: nothing was deleted".to_string();
    }
    let style = Style::of_stdout();
    let mut text = Vec::new();
    for incarnation in &report.incarnations {
        if let Some(done) = &incarnation.done {
            text.push(format!("\nsystem identifier {}: {}", incarnation.system_id, done_text(done)));
            text.extend(
                done.postponed
                    .iter()
                    .map(|what| format!("  {}", style.warn(format!("left to the next run: {what}")))),
            );
        }
    }
    text.join("\n")
}

fn done_text(done: &DoneLine) -> String {
    if done.backups.is_empty() && done.packs + done.maps + done.wal_objects == 0 {
        return "nothing was deleted".to_string();
    }
    format!(
        "deleted {}, {} and {} of WAL: {} free",
        counted(done.backups.len() as u64, "backup"),
        counted(done.packs, "pack"),
        counted(done.wal_objects, "object"),
        bytes(done.backup_bytes.saturating_add(done.wal_bytes))
    )
}
