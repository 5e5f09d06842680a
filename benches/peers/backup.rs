//! A full backup of a running, idle server, into a fresh repository.

use std::path::PathBuf;

use crate::Bench;
use crate::data_scene::DataScene;
use crate::harness::{Scratch, TestRepo, pg_major, program_path};
use crate::measure::{Call, Sample, size_of};
use crate::pgbackrest::{Compression, PgBackRest};
use crate::rows::Row;

pub fn row(bench: &Bench) -> Row<'_> {
    let run = |make: fn(&DataScene) -> Target| move || measure(bench, &make(bench.data()));
    let size = size_of(&bench.data().cluster.data_dir().join("base")) >> 20;
    let row = Row::new(format!("Full backup of {size} MiB"))
        .note("CPU includes what the server does meanwhile, which is where pg_basebackup's work is; memory does not. All sync what they write. pgark and pgBackRest also archive the WAL of the backup, which pg_basebackup brings along.")
        .contender("pgark", run(Target::pgark))
        .contender("pgBackRest zst-3", run(|scene| Target::pgbackrest(scene, Compression::Zst3)))
        .contender("pgBackRest lz4", run(|scene| Target::pgbackrest(scene, Compression::Lz4)));
    let row = row.contender("pg_basebackup, plain", run(|scene| Target::pg_basebackup(scene, &[])));
    if pg_major() < 15 {
        return row.note("PostgreSQL before 15 compresses nothing on the server.");
    }
    row.contender("pg_basebackup, server-zstd", run(Target::server_zstd))
}

/// A fresh place for one backup, and the call that makes it.
pub struct Target {
    pub call: Call,
    /// What the server archives with meanwhile.
    archive: Option<Call>,
    /// Where it stores.
    pub root: PathBuf,
    pub kept: Kept,
}

/// What must live as long as the backup.
pub enum Kept {
    Pgark(TestRepo),
    PgBackRest(PgBackRest),
    Files(#[allow(dead_code)] Scratch),
}

impl Target {
    pub fn pgark(scene: &DataScene) -> Self {
        let repo = TestRepo::init();
        let call = Call::new(program_path("basebackup")).arg("--config").arg(repo.config());
        let archive = Call::new(program_path("wal-push")).arg("--config").arg(repo.config());
        Self {
            call: call.envs(scene.cluster.env()),
            archive: Some(archive),
            root: repo.root().to_path_buf(),
            kept: Kept::Pgark(repo),
        }
    }

    pub fn pgbackrest(scene: &DataScene, compression: Compression) -> Self {
        let peer = PgBackRest::of(&scene.cluster, compression);
        Self {
            call: peer.call("backup").args(["--type=full"]),
            archive: Some(peer.call("archive-push")),
            root: peer.repository(),
            kept: Kept::PgBackRest(peer),
        }
    }

    pub fn server_zstd(scene: &DataScene) -> Self {
        Self::pg_basebackup(scene, &["-Ft", "--compress=server-zstd:level=1,workers=4"])
    }

    fn pg_basebackup(scene: &DataScene, options: &[&str]) -> Self {
        let scratch = Scratch::new();
        let root = scratch.make_dir("backup");
        let program = crate::harness::pg_command("pg_basebackup").get_program().to_owned();
        let call = Call::new(program).args(["-c", "fast", "-D"]).arg(&root).envs(scene.cluster.env());
        let call = options.iter().fold(call, |call, option| call.args([*option]));
        Self { call, archive: None, root, kept: Kept::Files(scratch) }
    }

    /// Makes the server archive to where the backup goes.
    pub fn prepare(&self, scene: &DataScene) {
        scene.archive_with(self.archive.as_ref());
        // So that every backup begins with as little to do.
        scene.cluster.archive_everything();
        scene.cluster.psql("checkpoint");
    }
}

fn measure(bench: &Bench, target: &Target) -> Sample {
    let scene = bench.data();
    target.prepare(scene);
    let stored = size_of(&target.root);
    let cpu = scene.server_cpu();
    let sample = bench.launcher.measure(&target.call);
    let cpu = sample.cpu + scene.server_cpu().saturating_sub(cpu);
    Sample { cpu, stored: Some(size_of(&target.root) - stored), ..sample }
}
