//! `basebackup --expire`.

use serde_json::Value;

use crate::harness::*;
use crate::scene::*;

fn server(repo: &TestRepo) -> Cluster {
    Cluster::builder().wal_segment_mib(1).archive_to(repo).start()
}

#[test]
fn a_backup_is_followed_by_an_expiry_and_says_both() {
    let repo = TestRepo::init();
    let server = server(&repo);
    let backup = |label: &str, more: &[&str]| {
        run(repo.basebackup(&server).args(["--label", label, "--expire"]).args(more))
    };
    backup("none", &[]).fails_with(2, "no rule says what to keep");
    assert_eq!(repo.matching("/pack/"), Vec::<String>::new(), "before the copy began");
    repo.configure("[expire]\nkeep_last = 1");
    let text = backup("one", &[]).succeeds();
    assert!(
        text.contains("backup one of cluster main is complete") && text.contains("deleted 0 backups"),
        "{text}"
    );
    let text = backup("two", &[]).succeeds();
    assert!(text.contains("deleted 1 backup, 4 packs"), "{text}");
    let json: Value = serde_json::from_str(&backup("three", &["--output", "json"]).succeeds()).expect("JSON");
    assert_eq!(json["label"], "three");
    assert_eq!(json["expire"]["error"], Value::Null);
    let done = &json["expire"]["report"]["incarnations"][0]["done"];
    assert_eq!(done["backups"], serde_json::json!(["two"]));
    assert_eq!(headers(&repo), ["three"]);
    let json = run(repo.basebackup(&server).args(["--output", "json"])).succeeds();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json.get("expire"), None, "only where it was asked for");
}

#[test]
fn a_backup_stands_though_the_expiry_behind_it_failed() {
    let repo = TestRepo::init();
    let server = server(&repo);
    repo.configure("[expire]\nkeep_last = 1");
    backup(&repo, &server, "one");
    backup(&repo, &server, "two");
    repo.damage(&repo.only("/backup/one/backup.json"), Damage::Truncate(100));
    let outcome = run(repo.basebackup(&server).args(["--label", "three", "--expire"]));
    assert!(outcome.stdout.contains("backup three of cluster main is complete"), "{outcome}");
    outcome.fails_with(9, "backup three is complete, but expiring older ones failed");
    let outcome = run(repo.basebackup(&server).args(["--label", "four", "--expire", "--output", "json"]));
    assert_eq!(outcome.code, Some(9), "{outcome}");
    let json: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(json["label"], "four");
    assert!(
        json["expire"]["error"].as_str().is_some_and(|error| error.contains("nothing was expired")),
        "{json}"
    );
    assert_eq!(headers(&repo).len(), 4);
}

#[test]
fn a_unit_that_suits_every_host_expires_only_where_rules_are_configured() {
    let repo = TestRepo::init();
    let server = server(&repo);
    let backup = |label: &str| {
        run(repo.basebackup(&server).args(["--label", label, "--expire-if-configured"])).succeeds()
    };
    assert!(!backup("one").contains("deleted"));
    assert!(!backup("two").contains("deleted"));
    assert_eq!(headers(&repo), ["one", "two"]);
    repo.configure("[expire]\nkeep_last = 1");
    assert!(backup("three").contains("deleted 2 backups"));
    assert_eq!(headers(&repo), ["three"]);
}
