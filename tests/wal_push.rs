//! `wal-push`: what it stores, what it refuses, and what becomes of the repository in either case.

mod harness;
mod wal;

#[path = "wal_push/histories.rs"]
mod histories;
#[path = "wal_push/large.rs"]
mod large;
#[path = "wal_push/racing.rs"]
mod racing;
#[path = "wal_push/servers.rs"]
mod servers;
#[path = "wal_push/trouble.rs"]
mod trouble;

use harness::*;
use wal::*;

#[test]
fn every_kind_of_file_that_a_server_archives_is_stored_and_readable_with_usual_tools() {
    let repo = TestRepo::init();
    let names: Vec<&str> = wal().files.keys().map(String::as_str).collect();
    let server = ServerDir::with(&names);
    for name in &names {
        server.push(&repo, name).succeeds();
    }
    for kind in [".history", ".backup", ".partial"] {
        assert!(names.iter().any(|name| name.ends_with(kind)), "no {kind} among {names:?}");
    }
    for name in names {
        let key = key_of(&repo, name);
        let content = if key.ends_with(".zst") { unzstd(&repo, &key) } else { repo.read(&key) };
        assert!(content == wal().file(name), "{key} is not what was pushed");
        if key.ends_with(".zst") {
            assert_eq!(header(&repo, &key)["name"], name);
        }
    }
    let cluster = repo.only("cluster.json");
    let text = tool(&["jq", "-r", ".system_id, .segment_size", &repo.path(&cluster).display().to_string()]);
    assert_eq!(String::from_utf8_lossy(&text), format!("{}\n1048576\n", wal().system_id));
}

#[test]
fn the_header_says_what_is_in_the_segment() {
    let repo = TestRepo::init();
    let name = wal().with_restore_point();
    let server = ServerDir::with(&[&name]);
    server.push(&repo, &name).succeeds();
    let header = header(&repo, &repo.only(&name));
    assert_eq!(header["format"], "pgark segment");
    assert_eq!(header["system_id"], wal().system_id.as_str());
    assert_eq!((&header["timeline"], &header["postgres_major"]), (&1.into(), &pg_major().into()));
    assert_eq!(header["blake3"], blake3::hash(wal().file(&name)).to_string());
    let facts = &header["facts"];
    let point = &facts["restore_points"]["first"][0];
    assert_eq!(point["name"], RESTORE_POINT);
    assert_eq!(point["end_lsn"], wal().restore_point_lsn.as_str());
    assert!(facts.get("damage").is_none(), "{facts}");
    assert_eq!(times_of(facts), waldump_times(&server, &name), "{facts}");
    let records = waldump(&server, &name);
    assert_eq!(facts["first_lsn"], lsn_of(&records[0]));
}

#[test]
fn the_header_names_tablespaces_that_were_created_and_dropped() {
    let repo = TestRepo::init();
    let server = ServerDir::with(&wal().segments(1));
    let mut found = Vec::new();
    for name in wal().segments(1) {
        server.push(&repo, name).succeeds();
        let header = header(&repo, &repo.only(name));
        if let Some(changes) = header["facts"]["tablespaces"]["first"].as_array() {
            found.extend(changes.iter().map(|change| change["change"].to_string()));
        }
    }
    assert_eq!(found, [format!("{{\"created\":{:?}}}", wal().tablespace), "\"dropped\"".to_owned()]);
}

/// The earliest and latest time of the header, as microseconds since 2000 would sort: as text in UTC.
fn times_of(facts: &serde_json::Value) -> (String, String) {
    let time = |key: &str| {
        let time: jiff::Timestamp = facts[key].as_str().expect(key).parse().expect("a time");
        time.strftime("%Y-%m-%d %H:%M:%S%.6f UTC").to_string()
    };
    (time("earliest_time"), time("latest_time"))
}

fn waldump_times(server: &ServerDir, name: &str) -> (String, String) {
    let mut times: Vec<String> = waldump(server, name)
        .iter()
        .filter(|line| line.contains("Transaction"))
        .filter_map(|line| line.split_once("desc: COMMIT ").map(|(_, rest)| rest))
        .map(|rest| rest.split_inclusive(" UTC").next().expect("a time").to_owned())
        .collect();
    times.sort();
    (times.first().expect("a commit").clone(), times.last().expect("a commit").clone())
}

