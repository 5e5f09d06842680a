//! After damage to what a backup stored: the next backup is whole, and the record of the damage goes when the pack goes.

use crate::harness::*;
use crate::scene::*;

#[test]
fn the_backup_after_damage_is_sound_and_restores() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    primary.psql("create table t as select generate_series(1, 50000) as a");
    run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
    let pack = repo.matching(".pack").remove(0);
    repo.damage(&pack, Damage::FlipByte(5000));
    let damaged = verify(&repo, &[]);
    assert_eq!(damaged.lost(), ["one"], "{}", damaged.outcome);
    assert!(!damaged.files("one").is_empty());
    let record = String::from_utf8(repo.read(&repo.only("/damaged/"))).expect("UTF-8");
    assert!(record.contains(pack.rsplit('/').next().expect("a name").trim_end_matches(".pack")), "{record}");

    run(repo.basebackup(&primary).args(["--label", "two"])).succeeds();
    verify(&repo, &["--backup", "two", "--deep"]).is_sound();
    primary.archive_everything();
    let all = verify(&repo, &[]);
    assert_eq!((all.outcome.code, all.lost()), (Some(5), vec!["one".to_owned()]), "{}", all.outcome);
    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "two", &["--backup", "two", "--target", "immediate"]);
    restored.assert_content(&primary.content());
    restored.assert_checksums();

    // As expiry deletes it: the header, then what nothing refers to any more.
    repo.damage(&repo.only("/one/backup.json"), Damage::Delete);
    run(repo.basebackup(&primary).args(["--label", "three"])).succeeds();
    assert!(!repo.list().contains(&pack), "swept");
    verify(&repo, &[]).is_sound();
    assert_eq!(repo.matching("/damaged/"), Vec::<String>::new());
}

#[test]
fn damage_that_was_repaired_is_forgotten() {
    let scene = Scene::new();
    let pack = scene.packs("one").remove(0);
    let whole = scene.repo.read(&pack);
    scene.repo.damage(&pack, Damage::FlipByte(5000));
    assert_eq!(scene.verify(&[]).lost(), ["one"]);
    assert_eq!(scene.verify(&["--backup", "two"]).outcome.code, Some(0));
    assert_eq!(scene.repo.matching("/damaged/").len(), 1, "the other backup says nothing about it");
    scene.replace(&pack, whole);
    scene.verify(&["--backup", "one"]).is_sound();
    assert_eq!(scene.repo.matching("/damaged/"), Vec::<String>::new());
}
