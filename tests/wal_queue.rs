//! `wal-push` while the repository stays out of reach: it says how long that can go on, and drops WAL only where
//! that is wanted, only for that reason, and never without a record.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::*;
use serde_json::Value;

/// Failed pushes in a row after which WAL is dropped.
const ENOUGH: usize = 10;

fn ready(server: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(server.data_dir().join("pg_wal/archive_status")).expect("list");
    let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    names.sort();
    names
}

/// The repository, which can be taken away, and what it says about gaps.
trait Gone {
    fn take_away(&self);
    fn bring_back(&self);
    fn gaps(&self) -> Vec<(String, String)>;
}

impl Gone for TestRepo {
    fn take_away(&self) {
        fs::rename(self.root(), self.scratch().join("away")).expect("taken away");
    }

    fn bring_back(&self) {
        fs::rename(self.scratch().join("away"), self.root()).expect("brought back");
    }

    /// First and last of each.
    fn gaps(&self) -> Vec<(String, String)> {
        let read = |key: &String| -> Value { serde_json::from_slice(&self.read(key)).expect("JSON") };
        let text = |gap: &Value, member: &str| gap[member].as_str().expect("a name").to_owned();
        let gaps: Vec<Value> = self.matching("/gap/").iter().map(read).collect();
        let mut gaps: Vec<_> = gaps.iter().map(|gap| (text(gap, "first"), text(gap, "last"))).collect();
        gaps.sort();
        gaps
    }
}

/// A server whose WAL waits, and that we push by hand.
struct Backlog {
    repo: TestRepo,
    server: Cluster,
    names: Vec<String>,
}

impl Backlog {
    /// More waits than `wal_queue_max`, if any is set.
    fn of(segments: usize, configuration: &str) -> Self {
        let repo = TestRepo::init();
        repo.configure(configuration);
        let server = Cluster::builder()
            .wal_segment_mib(1)
            .set("archive_mode", "on")
            .set("archive_command", "false")
            .start();
        for _ in 0..segments {
            server.switch_wal();
        }
        let names = ready(&server);
        assert!(names.len() >= segments, "{names:?}");
        Self { repo, server, names }
    }

    fn pg_wal(&self) -> PathBuf {
        self.server.data_dir().join("pg_wal")
    }

    fn record(&self) -> PathBuf {
        self.pg_wal().join("pgark.spool/outage.json")
    }

    fn push(&self, file: &str) -> Outcome {
        run(self.repo.wal_push(&self.server.data_dir()).arg(format!("pg_wal/{file}")))
    }

    /// A history that waits, and its content.
    fn add_history(&self) -> (&'static str, &'static str) {
        let (history, content) = ("00000002.history", "1\t0/600028\tno recovery target specified\n");
        fs::write(self.pg_wal().join(history), content).expect("written");
        fs::write(self.pg_wal().join(format!("archive_status/{history}.ready")), "").expect("written");
        (history, content)
    }

    /// What PostgreSQL does after exit 0.
    fn done(&self, file: &str) {
        let status = self.pg_wal().join("archive_status");
        let (ready, done) = (status.join(format!("{file}.ready")), status.join(format!("{file}.done")));
        fs::rename(ready, done).expect("renamed");
    }

    #[track_caller]
    fn fails_times(&self, times: usize, file: &str) {
        for _ in 0..times {
            let outcome = self.push(file);
            assert!(outcome.code.is_some_and(|code| (2..=125).contains(&code)), "{outcome}");
            assert!(!outcome.stderr.contains("DROPPED"), "{outcome}");
        }
    }

    /// As often as it takes until it is dropped.
    #[track_caller]
    fn drop_first(&self) {
        self.fails_times(ENOUGH - 1, &self.names[0]);
        let outcome = self.push(&self.names[0]);
        assert!(outcome.stderr.contains(&format!("{} is DROPPED, not archived", self.names[0])), "{outcome}");
        outcome.succeeds();
    }

    fn is_archived(&self, file: &str) -> bool {
        !self.repo.matching(&format!("/{file}")).is_empty()
    }

