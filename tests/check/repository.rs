//! What is wrong with the repository, or missing in it.

use std::fs;

use super::scene::*;
use crate::harness::*;

#[test]
fn what_is_missing_or_damaged_in_the_repository_is_found() {
    let scene = Scene::new();
    scene.write_segments(4);
    let mut segments = scene.repo.matching("/wal/00000001/");
    segments.retain(|key| key.ends_with(".zst"));
    let header = scene.repo.only("/backup.json");
    let lost = segments[segments.len() - 2].clone();
    for (key, damage, expected) in [
        (&lost, Damage::Delete, &["critical holes"][..]),
        (&header, Damage::FlipByte(300), &["critical backup_age", "critical backup_headers"]),
        (&header, Damage::Delete, &["critical backup_age"]),
    ] {
        let content = scene.repo.read(key);
        scene.repo.damage(key, damage);
        let checked = scene.check(&[]);
        let path = scene.repo.path(key);
        if path.exists() {
            fs::remove_file(&path).expect("removed");
        }
        scene.repo.scratch().write(path, content);
        assert_eq!(checked.code, Some(2));
        checked.finds(expected);
    }
    scene.check(&[]).finds(&[]);
}

#[test]
fn a_hole_before_the_newest_backup_is_only_a_warning() {
    let scene = Scene::new();
    scene.write_segments(3);
    let mut segments = scene.repo.matching("/wal/00000001/");
    segments.retain(|key| key.ends_with(".zst"));
    let lost = segments[segments.len() - 2].clone();
    run(&mut scene.repo.basebackup(&scene.server)).succeeds();
    scene.repo.damage(&lost, Damage::Delete);
    let checked = scene.check(&[]);
    checked.finds(&["warning holes"]);
    assert_eq!(checked.code, Some(1));
}

#[test]
fn old_backups_are_told_by_the_limits() {
    let scene = Scene::new();
    scene.check(&["--warn-backup-age", "0s"]).finds(&["warning backup_age"]);
    scene.check(&["--crit-backup-age", "0s"]).finds(&["critical backup_age"]);
    scene
        .check(&["--warn-free", "100", "--crit-free", "0"])
        .finds(&["warning pg_wal_space", "warning repository_space"]);
}

#[test]
fn a_cluster_that_never_archived_here_is_critical() {
    let scene = Scene::new();
    let checked = scene.check(&["--cluster", "other"]);
    checked.finds(&["critical system_id"]);
    let remedy = checked.of("system_id")[0]["remedy"].as_str().expect("a remedy").to_owned();
    assert!(!remedy.is_empty());
}

#[test]
fn a_repository_that_is_not_mounted_is_critical() {
    let scene = Scene::new();
    fs::rename(scene.repo.root(), scene.repo.scratch().join("away")).expect("renamed");
    scene.repo.scratch().make_dir("repo");
    let checked = scene.check(&["--no-switch"]);
    checked.finds(&["critical repository"]);
    assert!(checked.json["repository"].is_null());
    assert_eq!(scene.repo.list(), Vec::<String>::new(), "nothing is written below the mount point");
}

#[test]
fn a_server_that_another_one_took_over_from_is_told() {
    let scene = Scene::new();
    let standby = scene.server.standby().set("archive_mode", "on").start();
    scene.server.wait_replayed_by(&standby);
    standby.promote();
    standby.archive_everything();
    scene.write_segments(2);
    let checked = scene.check(&[]);
    checked.finds(&["warning timeline"]);
    check(&scene.repo, &standby, &["--no-switch"]).finds(&[]);
}

#[test]
fn only_the_newest_results_are_kept() {
    let scene = Scene::new();
    for _ in 0..12 {
        scene.check(&["--no-switch"]);
    }
    assert_eq!(scene.repo.matching("/check/").len(), 10);
}

#[test]
fn a_result_that_cannot_be_kept_is_a_warning() {
    let scene = Scene::new();
    scene.check(&[]);
    let records = scene.repo.matching("/check/").remove(0);
    let directory = scene.repo.path(&records).parent().expect("a directory").to_path_buf();
    fs::remove_dir_all(&directory).expect("removed");
    scene.repo.scratch().write(&directory, "in the way");
    scene.check(&["--no-switch"]).finds(&["warning record"]);
}
