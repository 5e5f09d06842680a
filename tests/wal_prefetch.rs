//! The prefetcher of `wal-fetch`: recovery gets from it what the repository holds, and nothing else, however
//! it ends, and it ends when it should.

mod harness;
mod wal;

// Some of it is for tests/wal_fetch.rs only.
#[allow(dead_code)]
#[path = "wal_fetch/scene.rs"]
mod scene;
#[path = "wal_fetch/waiting.rs"]
mod waiting;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;

use harness::*;
use scene::*;
use waiting::*;

#[test]
fn what_is_ready_is_delivered_by_rename_and_without_the_repository() {
    let waiting = Waiting::with(6, "prefetch = 3");
    let names = &waiting.names;
    assert!(!waiting.ask(&names[0]));
    waiting.wait_ready(&names[1..4]);
    let entry = directories(&waiting.server.data_dir().join("pg_wal/pgark.spool"))[0].join(&names[1]);
    let inode = entry.metadata().expect("there").ino();
    waiting.scene.unmount();
    run(&mut waiting.fetch(&names[1])).succeeds();
    assert_eq!(waiting.target().metadata().expect("there").ino(), inode);
    assert!(!entry.exists());
    waiting.scene.mount();
    assert!(!waiting.ask(&names[5]), "beyond the window, it comes from the repository");
}

#[test]
fn the_window_moves_with_what_is_asked_for_and_ends_with_the_archive() {
    let waiting = Waiting::with(8, "prefetch = 4");
    let names = &waiting.names;
    waiting.ask(&names[0]);
    waiting.wait_ready(&names[1..5]);
    assert!(waiting.ask(&names[4]));
    waiting.wait_ready(&names[5..names.len().min(9)]);
    assert!(waiting.ask(&names[5]));
    // Back again, as PostgreSQL does between the checkpoint's segment and that of its redo pointer.
    assert!(!waiting.ask(&names[1]));
    waiting.wait_ready(&names[2..6]);
}

#[test]
fn bytes_and_the_last_segment_bound_the_window() {
    let waiting = Waiting::with(5, "prefetch_bytes = \"2MiB\"");
    let names = &waiting.names;
    waiting.ask(&names[0]);
    waiting.wait_ready(&names[1..3]);
    prefetchers(&waiting.server).into_iter().for_each(kill_and_wait);
    let last = ["--last-segment", names[1].as_str()];
    run(waiting.fetch(&names[0]).args(last)).succeeds();
    waiting.wait_ready(&names[1..2]);
    let line = command_line(prefetchers(&waiting.server)[0]);
    assert!(line.windows(2).any(|pair| pair == last), "{line:?}");
}

#[test]
fn nothing_is_prefetched_when_it_is_off_or_nobody_recovers() {
    let waiting = Waiting::with(3, "prefetch = 0");
    waiting.ask(&waiting.names[0]);
    assert!(!waiting.server.data_dir().join("pg_wal/pgark.spool").exists());
    // A running primary, and no server at all.
    let waiting = Waiting::with(3, "");
    let elsewhere = |server: &Cluster| {
        run(waiting.repo().wal_fetch(&server.data_dir()).args([&waiting.names[0], "pg_wal/ASKED"]))
            .succeeds();
        assert!(prefetchers(server).is_empty());
        assert!(directories(&server.data_dir().join("pg_wal/pgark.spool")).is_empty());
    };
    elsewhere(&waiting.scene.primary);
    waiting.server.stop(Stop::Immediate);
    elsewhere(&waiting.server);
}

#[test]
fn a_segment_that_was_not_there_yet_is_found_when_it_is() {
    let waiting = Waiting::with(2, "");
    let last = waiting.names.last().expect("a segment").clone();
    waiting.ask(&last);
    let next = waiting.scene.primary.current_segment();
    run(&mut waiting.fetch(&next)).fails_with(1, "");
    waiting.scene.write_segments(3);
    assert!(!waiting.ask(&next));
    let after: Vec<String> =
        waiting.repo().matching("wal/00000001/").iter().map(|key| Scene::name(key)).collect();
    waiting.wait_ready(&after.iter().filter(|name| **name > next).cloned().collect::<Vec<_>>());
}

#[test]
fn what_is_stale_truncated_or_foreign_is_thrown_away() {
    let waiting = Waiting::with(8, "prefetch = 7");
    let names = &waiting.names;
    waiting.ask(&names[0]);
    waiting.wait_ready(&names[1..8]);
    let entry =
        |name: &String| directories(&waiting.server.data_dir().join("pg_wal/pgark.spool"))[0].join(name);
    damage_file(&entry(&names[1]), Damage::Truncate(8192));
    damage_file(&entry(&names[2]), Damage::Truncate(0));
    fs::write(entry(&names[3]), fs::read(entry(&names[4])).expect("read")).expect("written");
    // Its system identifier.
    damage_file(&entry(&names[5]), Damage::FlipByte(24));
    damage_file(&entry(&names[6]), Damage::Extend(8192));
    for name in [&names[1], &names[2], &names[3], &names[5], &names[6]] {
        let entry = entry(name);
        assert!(!waiting.ask(name), "{name}");
        assert!(!entry.exists());
    }
    assert!(waiting.ask(&names[7]));
}