    fn gap(&self, first: usize, last: usize) -> (String, String) {
        (self.names[first].clone(), self.names[last].clone())
    }
}

const LIMIT: &str = "[push]\nwal_queue_max = \"3MiB\"";

#[test]
fn a_server_whose_archive_is_away_says_how_long_it_can_go_on() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    server.archive_everything();
    let mut said = 0;
    for away in [true, false] {
        if away {
            repo.take_away();
        } else {
            fs::set_permissions(repo.root(), fs::Permissions::from_mode(0o000)).expect("chmod");
        }
        for _ in 0..5 {
            server.switch_wal();
        }
        let warned = |log: &str| log.matches("segments (5.00 MiB) wait to be archived; ").count() > said;
        server.wait_for("a warning", || warned(&server.log()));
        if away {
            repo.bring_back();
        } else {
            fs::set_permissions(repo.root(), fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        server.archive_everything();
        said = server.log().matches("segments (5.00 MiB) wait to be archived; ").count();
    }
    let log = server.log();
    let warning = log.lines().rfind(|line| line.contains("5 segments")).expect("one line");
    assert!(warning.contains("iB are left on the file system of pg_wal"), "{warning}");
    assert!(warning.contains("; when that is full, the server stops"), "{warning}");
    assert_eq!(ready(&server), Vec::<String>::new());
    assert!(repo.gaps().is_empty());
}

#[test]
fn the_time_left_is_told_once_there_is_a_rate() {
    let backlog = Backlog::of(3, "");
    backlog.repo.take_away();
    let first = backlog.pg_wal().join(format!("archive_status/{}.ready", backlog.names[0]));
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(first).and_then(|file| file.set_modified(an_hour_ago)).expect("set");
    let said = backlog.push(&backlog.names[0]).fails_with(2, "no repository here");
    assert!(said.contains(", enough for ") && said.contains(" at the present rate; "), "{said}");
}

#[test]
fn without_a_limit_nothing_is_ever_dropped() {
    let backlog = Backlog::of(5, "");
    backlog.repo.take_away();
    backlog.fails_times(3 * ENOUGH, &backlog.names[0]);
    assert!(!backlog.record().exists());
    backlog.repo.bring_back();
    for name in &backlog.names {
        backlog.push(name).succeeds();
        assert!(backlog.is_archived(name));
    }
    assert!(backlog.repo.gaps().is_empty());
}

#[test]
fn beyond_the_limit_the_oldest_is_dropped_and_the_gap_recorded_when_the_repository_is_back() {
    let backlog = Backlog::of(6, LIMIT);
    let waiting = backlog.names.len();
    backlog.repo.take_away();
    backlog.drop_first();
    backlog.done(&backlog.names[0]);
    for name in &backlog.names[1..waiting - 3] {
        backlog.push(name).succeeds();
        backlog.done(name);
    }
    // Now three wait, as many as may.
    let kept = &backlog.names[waiting - 3..];
    backlog.fails_times(5, &kept[0]);
    backlog.repo.bring_back();
    let said = backlog.push(&kept[0]);
    assert!(said.stderr.contains("WAL is missing from the archive: "), "{said}");
    assert!(said.stderr.contains("hint=\"take a backup now"), "{said}");
    said.succeeds();
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, waiting - 4)]);
    assert!(!backlog.record().exists());
    let quiet = backlog.push(&kept[1]);
    assert_eq!(quiet.stderr, "");
    backlog.push(&kept[2]).succeeds();
    for (n, name) in backlog.names.iter().enumerate() {
        assert_eq!(backlog.is_archived(name), n >= waiting - 3, "{name}");
    }
}

