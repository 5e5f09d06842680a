//! `bootstrap-restore`, killed or failing at any change: to the target, its tablespaces, or the repository, where it
//! holds a lease. A server starts in the target only if all of it is there, and never as the source's.

mod harness;

use std::path::PathBuf;
use std::process::Command;

use harness::*;

/// What is not done for each file: there are thousands of those, and one is as good as the other.
const SELDOM: &[&str] = &["mkdir", "fsync", "rename", "symlink", "link", "unlink", "rmdir", "syncfs"];
/// What needs room.
const WRITING: &[&str] =
    &["mkdir", "openat", "write", "pwrite64", "ftruncate", "fallocate", "rename", "symlink", "link"];

struct Scene {
    repo: TestRepo,
    scratch: Scratch,
}

impl Scene {
    fn new() -> Self {
        let repo = TestRepo::init();
        let builder = Cluster::builder().archive_to(&repo).wal_segment_mib(1).tablespace("fast");
        let source = builder.set("cluster_name", "the_source").start();
        source.psql("create table t tablespace fast as select generate_series(1, 1000) a");
        run(&mut repo.basebackup(&source)).succeeds();
        source.archive_everything();
        Self { repo, scratch: Scratch::new() }
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.repo.std_program("bootstrap-restore");
        command.args(["--no-start", "--jobs", "2", "--socket-dir"]).arg(self.scratch.make_dir("s"));
        command.arg("-D").arg(self.data()).args(arguments);
        command.arg(format!("--tablespace-map=fast={}", self.scratch.join("fast").display()));
        command
    }

    fn restore(&self, fault: Fault) -> (Outcome, Vec<Call>) {
        run_with_fault(self.command(&["--replace"]), fault)
    }

    /// Changes to the target and to the repository, when there is a cluster that is to be replaced.
    fn calls(&self, only: &'static [&'static str]) -> Vec<Call> {
        self.restore(Fault::none()).0.succeeds();
        let (outcome, calls) = self.restore(Fault::none().only(only));
        outcome.succeeds();
        assert!(calls.iter().any(|call| call.path.starts_with(self.repo.root())), "no lease: {calls:#?}");
        calls
    }

    /// A server starts in it if all is there, and not otherwise.
    #[track_caller]
    fn expect_none_or_whole(&self, what: &str) {
        let data = self.data();
        if data.join("global/pg_control").exists() {
            return self.expect_whole(what);
        }
        let begun = data.exists() && std::fs::read_dir(&data).expect("list").count() > 0;
        assert!(!begun || data.join("pgark-restore-incomplete").exists(), "{what}: no mark");
        let output = pg_command("postgres").arg("-D").arg(&data).output().expect("start postgres");
        assert!(!output.status.success(), "{what}: a server ran in half a directory");
    }

    #[track_caller]
    fn expect_whole(&self, what: &str) {
        let server = Cluster::adopt_stopped(&self.data());
        server.start();
        assert_eq!(server.psql("select count(*) from t"), "1000", "{what}");
        let ours = "select current_setting('cluster_name') <> 'the_source', current_setting('archive_mode')";
        assert_eq!(server.psql(ours), "t|off", "{what}: as its source");
        server.assert_checksums();
    }

    #[track_caller]
    fn expect_completed(&self, what: &str) {
        let (outcome, _) = self.restore(Fault::none());
        assert_eq!(outcome.code, Some(0), "{what}, then: {outcome}");
        self.expect_whole(what);
    }
}

#[test]
fn a_restore_killed_at_any_change_starts_whole_or_not_at_all_and_the_next_completes_it() {
    let scene = Scene::new();
    let calls = scene.calls(SELDOM);
    let mut killed = 0;
    for n in moments("kills of a restore", calls.len(), 10) {
        let what = format!("killed before about {:?}", calls[n - 1]);
        let (outcome, _) = scene.restore(Fault::kill_at(n).only(SELDOM));
        // A server that ran leaves more or less to be removed.
        assert!([None, Some(0)].contains(&outcome.code), "{what}: {outcome}");
        killed += usize::from(outcome.code.is_none());
        scene.expect_none_or_whole(&what);
        // The lease of the dead is in nobody's way.
        run(&mut scene.repo.pgark(&["expire", "--keep-last", "1"])).succeeds();
        scene.expect_completed(&what);
    }
    assert!(killed > 5, "it was killed {killed} times only");
}

fn fails(purpose: &str, only: &'static [&'static str], fault: fn(usize) -> Fault, says: [&str; 2]) {
    let scene = Scene::new();
    let calls = scene.calls(only);
    let mut failed = 0;
    for n in moments(purpose, calls.len(), 6) {
        let (outcome, _) = scene.restore(fault(n).only(only));
        let what = format!("failed at {:?}: {outcome}", calls[n - 1]);
        // Without a lease it warns and goes on.
        assert!([Some(0), Some(6)].contains(&outcome.code), "{what}");
        scene.expect_none_or_whole(&what);
        if outcome.code == Some(6) {
            failed += 1;
            assert!(says.iter().all(|part| outcome.stderr.contains(part)), "{what}");
        } else {
            scene.expect_whole(&what);
        }
    }
    scene.expect_completed(purpose);
    assert!(failed > 2, "only {failed} of the failures were reported");
}

#[test]
fn a_restore_with_an_io_error_anywhere_says_so_and_starts_whole_or_not_at_all() {
    let fault = |n| Fault::fail_at(n, Errno::IO);
    fails("errors in a restore", SELDOM, fault, ["Input/output error", "could not "]);
}

#[test]
fn a_restore_onto_a_disk_that_goes_away_says_so_and_starts_whole_or_not_at_all() {
    let fault = |n| Fault::fail_from(n, Errno::IO);
    fails("a disk that goes in a restore", SELDOM, fault, ["Input/output error", "could not "]);
}

#[test]
fn a_restore_onto_a_disk_that_fills_up_says_what_to_do_and_starts_whole_or_not_at_all() {
    let fault = |n| Fault::fail_from(n, Errno::NOSPC);
    let says = ["No space left on device", "free some space"];
    fails("a full disk in a restore", WRITING, fault, says);
}

#[test]
fn a_tablespace_that_does_not_fit_on_its_disk_is_told_before_anything_is_written() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).wal_segment_mib(1).tablespace("fast").start();
    source.psql("create table t tablespace fast as select generate_series(1, 200000) a");
    run(&mut repo.basebackup(&source)).succeeds();
    source.archive_everything();
    let scratch = Scratch::new();
    let mut restore = repo.bootstrap_restore();
    restore.arg("-D").arg(scratch.join("data")).arg("--socket-dir").arg(scratch.make_dir("s"));
    restore.arg(format!("--tablespace-map=fast={}", disk.path().join("fast").display()));
    let said = run(&mut restore).fails_with(2, "free, and the restore needs");
    assert!(said.contains(&disk.path().display().to_string()), "{said}");
    assert!(!scratch.join("data").exists() && !disk.path().join("fast").exists(), "{said}");
}
