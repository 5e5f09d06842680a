//! Cuts at random moments while a server archives, a receiver streams, and others push: all that was acknowledged
//! is there, be it by an exit code, by the server's own notes or by the position that the receiver reported.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::Powered;
use crate::coverage::*;
use crate::harness::*;
use crate::wal::*;

/// Pushers of segments that no other has; two of them each, at the same time.
struct Pushers {
    server: ServerDir,
    next: AtomicU64,
    acknowledged: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Pushers {
    fn new() -> Self {
        Self { server: ServerDir::new(), next: AtomicU64::new(0x4000), acknowledged: Mutex::default() }
    }

    /// A new segment after the other until it is told to stop.
    fn work(&self, repo: &TestRepo, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("00000001{:08X}{:08X}", number / 4096, number % 4096);
            let path = self.server.path().join("pg_wal").join(&name);
            synthetic_segment(&path, SEGMENT, number, |file| {
                let mut some = std::io::Read::take(noise(), (number % 7) * 10_000);
                std::io::copy(&mut some, file).expect("written");
            });
            own(&path);
            let push = || {
                let mut command = self.server.push_command(repo, &name);
                command.stderr(Stdio::null()).spawn().expect("start wal-push")
            };
            let succeeded =
                [push(), push()].map(|mut child: Child| child.wait().expect("waited for").success());
            let content = fs::read(&path).expect("read");
            if succeeded.contains(&true) {
                self.acknowledged.lock().expect("no panic").insert(name, content);
            }
            fs::remove_file(path).expect("removed");
        }
    }

    fn acknowledged(&self) -> BTreeMap<String, Vec<u8>> {
        self.acknowledged.lock().expect("no panic").clone()
    }
}

#[track_caller]
fn expect_stored(repo: &TestRepo, pushed: &BTreeMap<String, Vec<u8>>) {
    for (name, content) in pushed {
        let there = stored(repo, name);
        assert!(there.contains(content), "{name} was acknowledged, and {} are there", there.len());
    }
}

/// A server with a slot and a load, and the receiver.
struct Working {
    powered: Powered,
    server: Cluster,
    /// Where streaming began.
    first: u64,
}

impl Working {
    fn start(powered: Powered) -> Self {
        let builder = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "4GB");
        let server = builder.archive_to(&powered.repo).start();
        let mut create = powered.repo.program("wal-receive");
        create.arg("--spool").arg(powered.disk.path().join("spool")).envs(server.env());
        run(create.arg("--create-slot-only")).succeeds();
        server.pgbench_init(1);
        let mut working = Self { powered, server, first: 0 };
        working.first = working.flushed();
        working
    }

    fn receive(&self, synchronous: bool) -> Child {
        let mut command = self.powered.repo.std_program("wal-receive");
        command.arg("--spool").arg(self.powered.disk.path().join("spool")).envs(self.server.env());
        if synchronous {
            command.arg("--synchronous");
        }
        command.stderr(Stdio::null()).spawn().expect("start wal-receive")
    }

    fn flushed(&self) -> u64 {
        flushed(&self.server, "pgark")
    }

    /// What the server believes to be archived.
    fn archived(&self) -> Vec<String> {
        let entries = fs::read_dir(self.server.data_dir().join("pg_wal/archive_status")).expect("list");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> =
            names.filter_map(|name| name.strip_suffix(".done").map(str::to_owned)).collect();
        names.retain(|name| name.len() == 24);
        names
    }

    fn wal(&self, name: &str) -> Vec<u8> {
        fs::read(self.server.data_dir().join("pg_wal").join(name)).expect("the server still has it")
    }
}

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("waited for");
}

#[test]
fn all_that_was_acknowledged_at_any_moment_outlives_a_cut() {
    let Some(powered) = Powered::new(512) else { return };
    let mut seed = Seed::new("cuts at work");
    let rounds = if std::env::var("PGARK_TEST_EVERY").is_ok() { 20 } else { 3 };
    let mut working = Working::start(powered);
    let pushers = Pushers::new();
    for round in 0..rounds {
        let synchronous = round % 2 == 0;
        let receiver = working.receive(synchronous);
        let load = working.server.pgbench_in_background(&["-c", "2"]);
        let (stop, before) = (AtomicBool::new(false), working.flushed());
        let (archived, flushed, pushed) = std::thread::scope(|scope| {
            let pushing: Vec<_> =
                (0..2).map(|_| scope.spawn(|| pushers.work(&working.powered.repo, &stop))).collect();
            working.server.wait_for("the receiver to report", || working.flushed() > before);
            std::thread::sleep(Duration::from_millis(seed.below(1500)));
            let journal = if seed.below(4) == 0 { Journal::Written } else { Journal::Lost };
            // What is said after it nobody would hear on a machine without power, and ext4 lets a sync that
            // is under way at a shutdown succeed though its journal is aborted.
            let said = (working.archived(), working.flushed(), pushers.acknowledged());
            working.powered.disk.lose_power(journal);
            stop.store(true, Ordering::Relaxed);
            pushing.into_iter().for_each(|thread| thread.join().expect("no panic"));
            drop(load);
            kill(receiver);
            working.server.wait_sql("select count(*) from pg_stat_replication", "0");
            said
        });
        working.powered.disk.restart();
        expect_stored(&working.powered.repo, &pushed);
        for name in archived {
            let copies = stored(&working.powered.repo, &name);
            assert!(copies.contains(&working.wal(&name)), "{name} is archived, the server says");
        }
        let spool = working.powered.disk.path().join("spool");
        let spool = synchronous.then_some(spool.as_path());
        expect_covered(&working.server, &working.powered.repo, spool, working.first..flushed);
        let head = run(&mut working.powered.repo.pgark(&["init"]));
        head.succeeds();
    }
    let receiver = working.receive(false);
    let last = working.server.archive_everything();
    working
        .server
        .wait_for("the receiver to store the rest", || !stored(&working.powered.repo, &last).is_empty());
    kill(receiver);
    let acknowledged = pushers.acknowledged().len();
    assert!(acknowledged > 10, "only {acknowledged} segments were pushed");
    working.powered.verifies("at last");
}
