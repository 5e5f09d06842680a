//! What a restored server is like: its configuration, its quarantine, its place, and what it does at the
//! target.

mod harness;

use std::fs;
use std::path::Path;

use harness::*;

/// The arguments of a restore into `data`, sockets in `sockets`.
fn restore(repo: &TestRepo, data: &Path, sockets: &Path, arguments: &[&str]) -> Outcome {
    let mut command = repo.bootstrap_restore();
    command.arg("-D").arg(data).arg("--socket-dir").arg(sockets).args(arguments);
    run(&mut command)
}

/// The lines of pg_hba.conf in their order.
const RULES: &str =
    "select type, database, user_name, address, auth_method from pg_hba_file_rules order by line_number";

#[test]
fn a_debian_cluster_is_restored_into_one_directory() {
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).debian().set("work_mem", "5MB").start();
    let etc = source.config_dir().to_path_buf();
    source.scratch().write("etc/15/main/extra.conf", "maintenance_work_mem = '17MB'\n");
    source.append_config("include 'extra.conf'\ninclude_if_exists 'missing.conf'");
    append(&etc.join("pg_hba.conf"), "host all somebody 192.0.2.0/24 reject");
    append(&etc.join("pg_ident.conf"), "people root postgres");
    source.psql("alter system set temp_buffers = '3MB'");
    source.restart();
    source.psql("create table t as select 1 as a");
    let rules = source.psql(RULES);
    run(&mut repo.basebackup(&source)).succeeds();
    source.archive_everything();
    let before = listing(&source.scratch().join("etc"));

    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "data", &[]);
    for round in ["started by the restore", "started by hand"] {
        let show = |name: &str| restored.psql(&format!("show {name}"));
        let data = restored.data_dir();
        for (name, file) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            assert_eq!(show(name), data.join(file).display().to_string(), "{round}");
        }
        assert_eq!(show("data_directory"), data.display().to_string(), "{round}");
        assert_eq!(show("external_pid_file"), "", "{round}");
        let sizes = ["work_mem", "maintenance_work_mem", "temp_buffers"].map(show);
        assert_eq!(sizes, ["5MB", "17MB", "3MB"], "{round}");
        assert_ne!(show("cluster_name"), "15/main", "{round}");
        // Besides these the owner of a copy gets in, by a socket that is the owner's alone.
        assert_eq!(restored.psql(RULES), format!("local|{{all}}|{{all}}||trust\n{rules}"), "{round}");
        assert_eq!(show("unix_socket_permissions"), "0700", "{round}");
        assert_eq!(restored.psql("select a from t"), "1", "{round}");
        restored.assert_checksums();
        restored.start();
    }
    let idents = fs::read_to_string(restored.data_dir().join("pg_ident.conf")).expect("read pg_ident.conf");
    assert!(idents.contains("people root postgres"), "{idents}");
    assert_same(&listing(&source.scratch().join("etc")), &before);
    assert!(source.scratch().join("15-main.pid").exists(), "the source's own pid file stays");
}

fn append(path: &Path, line: &str) {
    let old = fs::read_to_string(path).expect("read the configuration");
    fs::write(path, format!("{old}{line}\n")).expect("write the configuration");
}

#[test]
fn segments_of_every_size_are_restored_with_page_checksums_and_without() {
    let cases = [
        ("one", 1, true),
        ("without checksums", 1, false),
        ("sixteen", 16, true),
        ("sixty-four", 64, true),
        ("one gibibyte", 1024, true),
    ];
    side_by_side(
        &cases,
        |case| case.0,
        |(_, mebibytes, checksums)| {
            let repo = TestRepo::init();
            let builder =
                Cluster::builder().archive_to(&repo).wal_segment_mib(*mebibytes).checksums(*checksums);
            let builder =
                builder.set("min_wal_size", format!("{}MB", mebibytes * 2)).set("wal_init_zero", "off");
            let source = builder.set("max_wal_size", format!("{}MB", mebibytes * 4)).start();
            let size = source.psql("show wal_segment_size");
            source.psql("create table t as select a, md5(a::text) from generate_series(1, 1000) a");
            run(&mut repo.basebackup(&source)).succeeds();
            source.psql("insert into t select a, md5(a::text) from generate_series(1001, 30000) a");
            let (content, lsn) = (source.content(), source.current_lsn());
            source.psql("drop table t");
            source.archive_everything();
            let scratch = Scratch::new();
            let restored = repo.restore(&scratch, "data", &["--target-lsn", &lsn, "--exclusive"]);
            restored.assert_content(&content);
            assert_eq!(restored.psql("show wal_segment_size"), size);
            assert_eq!(restored.psql("show data_checksums"), if *checksums { "on" } else { "off" });
            restored.assert_sound();
            if *checksums {
                restored.assert_checksums();
            }
            run(&mut repo.pgark(&["verify"])).succeeds();
        },
    );
}

