//! Standbys, which ask again and again: a "no" costs them nothing but time.

use crate::scene::*;

#[test]
fn a_standby_keeps_asking_while_the_repository_is_away_and_catches_up_when_it_is_back() {
    let scene = Scene::new();
    let standby = scene.standby();
    // With "latest" it asks for a new timeline between two segments, and that is not answered with "no".
    standby.set("recovery_target_timeline = 'current'");
    let rows = scene.write_segments(2);
    let standby = standby.start();
    standby.wait_sql("select count(*) from t", &rows);
    scene.unmount();
    standby.wait_for_log("a standby asks again, so this is answered as not there");
    scene.mount();
    let rows = scene.write_segments(2);
    standby.wait_sql("select count(*) from t", &rows);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
}

#[test]
fn a_standby_that_looks_for_new_timelines_waits_for_the_repository() {
    let scene = Scene::patient();
    let standby = scene.standby();
    let rows = scene.write_segments(2);
    let standby = standby.start();
    standby.wait_sql("select count(*) from t", &rows);
    scene.unmount();
    standby.wait_for_log("no repository here");
    scene.mount();
    let rows = scene.write_segments(2);
    standby.wait_sql("select count(*) from t", &rows);
}

#[test]
fn a_standby_at_a_hole_waits_for_the_segment() {
    let scene = Scene::patient();
    let standby = scene.standby();
    scene.write_segments(2);
    let standby = standby.start();
    let rows = scene.write_segments(1);
    standby.wait_sql("select count(*) from t", &rows);
    scene.forbid();
    scene.primary.psql("insert into t select generate_series(1, 5000)");
    let lost = scene.primary.switch_wal();
    scene.primary.psql("insert into t select generate_series(1, 5000)");
    let next = scene.primary.switch_wal();
    scene.allow();
    scene.primary.wait_for("the archiver to catch up", || !scene.repo.matching(&next).is_empty());
    standby.wait_sql("select count(*) from t", &scene.primary.psql("select count(*) from t"));
    assert!(next > lost);
}

#[test]
fn a_standby_follows_a_promotion_through_the_archive() {
    let scene = Scene::new();
    let follower = scene.standby();
    let first = scene.primary.standby().start();
    scene.write_segments(2);
    scene.primary.wait_replayed_by(&first);
    let follower = follower.start();
    first.promote();
    first.psql("insert into t values (7)");
    first.archive_everything();
    follower.wait_sql("select count(*) from t", &first.psql("select count(*) from t"));
    assert_eq!(follower.psql("select pg_is_in_recovery()"), "t");
}
