//! The table {damage, what verify says, what it costs}.

use std::path::Path;

use crate::harness::*;
use crate::scene::*;

struct Row {
    name: &'static str,
    damage: fn(&Scene),
    code: i32,
    /// What it says of a damaged object.
    expected: &'static str,
    /// Backups that do not restore.
    lost: &'static [&'static str],
    /// Windows that are left: timeline and backup. None: as before.
    left: Option<&'static [&'static str]>,
}

const fn row(
    name: &'static str,
    damage: fn(&Scene),
    expected: &'static str,
    lost: &'static [&'static str],
    left: Option<&'static [&'static str]>,
) -> Row {
    Row { name, damage, code: 5, expected, lost, left }
}

/// Without damage.
const BEFORE: &[&str] = &["1 one", "2 one"];
const FROM_TWO: Option<&[&str]> = Some(&["1 two", "2 two"]);
const NOTHING: Option<&[&str]> = Some(&[]);
const BOTH: &[&str] = &["one", "two"];

fn pack(scene: &Scene, damage: Damage) {
    scene.repo.damage(&scene.packs("one")[0], damage);
}

fn object(scene: &Scene, part: &str, damage: Damage) {
    scene.repo.damage(&scene.key(&[part]), damage);
}

fn segment(scene: &Scene, name: &str, damage: Damage) {
    scene.repo.damage(&scene.segment(name), damage);
}

fn length(scene: &Scene, key: &str) -> u64 {
    scene.repo.read(key).len() as u64
}

fn golden(key: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1").join(key)).expect("read")
}

const BACKUPS: &[Row] = &[
    row("a byte of a frame", |s| pack(s, Damage::FlipByte(5000)), "its SHA-256 is", &["one"], FROM_TWO),
    row("the list of a pack", |s| pack(s, Damage::FlipByte(-100)), "could not read the list", &[], None),
    row("the trailer of a pack", |s| pack(s, Damage::FlipByte(-1)), "CRC-32C", &[], None),
    row(
        "half a pack",
        |s| pack(s, Damage::Truncate(length(s, &s.packs("one")[0]) / 2)),
        "bytes, expected",
        &["one"],
        FROM_TWO,
    ),
    row("nothing of a pack", |s| pack(s, Damage::Truncate(0)), "has 0 bytes", &["one"], FROM_TWO),
    row("a longer pack", |s| pack(s, Damage::Extend(10)), "bytes, expected", &[], None),
    row(
        "no pack",
        |s| pack(s, Damage::Delete),
        "is missing, though backup one refers to it",
        &["one"],
        FROM_TWO,
    ),
    row(
        "packs exchanged",
        |s| s.replace(&s.packs("one")[0], s.repo.read(&s.packs("two")[0])),
        "bytes, expected",
        &["one"],
        FROM_TWO,
    ),
    row(
        "a byte of a map",
        |s| object(s, "/one/files", Damage::FlipByte(100)),
        "could not read chunk 0",
        &["one"],
        FROM_TWO,
    ),
    row(
        "the list of a map",
        |s| object(s, "/one/files", Damage::FlipByte(-100)),
        "could not read",
        &["one"],
        FROM_TWO,
    ),
    row(
        "half a map",
        |s| object(s, "/one/files", Damage::Truncate(900)),
        "it has 900 bytes",
        &["one"],
        FROM_TWO,
    ),
    row(
        "a longer map",
        |s| object(s, "/one/files", Damage::Extend(1)),
        "bytes, expected",
        &["one"],
        FROM_TWO,
    ),
    row(
        "no map",
        |s| object(s, "/one/files", Damage::Delete),
        "is missing, though backup one",
        &["one"],
        FROM_TWO,
    ),
    row(
        "the map of another backup",
        |s| s.replace(&s.key(&["/one/files"]), s.repo.read(&s.key(&["/two/files"]))),
        "expected",
        &["one"],
        FROM_TWO,
    ),
    row(
        "a byte of a header",
        |s| object(s, "/one/backup.json", Damage::FlipByte(500)),
        "SHA-256",
        &["one"],
        FROM_TWO,
    ),
    row(
        "nothing of a header",
        |s| object(s, "/one/backup.json", Damage::Truncate(0)),
        "header_sha256",
        &["one"],
        FROM_TWO,
    ),
    row(
        "the header of another backup",
        |s| s.replace(&s.key(&["/one/backup.json"]), s.repo.read(&s.key(&["/two/backup.json"]))),
        "is the header of backup two",
        &["one"],
        FROM_TWO,
    ),
];

