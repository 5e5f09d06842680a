//! What must not be received, and what is said instead.

use std::process::Command;

use super::scene::*;
use super::server;
use crate::harness::*;

#[test]
fn wal_that_the_server_no_longer_has_is_a_gap_that_has_to_be_accepted() {
    let (repo, server) = (TestRepo::init(), server());
    let receiver = Receiver::start(&repo, &server, &[]);
    let first = write_segments(&server, 2);
    wait_for_segment(&repo, &first);
    receiver.leave();
    once(&repo, &server, &["--drop-slot"]).succeeds();
    write_segments(&server, 8);
    server.psql("checkpoint");
    server.psql("checkpoint");
    let late = || Receiver::start(&repo, &server, &[]);
    let said = late().fails_with(3, "does not have that segment any more");
    assert!(said.contains("has already been removed") && said.contains("--accept-gap"), "{said}");
    // Another start says the same: nothing was papered over.
    let before = repo.list();
    late().fails_with(3, "does not have that segment any more");
    assert_eq!(repo.list(), before);

    let receiver = Receiver::start(&repo, &server, &["--accept-gap"]);
    let last = write_segments(&server, 2);
    wait_for_segment(&repo, &last);
    receiver.wait_for_log("a gap is accepted");
    receiver.leave();
    // From now on the archive is gone on with where it ends.
    let receiver = Receiver::start(&repo, &server, &[]);
    wait_for_segment(&repo, &write_segments(&server, 1));
    receiver.leave();
}

#[test]
fn a_slot_that_the_server_has_invalidated_is_said_and_a_new_one_helps() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).set("max_slot_wal_keep_size", "1MB").start();
    let receiver = Receiver::start(&repo, &server, &[]);
    wait_for_segment(&repo, &write_segments(&server, 1));
    receiver.leave();
    write_segments(&server, 8);
    server.psql("checkpoint");
    server.wait_sql("select wal_status from pg_replication_slots", "lost");
    let mut receiver = Receiver::start(&repo, &server, &[]);
    // 18 refuses to use the slot; older ones stream, and do not have the WAL.
    let code = receiver.ended().code();
    assert!(matches!(code, Some(2 | 3)), "{code:?}: {}", receiver.log());
    assert!(receiver.log().contains("--drop-slot"), "{}", receiver.log());
    once(&repo, &server, &["--drop-slot"]).succeeds();
    let receiver = Receiver::start(&repo, &server, &["--accept-gap"]);
    wait_for_segment(&repo, &write_segments(&server, 1));
    receiver.leave();
}

#[test]
fn a_server_of_another_cluster_is_refused_unless_it_was_named() {
    let repo = TestRepo::init();
    let (ours, other) = (server(), server());
    let receiver = Receiver::start(&repo, &ours, &[]);
    wait_for_segment(&repo, &write_segments(&ours, 1));
    receiver.leave();
    let stored = repo.list();
    let said = Receiver::start(&repo, &other, &[]).fails_with(2, "could not receive WAL of this server");
    let id = other.psql("select system_identifier from pg_control_system()");
    assert!(said.contains(&format!("--system-id {id}")), "{said}");
    assert_eq!(repo.list(), stored);
    assert_eq!(other.psql("select count(*) from pg_replication_slots"), "0");

    let receiver = Receiver::start(&repo, &other, &["--system-id", &id]);
    let name = write_segments(&other, 1);
    let key = format!("/{id}/wal/00000001/00000000/{name}.zst");
    wait_for("the other cluster's segment", || receiver.log(), || !repo.matching(&key).is_empty());
    receiver.leave();
    Receiver::start(&repo, &ours, &["--system-id", &id]).fails_with(2, &format!("not {id}"));
}

