//! What people see.

use super::scene::Scene;
use crate::harness::*;

fn printed(scene: &Scene, flags: &[&str]) -> String {
    run(scene.repo.pgark(&["find"]).args(flags).envs(scene.source.env())).succeeds()
}

#[test]
fn each_hit_comes_with_what_to_do() {
    let scene = Scene::start(Cluster::builder());
    scene.source.psql("create table lonely as select 1 as a; drop table lonely");
    scene.source.psql("create table customers (id int primary key, name text)");
    scene.back_up();
    scene.source.psql("drop table customers");
    scene.source.archive_everything();
    let text = printed(&scene, &["--dropped"]);
    let hit = scene.find_one(&["--table", "customers"]);
    let lsn = hit["lsn"].as_str().expect("an LSN");
    let command = format!(
        "bootstrap-restore --target-dir DIRECTORY --target-lsn {lsn} --exclusive --target-timeline 1"
    );
    for part in [
        "dropped table postgres.public.customers, toast table",
        &command,
        "dropped table postgres.public.lonely",
        "there is no backup before it",
    ] {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
    let cut = printed(&scene, &["--dropped", "--limit", "1"]);
    assert!(cut.contains("1 of 2 are listed; --limit 0 lists all"), "{cut}");
    assert!(cut.contains("customers") && !cut.contains("lonely"), "the newest is kept: {cut}");
    // A server that can't be reached is said, and names from the WAL are there all the same.
    let mut away = scene.repo.pgark(&["find", "--table", "customers", "--host", "/nowhere"]);
    let away = run(&mut away).succeeds();
    assert!(
        away.contains("note: names of schemas and databases") && away.contains("public.customers"),
        "{away}"
    );
}

#[test]
fn transactions_are_found_by_time_and_by_id() {
    let scene = Scene::start(Cluster::builder());
    scene.source.psql("create table t (a int)");
    scene.back_up();
    let xid = scene.source.psql("insert into t values (1) returning xmin");
    let undone = scene.source.psql("begin; insert into t values (2); select pg_current_xact_id(); rollback");
    let now = scene.source.now();
    scene.source.psql("insert into t values (3)");
    scene.source.archive_everything();
    let hit = scene.find_one(&["--xid", &xid]);
    assert_eq!(hit["what"], "commit");
    assert_eq!(scene.find_one(&["--xid", &undone])["what"], "abort");
    let near = scene.find(&["--around", &now, "--limit", "2"]);
    let whats: Vec<&str> = near.iter().map(|hit| hit["what"].as_str().expect("what")).collect();
    assert_eq!(whats, ["abort", "commit"], "the nearest: one before, one behind");
    assert!(scene.find(&["--around", &now, "--since", "1 hour ago", "--until", &now]).len() > 1);

    let scratch = Scratch::new();
    assert_eq!(scene.restore(&scratch, "before", &hit).psql("select count(*) from t"), "0");
    let mut with_it = hit.clone();
    with_it["restore"]["arguments"].as_array_mut().expect("flags").retain(|flag| flag != "--exclusive");
    assert_eq!(scene.restore(&scratch, "with", &with_it).psql("select count(*) from t"), "1");
}
