//! What `pgark info` prints for people: where one can go back to first, then backups, WAL, and what is wrong.

use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use jiff::{SignedDuration, Timestamp};

use super::drawing;
use super::track::Glyphs;
use crate::cli::present::{Style, age, bytes, counted, lines, span};
use crate::ops::info::summary::*;
use crate::pg::lsn::Lsn;

/// How it looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub style: Style,
    pub glyphs: Glyphs,
    /// Every backup, not only the newest and those that stand out.
    pub all: bool,
}

/// Blanks between two columns.
const GAP: usize = 2;

/// Backups that are listed in any case.
const NEWEST: usize = 20;

impl Look {
    pub fn dash(self) -> &'static str {
        if self.glyphs == Glyphs::Unicode { "–" } else { "-" }
    }

    fn dot(self) -> &'static str {
        if self.glyphs == Glyphs::Unicode { "·" } else { "-" }
    }

    /// The table's lines. On a terminal that is too narrow for it, the `spare` columns are left out, first things
    /// first; what is still too long is for the terminal to break: a cell that is broken can't be read or copied.
    pub fn fit(self, mut table: Table, spare: &[usize]) -> String {
        table.set_content_arrangement(ContentArrangement::Disabled);
        let widths = table.column_max_content_widths();
        let mut wide: usize = widths.iter().map(|width| usize::from(*width) + GAP).sum();
        for column in spare {
            if self.style.width().is_none_or(|width| wide <= width) {
                break;
            }
            wide -= widths.get(*column).map_or(0, |width| usize::from(*width) + GAP);
            if let Some(column) = table.column_mut(*column) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
        lines(&table, "  ")
    }

    /// A section: its title, and what is in it.
    fn section(self, title: &str, content: &str) -> String {
        format!("\n{}\n{content}\n", self.style.bold(title))
    }
}

pub fn summary(summary: &Summary, look: Look) -> String {
    let mut text = String::new();
    for cluster in &summary.clusters {
        for incarnation in &cluster.incarnations {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&incarnation_text(cluster, incarnation, summary, look));
        }
        if !cluster.unreadable.is_empty() {
            text.push_str(&look.section("Can't be read", &unreadable(&cluster.unreadable, look)));
        }
    }
    text.trim_end().to_string()
}

fn incarnation_text(
    cluster: &ClusterSummary,
    incarnation: &Incarnation,
    summary: &Summary,
    look: Look,
) -> String {
    let now = summary.time;
    let mut text = head(cluster, incarnation, summary, look);
    let windows = drawing::windows(incarnation, look);
    text.push_str(&look.section("Where one can go back to", &windows));
    if !incarnation.backups.is_empty() || !incarnation.running.is_empty() {
        text.push_str(&look.section("Backups", &backups(incarnation, now, look)));
    }
    if !incarnation.timelines.is_empty() {
        text.push_str(&look.section("WAL", &wal(incarnation, now, look)));
    }
    if incarnation.holes.iter().any(|hole| !hole.expired) {
        text.push_str(&look.section("Missing WAL", &holes(incarnation, look)));
    }
    if !incarnation.unreadable.is_empty() {
        text.push_str(&look.section("Can't be read", &unreadable(&incarnation.unreadable, look)));
    }
    text
}

fn head(cluster: &ClusterSummary, incarnation: &Incarnation, summary: &Summary, look: Look) -> String {
    let dot = look.dot();
    let stored = &incarnation.stored;
    let unused = match stored.unreferenced_packs_bytes {
        Some(0) | None => String::new(),
        Some(unused) => format!(", of which {} belong to no backup", bytes(unused)),
    };
    format!(
        "{} {dot} PostgreSQL {} {dot} system identifier {}\n{} in {}: {} of WAL, {} of backups{unused}\n",
        look.style.bold(format!("Cluster {}", cluster.name)),
        incarnation.postgres_major,
        incarnation.system_id,
        bytes(stored.total_bytes),
        summary.repository.location,
        bytes(stored.wal_bytes),
        bytes(stored.packs_bytes.saturating_add(stored.backups_bytes)),
    )
}

fn backups(incarnation: &Incarnation, now: Timestamp, look: Look) -> String {
    let columns = ["label", ">ended", ">took", ">cluster", ">stored", ">alone", "timeline", "LSN", "notes"];
    let mut table = look.style.table(&columns);
    let (shown, hidden) = shown(incarnation, look);
    for backup in &shown {
        table.add_row([
            backup.label.to_string(),
            age(backup.stop_time, now),
            took(backup.duration_seconds),
            bytes(backup.raw_bytes),
            bytes(backup.stored_bytes),
            bytes(backup.alone_bytes),
            backup.stop_timeline.to_string(),
            range(backup.start_lsn, backup.stop_lsn, look),
            notes(backup, now, look),
        ]);
    }
    let mut text = if shown.is_empty() { String::new() } else { look.fit(table, &[7, 6, 2, 4]) };
    if hidden > 0 {
        text.push_str(&look.style.dim(format!("\n  and {hidden} older ones: --all lists them")));
    }
    for running in &incarnation.running {
        let line = format!(
            "  {} is being taken on {}, since {}",
            running.label,
            running.host,
            age(running.started, now)
        );
        text.push_str(&format!("{}{line}", if text.is_empty() { "" } else { "\n" }));
    }
    text
}

