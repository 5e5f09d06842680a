//! The table {forgery, what verify says, which backups that costs} for whole objects: exchanged, of a future version,
//! of another system, with absurd JSON, larger than they say. No program panics or takes more memory than it may, and
//! `info` agrees with `verify` about what is left.

use serde_json::{Value, json};

use crate::harness::*;
use crate::scene::*;

/// Kilobytes of heap that a program may take whatever an object holds: what is read as a whole is bounded.
const MEMORY: u64 = 400 << 10;

struct Row {
    name: &'static str,
    forge: fn(&Scene),
    /// What verify says.
    expected: &'static str,
    /// Backups that do not restore.
    lost: &'static [&'static str],
    /// Whether verify can't tell: a newer program may read what is there.
    newer: bool,
}

const fn row(
    name: &'static str,
    forge: fn(&Scene),
    expected: &'static str,
    lost: &'static [&'static str],
) -> Row {
    Row { name, forge, expected, lost, newer: false }
}

const fn newer(name: &'static str, forge: fn(&Scene), lost: &'static [&'static str]) -> Row {
    Row { name, forge, expected: "version 2", lost, newer: true }
}

const ONE: &[&str] = &["one"];
const BOTH: &[&str] = &["one", "two"];
const NONE: &[&str] = &[];

/// Each gets what is the other's.
fn exchange(scene: &Scene, one: &str, other: &str) {
    let (first, second) = (scene.repo.read(one), scene.repo.read(other));
    scene.replace(one, second);
    scene.replace(other, first);
}

fn header(scene: &Scene, change: impl FnOnce(&str) -> String) {
    forge_header(&scene.repo, "one", change);
}

/// Puts a member in front of all others of backup one's header.
fn member(scene: &Scene, text: &str) {
    header(scene, |header| header.replacen('{', &format!("{{{text},"), 1));
}

fn set(scene: &Scene, change: impl FnOnce(&mut Value)) {
    forge_backup(&scene.repo, "one", |backup| change(&mut backup.header));
}

fn middle(scene: &Scene, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    forge_segment(&scene.repo, &scene.segment(&scene.facts.middle), change);
}

/// A zstd frame of zeros that says how many it holds.
fn zeros(bytes: usize) -> Vec<u8> {
    zip(&vec![0; bytes])
}

const ROWS: &[Row] = &[
    row(
        "two packs exchanged",
        |s| exchange(s, &s.packs("one")[0], &s.packs("two")[0]),
        "bytes, expected",
        BOTH,
    ),
    row(
        "two maps exchanged",
        |s| exchange(s, &s.key(&["/one/files"]), &s.key(&["/two/files"])),
        "expected",
        BOTH,
    ),
    row(
        "two headers exchanged",
        |s| exchange(s, &s.key(&["/one/backup.json"]), &s.key(&["/two/backup.json"])),
        "is the header of backup",
        BOTH,
    ),
    row(
        "two segments exchanged",
        |s| exchange(s, &s.segment(&s.facts.middle), &s.segment(&s.facts.late)),
        "should hold",
        NONE,
    ),
    row(
        "the header of another system",
        |s| set(s, |header| header["system_id"] = json!("7650000000000000001")),
        "says system identifier 7650000000000000001, expected",
        ONE,
    ),
    newer("a header of the next version", |s| set(s, |h| h["version"] = json!(2)), ONE),
    row("a header of version 0", |s| set(s, |h| h["version"] = json!(0)), "version 0", ONE),
    row("a header of version 1e308", |s| set(s, |h| h["version"] = json!(1e308)), "invalid", ONE),
    row("a header of a negative version", |s| set(s, |h| h["version"] = json!(-1)), "invalid value", ONE),
    row("a header with a member twice", |s| member(s, "\"version\": 1"), "duplicate field", ONE),
    row("a header with a label twice", |s| member(s, "\"label\": \"one\""), "duplicate field", ONE),
    row(
        "a header as deep as a well",
        |s| member(s, &format!("\"packs\": {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        "invalid type: sequence",
        ONE,
    ),
    row(
        "a header of 100 MB",
        |s| member(s, &format!("\"x\": \"{}\"", "x".repeat(100_000_000))),
        "nothing that is read as a whole",
        ONE,
    ),
    row("an LSN beyond all", |s| set(s, |h| h["start"]["lsn"] = json!("FFFFFFFF1/0")), "LSN", ONE),
    row(
        "a timeline of 2^40",
        |s| set(s, |h| h["start"]["timeline"] = json!(1_u64 << 40)),
        "invalid value",
        ONE,
    ),
    row("a segment size of 3", |s| set(s, |h| h["segment_size"] = json!(3)), "segment size", ONE),
    row(
        "a map of 2^63 bytes",
        |s| header(s, |h| replace_number(h, "size", "9223372036854775807")),
        "bytes, expected",
        ONE,
    ),
    newer("a map of the next version", |s| next_version(s, &s.key(&["/one/files"])), ONE),
    newer("a list of a pack of the next version", |s| next_version(s, &s.packs("one")[0]), NONE),
    newer(
        "a cluster.json of the next version",
        |s| edit(s, &s.key(&["cluster.json"]), "\"version\": 1", "\"version\": 2"),
        BOTH,
    ),
    newer("a segment of the next version", |s| middle(s, |h, _| h["version"] = json!(2)), NONE),
    row(
        "a segment of another system",
        |s| middle(s, |h, _| h["system_id"] = json!("7650000000000000001")),
        "is not what its place says: system identifier 7650000000000000001",
        NONE,
    ),
    row("a segment of another timeline", |s| middle(s, |h, _| h["timeline"] = json!(2)), "timeline 2", NONE),
    row("a segment with data at 0", |s| middle(s, |h, _| h["data"]["offset"] = json!(0)), "data at 0", NONE),
    row("a segment that holds more", |s| middle(s, |_, data| *data = zeros(64 << 20)), "holds more", NONE),
    row(
        "a segment that holds less",
        |s| middle(s, |_, data| *data = zeros(1 << 19)),
        "but holds 524288",
        NONE,
    ),
    row(
        "a segment of another size",
        |s| {
            middle(s, |header, data| {
                header["segment_size"] = json!(256 << 20);
                *data = zeros(256 << 20);
            })
        },
        ".zst",
        NONE,
    ),
    row(
        "a segment in a window of 2 GiB",
        |s| {
            middle(s, |_, data| *data = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0x00, 0xA8, 1, 0, 0]].concat())
        },
        "could not decompress",
        NONE,
    ),
    row(
        "facts of 4 GiB behind a segment",
        |s| middle(s, |h, _| h["more"] = json!({"offset": 4096, "size": u32::MAX, "sha256": "0".repeat(64)})),
        "",
        NONE,
    ),
];

fn next_version(scene: &Scene, key: &str) {
    forge_trailer_version(&scene.repo, key, 2);
}

fn edit(scene: &Scene, key: &str, from: &str, to: &str) {
    let text = String::from_utf8(scene.repo.read(key)).expect("UTF-8");
    assert!(text.contains(from), "no {from} in {text}");
    scene.replace(key, text.replace(from, to));
}

/// The first number of that name in the map's part of a header.
fn replace_number(header: &str, name: &str, number: &str) -> String {
    let map = header.find("\"map\": {").expect("a map");
    let start = map + header[map..].find(&format!("\"{name}\": ")).expect("a member") + name.len() + 4;
    let end = start + header[start..].find(|c: char| !c.is_ascii_digit()).expect("an end");
    format!("{}{number}{}", &header[..start], &header[end..])
}

/// One of our programs with so much memory at most.
fn limited(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut shell = command("/bin/sh");
    shell.env("PGARK_CONFIG", scene.repo.config());
    shell.args(["-c", &format!("ulimit -d {MEMORY} && exec \"$0\" \"$@\"")]).arg(program_path("pgark"));
    let output = shell.args(arguments).output().expect("started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn found(row: &Row) {
    let (scene, name) = (Scene::new(), row.name);
    (row.forge)(&scene);
    let (code, stdout, stderr) = limited(&scene, &["verify", "--output", "json"]);
    assert!(!stderr.contains("bug in pgark") && code.is_some(), "{name}: {code:?} {stderr}");
    let json: Value = serde_json::from_str(&stdout).unwrap_or_default();
    let system = &json["systems"][0];
    let said = format!("{} {} {stderr}", system["damaged"], system["unread"]);
    assert!(said.contains(row.expected), "{name} should say {:?}: {said}", row.expected);
    let expected = if row.newer { &[2, 6][..] } else { &[5] };
    assert!(code.is_some_and(|code| expected.contains(&code)), "{name}: exit {code:?}: {said}");
    let lost: Vec<&str> = system["backups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|backup| backup["state"] != "restores")
        .map(|backup| backup["label"].as_str().expect("a label"))
        .collect();
    assert!(row.newer || lost == row.lost, "{name}: {lost:?} is lost: {said}");
    // What info tells is no more than what is left, and telling it needs little.
    let (code, stdout, stderr) = limited(&scene, &["info", "--output", "json"]);
    assert!(!stderr.contains("bug in pgark") && code.is_some(), "{name}: {code:?} {stderr}");
    assert!(row.lost == BOTH || stdout.contains("\"two\""), "{name}: {stdout} {stderr}");
    for label in ["one", "two"] {
        let target = scene.repo.scratch().join(format!("restored-{label}"));
        let mut command = scene.repo.bootstrap_restore();
        command.arg("-D").arg(&target).arg("--socket-dir").arg(scene.repo.scratch().make_dir("s"));
        let outcome = run(command.args(["--backup", label, "--target", "immediate", "--no-start"]));
        let restores = !row.lost.contains(&label);
        assert_eq!(outcome.code == Some(0), restores, "{name}, backup {label}: {outcome}");
        assert_eq!(target.join("global/pg_control").exists(), restores, "{name}, backup {label}: {outcome}");
    }
}

#[test]
fn whole_objects_that_are_not_what_they_should_be_are_found_in_little_memory() {
    side_by_side(ROWS, |row| row.name, found);
}
