//! Archives of real servers: what `info` says can be reached, `bootstrap-restore` reaches.

use super::*;

/// Writes down a name and returns a moment at which it was the newest.
fn note(server: &Cluster, name: &str) -> String {
    server.psql(&format!("insert into t values ('{name}')"));
    server.now()
}

fn names(server: &Cluster) -> String {
    server.psql("select coalesce(string_agg(name, ' ' order by name), '') from t")
}

fn backup(repo: &TestRepo, of: &Cluster, label: &str) {
    run(repo.basebackup(of).args(["--label", label])).succeeds();
}

#[test]
fn what_is_said_to_be_reachable_is_reached() {
    let (repo, scratch) = (TestRepo::init(), Scratch::new());
    let first = Cluster::builder().archive_to(&repo).wal_segment_mib(1).start();
    first.psql("create table t (name text)");
    backup(&repo, &first, "one");
    note(&first, "a");
    note(&first, "at-the-end");
    first.archive_everything();
    note(&first, "in-the-hole");
    let lost = first.archive_everything();
    note(&first, "b");
    first.archive_everything();
    repo.damage(&repo.only(&format!("/{lost}.zst")), Damage::Delete);
    backup(&repo, &first, "two");
    backup(&repo, &first, "three");
    note(&first, "c");
    first.archive_everything();
    first.stop(Stop::Fast);
    let second = repo.restore(&scratch, "second", &["--takeover"]);
    note(&second, "d");
    second.archive_everything();
    run(&mut repo.pgark(&["pin", "three", "--note", "keep <me>"])).succeeds();

    let found = incarnation(&repo);
    assert_eq!(found["postgres_major"], pg_major());
    assert_eq!(found["segment_size_bytes"], 1 << 20);
    assert_eq!(each(&found["backups"], "label"), ["one", "two", "three"]);
    assert_eq!(found["backups"][2]["pins"][0]["note"], "keep <me>");
    assert_eq!(each(&found["backups"], "missing_wal"), [&Value::Null, &Value::Null, &Value::Null]);
    assert_eq!(each(&found["backups"], "alone_bytes"), each(&found["backups"], "stored_bytes"));
    assert_eq!(found["stored"]["unreferenced_packs_bytes"], 0);
    assert_eq!(each(&found["timelines"], "timeline"), [1, 2]);
    assert_eq!(found["timelines"][1]["fork"]["parent"], 1);
    assert_eq!(each(&found["holes"], "first_segment"), [lost.as_str()]);
    assert_eq!(each(&found["holes"], "last_segment"), [lost.as_str()]);

    let windows = found["paths"][0]["windows"].as_array().expect("a list");
    assert_eq!(each(&found["paths"][0]["windows"], "backup"), ["one", "two"]);
    assert_eq!(windows[0]["missing"], lost.as_str());
    let newer = found["paths"][1]["windows"].as_array().expect("a list");
    assert_eq!((newer.len(), &newer[0]["backup"], &newer[0]["missing"]), (1, &"two".into(), &Value::Null));
    let last = |window: &Value| window["to_time"].as_str().expect("a time").to_string();
    let begin = |window: &Value| window["from_time"].as_str().expect("a time").to_string();
    // Where WAL is missing, nothing follows the last transaction by which PostgreSQL would see that it is the last.
    let before: &[&str] = &["--exclusive"];
    let cases: [(&str, String, &str, &[&str], &str); 5] = [
        ("begin-of-the-first", begin(&windows[0]), "1", &[], ""),
        ("end-of-the-first", last(&windows[0]), "1", before, "a"),
        ("begin-of-the-second", begin(&windows[1]), "1", &[], "a at-the-end b in-the-hole"),
        ("end-of-the-second", last(&windows[1]), "1", &[], "a at-the-end b c in-the-hole"),
        ("end-of-the-third", last(&newer[0]), "2", &[], "a at-the-end b c d in-the-hole"),
    ];
    side_by_side(
        &cases,
        |case| case.0,
        |(name, time, timeline, more, expected)| {
            let arguments = [&["--target-time", time, "--target-timeline", timeline], *more].concat();
            assert_eq!(&names(&repo.restore(&scratch, name, &arguments)), expected);
        },
    );

    let shown = text(&repo, &[]);
    for expected in [
        "Where one can go back to",
        "timeline 2",
        "pinned: keep <me>",
        &format!("{lost} is missing"),
        "1 segment of timeline 1",
        "left 1 at 0/",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
    }
    assert!(shown.contains('╳') && shown.contains('◇') && !shown.contains('\u{1b}'), "{shown}");
    let mut ascii = repo.pgark(&["info"]);
    let ascii = run(ascii.env("LC_ALL", "C")).succeeds();
    assert!(ascii.is_ascii() && ascii.contains("timeline 1  o"), "{ascii}");

    one_in_full(&repo, &first);
}

