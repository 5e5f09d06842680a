//! `bootstrap-restore` against a real PostgreSQL: the life of a restored server, from the plan to its
//! replacement. (Targets, timelines, tablespaces, layouts and refusals: `restore_*.rs`.)

mod harness;

use std::path::{Path, PathBuf};

use harness::*;

/// A primary with a backup, and a row that came after it.
struct Source {
    repo: TestRepo,
    primary: Cluster,
    scratch: Scratch,
}

impl Source {
    fn new() -> Self {
        let repo = TestRepo::init();
        let primary = Cluster::builder().archive_to(&repo).set("max_prepared_transactions", 5).start();
        primary.psql("create table t as select generate_series(1, 1000) as a");
        run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
        primary.psql("insert into t values (1001)");
        primary.psql("begin; insert into t values (1002); prepare transaction 'left over'");
        primary.psql("select pg_create_restore_point('here')");
        primary.psql("insert into t values (1003)");
        primary.archive_everything();
        Self { repo, primary, scratch: Scratch::new() }
    }

    fn target(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn restore(&self, name: &str, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = self.repo.bootstrap_restore();
        command.arg("--target-dir").arg(self.target(name)).arg("--socket-dir").arg(self.scratch.path());
        command.args(arguments);
        command
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("list");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_server_is_created_and_says_where_it_ended_and_what_is_left_over() {
    let source = Source::new();
    let said = run(&mut source.restore("data", &[])).succeeds();
    let restored = Cluster::adopt(&source.target("data"));
    assert_eq!(restored.psql("select count(*) from t"), "1002");
    for part in ["accepts reads and writes on timeline 2", "'left over' of postgres", "psql -h", "passwords"]
    {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(restored.psql("show archive_mode"), "off");
    assert_eq!(restored.psql("show max_logical_replication_workers"), "0");
    assert!(restored.psql("show cluster_name").starts_with("restored main"));
    assert!(
        !names(&source.target("data"))
            .iter()
            .any(|name| name.contains("incomplete") || name.contains("config"))
    );
    restored.restart();
    assert_eq!(restored.psql("select count(*) from t"), "1002");
    assert_eq!(source.primary.psql("select count(*) from t"), "1002", "the source lives on");
}

#[test]
fn a_dry_run_plans_for_machines_and_writes_nothing() {
    let source = Source::new();
    let said = run(&mut source.restore("data", &["--dry-run", "--output", "json", "--target-name", "here"]))
        .succeeds();
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["plan"]["backup"], "one");
    assert_eq!(report["plan"]["target"]["name"], "here");
    assert!(report["restored"].is_null() && report["server"].is_null());
    assert!(!source.target("data").exists());
}

#[test]
fn a_paused_server_waits_at_the_target_and_goes_on_when_told() {
    let source = Source::new();
    let said = run(&mut source.restore("data", &["--target-name", "here", "--action", "pause"])).succeeds();
    assert!(said.contains("is paused at the target") && said.contains("pg_wal_replay_resume()"), "{said}");
    let restored = Cluster::adopt(&source.target("data"));
    assert_eq!(restored.psql("select pg_is_in_recovery(), count(*) from t"), "t|1001");
    restored.psql("select pg_wal_replay_resume()");
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), "1001");
}

#[test]
fn a_server_that_shall_shut_down_at_the_target_is_down_and_goes_on_from_there() {
    let source = Source::new();
    let arguments = ["--target-name", "here", "--action", "shutdown"];
    let said = run(&mut source.restore("data", &arguments)).succeeds();
    assert!(said.contains("has shut down at the target"), "{said}");
    let data = source.target("data");
    assert!(!data.join("postmaster.pid").exists() && data.join("recovery.signal").exists());
    let restored = Cluster::adopt_stopped(&data);
    restored.append_config("recovery_target_action = 'promote'");
    restored.start();
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), "1001");
}

#[test]
fn what_was_not_started_recovers_when_it_is() {
    let source = Source::new();
    let said = run(&mut source.restore("data", &["--no-start", "--set", "work_mem=5MB"])).succeeds();
    assert!(said.contains("not started") && said.contains("pg_ctl start"), "{said}");
    let restored = Cluster::adopt_stopped(&source.target("data"));
    restored.start();
    restored.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(restored.psql("select count(*) from t"), "1002");
    assert_eq!(restored.psql("show work_mem"), "5MB");
}

#[test]
fn a_standby_streams_from_the_live_primary() {
    let source = Source::new();
    let conninfo = source.primary.conninfo();
    let said = run(&mut source.restore("data", &["--standby", "--primary-conninfo", &conninfo])).succeeds();
    assert!(said.contains("runs as a standby"), "{said}");
    let standby = Cluster::adopt(&source.target("data"));
    source.primary.psql("insert into t values (1004)");
    source.primary.wait_replayed_by(&standby);
    assert_eq!(standby.psql("select pg_is_in_recovery(), count(*) from t"), "t|1003");
    assert_eq!(source.primary.psql("select state from pg_stat_replication"), "streaming");
}

