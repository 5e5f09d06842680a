//! Killing and failing the programs at every change that they make to files: whatever was acknowledged is
//! there and whole, nothing is half-visible, and the next run succeeds.

mod harness;
mod wal;

use std::collections::BTreeSet;
use std::path::Path;

use harness::*;
use rustix::io::Errno;
use wal::*;

/// A push into a fresh repository of a segment that brings a history along: directories, cluster.json, a
/// history, a lock and a segment.
struct Case {
    server: ServerDir,
    name: &'static str,
}

impl Case {
    fn new() -> Self {
        let name = wal().segments(2)[1];
        Self { server: ServerDir::with(&[name, "00000002.history"]), name }
    }

    fn push(&self, repo: &TestRepo, fault: Fault) -> (Outcome, Vec<Call>) {
        run_with_fault(self.server.push_command(repo, self.name), fault.under(repo.root()))
    }

    fn calls(&self) -> Vec<Call> {
        let repo = TestRepo::init();
        let (outcome, calls) = self.push(&repo, Fault::none());
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert!(calls.len() > 20, "{calls:#?}");
        calls
    }

    /// The objects that can be seen, and that each of them is whole.
    fn visible(&self, repo: &TestRepo, what: &str) -> Vec<String> {
        let published: Vec<String> = repo.list().into_iter().filter(|key| !key.contains('#')).collect();
        for key in &published {
            if key.ends_with(".zst") {
                assert!(unzstd(repo, key) == wal().file(self.name), "{what}: {key} is not whole");
            } else if key.ends_with(".history") {
                assert!(repo.read(key) == wal().file("00000002.history"), "{what}: {key} is not whole");
            } else if key.ends_with(".json") {
                serde_json::from_slice::<serde_json::Value>(&repo.read(key))
                    .unwrap_or_else(|error| panic!("{what}: {key}: {error}"));
            } else {
                assert!(key.contains("/lock/"), "{what}: {key} has no business here");
            }
        }
        published
    }

    /// What must hold after a push that met a fault.
    fn check(&self, repo: &TestRepo, outcome: &Outcome, what: &str) {
        let visible = self.visible(repo, what);
        if outcome.code == Some(0) {
            for part in [self.name, "00000002.history", "cluster.json"] {
                assert!(visible.iter().any(|key| key.contains(part)), "{what}: acknowledged, but no {part}");
            }
        }
        self.server.push(repo, self.name).succeeds();
        let visible = self.visible(repo, what);
        assert_eq!(visible.len(), 4, "{what}: {visible:#?}");
        assert_eq!(self.server.fetch(repo, self.name).code, Some(0), "{what}");
        assert!(self.server.delivered().as_deref() == Some(wal().file(self.name)), "{what}");
        self.server.remove("RECOVERYXLOG");
    }
}

#[test]
fn a_push_killed_anywhere_leaves_nothing_half_visible_and_the_next_succeeds() {
    let case = Case::new();
    for (n, call) in case.calls().iter().enumerate() {
        let repo = TestRepo::init();
        let (outcome, _) = case.push(&repo, Fault::kill_at(n + 1));
        let what = format!("killed before {call:?}");
        assert_eq!(outcome.code, None, "{what}: {outcome}");
        case.check(&repo, &outcome, &what);
    }
}

fn fail_everywhere(fault: fn(usize) -> Fault, message: &str) {
    let case = Case::new();
    let mut failed = 0;
    for (n, call) in case.calls().iter().enumerate() {
        let repo = TestRepo::init();
        let (outcome, _) = case.push(&repo, fault(n + 1));
        let what = format!("failed at {call:?}: {outcome}");
        assert!(outcome.code.is_some_and(|code| code == 0 || (2..=125).contains(&code)), "{what}");
        if outcome.code != Some(0) {
            failed += 1;
            assert!(outcome.stderr.contains(message), "{what}");
        }
        case.check(&repo, &outcome, &what);
    }
    assert!(failed > 15, "only {failed} of the failures were reported");
}

#[test]
fn a_push_with_an_io_error_anywhere_says_so_or_is_durable() {
    fail_everywhere(|n| Fault::fail_at(n, Errno::IO), "Input/output error");
}

#[test]
fn a_push_onto_a_disk_that_goes_away_says_so_or_is_durable() {
    fail_everywhere(|n| Fault::fail_from(n, Errno::IO), "Input/output error");
}

#[test]
fn a_push_onto_a_disk_that_fills_up_says_so_or_is_durable() {
    fail_everywhere(
        |n| {
            Fault::fail_from(n, Errno::NOSPC).only(&["write", "writev", "openat", "mkdir", "linkat", "fsync"])
        },
        "No space left on device",
    );
}

