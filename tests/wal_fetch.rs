//! `wal-fetch` as the restore_command of real servers in recovery: each of its answers, and what PostgreSQL
//! makes of it.

mod harness;
mod wal;

#[path = "wal_fetch/answers.rs"]
mod answers;
#[path = "wal_fetch/failovers.rs"]
mod failovers;
#[path = "wal_fetch/holes.rs"]
mod holes;
#[path = "wal_fetch/scene.rs"]
mod scene;
#[path = "wal_fetch/standbys.rs"]
mod standbys;

use harness::*;
use scene::*;

#[test]
fn a_recovery_gets_every_segment_and_ends_at_the_end_of_the_archive() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(4);
    let restored = restored.start();
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), rows);
    assert_eq!(restored.psql("select timeline_id from pg_control_checkpoint()"), "2");
    assert!(restored.log().matches("restored log file").count() >= 4, "{}", restored.log());
    let left: Vec<String> =
        scene::pg_wal(&restored).into_iter().filter(|name| name.contains("tmp")).collect();
    assert!(
        left.is_empty() && !scene::pg_wal(&restored).iter().any(|name| name.contains("pgark")),
        "{left:?}"
    );
}

#[test]
fn a_corrupt_segment_stops_recovery_which_goes_on_once_it_is_repaired() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(4);
    let key = scene.key(-2);
    let whole = scene.repo.read(&key);
    scene.repo.damage(&key, Damage::FlipByte(20_000));
    restored.stops_with(205, "could not decompress");
    restored.stops_with(205, "hint: move the damaged object out of the repository, and push");
    scene.repo.scratch().write(scene.repo.path(&key), whole);
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn an_unreadable_repository_stops_recovery_which_goes_on_once_it_can_be_read() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(3);
    scene.forbid();
    restored.stops_with(206, "Permission denied");
    scene.allow();
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn an_unmounted_repository_stops_recovery_which_goes_on_once_it_is_back() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(3);
    scene.unmount();
    restored.stops_with(202, "no repository here");
    scene.mount();
    assert_eq!(restored.recovers(), rows);
}

#[test]
fn a_repository_that_comes_back_within_the_budget_stops_nothing() {
    let scene = Scene::patient();
    let restored = scene.backup();
    let rows = scene.write_segments(3);
    scene.unmount();
    let restored = restored.spawn();
    restored.wait_for_log("no repository here");
    scene.mount();
    restored.wait_ready();
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), rows);
    assert!(restored.log().contains("trying again"), "{}", restored.log());
}

#[test]
fn a_wrong_flag_stops_recovery() {
    let scene = Scene::new();
    let restored = scene.backup();
    scene.write_segments(1);
    restored.fetch_with("--bogus");
    restored.stops_with(202, "unexpected argument '--bogus'");
}

#[test]
fn a_restore_to_a_named_point_on_its_timeline_ends_there() {
    let scene = Scene::new();
    let restored = scene.backup();
    let rows = scene.write_segments(2);
    scene.primary.psql("select pg_create_restore_point('here')");
    scene.write_segments(2);
    restored.set("recovery_target_name = 'here'");
    restored.set("recovery_target_action = 'promote'");
    assert_eq!(restored.recovers(), rows);
}