/// A segment between the two backups: what lies between it and backup two is lost.
const BETWEEN: Option<&[&str]> = Some(&["1 one", "1 two", "2 two"]);

const WAL: &[Row] = &[
    row(
        "a byte of a segment's header",
        |s| segment(s, &s.facts.middle, Damage::FlipByte(100)),
        "checksum",
        &[],
        BETWEEN,
    ),
    row("a byte of a segment", |s| segment(s, &s.facts.middle, Damage::FlipByte(4150)), ".zst", &[], BETWEEN),
    row(
        "the last byte of a segment",
        |s| segment(s, &s.facts.middle, Damage::FlipByte(-1)),
        ".zst",
        &[],
        BETWEEN,
    ),
    row("half a segment", |s| segment(s, &s.facts.middle, Damage::Truncate(4150)), ".zst", &[], BETWEEN),
    row(
        "nothing of a segment",
        |s| segment(s, &s.facts.middle, Damage::Truncate(0)),
        "not a pgark segment",
        &[],
        BETWEEN,
    ),
    row("no segment", |s| segment(s, &s.facts.middle, Damage::Delete), "", &[], BETWEEN),
    row(
        "another segment",
        |s| s.replace(&s.segment(&s.facts.middle), s.repo.read(&s.segment(&s.facts.late))),
        "should hold",
        &[],
        BETWEEN,
    ),
    row(
        "a segment of another system",
        |s| {
            let foreign =
                golden("main/7650000000000000001/wal/00000001/00000000/00000001000000000000000A.zst");
            s.replace(&s.segment(&s.facts.middle), foreign);
        },
        "is not what its place says: system identifier",
        &[],
        BETWEEN,
    ),
    row(
        "a segment that backup one needs",
        |s| segment(s, &s.start_of("one"), Damage::FlipByte(4150)),
        ".zst",
        &["one"],
        FROM_TWO,
    ),
    row(
        "no segment that backup two needs",
        |s| segment(s, &s.start_of("two"), Damage::Delete),
        "",
        &["two"],
        Some(&["1 one"]),
    ),
    row(
        "a segment of the new timeline",
        |s| segment(s, &s.facts.newest, Damage::FlipByte(4150)),
        ".zst",
        &[],
        // Both go on to the segment before it.
        Some(BEFORE),
    ),
    row(
        "a history that contradicts its parent's",
        |s| {
            s.replace(
                &s.key(&["00000002.history"]).replace("00000002.h", "00000003.h"),
                "1\t0/100\tx\n2\t0/200\ty\n",
            )
        },
        "00000003.history contradicts 00000002.history",
        &[],
        None,
    ),
    row("a .partial", |s| object(s, ".partial.", Damage::FlipByte(4150)), ".partial.", &[], None),
    row(
        "a backup history file",
        |s| {
            let key = s.repo.matching(".backup").remove(0);
            s.repo.damage(&key, Damage::FlipByte(3));
        },
        "could not read backup history file",
        &[],
        None,
    ),
];

const ALL: &[Row] = &[
    row(
        "a history",
        |s| s.replace(&s.key(&["00000002.history"]), "1\t0/Z\tx\n"),
        "a switch point",
        BOTH,
        NOTHING,
    ),
    row(
        "nothing of a history",
        |s| object(s, "00000002.history", Damage::Truncate(0)),
        "names no parent",
        BOTH,
        NOTHING,
    ),
    row(
        "no history",
        |s| object(s, "00000002.history", Damage::Delete),
        "is missing, but there is WAL",
        BOTH,
        NOTHING,
    ),
    row("cluster.json", |s| object(s, "cluster.json", Damage::FlipByte(20)), "could not read", BOTH, NOTHING),
    row("no cluster.json", |s| object(s, "cluster.json", Damage::Delete), "is missing", BOTH, NOTHING),
];

/// Small objects, without which everything restores.
const RECORDS: &[Row] = &[
    row(
        "the cluster.json of another system",
        |s| s.replace(&s.key(&["cluster.json"]), golden("main/7650000000000000001/cluster.json")),
        "says system identifier 7650000000000000001",
        &[],
        None,
    ),
    row("a lease", |s| s.replace(&record(s, "lease"), "{"), "lease/", &[], None),
    row("a gap", |s| s.replace(&record(s, "gap"), "{\"format\":\"pgark gap\"}"), "missing field", &[], None),
    row(
        "the pin of something else",
        |s| s.replace(&record(s, "pin"), "{\"format\":\"pgark lease\",\"version\":1}"),
        "says \"pgark lease\", expected \"pgark pin\"",
        &[],
        None,
    ),
    row("a record of a verification", |s| s.replace(&record(s, "verified"), "?"), "verified/", &[], None),
];

