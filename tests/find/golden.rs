//! What each major version of PostgreSQL really wrote (`tests/wal/`), pushed and searched by the real programs. CI has
//! PostgreSQL 15 only; these keep 14 to 18 covered.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pgark::pg::names::SegmentName;
use pgark::pg::oid::Oid;
use pgark::pg::wal::{ClassRow, Event, Extent, Interest, RowChange, SegmentHeader, Walk, Watching};
use serde_json::Value;

use crate::harness::*;

/// The segment of a major version: its name and its bytes.
fn golden(major: u32) -> (SegmentName, Vec<u8>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wal");
    let paths = fs::read_dir(directory).expect("tests/wal").map(|entry| entry.expect("an entry").path());
    let prefix = format!("{major}-");
    let name = |path: &PathBuf| -> Option<SegmentName> {
        path.file_name()?.to_str()?.strip_prefix(&prefix)?.strip_suffix(".zst")?.parse().ok()
    };
    let (path, name) = paths.filter_map(|path| Some((path.clone(), name(&path)?))).next().expect("one");
    (name, zstd::decode_all(File::open(path).expect("open")).expect("zstd"))
}

fn archive(major: u32) -> TestRepo {
    let (name, bytes) = golden(major);
    let repo = TestRepo::init();
    let data = Scratch::new();
    data.make_dir("pg_wal");
    data.write(format!("pg_wal/{name}"), bytes);
    run(repo.wal_push(data.path()).arg(format!("pg_wal/{name}"))).succeeds();
    repo
}

fn find(repo: &TestRepo, flags: &[&str]) -> Vec<Value> {
    let printed = run(repo.pgark(&["find", "--output", "json", "--no-server"]).args(flags)).succeeds();
    let json: Value = serde_json::from_str(&printed).expect("JSON");
    assert_matches_schema("find", &json);
    json["hits"].as_array().expect("hits").clone()
}

#[test]
fn every_major_tells_what_was_dropped() {
    for major in 14..=18 {
        let repo = archive(major);
        let dropped = find(&repo, &["--dropped"]);
        let told: Vec<(bool, Vec<String>)> = dropped
            .iter()
            .map(|hit| {
                let relations = hit["relations"].as_array().expect("relations").iter();
                let words = relations.map(|it| {
                    let text = |field: &str| it[field].as_str().expect("text").to_owned();
                    assert!(it["storage"].is_string(), "{major}: {hit:#}");
                    format!("{} {} {}.{}", text("fate"), text("kind"), text("schema"), text("name"))
                });
                (hit["prepared"] == true, words.collect())
            })
            .collect();
        let oid = dropped[1]["relations"][0]["oid"].as_u64().expect("an oid");
        let expected = [
            (true, vec!["dropped table public.p1".to_string()]),
            (
                false,
                vec![
                    "dropped table public.u".to_string(),
                    format!("dropped toast table pg_toast.pg_toast_{oid}"),
                    format!("dropped index pg_toast.pg_toast_{oid}_index"),
                    "dropped index public.u_pkey".to_string(),
                ],
            ),
        ];
        assert_eq!(told, expected, "{major}");
        assert_eq!(find(&repo, &["--points"])[0]["name"], "golden point", "{major}");
        let storage = dropped[1]["relations"][3]["storage"].as_str().expect("storage");
        let by_storage = find(&repo, &["--relfilenode", storage]);
        assert_eq!((by_storage.len(), &by_storage[0]["lsn"]), (1, &dropped[1]["lsn"]), "{major}");
        let xid = dropped[0]["xid"].to_string();
        let by_xid = find(&repo, &["--xid", &xid]);
        assert_eq!((by_xid.len(), &by_xid[0]["lsn"]), (1, &dropped[0]["lsn"]), "{major}");
    }
}

/// All that is seen of a segment that is fed in chunks.
fn seen(name: SegmentName, bytes: &[u8], chunk: usize) -> Vec<pgark::pg::wal::Seen> {
    let header = SegmentHeader::parse(bytes).expect("a header");
    let watching = Watching::new(Interest::Relations, header.format, vec![Oid(1259)]);
    let mut walk = Walk::new(&header, name, Extent::Whole).watching(watching);
    let mut seen = Vec::new();
    for chunk in bytes.chunks(chunk) {
        walk.feed(chunk);
        seen.extend(walk.seen());
    }
    seen
}

#[test]
fn every_row_of_pg_class_is_read_however_the_segment_is_fed() {
    for major in 14..=18 {
        let (name, bytes) = golden(major);
        let format = SegmentHeader::parse(&bytes).expect("a header").format;
        let all = seen(name, &bytes, bytes.len());
        assert_eq!(seen(name, &bytes, 777), all);
        let rows: Vec<&RowChange> = all
            .iter()
            .filter_map(|seen| match &seen.event {
                Event::Row { change, .. } => Some(change),
                _ => None,
            })
            .collect();
        let names = rows.iter().filter_map(|change| match change {
            RowChange::Inserted { row: Some(row), .. } | RowChange::Overwritten { row: Some(row), .. } => {
                Some(ClassRow::read(row, format).expect("a row of pg_class").name)
            }
            _ => None,
        });
        assert!(names.filter(|name| name == "u_pkey").count() >= 2, "{major}");
        assert!(all.iter().all(|seen| !matches!(seen.event, Event::Unread(_) | Event::Lost)), "{major}");
    }
}

#[test]
fn harmed_segments_tell_less_and_never_something_else() {
    for major in 14..=18 {
        let (name, bytes) = golden(major);
        let all = seen(name, &bytes, bytes.len());
        for at in (40..53_000).step_by(701) {
            let mut harmed = bytes.clone();
            harmed[at] ^= 0x10;
            let left = seen(name, &harmed, harmed.len());
            let told: Vec<_> = left.iter().filter(|seen| seen.event != Event::Lost).collect();
            assert!(told.iter().all(|seen| all.contains(seen)), "{major} {at}");
            assert!(told.len() == all.len() || left.len() > told.len(), "{major} {at}: nobody was told");
        }
    }
}