#[test]
fn the_path_goes_on_with_the_next_timeline() {
    let scene = Scene::new();
    let next = scene.primary.standby().start();
    let waiting = Waiting::in_scene(scene, 2, "");
    waiting.scene.primary.wait_replayed_by(&next);
    next.promote();
    next.psql("insert into t values (7)");
    next.archive_everything();
    let second: Vec<String> =
        waiting.repo().matching("wal/00000002/").iter().map(|key| Scene::name(key)).collect();
    run(&mut waiting.fetch("00000002.history")).succeeds();
    run(&mut waiting.fetch("00000003.history")).fails_with(1, "");
    waiting.ask(&waiting.names[0]);
    let behind = waiting.names[1..].iter().filter(|name| name[8..] < second[0][8..]).chain(&second).cloned();
    let mut behind: Vec<String> = behind.collect();
    behind.sort();
    waiting.wait_ready(&behind);
    assert!(waiting.ask(&second[0]));
}

#[test]
fn it_ends_when_nobody_asks_any_more_and_leaves_nothing() {
    let waiting = Waiting::with(3, "prefetch_linger = \"1s\"");
    waiting.ask(&waiting.names[0]);
    waiting.wait_gone();
    assert!(!waiting.ask(&waiting.names[1]));
    waiting.wait_ready(&waiting.names[2..]);
}

#[test]
fn it_ends_with_the_server_and_holds_nothing_of_it() {
    let scene = Scene::new();
    scene.repo.configure("prefetch_linger = \"10m\"");
    let restored = scene.standby();
    restored.set("logging_collector = on");
    restored.fetch_with("-v");
    scene.write_segments(4);
    let standby = restored.start();
    standby.wait_for("a prefetcher", || !prefetchers(&standby).is_empty());
    let pid = prefetchers(&standby)[0];
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors") {
        let path = entry.expect("entry").path();
        // It may close one while we look.
        let Ok(open) = fs::read_link(&path) else { continue };
        let ours = open.starts_with(scene.repo.root())
            || open.starts_with(standby.data_dir().join("pg_wal/pgark.spool"))
            || open == Path::new("/dev/null");
        assert!(ours, "{} is {}", path.display(), open.display());
    }
    // Waits for every process in the data directory, the log collector and the prefetcher among them.
    standby.stop(Stop::Fast);
    assert!(directories(&standby.data_dir().join("pg_wal/pgark.spool")).is_empty());
    standby.start();
    standby.kill_postmaster();
    assert!(prefetchers(&standby).is_empty());
}

#[test]
fn after_a_promotion_nothing_is_left() {
    let scene = Scene::new();
    scene.repo.configure("prefetch_linger = \"10m\"");
    let restored = scene.standby();
    let rows = scene.write_segments(5);
    let standby = restored.start();
    standby.wait_sql("select count(*) from t", &rows);
    standby.wait_for("a prefetcher", || !prefetchers(&standby).is_empty());
    standby.promote();
    standby.wait_for("the prefetcher to end", || prefetchers(&standby).is_empty());
    assert!(directories(&standby.data_dir().join("pg_wal/pgark.spool")).is_empty());
}

#[test]
fn what_a_killed_prefetcher_left_is_removed_when_a_promoted_server_archives_its_history() {
    let waiting = Waiting::with(4, "");
    waiting.ask(&waiting.names[0]);
    waiting.wait_ready(&waiting.names[1..]);
    prefetchers(&waiting.server).into_iter().for_each(kill_and_wait);
    let history = "1\t0/5000000\tno recovery target specified\n";
    waiting.scene.repo.scratch().write("00000002.history", history);
    let file = waiting.scene.repo.scratch().join("00000002.history");
    run(waiting.repo().wal_push(&waiting.server.data_dir()).arg(file)).succeeds();
    waiting.wait_gone();
}

