//! `wal-push` with a backlog: what waits is taken along and remembered, and nothing is believed that is not so.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::*;

/// A server that can't archive, and the segments that wait.
struct Backlog {
    server: Cluster,
    /// Names in the order in which PostgreSQL asks.
    names: Vec<String>,
}

impl Backlog {
    fn of(segments: usize) -> Self {
        let server = Cluster::builder()
            .wal_segment_mib(1)
            .set("archive_mode", "on")
            .set("archive_command", "false")
            .start();
        server.psql("create table t as select generate_series(1, 20000) as a");
        for _ in 0..segments {
            server.switch_wal();
        }
        let names = ready(&server);
        assert!(names.len() >= segments, "{names:?}");
        Self { server, names }
    }

    fn pg_wal(&self) -> PathBuf {
        self.server.data_dir().join("pg_wal")
    }

    fn file(&self, number: usize) -> PathBuf {
        self.pg_wal().join(&self.names[number])
    }

    fn push(&self, repo: &TestRepo, number: usize) -> Outcome {
        run(repo.wal_push(&self.server.data_dir()).arg(format!("pg_wal/{}", self.names[number])))
    }

    fn std_push(&self, repo: &TestRepo, number: usize) -> std::process::Command {
        let mut push = repo.std_program("wal-push");
        push.current_dir(self.server.data_dir()).arg(format!("pg_wal/{}", self.names[number]));
        push
    }

    /// The changes to files that a push makes.
    fn changes(&self, repo: &TestRepo, number: usize) -> Vec<Call> {
        let (outcome, calls) = run_with_fault(self.std_push(repo, number), Fault::none());
        outcome.succeeds();
        calls
    }

    fn record(&self) -> PathBuf {
        self.pg_wal().join("pgark.spool/pushed.json")
    }

    /// Every waiting segment is in the repository as it is here.
    fn assert_archived(&self, repo: &TestRepo) {
        for name in &self.names {
            let object = repo.root().join(repo.only(&format!("{name}.zst")));
            let stored =
                command("zstd").arg("-dc").arg(object).output().expect("run zstd: apt-get install zstd");
            assert!(stored.stdout == fs::read(self.pg_wal().join(name)).expect("read"), "{name} differs");
        }
        assert!(repo.matching("#").is_empty() && repo.matching("/lock/").is_empty(), "{:?}", repo.list());
    }
}

fn ready(server: &Cluster) -> Vec<String> {
    let directory = server.data_dir().join("pg_wal/archive_status");
    let entries = fs::read_dir(directory).expect("read archive_status");
    let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    names.sort();
    names
}

fn damage_record(path: &Path) {
    damage_file(path, Damage::FlipByte(100));
}

#[test]
fn one_call_takes_the_waiting_segments_along_and_the_next_change_nothing() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(6));
    backlog.push(&repo, 0).succeeds();
    backlog.assert_archived(&repo);
    for number in 1..backlog.names.len() {
        assert_eq!(backlog.changes(&repo, number), []);
    }
}

#[test]
fn a_push_without_backlog_makes_two_fsyncs_and_no_record() {
    let repo = TestRepo::init();
    repo.configure("[push]\nbatch = 0");
    let backlog = Backlog::of(2);
    let fsyncs = |calls: Vec<Call>| calls.into_iter().filter(|call| call.name == "fsync").collect::<Vec<_>>();
    // The first one makes the directories.
    assert!(fsyncs(backlog.changes(&repo, 0)).len() > 2);
    let second = fsyncs(backlog.changes(&repo, 1));
    assert_eq!(second.len(), 2, "{second:?}");
    assert!(!backlog.record().exists());
}

#[test]
fn a_directory_whose_maker_was_killed_is_made_durable_by_the_next_push() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(2));
    repo.configure("[push]\nbatch = 0");
    let first = backlog.changes(&repo, 0);
    let directory =
        first.iter().rev().find(|call| call.name == "link" || call.name == "linkat").expect("published");
    let directory = directory.path.parent().expect("a directory").to_path_buf();
    fs::remove_file(repo.root().join(repo.only(".zst"))).expect("removed");
    let synced: Vec<PathBuf> = backlog
        .changes(&repo, 1)
        .into_iter()
        .filter(|call| call.name == "fsync")
        .map(|call| call.path)
        .collect();
    for above in directory.ancestors().take_while(|above| above.starts_with(repo.root())) {
        assert!(synced.contains(&above.to_path_buf()), "{} is not in {synced:?}", above.display());
    }
}

