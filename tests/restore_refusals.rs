//! Restores that can't end well are refused before anything is written, and say what can be done instead; those
//! that were cut off leave a directory that no server starts in. A new refusal adds a row.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::*;

/// A source that is up, its backup, archived WAL behind that, and some that is not archived.
struct Stage {
    repo: TestRepo,
    source: Cluster,
    /// Before the backup, in its first segment.
    too_early: String,
    early_lsn: String,
    /// After it.
    time: String,
    /// Not archived.
    too_late: String,
    /// A segment behind the backup and before `time`.
    middle: String,
    /// A preload library of the source that is installed nowhere.
    library: PathBuf,
    /// A directory `data` that is a restored cluster, its server down.
    stopped: Scratch,
}

impl Stage {
    fn new() -> Self {
        let repo = TestRepo::init();
        let library = repo.scratch().join("rare.so");
        fs::copy(packaged_library("auth_delay.so"), &library).expect("copy a library");
        let builder = Cluster::builder().archive_to(&repo).tablespace("fast").wal_segment_mib(1);
        let source = builder.set("shared_preload_libraries", library.display()).start();
        source.psql("create table t tablespace fast as select generate_series(1, 1000) a");
        let (too_early, early_lsn) = (source.now(), source.current_lsn());
        run(repo.basebackup(&source).args(["--label", "one"])).succeeds();
        source.psql("insert into t values (1001)");
        let middle = source.archive_everything();
        source.psql("insert into t values (1002)");
        let time = source.now();
        source.psql("insert into t values (1003)");
        source.archive_everything();
        source.psql("insert into t values (1004)");
        let too_late = source.current_lsn();
        let stopped = Scratch::new();
        let stage = Self { repo, source, too_early, early_lsn, time, too_late, middle, library, stopped };
        stage.restore(&stage.stopped.join("data"), &stage.stopped, &["--no-start"]).succeeds();
        stage
    }

    fn restore(&self, data: &Path, beside: &Scratch, arguments: &[&str]) -> Outcome {
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(data);
        if !arguments.contains(&"--socket-dir") {
            command.arg("--socket-dir").arg(beside.make_dir("s"));
        }
        if !arguments.contains(&UNMAPPED) {
            command.arg("--tablespace-map").arg(format!("fast={}", beside.join("fast").display()));
        }
        run(command.args(arguments.iter().filter(|argument| **argument != UNMAPPED)))
    }
}

/// Stands for no mapping, in the arguments of a row.
const UNMAPPED: &str = "(nothing mapped)";

fn packaged_library(name: &str) -> PathBuf {
    let output = pg_command("pg_config").arg("--pkglibdir").output().expect("start pg_config");
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(name)
}

/// A refusal: what is done before, what is asked for, and what is said.
struct Row {
    name: &'static str,
    /// Makes what is in the way, in a directory of this row; answers with the data directory, and arguments.
    arrange: fn(&Stage, &Scratch) -> (PathBuf, Vec<String>),
    code: i32,
    expected: &'static [&'static str],
}

/// The data directory `data`, which is not there, and these arguments.
fn nothing(here: &Scratch, arguments: &[&str]) -> (PathBuf, Vec<String>) {
    (here.join("data"), arguments.iter().map(|&word| word.to_owned()).collect())
}

const REACHABLE: &str = "what can be reached: timeline 1 from";