#[test]
fn a_fetch_whose_server_is_gone_delivers_nothing() {
    let waiting = Waiting::in_scene(Scene::patient(), 3, "");
    let names = &waiting.names;
    waiting.ask(&names[0]);
    waiting.wait_ready(&names[1..]);
    fs::remove_file(waiting.target()).expect("removed");

    // Standbys are answered at once, except for histories.
    waiting.scene.repo.scratch().write("00000002.history", "1\t0/5000000\tx\n");
    let file = waiting.scene.repo.scratch().join("00000002.history");
    run(waiting.repo().wal_push(&waiting.server.data_dir()).arg(file)).succeeds();
    waiting.scene.unmount();
    let mut fetch = waiting.repo().std_program("wal-fetch");
    fetch.current_dir(waiting.server.data_dir()).args(["00000002.history", "pg_wal/ASKED"]);
    let log = waiting.repo().scratch().join("fetch.log");
    fetch.stderr(fs::File::create(&log).expect("made"));
    let fetch: Child = fetch.spawn().expect("started");
    waiting
        .server
        .wait_for("it to wait", || fs::read_to_string(&log).is_ok_and(|log| log.contains("trying again")));
    // Not with Cluster::kill_postmaster, which waits for everything in the data directory.
    kill(waiting.server.pid());
    waiting.scene.mount();
    let output = fetch.wait_with_output().expect("ended");
    let log = fs::read_to_string(&log).expect("read");
    assert_eq!(output.status.code(), Some(207), "{log}");
    assert!(log.contains("the server that asked for this WAL file is gone"), "{log}");
    assert!(!waiting.target().exists());
}

#[test]
fn a_spool_on_another_disk_is_copied_from() {
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let scene = Scene::new();
    // A table of TOML is open at the end of the configuration: the key has to be in front of it.
    let config = fs::read_to_string(scene.repo.config()).expect("read");
    fs::write(scene.repo.config(), format!("spool = {:?}\n{config}", disk.path())).expect("written");
    let waiting = Waiting::in_scene(scene, 5, "prefetch = 2");
    let names = &waiting.names;
    waiting.ask(&names[0]);
    let spool = || fs::read_dir(disk.path()).expect("list").next().expect("a spool").expect("entry").path();
    waiting.server.wait_for("two segments", || ready_in(&spool()) == names[1..3]);
    assert!(waiting.ask(&names[1]));
    waiting.server.wait_for("the next", || ready_in(&spool()) == names[2..4]);
    // Whoever could write there could have written anything.
    fs::set_permissions(spool(), fs::Permissions::from_mode(0o777)).expect("chmod");
    assert!(!waiting.ask(&names[2]));
    fs::set_permissions(spool(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let Some(_read_only) = ReadOnly::mount(&disk.path()) else { return };
    for name in names {
        waiting.ask(name);
    }
}

#[test]
fn recoveries_that_share_a_spool_do_not_mix() {
    let scenes = [Scene::new(), Scene::new()];
    let spool = Scratch::new();
    let mut recovering = Vec::new();
    for scene in &scenes {
        let config = fs::read_to_string(scene.repo.config()).expect("read");
        fs::write(scene.repo.config(), format!("spool = {:?}\n{config}", spool.path())).expect("written");
        let restored = [scene.backup(), scene.backup()];
        let rows = scene.write_segments(8);
        recovering.extend(restored.into_iter().map(|restored| (restored.spawn(), rows.clone())));
    }
    for (server, rows) in recovering {
        server.wait_ready();
        server.wait_sql("select pg_is_in_recovery()", "f");
        assert_eq!(server.psql("select count(*) from t"), rows);
    }
}

#[test]
fn prefetchers_killed_at_any_time_do_not_harm_a_recovery() {
    let scene = Scene::new();
    let restored = scene.backup();
    restored.fetch_with("-v");
    let rows = scene.write_segments(25);
    let server = restored.spawn();
    let mut killed = 0;
    while !server.log().contains("archive recovery complete") {
        for pid in prefetchers(&server) {
            std::thread::sleep(std::time::Duration::from_millis(killed * 3 % 50));
            kill(pid);
            killed += 1;
        }
        assert!(server.is_running(), "{}", server.log_tail());
    }
    server.wait_ready();
    server.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(server.psql("select count(*) from t"), rows);
    assert!(killed > 0);
}

#[test]
fn trouble_with_the_repository_ends_the_prefetcher_and_is_no_answer() {
    let waiting = Waiting::with(6, "prefetch = 4");
    let names = &waiting.names;
    let key = waiting.repo().only(&format!("{}.zst", names[2]));
    let stored = waiting.repo().read(&key);
    waiting.repo().damage(&key, Damage::FlipByte(-1));
    waiting.ask(&names[0]);
    waiting.wait_gone();
    let log = waiting.server.data_dir().join("pg_wal/pgark.spool/prefetcher.log");
    assert!(fs::read_to_string(log).expect("a log").contains(&names[2]));
    // The standby's own exit code for what is damaged: it asks again.
    run(&mut waiting.fetch(&names[2])).fails_with(1, "doesn't match checksum");
    waiting.repo().scratch().write(waiting.repo().path(&key), stored);
    waiting.ask(&names[1]);
    waiting.wait_ready(&names[2..6]);
}
