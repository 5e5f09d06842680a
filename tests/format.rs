//! Today's reader reads what format version 1 wrote: the repository in `tests/format/v1`, whose files are
//! never edited once released. `docs/repository-format.md` describes them.

mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use pgark::ident::Name;
use pgark::interrupt::Interrupt;
use pgark::ops::restore::files::{FilesJob, restore_files};
use pgark::ops::restore::place::Places;
use pgark::pg::history::TimelineHistory;
use pgark::pg::lsn::{SegmentSize, Timeline};
use pgark::pg::oid::Oid;
use pgark::progress::{Display, Progress};
use pgark::repo::backup::{self, BackupHeader};
use pgark::repo::expired::Gone;
use pgark::repo::verified::{self, Stage};
use pgark::repo::{Cluster, gap, lease, pack};

use golden::{cluster, golden};

fn label() -> Name {
    "20261123-031000".parse().expect("name")
}

#[test]
fn a_header_of_version_1_says_the_same_as_when_it_was_written() {
    let headers = backup::list(&cluster()).expect("readable");
    let [header] = headers.as_slice() else { panic!("{} headers", headers.len()) };
    assert_eq!(header.label, label());
    assert_eq!(header.start.redo_segment.to_string(), "000000010000000000000002");
    assert_eq!(header.consistent_lsn.to_string(), "0/2000100");
    assert_eq!(header.packs.len(), 2);
    assert_eq!(header.locale.databases[0].collation_version.as_deref(), Some("2.36"));
    let file = golden().join("main/7650000000000000001/backup/20261123-031000/backup.json");
    let mut stored: serde_json::Value = serde_json::from_slice(&fs::read(file).expect("read")).expect("json");
    assert!(stored.as_object_mut().expect("an object").remove("header_sha256").is_some());
    assert_eq!(serde_json::to_value(header).expect("json"), stored, "nothing is lost in reading");
}

#[test]
fn a_lease_of_version_1_names_its_holder() {
    let leases = lease::list(&cluster()).expect("readable");
    let record = leases[0].record.as_ref().expect("a record");
    assert_eq!((record.label.clone(), record.process.pid), (Some(label()), 4711));
}

#[test]
fn a_gap_of_version_1_says_what_was_dropped() {
    let gaps = gap::list(&cluster()).expect("readable");
    let [gap] = gaps.as_slice() else { panic!("{} gaps", gaps.len()) };
    assert_eq!(gap.first.to_string(), "00000001000000000000000D");
    assert_eq!(gap.numbers().expect("possible"), 13..=13);
    assert_eq!((gap.since, gap.host.as_str()), ("2026-11-23T03:00:00Z".parse().expect("a time"), "db1"));
}

#[test]
fn records_of_verifications_of_version_1_say_what_was_found() {
    let pack = "0123456789abcdef0123456789abcdef-00000000".parse().expect("an id");
    let verifications = verified::verifications(&cluster()).expect("readable");
    let [verification] = verifications.as_slice() else { panic!("{} records", verifications.len()) };
    assert_eq!((verification.record.damaged, verification.record.sound), (1, false));
    assert_eq!(verification.record.lost_backups_first, [label()]);
    let (position, ids) = verified::position(&cluster()).expect("readable");
    let reached = position.and_then(|position| position.reached).expect("a place");
    assert_eq!((reached.stage, reached.part, ids.len()), (Stage::Packs, 1, 1));
    let damaged = verified::damaged_packs(&cluster()).expect("readable");
    assert_eq!((damaged[&pack].frames.clone(), damaged[&pack].whole), ([0].into(), false));
}

#[test]
fn a_record_of_version_1_says_which_wal_has_expired() {
    let size = SegmentSize::try_from(1 << 20).expect("a size");
    let gone = Gone::read(&cluster(), size).expect("readable");
    let path = TimelineHistory::without_parents(Timeline(1));
    assert!(gone.has(&path, &(3..=6), size) && !gone.has(&path, &(6..=7), size));
}

#[test]
fn packs_of_version_1_list_their_frames() {
    let header = backup::read(&cluster(), &label()).expect("readable");
    let frames = header.packs.iter().flat_map(|pack| pack::list_frames(&cluster(), pack.id).expect("listed"));
    let sizes: Vec<u32> = frames.map(|frame| frame.raw).collect();
    assert_eq!(sizes, [8198, 40, 13]);
}

