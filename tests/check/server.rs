//! What is wrong with the server, its settings, and its archiving.

use super::scene::*;
use crate::harness::*;

#[test]
fn a_healthy_cluster_is_ok_in_one_line_for_machines_and_a_table_for_people() {
    let scene = Scene::new();
    let checked = scene.check(&[]);
    checked.finds(&[]);
    assert_eq!(checked.code, Some(0));
    let mut command = scene.repo.pgark(&["check", "--warn-free", "0", "--crit-free", "0"]);
    let text = run(command.envs(scene.server.env())).succeeds();
    let first = text.lines().next().expect("a line");
    assert!(first.starts_with("PGARK OK - main: "), "{text}");
    let (_, data) = first.split_once(" | ").expect("performance data");
    assert!(data.starts_with("waiting_segments=0;16;256;0 "), "{data}");
    assert!(data.contains(" last_backup_age=") && data.contains("s;93600;180000;0"), "{data}");
    assert!(text.contains("segment_arrives") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(text.matches('|').count(), 1, "a second bar would be performance data: {text}");
    assert_eq!(scene.repo.matching("/check/").len(), 2, "both results are kept");
    scene.check(&["--no-record"]);
    assert_eq!(scene.repo.matching("/check/").len(), 2);
}

#[test]
fn each_bad_setting_is_found() {
    let scene = Scene::new();
    for (name, value, code, expected) in [
        ("fsync", "off", 2, &["critical fsync"][..]),
        ("full_page_writes", "off", 1, &["warning full_page_writes"]),
        ("archive_timeout", "0", 1, &["warning archive_timeout"]),
        ("archive_command", "", 2, &["critical archiving"]),
        ("archive_command", "/bin/true", 1, &["warning archiving"]),
        ("archive_command", "wal-push --repo /nowhere %p", 2, &["critical destination"]),
    ] {
        let before = scene.server.psql(&format!("show {name}"));
        let set = |value: &str| {
            scene.server.psql(&format!("alter system set {name} = '{value}'"));
            scene.server.reload();
            scene
                .server
                .wait_sql(&format!("select setting = '{value}' from pg_settings where name = '{name}'"), "t");
        };
        set(value);
        let checked = scene.check(&["--no-switch"]);
        set(if name == "archive_timeout" { "60" } else { &before });
        assert_eq!(checked.code, Some(code), "{name}: {:#}", checked.json);
        checked.finds(expected);
    }
    scene.check(&["--rpo", "30s"]).finds(&["warning archive_timeout"]);
}

#[test]
fn an_archiver_that_fails_or_archives_elsewhere_is_critical() {
    let scene = Scene::new();
    let set = |command: &str| {
        scene.server.psql(&format!("alter system set archive_command = '{command}'"));
        scene.server.reload();
        scene.server.wait_sql("show archive_command", command);
    };
    set("/bin/false wal-push");
    let failing = scene.check(&[]);
    failing.finds(&["critical archiver", "critical segment_arrives"]);
    assert_eq!(failing.code, Some(2));
    set("/bin/true wal-push");
    let elsewhere = scene.check(&[]);
    elsewhere.finds(&["critical segment_arrives"]);
    let what = elsewhere.of("segment_arrives")[0]["what"].as_str().expect("a sentence").to_owned();
    assert!(what.contains("the server says that it archived"), "{what}");
}

#[test]
fn wal_receive_alone_is_enough_while_it_runs() {
    let repo = TestRepo::init();
    let server = healthy().set("archive_mode", "off").start();
    let spool = repo.scratch().make_dir("spool");
    let mut command = repo.std_program("wal-receive");
    command.arg("--spool").arg(spool).envs(server.env());
    let mut receiver = command.stderr(std::process::Stdio::null()).spawn().expect("start wal-receive");
    server.wait_streaming();
    run(&mut repo.basebackup(&server)).succeeds();
    let streamed = check(&repo, &server, &[]);
    receiver.kill().expect("killed");
    receiver.wait().expect("ended");
    streamed.finds(&[]);
    server.wait_sql("select active from pg_replication_slots where slot_name = 'pgark'", "f");
    check(&repo, &server, &["--timeout", "1s"]).finds(&[
        "critical archiving",
        "critical segment_arrives",
        "critical slot",
    ]);
}

#[test]
fn slots_that_nobody_reads_and_transactions_left_prepared_are_told() {
    let repo = TestRepo::init();
    let server = healthy().set("max_prepared_transactions", 5).archive_to(&repo).start();
    run(&mut repo.basebackup(&server)).succeeds();
    server.psql("select pg_create_physical_replication_slot('old', true)");
    server.psql("create table t (a int); begin; insert into t values (1); prepare transaction 'forgotten'");
    check(&repo, &server, &[]).finds(&[]);
    let limits = ["--warn-slot-wal", "1B", "--crit-prepared-age", "0s"];
    let strict = check(&repo, &server, &limits);
    strict.finds(&["critical prepared_transactions", "warning slot"]);
    assert!(
        strict.of("slot")[0]["remedy"]
            .as_str()
            .is_some_and(|it| it.contains("pg_drop_replication_slot('old')"))
    );
}

#[test]
fn a_server_that_does_not_answer_is_critical_and_the_repository_is_looked_at_all_the_same() {
    let scene = Scene::new();
    scene.server.stop(Stop::Fast);
    let checked = scene.check(&[]);
    assert_eq!(checked.code, Some(2));
    checked.finds(&["critical server"]);
    assert_eq!(checked.of("backup_age").len(), 1);
    assert!(checked.json["server"].is_null());
}

#[test]
fn wrong_flags_and_configuration_are_unknown_to_the_monitoring_system() {
    let repo = TestRepo::init();
    let server = Cluster::builder().build();
    let mut nothing = program("pgark");
    nothing.args(["check"]).env("PGARK_CONFIG", repo.scratch().write("empty.toml", ""));
    for (command, expected) in [
        (&mut repo.pgark(&["check", "--bogus"]), "unexpected argument '--bogus'"),
        (&mut repo.pgark(&["--cluster", "no/name", "check"]), "cluster"),
        (&mut nothing, "no repository is configured"),
    ] {
        let outcome = run(command.envs(server.env()));
        assert_eq!(outcome.code, Some(3), "{outcome}");
        assert!(outcome.stdout.starts_with("PGARK UNKNOWN - "), "{outcome}");
        assert!(outcome.stdout.contains(expected) && outcome.stderr.contains(expected), "{outcome}");
    }
    assert_eq!(run(&mut repo.pgark(&["--bogus"])).code, Some(2), "other verbs keep their codes");
}

#[test]
fn a_role_with_pg_monitor_sees_all_but_the_switch_and_what_it_lacks_is_named() {
    let scene = Scene::new();
    scene.server.psql("create role plain login; create role monitor login in role pg_monitor");
    let monitor = scene.check(&["-U", "monitor"]);
    assert_eq!(monitor.code, Some(3));
    monitor.finds(&["unknown segment_arrives"]);
    let remedy = monitor.of("segment_arrives")[0]["remedy"].as_str().expect("a remedy").to_owned();
    assert!(remedy.starts_with("grant execute on function pg_switch_wal() to \"monitor\""), "{remedy}");
    scene.server.psql("grant execute on function pg_switch_wal() to monitor");
    scene.check(&["-U", "monitor"]).finds(&[]);
    let plain = scene.check(&["-U", "plain", "--no-switch"]);
    plain.finds(&["unknown backlog"]);
    assert!(plain.of("backlog")[0]["remedy"] == "grant pg_monitor to \"plain\"");
}

#[test]
fn a_standby_is_checked_without_a_switch() {
    let scene = Scene::new();
    let standby = scene.server.standby().start();
    scene.write_segments(1);
    scene.server.wait_replayed_by(&standby);
    let checked = check(&scene.repo, &standby, &[]);
    checked.finds(&[]);
    assert_eq!(checked.json["server"]["in_recovery"], true);
    assert!(checked.of("segment_arrives").is_empty());
}
