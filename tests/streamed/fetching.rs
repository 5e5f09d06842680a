//! `wal-fetch` where the archive has a segment's beginning only: never "not there" without a word, and the part
//! only for whom it was planned.

use std::fs;

use pgark::repo::streamed::StreamedPart;

use crate::harness::*;
use crate::parts::{flushed, segment_file, store};
use crate::scene::{Restored, Scene};

/// A primary that archived, and of which a part was streamed; a copy that will recover by hand; how many rows
/// there are with the part and without.
struct ByHand {
    scene: Scene,
    restored: Restored,
    part: StreamedPart,
    before: String,
    archived: String,
    streamed: String,
}

impl ByHand {
    fn new(copy: impl FnOnce(&Scene) -> Restored) -> Self {
        let scene = Scene::new();
        let restored = copy(&scene);
        let archived = scene.write_segments(2);
        let before = Scene::name(&scene.key(-1));
        let streamed = scene.primary.psql("insert into t values (1); select count(*) from t");
        let part = flushed(&scene.primary);
        let wal = segment_file(&scene.primary, part);
        scene.primary.crash();
        store(&scene.repo, part, &wal);
        Self { scene, restored, part, before, archived, streamed }
    }
}

#[test]
fn recovery_by_hand_stops_before_a_part_instead_of_ending_without_it() {
    let ByHand { scene: _scene, restored, part, before, streamed, .. } = ByHand::new(Scene::backup);
    let name = part.segment;
    restored.stops_with(203, &format!("{name} is not in the archive, but its beginning is"));
    let log = restored.cluster.log();
    assert!(
        log.contains(&format!("--streamed {part}")) && log.contains(&format!("--last-segment {before}")),
        "{log}"
    );
    // Of another segment's part nothing is delivered.
    restored.fetch_with(&format!("--streamed {before}@{}", part.end));
    restored.stops_with(203, "but its beginning is");
    restored.fetch_with(&format!("--streamed {part}"));
    assert_eq!(restored.recovers(), streamed);
}

#[test]
fn who_says_what_the_last_segment_is_does_without_the_part() {
    let ByHand { scene: _scene, restored, before, archived, .. } = ByHand::new(Scene::backup);
    restored.fetch_with(&format!("--last-segment {before}"));
    assert_eq!(restored.recovers(), archived);
}

#[test]
fn a_part_that_is_gone_or_damaged_stops_the_recovery_that_was_planned_with_it() {
    let ByHand { scene, restored, part, streamed, .. } = ByHand::new(Scene::backup);
    restored.fetch_with(&format!("--streamed {part}"));
    let key = scene.repo.only(".streamed.");
    let whole = scene.repo.read(&key);
    scene.repo.damage(&key, Damage::FlipByte(4100));
    restored.stops_with(205, "could not decompress");
    scene.repo.damage(&key, Damage::Delete);
    restored.stops_with(203, "nor a longer part of that segment");
    scene.repo.scratch().write(scene.repo.path(&key), whole);
    assert_eq!(restored.recovers(), streamed);
}

#[test]
fn what_the_old_server_left_in_pg_wal_makes_the_part_needless() {
    let ByHand { scene, restored, part, streamed, .. } = ByHand::new(Scene::backup);
    let copy = restored.cluster.data_dir().join("pg_wal").join(part.segment.to_string());
    // Too little of it does not.
    let mut wal = segment_file(&scene.primary, part);
    let kept = (part.end.0 % wal.len() as u64) as usize - 100;
    wal[kept..].fill(0);
    restored.cluster.scratch().write(&copy, &wal);
    restored.stops_with(203, "but its beginning is");
    fs::copy(scene.primary.data_dir().join("pg_wal").join(part.segment.to_string()), &copy).expect("copied");
    assert_eq!(restored.recovers(), streamed);
}

#[test]
fn a_standby_is_told_that_the_segment_is_not_there_whatever_its_flags() {
    let ByHand { scene, restored, part, archived, streamed, .. } = ByHand::new(Scene::standby);
    restored.fetch_with(&format!("--streamed {part}"));
    let standby = restored.start();
    standby.wait_sql("select count(*) from t", &archived);
    let mut fetch = scene.repo.wal_fetch(&standby.data_dir());
    let outcome = run(fetch.args(["--streamed", &part.to_string(), &part.segment.to_string(), "pg_wal/x"]));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome}");
    scene.primary.start();
    scene.primary.archive_everything();
    standby.wait_sql("select count(*) from t", &streamed);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
}

#[test]
fn later_parts_make_a_missing_segment_a_hole() {
    let ByHand { scene, restored, .. } = ByHand::new(Scene::backup);
    let key = scene.key(-2);
    assert!(key.ends_with(&format!("{}.zst", Scene::name(&key))));
    scene.repo.damage(&key, Damage::Delete);
    restored.stops_with(203, ", a streamed part, is there: recovery must not end at this hole");
}
