//! Recovery: from the start of a restored server until it is promoted, all WAL from the archive.
//!
//! The same base backup and the same segments for all. What differs is restore_command.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::archives::{Archive, FETCHING};
use crate::harness::{Cluster, PATIENCE, Scratch, Stop, free_port, pg_command};
use crate::measure::{Call, Sample, Session};
use crate::rows::Row;

/// How often to look whether the server is promoted.
const LOOK: Duration = Duration::from_millis(2);

pub fn row(bench: &Bench) -> Row<'_> {
    let row = Row::new(format!("Recovery of {} segments to promotion", bench.wal().segments.len()))
        .note("From the start of the server until it accepts connections as a primary. CPU includes the server's own.");
    let contenders = FETCHING.iter().zip(bench.archives());
    contenders.fold(row, |row, (name, archive)| row.contender(*name, move || recover(bench, archive)))
}

fn recover(bench: &Bench, archive: &Archive) -> Sample {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    Call::new("/bin/cp").args(["-a"]).arg(bench.wal().base()).arg(&data).run();
    archive.forget();
    configure(&scratch, &data, archive);
    let server = Call::new(pg_command("postgres").get_program()).arg("-D").arg(&data);
    let mut session = bench.launcher.start();
    let began = Instant::now();
    session.begin(&server);
    wait_until_promoted(&data, &session);
    let wall = began.elapsed();
    let promoted = Cluster::adopt(&data);
    let rows = promoted.psql("select count(*) from pgbench_history");
    assert_eq!(rows, bench.wal().rows, "recovery ended early:\n{}", session.messages());
    promoted.stop(Stop::Fast);
    session.end();
    let sample = session.finish();
    Sample { wall, calls: Vec::new(), peak: None, ..sample }
}

fn configure(scratch: &Scratch, data: &Path, archive: &Archive) {
    let restore_command = archive.fetch(data, "%f", "%p").shell();
    let sockets = scratch.make_dir("s");
    let settings = [
        ("port", free_port().to_string()),
        ("unix_socket_directories", sockets.display().to_string()),
        ("restore_command", restore_command),
        ("archive_mode", "off".into()),
        ("hot_standby", "off".into()),
        ("fsync", "on".into()),
        ("shared_buffers", "512MB".into()),
        ("logging_collector", "off".into()),
    ];
    let lines: String = settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
    let kept = fs::read_to_string(data.join("postgresql.conf")).expect("read the configuration");
    scratch.write("data/postgresql.conf", kept + &lines);
    scratch.write("data/recovery.signal", "");
}

/// With hot_standby off the status in postmaster.pid becomes "ready" when recovery has ended and not before
/// (postmaster.c, PM_RUN).
fn wait_until_promoted(data: &Path, session: &Session) {
    let deadline = Instant::now() + PATIENCE * 5;
    while !is_ready(data) {
        assert!(Instant::now() < deadline, "it was not promoted:\n{}", session.messages());
        std::thread::sleep(LOOK);
    }
}

fn is_ready(data: &Path) -> bool {
    // Not there yet while the server starts.
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
}
