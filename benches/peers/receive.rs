//! Streaming: WAL that a running server kept for a slot, as fast as a receiver takes it, until the last whole
//! segment of it is stored.
//!
//! A slot of its own keeps the WAL; each run streams from a copy of that slot, so all begin at the same place.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Bench;
use crate::harness::{Cluster, Scratch, TestRepo, pg_command, pg_major, program_path, wait_for};
use crate::measure::{Call, Sample, size_of};
use crate::rows::Row;

/// pgbench's tables.
const SCALE: u32 = 20;
/// The slot that keeps the WAL.
const KEEPER: &str = "keeper";

/// Runs a receiver until a line comes, and then ends it: the waiting shell costs nothing. Not by SIGINT, which a shell has
/// its background processes ignore.
const UNTIL_TOLD: &str = r#"line=$1; shift; "$@" & read -r _ < "$line"; kill -TERM $!; wait $! || true"#;

pub struct StreamScene {
    cluster: Cluster,
    /// The last whole segment.
    last: String,
    runs: Cell<u32>,
}

impl StreamScene {
    pub fn make(segments: u32) -> Self {
        eprintln!("making a cluster that keeps {segments} segments of WAL for a slot");
        let cluster = Cluster::builder()
            .set("shared_buffers", "512MB")
            .set("synchronous_commit", "off")
            .set("max_wal_size", "8GB")
            .start();
        cluster.pgbench_init(SCALE);
        cluster.psql(&format!("select pg_create_physical_replication_slot('{KEEPER}', true)"));
        let begin = cluster.psql("select pg_current_wal_lsn()");
        let size = cluster.psql("select setting from pg_settings where name = 'wal_segment_size'");
        let written = format!("select pg_current_wal_lsn() - '{begin}' >= {segments}::bigint * {size}");
        while cluster.psql(&written) != "t" {
            cluster.pgbench(&["-c", "8", "-j", "2", "-M", "prepared", "-T", "5"]);
        }
        let last = cluster.psql("select pg_walfile_name(pg_switch_wal())");
        Self { cluster, last, runs: Cell::new(0) }
    }

    /// A slot that begins where the keeper does.
    fn slot(&self) -> String {
        let slot = format!("run_{}", self.runs.replace(self.runs.get() + 1));
        self.cluster.psql(&format!("select pg_copy_physical_replication_slot('{KEEPER}', '{slot}')"));
        slot
    }
}

pub fn row(bench: &Bench) -> Row<'_> {
    let scene = bench.stream();
    let row = Row::new(format!("Receive {} segments through a slot", bench.arguments.segments))
        .note("From the start of the receiver until the last whole segment is stored under its name. CPU and memory are the receiver's, without the server. pgark compresses, checks and syncs what it stores; pg_receivewal syncs it.")
        .contender("pgark wal-receive", move || receive(bench, scene, pgark))
        .contender("pg_receivewal", move || receive(bench, scene, |scene, slot| pg_receivewal(scene, slot, &[])));
    if pg_major() < 15 {
        return row;
    }
    row.contender("pg_receivewal, lz4", move || {
        receive(bench, scene, |scene, slot| pg_receivewal(scene, slot, &["--compress=lz4"]))
    })
    .contender("pg_receivewal, gzip 1", move || {
        receive(bench, scene, |scene, slot| pg_receivewal(scene, slot, &["--compress=gzip:1"]))
    })
}

/// A receiver, and where it stores.
struct Receiver {
    call: Call,
    root: PathBuf,
    _kept: Kept,
}

#[allow(dead_code)]
enum Kept {
    Pgark(TestRepo, Scratch),
    Files(Scratch),
}

fn pgark(scene: &StreamScene, slot: &str) -> Receiver {
    let (repo, spool) = (TestRepo::init(), Scratch::new());
    let call = Call::new(program_path("wal-receive")).arg("--config").arg(repo.config());
    let call = call.args(["--slot", slot, "--spool"]).arg(spool.path()).envs(scene.cluster.env());
    Receiver { call, root: repo.root().to_path_buf(), _kept: Kept::Pgark(repo, spool) }
}

fn pg_receivewal(scene: &StreamScene, slot: &str, options: &[&str]) -> Receiver {
    let scratch = Scratch::new();
    let root = scratch.make_dir("wal");
    let call = Call::new(pg_command("pg_receivewal").get_program()).args(["--slot", slot, "-D"]).arg(&root);
    let call = options.iter().fold(call, |call, option| call.args([*option])).envs(scene.cluster.env());
    Receiver { call, root, _kept: Kept::Files(scratch) }
}

fn receive(bench: &Bench, scene: &StreamScene, make: impl Fn(&StreamScene, &str) -> Receiver) -> Sample {
    let slot = scene.slot();
    let receiver = make(scene, &slot);
    let before = size_of(&receiver.root);
    let scratch = Scratch::new();
    let line = scratch.join("line");
    Call::new("/usr/bin/mkfifo").arg(&line).run();
    let mut session = bench.launcher.start();
    let began = Instant::now();
    session.begin(&receiver.call.through(UNTIL_TOLD, &line));
    wait_for(
        "the last segment to be stored",
        || session.messages(),
        || is_stored(&receiver.root, &scene.last),
    );
    let wall = began.elapsed();
    fs::write(&line, "\n").expect("tell the shell");
    session.end();
    let sample = session.finish();
    scene
        .cluster
        .wait_sql(&format!("select active from pg_replication_slots where slot_name = '{slot}'"), "f");
    scene.cluster.psql(&format!("select pg_drop_replication_slot('{slot}')"));
    Sample { wall, calls: Vec::new(), stored: Some(size_of(&receiver.root) - before), ..sample }
}

/// Whether the whole segment is there under its name, compressed or not.
fn is_stored(root: &Path, segment: &str) -> bool {
    let entries = walkdir::WalkDir::new(root).into_iter();
    // Files come and go meanwhile.
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()));
    names.any(|name| ["", ".zst", ".lz4", ".gz"].iter().any(|ending| name == format!("{segment}{ending}")))
}
