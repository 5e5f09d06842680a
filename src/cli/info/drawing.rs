//! Where one can go back to, drawn for all paths of an incarnation on one scale of time, and in figures.

use jiff::Timestamp;

use super::text::{Look, length, range};
use super::track::{Cell, Glyphs, Scale, Stretch, Track, draw};
use crate::cli::present::{Style, moment};
use crate::ops::info::summary::{Incarnation, PathSummary, WindowSummary};

/// Columns that a line has at least, however narrow the terminal.
const LEAST: usize = 20;
/// Beyond this a line says no more.
const MOST: usize = 120;

/// The lines, their scale and legend, and a table of the windows.
pub fn windows(incarnation: &Incarnation, look: Look) -> String {
    let tracks: Vec<Track> = incarnation.paths.iter().map(|path| track(incarnation, path)).collect();
    let names: Vec<String> =
        incarnation.paths.iter().map(|path| format!("  timeline {}  ", path.timeline)).collect();
    let margin = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let columns = look.style.columns().saturating_sub(margin).clamp(LEAST, MOST);
    let Some(scale) = Scale::over(&tracks, columns) else {
        let why = if incarnation.backups.is_empty() {
            "there is no backup"
        } else {
            "no backup has the WAL that it needs"
        };
        return format!("  {}", look.style.bad(format!("nowhere: {why}")));
    };
    let mut text = String::new();
    for ((name, track), path) in names.iter().zip(&tracks).zip(&incarnation.paths) {
        // A timeline of which nothing is archived goes nowhere that its parent does not.
        if !path.windows.is_empty() {
            text.push_str(format!("{name:<margin$}{}", line(track, &scale, look)).trim_end());
            text.push('\n');
        }
    }
    text.push_str(&format!("{:margin$}{}\n", "", look.style.dim(axis(&scale))));
    text.push_str(&format!("{:margin$}{}\n\n", "", legend(&tracks, look)));
    text.push_str(&figures(incarnation, look));
    text
}

fn track(incarnation: &Incarnation, path: &PathSummary) -> Track {
    let stretch = |window: &WindowSummary| Stretch {
        from: window.from_time,
        to: end(path, window),
        cut: window.missing.is_some() && !window.expired,
    };
    let backups = path.backups.iter().filter_map(|label| incarnation.backup(label));
    let forks = path.ancestors.iter().skip(1).map(|ancestor| ancestor.timeline).chain([path.timeline]);
    let fork_time =
        |timeline| incarnation.timelines.iter().find(|known| known.timeline == timeline)?.fork?.time;
    Track {
        windows: path.windows.iter().map(stretch).collect(),
        backups: backups.map(|backup| backup.stop_time).collect(),
        forks: forks.filter_map(fork_time).collect(),
        newest: path.windows.last().filter(|last| last.missing.is_some()).and(path.newest_time),
    }
}

/// The last transaction's time, or the begin if none is known: a window is never shorter than nothing.
fn end(_path: &PathSummary, window: &WindowSummary) -> Timestamp {
    window.to_time.unwrap_or(window.from_time).max(window.from_time)
}

fn line(track: &Track, scale: &Scale, look: Look) -> String {
    // Colours change where the kind of cell does.
    let cells = draw(track, scale);
    let runs = cells.chunk_by(|a, b| a == b);
    let paint = |run: &[Cell]| {
        let text: String = run.iter().map(|cell| cell.glyph(look.glyphs)).collect();
        match run.first() {
            Some(Cell::Window | Cell::End) => look.style.good(text),
            Some(Cell::Backup | Cell::Fork) => look.style.bold(text),
            Some(Cell::Missing | Cell::Gap) => look.style.bad(text),
            Some(Cell::Nothing) | None => text,
        }
    };
    runs.map(paint).collect()
}

/// What the columns mean: the moments at the ends and, where there is room, between.
fn axis(scale: &Scale) -> String {
    let seconds = scale.to.as_second().saturating_sub(scale.from.as_second());
    let format = match seconds {
        ..600 => "%H:%M:%S",
        600..172_800 => "%m-%d %H:%M",
        _ => "%Y-%m-%d",
    };
    let label = |column: usize| scale.moment(column).strftime(format).to_string();
    let last = scale.columns.saturating_sub(1);
    let (first, end) = (label(0), label(last));
    let labels = (scale.columns / (first.len() + 8)).clamp(2, 5);
    let mut text = first;
    for place in 1..labels - 1 {
        let column = last * place / (labels - 1);
        let label = label(column);
        let begin = column.saturating_sub(label.len() / 2);
        text = format!("{text:<begin$}{label}");
    }
    let begin = scale.columns.saturating_sub(end.len());
    if text.len() < begin { format!("{text:<begin$}{end}") } else { text }
}

/// Only of what is drawn.
fn legend(tracks: &[Track], look: Look) -> String {
    let glyph = |cell: Cell| cell.glyph(look.glyphs);
    let mut words = vec![format!("{} backups", glyph(Cell::Backup))];
    words.push(format!("{} every moment can be reached", glyph(Cell::Window)));
    if tracks.iter().any(|track| !track.forks.is_empty()) {
        words.push(format!("{} new timeline", glyph(Cell::Fork)));
    }
    if tracks.iter().any(|track| track.windows.iter().any(|window| window.cut)) {
        words.push(format!("{} WAL is missing", glyph(Cell::Missing)));
    }
    look.style.dim(words.join("   "))
}

fn figures(incarnation: &Incarnation, look: Look) -> String {
    let mut table = look.style.table(&["timeline", "from", "last transaction", ">length", "LSN", "ends"]);
    for path in &incarnation.paths {
        for window in &path.windows {
            table.add_row(row(path, window, look));
        }
    }
    look.fit(table, &[4])
}

fn row(path: &PathSummary, window: &WindowSummary, look: Look) -> [String; 6] {
    let none = if look.glyphs == Glyphs::Unicode { "–" } else { "-" };
    let to = window.to_time.filter(|to| *to >= window.from_time);
    [
        path.timeline.to_string(),
        moment(window.from_time),
        to.map_or_else(|| none.to_string(), moment),
        length(window.from_time, end(path, window)),
        range(window.from_lsn, window.to_lsn, look),
        ends(window, look.style),
    ]
}

fn ends(window: &WindowSummary, style: Style) -> String {
    match window.missing {
        None => "with the archive".to_string(),
        Some(_) if window.expired => "what follows has expired".to_string(),
        Some(segment) => style.bad(format!("{segment} is missing")),
    }
}
