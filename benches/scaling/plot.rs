//! The figures as one SVG: a row for each, time on the left and memory on the right, both axes logarithmic.
//! Lines differ in their marks, not in colours, so that print shows them.

use std::fmt::Write;

use crate::series::{Figure, Point, Series, grouped, mib};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
/// Around the axes: room for their labels, and on the right for the names of lines.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;
/// Names of lines are at least so far apart.
const LINE: f64 = 13.0;

/// Where values lie on a logarithmic axis, from one power of ten to another.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    /// For all of these values, none of them 0.
    fn of(values: &[f64], from: f64, to: f64) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor() as i32;
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).log10().ceil() as i32;
        Self { low, high: high.max(low + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }
}

pub fn svg(figures: &[Figure]) -> String {
    let (width, height) = (2.0 * WIDTH, HEIGHT * figures.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (row, figure) in figures.iter().enumerate() {
        let top = row as f64 * HEIGHT;
        let time = |point: &Point| point.cpu.as_secs_f64().max(0.001);
        panel(&mut svg, figure, (0.0, top), "CPU time, s", time);
        let memory = |point: &Point| mib(point.peak);
        panel(&mut svg, figure, (WIDTH, top), "peak memory, MiB", memory);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, figure: &Figure, at: (f64, f64), what: &str, value: impl Fn(&Point) -> f64) {
    let points = |series: &Series| -> Vec<(f64, f64)> {
        series.points.iter().map(|point| (point.size as f64, value(point))).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        figure.series.iter().map(|series| (series.work.as_str(), points(series))).collect();
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|(_, points)| points.clone()).collect();
    if all.is_empty() {
        return;
    }
    let (sizes, values): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
    let x = Axis::of(&sizes, at.0 + LEFT, at.0 + WIDTH - RIGHT);
    let y = Axis::of(&values, at.1 + HEIGHT - BOTTOM, at.1 + TOP);
    let title = format!("{}: {what}", figure.part.title());
    text(svg, (x.from, at.1 + 22.0), "start", &format!("<tspan font-weight=\"bold\">{title}</tspan>"));
    grid(svg, &x, &y, figure.part.unit());
    let ends: Vec<f64> =
        lines.iter().map(|(_, points)| points.last().map_or(y.from, |last| y.place(last.1))).collect();
    for (number, ((name, points), label)) in lines.iter().zip(apart(&ends)).enumerate() {
        let places: Vec<(f64, f64)> =
            points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
        line(svg, &places, number);
        mark(svg, (x.to + 12.0, label), number);
        text(svg, (x.to + 20.0, label + 4.0), "start", name);
    }
}

/// The same places, moved down as far as needed to be legible, or up from the lowest.
fn apart(places: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut moved = places.to_vec();
    for pair in order.windows(2) {
        moved[pair[1]] = moved[pair[1]].max(moved[pair[0]] + LINE);
    }
    let over = order.last().map_or(0.0, |last| (moved[*last] - places[*last]) / 2.0);
    moved.iter().map(|place| place - over).collect()
}

fn grid(svg: &mut String, x: &Axis, y: &Axis, unit: &str) {
    for tick in x.ticks() {
        let place = x.place(tick);
        stroke(svg, &[(place, y.from), (place, y.to)], "#ddd");
        text(svg, (place, y.from + 16.0), "middle", &grouped(tick as u64));
    }
    for tick in y.ticks() {
        let place = y.place(tick);
        stroke(svg, &[(x.from, place), (x.to, place)], "#ddd");
        text(svg, (x.from - 6.0, place + 4.0), "end", &tick.to_string());
    }
    stroke(svg, &[(x.from, y.to), (x.from, y.from), (x.to, y.from)], "black");
    text(svg, ((x.from + x.to) / 2.0, y.from + 32.0), "middle", unit);
}

fn line(svg: &mut String, places: &[(f64, f64)], number: usize) {
    stroke(svg, places, "#444");
    places.iter().for_each(|place| mark(svg, *place, number));
}

fn stroke(svg: &mut String, places: &[(f64, f64)], colour: &str) {
    let places: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>", places.join(" "))
        .expect("to a string");
}

/// A mark of its own for each line.
fn mark(svg: &mut String, (x, y): (f64, f64), number: usize) {
    let fill = if number.is_multiple_of(2) { "black" } else { "white" };
    let shape = match number / 2 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\"", x - 3.0, y - 3.0),
        2 => format!("<path d=\"M{:.1} {:.1}l4 7h-8z\"", x, y - 4.0),
        _ => format!("<path d=\"M{:.1} {:.1}l4 -7h-8z\"", x, y + 4.0),
    };
    writeln!(svg, "{shape} fill=\"{fill}\" stroke=\"black\"/>").expect("to a string");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, what: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>")
        .expect("to a string");
}