#[test]
fn a_repository_that_is_away_for_a_moment_costs_nothing() {
    let backlog = Backlog::of(6, &format!("{LIMIT}\nbatch = 0"));
    for name in &backlog.names[..2] {
        backlog.repo.take_away();
        backlog.fails_times(ENOUGH - 1, name);
        backlog.repo.bring_back();
        backlog.push(name).succeeds();
        assert!(!backlog.record().exists());
    }
    // A refusal is an answer too.
    let other = run(&mut TestRepo::init().pgark(&["init"])).succeeds();
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, &backlog.names[2]);
    backlog.repo.bring_back();
    let right = fs::read(backlog.repo.config()).expect("read");
    fs::write(backlog.repo.config(), [format!("repo_id = {:?}\n", other.trim()).as_bytes(), &right].concat())
        .expect("written");
    backlog.push(&backlog.names[2]).fails_with(2, "but the configuration pins");
    fs::write(backlog.repo.config(), right).expect("written");
    assert!(backlog.record().exists(), "another repository is no answer of ours");
    let damaged = backlog.pg_wal().join(&backlog.names[0]);
    damage_file(&damaged, Damage::FlipByte(20_000));
    backlog.push(&backlog.names[0]).fails_with(4, "already archived with other content");
    assert!(!backlog.record().exists());
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, &backlog.names[2]);
    backlog.push(&backlog.names[2]).succeeds();
}

#[test]
fn what_the_repository_or_we_refuse_is_never_dropped() {
    let backlog = Backlog::of(5, &format!("{LIMIT}\nbatch = 0"));
    let name = &backlog.names[0];
    let path = backlog.pg_wal().join(name);
    let (good, config) = (fs::read(&path).expect("read"), fs::read(backlog.repo.config()).expect("read"));
    let again = |message: &str| {
        for _ in 0..ENOUGH + 5 {
            let outcome = backlog.push(name);
            assert!(outcome.code.is_some_and(|code| (2..=125).contains(&code)), "{outcome}");
            assert!(outcome.stderr.contains(message), "should say {message:?}: {outcome}");
            assert!(outcome.stderr.contains("wait to be archived"), "{outcome}");
        }
    };
    backlog.push(name).succeeds();
    damage_file(&path, Damage::FlipByte(20_000));
    again("already archived with other content");
    fs::write(&path, &good).expect("written");

    fs::write(
        backlog.repo.config(),
        [&b"repo_id = \"0123456789abcdef0123456789abcdef\"\n"[..], &config].concat(),
    )
    .expect("written");
    again("but the configuration pins");
    fs::write(backlog.repo.config(), LIMIT).expect("written");
    again("no repository is configured");
    fs::write(backlog.repo.config(), &config).expect("written");

    let header = backlog.repo.read("pgark.json");
    let newer = String::from_utf8_lossy(&header).replace("\"version\": 1", "\"version\": 2");
    fs::write(backlog.repo.path("pgark.json"), newer).expect("written");
    again("this program reads");
    fs::write(backlog.repo.path("pgark.json"), "{").expect("written");
    again("could not read");
    fs::write(backlog.repo.path("pgark.json"), &header).expect("written");

    // Away, too, but the file itself is bad: not its name's segment, or of another size.
    backlog.repo.take_away();
    for damage in [Damage::FlipByte(0), Damage::FlipByte(8), Damage::Truncate(1000), Damage::Extend(10)] {
        damage_file(&path, damage);
        again("");
        fs::write(&path, &good).expect("written");
    }
    assert_eq!(fs::read_to_string(backlog.record()).unwrap_or_default().matches("first").count(), 0);
}

#[test]
fn what_postgresql_does_not_wait_for_is_not_dropped() {
    let backlog = Backlog::of(5, LIMIT);
    backlog.repo.take_away();
    backlog.done(&backlog.names[0]);
    backlog.fails_times(2 * ENOUGH, &backlog.names[0]);
    assert!(!backlog.record().exists());
}

