//! How results look on standard output: tables without borders, sizes and ages in human units, colours only
//! on a terminal and never when NO_COLOR is set; and the one envelope of all JSON results.
//!
//! Invariant: without colours nothing is lost. They only repeat what words say.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use anstyle::{AnsiColor, Effects};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};

/// The width of text that no terminal limits.
pub const WIDTH: usize = 80;

/// Whether there are colours, and how wide the place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: bool,
    /// Columns of the terminal. None: not a terminal, lines may be as long as they are.
    width: Option<usize>,
}

impl Style {
    /// As standard output and the environment want it (NO_COLOR: <https://no-color.org>).
    pub fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into());
        Self { colours: terminal && !set("NO_COLOR") && !dumb, width }
    }

    /// No colours, and lines as long as they are.
    pub const fn plain() -> Self {
        Self { colours: false, width: None }
    }

    /// Columns to draw in.
    pub fn columns(self) -> usize {
        self.width.unwrap_or(WIDTH)
    }

    pub fn good(self, text: impl Display) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    pub fn warn(self, text: impl Display) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    pub fn bad(self, text: impl Display) -> String {
        self.paint(AnsiColor::Red.on_default().effects(Effects::BOLD), text)
    }

    pub fn dim(self, text: impl Display) -> String {
        self.paint(anstyle::Style::new().effects(Effects::DIMMED), text)
    }

    pub fn bold(self, text: impl Display) -> String {
        self.paint(anstyle::Style::new().effects(Effects::BOLD), text)
    }

    fn paint(self, style: anstyle::Style, text: impl Display) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// An empty table with a header. Columns whose name begins with '>' are aligned to the right.
    pub fn table(self, columns: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        let header = |name: &&str| Cell::new(self.bold(name.trim_start_matches('>')));
        table.set_header(columns.iter().map(header).collect::<Vec<Cell>>());
        for (column, name) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        if let Some(width) = self.width.and_then(|width| u16::try_from(width).ok()) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table
    }
}

/// The table's lines without blanks at their ends, each behind `indent`.
pub fn lines(table: &Table, indent: &str) -> String {
    let lines = table.lines().map(|line| format!("{indent}{}", line.trim_end()));
    lines.collect::<Vec<String>>().join("\n")
}

/// "1.2 GiB"
pub fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// The two largest units of a span: "2 d 4 h", "3 min 10 s", "0 s".
pub fn span(span: Duration) -> String {
    const UNITS: [(&str, u64); 5] = [("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1)];
    let seconds = span.as_secs();
    let first = UNITS.iter().position(|(_, size)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, size) in UNITS.iter().skip(first).take(2) {
        if rest / size > 0 || words.is_empty() {
            words.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    words.join(" ")
}

/// "3 h 12 min ago". What lies in the future, because a clock is wrong, is told as such.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(now.duration_since(since)) {
        Ok(past) => format!("{} ago", span(past)),
        Err(_) => format!("in {}", span(since.duration_since(now).unsigned_abs())),
    }
}

/// A moment as people and `--target-time` read it, to the second: "2026-11-22 10:00:00+00".
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}

/// A result as JSON on one line. Its first members say what it is: `"format":"pgark info","version":1`.
pub fn json(result: &impl Serialize, kind: &str, version: u32) -> Result<String> {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        format: String,
        version: u32,
        #[serde(flatten)]
        result: &'a T,
    }
    let envelope = Envelope { format: format!("pgark {kind}"), version, result };
    serde_json::to_string(&envelope).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let day = 86400;
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (190, "3 min 10 s"),
            (3600, "1 h"),
            (3601, "1 h"),
            (2 * day + 4 * 3600 + 59, "2 d 4 h"),
            (400 * day, "1 y 35 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn ages_tell_the_future_as_such() {
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let now = at("2026-11-23T12:00:00Z");
        assert_eq!(age(at("2026-11-23T08:48:00Z"), now), "3 h 12 min ago");
        assert_eq!(age(now, now), "0 s ago");
        assert_eq!(age(at("2026-11-23T13:00:00Z"), now), "in 1 h");
        assert_eq!(moment(at("2026-11-23T13:00:00.5Z")), "2026-11-23 13:00:00+00");
    }

    #[test]
    fn tables_are_aligned_with_and_without_colours_and_have_no_trailing_blanks() {
        let plain = Style::plain();
        let mut table = plain.table(&["label", ">size"]);
        table.add_row(["a", "1.0 GiB"]).add_row(["longer", "7 B"]);
        assert_eq!(lines(&table, "  "), "  label      size\n  a       1.0 GiB\n  longer      7 B");
        let colours = Style { colours: true, width: None };
        let mut table = colours.table(&["label", ">size"]);
        table.add_row([colours.bad("a"), "1.0 GiB".into()]).add_row(["longer", "7 B"]);
        let painted = lines(&table, "  ");
        assert!(painted.contains("\u{1b}["), "{painted:?}");
        let bare: String = anstyle_free(&painted);
        assert_eq!(bare, "  label      size\n  a       1.0 GiB\n  longer      7 B");
    }

    /// The text without its escape sequences.
    fn anstyle_free(text: &str) -> String {
        let mut parts = text.split("\u{1b}[");
        let first = parts.next().unwrap_or_default().to_string();
        parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
    }

    #[test]
    fn json_says_first_what_it_is() {
        #[derive(Serialize)]
        struct Result {
            label: &'static str,
        }
        let json = json(&Result { label: "a" }, "info", 1).expect("json");
        assert_eq!(json, r#"{"format":"pgark info","version":1,"label":"a"}"#);
    }

    proptest! {
        #[test]
        fn longer_spans_are_never_told_as_shorter_by_a_unit(seconds in 0_u64..10_000_000_000) {
            let words = span(Duration::from_secs(seconds));
            let units: Vec<&str> = words.split(' ').skip(1).step_by(2).collect();
            prop_assert!(!units.is_empty() && units.len() <= 2, "{}", words);
        }
    }
}
