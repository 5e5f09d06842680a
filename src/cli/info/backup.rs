//! What `pgark info BACKUP` prints for people.

use super::text::{Look, faults, pin_note, range, took};
use crate::cli::present::{age, bytes, counted, lines, moment};
use crate::ops::info::detail::{BackupDetail, Reach};

/// Things that are listed one by one, at most: a header may name many.
const LISTED: usize = 20;

pub fn text(detail: &BackupDetail, look: Look) -> String {
    let mut sections = vec![head(detail, look)];
    let mut section = |title: &str, content: String| {
        if !content.is_empty() {
            sections.push(format!("{}\n{content}", look.style.bold(title)));
        }
    };
    section("Where it leads to", reach(detail, look));
    section("Damaged pages", damaged(detail, look));
    section("Warnings", bullets(detail.warnings.iter().map(String::as_str)));
    section("Tablespaces", tablespaces(detail, look));
    section("Databases", databases(detail, look));
    section("Settings", settings(detail, look));
    sections.join("\n\n")
}

fn head(detail: &BackupDetail, look: Look) -> String {
    let backup = &detail.backup;
    let title = look.style.bold(format!("Backup {}", backup.label));
    let mut rows: Vec<(&str, String)> = vec![
        ("cluster", format!("{}, system identifier {}", detail.cluster, detail.system_id)),
        ("server", detail.server.version.clone()),
        ("taken on", place(detail)),
        ("started", moment(backup.start_time)),
        ("ended", format!("{}, {}", moment(backup.stop_time), age(backup.stop_time, detail.time))),
        ("took", duration(detail)),
        ("LSN", range(backup.start_lsn, backup.stop_lsn, look)),
        ("timeline", timelines(detail)),
        ("consistent", format!("at {}", backup.consistent_lsn)),
        ("cluster size", format!("{} in {}", bytes(backup.raw_bytes), counted(detail.files, "file"))),
        ("stored", format!("{} by this backup", bytes(backup.stored_bytes))),
        ("alone", format!("{} that no other backup refers to", bytes(backup.alone_bytes))),
        ("packs", packs(detail)),
        (
            "predecessor",
            backup
                .predecessor
                .as_ref()
                .map_or_else(|| "none: it wrote everything".into(), ToString::to_string),
        ),
        ("checksums", if detail.data_checksums { "on" } else { "off" }.to_string()),
    ];
    rows.extend(backup.pins.iter().map(|pin| ("pin", pin_note(pin, detail.time))));
    rows.extend(faults(backup, look).into_iter().map(|fault| ("fault", fault)));
    let mut text = title;
    for (name, value) in rows {
        text.push_str(&format!("\n  {}{value}", look.style.dim(format!("{name:<14}"))));
    }
    text
}

fn place(detail: &BackupDetail) -> String {
    let role = if detail.backup.from_standby { "a standby" } else { "the primary" };
    format!("{}, {role}, by pgark {}", detail.backup.host, detail.pgark)
}

fn duration(detail: &BackupDetail) -> String {
    let seconds = |seconds: u64| took(i64::try_from(seconds).unwrap_or(i64::MAX));
    format!(
        "{}: {} to copy, {} waiting for WAL",
        took(detail.backup.duration_seconds),
        seconds(detail.totals.copy_seconds),
        seconds(detail.totals.wal_wait_seconds)
    )
}

fn timelines(detail: &BackupDetail) -> String {
    let (start, stop) = (detail.backup.start_timeline, detail.backup.stop_timeline);
    if start == stop { stop.to_string() } else { format!("{start}, then {stop}") }
}

fn packs(detail: &BackupDetail) -> String {
    let packs = &detail.packs;
    let own = format!("{} of its own, {}", packs.own, bytes(packs.own_bytes));
    match packs.inherited {
        0 => own,
        inherited => format!("{own}; {inherited} of earlier backups, {}", bytes(packs.inherited_bytes)),
    }
}

fn reach(detail: &BackupDetail, look: Look) -> String {
    let line = |reach: &Reach| {
        let to = reach.to_time.map_or_else(String::new, |time| format!("{}, ", moment(time)));
        let opened = if reach.opened { "; the window begins with it" } else { "" };
        format!("  timeline {}: every moment up to {to}LSN {}{opened}", reach.timeline, reach.to_lsn)
    };
    let lines: Vec<String> = detail.windows.iter().map(line).collect();
    if lines.is_empty() {
        return format!("  {}", look.style.bad("nowhere: it can't be restored"));
    }
    lines.join("\n")
}

fn damaged(detail: &BackupDetail, look: Look) -> String {
    let pages = &detail.damaged_pages;
    if pages.count == 0 {
        return String::new();
    }
    let mut table = look.style.table(&["file", ">block", "relation"]);
    for page in pages.first.iter().take(LISTED) {
        table.add_row([
            page.path.as_path().display().to_string(),
            page.block.to_string(),
            page.relation.clone().unwrap_or_default(),
        ]);
    }
    let shown = pages.first.len().min(LISTED) as u64;
    let more = pages.count.saturating_sub(shown);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    format!("{}{more}", lines(&table, "  "))
}

fn bullets<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.map(|item| format!("  {item}")).collect::<Vec<String>>().join("\n")
}

fn tablespaces(detail: &BackupDetail, look: Look) -> String {
    if detail.tablespaces.is_empty() {
        return String::new();
    }
    let mut table = look.style.table(&["name", ">oid", "location"]);
    for space in &detail.tablespaces {
        let location = space.location.as_path().display().to_string();
        table.add_row([space.name.clone(), space.oid.to_string(), location]);
    }
    lines(&table, "  ")
}

fn databases(detail: &BackupDetail, look: Look) -> String {
    if detail.locale.databases.is_empty() {
        return String::new();
    }
    let mut table =
        look.style.table(&["name", ">oid", "encoding", "collate", "ctype", "provider", "collation version"]);
    for database in &detail.locale.databases {
        table.add_row([
            database.name.clone(),
            database.oid.to_string(),
            database.encoding.clone(),
            database.collate.clone(),
            database.ctype.clone(),
            database.provider.clone(),
            database.collation_version.clone().unwrap_or_default(),
        ]);
    }
    let libraries = [("libc", &detail.locale.libc), ("ICU", &detail.locale.icu)];
    let known = libraries.iter().filter_map(|(name, version)| Some(format!("{name} {}", version.as_ref()?)));
    let known: Vec<String> = known.collect();
    let known = if known.is_empty() { String::new() } else { format!("\n  {}", known.join(", ")) };
    format!("{}{known}", lines(&table, "  "))
}

fn settings(detail: &BackupDetail, look: Look) -> String {
    let width = detail.settings.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, value): (&String, &String)| {
        format!("  {}  {value}", look.style.dim(format!("{name:<width$}"))).trim_end().to_string()
    };
    detail.settings.iter().map(line).collect::<Vec<String>>().join("\n")
}