#[test]
fn a_standby_of_the_archive_replays_what_is_archived_later() {
    let source = Source::new();
    run(&mut source.restore("data", &["--standby"])).succeeds();
    let standby = Cluster::adopt(&source.target("data"));
    source.primary.psql("insert into t values (1004)");
    source.primary.archive_everything();
    standby.wait_sql("select count(*) from t", "1003");
}

#[test]
fn what_was_restored_is_replaced_only_when_that_was_said() {
    let source = Source::new();
    run(&mut source.restore("data", &["--target-name", "here"])).succeeds();
    let first = Cluster::adopt(&source.target("data"));
    first.psql("create table written_here (a int)");
    let said = run(&mut source.restore("data", &[])).fails_with(4, "a server runs in it on port");
    assert!(said.contains("--replace-running"), "{said}");
    run(&mut source.restore("data", &["--replace"])).fails_with(4, "a server runs in it on port");
    assert_eq!(first.psql("select count(*) from written_here"), "0");
    run(&mut source.restore("data", &["--replace-running", "--port", &first.port().to_string()])).succeeds();
    // Its end would be that of whatever works in the directory.
    std::mem::forget(first);
    let second = Cluster::adopt(&source.target("data"));
    assert_eq!(second.psql("select count(*) from t"), "1002");
    assert!(second.try_psql("select 1 from written_here").is_err());
    second.stop(Stop::Fast);
    run(&mut source.restore("data", &[])).fails_with(4, "it is a data directory");
    run(&mut source.restore("data", &["--replace", "--no-start"])).succeeds();
}

#[test]
fn a_restore_that_broke_off_is_marked_starts_no_server_and_is_replaced() {
    let source = Source::new();
    let packs = source.repo.matching(".pack");
    let pack = packs.into_iter().max_by_key(|pack| source.repo.read(pack).len()).expect("a pack");
    let whole = source.repo.read(&pack);
    source.repo.damage(&pack, Damage::FlipByte(100));
    let said = run(&mut source.restore("data", &[])).fails_with(5, "");
    assert!(said.contains("is incomplete and no server starts in it"), "{said}");
    let data = source.target("data");
    assert!(data.join("pgark-restore-incomplete").exists() && !data.join("global/pg_control").exists());
    let started = pg_command("postgres").arg("-D").arg(&data).output().expect("start postgres");
    assert!(!started.status.success());
    std::fs::write(source.repo.path(&pack), whole).expect("put back");
    run(&mut source.restore("data", &[])).fails_with(4, "an unfinished restore is in it");
    run(&mut source.restore("data", &["--replace"])).succeeds();
    assert_eq!(Cluster::adopt(&data).psql("select count(*) from t"), "1002");
}

#[test]
fn a_recovery_that_fails_says_why_in_the_servers_words() {
    let source = Source::new();
    let last = source.repo.matching("/wal/").into_iter().rfind(|key| key.ends_with(".zst"));
    // The header stays whole, so the plan is made.
    source.repo.damage(&last.expect("a segment"), Damage::FlipByte(-100));
    source.repo.configure("[fetch]\nretry = \"1s\"\n");
    let said =
        run(&mut source.restore("data", &[])).fails_with(7, "could not recover to the end of the archive");
    assert!(said.contains("recovery had reached LSN") && said.contains("could not restore file"), "{said}");
    assert!(!source.target("data").join("postmaster.pid").exists());
}

#[test]
fn a_successor_archives_again_and_a_copy_of_it_does_not() {
    let source = Source::new();
    source.primary.stop(Stop::Fast);
    let config = source.repo.config().display().to_string();
    let mut command = source.restore("data", &["--takeover"]);
    // The server inherits what archive_command needs, as its service would give it.
    run(command.env("PGARK_CONFIG", config)).succeeds();
    let successor = Cluster::adopt(&source.target("data"));
    assert_eq!(successor.psql("show archive_mode"), "on");
    successor.psql("insert into t values (2000)");
    successor.archive_everything();
    assert_eq!(source.repo.matching("/wal/00000002.history").len(), 1);
    assert!(!source.repo.matching("/wal/00000002/").is_empty());
    run(&mut source.restore("copy", &[])).succeeds();
    let copy = Cluster::adopt(&source.target("copy"));
    assert_eq!(copy.psql("select count(*) from t where a = 2000"), "1");
    copy.psql("insert into t values (3000); select pg_switch_wal()");
    assert_eq!(copy.psql("select archived_count from pg_stat_archiver"), "0");
    assert!(source.repo.matching("/wal/00000003").is_empty());
}
