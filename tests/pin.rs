//! Pins by the real programs, on the repository that format version 1 wrote.

mod harness;
use harness::*;

use serde_json::Value;

const LABEL: &str = "20261123-031000";

fn json(repo: &TestRepo, verb: &str, arguments: &[&str]) -> Value {
    let out = run(repo.pgark(&[verb]).args(arguments).args(["--output", "json"])).succeeds();
    let json = serde_json::from_str(&out).expect("json");
    assert_matches_schema(verb, &json);
    json
}

#[test]
fn a_backup_is_pinned_listed_and_unpinned() {
    let repo = TestRepo::golden();
    assert_eq!(run(&mut repo.pgark(&["pin"])).succeeds(), "no backup of main is pinned\n");
    let pinned = json(&repo, "pin", &[LABEL, "--until", "90 days", "--note", "before the migration"]);
    assert_eq!(pinned["pins"][0]["note"], "before the migration");
    assert_eq!(pinned["pins"][0]["holds"], true);
    run(&mut repo.pgark(&["pin", LABEL])).succeeds();
    assert_eq!(json(&repo, "pin", &[])["pins"].as_array().map(Vec::len), Some(2));
    assert_eq!(repo.matching("/pin/").len(), 2);
    let listed = run(&mut repo.pgark(&["pin"])).succeeds();
    assert!(listed.contains("before the migration") && !listed.contains('\u{1b}'), "{listed}");
    assert_eq!(json(&repo, "unpin", &[LABEL])["removed"], 2);
    assert_eq!(repo.matching("/pin/"), Vec::<String>::new());
    run(&mut repo.pgark(&["unpin", LABEL])).fails_with(3, "is not pinned");
}

#[test]
fn what_is_not_there_or_has_passed_cannot_be_pinned() {
    let repo = TestRepo::golden();
    run(&mut repo.pgark(&["pin", "nothing"])).fails_with(3, "there is no backup nothing");
    run(&mut repo.pgark(&["pin", LABEL, "--until", "2001-01-01 00:00:00+00"])).fails_with(2, "has passed");
    run(&mut repo.pgark(&["pin", LABEL, "--system-id", "7"])).fails_with(3, "system identifier 7");
    run(&mut repo.pgark(&["pin", "--note", "x"])).fails_with(2, "LABEL");
    assert_eq!(repo.matching("/pin/"), Vec::<String>::new());
}

#[test]
fn a_pin_that_cannot_be_read_is_told_and_not_overlooked() {
    let repo = TestRepo::golden();
    run(&mut repo.pgark(&["pin", LABEL])).succeeds();
    repo.damage(&repo.only("/pin/"), Damage::Truncate(20));
    run(&mut repo.pgark(&["pin"])).fails_with(5, "could not read");
    run(&mut repo.pgark(&["unpin", LABEL])).fails_with(5, "could not read");
}

#[test]
fn killed_or_failing_at_any_change_a_pin_is_whole_or_not_there_and_can_be_repeated() {
    let attempt = |repo: &TestRepo, verb: &str, fault: Fault| {
        let mut command = repo.std_program("pgark");
        command.args([verb, LABEL]);
        run_with_fault(command, fault.under(repo.root()))
    };
    let pins = |repo: &TestRepo| json(repo, "pin", &[])["pins"].as_array().map_or(0, Vec::len);
    for verb in ["pin", "unpin"] {
        let start = || {
            let repo = TestRepo::golden();
            if verb == "unpin" {
                run(&mut repo.pgark(&["pin", LABEL])).succeeds();
            }
            repo
        };
        let (outcome, calls) = attempt(&start(), verb, Fault::none());
        outcome.succeeds();
        for n in 1..=calls.len() {
            let no_space = Fault::fail_from(n, Errno::NOSPC);
            for fault in [Fault::kill_at(n), Fault::fail_at(n, Errno::IO), no_space] {
                let repo = start();
                let (outcome, _) = attempt(&repo, verb, fault);
                let what = format!("{verb} at {:?}: {outcome}", calls[n - 1]);
                assert!([None, Some(0), Some(6)].contains(&outcome.code), "{what}");
                assert!(outcome.code != Some(6) || outcome.stderr.contains("could not "), "{what}");
                // What can be read is whole, or this fails.
                assert!(pins(&repo) <= 1, "{what}");
                assert!(outcome.code != Some(0) || (pins(&repo) == 1) == (verb == "pin"), "{what}");
                if (pins(&repo) == 1) != (verb == "pin") {
                    run(&mut repo.pgark(&[verb, LABEL])).succeeds();
                }
                assert_eq!(pins(&repo) == 1, verb == "pin", "{what}");
            }
        }
    }
}
