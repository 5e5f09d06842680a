//! Getting WAL back: one segment, and all one after the other, as PostgreSQL calls restore_command.
//!
//! The data directory looks like a server's in recovery, and a process stands in for the server: background
//! fetching works as in a real recovery, without any replay to overlap with.

use std::fs;
use std::path::Path;
use std::process::Child;

use crate::Bench;
use crate::archives::{Archive, FETCHING};
use crate::harness::command;
use crate::measure::Sample;
use crate::rows::Row;
use crate::wal_scene::Place;

/// Where PostgreSQL has every segment put (xlogarchive.c, RestoreArchivedFile).
const TARGET: &str = "pg_wal/RECOVERYXLOG";

pub fn one(bench: &Bench) -> Row<'_> {
    let row = Row::new("Fetch one segment")
        .note(
            "Nothing is prefetched yet; CPU and memory with the background fetching that the call sets off.",
        )
        .repeat(4);
    with_all(bench, row, |archive| fetch(bench, archive, std::slice::from_ref(&bench.wal().ordinary)))
}

pub fn all(bench: &Bench) -> Row<'_> {
    let count = bench.arguments.segments as usize;
    let row = Row::new(format!("Fetch {count} segments one after the other"))
        .note("From the first call to the end of the last, with no replay between them to overlap with.");
    with_all(bench, row, move |archive| fetch(bench, archive, &bench.wal().segments[..count]))
}

fn with_all<'a>(bench: &'a Bench, row: Row<'a>, run: impl Fn(&Archive) -> Sample + Copy + 'a) -> Row<'a> {
    let contenders = FETCHING.iter().zip(bench.archives());
    contenders.fold(row, |row, (name, archive)| row.contender(*name, move || run(archive)))
}

fn fetch(bench: &Bench, archive: &Archive, names: &[String]) -> Sample {
    let place = bench.wal().place();
    let server = StandIn::start(&place);
    archive.forget();
    let mut session = bench.launcher.start();
    for name in names {
        session.call(&archive.fetch(&place.directory, name, TARGET));
        take(&place.directory, name);
    }
    server.end_recovery();
    let sample = session.finish();
    for name in names {
        assert_same(&place.directory.join("pg_wal").join(name), &bench.wal().wal().join(name));
    }
    sample
}

/// As KeepFileRestoredFromArchive does.
fn take(directory: &Path, name: &str) {
    fs::rename(directory.join(TARGET), directory.join("pg_wal").join(name)).expect("it was delivered");
}

fn assert_same(delivered: &Path, archived: &Path) {
    let read =
        |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    assert!(read(delivered) == read(archived), "{} is not what was archived", delivered.display());
}

/// A process that works in the data directory and stands in its postmaster.pid.
struct StandIn<'a> {
    process: Child,
    directory: &'a Path,
}

impl<'a> StandIn<'a> {
    fn start(place: &'a Place<'_>) -> Self {
        let directory = &place.directory;
        let process = command("/bin/sleep").arg("600").current_dir(directory).spawn().expect("start sleep");
        place.write("postmaster.pid", &format!("{}\n{}\n1\n", process.id(), directory.display()));
        place.write("recovery.signal", "");
        Self { process, directory }
    }

    /// A prefetcher may end.
    fn end_recovery(&self) {
        fs::remove_file(self.directory.join("recovery.signal")).expect("it is there");
    }
}

impl Drop for StandIn<'_> {
    fn drop(&mut self) {
        self.process.kill().expect("kill sleep");
        self.process.wait().expect("wait for sleep");
    }
}
