//! `bootstrap-restore` onto a disk that loses its power, at each change that it makes there, or right after it.

use std::path::Path;
use std::process::Command;

use crate::harness::*;

/// What is not done for each file: there are thousands, and one is as good as the other.
const SELDOM: &[&str] = &["mkdir", "fsync", "rename", "symlink", "unlink", "rmdir", "syncfs"];

/// A backup with a tablespace, and the disk that it is to be restored onto.
struct Scene {
    repo: TestRepo,
    disk: LossyDisk,
    /// What is not on that disk.
    scratch: Scratch,
}

impl Scene {
    fn new() -> Option<Self> {
        let disk = LossyDisk::make(192)?;
        let repo = TestRepo::init();
        let source = Cluster::builder().archive_to(&repo).wal_segment_mib(1).tablespace("fast").start();
        source.psql("create table t tablespace fast as select generate_series(1, 1000) a");
        run(&mut repo.basebackup(&source)).succeeds();
        source.archive_everything();
        Some(Self { repo, disk, scratch: Scratch::new() })
    }

    fn restore(&self, arguments: &[&str]) -> Command {
        let mut command = self.repo.std_program("bootstrap-restore");
        command.args(["--no-start", "--jobs", "2", "--socket-dir"]).arg(self.scratch.make_dir("s"));
        command.arg("-D").arg(self.disk.path().join("data")).args(arguments);
        command.arg(format!("--tablespace-map=fast={}", self.disk.path().join("fast").display()));
        command
    }

    fn run(&self, arguments: &[&str], fault: Fault) -> (Outcome, Vec<Call>) {
        run_with_fault(self.restore(arguments), fault.under(&self.disk.path()).only(SELDOM))
    }

    fn cut(&mut self) {
        self.disk.lose_power(Journal::Lost);
        self.disk.restart();
    }

    /// The restored server starts and has everything.
    #[track_caller]
    fn expect_whole(&self, what: &str) {
        let server = Cluster::adopt_stopped(&self.disk.path().join("data"));
        server.start();
        assert_eq!(server.psql("select count(*) from t"), "1000", "{what}");
        server.assert_checksums();
        // It has run with fsync = off, as its source does.
        self.disk.sync();
    }
}

/// Nothing is there, or a server starts and has everything, or none starts.
#[track_caller]
fn expect_none_or_whole(scene: &Scene, data: &Path, what: &str) {
    if data.join("global/pg_control").exists() {
        scene.expect_whole(what);
    } else if data.exists() {
        let output = pg_command("postgres").arg("-D").arg(data).output().expect("start postgres");
        assert!(!output.status.success(), "{what}: a server ran in half a directory");
    }
}

#[test]
fn a_restore_that_was_acknowledged_is_whole_after_a_cut() {
    let Some(mut scene) = Scene::new() else { return };
    for arguments in [&[][..], &["--replace"]] {
        scene.run(arguments, Fault::none()).0.succeeds();
        scene.cut();
        scene.expect_whole("after a cut");
    }
}

#[test]
fn a_cut_at_any_change_of_a_restore_leaves_nothing_that_starts_as_if_it_were_whole() {
    let Some(mut scene) = Scene::new() else { return };
    scene.run(&[], Fault::none()).0.succeeds();
    let (outcome, calls) = scene.run(&["--replace"], Fault::none());
    outcome.succeeds();
    let data = scene.disk.path().join("data");
    // Over a whole cluster, and over what the round before left.
    for n in moments("cuts in a restore", calls.len(), 6) {
        let what = format!("without power instead of {:?}", calls[n - 1]);
        let (outcome, _) = scene.run(&["--replace"], Fault::kill_at(n));
        scene.cut();
        assert_ne!(outcome.code, Some(2), "{what}: {outcome}");
        expect_none_or_whole(&scene, &data, &what);
        scene.run(&["--replace"], Fault::none()).0.succeeds();
        scene.cut();
        scene.expect_whole(&what);
    }
}
