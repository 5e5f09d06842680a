//! Failovers: holes that a dead primary left, and timelines whose number is taken.

use std::fs;

use crate::harness::*;
use crate::scene::*;

/// A primary whose last segments never reached the archive, and the standby that took over from it and
/// archives as timeline 2. Answers the name of the first lost segment, and how many rows there are.
fn lose_the_last_segments(scene: &Scene) -> (Cluster, String, String) {
    let standby = scene.primary.standby().start();
    scene.write_segments(2);
    scene.primary.append_config("archive_command = 'false'");
    scene.primary.reload();
    scene.primary.wait_sql("show archive_command", "false");
    let lost = scene.primary.current_segment();
    for _ in 0..2 {
        scene.primary.psql("insert into t select generate_series(1, 5000)");
        scene.primary.switch_wal();
    }
    scene.primary.psql("insert into t values (1)");
    scene.primary.wait_replayed_by(&standby);
    scene.primary.crash();
    standby.promote();
    standby.psql("insert into t values (2)");
    standby.archive_everything();
    let rows = standby.psql("select count(*) from t");
    (standby, lost, rows)
}

#[test]
fn a_hole_that_a_failover_left_stops_recovery_until_it_is_healed() {
    let scene = Scene::new();
    let restored = scene.backup();
    let (_standby, lost, rows) = lose_the_last_segments(&scene);
    let partial = scene.repo.only(".partial");
    restored.stops_with(
        203,
        &format!("{lost} is missing from the archive, but {}.partial", Scene::name(&partial)),
    );
    // Only the segments of the descendant, and its history, tell then.
    scene.repo.damage(&partial, Damage::Delete);
    restored.stops_with(203, &format!("{lost} is missing from the archive, but 00000002"));
    // The dead primary's disk still has them.
    let dead = scene.primary.data_dir();
    for name in pg_wal(&scene.primary) {
        if name.len() == 24
            && name >= lost
            && dead.join(format!("pg_wal/archive_status/{name}.ready")).exists()
        {
            run(scene.repo.wal_push(&dead).arg(format!("pg_wal/{name}"))).succeeds();
        }
    }
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn a_timeline_whose_history_is_lost_is_not_taken_for_free() {
    let scene = Scene::new();
    let restored = scene.backup();
    scene.write_segments(2);
    let standby = scene.primary.standby().start();
    scene.primary.wait_replayed_by(&standby);
    standby.promote();
    standby.psql("insert into t values (2)");
    standby.archive_everything();
    let history = scene.repo.only("00000002.history");
    let content = scene.repo.read(&history);
    scene.repo.damage(&history, Damage::Delete);
    restored.stops_with(203, "has no history of timeline 2, but 00000002");
    scene.repo.scratch().write(scene.repo.path(&history), content);
    assert_eq!(restored.recovers(), standby.psql("select count(*) from t"));
}

#[test]
fn a_standby_that_is_promoted_without_the_repository_takes_no_timeline_in_use() {
    let scene = Scene::new();
    let second = scene.standby();
    second.set("recovery_target_timeline = 'current'");
    let first = scene.primary.standby().start();
    let rows = scene.write_segments(2);
    scene.primary.wait_replayed_by(&first);
    first.promote();
    first.archive_everything();
    assert_eq!(scene.repo.matching("00000002.history").len(), 1);

    let second = second.start();
    second.wait_sql("select count(*) from t", &rows);
    scene.forbid();
    second.psql("select pg_promote(false)");
    let status = second.wait_exit().expect("a status");
    assert!(!status.success());
    let log = second.log();
    assert!(log.contains("could not restore file \"00000002.history\" from archive"), "{log}");
    assert!(!log.contains("selected new timeline ID"), "{log}");
    assert!(second.data_dir().join("standby.signal").exists());

    scene.allow();
    second.start();
    second.wait_sql("select pg_is_in_recovery(), count(*) from t", &format!("t|{rows}"));
    second.promote();
    second.psql("checkpoint");
    assert_eq!(second.psql("select timeline_id from pg_control_checkpoint()"), "3");
    let history = fs::read_to_string(second.data_dir().join("pg_wal/00000003.history")).expect("a history");
    assert!(history.starts_with("1\t"), "{history}");
}
