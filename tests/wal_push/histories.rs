//! Timelines: histories that come along, and segments that belong to no timeline of that name.

use crate::harness::*;
use crate::wal::*;

#[test]
fn a_segment_brings_the_histories_that_lead_to_it() {
    let repo = TestRepo::init();
    let first_of_three = wal().segments(3)[0];
    let server = ServerDir::with(&[first_of_three, "00000002.history", "00000003.history"]);
    server.push(&repo, first_of_three).succeeds();
    for name in ["00000002.history", "00000003.history"] {
        assert!(repo.read(&repo.only(name)) == wal().file(name), "{name}");
    }
}

#[test]
fn a_history_brings_those_of_its_ancestors() {
    let repo = TestRepo::init();
    let server = ServerDir::with(&["00000002.history", "00000003.history"]);
    server.push(&repo, "00000003.history").succeeds();
    assert_eq!(repo.matching(".history").len(), 2);
}

#[test]
fn the_first_segment_of_a_timeline_begins_with_pages_of_the_one_before() {
    let repo = TestRepo::init();
    let fork = wal().fork();
    let on_page = u32::from_le_bytes(wal().file(fork)[4..8].try_into().expect("4 bytes"));
    assert_eq!(on_page, 1, "{fork} does not begin on timeline 1: the test proves nothing");
    let server = ServerDir::with(&[fork, "00000002.history"]);
    server.push(&repo, fork).succeeds();
    let header = header(&repo, &repo.only(fork));
    assert_eq!(header["facts"]["timelines"]["first"][0]["timeline"], 2, "{header}");
    assert!(header["facts"].get("damage").is_none(), "{header}");
}

#[test]
fn a_segment_whose_timeline_does_not_fork_there_is_refused_and_leaves_nothing() {
    let repo = TestRepo::init();
    let fork = wal().fork();
    let server = ServerDir::with(&[fork]);
    server.push(&repo, fork).fails_with(5, "there is no history of timeline 2");
    server.put("00000002.history", "1\t0/100148\tno recovery target specified\n");
    server
        .push(&repo, fork)
        .fails_with(5, "the history of timeline 2 does not leave that one in this segment");
    server.put("00000002.history", "no history at all");
    server.push(&repo, fork).fails_with(5, "could not read the history of timeline 2");
    assert_eq!(repo.list(), ["pgark.json"]);
}

#[test]
fn a_recovery_that_ended_before_its_target_timeline_began_may_archive() {
    let repo = TestRepo::init();
    // As StartupXLOG writes it when a recovery to timeline 2 stops while still on timeline 1: 2 is the parent.
    let early = wal().segments(1)[2];
    let number = u64::from_str_radix(&early[16..], 16).expect("hex");
    let switch = format!("0/{:X}", (number << 20) + 0x1000);
    let forked = wal().file("00000002.history");
    let history = [forked, format!("\n2\t{switch}\tbefore transaction 740\n").as_bytes()].concat();
    let name = early.replacen("00000001", "00000004", 1);
    let server = ServerDir::new();
    server.put(&name, wal().file(early));
    server.put("00000004.history", history);
    server.push(&repo, &name).succeeds();
}

#[test]
fn a_segment_of_a_timeline_that_another_server_made_too_is_refused() {
    let repo = TestRepo::init();
    let names = wal().segments(2);
    let server = ServerDir::with(&["00000002.history", names[0], names[1]]);
    server.push(&repo, "00000002.history").succeeds();
    server.push(&repo, names[0]).succeeds();
    let other =
        String::from_utf8_lossy(wal().file("00000002.history")).replace("no recovery", "some recovery");
    server.put("00000002.history", other);
    server.push(&repo, names[1]).fails_with(4, "00000002.history is already archived with other content");
    assert_eq!(repo.matching(names[1]), Vec::<String>::new());
}

#[test]
fn a_segment_without_any_history_is_archived_but_that_is_said() {
    let repo = TestRepo::init();
    let last = *wal().segments(2).last().expect("a segment");
    let server = ServerDir::with(&[last]);
    let outcome = server.push(&repo, last);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("has the history of timeline 2"), "{outcome}");
}

#[test]
fn what_is_no_history_is_refused() {
    let repo = TestRepo::init();
    let server = ServerDir::new();
    for (content, expected) in [
        (&b"\0\0\0\0"[..], "NUL byte"),
        (b"", "names no parent timeline"),
        (b"3\t0/3000000\tx\n", "timeline 3 is not below its own"),
    ] {
        server.put("00000003.history", content);
        server.push(&repo, "00000003.history").fails_with(5, expected);
    }
    let backup = wal().ending(".backup");
    server.put(backup, "nonsense");
    server.push(&repo, backup).fails_with(5, backup);
    let other = wal().segments(1)[0].to_owned() + ".00000028.backup";
    server.put(&other, wal().file(backup));
    server.push(&repo, &other).fails_with(5, &other);
    assert_eq!(repo.list(), ["pgark.json"]);
}
