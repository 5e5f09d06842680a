//! Archiving: one segment, and a backlog of all of them, as PostgreSQL calls archive_command.

use crate::Bench;
use crate::archives::{Archive, Files};
use crate::measure::{Sample, size_of};
use crate::pgbackrest::Compression;
use crate::rows::Row;
use crate::wal_scene::Place;

const DURABLE: &str = "pgark and pgBackRest sync file and directories before they answer. dd syncs the file alone; cp and zstd sync nothing.";

/// An ordinary segment of pgbench's.
pub fn one(bench: &Bench) -> Row<'_> {
    single(bench, "Push one segment", &bench.wal().ordinary)
}

pub fn images(bench: &Bench) -> Row<'_> {
    single(bench, "Push one segment full of page images", &bench.wal().images)
}

fn single<'a>(bench: &'a Bench, title: &str, name: &'a str) -> Row<'a> {
    let run = |make: fn(&Place<'_>) -> Archive| move || push_one(bench, name, make);
    Row::new(title)
        .note(format!("The segment before it was pushed already, so that directories exist. {DURABLE}"))
        .repeat(4)
        .contender("pgark", run(|_| Archive::pgark("")))
        .contender("pgBackRest zst-3", run(|place| Archive::pgbackrest(place, Compression::Zst3, false)))
        .contender("pgBackRest lz4", run(|place| Archive::pgbackrest(place, Compression::Lz4, false)))
        .contender("zstd -1, no sync", run(|_| Archive::files(Files::Zstd)))
        .contender("dd, file synced", run(|_| Archive::files(Files::DdSync)))
        .contender("cp, no sync", run(|_| Archive::files(Files::Cp)))
}

fn push_one(bench: &Bench, name: &str, make: fn(&Place<'_>) -> Archive) -> Sample {
    let place = bench.wal().place();
    let archive = make(&place);
    let before = bench.wal().before(name);
    place.add_ready(before);
    archive.push(&place.directory, before).run();
    place.mark_done(before);
    place.add_ready(name);
    let stored = size_of(&archive.root());
    let sample = bench.launcher.measure(&archive.push(&place.directory, name));
    Sample { stored: Some(size_of(&archive.root()) - stored), ..sample }
}

/// All segments wait; the archiver asks for one after the other.
pub fn backlog(bench: &Bench) -> Row<'_> {
    let run = |make: fn(&Place<'_>) -> Archive| move || push_all(bench, make);
    Row::new(format!("Push a backlog of {} segments", bench.arguments.segments))
        .note(format!(
            "From the first call to the end of the last; CPU and memory with what is left behind. {DURABLE}"
        ))
        .contender("pgark", run(|_| Archive::pgark("")))
        .contender("pgark, one by one", run(|_| Archive::pgark("[push]\nbatch = 0")))
        .contender(
            "pgBackRest zst-3, async",
            run(|place| Archive::pgbackrest(place, Compression::Zst3, true)),
        )
        .contender("pgBackRest lz4, async", run(|place| Archive::pgbackrest(place, Compression::Lz4, true)))
        .contender(
            "pgBackRest zst-3, one by one",
            run(|place| Archive::pgbackrest(place, Compression::Zst3, false)),
        )
        .contender("dd, file synced", run(|_| Archive::files(Files::DdSync)))
        .contender("cp, no sync", run(|_| Archive::files(Files::Cp)))
}

fn push_all(bench: &Bench, make: fn(&Place<'_>) -> Archive) -> Sample {
    let place = bench.wal().place();
    let archive = make(&place);
    let names = bench.wal().segments.iter().take(bench.arguments.segments as usize);
    names.clone().for_each(|name| place.add_ready(name));
    let stored = size_of(&archive.root());
    let mut session = bench.launcher.start();
    for name in names {
        session.call(&archive.push(&place.directory, name));
        place.mark_done(name);
    }
    Sample { stored: Some(size_of(&archive.root()) - stored), ..session.finish() }
}
