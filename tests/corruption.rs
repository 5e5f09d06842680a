//! Damage, of what is stored and of what is to be stored: each kind is found, and said in words that help. A new
//! check adds a row.

mod harness;
mod wal;

use std::fs;

use harness::*;
use wal::*;

/// One segment, the next, and the history of timeline 2, stored.
struct Stored {
    repo: TestRepo,
    server: ServerDir,
    name: &'static str,
}

impl Stored {
    fn new() -> Self {
        let names = [wal().segments(1)[0], wal().segments(1)[1], "00000002.history"];
        let (repo, server) = (impatient(), ServerDir::with(&names));
        for name in names {
            server.push(&repo, name).succeeds();
            server.remove(name);
        }
        Self { repo, server, name: names[0] }
    }

    fn key(&self) -> String {
        key_of(&self.repo, self.name)
    }

    fn replace(&self, key: &str, content: impl AsRef<[u8]>) {
        self.repo.replace(key, content);
    }

    /// Replaces text in a stored JSON object.
    fn edit(&self, key: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.repo.read(key)).expect("UTF-8");
        assert!(text.contains(from), "no {from} in {text}");
        self.replace(key, text.replace(from, to));
    }

    fn cluster_json(&self) -> String {
        self.repo.only("cluster.json")
    }
}

struct Row {
    name: &'static str,
    damage: fn(&Stored),
    expected: &'static str,
}

const fn row(name: &'static str, damage: fn(&Stored), expected: &'static str) -> Row {
    Row { name, damage, expected }
}

fn flip(stored: &Stored, offset: i64) {
    stored.repo.damage(&stored.key(), Damage::FlipByte(offset));
}

fn cut(stored: &Stored, length: u64) {
    stored.repo.damage(&stored.key(), Damage::Truncate(length));
}

const SEGMENTS: &[Row] = &[
    row("magic of the header's frame", |s| flip(s, 0), "it is not a pgark segment"),
    row("length of the header's frame", |s| flip(s, 5), "it is not a pgark segment"),
    row("header", |s| flip(s, 100), "its checksum does not match"),
    row("padding of the header", |s| flip(s, 3900), "its checksum does not match"),
    row("checksum of the header", |s| flip(s, 4090), "its checksum does not match"),
    row("start of the data", |s| flip(s, 4096), "could not decompress"),
    row("data", |s| flip(s, 20_000), ".zst"),
    row("end of the data", |s| flip(s, -1), ".zst"),
    row("nothing left", |s| cut(s, 0), "it is not a pgark segment"),
    row("cut in the header", |s| cut(s, 1000), "it is cut off"),
    row("only the header left", |s| cut(s, 4096), ".zst"),
    row("cut in the data", |s| cut(s, 20_000), ".zst"),
    row("last byte missing", |s| cut(s, s.repo.read(&s.key()).len() as u64 - 1), ".zst"),
    row(
        "another segment under this name",
        |s| s.replace(&s.key(), s.repo.read(&key_of(&s.repo, wal().segments(1)[1]))),
        "should hold 0000000100000000",
    ),
    row("unreadable", |s| s.repo.damage(&s.key(), Damage::Unreadable), "Permission denied"),
    row(
        "missing, with a later one there",
        |s| s.repo.damage(&s.key(), Damage::Delete),
        "must not end at this hole",
    ),
    row(
        "missing in a directory that can't be listed",
        |s| {
            s.repo.damage(&s.key(), Damage::Delete);
            s.unlistable("wal/00000001/00000000");
        },
        "Permission denied",
    ),
    row(
        "missing, and what might prove a hole can't be looked at",
        |s| {
            s.repo.damage(&s.key(), Damage::Delete);
            s.unsearchable("wal/00000001");
        },
        "Permission denied",
    ),
];