#[test]
fn paths_with_spaces_quotes_and_percent_signs_work() {
    let scratch = Scratch::new();
    let root = scratch.make_dir("100%p of \"it's\" $HOME\\");
    let (data, sockets) = (scratch.join("da ta's \"x\" %f"), scratch.make_dir("so ck's"));
    let repo = TestRepo::at(Scratch::new(), root);
    run(&mut repo.pgark(&["init"])).succeeds();
    let source = Cluster::builder().archive_to(&repo).start();
    let location = source.scratch().make_dir("ta \"ble\" $x");
    source.psql(&format!("create tablespace \"odd 'space'\" location '{}'", location.display()));
    source.psql("create table t tablespace \"odd 'space'\" as select generate_series(1, 1000) a");
    run(&mut repo.basebackup(&source)).succeeds();
    source.psql("insert into t values (1001); select pg_create_restore_point('it''s \"here\" %p')");
    source.psql("drop table t");
    source.archive_everything();

    let place = scratch.join("an other's = place");
    let escaped = format!("odd 'space'={}", place.display().to_string().replace('=', "\\="));
    let arguments = ["--target-name", "it's \"here\" %p", "--tablespace-map", &escaped];
    restore(&repo, &data, &sockets, &arguments).succeeds();
    let restored = Cluster::adopt(&data);
    assert_eq!(restored.psql("select count(*) from t"), "1001");
    assert_eq!(
        restored.psql("select pg_tablespace_location(oid) from pg_tablespace where oid > 16383"),
        place.display().to_string()
    );
    restored.assert_checksums();
}

/// A server with much that must not run twice: an archiver, a subscription, synchronous standbys.
fn busy_source(repo: &TestRepo) -> Cluster {
    let builder =
        Cluster::builder().archive_to(repo).set("cluster_name", "the source").set("wal_level", "logical");
    let source = builder.set("max_prepared_transactions", 7).set("recovery_min_apply_delay", "1h").start();
    source.psql(
        "create table t (name text);
         create subscription s connection 'host=/nonexistent' publication p with (connect = false, slot_name = 's');
         alter subscription s enable;
         alter system set synchronous_standby_names = 'nobody';
         alter system set recovery_target_name = 'of another recovery';
         alter system set primary_conninfo = 'host=/nonexistent';
         alter system set synchronous_commit = 'local';",
    );
    source.reload();
    source.wait_sql("show synchronous_standby_names", "nobody");
    source
}

