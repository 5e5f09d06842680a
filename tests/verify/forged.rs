//! The table {forgery, what verify says, what a restore says}: somebody who can write the repository makes objects
//! that are not what a backup wrote, with every digest right. No program panics, no restore writes outside of its
//! target or ends with a server, and the other backup is untouched.

use serde_json::{Value, json};

use crate::harness::*;
use crate::scene::*;

/// What verify says of what only a file system can refuse.
const SOUND: &str = "(sound)";

struct Row {
    name: &'static str,
    forge: fn(&mut ForgedBackup),
    /// What verify says of it.
    verify: &'static str,
    /// What a restore says.
    restore: &'static str,
}

const fn row(
    name: &'static str,
    forge: fn(&mut ForgedBackup),
    verify: &'static str,
    restore: &'static str,
) -> Row {
    Row { name, forge, verify, restore }
}

/// Where rows try to write to. The first is what `../` of a target leads to.
const OUTSIDE: [&str; 2] = ["escaped", "/tmp/pgark-test-escaped"];

fn first_slice(backup: &mut ForgedBackup) -> &mut Value {
    &mut backup.stored_file()["slices"][0]
}

/// An empty file at a path.
fn plant(backup: &mut ForgedBackup, path: &str) {
    backup.insert(map_line("file", path, 0, json!([])));
}

