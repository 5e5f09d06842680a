//! Who may read what pgark creates is for the umask to say: 0640 and 0750 at most. Others never may, and a restored
//! cluster is its server's alone unless its source let the group in.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::*;
use crate::wal::*;

/// The modes of the files and of the directories in a tree, itself included.
fn modes(root: &Path) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("listed");
        let mode = entry.metadata().expect("stat").permissions().mode() & 0o7777;
        if entry.file_type().is_dir() {
            directories.insert(mode);
        } else if entry.file_type().is_file() {
            files.insert(mode);
        }
    }
    (files, directories)
}

#[track_caller]
fn assert_modes(root: &Path, file: u32, directory: u32) {
    let (files, directories) = modes(root);
    let octal = |modes: BTreeSet<u32>| modes.iter().map(|mode| format!("{mode:o}")).collect::<Vec<_>>();
    assert_eq!(octal(files), [format!("{file:o}")], "files in {}", root.display());
    assert_eq!(octal(directories), [format!("{directory:o}")], "directories in {}", root.display());
}

/// One of our programs, run with a umask.
fn under(umask: &str, repo: &TestRepo, directory: &Path, program: &str, arguments: &[&str]) {
    let mut shell = command("/bin/sh");
    shell.env("PGARK_CONFIG", repo.config()).current_dir(directory);
    shell
        .args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")])
        .arg(program_path(program))
        .args(arguments);
    succeeds(shell);
}

#[track_caller]
fn succeeds(mut command: Command) {
    let output = command.output().expect("started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_umask_says_whether_the_group_may_read_and_others_never_may() {
    for (umask, file, directory) in
        [("000", 0o640, 0o750), ("022", 0o640, 0o750), ("027", 0o640, 0o750), ("077", 0o600, 0o700)]
    {
        let repo = TestRepo::not_initialised();
        std::fs::remove_dir(repo.root()).expect("not there yet");
        let names = [wal().segments(1)[0], wal().segments(1)[1], "00000002.history"];
        let server = ServerDir::with(&names);
        std::fs::create_dir(server.path().join("pg_wal/archive_status")).expect("made");
        server.put(&format!("archive_status/{}.ready", names[1]), "");
        under(umask, &repo, server.path(), "pgark", &["init"]);
        for name in names {
            under(umask, &repo, server.path(), "wal-push", &[&format!("pg_wal/{name}")]);
        }
        assert_modes(repo.root(), file, directory);
        under(umask, &repo, server.path(), "wal-fetch", &[names[0], "pg_wal/RECOVERYXLOG"]);
        let delivered = server.path().join("pg_wal/RECOVERYXLOG").metadata().expect("delivered");
        assert_eq!(delivered.permissions().mode() & 0o7777, file, "{umask}");
        assert_modes(&server.path().join("pg_wal/pgark.spool"), file, directory);
    }
}

#[test]
fn a_cluster_that_lets_its_group_read_is_restored_as_one_and_another_is_not() {
    for (argument, file, directory) in [("--allow-group-access", 0o640, 0o750), ("-k", 0o600, 0o700)] {
        let repo = TestRepo::init();
        let source = Cluster::builder().initdb_arg(argument).wal_segment_mib(1).archive_to(&repo);
        let source = source.tablespace("fast").start();
        source.psql("create table t tablespace fast as select generate_series(1, 1000) a");
        source.archive_everything();
        // PostgreSQL gives its children a umask that fits its data directory.
        let archived = repo.path(&format!("main/{}/wal", source.system_identifier()));
        assert_modes(&archived, file, directory);
        run(repo.basebackup(&source).args(["--label", "one"])).succeeds();

        let scratch = Scratch::new();
        let (target, fast) = (scratch.join("data"), scratch.join("fast"));
        let text = |path: &Path| path.display().to_string();
        under(
            "000",
            &repo,
            Path::new("/"),
            "bootstrap-restore",
            &[
                "--no-start",
                "-D",
                &text(&target),
                "--tablespace-map",
                &format!("fast={}", text(&fast)),
                "--socket-dir",
                &text(&scratch.make_dir("s")),
            ],
        );
        let (files, directories) = modes(&target);
        assert!(files.iter().all(|mode| mode & !file == 0), "{argument}: {files:?}");
        assert!(directories.iter().all(|mode| mode & !directory == 0), "{argument}: {directories:?}");
        assert!(
            modes(&fast).0.iter().chain(&modes(&fast).1).all(|mode| mode & !directory == 0),
            "{argument}"
        );
        let restored = Cluster::adopt_stopped(&target);
        restored.start();
        assert_eq!(restored.psql("select count(*) from t"), "1000");
        assert_eq!(restored.psql("show data_directory_mode"), format!("{directory:04o}"));
    }
}