impl Stored {
    fn set_mode(&self, directory: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.repo.root().join("main").join(&wal().system_id).join(directory);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// What is known by name can be opened; `ls` can't.
    fn unlistable(&self, directory: &str) {
        self.set_mode(directory, 0o300);
    }

    /// `ls` shows the names; nothing can be looked at.
    fn unsearchable(&self, directory: &str) {
        self.set_mode(directory, 0o600);
    }
}

const HISTORIES: &[Row] = &[
    row("empty", |s| s.replace(&s.history(), ""), "names no parent timeline"),
    row("zeros", |s| s.replace(&s.history(), [0; 41]), "NUL byte"),
    row(
        "another timeline's",
        |s| s.replace(&s.history(), "5\t0/5000000\tx\n"),
        "timeline 5 is not below its own",
    ),
    row("unreadable", |s| s.repo.damage(&s.history(), Damage::Unreadable), "Permission denied"),
    row(
        "missing, with a segment of its timeline",
        |s| {
            s.repo.damage(&s.history(), Damage::Delete);
            let name = wal().segments(2)[1];
            s.server.put(name, wal().file(name));
            s.server.push(&s.repo, name).succeeds();
        },
        "has no history of timeline 2, but 0000000200000000",
    ),
    row(
        "missing, with that of a descendant",
        |s| {
            s.repo.damage(&s.history(), Damage::Delete);
            s.server.put("00000003.history", wal().file("00000003.history"));
            s.server.push(&s.repo, "00000003.history").succeeds();
        },
        "has no history of timeline 2, but 00000003.history: the timeline is in use",
    ),
];

impl Stored {
    fn history(&self) -> String {
        self.repo.only("00000002.history")
    }
}

/// What makes every answer impossible, of segments and histories, there or not.
const REPOSITORIES: &[Row] = &[
    row("no pgark.json", |s| s.repo.damage("pgark.json", Damage::Delete), "no repository here"),
    row("no JSON in pgark.json", |s| s.replace("pgark.json", "{"), "pgark.json: EOF"),
    row(
        "another kind of repository",
        |s| s.edit("pgark.json", "pgark repository", "restic"),
        "says \"restic\" version 1",
    ),
    row("a newer version", |s| s.edit("pgark.json", "\"version\": 1", "\"version\": 2"), "use a newer pgark"),
    row("unreadable pgark.json", |s| s.repo.damage("pgark.json", Damage::Unreadable), "Permission denied"),
];

/// What makes it impossible to say that something is absent.
const CLUSTERS: &[Row] = &[
    row(
        "no cluster.json",
        |s| s.repo.damage(&s.cluster_json(), Damage::Delete),
        "has nothing of cluster \"main\"",
    ),
    row("no JSON in cluster.json", |s| s.replace(&s.cluster_json(), "nonsense"), "cluster.json: expected"),
    row(
        "an impossible segment size",
        |s| s.edit(&s.cluster_json(), "1048576", "1048577"),
        "1048577 is not a WAL segment size",
    ),
    row(
        "unreadable cluster.json",
        |s| s.repo.damage(&s.cluster_json(), Damage::Unreadable),
        "Permission denied",
    ),
];

#[track_caller]
fn finds(stored: &Stored, row: &Row, asked: &str) {
    let outcome = stored.server.fetch(&stored.repo, asked);
    assert!(outcome.code.is_some_and(|code| code > 125 && code != 143), "{}: {outcome}", row.name);
    assert!(outcome.stderr.contains(row.expected), "{} should be {:?}: {outcome}", row.name, row.expected);
    assert_eq!(stored.server.delivered(), None, "{}", row.name);
    assert!(stored.server.wal_files().iter().all(|name| !name.contains("tmp")), "{}", row.name);
}

#[test]
fn damage_to_a_stored_segment_is_found_and_nothing_is_delivered() {
    for row in SEGMENTS {
        let stored = Stored::new();
        (row.damage)(&stored);
        finds(&stored, row, stored.name);
    }
}

#[test]
fn a_standby_is_told_to_ask_again_whatever_happened_to_a_segment() {
    for row in SEGMENTS.iter().chain(REPOSITORIES) {
        let stored = Stored::new();
        stored.server.put("../standby.signal", "");
        (row.damage)(&stored);
        let outcome = stored.server.fetch(&stored.repo, stored.name);
        assert_eq!(outcome.code, Some(1), "{}: {outcome}", row.name);
        assert!(outcome.stderr.contains(row.expected), "{}: {outcome}", row.name);
        assert_eq!(stored.server.delivered(), None, "{}", row.name);
    }
}

#[test]
fn damage_to_a_history_is_found_on_a_standby_too() {
    for row in HISTORIES.iter().chain(REPOSITORIES) {
        for standby in [false, true] {
            let stored = Stored::new();
            if standby {
                stored.server.put("../standby.signal", "");
            }
            (row.damage)(&stored);
            finds(&stored, row, "00000002.history");
        }
    }
}

#[test]
fn without_the_repository_and_the_cluster_nothing_is_called_absent() {
    for row in REPOSITORIES.iter().chain(CLUSTERS) {
        for asked in ["000000010000000000000FFF", "00000007.history"] {
            let stored = Stored::new();
            run(stored.repo.wal_fetch(stored.server.path()).args([asked, "pg_wal/RECOVERYXLOG"]))
                .fails_with(1, "");
            (row.damage)(&stored);
            finds(&stored, row, asked);
        }
    }
}

#[test]
fn what_follows_the_last_frame_does_no_harm() {
    let stored = Stored::new();
    stored.repo.damage(&stored.key(), Damage::Extend(100));
    stored.server.fetch(&stored.repo, stored.name).succeeds();
    assert!(stored.server.delivered().as_deref() == Some(wal().file(stored.name)));
}

struct Source {
    name: &'static str,
    damage: fn(&mut Vec<u8>),
    expected: &'static str,
}

const fn source(name: &'static str, damage: fn(&mut Vec<u8>), expected: &'static str) -> Source {
    Source { name, damage, expected }
}

/// A segment that is not what its name says.
const SOURCES: &[Source] = &[
    source("magic", |b| b[0] ^= 0xFF, "page magic"),
    source("flags", |b| b[2] ^= 0x10, "unknown page flags"),
    source("no long header", |b| b[2] ^= 2, "short header of a page from the middle"),
    source("later timeline", |b| b[4] = 9, "timeline 9, which is later than its name's"),
    source("no timeline", |b| b[4] = 0, "timeline 0 does not exist"),
    source("page address", |b| b[10] ^= 0x40, "but its name says 0/"),
    source("odd page address", |b| b[9] ^= 0x40, "is not the start of a segment"),
    source("system identifier", |b| b[24] ^= 1, "its header says system identifier"),
    source("segment size", |b| b[34] ^= 1, "is not a WAL segment size"),
    source("another segment size", |b| b[34..36].copy_from_slice(&[0x20, 0]), "2097152"),
    source("block size", |b| b[36] = 1, "is not a WAL block size"),
    source("nothing", |b| b.clear(), "0 bytes are fewer than its header's"),
    source("cut in the header", |b| b.truncate(39), "39 bytes are fewer than its header's"),
    source("cut off", |b| b.truncate(8192), "it is 8192 bytes long, but its header says 1048576"),
    source("too long", |b| b.push(0), "it is 1048577 bytes long, but its header says 1048576"),
    source("zeros", |b| b.fill(0), "the file starts with zeros"),
];

#[test]
fn a_segment_that_is_not_what_its_name_says_is_refused_and_leaves_nothing() {
    let repo = TestRepo::init();
    for row in SOURCES {
        let name = wal().segments(1)[0];
        let server = ServerDir::new();
        let mut content = wal().file(name).to_vec();
        (row.damage)(&mut content);
        server.put(name, &content);
        let outcome = server.push(&repo, name);
        assert_eq!(outcome.code, Some(5), "{}: {outcome}", row.name);
        assert!(
            outcome.stderr.contains(row.expected),
            "{} should be {:?}: {outcome}",
            row.name,
            row.expected
        );
        assert_eq!(repo.list(), ["pgark.json"], "{}", row.name);
    }
}

#[test]
fn a_segment_under_another_segments_name_is_refused() {
    let repo = TestRepo::init();
    let server = ServerDir::new();
    let name = wal().segments(1)[0];
    for wrong in ["000000010000000000000FFE", "000000010000000100000001", "000000010000000000001001"] {
        server.put(wrong, wal().file(name));
        server.push(&repo, wrong).fails_with(5, wrong);
    }
    assert_eq!(repo.list(), ["pgark.json"]);
}
