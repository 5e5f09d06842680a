//! What can't be read is listed, the rest is told all the same, and the exit code says it.

use super::*;

fn small() -> TestRepo {
    let repo = TestRepo::init();
    Generator { segments: 60, backups: 3, timelines: 2, ..Generator::default() }.fill(repo.root());
    repo
}

#[test]
fn one_damaged_object_does_not_hide_the_others() {
    // What is damaged, what it is called, how many backups and paths are still told.
    let cases = [
        ("/backup/b0001/backup.json", "backup", 2, 2),
        ("/wal/00000002.history", "history", 3, 1),
        ("/pin/", "pins", 3, 2),
        ("/gap/", "gaps", 3, 2),
    ];
    side_by_side(
        &cases,
        |case| case.1,
        |(key, what, backups, paths)| {
            let repo = small();
            run(&mut repo.pgark(&["pin", "b0002"])).succeeds();
            let pin = repo.only("/pin/");
            let gap = pin.replace("/pin/", "/gap/");
            std::fs::create_dir(repo.path(&gap).parent().expect("a directory")).expect("made");
            std::fs::write(repo.path(&gap), "{").expect("written");
            if *what != "gaps" {
                repo.damage(&gap, Damage::Delete);
                repo.damage(&repo.only(key), Damage::Truncate(2));
            }
            let (json, code) = info(&repo, &[]);
            assert_eq!(code, Some(5), "{json}");
            let found = &json["clusters"][0]["incarnations"][0];
            assert_eq!(each(&found["unreadable"], "what"), [what]);
            assert_eq!(found["backups"].as_array().map(Vec::len), Some(*backups));
            assert_eq!(found["paths"].as_array().map(Vec::len), Some(*paths));
            let outcome = run(&mut repo.pgark(&["info"]));
            assert_eq!(outcome.code, Some(5));
            assert!(outcome.stdout.contains("Can't be read"), "{outcome}");
            if *what == "backup" {
                run(&mut repo.pgark(&["info", "b0001"])).fails_with(5, "could not read");
            }
        },
    );
}

#[test]
fn a_backup_that_lacks_something_is_told_so() {
    let repo = small();
    let packs = repo.matching("/pack/");
    repo.damage(&packs[0], Damage::Delete);
    let found = incarnation(&repo);
    let lacking = each(&found["backups"], "missing_packs");
    assert!(lacking.iter().any(|missing| **missing == 1), "{lacking:?}");
    assert!(text(&repo, &[]).contains("1 pack missing"));

    // The one segment that the newest backup needs.
    let start = found["backups"][2]["start_lsn"].as_str().expect("an LSN").to_string();
    let number = u64::from_str_radix(start.split_once('/').expect("an LSN").1, 16).expect("hex") >> 24;
    repo.damage(&repo.only(&format!("{number:08X}.zst")), Damage::Delete);
    let found = incarnation(&repo);
    let missing = found["backups"][2]["missing_wal"].as_str().expect("a segment");
    assert!(missing.ends_with(&format!("{number:08X}")), "{missing}");
    assert_eq!(each(&found["holes"], "first_segment"), [missing]);
    assert!(text(&repo, &["b0002"]).contains("nowhere: it can't be restored"));
}

#[test]
fn what_expire_leaves_out_is_no_loss() {
    let repo = TestRepo::init();
    Generator { segments: 60, backups: 3, ..Generator::default() }.fill(repo.root());
    // Between the segment of the first backup, 200, and that of the second.
    let thin_out = |from: u64, to: u64| {
        for number in from..=to {
            repo.damage(&repo.only(&format!("0000000100000000{number:08X}.zst")), Damage::Delete);
        }
    };
    thin_out(202, 219);
    assert_eq!(
        each(&incarnation(&repo)["holes"], "expired"),
        [false],
        "it may look like that, but nobody says so"
    );
    let record = r#"{"format":"pgark expired","version":1,"at":"2026-11-23T03:40:00Z","host":"db1","runs":[
        {"first":"0000000100000000000000CA","last":"0000000100000000000000DB"}]}"#;
    let directory = repo.path(&repo.only("/cluster.json")).with_file_name("expired");
    std::fs::create_dir(&directory).expect("made");
    std::fs::write(directory.join("00112233445566778899aabbccddeeff.json"), record).expect("written");
    let found = incarnation(&repo);
    assert_eq!(each(&found["holes"], "expired"), [true]);
    let windows = &found["paths"][0]["windows"];
    assert_eq!(
        (each(windows, "expired"), each(windows, "backup")),
        (vec![&true.into(), &false.into()], vec![&"b0000".into(), &"b0001".into()])
    );
    let shown = text(&repo, &[]);
    assert!(shown.contains("what follows has expired") && !shown.contains("issing"), "{shown}");
    thin_out(230, 230);
    let found = incarnation(&repo);
    assert_eq!(each(&found["holes"], "expired"), [true, false]);
    assert!(text(&repo, &[]).contains("1 segment of timeline 1: 0000000100000000000000E6"));
}

#[test]
fn a_backup_on_a_timeline_without_history_is_told_so() {
    let repo = small();
    repo.damage(&repo.only("/wal/00000002.history"), Damage::Delete);
    let found = incarnation(&repo);
    assert_eq!(each(&found["backups"], "on_known_path"), [true, true, false]);
    assert_eq!(each(&found["backups"], "missing_wal"), [&Value::Null; 3]);
    assert_eq!(each(&found["timelines"], "history_known"), [true, false]);
    let shown = text(&repo, &[]);
    assert!(shown.contains("on no timeline whose history is known"), "{shown}");
    assert!(shown.contains("its history is missing: nothing on it can be restored"), "{shown}");
}

#[test]
fn an_incarnation_that_cannot_be_understood_is_listed() {
    let repo = small();
    repo.damage(&repo.only("/cluster.json"), Damage::Truncate(10));
    let (json, code) = info(&repo, &[]);
    assert_eq!(code, Some(5));
    assert_eq!(each(&json["clusters"][0]["unreadable"], "what"), ["cluster"]);
    assert_eq!(json["clusters"][0]["incarnations"], serde_json::json!([]));
}

#[test]
fn nothing_is_told_of_a_repository_that_is_not_there() {
    let repo = TestRepo::not_initialised();
    run(&mut repo.pgark(&["info"])).fails_with(2, "no repository here");
    let empty = TestRepo::init();
    run(&mut empty.pgark(&["info"])).fails_with(3, "nothing was archived into it yet");
}

#[test]
fn an_archive_without_a_backup_leads_nowhere() {
    let repo = TestRepo::init();
    Generator { segments: 5, backups: 0, ..Generator::default() }.fill(repo.root());
    let shown = text(&repo, &[]);
    assert!(shown.contains("nowhere: there is no backup"), "{shown}");
    assert_eq!(incarnation(&repo)["paths"][0]["windows"], serde_json::json!([]));
}
