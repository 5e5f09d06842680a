//! Start-up: what every call pays before it does anything.

use std::time::Duration;

use crate::Bench;
use crate::harness::program_path;
use crate::measure::{Call, Sample};
use crate::rows::Row;

/// Calls in one run, of which the median counts: a single one takes too little time.
const CALLS: u32 = 20;

pub fn row(bench: &Bench) -> Row<'_> {
    let version = |program: &str| Call::new(program_path(program)).args(["--version"]);
    let measured = |call: Call| move || repeated(bench, &call);
    Row::new("Start-up of the program")
        .note(format!(
            "Each with `--version`; the median of {CALLS} calls. The peak of /bin/true is the least that is measured here."
        ))
        .contender("pgark wal-push", measured(version("wal-push")))
        .contender("pgark wal-fetch", measured(version("wal-fetch")))
        .contender("pgBackRest", measured(Call::new("/usr/bin/pgbackrest").args(["version"])))
        .contender("zstd", measured(Call::new("/usr/bin/zstd").args(["--version"])))
        .contender("/bin/true", measured(Call::new("/bin/true")))
}

fn repeated(bench: &Bench, call: &Call) -> Sample {
    let mut session = bench.launcher.start();
    for _ in 0..CALLS {
        session.call(call);
    }
    let sample = session.finish();
    let mut calls = sample.calls;
    calls.sort();
    let wall = calls.get(calls.len() / 2).copied().unwrap_or(Duration::ZERO);
    Sample { wall, calls: Vec::new(), cpu: sample.cpu / CALLS, ..sample }
}
