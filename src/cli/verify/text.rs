//! The result of `pgark verify` for people: what was read, what is wrong, what that costs. Short when all is well.

use std::fmt::Display;

use jiff::Timestamp;

use crate::cli::present::{self, Style, bytes, lines};
use crate::ops::restore::window::Window;
use crate::ops::verify::Scope;
use crate::ops::verify::cost::{BackupCost, State};
use crate::ops::verify::report::{HoleReport, Report, Round, System, Verdict};

/// Entries of a list that the text names. JSON has more.
const NAMED: usize = 20;
/// Files of one backup that the text names.
const FILES: usize = 10;

pub fn text(report: &Report, style: Style, now: Timestamp) -> String {
    let mut text = Text { style, lines: Vec::new() };
    for system in &report.systems {
        text.system(report, system, now);
    }
    text.lines.join("\n")
}

struct Text {
    style: Style,
    lines: Vec<String>,
}

impl Text {
    fn line(&mut self, line: impl Display) {
        self.lines.push(line.to_string());
    }

    fn system(&mut self, report: &Report, system: &System, now: Timestamp) {
        let head = self.style.bold(format!("{}, system identifier {}", report.cluster, system.system_id));
        self.line(format!("{head}: {}", self.verdict(system)));
        self.line(format!("  {}", read(report, system)));
        if let Some(round) = &system.round {
            self.line(format!("  {}", self.round(round, now)));
        }
        self.damage(system);
        self.holes(&system.holes.first, system.holes.count);
        self.cost(system);
        self.notes(system);
    }

    fn verdict(&self, system: &System) -> String {
        let unread = system.unread.count;
        match system.verdict {
            Verdict::Sound => self.style.good("sound"),
            Verdict::Incomplete => {
                self.style.warn(format!("{unread} objects could not be read; the rest is sound"))
            }
            Verdict::Damaged if unread > 0 => {
                self.style.bad(format!("DAMAGED, and {unread} objects could not be read"))
            }
            Verdict::Damaged => self.style.bad("DAMAGED"),
        }
    }

    fn round(&self, round: &Round, now: Timestamp) -> String {
        let began = present::age(round.started, now);
        match &round.reached {
            None if round.complete => {
                format!("the round that began {began} is complete: everything was verified")
            }
            None => format!("the round that began {began} has not come far"),
            Some(reached) => {
                format!("the round that began {began} has come to {reached}; the next portion goes on there")
            }
        }
    }

    fn list<T>(&mut self, head: String, first: &[T], count: u64, show: impl Fn(&T) -> String) {
        if count == 0 {
            return;
        }
        self.line(format!("  {head}"));
        first.iter().take(NAMED).for_each(|item| self.line(format!("    {}", show(item))));
        self.rest(count, first.len().min(NAMED));
    }

    /// Nothing is left out in silence.
    fn rest(&mut self, count: u64, shown: usize) {
        let more = count.saturating_sub(shown as u64);
        if more > 0 {
            self.line(format!("    and {more} more; --output json names up to 1000"));
        }
    }

    fn damage(&mut self, system: &System) {
        let damaged = &system.damaged;
        let head = self.style.bad(format!("damaged objects: {}", damaged.count));
        self.list(head, &damaged.first, damaged.count, |object| {
            let places = if object.places > 1 {
                format!(" ({} places, the first:)", object.places)
            } else {
                String::new()
            };
            format!("{}{places}\n      {}", object.key, object.what)
        });
        let unread = &system.unread;
        let head = self.style.warn(format!("objects that could not be read: {}", unread.count));
        self.list(head, &unread.first, unread.count, |object| {
            format!("{}\n      {}", object.key, object.what)
        });
    }

    fn holes(&mut self, holes: &[HoleReport], count: u64) {
        let (retention, wrong): (Vec<&HoleReport>, Vec<&HoleReport>) =
            holes.iter().partition(|hole| hole.retention);
        let unnamed = count.saturating_sub(holes.len() as u64);
        let head = self.style.bad("the WAL is not continuous; missing are");
        self.list(head, &wrong, wrong.len() as u64 + unnamed, |hole| hole_text(hole));
        for hole in retention {
            let what = "not kept, as retention leaves it behind a backup that is kept for itself";
            self.line(self.style.dim(format!("  {}: {what}", segments(hole))));
        }
    }

    fn cost(&mut self, system: &System) {
        let lost: Vec<&BackupCost> = system.lost().collect();
        if lost.is_empty() && system.verdict != Verdict::Damaged {
            return;
        }
        self.line("  what that costs");
        if system.more_damaged_segments {
            self.line("    more than told here: of the damaged segments, 100000 are accounted for");
        }
        if lost.is_empty() {
            self.line(format!(
                "    no backup: {} can be restored",
                count(system.backups.len() as u64, "backup")
            ));
        }
        for backup in lost.iter().take(NAMED) {
            self.backup(backup);
        }
        self.rest(lost.len() as u64, lost.len().min(NAMED));
        let good = system.backups.len().saturating_sub(lost.len());
        if !lost.is_empty() && good > 0 {
            self.line(format!("    {} can be restored", count(good as u64, "other backup")));
        }
        if let Some(windows) = &system.windows {
            self.windows(&windows.before, &windows.after);
        }
    }

