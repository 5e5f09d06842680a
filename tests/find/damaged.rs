//! What is damaged or missing is said, and the rest is searched all the same.

use super::scene::Scene;
use crate::harness::*;

#[test]
fn a_damaged_segment_is_named_and_the_others_are_searched() {
    let scene = Scene::start(Cluster::builder());
    let drop_one = |name: &str| {
        scene.source.psql(&format!("create table {name} as select 1 as a"));
        scene.source.psql(&format!("drop table {name}"));
        scene.source.archive_everything()
    };
    drop_one("first");
    let damaged = drop_one("second");
    drop_one("third");
    let names = |hits: &serde_json::Value| {
        let hits = hits["hits"].as_array().expect("hits").iter();
        hits.map(|hit| hit["relations"][0]["name"].as_str().unwrap_or_else(|| panic!("{hit:#}")).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&scene.find_ending(0, &["--dropped"])), ["first", "second", "third"]);

    scene.repo.damage(&scene.repo.only(&damaged), Damage::FlipByte(4096));
    let found = scene.find_ending(5, &["--dropped"]);
    assert_eq!(names(&found), ["first", "third"]);
    assert_eq!(found["problems"][0]["segment"], damaged.as_str());
    assert_eq!(found["problems"].as_array().map(Vec::len), Some(1), "{found:#}");

    scene.repo.damage(&scene.repo.only(&damaged), Damage::Delete);
    assert_eq!(names(&scene.find_ending(0, &["--dropped"])), ["first", "third"]);
}

#[test]
fn what_is_not_there_is_told_by_the_exit_status() {
    let scene = Scene::start(Cluster::builder());
    scene.source.psql("create table t (a int)");
    scene.source.archive_everything();
    for flags in [
        &["--points"][..],
        &["--table", "t"],
        &["--xid", "4000000000"],
        &["--around", "1 day ago"],
        &["--dropped", "--since", "0/F0000000"],
    ] {
        let found = scene.find_ending(3, flags);
        assert_eq!((&found["found"], found["hits"].as_array().map(Vec::len)), (&0.into(), Some(0)));
    }
    let pgark = |flags: &[&str]| run(scene.repo.pgark(&["find"]).args(flags));
    pgark(&["--dropped", "--timeline", "7"]).fails_with(3, "no history of timeline 7");
    pgark(&["--dropped", "--system-id", "7"]).fails_with(3, "no cluster main with system identifier 7");
    pgark(&["--dropped", "--points"]).fails_with(2, "cannot be used with");
    pgark(&[]).fails_with(2, "required");
    pgark(&["--table", "a.b.c.d"]).fails_with(2, "DATABASE.SCHEMA.NAME");
    pgark(&["--around", "2026-11-22 10:00:00"]).fails_with(2, "names no zone");
}

#[test]
fn headers_keep_what_cannot_hold_a_hit_from_being_read() {
    let scene = Scene::start(Cluster::builder());
    for n in 1..=6 {
        scene.source.psql("create table t as select repeat('x', 10000) from generate_series(1, 20); drop table t; checkpoint");
        scene.source.psql(&format!("select pg_create_restore_point('point {n}')"));
        scene.source.archive_everything();
    }
    let all = scene.find_ending(0, &["--points"]);
    assert_eq!(all["found"], 6);
    let one = scene.find_ending(0, &["--points", "point 4"]);
    assert_eq!((&one["found"], &one["searched"]["read"]), (&1.into(), &1.into()), "{one:#}");
    let hit = &one["hits"][0];
    let by_xid = scene.find_ending(3, &["--xid", "3"]);
    assert_eq!(by_xid["searched"]["read"], 0);
    let since = hit["lsn"].as_str().expect("an LSN");
    let few = scene.find_ending(0, &["--dropped", "--since", since]);
    let count = |found: &serde_json::Value, what: &str| found["searched"][what].as_u64().expect("a count");
    assert_eq!(few["found"], 2);
    assert!(count(&few, "read") < count(&few, "segments"), "{few:#}");
    assert_eq!(few["hits"][0]["relations"][0]["name"], "t", "the context of earlier segments is known");
}