fn waldump(server: &ServerDir, name: &str) -> Vec<String> {
    let output = pg_command("pg_waldump").arg(server.path().join("pg_wal").join(name)).output();
    // It complains about the end of the WAL, which is in the next segment.
    let text = String::from_utf8_lossy(&output.expect("run pg_waldump").stdout).into_owned();
    assert!(!text.is_empty(), "pg_waldump found nothing in {name}");
    text.lines().map(str::to_owned).collect()
}

/// pg_waldump pads with zeros: `0/02000028`.
fn lsn_of(line: &str) -> String {
    let lsn = line.split_once("lsn: ").and_then(|(_, rest)| rest.split_once(',')).expect("an LSN").0;
    let (high, low) = lsn.split_once('/').expect("an LSN");
    let part = |hex: &str| u32::from_str_radix(hex, 16).expect("hex");
    format!("{:X}/{:X}", part(high), part(low))
}

#[test]
fn the_same_content_again_is_success_and_changes_nothing() {
    let repo = TestRepo::init();
    let names = [wal().segments(1)[0], wal().ending(".partial"), "00000002.history", wal().ending(".backup")];
    let server = ServerDir::with(&names);
    for name in names {
        server.push(&repo, name).succeeds();
    }
    let before: Vec<_> = repo.list().into_iter().map(|key| (repo.read(&key), key)).collect();
    for name in names {
        server.push(&repo, name).succeeds();
    }
    let after: Vec<_> = repo.list().into_iter().map(|key| (repo.read(&key), key)).collect();
    assert!(before == after);
}

#[test]
fn other_content_under_a_stored_name_is_refused_and_both_digests_named() {
    let repo = TestRepo::init();
    let name = wal().segments(1)[1];
    let server = ServerDir::with(&[name, "00000002.history"]);
    server.push(&repo, name).succeeds();
    let stored = repo.read(&repo.only(name));
    let mut other = wal().file(name).to_vec();
    other[500_000] ^= 1;
    server.put(name, &other);
    let message = server.push(&repo, name).fails_with(4, "already archived with other content");
    for digest in [blake3::hash(wal().file(name)), blake3::hash(&other)] {
        assert!(message.contains(&digest.to_string()), "{message}");
    }
    assert!(repo.read(&repo.only(name)) == stored);

    server.push(&repo, "00000002.history").succeeds();
    server.put("00000002.history", "1\t0/4000000\tno recovery target specified\n");
    server.push(&repo, "00000002.history").fails_with(4, "already archived with other content");
    assert!(repo.read(&repo.only("00000002.history")) == wal().file("00000002.history"));
}

#[test]
fn two_promotions_out_of_one_timeline_both_keep_their_partial_segment() {
    let repo = TestRepo::init();
    let name = wal().ending(".partial");
    let server = ServerDir::with(&[name]);
    server.push(&repo, name).succeeds();
    let mut other = wal().file(name).to_vec();
    *other.last_mut().expect("a byte") ^= 1;
    server.put(name, &other);
    server.push(&repo, name).succeeds();
    assert_eq!(repo.matching(".partial").len(), 2);
}

#[test]
fn other_names_are_refused_by_name() {
    let repo = TestRepo::init();
    let server = ServerDir::new();
    for name in ["postgresql.conf", "000000010000000000000001.gz", "00000001000000000000000x", "RECOVERYXLOG"]
    {
        server.put(name, "anything");
        let message = server.push(&repo, name).fails_with(2, "is not the name of a WAL file");
        assert!(message.contains(name), "{message}");
    }
    server.push(&repo, "000000010000000000000001").fails_with(6, "No such file or directory");
    std::fs::create_dir(server.path().join("pg_wal/000000010000000000000001")).expect("created");
    server.push(&repo, "000000010000000000000001").fails_with(2, "not a regular file");
    assert_eq!(repo.list(), ["pgark.json"]);
}

#[test]
fn damaged_records_are_archived_as_they_are_but_marked_and_logged() {
    let repo = TestRepo::init();
    let name = wal().segments(1)[0];
    let server = ServerDir::new();
    let mut damaged = wal().file(name).to_vec();
    damaged[300_000] ^= 0x55;
    server.put(name, &damaged);
    let outcome = server.push(&repo, name);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("is damaged in 1 places; it is archived as it is"), "{outcome}");
    let key = repo.only(name);
    assert!(unzstd(&repo, &key) == damaged);
    let damage = &header(&repo, &key)["facts"]["damage"];
    assert_eq!(damage["count"], 1, "{damage}");
    assert_eq!(damage["first"][0]["what"], "the record's checksum is wrong", "{damage}");
}