#[test]
fn nothing_is_dropped_that_cannot_be_recorded() {
    let backlog = Backlog::of(5, "");
    let not_a_directory = backlog.repo.scratch().write("file", "");
    let config = fs::read_to_string(backlog.repo.config()).expect("read");
    fs::write(backlog.repo.config(), format!("{config}\nspool = {not_a_directory:?}\n{LIMIT}\n"))
        .expect("written");
    backlog.repo.take_away();
    for _ in 0..ENOUGH + 5 {
        let outcome = backlog.push(&backlog.names[0]);
        assert!(outcome.stderr.contains("; so no WAL is dropped"), "{outcome}");
        outcome.fails_with(2, "no repository here");
    }

    // A record that can't be read may say what is missing.
    fs::write(backlog.repo.config(), format!("{config}\n{LIMIT}\n")).expect("written");
    backlog.drop_first();
    let record = fs::read(backlog.record()).expect("read");
    damage_file(&backlog.record(), Damage::FlipByte(30));
    let said = backlog.push(&backlog.names[1]);
    assert!(said.stderr.contains("could not read the record of dropped WAL"), "{said}");
    said.fails_with(2, "; so no WAL is dropped");
    backlog.repo.bring_back();
    let said = backlog.push(&backlog.names[1]);
    assert!(said.stderr.contains("is not recorded in the repository yet"), "{said}");
    said.succeeds();
    assert!(backlog.repo.gaps().is_empty());
    fs::write(backlog.record(), record).expect("written");
    backlog.push(&backlog.names[2]).succeeds();
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, 0)]);
}

#[test]
fn a_full_repository_is_out_of_reach_as_well() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let mut backlog = Backlog::of(5, "");
    backlog.repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    backlog.repo.configure(LIMIT);
    run(&mut backlog.repo.pgark(&["init"])).succeeds();
    let hog = disk.path().join("hog");
    let mut size = 1 << 20;
    while fs::write(&hog, vec![1; size]).is_err() {
        size -= 4096;
    }
    backlog.drop_first();
    fs::write(&hog, "").expect("make room");
    backlog.push(&backlog.names[1]).succeeds();
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, 0)]);
}

#[test]
fn a_dropped_segment_that_gets_there_all_the_same_is_no_gap() {
    let backlog = Backlog::of(6, &format!("{LIMIT}\nbatch = 0"));
    backlog.repo.take_away();
    backlog.drop_first();
    backlog.push(&backlog.names[1]).succeeds();
    backlog.push(&backlog.names[2]).succeeds();
    backlog.repo.bring_back();
    // The server crashed before it noted the exit code, and asks again.
    backlog.push(&backlog.names[1]).succeeds();
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, 0), backlog.gap(2, 2)]);
}

#[test]
fn what_was_pushed_ahead_is_no_gap_either() {
    let backlog = Backlog::of(6, LIMIT);
    backlog.push(&backlog.names[0]).succeeds();
    assert!(backlog.is_archived(&backlog.names[1]), "taken along");
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, &backlog.names[1]);
    backlog.push(&backlog.names[1]).succeeds();
    backlog.repo.bring_back();
    backlog.push(&backlog.names[2]).succeeds();
    assert!(backlog.repo.gaps().is_empty());
    assert!(!backlog.record().exists());
}

#[test]
fn a_history_is_kept_and_archived_with_the_next_success() {
    let backlog = Backlog::of(5, LIMIT);
    let (history, content) = backlog.add_history();
    backlog.repo.take_away();
    // PostgreSQL asks for histories first, and for nothing else before they are archived.
    backlog.fails_times(ENOUGH - 1, history);
    let said = backlog.push(history);
    assert!(said.stderr.contains("00000002.history is deferred"), "{said}");
    said.succeeds();
    backlog.push(&backlog.names[0]).succeeds();
    fs::remove_file(backlog.pg_wal().join(history)).expect("removed");
    backlog.repo.bring_back();
    backlog.push(&backlog.names[1]).succeeds();
    assert_eq!(backlog.repo.read(&backlog.repo.only(history)), content.as_bytes());
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, 0)]);
    assert!(!backlog.record().exists());
}

#[test]
fn a_backup_history_that_is_in_the_way_is_kept_as_well() {
    let backlog = Backlog::of(5, LIMIT);
    let (start, stop) = match pg_major() {
        14 => ("pg_start_backup('x', true, false)", "pg_stop_backup(false, false)"),
        _ => ("pg_backup_start('x', true)", "pg_backup_stop(false)"),
    };
    backlog.server.psql(&format!("select {start}; select {stop}"));
    let file = ready(&backlog.server).into_iter().find(|name| name.ends_with(".backup")).expect("one");
    let content = fs::read(backlog.pg_wal().join(&file)).expect("read");
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, &file);
    backlog.push(&file).succeeds();
    backlog.repo.bring_back();
    backlog.push(&backlog.names[0]).succeeds();
    assert_eq!(backlog.repo.read(&backlog.repo.only(&file)), content);
    assert!(backlog.repo.gaps().is_empty());
}

