//! `pgark repo ls|cat|get` on the repository that format version 1 wrote, and on WAL of a real server.

mod harness;
mod wal;

use std::io::Write;
use std::process::{Command, Stdio};

use harness::*;
use serde_json::Value;
use wal::*;

const BASE: &str = "main/7650000000000000001";

fn cat(repo: &TestRepo, arguments: &[&str]) -> Vec<u8> {
    let mut command = repo.std_program("pgark");
    let output = command.args(["repo", "cat"]).args(arguments).output().expect("started");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(repo: &TestRepo, arguments: &[&str]) -> String {
    String::from_utf8(cat(repo, arguments)).expect("text")
}

fn ls(repo: &TestRepo, arguments: &[&str]) -> Outcome {
    run(repo.pgark(&["repo", "ls"]).args(arguments))
}

/// What the zstd program makes of an object.
fn by_zstd(repo: &TestRepo, key: &str) -> Vec<u8> {
    let output = Command::new("zstd").arg("-dcq").arg(repo.path(key)).output().expect("start zstd");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn objects_are_listed_with_size_age_and_key() {
    let repo = TestRepo::golden();
    let top = ls(&repo, &[]).succeeds();
    assert!(top.lines().any(|line| line.trim() == "main/"), "{top}");
    assert!(top.lines().any(|line| line.contains(" ago") && line.ends_with("  pgark.json")), "{top}");
    let all = ls(&repo, &["-R", "-l"]).succeeds();
    let keys: Vec<&str> = all.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let mut sorted = repo.list();
    sorted.sort();
    let mut listed: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
    listed.sort();
    assert_eq!(listed, sorted);
    let json: Value =
        serde_json::from_str(&ls(&repo, &["-R", BASE, "--output", "json"]).succeeds()).expect("JSON");
    assert_matches_schema("repo-ls", &json);
    assert_eq!(json["entries"].as_array().map(Vec::len), Some(sorted.len() - 1));
    ls(&repo, &["main/nothing"]).fails_with(3, "nothing below main/nothing");
    ls(&repo, &["../x"]).fails_with(2, "can't be a key");
}

#[test]
fn an_object_comes_as_it_is() {
    let repo = TestRepo::golden();
    for key in repo.list() {
        assert!(cat(&repo, &[&key]) == repo.read(&key), "{key}");
    }
    run(&mut repo.pgark(&["repo", "cat", "main/nothing"])).fails_with(3, "it is not there");
    run(&mut repo.pgark(&["repo", "cat", "/etc/passwd"])).fails_with(2, "can't be a key");
    run(&mut repo.pgark(&["repo", "cat", "main/../../x"])).fails_with(2, "can't be a key");
    repo.damage("pgark.json", Damage::Delete);
    run(&mut repo.pgark(&["repo", "cat", "main/nothing"])).fails_with(2, "no repository here");
}

#[test]
fn what_an_object_holds_can_be_read() {
    let repo = TestRepo::golden();
    let decoded = |key: &str| cat(&repo, &[&format!("{BASE}/{key}"), "--decode"]);
    let segment = "wal/00000001/00000000/00000001000000000000000A.zst";
    assert!(decoded(segment) == by_zstd(&repo, &format!("{BASE}/{segment}")));
    let partial = "wal/00000001/00000000/000000010000000000000011.partial.e15650c3b69d3c25.zst";
    assert!(decoded(partial) == by_zstd(&repo, &format!("{BASE}/{partial}")));
    let streamed = "wal/00000002/00000000/000000020000000000000011.streamed.00000000011001B0.zst";
    let mut whole = by_zstd(&repo, &format!("{BASE}/{streamed}"));
    whole.resize(1 << 20, 0);
    assert!(decoded(streamed) == whole, "with zeros behind it, as it is fetched");
    let map = "backup/20261123-031000/files.jsonl.zst";
    assert!(decoded(map) == by_zstd(&repo, &format!("{BASE}/{map}")));
    let frames =
        String::from_utf8(decoded("pack/fedcba9876543210fedcba9876543210-00000000.pack")).expect("text");
    let frames: Vec<Value> = frames.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(frames.len() == 2 && frames[0]["offset"] == 0, "{frames:?}");
    for key in ["backup/20261123-031000/backup.json", "cluster.json", "wal/00000002.history"] {
        assert!(decoded(key) == repo.read(&format!("{BASE}/{key}")), "{key}");
    }
    let header = text(&repo, &[&format!("{BASE}/{segment}"), "--decode=header"]);
    let header: Value = serde_json::from_str(&header).expect("JSON");
    assert_eq!(header["name"], "00000001000000000000000A");
    run(&mut repo.pgark(&["repo", "cat", "pgark.json", "--decode=header"]))
        .fails_with(2, "is no stored segment");
}

#[test]
fn what_is_damaged_is_not_decoded_but_can_be_had_as_it_is() {
    let repo = TestRepo::golden();
    let keys = [
        "wal/00000001/00000000/00000001000000000000000A.zst",
        "backup/20261123-031000/backup.json",
        "backup/20261123-031000/files.jsonl.zst",
        "pack/fedcba9876543210fedcba9876543210-00000000.pack",
        "wal/00000002.history",
    ];
    for key in keys.map(|key| format!("{BASE}/{key}")) {
        let at = if key.ends_with(".pack") { -100 } else { 10 };
        repo.damage(&key, Damage::FlipByte(at));
        let outcome = run(&mut repo.pgark(&["repo", "cat", &key, "--decode"]));
        let said = outcome.fails_with(5, "");
        assert!(
            said.contains(key.rsplit('/').next().expect("a name")) || said.contains("timeline 2"),
            "{said}"
        );
        assert!(cat(&repo, &[&key]) == repo.read(&key));
    }
}

#[test]
fn what_a_server_wrote_comes_back() {
    let (repo, server) = (impatient(), ServerDir::with(&[wal().segments(1)[0]]));
    let name = wal().segments(1)[0];
    server.push(&repo, name).succeeds();
    let key = key_of(&repo, name);
    let scratch = Scratch::new();
    let target = scratch.join("segment");
    let mut get = repo.pgark(&["repo", "get", &key, "--decode"]);
    run(get.arg(&target)).succeeds();
    assert!(std::fs::read(&target).expect("read") == wal().file(name));
    let mut again = repo.pgark(&["repo", "get", &key]);
    run(again.arg(&target)).fails_with(4, "exists already");
    assert!(std::fs::read(&target).expect("read") == wal().file(name));
    repo.damage(&key, Damage::FlipByte(-1));
    let other = scratch.join("other");
    let mut damaged = repo.pgark(&["repo", "get", &key, "--decode"]);
    run(damaged.arg(&other)).fails_with(5, "");
    assert_eq!(std::fs::read_dir(scratch.path()).expect("listed").count(), 1, "nothing is left");
}

#[test]
fn whoever_reads_may_stop_early() {
    let repo = TestRepo::golden();
    let mut command = repo.std_program("pgark");
    command.args(["repo", "ls", "-R"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("waited");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_terminal_is_not_given_what_is_not_text() {
    let repo = TestRepo::golden();
    let (terminal, screen) = terminal();
    let segment = format!("{BASE}/wal/00000001/00000000/00000001000000000000000A.zst");
    for (key, code) in [(segment.as_str(), Some(2)), ("pgark.json", Some(0))] {
        let mut command = repo.std_program("pgark");
        command.args(["repo", "cat", key]).stdout(screen.try_clone().expect("cloned")).stderr(Stdio::piped());
        let output = command.spawn().expect("started").wait_with_output().expect("waited");
        assert_eq!(output.status.code(), code, "{key}: {}", String::from_utf8_lossy(&output.stderr));
    }
    drop((terminal, screen));
}

/// A pseudo terminal: our side and that of the program.
#[allow(unsafe_code, reason = "openpty(3) has no safe wrapper among the crates that are here")]
fn terminal() -> (std::fs::File, std::fs::File) {
    use std::os::fd::FromRawFd;
    let (mut ours, mut theirs) = (0, 0);
    let nothing = std::ptr::null_mut();
    // SAFETY: both pointers are to integers that outlive the call, the others may be null (openpty(3)).
    let opened =
        unsafe { libc::openpty(&mut ours, &mut theirs, nothing, std::ptr::null(), std::ptr::null()) };
    assert_eq!(opened, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: openpty gave us both, and nobody else has them.
    let mut files = unsafe { (std::fs::File::from_raw_fd(ours), std::fs::File::from_raw_fd(theirs)) };
    files.0.flush().expect("flushed");
    files
}
