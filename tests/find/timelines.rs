//! Several timelines, and WAL of which only a part was streamed.

use serde_json::Value;

use super::scene::Scene;
use crate::harness::*;
use crate::receiving::Receiver;

/// Which table was dropped on which timeline.
fn told(hits: &[Value]) -> Vec<String> {
    let words = hits.iter().map(|hit| {
        let name = hit["relations"][0]["name"].as_str().unwrap_or_else(|| panic!("{hit:#}"));
        format!("{name} on {}", hit["timeline"])
    });
    words.collect()
}

#[test]
fn what_happened_on_each_timeline_is_found_once() {
    let scene = Scene::start(Cluster::builder());
    for name in ["before", "old", "new", "kept"] {
        scene.source.psql(&format!("create table {name} as select 1000 as a"));
    }
    scene.back_up();
    let standby = scene.source.standby().restore_from(&scene.repo).start();
    scene.source.psql("drop table before");
    scene.source.wait_replayed_by(&standby);
    standby.promote();
    standby.psql("insert into kept values (2); drop table new");
    standby.archive_everything();
    scene.source.psql("drop table old");
    scene.source.archive_everything();

    let mut all = told(&scene.find(&["--dropped"]));
    all.sort();
    assert_eq!(all, ["before on 1", "new on 2", "old on 1"]);
    assert_eq!(told(&scene.find(&["--dropped", "--timeline", "1"])), ["before on 1", "old on 1"]);
    assert_eq!(told(&scene.find(&["--dropped", "--timeline", "2"])), ["before on 1", "new on 2"]);

    let scratch = Scratch::new();
    let new = scene.restore(&scratch, "new", &scene.find_one(&["--table", "new"]));
    assert_eq!(new.psql("select (select max(a) from new), count(*) from kept"), "1000|2");
    for flags in [&["--table", "before"][..], &["--table", "before", "--timeline", "2"]] {
        let hit = scene.find_one(flags);
        let before = scene.restore(&scratch, &format!("before {}", flags.len()), &hit);
        assert_eq!(before.psql("select (select max(a) from before), count(*) from kept"), "1000|1");
    }
}

#[test]
fn the_streamed_part_at_the_end_is_searched_too() {
    let scene = Scene::start(Cluster::builder());
    scene.source.psql("create table precious as select generate_series(1, 1000) as a");
    scene.back_up();
    scene.source.archive_everything();
    let receiver = Receiver::start(&scene.repo, &scene.source, &["--partial-every", "1s"]);
    receiver.wait_for_log("streaming timeline 1");
    scene.source.psql("select pg_create_restore_point('all is well')");
    scene.source.psql("drop table precious");
    let search = || {
        let mut command = scene.repo.pgark(&["find", "--table", "precious", "-q"]);
        command.output().expect("run pgark find").status.success()
    };
    wait_for("the part with the drop", || receiver.log(), search);
    receiver.leave();
    assert!(!scene.repo.matching(".streamed.").is_empty());
    assert_eq!(scene.find_one(&["--points"])["name"], "all is well");
    let scratch = Scratch::new();
    let restored = scene.restore(&scratch, "precious", &scene.find_one(&["--table", "precious"]));
    assert_eq!(restored.psql("select count(*) from precious"), "1000");
}