/// `info BACKUP` tells what its header holds and what it leads to.
fn one_in_full(repo: &TestRepo, server: &Cluster) {
    let (json, code) = info(repo, &["three"]);
    assert_eq!((code, &json["backup"]["label"]), (Some(0), &"three".into()));
    assert_eq!(each(&json["windows"], "timeline"), [1, 2]);
    assert_eq!(each(&json["windows"], "opened"), [false, false]);
    assert!(json["packs"]["own"].as_u64() > Some(0), "{json}");
    assert_eq!(json["settings"]["data_directory"], server.data_dir().display().to_string());
    let databases = each(&json["locale"]["databases"], "name");
    assert!(
        databases.contains(&&"postgres".into()) && databases.contains(&&"template1".into()),
        "{databases:?}"
    );
    let shown = text(repo, &["three"]);
    for expected in
        ["Backup three", "keep <me>", "timeline 2: every moment up to", "data_directory", "template1"]
    {
        assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
    }
    let (json, _) = info(repo, &["one"]);
    assert_eq!(each(&json["windows"], "timeline"), [1]);
    assert_eq!(each(&json["windows"], "opened"), [true]);
    run(&mut repo.pgark(&["info", "four"])).fails_with(3, "there is no backup four of main");
}

#[test]
fn a_backup_that_is_being_taken_is_told() {
    let repo = TestRepo::init();
    let server = Cluster::builder().archive_to(&repo).start();
    backup(&repo, &server, "one");
    let mut slow = repo.std_program("basebackup");
    slow.envs(server.env())
        .args(["--label", "two", "--rate-limit", "1MB"])
        .stderr(std::process::Stdio::null());
    let mut slow = slow.spawn().expect("started");
    let running = || incarnation(&repo)["running"].clone();
    wait_for("the lease", || running().to_string(), || running() != serde_json::json!([]));
    assert_eq!(each(&running(), "label"), ["two"]);
    let found = incarnation(&repo);
    assert_eq!(each(&found["backups"], "label"), ["one"]);
    assert_eq!(found["stored"]["unreferenced_packs_bytes"], 0, "its packs are its own");
    assert!(text(&repo, &[]).contains("two is being taken on "));
    slow.kill().and_then(|()| slow.wait()).expect("killed");
}

#[test]
fn each_system_identifier_is_told_apart() {
    let repo = TestRepo::init();
    let old = Cluster::builder().archive_to(&repo).start();
    backup(&repo, &old, "one");
    old.archive_everything();
    let old_id = old.system_identifier();
    old.stop(Stop::Fast);
    // As pg_upgrade does: another system identifier under the same name.
    let new = Cluster::builder().archive_to(&repo).start();
    backup(&repo, &new, "one");
    new.archive_everything();
    let (json, code) = info(&repo, &[]);
    assert_eq!(code, Some(0));
    let incarnations = &json["clusters"][0]["incarnations"];
    let ids = [old_id, new.system_identifier()];
    assert_eq!(each(incarnations, "system_id"), [ids[0].as_str(), ids[1].as_str()]);
    let (json, _) = info(&repo, &["--system-id", &ids[0]]);
    assert_eq!(each(&json["clusters"][0]["incarnations"], "system_id"), [ids[0].as_str()]);
    run(&mut repo.pgark(&["info", "one"])).fails_with(2, "several incarnations of main have a backup one");
    assert_eq!(info(&repo, &["one", "--system-id", &ids[1]]).0["system_id"], ids[1].as_str());

    let mut other = Generator { cluster: "other".into(), segments: 5, backups: 1, ..Generator::default() };
    other.system_id = 77;
    other.fill(repo.root());
    assert_eq!(each(&info(&repo, &[]).0["clusters"], "name"), ["main"]);
    assert_eq!(each(&info(&repo, &["--all-clusters"]).0["clusters"], "name"), ["main", "other"]);
    run(repo.pgark(&["info"]).args(["--cluster", "third"])).fails_with(3, "it has these: main, other");
    // What a first push that was refused may leave behind.
    std::fs::create_dir_all(repo.root().join("empty/5")).expect("made");
    assert_eq!(each(&info(&repo, &["--all-clusters"]).0["clusters"], "name"), ["main", "other"]);
}