#[test]
fn a_copy_is_quarantined_unless_it_takes_over() {
    let repo = TestRepo::init();
    let source = busy_source(&repo);
    run(&mut repo.basebackup(&source)).succeeds();
    source.psql("insert into t values ('a')");
    source.archive_everything();
    source.psql("alter subscription s disable");
    let scratch = Scratch::new();

    let stored = repo.list();
    let copy = repo.restore(&scratch, "copy", &["--set", "work_mem=7MB", "--set", "synchronous_commit=on"]);
    let show = |name: &str| copy.psql(&format!("show {name}"));
    assert_eq!(show("archive_mode"), "off");
    assert_eq!(show("max_logical_replication_workers"), "0");
    assert_eq!([show("work_mem"), show("synchronous_commit")], ["7MB", "on"]);
    assert_eq!([show("primary_conninfo"), show("recovery_min_apply_delay")], ["", "0"]);
    assert_eq!(show("max_prepared_transactions"), "7");
    assert_ne!(show("cluster_name"), "the source");
    assert_ne!(show("cluster_name"), "");
    assert_eq!(copy.psql("select subname, subenabled from pg_subscription"), "s|t");
    // Commits wait for nobody, and nothing of it reaches the repository.
    copy.psql("insert into t values ('b')");
    copy.switch_wal();
    copy.psql("checkpoint");
    assert_eq!(copy.psql("select backend_type from pg_stat_activity where backend_type ~ 'logical'"), "");
    copy.assert_checksums();
    assert_eq!(repo.list(), stored);

    for (setting, flag) in
        [("port=5555", "--port"), ("archive_mode=on", "--takeover"), ("data_directory=/x", "-D")]
    {
        let said = restore(&repo, &scratch.join("refused"), scratch.path(), &["--set", setting])
            .fails_with(2, "--set");
        assert!(said.contains(flag) && !scratch.join("refused").exists(), "{said}");
    }

    source.stop(Stop::Fast);
    let successor = repo.restore(&scratch, "successor", &["--takeover"]);
    let show = |name: &str| successor.psql(&format!("show {name}"));
    assert_eq!([show("archive_mode"), show("cluster_name")], ["on", "the source"]);
    assert_ne!(show("max_logical_replication_workers"), "0");
    assert_eq!(show("synchronous_standby_names"), "");
    successor.psql("insert into t values ('c')");
    let segment = successor.archive_everything();
    repo.only(&format!("/{segment}.zst"));
    repo.only("00000002.history");
}

#[test]
fn the_server_does_at_the_target_what_it_was_told() {
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).set("max_prepared_transactions", 5).start();
    source.psql("create table t (name text)");
    run(repo.basebackup(&source).args(["--label", "only"])).succeeds();
    source.psql("insert into t values ('before')");
    source.psql("begin; insert into t values ('prepared'); prepare transaction 'left over'");
    source.psql("select pg_create_restore_point('here'); insert into t values ('behind')");
    source.archive_everything();
    let scratch = Scratch::new();
    let sockets = scratch.make_dir("s");
    let at = |name: &str, arguments: &[&str]| {
        let data = scratch.join(name);
        let arguments = [&["--target-name", "here"], arguments].concat();
        (restore(&repo, &data, &sockets, &arguments), data)
    };
    let port = free_port().to_string();

    let (outcome, data) = at("promoted", &["--port", &port]);
    let said = outcome.succeeds();
    for part in ["only", "here", "left over", "psql", &port, "timeline 2", &sockets.display().to_string()] {
        assert!(said.contains(part), "should say {part:?}: {said}");
    }
    assert!(said.contains("passwords"), "{said}");
    let promoted = Cluster::adopt(&data);
    assert_eq!(promoted.port().to_string(), port);
    assert_eq!(promoted.psql("select pg_is_in_recovery(), name from t"), "f|before");
    promoted.psql("commit prepared 'left over'");
    assert_eq!(promoted.psql("select count(*) from t"), "2");

    let (outcome, data) = at("paused", &["--action", "pause"]);
    let said = outcome.succeeds();
    assert!(said.contains("pg_wal_replay_resume"), "{said}");
    let paused = Cluster::adopt(&data);
    assert_eq!(
        paused.psql("select pg_is_in_recovery(), pg_get_wal_replay_pause_state(), name from t"),
        "t|paused|before"
    );
    paused.psql("select pg_wal_replay_resume()");
    paused.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(paused.psql("select name from t"), "before");

    let (outcome, data) = at("stopped", &["--action", "shutdown"]);
    outcome.succeeds();
    assert!(!data.join("postmaster.pid").exists());
    let output = pg_command("pg_controldata").arg(&data).output().expect("start pg_controldata");
    let control = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(control.contains("shut down in recovery"), "{control}");

    let (outcome, data) = at("not-started", &["--no-start"]);
    outcome.succeeds();
    assert!(!data.join("postmaster.pid").exists());
    let by_hand = Cluster::adopt_stopped(&data);
    by_hand.start();
    by_hand.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(by_hand.psql("select name from t"), "before");
    by_hand.assert_checksums();
}
