//! Holes: a segment that was written and is not in the archive stops recovery, and is named. What is no hole
//! stops nothing.

use std::fs;

use crate::harness::*;
use crate::scene::*;

#[test]
fn a_hole_stops_recovery_which_goes_on_once_it_is_filled() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(5);
    let key = scene.key(-3);
    let segment = scene.repo.read(&key);
    scene.repo.damage(&key, Damage::Delete);
    let name = Scene::name(&key);
    restored.stops_with(203, &format!("{name} is missing from the archive, but"));
    assert!(restored.cluster.log().contains(&format!("hint: bring {name} back")));
    scene.repo.scratch().write(scene.repo.path(&key), segment);
    assert_eq!(restored.recovers(), rows);
}

/// A restore to a point at the very end of the last segment before a gap: PostgreSQL looks ahead.
fn with_a_gap_beyond_the_target() -> (Scene, Restored, String, String) {
    let scene = Scene::new();
    let restored = scene.backup();
    scene.write_segments(2);
    let rows = scene.primary.psql("insert into t select generate_series(1, 100); select count(*) from t");
    scene.primary.psql("select pg_create_restore_point('here')");
    let last = scene.primary.archive_everything();
    scene.write_segments(3);
    scene.repo.damage(&scene.key(-3), Damage::Delete);
    restored.set("recovery_target_name = 'here'");
    restored.set("recovery_target_action = 'promote'");
    (scene, restored, last, rows)
}

#[test]
fn a_gap_beyond_the_target_does_not_hurt() {
    let (_scene, restored, last, rows) = with_a_gap_beyond_the_target();
    restored.fetch_with(&format!("--last-segment {last}"));
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn who_does_not_tell_the_last_segment_is_stopped_by_a_gap_beyond_it() {
    if pg_major() < 15 {
        eprintln!("skipped: PostgreSQL {} does not read ahead", pg_major());
        return;
    }
    let (_scene, restored, ..) = with_a_gap_beyond_the_target();
    restored.stops_with(203, "is missing from the archive, but");
}

#[test]
fn a_copy_in_pg_wal_counts_if_it_is_what_its_name_says() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(4);
    let key = scene.key(-2);
    let (name, older) = (Scene::name(&key), Scene::name(&scene.key(-3)));
    scene.repo.damage(&key, Damage::Delete);
    let primary = scene.primary.data_dir().join("pg_wal");
    let there = restored.cluster.data_dir().join("pg_wal").join(&name);
    // As a recycled file: the name of a segment to come, the content of one long gone.
    append_new(there.clone(), "");
    fs::write(&there, fs::read(primary.join(&older)).expect("read")).expect("written");
    restored.stops_with(203, &name);
    // As in a copy that was made while the segment was being written.
    let whole = fs::read(primary.join(&name)).expect("read");
    let mut begun = whole.clone();
    begun[100 << 10..].fill(0);
    fs::write(&there, begun).expect("written");
    restored.stops_with(203, &name);
    fs::write(&there, whole).expect("written");
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn a_segment_that_is_archived_late_is_waited_for() {
    let scene = Scene::patient();
    let restored = scene.backup();
    let rows = scene.write_segments(4);
    let key = scene.key(-2);
    let segment = scene.repo.read(&key);
    scene.repo.damage(&key, Damage::Delete);
    let restored = restored.spawn();
    restored.wait_for_log("recovery must not end at this hole; trying again");
    scene.repo.scratch().write(scene.repo.path(&key), segment);
    restored.wait_ready();
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), rows);
}
