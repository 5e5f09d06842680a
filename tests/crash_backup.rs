//! `basebackup`, killed or failing at each change that it makes to the repository: no header without what it names,
//! the server is left alone, and the next run succeeds and sweeps.

mod harness;

use std::collections::BTreeSet;

use harness::*;

/// The changes to files that need room, and those that do not.
const WRITING: &[&str] = &["write", "pwrite64", "writev", "openat", "open", "mkdir", "linkat", "link"];
const ALL: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "openat",
    "open",
    "mkdir",
    "linkat",
    "link",
    "unlink",
    "rmdir",
    "fsync",
    "fdatasync",
    "rename",
];

const SESSIONS: &str = "select count(*) from pg_stat_activity where application_name = 'pgark'";

/// A server with a backup.
struct Scene {
    repo: TestRepo,
    server: Cluster,
}

impl Scene {
    fn new() -> Self {
        let repo = TestRepo::init();
        let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
        server.psql("create table t as select generate_series(1, 1000) as a");
        run(repo.basebackup(&server).args(["--label", "first"])).succeeds();
        Self { repo, server }
    }

    fn back_up(&self, label: &str, fault: Fault) -> (Outcome, Vec<Call>) {
        let mut command = self.repo.std_program("basebackup");
        command.envs(self.server.env()).args(["--jobs", "1", "--label", label]);
        run_with_fault(command, fault.under(self.repo.root()))
    }

    /// Its changes of these kinds, when nothing goes wrong.
    fn calls(&self, only: &'static [&'static str]) -> Vec<Call> {
        let (outcome, calls) = self.back_up("counted", Fault::none().only(only));
        outcome.succeeds();
        assert!(calls.len() > 8, "{calls:#?}");
        calls
    }

    fn labels(&self) -> BTreeSet<String> {
        let headers = self.repo.matching("/backup/").into_iter().filter(|key| key.ends_with("/backup.json"));
        headers.map(|key| key.rsplit('/').nth(1).expect("a label").to_owned()).collect()
    }

    /// All that headers name.
    fn named(&self) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for label in self.labels() {
            let key = self.repo.only(&format!("/backup/{label}/files.jsonl.zst"));
            let header = self.repo.read(&key.replace("files.jsonl.zst", "backup.json"));
            let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
            for pack in header["packs"].as_array().expect("packs") {
                named.insert(self.repo.only(&format!("{}.pack", pack["id"].as_str().expect("an id"))));
            }
            named.insert(key);
        }
        named
    }

    /// The server is out of backup mode, what is visible is whole, and what was there still is.
    #[track_caller]
    fn expect_whole(&self, before: &BTreeSet<String>, what: &str) {
        self.server.wait_sql(SESSIONS, "0");
        let verified = run(&mut self.repo.pgark(&["verify"]));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
        assert!(self.labels().is_superset(before), "{what}: {:?}", self.labels());
    }

    /// The next backup succeeds and leaves nothing of the one before it, not even of what it had not finished. What
    /// was being given a name elsewhere is swept when it is a day old.
    #[track_caller]
    fn expect_swept(&self, label: &str, what: &str) {
        let (outcome, _) = self.back_up(label, Fault::none());
        assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
        let named = self.named();
        let found = self.repo.list().into_iter();
        let found = found.filter(|key| key.contains("/pack/") || key.ends_with("files.jsonl.zst"));
        assert_eq!(found.collect::<BTreeSet<_>>(), named, "{what}");
        let leases = self.repo.matching("/lease/").into_iter().filter(|key| !key.contains('#'));
        assert_eq!(leases.collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
    }

    /// So that there are never many backups to be verified.
    fn expire(&self) {
        run(&mut self.repo.pgark(&["expire", "--keep-last", "1"])).succeeds();
    }
}

#[test]
fn a_backup_killed_at_any_change_leaves_no_header_without_what_it_names_and_the_next_sweeps() {
    let scene = Scene::new();
    let calls = scene.calls(ALL);
    for n in moments("kills of a backup", calls.len(), 15) {
        let (before, what) = (scene.labels(), format!("killed before {:?}", calls[n - 1]));
        let (outcome, _) = scene.back_up(&format!("killed-{n}"), Fault::kill_at(n).only(ALL));
        // How many packs there are is up to the workers, so the last moments may come after the end.
        let came_late = outcome.code == Some(0) && n + 8 > calls.len();
        assert!(outcome.code.is_none() || came_late, "{what}: {outcome}");
        scene.expect_whole(&before, &what);
        scene.expect_swept(&format!("after-{n}"), &what);
        scene.expire();
    }
}

fn fails(purpose: &str, only: &'static [&'static str], fault: fn(usize) -> Fault, says: [&str; 2]) {
    let scene = Scene::new();
    let calls = scene.calls(only);
    let mut failed = 0;
    for n in moments(purpose, calls.len(), 8) {
        let (before, label) = (scene.labels(), format!("failed-{n}"));
        let (outcome, _) = scene.back_up(&label, fault(n).only(only));
        let what = format!("failed at {:?}: {outcome}", calls[n - 1]);
        assert!([Some(0), Some(6)].contains(&outcome.code), "{what}");
        scene.expect_whole(&before, &what);
        if outcome.code == Some(0) {
            assert!(scene.labels().contains(&label), "{what}");
        } else {
            failed += 1;
            assert!(says.iter().all(|part| outcome.stderr.contains(part)), "{what}");
        }
        scene.expect_swept(&format!("after-{n}"), &what);
        scene.expire();
    }
    assert!(failed > 3, "only {failed} of the failures were reported");
}

#[test]
fn a_backup_with_an_io_error_anywhere_says_so_and_leaves_nothing_half_done() {
    let fault = |n| Fault::fail_at(n, Errno::IO);
    fails("errors in a backup", ALL, fault, ["Input/output error", "could not "]);
}

#[test]
fn a_backup_onto_a_disk_that_goes_away_says_so_and_the_next_one_succeeds() {
    let fault = |n| Fault::fail_from(n, Errno::IO);
    fails("a disk that goes in a backup", ALL, fault, ["Input/output error", "could not "]);
}

#[test]
fn a_backup_onto_a_disk_that_fills_up_says_what_to_do_and_the_next_one_succeeds() {
    let fault = |n| Fault::fail_from(n, Errno::NOSPC);
    let says = ["No space left on device", "hint: free some space on that file system"];
    fails("a full disk in a backup", WRITING, fault, says);
}