const ROWS: &[Row] = &[
    Row {
        name: "a time before the oldest backup's end",
        arrange: |stage, here| nothing(here, &["--target-time", &stage.too_early]),
        code: 3,
        expected: &["lies before the end of the oldest backup", REACHABLE, "the end of backup one"],
    },
    Row {
        name: "an LSN before the oldest backup's end",
        arrange: |stage, here| nothing(here, &["--target-lsn", &stage.early_lsn]),
        code: 3,
        expected: &["lies before the end of the oldest backup", REACHABLE],
    },
    Row {
        name: "an LSN after the last archived WAL",
        arrange: |stage, here| nothing(here, &["--target-lsn", &stage.too_late]),
        code: 3,
        expected: &["is not in the archive", REACHABLE],
    },
    Row {
        name: "a transaction that nobody knows",
        arrange: |_, here| nothing(here, &["--target-xid", "4000000"]),
        code: 3,
        expected: &["transaction 4000000 is not in the archive", REACHABLE],
    },
    Row {
        name: "a restore point that nobody knows",
        arrange: |_, here| nothing(here, &["--target-name", "never made"]),
        code: 3,
        expected: &["restore point \"never made\" is not in the archive", REACHABLE],
    },
    Row {
        name: "a time in the future",
        arrange: |_, here| nothing(here, &["--target-time", "2100-01-01 00:00:00+00"]),
        code: 3,
        expected: &["has not come yet", REACHABLE],
    },
    Row {
        name: "a time without a zone",
        arrange: |_, here| nothing(here, &["--target-time", "2026-11-22 10:00:00"]),
        code: 2,
        expected: &["names no zone", "2026-11-22 10:00:00+00", "2026-11-22 10:00:00[Europe/Berlin]"],
    },
    Row {
        name: "a timeline that nobody knows",
        arrange: |_, here| nothing(here, &["--target-timeline", "3"]),
        code: 3,
        expected: &["no history of timeline 3", "it knows these timelines: 1"],
    },
    Row {
        name: "a backup that nobody knows",
        arrange: |_, here| nothing(here, &["--backup", "two"]),
        code: 3,
        expected: &["there is no backup two", "one"],
    },
    Row {
        name: "a directory that holds something else",
        arrange: |_, here| {
            here.make_dir("data");
            here.write("data/photo.jpg", "x");
            nothing(here, &["--replace"])
        },
        code: 4,
        expected: &["it holds \"photo.jpg\"", "name an empty directory"],
    },
    Row {
        name: "a file",
        arrange: |_, here| {
            here.write("data", "x");
            nothing(here, &[])
        },
        code: 4,
        expected: &["it is not a directory"],
    },
    Row {
        name: "a data directory without --replace",
        arrange: |stage, _| (stage.stopped.join("data"), vec![]),
        code: 4,
        expected: &["it is a data directory", "add --replace"],
    },
    Row {
        name: "a data directory of another cluster",
        arrange: |_, here| {
            let other = Cluster::builder().build();
            fs::rename(other.data_dir(), here.join("data")).expect("move a cluster");
            nothing(here, &["--replace"])
        },
        code: 4,
        expected: &["of another cluster, with system identifier", "name another directory"],
    },
    Row {
        name: "a data directory in which a server runs",
        arrange: |stage, _| (stage.source.data_dir(), vec!["--replace".to_owned()]),
        code: 4,
        expected: &["a server runs in it", "--replace-running"],
    },
    Row {
        name: "a directory in the repository",
        arrange: |stage, _| (stage.repo.root().join("data"), vec![]),
        code: 2,
        expected: &["the repository is at", "outside the repository"],
    },
    Row {
        name: "a directory that we can't make",
        arrange: |_, here| {
            let locked = here.make_dir("locked");
            fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("chmod");
            (locked.join("data"), vec![])
        },
        code: 6,
        expected: &["could not write to", "locked"],
    },
    Row {
        name: "a tablespace's location that is in use",
        arrange: |_, here| nothing(here, &[UNMAPPED]),
        code: 2,
        expected: &[
            "could not put tablespace fast at",
            "is a tablespace in use here",
            "--tablespace-map fast=",
        ],
    },
    Row {
        name: "no binaries",
        arrange: |_, here| nothing(here, &["--bin-dir", "/nonexistent"]),
        code: 7,
        expected: &[
            "could not find the server programs of PostgreSQL",
            "/nonexistent has no postgres",
            "--bin-dir",
        ],
    },
    Row {
        name: "binaries of another major version",
        arrange: |_, here| {
            let bin = here.make_dir("bin");
            let program = here.write("bin/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n");
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("chmod");
            nothing(here, &["--bin-dir", bin.to_str().expect("UTF-8")])
        },
        code: 7,
        expected: &["could not find the server programs of PostgreSQL", "is PostgreSQL 9.6.24", "--bin-dir"],
    },
    Row {
        name: "more shared_buffers than this host has",
        arrange: |_, here| nothing(here, &["--set", "shared_buffers=8000GB"]),
        code: 2,
        expected: &["shared_buffers is 8000GB", "add --set shared_buffers="],
    },
    Row {
        name: "huge pages that this host does not have",
        arrange: |_, here| nothing(here, &["--set", "huge_pages=on", "--set", "shared_buffers=8000GB"]),
        code: 2,
        expected: &["huge_pages is on", "add --set huge_pages=try"],
    },
    Row {
        name: "a port that is taken",
        arrange: |_, here| {
            // Bound until the test ends.
            let listener = Box::leak(Box::new(std::net::TcpListener::bind("127.0.0.1:0").expect("listen")));
            let port = listener.local_addr().expect("an address").port();
            nothing(here, &["--port", &port.to_string()])
        },
        code: 4,
        expected: &["something listens on it", "leave --port out"],
    },
    Row {
        name: "no place for the socket",
        arrange: |_, here| nothing(here, &["--socket-dir", "/nonexistent"]),
        code: 2,
        expected: &["could not use the socket directory /nonexistent", "--socket-dir"],
    },
    Row {
        name: "several things at once",
        arrange: |_, here| nothing(here, &[UNMAPPED, "--bin-dir", "/nonexistent"]),
        code: 2,
        expected: &["2 things are in the way", "tablespace fast", "/nonexistent has no postgres"],
    },
    // From here on the stage itself is taken apart.
    Row {
        name: "a preload library that is not installed",
        arrange: |stage, here| {
            fs::remove_file(&stage.library).expect("remove the library");
            nothing(here, &[])
        },
        code: 2,
        expected: &[
            "shared_preload_libraries names what is not installed",
            "rare.so",
            "--set shared_preload_libraries=",
        ],
    },
    Row {
        name: "a hole in the WAL",
        arrange: |stage, here| {
            stage.repo.damage(&stage.repo.only(&format!("/{}.zst", stage.middle)), Damage::Delete);
            nothing(here, &["--target-time", &stage.time])
        },
        code: 3,
        expected: &["is missing from the archive", REACHABLE],
    },
];

