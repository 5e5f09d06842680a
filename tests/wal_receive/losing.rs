//! The receiver, its disk, the repository or the primary is lost, for a while.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::scene::*;
use super::server;
use crate::harness::*;

#[test]
fn a_receiver_that_is_killed_twenty_times_leaves_an_archive_without_a_gap() {
    let (repo, server) = (TestRepo::init(), server());
    let peer = server.scratch().make_dir("pg_receivewal");
    server.psql("select pg_create_physical_replication_slot('peer', true)");
    once(&repo, &server, &["--create-slot-only"]).succeeds();
    let mut pg_receivewal = server.client("pg_receivewal");
    pg_receivewal.args(["--slot", "peer", "--no-loop", "-D"]).arg(&peer);
    let mut pg_receivewal = pg_receivewal.stderr(Stdio::null()).spawn().expect("start pg_receivewal");
    server.pgbench_init(1);
    let load = server.pgbench_in_background(&["-c", "2"]);
    let mut lives = BTreeMap::new();
    for kill in 0..20_u64 {
        let mode: &[&str] = if kill % 2 == 0 { &["--synchronous"] } else { &[] };
        let receiver = Receiver::start(&repo, &server, mode);
        // Anything from before the first connection to several segments later.
        let life = (kill * 7919) % 400;
        std::thread::sleep(Duration::from_millis(life));
        receiver.kill();
        lives.insert(kill, life);
    }
    drop(load);
    let receiver = Receiver::start(&repo, &server, &[]);
    let last = write_segments(&server, 1);
    wait_for_segment(&repo, &last);
    receiver.leave();
    wait_for("pg_receivewal", String::new, || peer.join(&last).exists());
    pg_receivewal.kill().expect("killed");
    pg_receivewal.wait().expect("waited for");

    let stored = segments(&repo);
    let expected = segment_files(&peer, "", &last);
    assert!(expected.len() >= 15, "{lives:?} {:?}", expected.keys());
    assert_holds(&stored, &expected);
    assert!(stored.keys().eq(expected.keys()), "{:?}", stored.keys());
}

#[test]
fn a_full_spool_ends_the_receiver_and_the_next_one_goes_on_without_a_gap() {
    let Some(disk) = SmallDisk::mount(3 << 20) else { return };
    let (repo, server) = (TestRepo::init(), server());
    repo.configure("[receive]\nbacklog = \"1MiB\"\n");
    let spool = disk.path().display().to_string();
    let start = || {
        let mut command = repo.std_program("wal-receive");
        command.envs(server.env()).args(["--spool", &spool]);
        Receiver::spawn(&repo, command)
    };
    let receiver = start();
    let first = write_segments(&server, 1);
    wait_for_segment(&repo, &first);
    // What is removed from the spool after the disk is full would make room again.
    let spooled = || walkdir::WalkDir::new(disk.path()).into_iter().flatten();
    let held = || spooled().any(|entry| entry.file_name() == first.as_str());
    wait_for("the spool to let go of what is stored", || all_logs(&repo), || !held());
    let ballast = disk.path().join("ballast");
    let full = fs::write(&ballast, vec![0; 4 << 20]).expect_err("the disk is full");
    assert_eq!(full.raw_os_error(), Some(28));
    write_segments(&server, 2);
    let said = receiver.fails_with(6, "No space left on device");
    assert!(said.contains("free some space") && said.contains(&spool), "{said}");
    fs::remove_file(ballast).expect("removed");
    let receiver = start();
    let last = write_segments(&server, 1);
    wait_for_segment(&repo, &last);
    receiver.leave();
    assert_holds(&segments(&repo), &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
}

#[test]
fn a_receiver_that_is_killed_at_each_change_to_its_spool_or_repository_leaves_an_archive_without_a_gap() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "1GB").start();
    once(&repo, &server, &["--create-slot-only"]).succeeds();
    let first = server.psql("select pg_walfile_name(restart_lsn) from pg_replication_slots");
    server.pgbench_init(1);
    let load = server.pgbench_in_background(&["-c", "2"]);
    let places = [(spool(&repo), 1..=24), (repo.root().to_path_buf(), 1..=12)];
    for (place, changes) in places {
        for n in changes {
            let mut command = repo.std_program("wal-receive");
            command.envs(server.env()).arg("--spool").arg(spool(&repo));
            if n % 2 == 0 {
                command.arg("--synchronous");
            }
            let (outcome, _) = run_with_fault(command, Fault::kill_at(n).under(&place));
            assert_eq!(outcome.code, None, "killed at change {n} below {}: {outcome}", place.display());
        }
    }
    drop(load);
    let (last, stored) = receive_the_rest(&repo, &server);
    assert_holds(&stored, &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
    // What replaces a part sweeps it. What a killed writer left unpublished has another end.
    let parts = repo.matching(".streamed.").into_iter().filter(|key| key.ends_with(".zst"));
    let parts: Vec<String> = parts.filter(|key| stored.keys().any(|name| key.contains(name))).collect();
    assert!(parts.is_empty(), "{parts:?}");
}

