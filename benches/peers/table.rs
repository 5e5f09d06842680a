//! Samples as a table in Markdown, which is as readable on a terminal.

use std::time::Duration;

use crate::measure::Sample;
use crate::rows::Row;

/// Medians, with the smallest and largest time behind them.
pub fn render(row: &Row<'_>, samples: &[Vec<Sample>]) -> String {
    let names: Vec<&str> = row.contenders.iter().map(|contender| contender.name.as_str()).collect();
    let unit = Unit::of(samples);
    let sequence = samples.iter().flatten().any(|sample| sample.calls.len() > 1);
    let ours = samples.first().map(|samples| median(walls(samples)));
    let mut lines = vec![head(&unit, sequence)];
    for (name, samples) in names.iter().zip(samples) {
        lines.push(line(name, samples, &unit, sequence, ours));
    }
    let notes: String = row.notes.iter().map(|note| format!("\n{note}\n")).collect();
    format!("### {}\n{notes}\n{}", row.title, aligned(&lines))
}

fn head(unit: &Unit, sequence: bool) -> Vec<String> {
    let unit = unit.name;
    let mut head = vec![String::new(), format!("wall {unit}"), "(min–max)".into(), "pgark takes".into()];
    if sequence {
        head.extend(["first call ms".into(), "later calls ms".into()]);
    }
    head.extend([format!("CPU {unit}"), "peak MiB".into(), "stored MiB".into()]);
    head
}

fn line(name: &str, samples: &[Sample], unit: &Unit, sequence: bool, ours: Option<Duration>) -> Vec<String> {
    let walls = walls(samples);
    let (least, most) = (walls[0], walls[walls.len() - 1]);
    let wall = median(walls);
    let ratio = ours.map_or(String::new(), |ours| format!("{:.2}", ours.as_secs_f64() / wall.as_secs_f64()));
    let mut line = vec![name.to_owned(), unit.show(wall)];
    line.extend([format!("({}–{})", unit.show(least), unit.show(most)), ratio]);
    if sequence {
        let first = sorted(samples.iter().filter_map(|sample| sample.calls.first().copied()));
        let later = sorted(samples.iter().flat_map(|sample| sample.calls.iter().skip(1).copied()));
        line.extend(
            [first, later].map(|calls| if calls.is_empty() { "–".into() } else { MS.show(median(calls)) }),
        );
    }
    line.push(unit.show(median(sorted(samples.iter().map(|sample| sample.cpu)))));
    line.push(mebibytes(sorted(samples.iter().filter_map(|sample| sample.peak))));
    line.push(mebibytes(sorted(samples.iter().filter_map(|sample| sample.stored))));
    line
}

struct Unit {
    name: &'static str,
    in_a_second: f64,
}

const MS: Unit = Unit { name: "ms", in_a_second: 1000.0 };
const SECONDS: Unit = Unit { name: "s", in_a_second: 1.0 };

impl Unit {
    fn of(samples: &[Vec<Sample>]) -> Self {
        let longest = samples.iter().flatten().map(|sample| sample.wall).max();
        if longest.is_some_and(|longest| longest >= Duration::from_secs(1)) { SECONDS } else { MS }
    }

    /// Three digits that mean something.
    fn show(&self, time: Duration) -> String {
        let value = time.as_secs_f64() * self.in_a_second;
        let decimals = if value >= 99.5 {
            0
        } else if value >= 9.95 {
            1
        } else {
            2
        };
        format!("{value:.decimals$}")
    }
}

fn walls(samples: &[Sample]) -> Vec<Duration> {
    sorted(samples.iter().map(|sample| sample.wall))
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values
}

/// The middle one, the smaller of two.
fn median<T: Copy>(sorted: Vec<T>) -> T {
    sorted[(sorted.len() - 1) / 2]
}

fn mebibytes(sorted: Vec<u64>) -> String {
    if sorted.is_empty() {
        "–".into()
    } else {
        format!("{:.1}", median(sorted) as f64 / f64::from(1 << 20))
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut shown: Vec<String> = lines.iter().map(|line| row(line, &widths)).collect();
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!("|:{}", "-".repeat(width + 1)),
        _ => format!("|{}:", "-".repeat(width + 1)),
    });
    shown.insert(1, rule.collect::<String>() + "|");
    shown.join("\n") + "\n"
}

fn row(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
        0 => format!("| {cell:<width$} "),
        _ => format!("| {cell:>width$} "),
    });
    cells.collect::<String>() + "|"
}
