//! What was kept restores, and its data is right.

use serde_json::Value;

use crate::harness::*;
use crate::scene::*;

#[test]
fn every_kept_backup_and_every_moment_of_the_window_is_restored_right() {
    let scene = Scene::new();
    let before = expire(&scene.repo, &[&scene.arguments()[..], &["--dry-run"]].concat());
    let said = scene.expire();
    assert_eq!(labels(&said, true), KEPT);
    assert_eq!(labels(&said, false), ["two", "three"]);
    assert_eq!(incarnation(&before)["frees"], incarnation(&said)["frees"], "the plan is what is done");
    let (frees, done) = (&incarnation(&said)["frees"], &incarnation(&said)["done"]);
    assert_eq!(done["backups"], serde_json::json!(["two", "three"]));
    for (freed, went) in [("packs", "packs"), ("backup_bytes", "backup_bytes"), ("wal_bytes", "wal_bytes")] {
        assert_eq!(frees[freed], done[went], "{said:#}");
    }
    assert_eq!(done["postponed"], serde_json::json!([]));
    assert_eq!(headers(&scene.repo), ["five", "four", "one"]);
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
    assert_eq!(scene.repo.matching("/backup/two"), Vec::<String>::new());

    let scratch = Scratch::new();
    for label in KEPT {
        let arguments = ["--backup", label, "--target", "immediate"];
        let restored = scene.repo.restore(&scratch, label, &arguments);
        restored.assert_content(&scene.facts.content[label]);
        restored.assert_sound();
    }
    let window = &incarnation(&said)["windows"][0];
    assert_eq!(window["backup"], "four");
    let begin = window["wanted"].as_str().expect("a time");
    assert_eq!(window["since"], begin, "all of the window");
    let restored = scene.repo.restore(&scratch, "begin", &["--target-time", begin]);
    restored.assert_content(&scene.facts.middle);
    let restored = scene.repo.restore(&scratch, "end", &[]);
    restored.assert_content(&scene.facts.end);
    restored.assert_checksums();

    let verified = run(&mut scene.repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "what expired is not missed: {verified}");
    let again = scene.expire();
    let done = &incarnation(&again)["done"];
    assert_eq!((&done["packs"], &done["wal_objects"]), (&Value::from(0), &Value::from(0)), "{again:#}");
}

#[test]
fn what_info_says_is_reachable_afterwards_is_reached() {
    let scene = Scene::new();
    scene.expire();
    let said = run(&mut scene.repo.pgark(&["info", "--output", "json"])).succeeds();
    let info: Value = serde_json::from_str(&said).expect("JSON");
    let found = &info["clusters"][0]["incarnations"][0];
    let holes = found["holes"].as_array().expect("a list");
    assert!(!holes.is_empty() && holes.iter().all(|hole| hole["expired"] == true), "{holes:#?}");
    let windows = found["paths"][0]["windows"].as_array().expect("a list");
    let backups: Vec<&str> = windows.iter().filter_map(|window| window["backup"].as_str()).collect();
    assert_eq!(backups, ["one", "four"]);
    let scratch = Scratch::new();
    // Its end: where the backup is consistent; of the other all.
    for (window, which, content) in [
        (0, "from_lsn", Some(&scene.facts.content["one"])),
        (1, "from_lsn", None),
        (1, "to_lsn", Some(&scene.facts.end)),
    ] {
        let lsn = windows[window][which].as_str().expect("an LSN");
        let arguments = ["--backup", backups[window], "--target-lsn", lsn];
        let restored = scene.repo.restore(&scratch, &format!("{window}-{which}"), &arguments);
        if let Some(content) = content {
            restored.assert_content(content);
        }
    }
}

#[test]
fn a_restore_takes_a_lease_and_gives_it_back_however_it_ends() {
    let scene = Scene::new();
    let scratch = Scratch::new();
    scene.repo.restore(&scratch, "well", &["--target", "immediate"]);
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
    let mut command = scene.repo.bootstrap_restore();
    command.arg("-D").arg(scratch.join("dry")).args(["--dry-run"]);
    run(&mut command).succeeds();
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
    // Found damaged only when its files are read.
    let packs = scene.repo.matching("/pack/");
    packs.iter().for_each(|pack| scene.repo.damage(pack, Damage::FlipByte(40)));
    let mut command = scene.repo.bootstrap_restore();
    command.arg("-D").arg(scratch.join("badly"));
    assert_ne!(run(&mut command).code, Some(0));
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
}

/// Everything, into `data`; with what was said.
fn restore_into(scene: &Scene, scratch: &Scratch) -> Outcome {
    let sockets = scratch.make_dir("s");
    let mut command = scene.repo.bootstrap_restore();
    command.arg("-D").arg(scratch.join("data")).arg("--socket-dir").arg(sockets);
    let outcome = run(&mut command);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome
}

#[test]
fn a_repository_that_can_not_be_written_restores_with_a_warning() {
    let scene = Scene::new();
    let Some(_mount) = ReadOnly::mount(scene.repo.root()) else { return };
    let scratch = Scratch::new();
    let outcome = restore_into(&scene, &scratch);
    assert!(outcome.stderr.contains("nothing keeps `pgark expire`"), "{outcome}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome}");
    Cluster::adopt(&scratch.join("data")).assert_content(&scene.facts.end);
}

#[test]
fn in_a_repository_of_another_user_nothing_is_left() {
    if !is_root() {
        eprintln!("skipped: only root can give a repository away");
        return;
    }
    let scene = Scene::new();
    for entry in walkdir::WalkDir::new(scene.repo.root()) {
        let path = entry.expect("list").into_path();
        std::os::unix::fs::chown(&path, Some(0), None).expect("chown");
        let mode = if path.is_dir() { 0o777 } else { 0o644 };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("chmod");
    }
    let before = scene.repo.list();
    let scratch = Scratch::new();
    let outcome = restore_into(&scene, &scratch);
    assert!(outcome.stderr.contains("belongs to another user"), "{outcome}");
    drop(Cluster::adopt(&scratch.join("data")));
    assert_eq!(scene.repo.list(), before);
}