/// A key for a record that is not there yet.
fn record(scene: &Scene, kind: &str) -> String {
    let directory = format!("main/{}/{kind}", scene.facts.system_id);
    let root = scene.repo.root().strip_prefix(scene.repo.scratch().path()).expect("inside").to_path_buf();
    scene.repo.scratch().make_dir(root.join(&directory));
    format!("{directory}/00112233445566778899aabbccddeeff.json")
}

#[track_caller]
fn finds(row: &Row) -> (Scene, Verified) {
    let scene = Scene::new();
    (row.damage)(&scene);
    let verified = scene.verify(&[]);
    let (name, outcome) = (row.name, &verified.outcome);
    assert_eq!(outcome.code, Some(row.code), "{name}: {outcome}");
    if row.expected.is_empty() {
        assert_eq!(verified.damaged(), [], "{name}: {outcome}");
        assert_eq!(verified.system()["holes"]["count"], 1, "{name}: {outcome}");
    } else {
        let said = verified.damaged();
        let fits = |(key, what): &(String, String)| what.contains(row.expected) || key.contains(row.expected);
        assert!(said.iter().any(fits), "{name} should say {:?}: {outcome}", row.expected);
        assert_eq!(said.len(), 1, "{name}: one object is damaged: {outcome}");
    }
    assert_eq!(verified.lost(), row.lost, "{name}: {outcome}");
    let left = row.left.unwrap_or(BEFORE);
    assert_eq!(verified.windows("after"), left, "{name}: {outcome}");
    // The text names the same.
    let text = run(&mut scene.repo.pgark(&["verify"]));
    assert_eq!(text.code, Some(row.code), "{name}: {text}");
    assert!(text.stdout.contains("DAMAGED"), "{name}: {text}");
    for label in row.lost {
        assert!(text.stdout.contains(&format!("backup {label} does not restore")), "{name}: {text}");
    }
    (scene, verified)
}

/// Whether a backup restores, up to where it is consistent.
fn restores(scene: &Scene, label: &str) -> Outcome {
    let scratch = Scratch::new();
    let target = scratch.join("data");
    let mut command = scene.repo.bootstrap_restore();
    command.arg("-D").arg(&target).arg("--socket-dir").arg(scratch.make_dir("s"));
    let outcome = run(command.args(["--backup", label, "--target", "immediate"]));
    if outcome.code == Some(0) {
        Cluster::adopt(&target).psql("select count(*) from zero");
    }
    outcome
}

#[test]
fn what_servers_filled_is_sound() {
    let scene = Scene::new();
    for arguments in
        [&[][..], &["--deep"], &["--jobs", "1"], &["--backup", "two"], &["--backup", "one", "--deep"]]
    {
        let verified = scene.verify(arguments);
        verified.is_sound();
        assert_eq!(verified.system()["recorded"], true);
        assert_eq!(verified.system()["foreign_objects"]["count"], 0, "{}", verified.outcome);
    }
    let verified = scene.verify(&[]);
    assert_eq!(verified.windows("before"), BEFORE);
    assert_eq!(verified.windows("after"), BEFORE);
    assert_eq!(verified.system()["read"]["backups"], 2);
    let stored = scene
        .repo
        .matching(".zst")
        .iter()
        .filter(|key| !key.contains(".partial.") && key.contains("/wal/"))
        .count();
    assert_eq!(verified.system()["read"]["segments"], stored);
    let text = run(&mut scene.repo.pgark(&["verify"])).succeeds();
    assert!(text.contains(": sound\n") && text.contains("read everything"), "{text}");
}

#[test]
fn damage_to_a_backup_costs_that_backup() {
    for row in BACKUPS {
        let (_, verified) = finds(row);
        assert!(!verified.windows("before").is_empty(), "{}", row.name);
    }
}

#[test]
fn damage_to_wal_costs_what_lies_behind_it_up_to_the_next_backup() {
    for row in WAL {
        let (_, verified) = finds(row);
        assert_eq!(verified.windows("before"), BEFORE, "{}", row.name);
    }
}

