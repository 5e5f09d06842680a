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
use measure::Launcher;
use series::Figure;

fn main() {
    // Before anything else: this process shall stay small. See launcher.rs.
    if std::env::args().nth(1).as_deref() == Some(launcher::FLAG) {
        return launcher::serve();
    }
    let arguments = Arguments::read();
    let launcher = Launcher::new();
    let mut figures: Vec<Figure> = Vec::new();
    for part in [Part::Files, Part::Holes, Part::Segments] {
        if arguments.wants(part) {
            let figure = match part {
                Part::Files => files::small(&launcher, &arguments),
                Part::Holes => files::holes(&launcher, &arguments),
                Part::Segments => segments::measure(&launcher, &arguments),
            };
            println!("{}", figure.markdown());
            figures.push(figure);
        }
    }
    let markdown: Vec<String> = figures.iter().map(Figure::markdown).collect();
    arguments.write(&markdown.join("\n"), &plot::svg(&figures));
}
