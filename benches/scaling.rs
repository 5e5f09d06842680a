//! How time and memory grow: the real programs with 10^3 to 10^6 files, with 10^3 to 10^6 WAL segments, and with
//! a cluster that is all holes. `make scaling`, `cargo bench --bench scaling -- files --files 1000,10000`.
//!
//! Writes a table for each and, with `--svg`, a plot. What the columns mean is in `docs/scaling.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;

#[path = "peers/launcher.rs"]
mod launcher;
#[allow(dead_code)]
#[path = "peers/measure.rs"]
mod measure;

#[path = "scaling/arguments.rs"]
mod arguments;
#[path = "scaling/files.rs"]
mod files;
#[path = "scaling/plot.rs"]
mod plot;
#[path = "scaling/segments.rs"]
mod segments;
#[path = "scaling/series.rs"]
mod series;

use arguments::{Arguments, Part};
use measure::{Launcher, Sample};
use series::{Figure, Points};

fn main() {
    // Before anything else: this process shall stay small. See launcher.rs.
    if std::env::args().nth(1).as_deref() == Some(launcher::FLAG) {
        return launcher::serve();
    }
    let arguments = Arguments::read();
    let launcher = Launcher::new();
    let mut points = Points::read(arguments.points.as_deref());
    for part in Part::ALL.into_iter().filter(|part| arguments.wants(*part)) {
        let mut tell = |work: &str, size: u32, sample: &Sample| points.add(part, work, size, sample);
        match part {
            Part::Files => files::small(&launcher, &arguments, &mut tell),
            Part::Holes => files::holes(&launcher, &arguments, &mut tell),
            Part::Segments => segments::measure(&launcher, &arguments, &mut tell),
        }
    }
    let figures = points.figures();
    let markdown: Vec<String> = figures.iter().map(Figure::markdown).collect();
    let markdown = markdown.concat();
    print!("{markdown}");
    arguments.write(markdown.trim_end(), &plot::svg(&figures));
}

/// Hears of each run: the work, the size, and what it cost.
pub type Tell<'a> = dyn FnMut(&str, u32, &Sample) + 'a;