#[test]
fn damage_to_what_all_depends_on_costs_everything() {
    ALL.iter().for_each(|row| drop(finds(row)));
}

#[test]
fn damage_to_a_record_costs_no_restore() {
    RECORDS.iter().for_each(|row| drop(finds(row)));
}

#[test]
fn what_verify_calls_lost_is_refused_and_what_it_calls_good_restores() {
    let asked = [
        "a byte of a frame",
        "the list of a pack",
        "no map",
        "a byte of a segment",
        "a segment that backup one needs",
    ];
    let rows: Vec<&Row> = BACKUPS
        .iter()
        .chain(WAL)
        .chain(ALL)
        .filter(|row| asked.contains(&row.name) || ALL.iter().any(|all| all.name == row.name))
        .collect();
    assert_eq!(rows.len(), asked.len() + ALL.len());
    for row in rows {
        let scene = Scene::new();
        (row.damage)(&scene);
        for label in BOTH {
            let outcome = restores(&scene, label);
            let expected = !row.lost.contains(label);
            assert_eq!(outcome.code == Some(0), expected, "{}, backup {label}: {outcome}", row.name);
        }
    }
}

#[test]
fn the_files_that_lie_in_a_damaged_frame_are_named() {
    let scene = Scene::new();
    pack(&scene, Damage::FlipByte(5000));
    let verified = scene.verify(&[]);
    let files = verified.files("one");
    assert!(!files.is_empty() && files.iter().all(|file| !file.starts_with('/')), "{files:?}");
    let text = run(&mut scene.repo.pgark(&["verify"])).stdout;
    assert!(text.contains(&files[0]), "{text}");
    // Alone, each backup is judged for itself.
    assert_eq!(scene.verify(&["--backup", "one"]).lost(), ["one"]);
    scene.verify(&["--backup", "two"]).is_sound();
}

#[test]
fn without_pgark_json_nothing_is_verified() {
    let scene = Scene::new();
    scene.repo.damage("pgark.json", Damage::FlipByte(30));
    scene.verify(&[]).outcome.fails_with(5, "pgark.json");
    scene.repo.damage("pgark.json", Damage::Delete);
    scene.verify(&[]).outcome.fails_with(2, "no repository here");
}

#[test]
fn what_can_not_be_read_is_no_damage() {
    let scene = Scene::new();
    segment(&scene, &scene.facts.middle, Damage::Unreadable);
    scene.repo.damage(&scene.packs("one")[0], Damage::Unreadable);
    let verified = scene.verify(&[]);
    assert_eq!(verified.outcome.code, Some(6), "{}", verified.outcome);
    assert_eq!(verified.json["verdict"], "incomplete");
    let unread = &verified.system()["unread"];
    assert!(unread["count"].as_u64() >= Some(2), "{unread}");
    assert!(unread["first"].to_string().contains("Permission denied"), "{unread}");
    assert_eq!(verified.damaged(), []);
    // Damage besides it has the last word.
    pack_of_two(&scene);
    assert_eq!(scene.verify(&[]).outcome.code, Some(5));
}

fn pack_of_two(scene: &Scene) {
    scene.repo.damage(&scene.packs("two")[0], Damage::FlipByte(5000));
}

#[test]
fn what_is_no_object_is_told_and_harms_nobody() {
    let scene = Scene::new();
    let base = format!("main/{}", scene.facts.system_id);
    let places =
        ["notes.txt", "pack/x.pack", "wal/00000001/README", "wal/00000001/00000000/00000009.zst", "pin/x"];
    for place in places {
        let path = scene.repo.path(&format!("{base}/{place}"));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, "x").expect("written");
    }
    let verified = scene.verify(&[]);
    verified.is_sound();
    // What lies beside log directories is not looked at by anybody.
    assert_eq!(
        verified.system()["foreign_objects"]["count"],
        places.len() as u64 - 1,
        "{}",
        verified.outcome
    );
}

#[test]
fn what_is_not_there_is_told() {
    let scene = Scene::new();
    scene.verify(&["--backup", "three"]).outcome.fails_with(3, "there is no backup three");
    scene.verify(&["--system-id", "7"]).outcome.fails_with(3, "system identifier 7");
    run(&mut scene.repo.pgark(&["verify", "--for", "1min", "--backup", "one"])).fails_with(2, "--backup");
}