#[test]
fn a_history_of_a_timeline_that_another_server_took_is_kept_and_hides_no_gap() {
    let backlog = Backlog::of(5, LIMIT);
    let (history, _) = backlog.add_history();
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, history);
    backlog.push(history).succeeds();
    backlog.push(&backlog.names[0]).succeeds();
    backlog.repo.bring_back();
    fs::write(backlog.pg_wal().join(history), "1\t0/500028\tanother promotion\n").expect("written");
    backlog.push(history).succeeds();
    let record = fs::read_to_string(backlog.record()).expect("kept");
    assert!(record.contains(history) && !record.contains("\"first\""), "{record}");
    assert_eq!(backlog.repo.gaps(), [backlog.gap(0, 0)]);
    let said = backlog.push(&backlog.names[1]);
    assert!(said.stderr.contains("00000002.history is already archived with other content"), "{said}");
    said.succeeds();
}

#[test]
fn killed_while_it_drops_nothing_is_dropped_without_a_record() {
    let backlog = Backlog::of(6, LIMIT);
    let spool = backlog.pg_wal().join("pgark.spool");
    let push = |name: &str, fault: Fault| {
        let mut push = backlog.repo.std_program("wal-push");
        push.current_dir(backlog.server.data_dir()).arg(format!("pg_wal/{name}"));
        run_with_fault(push, fault.under(&spool))
    };
    backlog.repo.take_away();
    backlog.fails_times(ENOUGH - 1, &backlog.names[0]);
    let before = fs::read(backlog.record()).expect("read");
    let (outcome, calls) = push(&backlog.names[0], Fault::none());
    outcome.succeeds();
    assert!(calls.len() >= 5, "{calls:?}");
    let after = fs::read_to_string(backlog.record()).expect("read");
    assert!(after.contains(&backlog.names[0]), "{after}");
    for n in 1..=calls.len() {
        fs::write(backlog.record(), &before).expect("written");
        let (outcome, _) = push(&backlog.names[0], Fault::kill_at(n));
        assert_eq!(outcome.code, None, "{outcome}");
        push(&backlog.names[0], Fault::none()).0.succeeds();
        let record = fs::read_to_string(backlog.record()).expect("there");
        assert_eq!(record.matches("\"first\"").count(), 1, "killed at {n}: {record}");
        for errno in [Errno::IO, Errno::NOSPC] {
            fs::write(backlog.record(), &before).expect("written");
            let (outcome, _) = push(&backlog.names[0], Fault::fail_at(n, errno));
            let recorded = fs::read_to_string(backlog.record()).expect("there").contains("\"first\"");
            assert!(outcome.code != Some(0) || recorded, "{:?} failed: {outcome}", calls[n - 1]);
            assert!(outcome.code == Some(0) || outcome.stderr.contains("so no WAL is dropped"), "{outcome}");
        }
    }
}

#[test]
fn killed_while_it_records_the_gap_the_next_push_records_it_once() {
    let backlog = Backlog::of(6, &format!("{LIMIT}\nbatch = 0"));
    backlog.push(&backlog.names[4]).succeeds();
    backlog.repo.take_away();
    backlog.drop_first();
    backlog.push(&backlog.names[1]).succeeds();
    backlog.push(&backlog.names[2]).succeeds();
    backlog.repo.bring_back();
    // So that there are two parts.
    let record = fs::read(backlog.record()).expect("read");
    backlog.push(&backlog.names[1]).succeeds();
    let expected = [backlog.gap(0, 0), backlog.gap(2, 2)];
    assert_eq!(backlog.repo.gaps(), expected);
    let start = || {
        for key in backlog.repo.matching("/gap/") {
            fs::remove_file(backlog.repo.path(&key)).expect("removed");
        }
        fs::write(backlog.record(), &record).expect("written");
    };
    let push = |fault: Fault| {
        let mut push = backlog.repo.std_program("wal-push");
        push.current_dir(backlog.server.data_dir()).arg(format!("pg_wal/{}", backlog.names[4]));
        run_with_fault(push, fault)
    };
    start();
    let (outcome, calls) = push(Fault::none());
    outcome.succeeds();
    for n in 1..=calls.len() {
        start();
        let (outcome, _) = push(Fault::kill_at(n));
        assert_eq!(outcome.code, None, "{outcome}");
        backlog.push(&backlog.names[4]).succeeds();
        assert_eq!(backlog.repo.gaps(), expected, "killed before {:?}", calls[n - 1]);
        assert!(!backlog.record().exists());
    }
}