/// A receiver that is left alone stores what an earlier one did not, and a segment more. Its name, and all
/// segments that are stored then.
fn receive_the_rest(repo: &TestRepo, server: &Cluster) -> (String, BTreeMap<String, Vec<u8>>) {
    let receiver = Receiver::start(repo, server, &[]);
    let last = write_segments(server, 1);
    wait_for_segment(repo, &last);
    receiver.leave();
    (last, segments(repo))
}

#[test]
fn a_failed_fsync_ends_the_receiver_and_is_not_tried_again() {
    let (repo, server) = (TestRepo::init(), server());
    server.pgbench_init(1);
    let load = server.pgbench_in_background(&["-c", "2"]);
    let mut command = repo.std_program("wal-receive");
    command.envs(server.env()).arg("--spool").arg(spool(&repo)).arg("--synchronous");
    let fault = Fault::fail_at(7, Errno::IO).under(&spool(&repo)).only(&["fdatasync", "fsync"]);
    let (outcome, calls) = run_with_fault(command, fault);
    outcome.fails_with(6, "Input/output error");
    assert_eq!(calls.len(), 7, "what is durable is not known any more: {calls:?}");
    drop(load);
    let (last, stored) = receive_the_rest(&repo, &server);
    let first = stored.keys().next().expect("some").clone();
    assert_holds(&stored, &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
}

#[test]
fn a_repository_that_is_away_for_a_while_is_waited_for() {
    let (repo, server) = (TestRepo::init(), server());
    let receiver = Receiver::start(&repo, &server, &[]);
    let first = write_segments(&server, 1);
    wait_for_segment(&repo, &first);
    let away = repo.scratch().join("away");
    fs::rename(repo.root(), &away).expect("renamed");
    let last = write_segments(&server, 3);
    receiver.wait_for_log("waits in the spool and is tried again");
    // Nothing that the repository does not have is reported as flushed.
    let behind = "select bool_and(flush_lsn < write_lsn)::text from pg_stat_replication";
    server.wait_sql(behind, "true");
    fs::rename(&away, repo.root()).expect("renamed back");
    wait_for_segment(&repo, &last);
    server.wait_sql(
        "select bool_and(flush_lsn >= pg_current_wal_flush_lsn() - 1048576)::text from pg_stat_replication",
        "true",
    );
    receiver.leave();
    assert_holds(&segments(&repo), &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
}

#[test]
fn a_restarted_primary_is_gone_on_with() {
    gone_on_with(&["--synchronous"]);
}

#[test]
fn a_primary_shuts_down_though_the_repository_lacks_its_last_wal() {
    gone_on_with(&[]);
}

fn gone_on_with(mode: &[&str]) {
    let (repo, server) = (TestRepo::init(), server());
    let receiver = Receiver::start(&repo, &server, mode);
    let first = write_segments(&server, 1);
    wait_for_segment(&repo, &first);
    server.psql("create table before_the_crash (a int)");
    for crash in [true, false] {
        if crash {
            server.crash()
        } else {
            server.stop(Stop::Fast)
        }
        receiver.wait_for_log("the next attempt follows");
        server.start();
        wait_for_segment(&repo, &write_segments(&server, 2));
    }
    let last = write_segments(&server, 1);
    wait_for_segment(&repo, &last);
    receiver.leave();
    assert_holds(&segments(&repo), &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
}
