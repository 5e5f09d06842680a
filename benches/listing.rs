//! `pgark info` on archives of growing size: time and peak memory. `cargo bench --bench listing`.
//!
//! The archives are generated (`tests/harness/generator.rs`): every object is there with a valid header and next to
//! no data. The median of five runs, with the listing in the page cache.

#[path = "../tests/harness/mod.rs"]
mod harness;

#[path = "peers/launcher.rs"]
mod launcher;
#[allow(dead_code)]
#[path = "peers/measure.rs"]
mod measure;

use std::time::Duration;

use harness::{Generator, TestRepo, program_path};
use measure::{Call, Launcher};

const RUNS: usize = 5;

/// Segments and backups.
const SIZES: [(u64, u64); 4] = [(2_000, 40), (20_000, 400), (100_000, 400), (100_000, 2_000)];

fn main() {
    if std::env::args().any(|argument| argument == launcher::FLAG) {
        return launcher::serve();
    }
    let launcher = Launcher::new();
    println!("| segments | backups | output | time | peak memory |\n|---:|---:|---|---:|---:|");
    for (segments, backups) in SIZES {
        let repo = TestRepo::init();
        Generator { segments, backups, timelines: 3, holes: 2, ..Generator::default() }.fill(repo.root());
        for output in ["text", "json"] {
            let environment = vec![("PGARK_CONFIG".to_owned(), repo.config().display().to_string())];
            let call = Call::new(program_path("pgark")).args(["info", "--output", output]).envs(environment);
            call.run();
            let mut runs: Vec<(Duration, u64)> = (0..RUNS)
                .map(|_| launcher.measure(&call))
                .map(|sample| (sample.wall, sample.peak.unwrap_or(0)))
                .collect();
            runs.sort();
            let (wall, peak) = runs[RUNS / 2];
            let (wall, peak) = (wall.as_secs_f64(), peak as f64 / f64::from(1 << 20));
            println!("| {segments} | {backups} | {output} | {wall:.2} s | {peak:.1} MiB |");
        }
    }
}
