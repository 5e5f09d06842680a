//! How results look on standard output: tables without borders, sizes and ages in human units, colours only
//! on a terminal and never when NO_COLOR is set; and the one envelope of all JSON results.
//!
//! Invariant: without colours nothing is lost. They only repeat what words say.

use std::fmt::Display;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Effects};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{Error, Result};
pub use crate::words::{age, bytes, counted, moment, span};

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
        let width = terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten();
        let width = width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { colours: terminal && !set("NO_COLOR") && !dumb, width }
    }

    /// No colours, and lines as long as they are.
    pub const fn plain() -> Self {
        Self { colours: false, width: None }
    }

    /// Columns of the terminal. None: it is none, and lines may be as long as they are.
    pub fn width(self) -> Option<usize> {
        self.width
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
}
