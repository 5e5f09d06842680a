//! Clusters of many files: what a backup and a restore of them take.

use std::path::Path;

use crate::Tell;
use crate::arguments::Arguments;
use crate::harness::{Cluster, Scratch, TestRepo, is_sparse, planted_name, program_path};
use crate::measure::{Call, Launcher};

/// A file of a relation, bytes.
const LARGEST: u64 = 1 << 30;

/// Small files: nine of ten are empty, the tenth has a page.
pub fn small(launcher: &Launcher, arguments: &Arguments, tell: &mut Tell<'_>) {
    let scene = Scene::new();
    let mut planted = 0;
    for files in arguments.files.iter().copied() {
        scene.source.plant_files(planted..files);
        planted = files;
        scene.measure(launcher, tell, files);
    }
}

/// Sparse files of 1 GiB: two pages in each, the rest are holes.
pub fn holes(launcher: &Launcher, arguments: &Arguments, tell: &mut Tell<'_>) {
    let scene = Scene::new();
    let mut planted = 0;
    for files in arguments.holes.iter().copied() {
        scene.source.plant_sparse(planted..files, LARGEST);
        planted = files;
        let restored = scene.measure(launcher, tell, files);
        let last = restored.join("data").join(scene.source.planted()).join(planted_name(files - 1));
        assert!(is_sparse(&last, LARGEST), "{} was restored without its holes", last.display());
    }
}

struct Scene {
    repo: TestRepo,
    source: Cluster,
}

impl Scene {
    fn new() -> Self {
        let repo = TestRepo::init();
        let source = Cluster::builder().archive_to(&repo).wal_segment_mib(1).start();
        let scene = Self { repo, source };
        // The first of all waits for more of the server than the others.
        scene.call("basebackup").run();
        scene
    }

    /// Answers with the directory in which the restored one is.
    fn measure(&self, launcher: &Launcher, tell: &mut Tell<'_>, files: u32) -> Scratch {
        let label = format!("b{files}");
        let backup = self.call("basebackup").args(["--label", &label]);
        tell("basebackup", files, &launcher.measure(&backup));
        let target = Scratch::new();
        let plan = self.restore(&label, &target.join("data"));
        tell("restore, plan only", files, &launcher.measure(&plan.clone().arg("--dry-run")));
        tell("restore", files, &launcher.measure(&plan));
        let verify = self.call("pgark").args(["verify", "--backup", &label]);
        tell("verify", files, &launcher.measure(&verify));
        let deep = self.call("pgark").args(["verify", "--deep", "--backup", &label]);
        tell("verify --deep", files, &launcher.measure(&deep));
        target
    }

    fn restore(&self, label: &str, target: &Path) -> Call {
        self.call("bootstrap-restore").args(["--no-start", "--backup", label, "-D"]).arg(target)
    }

    fn call(&self, program: &str) -> Call {
        let config = ("PGARK_CONFIG".to_owned(), self.repo.config().display().to_string());
        Call::new(program_path(program)).envs([vec![config], self.source.env()].concat())
    }
}
