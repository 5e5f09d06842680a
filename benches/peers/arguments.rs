//! What the benchmarks are told, and whether the machine has what they need.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Parser;

use crate::harness::command;

/// Measures pgark beside its peers and prints a table for each kind of work
#[derive(Parser)]
#[command(name = "peers", bin_name = "cargo bench --bench peers --")]
pub struct Arguments {
    /// The rows to measure; all of them unless named
    rows: Vec<String>,

    /// How often each contender runs; rows of a few milliseconds run four times as often
    #[arg(long, env = "PGARK_BENCH_ROUNDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Size of the cluster that is backed up: 15 MB each, as pgbench's scale
    #[arg(long, env = "PGARK_BENCH_SCALE", default_value = "150")]
    pub scale: u32,

    /// WAL segments that are pushed, fetched and replayed
    #[arg(long, env = "PGARK_BENCH_SEGMENTS", default_value = "64", value_parser = clap::value_parser!(u32).range(4..))]
    pub segments: u32,

    /// The order of the runs: the same seed gives the same order
    #[arg(long, default_value_t = seed())]
    pub seed: u64,

    /// Also write the tables into this file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    pub fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| wanted == row)
    }
}

pub fn parse(names: &[&str]) -> Arguments {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.rows.iter().find(|row| !names.contains(&row.as_str())) {
        eprintln!("error: there is no row {unknown}; the rows are {}", names.join(", "));
        std::process::exit(2);
    }
    arguments
}

/// A comparison without the peers would be none.
pub fn insist_on_peers() {
    let packages = [("pgbackrest", "pgbackrest"), ("zstd", "zstd"), ("dd", "coreutils"), ("tar", "tar")];
    let is_missing = |program: &str| {
        let found = command("/bin/sh").args(["-c", &format!("command -v {program}")]).output();
        !found.expect("start sh").status.success()
    };
    let missing = packages.into_iter().filter(|(program, _)| is_missing(program));
    let missing: Vec<&str> = missing.map(|(_, package)| package).collect();
    if !missing.is_empty() {
        eprintln!(
            "error: peers are missing; `make bench` installs them, or: apt-get install {}",
            missing.join(" ")
        );
        std::process::exit(2);
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    now.as_secs()
}
