//! What was measured: for each kind of work a point per size, and the tables of them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arguments::Part;
use crate::measure::Sample;

/// One run at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub part: Part,
    pub work: String,
    pub size: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// Bytes.
    pub peak: u64,
}

/// All points, of this run and of earlier ones.
pub struct Points {
    all: Vec<Point>,
    file: Option<File>,
}

impl Points {
    /// With those of a file of JSON lines, to which new ones are added.
    pub fn read(path: Option<&std::path::Path>) -> Self {
        let Some(path) = path else { return Self { all: Vec::new(), file: None } };
        let file = File::options().create(true).append(true).open(path).expect("open the points");
        let text = fs::read_to_string(path).expect("read the points");
        let all = text.lines().map(|line| serde_json::from_str(line).expect("a point")).collect();
        Self { all, file: Some(file) }
    }

    pub fn add(&mut self, part: Part, work: &str, size: u32, sample: &Sample) {
        let peak = sample.peak.expect("measured");
        let size = u64::from(size);
        let point = Point { part, work: work.into(), size, wall: sample.wall, cpu: sample.cpu, peak };
        let line = serde_json::to_string(&point).expect("JSON");
        eprintln!("{line}");
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").expect("write a point");
        }
        self.all.push(point);
    }

    /// A figure for each part of which something was measured.
    pub fn figures(&self) -> Vec<Figure> {
        let figures = Part::ALL.into_iter().map(|part| {
            let mut figure = Figure { part, series: Vec::new() };
            self.all.iter().filter(|point| point.part == part).for_each(|point| figure.add(point.clone()));
            figure
        });
        figures.filter(|figure| !figure.series.is_empty()).collect()
    }
}

/// One kind of work.
#[derive(Clone, Debug)]
pub struct Series {
    pub work: String,
    /// By size.
    pub points: Vec<Point>,
}

/// All that was measured over the same sizes.
#[derive(Clone, Debug)]
pub struct Figure {
    pub part: Part,
    pub series: Vec<Series>,
}

impl Figure {
    fn add(&mut self, point: Point) {
        let known = self.series.iter().position(|series| series.work == point.work);
        let place = known.unwrap_or(self.series.len());
        if known.is_none() {
            self.series.push(Series { work: point.work.clone(), points: Vec::new() });
        }
        let points = &mut self.series[place].points;
        // The latest of one size counts.
        points.retain(|other| other.size != point.size);
        points.push(point);
        points.sort_by_key(|point| point.size);
    }

    pub fn sizes(&self) -> Vec<u64> {
        let sizes = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.size));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort();
        sizes.dedup();
        sizes
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.part.title());
        let sizes = self.sizes();
        let heads: Vec<String> = sizes.iter().map(|size| grouped(*size)).collect();
        self.table(&mut text, &heads, "wall time (CPU time), s", |series, size| {
            let time = |time: Duration| three_digits(time.as_secs_f64());
            series.at(size).map(|point| format!("{} ({})", time(point.wall), time(point.cpu)))
        });
        self.table(&mut text, &heads, "peak memory, MiB", |series, size| {
            series.at(size).map(|point| format!("{:.1}", mib(point.peak)))
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
        for series in &self.series {
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
        self.exponent(|point| point.cpu.as_secs_f64())
    }

    fn peak_exponent(&self) -> Option<f64> {
        self.exponent(|point| point.peak as f64)
    }

    fn exponent(&self, value: impl Fn(&Point) -> f64) -> Option<f64> {
        let [.., before, last] = self.points.as_slice() else { return None };
        let ratio = last.size as f64 / before.size as f64;
        Some((value(last) / value(before)).ln() / ratio.ln())
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