#[test]
fn a_backup_of_version_1_restores() {
    let cluster = cluster();
    let header = backup::read(&cluster, &label()).expect("readable");
    let dir = tempfile::tempdir().expect("tempdir");
    restore(&cluster, &header, dir.path());
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir.path()) {
        let entry = entry.expect("entry");
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(dir.path()).expect("below").to_string_lossy().into_owned();
            found.insert(name, fs::read(entry.path()).expect("read"));
        }
    }
    let page: Vec<u8> = b"page of an earlier backup ".iter().cycle().take(8192).copied().collect();
    let many: Vec<u8> = (0..550).flat_map(|n| [b"abc"[n % 3], 0]).collect();
    let expected: [(&str, Vec<u8>); 7] = [
        ("config/etc/postgresql/15/main/postgresql.conf", b"port = 5432\n".to_vec()),
        ("data/base/1/1259", [page, vec![0; 8192]].concat()),
        ("data/base/1/empty", Vec::new()),
        ("data/base/1/many", many),
        ("data/global/pg_control", b"control file\n".to_vec()),
        ("data/odd 100% \u{fffd}", b"small\n".to_vec()),
        ("fast/PG_15_202209061/16401", b"another tablespace\n".to_vec()),
    ];
    let expected = expected.map(|(name, bytes)| (name.to_string(), bytes));
    assert_eq!(found, BTreeMap::from(expected));
}

fn restore(cluster: &Cluster, header: &BackupHeader, dir: &Path) {
    let job = FilesJob {
        cluster,
        header,
        places: Places {
            data: dir.join("data"),
            tablespaces: BTreeMap::from([(Oid(16400), dir.join("fast"))]),
            config: dir.join("config"),
        },
        jobs: NonZeroUsize::MIN,
        progress: &Progress::start(Display::Silent, "restoring"),
        interrupt: &Interrupt::default(),
    };
    restore_files(&job).and_then(|unfinished| unfinished.complete()).expect("restored");
}

/// The commands of `docs/repository-format.md`, with the tools that it names.
#[test]
fn ordinary_tools_read_version_1() {
    let cluster = golden().join("main/7650000000000000001");
    let shell = |command: &str| {
        let output =
            Command::new("bash").args(["-ec", command]).current_dir(&cluster).output().expect("bash");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors} (apt-get install zstd jq coreutils)");
        String::from_utf8(output.stdout).expect("text")
    };
    let map = "backup/20261123-031000/files.jsonl.zst";
    let header = "backup/20261123-031000/backup.json";
    assert_eq!(
        shell(&format!("jq -r .map.sha256 {header}")),
        shell(&format!("sha256sum < {map} | cut -c-64"))
    );
    let sed = r#"sed "s/\"header_sha256\": \".*\"/\"header_sha256\": \"$(printf %064d 0)\"/""#;
    let digest = shell(&format!("{sed} {header} | sha256sum | cut -c-64"));
    assert_eq!(shell(&format!("jq -r .header_sha256 {header}")), digest);
    let size = format!("zstd -dc {map} | jq -s 'map(.size // 0) | add'");
    assert_eq!(shell(&size), shell(&format!("jq .map.raw_bytes {header}")));
    assert_eq!(
        shell("zstd -dc pack/fedcba9876543210fedcba9876543210-00000000.pack"),
        "small\nanother tablespace\nport = 5432\nabccontrol file\n"
    );
    let file = r#"
        zstd -dc backup/20261123-031000/files.jsonl.zst |
            jq -c 'if .frames then . else select(.path == "global/pg_control") end' | tail -2 |
            jq -rs '(.[0].frames[0]) as $f | (.[1].slices[0]) as $s |
                "\($f.pack) \($f.offset + 1) \($f.stored) \($s[2] + 1) \($s[0])"' |
            while read pack offset stored start length; do
                tail -c +$offset pack/$pack.pack | head -c $stored | zstd -dc | tail -c +$start | head -c $length
            done"#;
    assert_eq!(shell(file), "control file\n");
}