#[test]
fn the_batch_and_the_jobs_are_bounded_by_the_configuration() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(5));
    repo.configure("[push]\nbatch = 2\njobs = 1");
    backlog.push(&repo, 0).succeeds();
    assert_eq!(repo.matching(".zst").len(), 3);
    run(repo.wal_push(&backlog.server.data_dir()).args(["--jobs", "3"]).arg(backlog.file(3))).succeeds();
    assert_eq!(repo.matching(".zst").len(), backlog.names.len().min(6));
    repo.configure("nonsense = 1");
    backlog.push(&repo, 1).fails_with(2, "unknown field `nonsense`");
}

#[test]
fn the_server_itself_empties_its_backlog() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(20));
    let kept = backlog.server.scratch().make_dir("kept");
    for name in &backlog.names {
        fs::copy(backlog.pg_wal().join(name), kept.join(name)).expect("copied");
    }
    let command = format!("{} %p", program_path("wal-push").display());
    backlog
        .server
        .append_config(&format!("archive_command = 'PGARK_CONFIG={} {command}'", repo.config().display()));
    backlog.server.reload();
    backlog.server.archive_everything();
    assert_eq!(ready(&backlog.server), Vec::<String>::new());
    for name in &backlog.names {
        let target = backlog.server.scratch().join("back");
        run(repo.wal_fetch(&backlog.server.data_dir()).arg(name).arg(&target)).succeeds();
        assert!(
            fs::read(&target).expect("read") == fs::read(kept.join(name)).expect("read"),
            "{name} differs"
        );
    }
    // A server that is used goes on as before: recycled names, checkpoints, restarts.
    for _ in 0..3 {
        backlog.server.psql("checkpoint; insert into t select generate_series(1, 30000)");
        backlog.server.archive_everything();
        backlog.server.restart();
    }
}

#[test]
fn a_timeline_switch_in_the_backlog_changes_nothing() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).start();
    let standby = primary.standby().set("archive_mode", "always").set("archive_command", "false").start();
    for _ in 0..4 {
        primary.switch_wal();
    }
    primary.psql("create table in_the_middle_of_a_segment ()");
    primary.wait_replayed_by(&standby);
    standby.promote();
    for _ in 0..4 {
        standby.switch_wal();
    }
    let waiting = ready(&standby);
    assert!(waiting.contains(&"00000002.history".to_string()), "{waiting:?}");
    assert!(waiting.iter().any(|name| name.ends_with(".partial")), "{waiting:?}");
    let command = format!("{} %p", program_path("wal-push").display());
    standby.append_config(&format!("archive_command = 'PGARK_CONFIG={} {command}'", repo.config().display()));
    standby.reload();
    standby.archive_everything();
    for name in waiting {
        assert_eq!(repo.matching(&format!("/{name}")).len(), 1, "{name} in {:?}", repo.list());
    }
}

#[test]
fn another_file_under_a_remembered_name_is_not_taken_for_pushed() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(3));
    backlog.push(&repo, 0).succeeds();
    let content = fs::read(backlog.file(1)).expect("read");
    damage_file(&backlog.file(1), Damage::FlipByte(20_000));
    backlog.push(&repo, 1).fails_with(4, "already archived with other content");
    // The right content again, but written after the record was: pushed again, found identical.
    fs::write(backlog.file(1), content).expect("written");
    backlog.push(&repo, 1).succeeds();
    backlog.assert_archived(&repo);
}