const MAPS: &[Row] = &[
    row(
        "a slice outside its frame",
        |b| first_slice(b)[2] = json!(1 << 30),
        "of a frame of",
        "of a frame of",
    ),
    row(
        "a slice of no frame",
        |b| first_slice(b)[1] = json!(99_999),
        "a slice of frame 99999",
        "frame 99999",
    ),
    row("a slice of nothing", |b| first_slice(b)[0] = json!(0), "a slice of 0 bytes", "a slice of 0 bytes"),
    row("a negative slice", |b| first_slice(b)[0] = json!(-8192), "invalid value", "invalid value"),
    row("a slice of 1e308 bytes", |b| first_slice(b)[0] = json!(1e308), "invalid type", "invalid type"),
    row(
        "slices that overlap",
        |b| b.stored_file()["at"] = json!(4096),
        "has slices up to byte",
        "has slices up",
    ),
    row(
        "a missing slice",
        |b| drop(b.stored_file()["slices"].as_array_mut().expect("slices").remove(0)),
        "has slices up to byte",
        "has slices up to byte",
    ),
    row(
        "more bytes than a file can have",
        |b| {
            let line = map_line("file", "base/huge", u64::MAX, json!([[u64::MAX]]));
            b.insert(line);
        },
        "larger than a file can be",
        "is larger than a file can be",
    ),
    row(
        "a frame outside its pack",
        |b| b.frame()["offset"] = json!(1 << 29),
        "frame",
        "the pack ends at byte",
    ),
    row("a frame at 2^64", |b| b.frame()["offset"] = json!(u64::MAX), "frame", "can't be there"),
    row("a frame of a pack that is not there", |b| b.frame()["pack"] = json!(NO_PACK), "pack", NO_PACK),
    row("a frame that claims too much", |b| b.frame()["raw"] = json!(16 << 20), "frame", "expected 16777216"),
    row("a frame that claims 4 GiB", |b| b.frame()["raw"] = json!(u32::MAX), "frame", "more than the limit"),
    row(
        "a frame that holds more than it claims",
        |b| b.frame()["raw"] = json!(10),
        "of a frame of 10",
        "of a frame of 10",
    ),
    row("a stored frame of 4 GiB", |b| b.frame()["stored"] = json!(u32::MAX), "frame", "can't be there"),
    row("unsorted paths", |b| b.chunks[0].swap(2, 5), "not in order", "not in order"),
    row(
        "the same path twice",
        |b| {
            let line = b.entry("PG_VERSION").clone();
            b.insert(line);
        },
        "not in order",
        "not in order",
    ),
    row("a chunk without entries", |b| b.chunks[0].truncate(1), "it is empty", "it is empty"),
    row("no chunk at all", |b| b.chunks.clear(), "can't be right: it has 0 files", "it has 0 files"),
    row(
        "a final chunk in front",
        |b| b.list[0]["final"] = json!(true),
        "does not end where",
        "does not end where",
    ),
    row(
        "frames without end",
        |b| b.chunks[0].insert(0, json!({"frames": vec![json!({}); 300]})),
        "missing field",
        "missing field",
    ),
    row("a link", |b| b.insert_first(map_line("symlink", "a", 0, json!([]))), "unknown kind", "unknown kind"),
    row(
        "more files than the header says",
        |b| {
            let files = b.header["map"]["files"].as_u64().expect("a number");
            b.header["map"]["files"] = json!(files - 1);
        },
        "can't be right: it has",
        "can't be right: it has",
    ),
    row(
        "a path above",
        |b| b.insert_first(map_line("file", "../escaped", 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row(
        "a path above from below",
        |b| b.insert_first(map_line("file", "base/../../escaped", 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row(
        "a path from the root",
        |b| b.insert_first(map_line("file", OUTSIDE[1], 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row(
        "a directory above",
        |b| b.insert_first(map_line("directory", "..", 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row("an empty path", |b| b.insert_first(map_line("file", "", 0, json!([]))), "not a path", "not a path"),
    row(
        "a path of dots",
        |b| b.insert_first(map_line("file", "./a", 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row(
        "a path with NUL",
        |b| b.insert_first(map_line("file", "a\0b", 0, json!([]))),
        "not a path",
        "not a path",
    ),
    row(
        "an escaped path above",
        |b| b.insert_first(map_line("file", "%2E%2E/a", 0, json!([]))),
        "file name",
        "file name",
    ),
    row("a path of 5000 bytes", |b| plant(b, &"x".repeat(5000)), "not a path", "not a path"),
    row("a name of 300 bytes", |b| plant(b, &"x".repeat(300)), SOUND, "File name too long"),
    row("a file in a file", |b| plant(b, "PG_VERSION/a"), SOUND, "PG_VERSION/a"),
    row("a file in no directory", |b| plant(b, "base/99999/1259"), SOUND, "base/99999/1259"),
    row("a tablespace map", |b| plant(b, "tablespace_map"), "tablespace_map", "tablespace_map"),
    row("a standby's signal", |b| plant(b, "standby.signal"), "standby.signal", "standby.signal"),
    row("a lock file", |b| plant(b, "postmaster.pid"), "postmaster.pid", "postmaster.pid"),
    row(
        "a control file that does not come last",
        |b| plant(b, "global/pg_control"),
        "pg_control",
        "pg_control",
    ),
    row(
        "a configuration that comes last",
        |b| {
            let line = map_line("file", "postgresql.auto.conf", 0, json!([]));
            b.count(&line);
            b.chunks.last_mut().expect("a chunk").push(line);
        },
        "postgresql.auto.conf",
        "postgresql.auto.conf",
    ),
    row("a record of a restore", |b| plant(b, "pgark-restore.json"), "no backup holds", "pgark-restore.json"),
    row("a key for a login", |b| plant(b, "pg_tblspc/16400/.ssh"), "no backup holds", "pg_tblspc/16400/.ssh"),
];

const NO_PACK: &str = "00112233445566778899aabbccddeeff-00000000";

#[track_caller]
fn refused(row: &Row) {
    let scene = Scene::new();
    forge_backup(&scene.repo, "one", row.forge);
    let verified = scene.verify(&[]);
    let name = row.name;
    let said = verified.damaged();
    let sound = row.verify == SOUND;
    assert_eq!(verified.outcome.code, Some(if sound { 0 } else { 5 }), "{name}: {}", verified.outcome);
    assert_eq!(verified.lost(), if sound { &[][..] } else { &["one"] }, "{name}: {said:?}");
    assert!(
        sound || said.iter().any(|(_, what)| what.contains(row.verify)),
        "{name}, {:?}: {said:?}",
        row.verify
    );

    let scratch = Scratch::new();
    let target = scratch.join("data");
    let mut command = scene.repo.bootstrap_restore();
    command.arg("-D").arg(&target).arg("--socket-dir").arg(scratch.make_dir("s"));
    let outcome = run(command.args(["--backup", "one", "--target", "immediate"]));
    assert!(matches!(outcome.code, Some(1..=125)), "{name}: {outcome}");
    assert!(!outcome.stderr.contains("a bug in pgark"), "{name}: {outcome}");
    assert!(outcome.stderr.contains(row.restore), "{name}, {:?}: {outcome}", row.restore);
    assert!(!target.join("global/pg_control").exists(), "{name}: {outcome}");
    for outside in OUTSIDE {
        assert!(!scratch.join(outside).exists(), "{name}: wrote to {outside}");
    }
}

#[test]
fn a_map_that_no_backup_wrote_is_refused_and_nothing_is_written_outside() {
    side_by_side(MAPS, |row| row.name, refused);
}
