//! What is in a backup, and that it is a whole cluster.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::*;
use crate::stored;

/// What pg_basebackup writes into a backup by itself, or copies though a restored server needs it not.
const ONLY_PG_BASEBACKUP: [&str; 2] = ["backup_label", "backup_manifest"];

#[test]
fn the_files_are_those_of_pg_basebackup() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).tablespace("fast").tablespace("slow").start();
    primary.psql(
        "create table logged tablespace fast as select generate_series(1, 20000) as a;
         create index on logged (a) tablespace slow;
         create unlogged table unlogged as select * from logged;
         create database second;
         vacuum",
    );
    if pg_major() >= 15 {
        primary.psql("set allow_in_place_tablespaces = on; create tablespace inside location ''");
        primary.psql("create table t tablespace inside as select 1");
    }
    primary.psql_in("second", "create table there tablespace fast as select 1");
    std::fs::write(primary.data_dir().join("base/pgsql_tmp.not"), "x").expect("written");
    std::fs::create_dir(primary.data_dir().join("mine")).expect("made");
    std::fs::write(primary.data_dir().join("mine/16384"), "a file of mine").expect("written");
    let theirs = pg_basebackup(&primary);
    run(repo.basebackup(&primary).args(["--label", "x", "--jobs", "3"])).succeeds();
    let ours = stored::read(&repo, "x");

    let expected = stored::files_in(&theirs.join("data"));
    let expected: BTreeSet<&str> =
        expected.keys().map(String::as_str).filter(|path| is_compared(path)).collect();
    let found: BTreeSet<&str> = ours.files.keys().map(String::as_str).collect();
    assert_eq!(found.difference(&expected).collect::<Vec<_>>(), Vec::<&&str>::new(), "only ours");
    assert_eq!(expected.difference(&found).collect::<Vec<_>>(), Vec::<&&str>::new(), "only theirs");
    for path in expected.iter().filter(|path| !is_rewritten(path)) {
        let theirs = std::fs::read(theirs.join("data").join(path)).expect("read");
        assert!(ours.files[*path].1 == theirs, "{path} differs");
    }
    for directory in ["pg_wal", "pg_notify", "pg_replslot", "pg_stat_tmp", "pg_subtrans", "pg_tblspc"] {
        assert!(ours.directories.contains_key(directory), "{directory}");
    }
}

fn is_compared(path: &str) -> bool {
    !path.starts_with("pg_wal/") && !ONLY_PG_BASEBACKUP.contains(&path)
}

/// What the server writes while it is idle, or as it takes a backup.
fn is_rewritten(path: &str) -> bool {
    path == "global/pg_control" || path.starts_with("pg_logical/") || path.starts_with("pg_xact/")
}

fn pg_basebackup(cluster: &Cluster) -> Scratch {
    let scratch = Scratch::new();
    let mut arguments = vec!["-X".to_string(), "none".into(), "-c".into(), "fast".into(), "--no-sync".into()];
    arguments.extend(["-D".into(), scratch.make_dir("data").display().to_string()]);
    for name in ["fast", "slow"] {
        let (from, to) = (cluster.tablespace_dir(name), scratch.make_dir(name));
        arguments.push(format!("--tablespace-mapping={}={}", from.display(), to.display()));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cluster.run_client("pg_basebackup", &arguments);
    scratch
}

/// Creates, truncates, extends and drops relations all the time.
const CHURN: &str = "\\set size random(1, 3000)
    create table if not exists churn_:client_id (a int, filler text);
    insert into churn_:client_id select g, repeat('x', 500) from generate_series(1, :size) g;
    delete from churn_:client_id where a > 100;
    vacuum churn_:client_id;
    truncate churn_:client_id;
    insert into churn_:client_id select g, repeat('y', 500) from generate_series(1, :size) g;
    drop table churn_:client_id;
";

#[test]
fn a_backup_under_write_load_is_a_whole_cluster() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).tablespace("fast").start();
    primary.psql("create extension if not exists amcheck");
    primary.pgbench_init(5);
    primary.psql("alter table pgbench_tellers set tablespace fast");
    primary.psql("create unlogged table volatile tablespace fast as select 1 as a");
    let churn = primary.scratch().write("churn.sql", CHURN);
    let load = primary.pgbench_in_background(&["-c", "4"]);
    let other = primary.pgbench_in_background(&["-c", "2", "-f", churn.to_str().expect("UTF-8")]);
    let mut command = repo.basebackup(&primary);
    run(command.args(["--label", "x", "--jobs", "2", "--rate-limit", "40MB"])).succeeds();
    drop((load, other));
    primary.archive_everything();
    let expected = primary.psql(SUMS);

    let scratch = Scratch::new();
    let revived = stored::read(&repo, "x").revive(&repo, &scratch);
    revived.start();
    revived.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(revived.psql(SUMS), expected);
    assert_eq!(revived.psql("select count(*) from volatile"), "0", "unlogged tables are empty");
    revived.run_client("pg_amcheck", &["--all", "--heapallindexed"]);
    revived.stop(Stop::Fast);
    revived.run_client("pg_checksums", &["--check", "-D", &revived.data_dir().display().to_string()]);
}