#[test]
fn every_new_name_is_durable_before_success() {
    let case = Case::new();
    let calls = case.calls();
    // By path: create_dir_all(3) tries the deepest directory first.
    let mut names = BTreeSet::new();
    for (n, call) in calls.iter().enumerate() {
        let parent = call.path.parent().expect("a parent");
        let synced = |path: &Path, calls: &[Call]| {
            calls.iter().any(|call| call.name.ends_with("sync") && call.path == path)
        };
        if call.name.starts_with("mkdir") || call.name.starts_with("link") {
            names.insert(&call.path);
            assert!(synced(parent, &calls[n..]), "the name of {call:?} is never made durable: {calls:#?}");
        }
        if call.name.starts_with("link") {
            let staged = format!("{}#1", call.path.display());
            assert!(synced(Path::new(&staged), &calls[..n]), "{call:?} names bytes that are not durable");
        }
    }
    // <cluster>, <system id>, wal, timeline, log, lock; cluster.json, history, segment.
    assert_eq!(names.len(), 9, "{names:#?}");
}

#[test]
fn an_init_killed_anywhere_can_be_repeated() {
    let init = |repo: &TestRepo| {
        let mut init = repo.std_program("pgark");
        init.arg("init");
        init
    };
    let fresh = || {
        let scratch = Scratch::new();
        let root = scratch.join("new/repo");
        TestRepo::at(scratch, root)
    };
    let counted = fresh();
    let (outcome, calls) = run_with_fault(init(&counted), Fault::none().under(counted.scratch().path()));
    assert_eq!(outcome.code, Some(0), "{outcome}");
    for n in 1..=calls.len() {
        let repo = fresh();
        run_with_fault(init(&repo), Fault::kill_at(n).under(repo.scratch().path()));
        let id = run(&mut repo.pgark(&["init"])).succeeds();
        assert_eq!(run(&mut repo.pgark(&["init"])).succeeds(), id);
        assert!(repo.list().contains(&"pgark.json".to_owned()));
    }
}

/// A repository that holds a segment, and a server's directory to fetch it into.
fn stored() -> (TestRepo, ServerDir, &'static str) {
    let repo = impatient();
    let name = wal().segments(1)[0];
    let server = ServerDir::with(&[name]);
    server.push(&repo, name).succeeds();
    server.remove(name);
    (repo, server, name)
}

#[test]
fn a_fetch_killed_anywhere_delivers_all_or_nothing() {
    let (repo, server, name) = stored();
    let pg_wal = server.path().join("pg_wal");
    let fetch = |fault: Fault| run_with_fault(server.fetch_command(&repo, name), fault.under(&pg_wal));
    let (_, calls) = fetch(Fault::none());
    // Creating the file, a write for each of its frames, the rename.
    assert!(calls.len() >= 4, "{calls:#?}");
    for stale in [None, Some(&b"stale"[..])] {
        for (n, call) in calls.iter().enumerate() {
            if server.delivered().is_some() {
                server.remove("RECOVERYXLOG");
            }
            if let Some(stale) = stale {
                server.put("RECOVERYXLOG", stale);
            }
            let (outcome, _) = fetch(Fault::kill_at(n + 1));
            assert_eq!(outcome.code, None, "{outcome}");
            assert_eq!(server.delivered().as_deref(), stale, "killed before {call:?}");
        }
    }
    assert!(!server.wal_files().iter().all(|name| name == "RECOVERYXLOG"), "nothing was left behind");
    server.fetch(&repo, name).succeeds();
    assert!(server.delivered().as_deref() == Some(wal().file(name)));
    run(repo.wal_fetch(server.path()).args(["00000002.history", "pg_wal/RECOVERYHISTORY"])).fails_with(1, "");
    assert_eq!(server.wal_files(), ["RECOVERYXLOG"], "what killed fetches left is removed");
}

#[test]
fn a_fetch_with_an_error_anywhere_never_says_absent_and_never_half_delivers() {
    let (repo, server, name) = stored();
    let pg_wal = server.path().join("pg_wal");
    let fetch = |fault: Fault| run_with_fault(server.fetch_command(&repo, name), fault.under(&pg_wal));
    let (_, calls) = fetch(Fault::none());
    for errno in [Errno::IO, Errno::NOSPC] {
        for (n, call) in calls.iter().enumerate() {
            server.remove("RECOVERYXLOG");
            let (outcome, _) = fetch(Fault::fail_at(n + 1, errno));
            assert_eq!(outcome.code, Some(206), "failed at {call:?}: {outcome}");
            assert_eq!(server.delivered(), None, "failed at {call:?}: {outcome}");
            server.fetch(&repo, name).succeeds();
        }
    }
    assert_eq!(server.wal_files(), ["RECOVERYXLOG"]);
}
