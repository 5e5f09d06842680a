//! The harness itself: if these fail, no other test in `tests/` means anything.

mod harness;

use harness::*;

#[test]
fn a_cluster_starts_answers_and_leaves_nothing_behind() {
    let cluster = Cluster::start_new();
    assert_eq!(cluster.psql("select 1; select 'a', 2"), "1\na|2");
    assert!(cluster.try_psql("select nonsense").unwrap_err().contains("nonsense"));
    assert_eq!(cluster.psql("show data_checksums"), "on");
    let (pid, dir) = (cluster.pid(), cluster.scratch().path().to_path_buf());
    drop(cluster);
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_crashed_cluster_recovers_what_was_committed() {
    let cluster = Cluster::builder().wal_segment_mib(1).tablespace("fast").tablespace("slow").start();
    assert_eq!(cluster.psql("show wal_segment_size"), "1MB");
    cluster.pgbench_init(1);
    cluster.psql("alter table pgbench_history set tablespace fast");
    let load = cluster.pgbench_in_background(&["-c", "2"]);
    cluster.psql("create table kept tablespace slow as select 42 as answer");
    cluster.crash();
    drop(load);
    cluster.start();
    assert_eq!(cluster.psql("select answer from kept"), "42");
    cluster.kill_postmaster();
    cluster.start();
    cluster.stop(Stop::Smart);
    assert!(!cluster.is_running());
    cluster.start();
    assert_eq!(cluster.psql("select count(*) > 0 from pgbench_history"), "t");
}

#[test]
fn a_standby_follows_and_promotes() {
    let primary = Cluster::builder().tablespace("fast").start();
    primary.psql("create table t tablespace fast as select generate_series(1, 100) as a");
    let standby = primary.standby().set("cluster_name", "second").start();
    primary.psql("insert into t values (101)");
    primary.wait_replayed_by(&standby);
    assert_eq!(standby.psql("select count(*) from t"), "101");
    assert_eq!(standby.psql("show cluster_name"), "second");
    standby.promote();
    standby.psql("insert into t values (102)");
    assert_eq!(standby.system_identifier(), primary.system_identifier());
}

#[test]
fn a_debian_style_cluster_keeps_its_configuration_outside() {
    let cluster = Cluster::builder().debian().set("work_mem", "5MB").start();
    assert!(!cluster.data_dir().join("postgresql.conf").exists());
    assert!(!cluster.data_dir().join("pg_hba.conf").exists());
    assert_eq!(cluster.psql("show work_mem"), "5MB");
    assert_eq!(cluster.psql("show hba_file"), cluster.config_dir().join("pg_hba.conf").display().to_string());
    let standby = cluster.standby().start();
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    assert_eq!(standby.psql("show data_directory"), standby.data_dir().display().to_string());
}

#[test]
fn archiving_is_waited_for() {
    let archive = Scratch::new();
    let command = format!("cp %p {}/%f", archive.path().display());
    let cluster = Cluster::builder().set("archive_mode", "on").set("archive_command", command).start();
    let segment = cluster.archive_everything();
    assert!(archive.join(&segment).exists());
    let next = cluster.archive_everything();
    assert!(next > segment);
}

#[test]
fn a_server_started_by_another_is_adopted_and_stopped() {
    let cluster = Cluster::builder().build();
    let log = cluster.scratch().join("own.log");
    let mut pg_ctl = pg_command("pg_ctl");
    pg_ctl.args(["start", "-w", "-D"]).arg(cluster.data_dir()).arg("-l").arg(log);
    assert!(pg_ctl.status().expect("start pg_ctl").success());
    let adopted = Cluster::adopt(&cluster.data_dir());
    assert_eq!(adopted.psql("select 1"), "1");
    let pid = adopted.pid();
    drop(adopted);
    let adopted = Cluster::adopt_stopped(&cluster.data_dir());
    assert_eq!((adopted.port(), adopted.socket_dir()), (cluster.port(), cluster.socket_dir()));
    adopted.start();
    assert_ne!(adopted.pid(), pid);
    assert_eq!(adopted.psql("select 1"), "1");
}

#[test]
fn programs_run_as_the_servers_user_with_a_clean_environment() {
    let scratch = Scratch::new();
    let mine = scratch.write("mine", "x");
    let output = command("/usr/bin/env").output().expect("run env");
    let names = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(names.lines().all(|line| !line.starts_with("PG") && !line.starts_with("CARGO")), "{names}");
    let readable = command("/usr/bin/test").arg("-O").arg(mine).status().expect("run test");
    assert!(readable.success());
    assert!(program_path("pgark").is_absolute());
    assert!(run(pgark().arg("--version")).succeeds().starts_with("pgark "));
    run(pgark().arg("--nonsense")).fails_with(2, "--nonsense");
}

#[test]
fn a_repository_is_made_listed_and_configured() {
    let repo = TestRepo::init();
    assert_eq!(repo.list(), ["pgark.json"]);
    assert_eq!(repo.only("pgark"), "pgark.json");
    repo.configure("cluster = \"other\"");
    run(&mut repo.pgark(&["init"])).succeeds();
    repo.damage("pgark.json", Damage::Delete);
    assert_eq!(repo.list(), Vec::<String>::new());
}

#[test]
fn damage_is_done_as_told() {
    let scratch = Scratch::new();
    let path = scratch.write("object", [1, 2, 3, 4]);
    harness::damage_file(&path, Damage::FlipByte(-1));
    assert_eq!(std::fs::read(&path).expect("read"), [1, 2, 3, 0xFB]);
    harness::damage_file(&path, Damage::Truncate(2));
    harness::damage_file(&path, Damage::Extend(1));
    assert_eq!(std::fs::read(&path).expect("read"), [1, 2, 0]);
    harness::damage_file(&path, Damage::Unreadable);
    assert!(!command("/bin/cat").arg(&path).output().expect("run cat").status.success());
    harness::damage_file(&path, Damage::Delete);
    assert!(!path.exists());
}