#[test]
fn a_slot_that_another_receiver_holds_is_named_with_its_process_and_waited_for() {
    let (repo, other, server) = (TestRepo::init(), TestRepo::init(), server());
    let holder = Receiver::start(&other, &server, &[]);
    holder.wait_for_log("streaming timeline 1");
    let pid = server.psql("select active_pid from pg_replication_slots");
    let receiver = Receiver::start(&repo, &server, &[]);
    receiver.wait_for_log(&format!("replication slot \"pgark\" is active for PID {pid}"));
    holder.leave();
    receiver.wait_for_log("streaming timeline 1");
    wait_for_segment(&repo, &write_segments(&server, 1));
    // Two receivers of one spool would be in each other's way.
    let second = once(&repo, &server, &[]);
    second.fails_with(4, "another wal-receive uses");
    receiver.leave();
}

#[test]
fn other_bytes_under_a_stored_name_are_a_conflict() {
    let repo = TestRepo::init();
    let one = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "64MB").start();
    one.stop(Stop::Fast);
    // Two servers that both go on from here: a split brain.
    let copy = one.scratch().join("copy");
    let status = Command::new("cp").arg("-a").arg(one.data_dir()).arg(&copy).status().expect("start cp");
    assert!(status.success());
    one.start();
    let pushed = write_segments(&one, 1);
    one.stop(Stop::Fast);
    let aside = one.scratch().join("aside");
    std::fs::rename(one.data_dir(), &aside).expect("renamed");
    std::fs::rename(&copy, one.data_dir()).expect("renamed");
    one.start();
    one.psql("create table another_history as select 1 as a");
    let receiver = Receiver::start(&repo, &one, &[]);
    receiver.wait_for_log("streaming timeline 1");
    run(repo.wal_push(&aside).arg(format!("pg_wal/{pushed}"))).succeeds();
    write_segments(&one, 1);
    let said = receiver.fails_with(4, "is already archived with other content");
    assert!(said.contains(&pushed), "{said}");
}

#[test]
fn a_stored_segment_that_merely_ends_earlier_is_no_conflict_and_what_was_received_is_kept_too() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "64MB").start();
    let receiver = Receiver::start(&repo, &server, &[]);
    receiver.wait_for_log("streaming timeline 1");
    server.psql("create table filler (i int, t text)");
    server.psql("select pg_switch_wal()");
    // As a standby archives the last segment of a timeline: its WAL ends before the file does.
    server.psql("insert into filler values (0, 'first')");
    let name = server.psql("select pg_walfile_name(pg_current_wal_lsn())");
    let path = server.data_dir().join("pg_wal").join(&name);
    server.psql("insert into filler select i, repeat('x', 100) from generate_series(1, 1000) i");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[100 * 1024..].fill(0);
    repo.scratch().make_dir("pg_wal");
    let short = repo.scratch().write(format!("pg_wal/{name}"), &bytes);
    run(repo.wal_push(repo.scratch().path()).arg(&short)).succeeds();
    server.psql("insert into filler select i, repeat('x', 100) from generate_series(1, 20000) i");
    let last = write_segments(&server, 1);
    receiver.wait_for_log("the one that was received goes on from there");
    wait_for_segment(&repo, &last);
    receiver.leave();
    let kept = repo.only(&format!("{name}.partial."));
    let received = zstd::decode_all(&repo.read(&kept)[..]).expect("zstd");
    assert!(received == std::fs::read(&path).expect("read"), "all that was received is kept");
    assert!(segments(&repo)[&name] == bytes, "the stored one is as it was");
}

#[test]
fn without_a_spool_or_a_repository_nothing_begins() {
    let (repo, server) = (TestRepo::init(), server());
    let mut command = repo.program("wal-receive");
    run(command.envs(server.env())).fails_with(2, "needs a directory for the segment in progress");
    let outcome = once(&repo, &server, &["--slot", "No-Slot"]);
    outcome.fails_with(2, "can't be the name of a replication slot");
    std::fs::remove_file(repo.path("pgark.json")).expect("removed");
    once(&repo, &server, &[]).fails_with(2, "no repository here");
    assert_eq!(server.psql("select count(*) from pg_replication_slots"), "0");
}
