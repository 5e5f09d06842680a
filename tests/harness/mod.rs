//! What every test in `tests/*.rs` shares: real PostgreSQL servers, repositories, and the real programs,
//! run as an unprivileged user, cleaned up by `Drop`, and never waited for without a deadline.
//!
//! Use it with `mod harness; use harness::*;`. In a few lines:
//!
//! ```ignore
//! let repo = TestRepo::init();                                   // a repository made by the real `pgark init`
//! let primary = Cluster::builder()                               // initdb, then a running server
//!     .wal_segment_mib(1).checksums(false).set("wal_level", "logical").tablespace("fast").archive_to(&repo)
//!     .start();                                                  // .debian() keeps its configuration outside PGDATA
//! primary.psql("create table t as select 1 as a");               // panics with psql's message; try_psql does not
//! primary.pgbench_init(1);
//! let load = primary.pgbench_in_background(&["-c", "4"]);        // stopped when dropped
//! run(repo.basebackup(&primary).args(["--label", "x"])).succeeds();
//! drop(load);
//! primary.archive_everything();                                  // switches the segment, waits until it is archived
//! run(repo.wal_push(&primary.data_dir()).arg("pg_wal/x")).fails_with(2, "not a WAL file");
//! let standby = primary.standby().start();
//! standby.promote();
//! primary.stop(Stop::Fast); primary.start(); primary.kill_postmaster(); primary.crash();
//! repo.damage(&repo.only("/wal/"), Damage::FlipByte(5000));
//! let restored = repo.restore(&scratch, "at-noon", &["--target-time", &noon]);   // adopts the server, as
//! let restored = Cluster::adopt(&target);                                         // this; also adopt_stopped
//! restored.assert_content(&primary.content());                   // every row of every table
//! restored.assert_sound(); restored.assert_checksums();          // PostgreSQL's own checkers
//! ```
//!
//! Killing or failing the n-th system call: `faults.rs`; which of many n: `moments.rs`. Full, read-only and missing
//! disks: `mounts.rs`. Disks that lose their power: `lossy_disk.rs`.
//! `PGARK_TEST_BINDIR` chooses another PostgreSQL, `PGARK_TEST_KEEP` keeps the directories of a test.

// Each test binary compiles the whole harness and uses a part of it.
#![allow(dead_code, unused_imports)]

mod builder;
mod cluster;
mod faults;
mod forge;
mod generator;
mod host;
mod load;
mod lossy_disk;
mod moments;
mod mounts;
mod plant;
mod repo;
mod run;
mod schema;
mod scratch;
mod seccomp;
mod sql;
mod verify;

pub use builder::{ClusterBuilder, StandbyBuilder, free_port};
pub use cluster::{Cluster, Stop};
pub use faults::{Call, Fault, run_with_fault, run_with_fault_for};
pub use forge::{
    ForgedBackup, forge_backup, forge_header, forge_segment, forge_trailer_version, map_line, zip,
};
pub use generator::Generator;
pub use host::{command, is_root, pg_command, pg_major, server_user};
pub use load::Load;
pub use lossy_disk::{Journal, LossyDisk};
pub use moments::{Seed, moments};
pub use mounts::{ReadOnly, SmallDisk};
pub use plant::{is_sparse, planted_name};
pub use repo::{Damage, TestRepo, damage_file};
pub use run::{
    Outcome, basebackup, bootstrap_restore, pgark, program, program_path, run, std_program, wal_fetch,
    wal_push,
};
pub use schema::assert_matches_schema;
pub use scratch::{Scratch, is_running, own, processes_inside, signal};
pub use verify::{Content, assert_same, listing};

pub use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far more than it needs, so that a loaded machine does
/// not matter, and little enough to see a hang.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until `done` or panics after [`PATIENCE`] with what was waited for and what `explain` adds.
pub fn wait_for(what: &str, explain: impl Fn() -> String, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}\n{}", explain());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Checks all cases at once, each in a thread of its own, and panics with the names of those that failed.
#[track_caller]
pub fn side_by_side<T: Sync>(cases: &[T], name: impl Fn(&T) -> &str, check: impl Fn(&T) + Sync) {
    let check = &check;
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|case| {
                let thread = std::thread::Builder::new().name(name(case).to_owned());
                (case, thread.spawn_scoped(scope, move || check(case)).expect("start a thread"))
            })
            .collect();
        let failed =
            running.into_iter().filter_map(|(case, thread)| thread.join().is_err().then(|| name(case)));
        failed.collect()
    });
    assert!(failed.is_empty(), "these failed, see above: {}", failed.join(", "));
}