#[test]
fn what_is_remembered_counts_for_that_repository_only() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(3));
    backlog.push(&repo, 0).succeeds();

    // The object was lost.
    repo.damage(&repo.only(&format!("{}.zst", backlog.names[1])), Damage::Delete);
    backlog.push(&repo, 1).succeeds();
    backlog.assert_archived(&repo);

    // The disk is not mounted.
    let away = repo.scratch().join("away");
    fs::rename(repo.root(), &away).expect("renamed");
    fs::create_dir(repo.root()).expect("made");
    backlog.push(&repo, 2).fails_with(2, "no repository here");
    fs::remove_dir(repo.root()).expect("removed");

    // A new repository stands there.
    run(&mut repo.pgark(&["init"])).succeeds();
    backlog.push(&repo, 2).succeeds();
    assert_eq!(repo.matching(&format!("{}.zst", backlog.names[2])).len(), 1);

    // Another cluster's name in it.
    repo.configure("cluster = \"other\"");
    backlog.push(&repo, 2).succeeds();
    assert_eq!(repo.matching(&format!("{}.zst", backlog.names[2])).len(), 2);
}

#[test]
fn an_error_is_reported_for_the_segment_that_has_it() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(4));
    let good = fs::read(backlog.file(1)).expect("read");
    damage_file(&backlog.file(1), Damage::FlipByte(0));
    let first = backlog.push(&repo, 0);
    assert!(first.stderr.contains("ahead of its turn: "), "{first}");
    first.succeeds();
    backlog.push(&repo, 1).fails_with(5, &backlog.names[1]);
    backlog.push(&repo, 2).succeeds();
    fs::write(backlog.file(1), good).expect("written");
    backlog.push(&repo, 1).succeeds();
    backlog.assert_archived(&repo);
}

#[test]
fn a_damaged_record_or_none_costs_a_second_push_only() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(3));
    backlog.push(&repo, 0).succeeds();
    damage_record(&backlog.record());
    let outcome = backlog.push(&repo, 1);
    assert!(
        outcome.stderr.contains("pushed.json is not a record of this program, or is damaged"),
        "{outcome}"
    );
    outcome.succeeds();
    fs::remove_file(backlog.record()).expect("removed");
    backlog.push(&repo, 2).succeeds();
    backlog.assert_archived(&repo);
}

#[test]
fn without_a_spool_segments_are_pushed_one_by_one() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(3));
    let file = repo.scratch().write("file", "not a directory");
    repo.configure(&format!("spool = {file:?}"));
    for number in 0..backlog.names.len() {
        let outcome = backlog.push(&repo, number);
        let warnings = outcome.stderr.matches("could not create the spool directory").count();
        assert_eq!(warnings, usize::from(number + 1 < backlog.names.len()), "{outcome}");
        outcome.succeeds();
        assert_eq!(repo.matching(".zst").len(), number + 1);
    }
    backlog.assert_archived(&repo);
}

#[test]
fn a_spool_on_another_disk_that_turns_read_only_does_no_harm() {
    let (repo, backlog) = (TestRepo::init(), Backlog::of(4));
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    repo.configure(&format!("spool = {:?}\n[push]\nbatch = 1", disk.path()));
    backlog.push(&repo, 0).succeeds();
    assert_eq!(repo.matching(".zst").len(), 2);
    let Some(_read_only) = ReadOnly::mount(&disk.path()) else { return };
    assert_eq!(backlog.changes(&repo, 1), [], "it can still be read");
    let outcome = backlog.push(&repo, 2);
    assert!(outcome.stderr.contains("segments are pushed one by one"), "{outcome}");
    outcome.succeeds();
    assert_eq!(repo.matching(".zst").len(), 3);
}

#[test]
fn killed_anywhere_a_batch_is_pushed_again_and_found_identical() {
    let backlog = Backlog::of(3);
    let count = {
        let repo = TestRepo::init();
        backlog.changes(&repo, 0).len()
    };
    // Every third of them, shifted by chance: the jobs run side by side, so the order is never the same.
    let start = 1 + count % 3;
    for kill in (start..=count).step_by(3) {
        let repo = TestRepo::init();
        fs::remove_dir_all(backlog.pg_wal().join("pgark.spool")).expect("a new spool");
        let (outcome, _) = run_with_fault(backlog.std_push(&repo, 0), Fault::kill_at(kill));
        assert!(outcome.code.is_none_or(|code| code == 0), "{outcome}");
        for number in 0..backlog.names.len() {
            backlog.push(&repo, number).succeeds();
        }
        for name in &backlog.names {
            let stored = repo.list().into_iter().filter(|key| key.ends_with(&format!("{name}.zst"))).count();
            assert_eq!(stored, 1, "{name} in {:?}", repo.list());
        }
    }
}
