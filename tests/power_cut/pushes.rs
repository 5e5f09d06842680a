//! `pgark init` and `wal-push`, with a cut at each change they make.

use crate::harness::*;
use crate::wal::*;
use crate::{Powered, changes};

/// A segment of timeline 2, which brings its history along, and one of timeline 1 that was pushed before.
struct Case {
    server: ServerDir,
    before: &'static str,
    name: &'static str,
}

impl Case {
    fn new() -> Self {
        let (before, name) = (wal().segments(1)[0], wal().segments(2)[1]);
        Self { server: ServerDir::with(&[before, name, "00000002.history"]), before, name }
    }

    /// With the first segment.
    fn start(&self) -> Option<Powered> {
        let powered = Powered::new(32)?;
        self.server.push(&powered.repo, self.before).succeeds();
        Some(powered)
    }

    fn push(&self, powered: &Powered, fault: Fault) -> (Outcome, Vec<Call>) {
        let fault = fault.under(powered.repo.root());
        run_with_fault(self.server.push_command(&powered.repo, self.name), fault)
    }

    /// What can be seen is whole, and these files are there.
    #[track_caller]
    fn expect(&self, powered: &Powered, acknowledged: &[&str], what: &str) {
        let repo = &powered.repo;
        let published = published(repo);
        for key in &published {
            let stored = |name: &str| key.contains(&format!("/{name}"));
            if let Some(name) = [self.before, self.name].into_iter().find(|name| stored(name)) {
                assert!(unzstd(repo, key) == wal().file(name), "{what}: {key} is not whole");
            } else if key.ends_with(".history") {
                assert!(repo.read(key) == wal().file("00000002.history"), "{what}: {key} is not whole");
            } else {
                let json = serde_json::from_slice::<serde_json::Value>(&repo.read(key));
                assert!(json.is_ok(), "{what}: {key}: {json:?}");
            }
        }
        for name in acknowledged {
            let stored = published.iter().filter(|key| key.contains(&format!("/{name}"))).count();
            assert_eq!(stored, 1, "{what}: {name} is not there: {published:#?}");
        }
        assert!(published.iter().any(|key| key.ends_with("/cluster.json")), "{what}: {published:#?}");
    }
}

/// The objects; not what was being written, nor locks, nor what `init` tried out.
fn published(repo: &TestRepo) -> Vec<String> {
    let mut keys = repo.list();
    keys.retain(|key| !["#", "/lock/", "probe-"].iter().any(|part| key.contains(part)));
    keys
}

#[test]
fn a_cut_at_any_change_of_a_push_loses_nothing_that_was_acknowledged() {
    let case = Case::new();
    let Some(counted) = case.start() else { return };
    let calls = changes(case.server.push_command(&counted.repo, case.name), &counted.repo);
    drop(counted);
    assert!(calls.len() > 15, "{calls:#?}");
    for n in moments("cuts in a push", calls.len() + 1, 12) {
        let mut powered = case.start().expect("as before");
        let what = format!("without power instead of {:?}", calls.get(n - 1));
        let (outcome, _) = case.push(&powered, Fault::kill_at(n));
        powered.cut();
        case.expect(&powered, &[case.before], &what);
        if outcome.code == Some(0) {
            case.expect(&powered, &[case.before, case.name, "00000002.history"], &what);
        }
        case.server.push(&powered.repo, case.name).succeeds();
        case.expect(&powered, &[case.before, case.name, "00000002.history"], &what);
    }
}

/// If this fails, the tests here prove nothing.
#[test]
fn a_push_whose_syncs_do_nothing_is_lost_in_a_cut() {
    let case = Case::new();
    let Some(mut powered) = case.start() else { return };
    let syncs = Fault::skip_from(1).only(&["fsync", "fdatasync"]);
    let (outcome, skipped) = case.push(&powered, syncs);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(skipped.len() > 5, "{skipped:#?}");
    powered.cut();
    let left = published(&powered.repo);
    assert!(!left.iter().any(|key| key.contains(case.name)), "{left:#?}");
    case.expect(&powered, &[case.before], "syncs that do nothing");
}

#[test]
fn what_a_second_push_finds_of_a_killed_one_and_acknowledges_outlives_a_cut() {
    let case = Case::new();
    let Some(counted) = case.start() else { return };
    let calls = changes(case.server.push_command(&counted.repo, case.name), &counted.repo);
    drop(counted);
    for n in moments("kills before a second push", calls.len(), 12) {
        let mut powered = case.start().expect("as before");
        let what = format!("killed before {:?}, pushed again, and without power", calls[n - 1]);
        case.push(&powered, Fault::kill_at(n));
        case.server.push(&powered.repo, case.name).succeeds();
        powered.cut();
        case.expect(&powered, &[case.before, case.name, "00000002.history"], &what);
    }
}

#[test]
fn what_the_first_push_of_all_acknowledges_outlives_a_cut() {
    let case = Case::new();
    let Some(counted) = Powered::new(32) else { return };
    let calls = changes(case.server.push_command(&counted.repo, case.name), &counted.repo);
    drop(counted);
    for n in moments("kills of the first push", calls.len() + 1, 12) {
        let mut powered = Powered::new(32).expect("as before");
        case.push(&powered, Fault::kill_at(n));
        case.server.push(&powered.repo, case.name).succeeds();
        powered.cut();
        let what = format!("killed before {:?}, pushed again, and without power", calls.get(n - 1));
        case.expect(&powered, &[case.name, "00000002.history"], &what);
    }
}

#[test]
fn a_repository_that_was_acknowledged_outlives_a_cut_also_if_an_init_before_was_killed() {
    let init = |powered: &Powered| {
        let mut init = powered.repo.std_program("pgark");
        init.arg("init");
        init
    };
    let Some(counted) = Powered::bare(32) else { return };
    let fault = |powered: &Powered, fault: Fault| fault.under(&powered.disk.path());
    let (outcome, calls) = run_with_fault(init(&counted), fault(&counted, Fault::none()));
    outcome.succeeds();
    drop(counted);
    for n in moments("kills of an init", calls.len() + 1, 12) {
        let mut powered = Powered::bare(32).expect("as before");
        run_with_fault(init(&powered), fault(&powered, Fault::kill_at(n)));
        let id = run(&mut powered.repo.pgark(&["init"])).succeeds();
        powered.cut();
        let what = format!("killed before {:?}, initialised again, and without power", calls.get(n - 1));
        assert_eq!(published(&powered.repo), ["pgark.json"], "{what}");
        assert_eq!(run(&mut powered.repo.pgark(&["init"])).succeeds(), id, "{what}");
    }
}
