//! Restoring the files of a full backup, up to where the server could be started.

use std::path::Path;

use crate::Bench;
use crate::backup::{Kept, Target};
use crate::data_scene::relations;
use crate::harness::{Scratch, pg_major, program_path};
use crate::measure::{Call, Sample, size_of};
use crate::pgbackrest::Compression;
use crate::rows::Row;

pub fn row(bench: &Bench) -> Row<'_> {
    let scene = bench.data();
    let made = |target: Target| {
        target.prepare(scene);
        target.call.run();
        target
    };
    let zst = made(Target::pgbackrest(scene, Compression::Zst3));
    let lz4 = made(Target::pgbackrest(scene, Compression::Lz4));
    let pgark = made(Target::pgark(scene));
    let tar = (pg_major() >= 15).then(|| made(Target::server_zstd(scene)));
    let size = size_of(&scene.cluster.data_dir().join("base")) >> 20;
    let row = Row::new(format!("Restore of {size} MiB, files only"))
        .note("pgark and pgBackRest check what they restore and sync it; tar does neither. The copy is of the uncompressed files and shows what the disk takes.")
        .contender("pgark", move || measure(bench, &pgark))
        .contender("pgBackRest zst-3", move || measure(bench, &zst))
        .contender("pgBackRest lz4", move || measure(bench, &lz4));
    let row = match tar {
        Some(tar) => row.contender("zstd -d and tar, no sync", move || measure(bench, &tar)),
        None => row,
    };
    row.contender("cp of the files, synced", move || {
        measured(bench, |directory, _| copy(&scene.cluster.data_dir(), directory))
    })
}

fn measure(bench: &Bench, target: &Target) -> Sample {
    measured(bench, |directory, scratch| restore(target, directory, scratch))
}

fn measured(bench: &Bench, call: impl FnOnce(&Path, &Scratch) -> Call) -> Sample {
    let scratch = Scratch::new();
    let directory = scratch.make_dir("data");
    let sample = bench.launcher.measure(&call(&directory, &scratch));
    assert_eq!(relations(&directory), bench.data().relations(), "something is missing or cut short");
    sample
}

/// What the disk takes, without any compression: one process, one sync of all at the end.
fn copy(from: &Path, to: &Path) -> Call {
    let line = format!("cp -r {}/base {} && sync -f {}", from.display(), to.display(), to.display());
    Call::new("/bin/sh").args(["-c", &line])
}

fn restore(target: &Target, directory: &Path, scratch: &Scratch) -> Call {
    match &target.kept {
        Kept::Pgark(repo) => Call::new(program_path("bootstrap-restore"))
            .arg("--config")
            .arg(repo.config())
            .args(["--target", "immediate", "--no-start", "--socket-dir"])
            .arg(scratch.path())
            .arg("-D")
            .arg(directory),
        Kept::PgBackRest(peer) => {
            let path = format!("--pg1-path={}", directory.display());
            peer.call("restore").args([path.as_str(), "--type=immediate"])
        }
        Kept::Files(_) => {
            let base = target.root.join("base.tar.zst");
            let line = format!("zstd -dcq {} | tar -x -C {}", base.display(), directory.display());
            Call::new("/bin/sh").args(["-c", &line])
        }
    }
}