    fn backup(&mut self, backup: &BackupCost) {
        let verdict = match backup.state {
            State::Lost => self.style.bad("does not restore"),
            State::Unknown => self.style.warn("could not be looked at"),
            State::Restores => self.style.good("restores"),
        };
        self.line(format!("    backup {} {verdict}: {}", backup.label, backup.reasons.join("; ")));
        let files = &backup.files;
        for file in files.first.iter().take(FILES) {
            self.line(format!("      {file}"));
        }
        let more = files.count.saturating_sub(files.first.len().min(FILES) as u64);
        if more > 0 {
            self.line(format!("      and {more} more files; --output json names up to 100"));
        }
    }

    fn windows(&mut self, before: &[Window], after: &[Window]) {
        if before == after && before.is_empty() {
            return;
        }
        if before == after {
            self.line("    no moment: one can go back to all that was possible before");
            return;
        }
        self.line("  one could go back to");
        self.window_table(before);
        self.line("  and now can to");
        self.window_table(after);
    }

    fn window_table(&mut self, windows: &[Window]) {
        if windows.is_empty() {
            self.line(format!("    {}", self.style.bad("nothing")));
            return;
        }
        let mut table = self.style.table(&[">timeline", "from", "to", "LSN", "backup"]);
        for window in windows {
            let to = window.to_time.map_or_else(|| "no later transaction".to_string(), moment);
            table.add_row([
                window.timeline.to_string(),
                moment(window.from_time),
                to,
                format!("{} to {}", window.from_lsn, window.to_lsn),
                window.backup.to_string(),
            ]);
        }
        self.line(lines(&table, "    "));
    }

    fn notes(&mut self, system: &System) {
        let from_server = &system.damaged_by_server;
        let head = self.style.warn(format!(
            "WAL that the server had damaged already, stored as it was: {}",
            count(from_server.count, "segment")
        ));
        self.list(head, &from_server.first, from_server.count, |object| {
            format!("{}: {}", object.key, object.what)
        });
        let foreign = &system.foreign_objects;
        let head = format!("files that are none of a repository's: {}", foreign.count);
        self.list(head, &foreign.first, foreign.count, String::clone);
        if let Some(packs) = system.unreferenced_packs {
            if packs.packs > 0 {
                let size = bytes(packs.bytes);
                self.line(format!(
                    "  {} ({size}) of runs that ended early: the next backup or `pgark expire` removes them",
                    count(packs.packs, "pack")
                ));
            }
            if packs.leased > 0 {
                self.line(format!("  {} of a backup that is under way", count(packs.leased, "pack")));
            }
        }
        if system.deleted_meanwhile > 0 {
            self.line(format!("  {} deleted meanwhile", count(system.deleted_meanwhile, "object")));
        }
        if !system.recorded {
            self.line(self.style.warn("  this result could not be recorded in the repository"));
        }
    }
}

fn read(report: &Report, system: &System) -> String {
    let read = &system.read;
    let what = match &report.scope {
        Scope::Everything => "everything".to_string(),
        Scope::Backup(label) => format!("backup {label} with the WAL that it needs"),
        Scope::Sample(_) => "a portion".to_string(),
    };
    let deep = if report.deep { ", decompressed and compared with the maps" } else { "" };
    let took = std::time::Duration::try_from(report.ended.duration_since(report.started)).unwrap_or_default();
    format!(
        "read {what}{deep}: {} in {} (of {}, {}, {}, {}) in {}",
        bytes(read.bytes),
        count(read.objects, "object"),
        count(read.backups, "backup"),
        count(read.packs, "pack"),
        count(read.segments, "segment"),
        if read.histories == 1 { "1 history".to_string() } else { format!("{} histories", read.histories) },
        present::span(took)
    )
}

fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

fn segments(hole: &HoleReport) -> String {
    if hole.segments == 1 {
        return hole.first.to_string();
    }
    format!("{} to {} ({} segments)", hole.first, hole.last, hole.segments)
}

fn hole_text(hole: &HoleReport) -> String {
    let recorded = hole.recorded.as_ref().map_or(String::new(), |story| format!(": {story}"));
    format!("{}{recorded}", segments(hole))
}

fn moment(time: crate::pg::time::Timestamp) -> String {
    Timestamp::from_microsecond(time.as_unix()).map_or_else(|_| time.to_string(), present::moment)
}
