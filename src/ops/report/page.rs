//! The page: for each incarnation what can be reached in a sentence, the facts, the map, sizes over time, and tables.

use jiff::{SignedDuration, Timestamp};

use super::events::{self, Event};
use super::html::{Html, Table, escape};
use super::{map, sizes};
use crate::ident::Name;
use crate::ops::info::summary::*;
use crate::words::{age, bytes, counted, moment, span};

const STYLE: &str = include_str!("page.css");

/// Backups that the table has in any case.
const NEWEST: usize = 50;

/// What one incarnation's part is made of.
pub struct Part<'a> {
    pub cluster: &'a Name,
    pub incarnation: &'a Incarnation,
    pub events: &'a [Event],
}

pub fn page(summary: &Summary, parts: &[Part<'_>]) -> String {
    let clusters: Vec<String> = summary.clusters.iter().map(|cluster| cluster.name.to_string()).collect();
    let title = escape(format!("Backups of {}", clusters.join(", ")));
    let sections: String = parts.iter().map(|part| section(part, summary.time)).collect();
    let lost: Vec<&Unreadable> = summary.clusters.iter().flat_map(|cluster| &cluster.unreadable).collect();
    let lost = match lost.is_empty() {
        true => String::new(),
        false => format!("<section class=\"incarnation\">{}</section>\n", unreadable(&lost).0),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{title}</h1>\n<p class=\"dim\">As of {} (all times UTC), from {}</p></header>\n\
         <main>\n{sections}{lost}</main>\n\
         <footer>pgark {}, repository {}</footer>\n</body>\n</html>\n",
        minute(summary.time),
        escape(&summary.repository.location),
        env!("CARGO_PKG_VERSION"),
        summary.repository.id
    )
}

fn section(part: &Part<'_>, now: Timestamp) -> String {
    let incarnation = part.incarnation;
    let mut html = format!(
        "<section class=\"incarnation\">\n<h2>Cluster {}</h2>\n\
         <p class=\"dim\">PostgreSQL {}, system identifier {}</p>\n",
        escape(part.cluster),
        incarnation.postgres_major,
        incarnation.system_id
    );
    html.push_str(&verdict(incarnation).0);
    html.push_str(&facts(incarnation, now).0);
    let mut add = |title: &str, content: Option<Html>| {
        if let Some(content) = content.filter(|content| !content.is_empty()) {
            html.push_str(&format!("<h3>{title}</h3>\n{}", content.0));
        }
    };
    let all: Vec<&Unreadable> = incarnation.unreadable.iter().collect();
    add("Can't be read", (!all.is_empty()).then(|| unreadable(&all)));
    add("Where one can go back to", map::draw(incarnation).map(|map| Html(map.0 + &map::legend().0)));
    add("", windows(incarnation));
    add("Missing WAL", holes(incarnation));
    add("Stored by day", sizes::draw(incarnation, now).map(|bars| Html(bars.0 + &sizes::legend().0)));
    add("Backups", backups(incarnation, now));
    add("WAL", wal(incarnation));
    add("Checks and verifications", events::table(part.events));
    html.push_str("</section>\n");
    html.replace("<h3></h3>\n", "")
}

/// How far back, and what is wrong, in a sentence.
fn verdict(incarnation: &Incarnation) -> Html {
    let alarms = alarms(incarnation);
    let windows = || incarnation.paths.iter().flat_map(|path| &path.windows);
    let from = windows().map(|window| window.from_time).min();
    let to = windows().map(end).max();
    let reach = match from.zip(to) {
        None => "<span class=\"bad\">Nothing can be restored.</span>".to_string(),
        Some((from, to)) => {
            let cut = windows().any(|window| window.missing.is_some());
            let (from, to, but) = (minute(from), minute(to), if cut { ", with gaps" } else { "" });
            format!(
                "The cluster can be restored as it was at any moment from <b>{from}</b> to <b>{to}</b>{but}."
            )
        }
    };
    let class = if alarms.is_empty() && from.is_some() { "verdict" } else { "verdict alarm" };
    let alarms: String =
        alarms.iter().map(|alarm| format!(" <span class=\"bad\">{}</span>", escape(alarm))).collect();
    Html(format!("<p class=\"{class}\">{reach}{alarms}</p>\n"))
}

fn alarms(incarnation: &Incarnation) -> Vec<String> {
    let lost = incarnation.holes.iter().filter(|hole| !hole.expired).count();
    let lacking = incarnation.backups.iter().filter(|backup| !backup.is_whole()).count();
    let damaged = incarnation.backups.iter().filter(|backup| backup.damaged_pages > 0).count();
    let counts = [
        (lost, "WAL is missing in {}.", "place"),
        (lacking, "{} can't be restored.", "backup"),
        (damaged, "{} with damaged pages.", "backup"),
        (incarnation.unreadable.len(), "{} can't be read.", "object"),
    ];
    let counts = counts.into_iter().filter(|(count, _, _)| *count > 0);
    counts.map(|(count, text, what)| text.replace("{}", &counted(count as u64, what))).collect()
}

/// A window is never shorter than nothing.
fn end(window: &WindowSummary) -> Timestamp {
    window.to_time.unwrap_or(window.from_time).max(window.from_time)
}

fn facts(incarnation: &Incarnation, now: Timestamp) -> Html {
    let stored = &incarnation.stored;
    let newest_backup = incarnation.backups.last();
    let newest_wal = incarnation.timelines.iter().max_by_key(|timeline| timeline.newest_time);
    let rate = newest_wal.map(|timeline| format!("{} raw a day", bytes(timeline.raw_bytes_per_day)));
    let wal_age = newest_wal.and_then(|timeline| timeline.newest_time).map(|newest| age(newest, now));
    let none = || "none".to_string();
    let facts = [
        (
            "Newest backup",
            newest_backup.map_or_else(none, |backup| age(backup.stop_time, now)),
            newest_backup.map(|backup| backup.label.to_string()),
        ),
        ("Newest WAL", wal_age.unwrap_or_else(none), rate),
        ("Backups", incarnation.backups.len().to_string(), Some(pinned(incarnation))),
        (
            "Stored",
            bytes(stored.total_bytes),
            Some(format!(
                "{} of WAL, {} of backups",
                bytes(stored.wal_bytes),
                bytes(stored.packs_bytes.saturating_add(stored.backups_bytes))
            )),
        ),
    ];
    let fact = |(name, value, more): (&str, String, Option<String>)| {
        let more =
            more.filter(|more| !more.is_empty()).map(|more| format!("<small>{}</small>", escape(more)));
        format!("<div><dt>{name}</dt><dd>{}{}</dd></div>", escape(value), more.unwrap_or_default())
    };
    Html(format!("<dl class=\"facts\">{}</dl>\n", facts.map(fact).concat()))
}

fn pinned(incarnation: &Incarnation) -> String {
    match incarnation.backups.iter().filter(|backup| !backup.pins.is_empty()).count() {
        0 => String::new(),
        pinned => format!("{pinned} of them pinned"),
    }
}

fn windows(incarnation: &Incarnation) -> Option<Html> {
    let mut table = Table::new(&["timeline", "from", "last transaction", ">length", "LSN", "ends"]);
    let mut any = false;
    for path in &incarnation.paths {
        for window in &path.windows {
            any = true;
            let end = end(window);
            table.row([
                Html::text(path.timeline),
                Html::text(second(window.from_time)),
                Html::text(second(end)),
                Html::text(length(window.from_time, end)),
                Html::span("mono", format!("{} – {}", window.from_lsn, window.to_lsn)),
                ends(window),
            ]);
        }
    }
    any.then(|| table.finish())
}

fn ends(window: &WindowSummary) -> Html {
    match window.missing {
        None => Html::text("with the archive"),
        Some(_) if window.expired => Html::span("dim", "what follows has expired"),
        Some(segment) => Html::span("bad mono", format!("{segment} is missing")),
    }
}

fn holes(incarnation: &Incarnation) -> Option<Html> {
    let lost: Vec<&HoleSummary> = incarnation.holes.iter().filter(|hole| !hole.expired).collect();
    let told = lost.iter().any(|hole| !hole.stories.is_empty());
    let columns = ["timeline", ">segments", "first", "last", "LSN", "why"];
    // Without a story to tell there is no column for it.
    let mut table = Table::new(columns.get(..if told { 6 } else { 5 }).unwrap_or(&columns));
    for hole in &lost {
        table.row([
            Html::text(hole.timeline),
            Html::span("bad", hole.segments),
            Html::span("mono", hole.first_segment),
            Html::span("mono", hole.last_segment),
            Html::span("mono", format!("{} – {}", hole.from_lsn, hole.to_lsn)),
            Html::text(hole.stories.join("; ")),
        ]);
    }
    (!lost.is_empty()).then(|| table.finish())
}

fn backups(incarnation: &Incarnation, now: Timestamp) -> Option<Html> {
    let columns = ["label", "ended", ">took", ">cluster", ">stored", ">alone", ">timeline", "LSN", "notes"];
    let mut table = Table::new(&columns);
    let first_new = incarnation.backups.len().saturating_sub(NEWEST);
    let mut left_out = 0;
    for (place, backup) in incarnation.backups.iter().enumerate().rev() {
        let stands_out = !backup.pins.is_empty() || !backup.is_whole() || backup.damaged_pages > 0;
        if place < first_new && !stands_out {
            left_out += 1;
            continue;
        }
        table.row([
            Html::text(&backup.label),
            Html::text(minute(backup.stop_time)),
            Html::text(length(backup.start_time, backup.stop_time)),
            Html::text(bytes(backup.raw_bytes)),
            Html::text(bytes(backup.stored_bytes)),
            Html::text(bytes(backup.alone_bytes)),
            Html::text(backup.stop_timeline),
            Html::span("mono", format!("{} – {}", backup.start_lsn, backup.stop_lsn)),
            notes(backup, now),
        ]);
    }
    let mut html = table.finish().0;
    if left_out > 0 {
        html.push_str(&format!("<p class=\"dim\">and {left_out} older ones</p>\n"));
    }
    for running in &incarnation.running {
        let (label, host) = (escape(&running.label), escape(&running.host));
        html.push_str(&format!(
            "<p>{label} is being taken on {host}, since {}</p>\n",
            minute(running.started)
        ));
    }
    (!incarnation.backups.is_empty() || !incarnation.running.is_empty()).then_some(Html(html))
}

fn notes(backup: &BackupSummary, now: Timestamp) -> Html {
    let mut notes = Vec::new();
    if backup.missing_packs > 0 {
        notes.push(Html::span("bad", counted(backup.missing_packs, "pack") + " missing"));
    }
    if !backup.on_known_path {
        notes.push(Html::span("bad", "on no timeline whose history is known"));
    }
    if let Some(segment) = backup.missing_wal {
        notes.push(Html::span("bad", format!("its WAL {segment} is missing")));
    }
    if backup.damaged_pages > 0 {
        notes.push(Html::span("bad", counted(backup.damaged_pages, "damaged page")));
    }
    notes.extend(backup.pins.iter().map(|pin| pin_note(pin, now)));
    if backup.from_standby {
        notes.push(Html::text("from a standby"));
    }
    if backup.warnings > 0 {
        notes.push(Html::span("warn", counted(backup.warnings, "warning")));
    }
    Html::join(notes, ", ")
}

fn pin_note(pin: &PinSummary, now: Timestamp) -> Html {
    let until = pin.until.filter(|until| *until > now).map(|until| format!(" until {}", minute(until)));
    let note = pin.note.as_ref().map(|note| format!(": {note}"));
    Html::text(format!("pinned{}{}", until.unwrap_or_default(), note.unwrap_or_default()))
}

fn wal(incarnation: &Incarnation) -> Option<Html> {
    let columns = [
        ">timeline",
        "first segment",
        "last segment",
        ">segments",
        ">stored",
        ">raw",
        ">raw a day",
        "newest",
        "notes",
    ];
    let mut table = Table::new(&columns);
    for timeline in &incarnation.timelines {
        let name = |name: Option<crate::pg::names::SegmentName>| {
            name.map(|name| Html::span("mono", name)).unwrap_or_default()
        };
        table.row([
            Html::text(timeline.timeline),
            name(timeline.first_segment),
            name(timeline.last_segment),
            Html::text(timeline.segments),
            Html::text(bytes(timeline.stored_bytes)),
            Html::text(bytes(timeline.raw_bytes)),
            Html::text(bytes(timeline.raw_bytes_per_day)),
            Html::text(timeline.newest_time.map(minute).unwrap_or_default()),
            timeline_notes(timeline),
        ]);
    }
    (!incarnation.timelines.is_empty()).then(|| table.finish())
}

fn timeline_notes(timeline: &TimelineSummary) -> Html {
    let mut notes = Vec::new();
    if !timeline.history_known {
        notes.push(Html::span("bad", "its history is missing: nothing on it can be restored"));
    }
    if let Some(fork) = timeline.fork {
        notes.push(Html::text(format!("left {} at {}", fork.parent, fork.lsn)));
    }
    if let Some(streamed) = &timeline.streamed {
        notes.push(Html::text(format!("streamed to {}", streamed.end_lsn)));
        notes.extend(streamed.refused.as_ref().map(|why| Html::span("warn", why)));
    }
    Html::join(notes, ", ")
}

fn unreadable(all: &[&Unreadable]) -> Html {
    let mut table = Table::new(&["what", "error"]);
    for unreadable in all {
        let name = unreadable.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        table.row([
            Html::span("bad", format!("{}{name}", unreadable.what.words())),
            Html::text(&unreadable.error),
        ]);
    }
    table.finish()
}

fn length(from: Timestamp, to: Timestamp) -> String {
    let length: SignedDuration = to.duration_since(from);
    span(std::time::Duration::try_from(length).unwrap_or_default())
}

/// To the minute, without the zone: the page says it once.
pub fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

fn second(time: Timestamp) -> String {
    moment(time).trim_end_matches("+00").to_string()
}