#[test]
fn what_can_not_end_well_is_refused_before_anything_is_written() {
    let stage = Stage::new();
    too_little_space_is_refused(&stage);
    let mut wrong = Vec::new();
    for row in ROWS {
        if let Err(complaint) = try_row(&stage, row) {
            wrong.push(format!("{}: {complaint}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(stage.source.psql("select count(*) from t"), "1004");
}

fn try_row(stage: &Stage, row: &Row) -> Result<(), String> {
    let here = Scratch::new();
    here.make_dir("s");
    let (data, arguments) = (row.arrange)(stage, &here);
    let runs = data == stage.source.data_dir();
    let look = || -> BTreeMap<String, String> {
        let mut all = listing(here.path());
        if data.exists() && !runs {
            all.extend(listing(&data));
        }
        all
    };
    let before = look();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = stage.restore(&data, &here, &arguments);
    if look() != before {
        return Err(format!("something was written: {outcome}"));
    }
    if outcome.code != Some(row.code) {
        return Err(format!("should exit with {}: {outcome}", row.code));
    }
    match row.expected.iter().find(|part| !outcome.stderr.contains(**part)) {
        Some(missing) => Err(format!("should say {missing:?}: {outcome}")),
        None => Ok(()),
    }
}

fn too_little_space_is_refused(stage: &Stage) {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let here = Scratch::new();
    let data = disk.path().join("data");
    let said = stage.restore(&data, &here, &[]).fails_with(2, "free, and the restore needs");
    assert!(said.contains(&disk.path().display().to_string()) && said.contains("free some space"), "{said}");
    assert!(!data.exists(), "{said}");
    // What is small enough may go there: the file systems are looked at one by one.
    let map = format!("fast={}", disk.path().join("fast").display());
    stage.restore(&here.join("data"), &here, &[UNMAPPED, "--tablespace-map", &map]).succeeds();
    assert_eq!(Cluster::adopt(&here.join("data")).psql("select count(*) from t"), "1003");
}

/// A small source with one backup.
fn small_source(repo: &TestRepo) -> Cluster {
    let source = Cluster::builder().archive_to(repo).wal_segment_mib(1).start();
    source.psql("create table t as select generate_series(1, 1000) a");
    run(&mut repo.basebackup(&source)).succeeds();
    source.archive_everything();
    source
}

/// A directory that is not whole says so, and no server starts in it.
#[track_caller]
fn assert_incomplete(data: &Path, context: &str) {
    assert!(data.join("pgark-restore-incomplete").exists(), "{context}: no mark");
    assert!(!data.join("global/pg_control").exists(), "{context}: there is a pg_control");
    let output = pg_command("postgres").arg("-D").arg(data).output().expect("start postgres");
    assert!(!output.status.success(), "{context}: a server ran");
}

#[test]
fn a_killed_restore_does_not_start_and_the_next_completes_it() {
    let repo = TestRepo::init();
    drop(small_source(&repo));
    let scratch = Scratch::new();
    let restore = |data: &Path, arguments: &[&str]| {
        let mut command = repo.std_program("bootstrap-restore");
        command
            .args(["--no-start", "--socket-dir"])
            .arg(scratch.make_dir("s"))
            .arg("-D")
            .arg(data)
            .args(arguments);
        command
    };
    let (outcome, calls) =
        run_with_fault(restore(&scratch.join("whole"), &[]), Fault::none().under(scratch.path()));
    outcome.succeeds();
    let count = calls.len();
    let control =
        calls.iter().position(|call| call.path.ends_with("global/pg_control")).expect("it is written");
    // Calls are numbered from 1.
    let moments = [1, 2, 4, count / 4, count / 2, control, control + 1, control + 2, count];
    let mut incomplete = 0;
    for n in moments {
        let name = format!("killed-{n}");
        let data = scratch.join(&name);
        let context = format!("killed at call {n} of {count}, {:?}", calls[n - 1]);
        let (outcome, _) = run_with_fault(restore(&data, &[]), Fault::kill_at(n).under(scratch.path()));
        assert_ne!(outcome.code, Some(0), "{context}: {outcome}");
        let begun = data.exists() && fs::read_dir(&data).expect("list").count() > 0;
        if begun && !data.join("global/pg_control").exists() {
            incomplete += 1;
            assert_incomplete(&data, &context);
            let mut again = repo.bootstrap_restore();
            again.arg("--socket-dir").arg(scratch.path()).arg("-D").arg(&data);
            let said = run(&mut again).fails_with(4, "an unfinished restore is in it");
            assert!(said.contains("--replace"), "{context}: {said}");
        } else if begun {
            // pg_control comes last of all: everything else is there.
            assert_restored(&Cluster::adopt_stopped(&data), &context);
        }
        let completed = repo.restore(&scratch, &name, if begun { &["--replace"] } else { &[] });
        assert_restored(&completed, &context);
    }
    assert!(incomplete >= 4, "only {incomplete} of the moments lay within the restore");
}

#[track_caller]
fn assert_restored(server: &Cluster, context: &str) {
    if !server.is_running() {
        server.start();
    }
    assert_eq!(server.psql("select count(*) from t"), "1000", "{context}");
    server.assert_checksums();
}

#[test]
fn a_damaged_pack_is_named_and_nothing_starts() {
    let repo = TestRepo::init();
    drop(small_source(&repo));
    let scratch = Scratch::new();
    let size = |key: &String| fs::metadata(repo.path(key)).expect("stat").len();
    let pack = repo.matching(".pack").into_iter().max_by_key(size).expect("a pack");
    let middle = i64::try_from(size(&pack) / 2).expect("a size");
    repo.damage(&pack, Damage::FlipByte(middle));

    let data = scratch.join("data");
    let mut command = repo.bootstrap_restore();
    command.arg("-D").arg(&data).arg("--socket-dir").arg(scratch.make_dir("s"));
    let said = run(&mut command).fails_with(5, &pack);
    assert!(said.contains("--replace"), "{said}");
    assert_incomplete(&data, &said);

    repo.damage(&pack, Damage::FlipByte(middle));
    let restored = repo.restore(&scratch, "data", &["--replace"]);
    assert_eq!(restored.psql("select count(*) from t"), "1000");
    restored.assert_checksums();
}
