//! What was measured: for each kind of work a point per size, and the tables of them.

use std::fmt::Write;
use std::time::Duration;

use crate::measure::Sample;

/// One run at one size.
#[derive(Clone, Debug)]
pub struct Point {
    pub size: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// Bytes; None for what ran within this program.
    pub peak: Option<u64>,
}

/// One kind of work.
#[derive(Clone, Debug)]
pub struct Series {
    pub work: &'static str,
    pub points: Vec<Point>,
}

/// All that was measured over the same sizes.
#[derive(Clone, Debug)]
pub struct Figure {
    pub title: &'static str,
    /// What the sizes count.
    pub unit: &'static str,
    pub series: Vec<Series>,
}

impl Figure {
    pub fn new(title: &'static str, unit: &'static str) -> Self {
        Self { title, unit, series: Vec::new() }
    }

    pub fn add(&mut self, work: &'static str, size: u32, sample: &Sample) {
        let point = Point { size: size.into(), wall: sample.wall, cpu: sample.cpu, peak: sample.peak };
        eprintln!(
            "{} {}, {work}: {:.2} s, CPU {:.2} s, {:.1} MiB",
            size,
            self.unit,
            point.wall.as_secs_f64(),
            point.cpu.as_secs_f64(),
            mib(point.peak.unwrap_or(0))
        );
        match self.series.iter_mut().find(|series| series.work == work) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series { work, points: vec![point] }),
        }
    }

    pub fn sizes(&self) -> Vec<u64> {
        let sizes = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.size));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort();
        sizes.dedup();
        sizes
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        let sizes = self.sizes();
        let heads: Vec<String> = sizes.iter().map(|size| grouped(*size)).collect();
        self.table(&mut text, &heads, "wall time (CPU time), s", |series, size| {
            let time = |time: Duration| three_digits(time.as_secs_f64());
            series.at(size).map(|point| format!("{} ({})", time(point.wall), time(point.cpu)))
        });
        self.table(&mut text, &heads, "peak memory, MiB", |series, size| {
            series.at(size).and_then(|point| point.peak).map(|peak| format!("{:.1}", mib(peak)))
        });
        text
    }

    fn table(
        &self,
        text: &mut String,
        heads: &[String],
        what: &str,
        cell: impl Fn(&Series, u64) -> Option<String>,
    ) {
        let grows = if what.starts_with("wall") { Series::time_exponent } else { Series::peak_exponent };
        writeln!(text, "| {what} | {} | exponent |", heads.join(" | ")).expect("to a string");
        writeln!(text, "|:--|{}--:|", "--:|".repeat(heads.len())).expect("to a string");
        for series in self.series.iter().filter(|series| series.points.iter().any(|p| p.peak.is_some())) {
            let cells: Vec<String> =
                self.sizes().iter().map(|size| cell(series, *size).unwrap_or("–".into())).collect();
            let exponent = grows(series).map_or("–".into(), |exponent| format!("{exponent:.2}"));
            writeln!(text, "| {} | {} | {exponent} |", series.work, cells.join(" | ")).expect("to a string");
        }
        text.push('\n');
    }
}

impl Series {
    fn at(&self, size: u64) -> Option<&Point> {
        self.points.iter().find(|point| point.size == size)
    }

    /// How CPU time grows between the two largest sizes: with this power of the size.
    fn time_exponent(&self) -> Option<f64> {
        self.exponent(|point| Some(point.cpu.as_secs_f64()))
    }

    fn peak_exponent(&self) -> Option<f64> {
        self.exponent(|point| point.peak.map(|peak| peak as f64))
    }

    fn exponent(&self, value: impl Fn(&Point) -> Option<f64>) -> Option<f64> {
        let [.., before, last] = self.points.as_slice() else { return None };
        let ratio = last.size as f64 / before.size as f64;
        Some((value(last)? / value(before)?).ln() / ratio.ln())
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// "1 000 000", with spaces that do not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = groups.map(|group| str::from_utf8(group).expect("digits")).collect();
    groups.join("\u{a0}")
}

fn three_digits(number: f64) -> String {
    let digits = if number >= 99.5 {
        0
    } else if number >= 9.95 {
        1
    } else {
        2
    };
    format!("{number:.digits$}")
}