/// What every pgbench transaction keeps equal, and how much there is of it.
const SUMS: &str =
    "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history),
    (select count(*) from pgbench_history)";

#[test]
fn configuration_outside_the_data_directory_is_captured_with_its_includes() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().debian().archive_to(&repo).start();
    let etc = primary.config_dir().to_path_buf();
    let write = |name: &str, text: &str| std::fs::write(etc.join(name), text).expect("written");
    write("conf.d/extra.conf", "work_mem = '7MB'\n");
    write("conf.d/not-read.txt", "x");
    write("dbs", "postgres\n");
    let hba = std::fs::read_to_string(etc.join("pg_hba.conf")).expect("read");
    write("pg_hba.conf", &format!("{hba}\nlocal @dbs nobody reject\n"));
    primary.reload();
    run(repo.basebackup(&primary).args(["--label", "x"])).succeeds();
    let backup = stored::read(&repo, "x");
    let names =
        ["conf.d/extra.conf", "conf.d/test.conf", "dbs", "pg_hba.conf", "pg_ident.conf", "postgresql.conf"];
    let expected = names.map(|name| etc.join(name).display().to_string());
    assert_eq!(backup.config.keys().cloned().collect::<Vec<_>>(), expected);
    for (path, content) in &backup.config {
        assert_eq!(*content, std::fs::read(path).expect("read"), "{path}");
    }
    assert_eq!(backup.header.settings["config_file"], expected[5]);
    assert!(
        backup.files.contains_key("postgresql.auto.conf") && !backup.files.contains_key("postgresql.conf")
    );
}

#[test]
fn the_header_says_what_a_restore_has_to_know() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).tablespace("fast").wal_segment_mib(1).start();
    let log = Scratch::new();
    std::os::unix::fs::symlink(log.path(), primary.data_dir().join("log")).expect("linked");
    let said = run(repo.basebackup(&primary).args(["--output", "json", "--checkpoint", "spread"]));
    assert!(said.stderr.contains("log is not in the backup: it is a symbolic link"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&said.succeeds()).expect("one JSON object");
    let label = json["label"].as_str().expect("a label");
    let header = stored::read(&repo, label).header;
    assert_eq!(json["system_id"], primary.system_identifier());
    assert_eq!(json["stop_lsn"], header.consistent_lsn.to_string());
    assert_eq!((json["damaged_pages"]["count"].as_u64(), json["cluster"].as_str()), (Some(0), Some("main")));
    assert_eq!(header.segment_size.bytes(), 1 << 20);
    assert_eq!(header.server.version_num.to_string(), primary.psql("show server_version_num"));
    assert_eq!(header.tablespaces[0].name, "fast");
    assert_eq!(header.tablespaces[0].location.as_path(), primary.tablespace_dir("fast"));
    assert!(header.data_checksums && !header.from_standby);
    assert!(header.stop.time >= header.start.time && header.stop.lsn > header.start.lsn);
    assert_eq!(header.warnings, ["log is not in the backup: it is a symbolic link"]);
    let databases: Vec<&str> =
        header.locale.databases.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(databases, ["postgres", "template0", "template1"]);
    let fork = Path::new("pack");
    assert!(
        header
            .packs
            .iter()
            .all(|pack| repo.only(&format!("{}/{}", fork.display(), pack.id)).ends_with(".pack"))
    );
}