/// Keeps the server writing until `done`. Its archiver tries three times and then waits for the next segment.
fn write_until(server: &Cluster, what: &str, mut done: impl FnMut() -> bool) {
    let rounds = || server.log().matches("failed too many times").count();
    let mut seen = rounds();
    server.wait_for(what, || {
        if rounds() > seen {
            seen = rounds();
            server.switch_wal();
        }
        done()
    });
}

#[test]
fn a_server_lives_through_an_outage_and_the_next_backup_closes_the_gap() {
    let repo = TestRepo::init();
    repo.configure(&format!("{LIMIT}\n[fetch]\nretry = \"0s\""));
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    server.psql("create table t as select 1 as a");
    run(repo.basebackup(&server).args(["--label", "before"])).succeeds();
    server.archive_everything();
    repo.take_away();
    for _ in 0..8 {
        server.psql("insert into t values (2)");
        server.switch_wal();
    }
    let waited = ready(&server);
    write_until(&server, "WAL to be dropped", || {
        server.log().contains("is DROPPED") && ready(&server).len() <= 3
    });
    let dropped: Vec<String> = {
        let log = server.log();
        let lines =
            log.lines().filter_map(|line| line.split(" is DROPPED").next().filter(|part| *part != line));
        lines.map(|part| part.split_whitespace().last().expect("a name").to_owned()).collect()
    };
    assert_eq!(dropped.first(), waited.first());
    server.psql("insert into t values (3); checkpoint");
    repo.bring_back();
    server.archive_everything();
    let (first, last) = (dropped[0].clone(), dropped[dropped.len() - 1].clone());
    assert_eq!(repo.gaps(), [(first.clone(), last.clone())]);
    let behind = server.psql("insert into t values (4); select pg_current_wal_lsn()");
    let behind = behind.lines().last().expect("an LSN").to_owned();
    server.archive_everything();
    let archived = repo.matching(".zst");
    for name in &dropped {
        assert!(!archived.iter().any(|key| key.contains(name.as_str())), "{name} is there");
    }

    let said = run(repo.basebackup(&server).args(["--label", "after"]));
    let sentence = format!(
        "this backup closes a gap in the archive, beyond which no earlier one can be restored: {first} to {last} were dropped by "
    );
    assert!(said.stderr.contains(&sentence), "{said}");
    said.succeeds();
    let header: Value = serde_json::from_slice(&repo.read(&repo.only("/after/backup.json"))).expect("JSON");
    assert!(header["warnings"][0].as_str().is_some_and(|warning| warning.contains(&sentence)), "{header}");
    let said = run(repo.basebackup(&server).args(["--label", "later"]));
    assert!(!said.stderr.contains("closes a gap"), "{said}");
    said.succeeds();

    let scratch = Scratch::new();
    let why = format!("{first} is missing from the archive: {first} to {last} were dropped by ");
    let target = scratch.join("refused");
    run(repo.bootstrap_restore().arg("-D").arg(&target).args(["--target-lsn", &behind])).fails_with(3, &why);
    assert!(!target.exists());
    let fetched = scratch.join("fetched");
    let said = run(repo.wal_fetch(&server.data_dir()).arg(&first).arg(fetched));
    said.fails_with(203, &format!("hint: {first} to {last} were dropped by "));

    server.psql("insert into t values (5)");
    server.archive_everything();
    let restored = repo.restore(&scratch, "data", &[]);
    restored.assert_content(&server.content());
}
