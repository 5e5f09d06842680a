//! The answers one by one, without a server: what is absent, what is not, and who is asked.

use std::fs;

use crate::harness::*;
use crate::wal::*;

/// Everything is archived but what `missing` names.
fn archive_without(missing: &[&str]) -> (TestRepo, ServerDir) {
    let repo = impatient();
    let names: Vec<&str> =
        wal().files.keys().map(String::as_str).filter(|name| !missing.contains(name)).collect();
    let server = ServerDir::with(&names);
    for name in names {
        server.push(&repo, name).succeeds();
        server.remove(name);
    }
    (repo, server)
}

/// The segment so many places behind another.
fn behind(name: &str, places: u64) -> String {
    let number = u64::from_str_radix(&name[16..], 16).expect("hex") + places;
    format!("{}{number:08X}", &name[..16])
}

#[track_caller]
fn absent(server: &ServerDir, repo: &TestRepo, name: &str) {
    let outcome = server.fetch(repo, name);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome}");
    assert_eq!(server.delivered(), None);
}

#[test]
fn what_nobody_wrote_is_absent() {
    let (repo, server) = archive_without(&[]);
    for timeline in 1..=3 {
        let last = (*wal().segments(timeline).last().expect("a segment")).to_owned();
        absent(&server, &repo, &behind(&last, 1));
        absent(&server, &repo, &behind(&last, 1000));
    }
    absent(&server, &repo, "00000001.history");
    absent(&server, &repo, "00000004.history");
    absent(&server, &repo, "000000090000000000000001");
    // Timeline 2 was never written before the segment in which it began, nor 1 after it.
    let before = wal().segments(1).last().expect("a segment").replacen("00000001", "00000002", 1);
    absent(&server, &repo, &before);
    let fork = wal().fork().replacen("00000002", "00000001", 1);
    absent(&server, &repo, &fork);
    absent(&server, &repo, &behind(&fork, 1));
}

#[test]
fn what_was_lost_is_a_hole_through_all_descendants() {
    let lost = *wal().segments(1).last().expect("a segment");
    let later_ones: Vec<&str> =
        wal().files.keys().map(String::as_str).filter(|n| n.contains(".partial")).collect();
    let (repo, server) =
        archive_without(&[&later_ones[..], &wal().segments(2), &[lost, "00000002.history"]].concat());
    // Only timeline 3's history knows that the path went from 1 to 2 to 3.
    server.fetch(&repo, lost).fails_with(203, "is missing from the archive, but 00000003");
    server.fetch(&repo, wal().segments(2)[1]).fails_with(203, "is missing from the archive, but 00000003");
    server.fetch(&repo, "00000002.history").fails_with(203, "but 00000003.history: the timeline is in use");
}

#[test]
fn beyond_the_last_segment_that_the_target_needs_nothing_is_a_hole() {
    let segments = wal().segments(1);
    let (repo, server) = archive_without(&[segments[1]]);
    let fetch = |last: &str| {
        run(repo.wal_fetch(server.path()).args(["--last-segment", last, segments[1], "pg_wal/RECOVERYXLOG"]))
    };
    fetch(segments[0]).fails_with(1, "");
    fetch(segments[1]).fails_with(203, "is missing");
    // Its timeline does not matter: the path may go on under another number.
    fetch(&segments[0].replacen("00000001", "00000003", 1)).fails_with(1, "");
    fetch("RECOVERYXLOG").fails_with(202, "is not the name of a WAL file");
}

#[test]
fn every_kind_of_file_comes_back_as_it_was() {
    let (repo, server) = archive_without(&[]);
    for (name, content) in &wal().files {
        server.fetch(&repo, name).succeeds();
        assert!(server.delivered().as_ref() == Some(content), "{name}");
    }
    assert_eq!(server.wal_files(), ["RECOVERYXLOG"]);
}

#[test]
fn two_partial_segments_of_one_name_are_left_to_a_person() {
    let (repo, server) = archive_without(&[]);
    let name = wal().ending(".partial");
    let mut other = wal().file(name).to_vec();
    *other.last_mut().expect("a byte") ^= 1;
    server.put(name, other);
    server.push(&repo, name).succeeds();
    server.fetch(&repo, name).fails_with(204, "there are 2 files called");
}

#[test]
fn a_copy_in_pg_wal_of_another_cluster_does_not_count() {
    let segments = wal().segments(1);
    let (repo, server) = archive_without(&[segments[1]]);
    server.put(segments[1], wal().file(segments[1]));
    absent(&server, &repo, segments[1]);
    let mut foreign = wal().file(segments[1]).to_vec();
    foreign[24] ^= 1;
    server.put(segments[1], foreign);
    server.fetch(&repo, segments[1]).fails_with(203, "is missing");
}

#[test]
fn a_stale_file_is_replaced_by_verified_content_only() {
    let (repo, server) = archive_without(&[]);
    let name = wal().segments(1)[0];
    server.put("RECOVERYXLOG", "stale");
    server.fetch(&repo, name).succeeds();
    assert!(server.delivered().as_deref() == Some(wal().file(name)));
    server.put("RECOVERYXLOG", "stale");
    repo.damage(&key_of(&repo, name), Damage::FlipByte(-1));
    server.fetch(&repo, name).fails_with(205, "");
    assert_eq!(server.delivered().as_deref(), Some(&b"stale"[..]));
}

#[test]
fn by_hand_it_works_from_anywhere_when_told_whose_wal_it_is() {
    let (repo, server) = archive_without(&[]);
    let name = wal().segments(1)[0];
    let elsewhere = Scratch::new();
    let target = elsewhere.join("it's \"here\"");
    let fetch =
        |arguments: &[&str]| run(repo.wal_fetch(elsewhere.path()).args(arguments).args([name]).arg(&target));
    let message = fetch(&[]).fails_with(202, "there is no global/pg_control here");
    assert!(message.contains("hint:"), "{message}");
    fetch(&["--system-id", "7"]).fails_with(203, "has nothing of cluster \"main\" with system identifier 7");
    fetch(&["--system-id", &wal().system_id]).succeeds();
    assert!(fs::read(&target).expect("read") == wal().file(name));
    // An absolute path into a data directory tells, too.
    let target = server.path().join("pg_wal/by hand");
    run(repo.wal_fetch(elsewhere.path()).args([name]).arg(&target)).succeeds();
    assert!(fs::read(&target).expect("read") == wal().file(name));
    // A bare name is a file in the working directory.
    run(repo.wal_fetch(server.path()).args([name, "bare"])).succeeds();
}

#[test]
fn a_shell_command_with_quoted_paths_is_all_that_is_needed() {
    let (repo, _) = archive_without(&[]);
    let server = ServerDir::named("a \"data\" directory's name");
    let config = repo.scratch().make_dir("it's").join("pg \"ark\".toml");
    fs::copy(repo.config(), &config).expect("copied");
    let name = wal().segments(1)[0];
    let quoted = config.display().to_string().replace('"', "\\\"");
    let script =
        format!("{} --config \"{quoted}\" {name} pg_wal/RECOVERYXLOG", program_path("wal-fetch").display());
    repo.scratch().write(&config, fs::read(repo.config()).expect("read"));
    let output = server.shell(&script).output().expect("run the shell");
    assert!(output.status.success(), "{output:?}");
    assert!(server.delivered().as_deref() == Some(wal().file(name)));
}