/// The newest, and those that stand out; and how many are left out.
fn shown(incarnation: &Incarnation, look: Look) -> (Vec<&BackupSummary>, usize) {
    let first_new = incarnation.backups.len().saturating_sub(NEWEST);
    let stands_out =
        |backup: &BackupSummary| !backup.pins.is_empty() || !backup.is_whole() || backup.damaged_pages > 0;
    let shown =
        |(place, backup): &(usize, &BackupSummary)| look.all || *place >= first_new || stands_out(backup);
    let shown: Vec<&BackupSummary> =
        incarnation.backups.iter().enumerate().filter(shown).map(|(_, backup)| backup).collect();
    let hidden = incarnation.backups.len().saturating_sub(shown.len());
    (shown, hidden)
}

pub fn took(seconds: i64) -> String {
    span(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

pub fn range(from: Lsn, to: Lsn, look: Look) -> String {
    format!("{from} {} {to}", look.dash())
}

/// What is special about a backup, the worst first.
fn notes(backup: &BackupSummary, now: Timestamp, look: Look) -> String {
    let mut notes = faults(backup, look);
    notes.extend(backup.pins.iter().map(|pin| pin_note(pin, now)).next());
    if backup.from_standby {
        notes.push("from a standby".to_string());
    }
    if backup.warnings > 0 {
        notes.push(counted(backup.warnings, "warning"));
    }
    notes.join(", ")
}

/// Why nothing can be restored from a backup whose own timeline's history, or that of all that follow, is missing.
const NO_PATH: &str = "on no timeline whose history is known";

/// What is wrong with a backup.
pub fn faults(backup: &BackupSummary, look: Look) -> Vec<String> {
    let mut faults = Vec::new();
    if backup.missing_packs > 0 {
        faults.push(look.style.bad(format!("{} missing", counted(backup.missing_packs, "pack"))));
    }
    if !backup.on_known_path {
        faults.push(look.style.bad(NO_PATH));
    }
    if let Some(segment) = backup.missing_wal {
        faults.push(look.style.bad(format!("its WAL {segment} is missing")));
    }
    if backup.damaged_pages > 0 {
        faults.push(look.style.bad(counted(backup.damaged_pages, "damaged page")));
    }
    faults
}

pub fn pin_note(pin: &PinSummary, now: Timestamp) -> String {
    let note = pin.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    match pin.until {
        None => format!("pinned{note}"),
        Some(until) => {
            let left = Duration::try_from(until.duration_since(now)).map(span);
            format!("pinned for {}{note}", left.unwrap_or_default())
        }
    }
}

fn wal(incarnation: &Incarnation, now: Timestamp, look: Look) -> String {
    let columns = [
        "timeline",
        "first segment",
        "last segment",
        ">segments",
        ">stored",
        ">raw",
        ">raw a day",
        ">newest",
        "notes",
    ];
    let mut table = look.style.table(&columns);
    for timeline in &incarnation.timelines {
        let name = |segment: Option<crate::pg::names::SegmentName>| {
            segment.map_or_else(|| look.dash().to_string(), |segment| segment.to_string())
        };
        table.add_row([
            timeline.timeline.to_string(),
            name(timeline.first_segment),
            name(timeline.last_segment),
            timeline.segments.to_string(),
            bytes(timeline.stored_bytes),
            bytes(timeline.raw_bytes),
            bytes(timeline.raw_bytes_per_day),
            timeline.newest_time.map_or_else(|| look.dash().to_string(), |newest| age(newest, now)),
            timeline_notes(timeline, look),
        ]);
    }
    look.fit(table, &[1, 5, 4])
}

fn timeline_notes(timeline: &TimelineSummary, look: Look) -> String {
    let mut notes = Vec::new();
    if !timeline.history_known {
        notes.push(look.style.bad("its history is missing: nothing on it can be restored"));
    }
    if let Some(fork) = timeline.fork {
        notes.push(format!("left {} at {}", fork.parent, fork.lsn));
    }
    if let Some(streamed) = &timeline.streamed {
        notes.push(format!("streamed to {}", streamed.end_lsn));
        notes.extend(streamed.refused.as_ref().map(|why| look.style.warn(why)));
    }
    notes.join(", ")
}

fn holes(incarnation: &Incarnation, look: Look) -> String {
    let mut text = Vec::new();
    for hole in incarnation.holes.iter().filter(|hole| !hole.expired) {
        let names = match hole.segments {
            1 => hole.first_segment.to_string(),
            _ => format!("{} to {}", hole.first_segment, hole.last_segment),
        };
        let what = format!("{} of timeline {}", counted(hole.segments, "segment"), hole.timeline);
        let range = range(hole.from_lsn, hole.to_lsn, look);
        text.push(format!("  {}: {names}, LSN {range}", look.style.bad(what)));
        text.extend(hole.stories.iter().map(|story| format!("    {story}")));
    }
    text.join("\n")
}

fn unreadable(unreadable: &[Unreadable], look: Look) -> String {
    let line = |unreadable: &Unreadable| {
        let kind = unreadable.what.words();
        let name = unreadable.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("  {}: {}", look.style.bad(format!("{kind}{name}")), unreadable.error)
    };
    unreadable.iter().map(line).collect::<Vec<String>>().join("\n")
}

/// From one moment to another.
pub fn length(from: Timestamp, to: Timestamp) -> String {
    let length: SignedDuration = to.duration_since(from);
    took(length.as_secs())
}
