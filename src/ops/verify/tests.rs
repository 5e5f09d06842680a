//! What only a repository that nobody's programs write can show: maps that do not fit their packs, and deletions at
//! a chosen moment.

use std::sync::Arc;

use super::plan::Unit;
use super::report::Verdict;
use super::*;
use crate::config::Overrides;
use crate::pipe::digest::SliceDigest;
use crate::pipe::frame::Compressor;
use crate::repo::fixture::{Fixture, header, name};
use crate::repo::map::{Attributes, FileMode, MapPath, MapSummary, MapWriter, PlacedSlice};
use crate::repo::pack::{FrameLocation, PackReader, PackSummary, PackWriter};

const RAW: &[u8] = b"some bytes of a file";

/// One pack with one frame.
fn pack(fixture: &Fixture, run: Id) -> (PackSummary, FrameLocation) {
    let mut writer = PackWriter::new(&fixture.cluster, run);
    let frame = Compressor::new(1).and_then(|mut c| c.compress(RAW, Vec::new())).expect("a frame");
    let location = writer.append(&frame).expect("appended");
    (writer.finish().expect("finished")[0], location)
}

/// A map of one file of one slice.
fn map(fixture: &Fixture, label: &str, frame: FrameLocation, digest: SliceDigest) -> MapSummary {
    let mut map = MapWriter::start(&fixture.cluster).expect("started");
    let attributes = Attributes {
        path: MapPath::data("base/1/1259").expect("a path"),
        mode: FileMode::from_st_mode(0o600),
        mtime: "2026-11-23T03:10:00Z".parse().expect("a time"),
    };
    let slice = PlacedSlice::Data { frame, offset: 0, length: RAW.len() as u32, digest };
    map.file(attributes, [slice]).expect("added");
    map.finish(&name(label)).expect("finished")
}

/// A backup whose map is made by `change` of what would be right.
fn backup_with(fixture: &Fixture, label: &str, change: impl FnOnce(&mut FrameLocation, &mut SliceDigest)) {
    let run = Id::random().expect("an id");
    let (pack, mut frame) = pack(fixture, run);
    let mut digest = SliceDigest::of(RAW);
    change(&mut frame, &mut digest);
    let map = map(fixture, label, frame, digest);
    crate::repo::backup::write(&fixture.cluster, &header(label, run, map, &[pack]), || Ok(()))
        .expect("written");
}

fn verify(fixture: &Fixture, deep: bool) -> Report {
    let repo = Some(fixture.dir.path().display().to_string());
    let config = Config::resolve(&Overrides { repo, ..Overrides::default() }).expect("a configuration");
    let request = Request {
        scope: Scope::Everything,
        system_id: None,
        deep,
        jobs: NonZeroUsize::new(2),
        rate_limit: None,
        display: Display::Silent,
    };
    run(&config, &request).expect("verified")
}

/// What is said of damaged maps and packs.
fn said(report: &Report) -> Vec<String> {
    let damaged = report.systems[0].damaged.first.iter();
    damaged.filter(|object| !object.key.ends_with("cluster.json")).map(|object| object.what.clone()).collect()
}

#[track_caller]
fn finds(fixture: &Fixture, deep: bool, expected: &str) {
    let report = verify(fixture, deep);
    let said = said(&report);
    assert!(said.len() == 1 && said[0].contains(expected), "should say {expected:?}: {said:?}");
    assert_eq!(report.verdict, Verdict::Damaged);
}

#[test]
fn a_map_whose_frame_is_not_what_the_pack_lists_is_damaged() {
    type Change = fn(&mut FrameLocation);
    let changes: [(Change, &str); 4] = [
        (|frame| frame.offset = 1, "lists none there"),
        (|frame| frame.stored += 1, "but that pack lists one of"),
        (|frame| frame.raw += 1, "but that pack lists one of"),
        (|frame| frame.pack.number = 7, "which the backup does not list"),
    ];
    for (change, expected) in changes {
        let fixture = Fixture::create();
        backup_with(&fixture, "one", |frame, _| change(frame));
        finds(&fixture, false, expected);
    }
}

#[test]
fn a_slice_of_other_bytes_is_found_by_looking_deep() {
    let fixture = Fixture::create();
    backup_with(&fixture, "one", |_, digest| *digest = SliceDigest::of(b"other bytes"));
    assert_eq!(said(&verify(&fixture, false)), Vec::<String>::new());
    finds(&fixture, true, "have another digest than");
    let report = verify(&fixture, true);
    assert_eq!(report.systems[0].backups[0].files.first, ["base/1/1259"]);
    let damaged = verified::damaged_packs(&fixture.cluster).expect("read");
    assert_eq!(damaged.len(), 1, "nothing is to be built upon that frame");
}

#[test]
fn a_slice_outside_of_its_frame_is_damage() {
    let fixture = Fixture::create();
    let run = Id::random().expect("an id");
    let (pack, frame) = pack(&fixture, run);
    let frames = serde_json::json!({ "frames": [frame] });
    let digest = SliceDigest::of(RAW).to_string();
    let file = serde_json::json!({
        "kind": "file", "path": "base/1/1259", "mode": "0600", "mtime": "2026-11-23T03:10:00Z",
        "size": 10, "slices": [[10, 0, RAW.len() - 9, digest]],
    });
    let map = fixture.raw_map("one", "base/1/1259", &format!("{frames}\n{file}\n"));
    crate::repo::backup::write(&fixture.cluster, &header("one", run, map, &[pack]), || Ok(()))
        .expect("written");
    finds(&fixture, false, "a slice of 10 bytes from byte 11 of a frame of 20");
}

#[test]
fn a_header_that_counts_other_files_than_the_map_has_is_damage() {
    let fixture = Fixture::create();
    let run = Id::random().expect("an id");
    let (pack, frame) = pack(&fixture, run);
    let map = MapSummary { files: 2, ..map(&fixture, "one", frame, SliceDigest::of(RAW)) };
    crate::repo::backup::write(&fixture.cluster, &header("one", run, map, &[pack]), || Ok(()))
        .expect("written");
    finds(&fixture, false, "has 1 files of 20 bytes in 0 directories, expected 2 of 20 in 0");
}

#[test]
fn packs_that_no_backup_has_are_counted() {
    let fixture = Fixture::create();
    backup_with(&fixture, "one", |_, _| ());
    let (garbage, _) = pack(&fixture, Id::random().expect("an id"));
    let unreferenced = verify(&fixture, false).systems[0].unreferenced_packs.expect("looked for");
    assert_eq!((unreferenced.packs, unreferenced.bytes, unreferenced.leased), (1, garbage.size, 0));
}

/// What is found when `delete` strikes after everything was listed and opened.
fn found_after(fixture: &Fixture, delete: impl FnOnce()) -> findings::Found {
    let (throttle, stop) = (Throttle::new(None), Interrupt::default());
    let progress = Progress::start(Display::Silent, "verifying");
    let context = Context {
        cluster: &fixture.cluster,
        size: None,
        deep: true,
        throttle: &throttle,
        progress: &progress,
        stop: &stop,
        findings: Findings::default(),
        lists: PackLists::default(),
    };
    let mut plan = Plan::new(plan::everything(&context).expect("listed"), None, Until::TheEnd);
    let mut units = Vec::new();
    while let Some((_, unit)) = plan.next(&context).expect("planned") {
        units.push(unit);
    }
    assert_eq!(units.len(), 2, "a chunk and a run of frames");
    delete();
    let mut hands = PackReader::new(&fixture.cluster).expect("a reader");
    for unit in units {
        let checked = match unit {
            Unit::Chunk(map, chunk) => backups::check_chunk(&context, &Arc::clone(&map), chunk, &mut hands),
            Unit::Frames(pack, run) => packs::check(&context, &pack, run),
            Unit::Wal(..) => panic!("there is no WAL"),
        };
        checked.expect("no reason to stop");
    }
    outcome::recheck(&context, &[name("one")]).expect("looked again");
    context.findings.into_found()
}

#[test]
fn what_is_deleted_while_it_is_verified_is_no_damage() {
    let fixture = Fixture::create();
    backup_with(&fixture, "one", |_, _| ());
    let found = found_after(&fixture, || {
        for part in ["backup/one/backup.json", "backup/one/files.jsonl.zst", ".pack"] {
            let object =
                fixture.objects().into_iter().find(|object| object.contains(part)).expect("that object");
            let root = fixture.cluster.layout().root().expect("a key");
            std::fs::remove_file(fixture.file(&root).join(object)).expect("removed");
        }
    });
    assert_eq!((found.damage.count, found.unread.count), (0, 0), "{found:?}");
    assert_eq!(found.vanished, 2);
}

#[test]
fn a_pack_that_goes_while_a_backup_refers_to_it_is_damage() {
    let fixture = Fixture::create();
    backup_with(&fixture, "one", |_, _| ());
    let found = found_after(&fixture, || {
        let packs = fixture.file(&fixture.cluster.layout().packs().expect("a key"));
        std::fs::remove_dir_all(packs).expect("removed");
    });
    assert_eq!(found.damage.count, 1, "{found:?}");
    assert!(found.packs.values().all(|damaged| damaged.whole));
}

#[test]
fn a_repository_that_went_away_is_no_damage() {
    let fixture = Fixture::create();
    backup_with(&fixture, "one", |_, _| ());
    let found = found_after(&fixture, || {
        std::fs::remove_dir_all(fixture.file(&fixture.cluster.layout().root().expect("a key")))
            .expect("removed");
        std::fs::remove_file(fixture.dir.path().join("pgark.json")).expect("removed");
    });
    assert_eq!(found.damage.count, 0, "{found:?}");
}
