//! Backups of standbys: the WAL comes from the primary's archiving.

use crate::harness::*;
use crate::stored;

const SUMS: &str =
    "select (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history),
    (select count(*) from pgbench_history)";

/// Runs until it ends, while the primary goes on ending segments: nobody can do that from a standby.
fn run_beside(primary: &Cluster, mut command: assert_cmd::Command) -> Outcome {
    std::thread::scope(|scope| {
        let backup = scope.spawn(move || run(&mut command));
        while !backup.is_finished() {
            primary.switch_wal();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        backup.join().expect("no panic")
    })
}

#[test]
fn a_backup_of_a_standby_under_load_is_a_whole_cluster() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).tablespace("fast").start();
    primary.pgbench_init(3);
    primary.psql("alter table pgbench_tellers set tablespace fast");
    let standby = primary.standby().start();
    let load = primary.pgbench_in_background(&["-c", "4"]);
    let mut command = repo.basebackup(&standby);
    command.args(["--label", "x", "--rate-limit", "30MB"]);
    run_beside(&primary, command).succeeds();
    drop(load);
    primary.archive_everything();
    let expected = primary.psql(SUMS);

    let backup = stored::read(&repo, "x");
    assert!(backup.header.from_standby && backup.header.backup_label.contains("BACKUP FROM: standby"));
    assert!(backup.header.consistent_lsn >= backup.header.stop.lsn);
    assert!(!backup.files.contains_key("standby.signal"));
    let scratch = Scratch::new();
    let revived = backup.revive(&repo, &scratch);
    revived.start();
    revived.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(revived.psql(SUMS), expected);
    revived.stop(Stop::Fast);
    revived.run_client("pg_checksums", &["--check", "-D", &revived.data_dir().display().to_string()]);
}

#[test]
fn a_backup_goes_on_when_its_standby_follows_a_new_primary() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    primary.pgbench_init(2);
    let heir = primary.standby().restore_from(&repo).start();
    let standby = primary.standby().restore_from(&repo).start();
    primary.archive_everything();
    primary.wait_replayed_by(&standby);
    let mut command = repo.basebackup(&standby);
    command.args(["--label", "x", "--rate-limit", "8MB"]);
    let outcome = std::thread::scope(|scope| {
        let backup = scope.spawn(move || run(&mut command));
        standby.wait_for("the backup to write", || !repo.matching("/staging/").is_empty());
        primary.archive_everything();
        primary.wait_replayed_by(&heir);
        primary.stop(Stop::Fast);
        heir.promote();
        standby.psql(&format!("alter system set primary_conninfo = '{}'", heir.conninfo()));
        standby.reload();
        heir.psql("create table later as select 1 as a; checkpoint");
        heir.wait_replayed_by(&standby);
        // Writes pages of the new timeline, and so moves minRecoveryPoint onto it.
        standby.psql("checkpoint");
        while !backup.is_finished() {
            heir.switch_wal();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        backup.join().expect("no panic")
    });
    outcome.succeeds();
    let backup = stored::read(&repo, "x");
    let (start, stop) = (&backup.header.start, &backup.header.stop);
    assert_eq!((start.timeline.0, stop.timeline.0), (1, 2), "{:?}", backup.header.stop);
    let scratch = Scratch::new();
    let revived = backup.revive(&repo, &scratch);
    revived.append_config("recovery_target_timeline = '2'");
    revived.start();
    revived.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(revived.psql("select a from later"), "1");
    revived.run_client("pg_amcheck", &["--all", "--install-missing", "--heapallindexed"]);
}

#[test]
fn a_standby_whose_primary_archives_elsewhere_is_refused() {
    let repo = TestRepo::init();
    let primary = Cluster::start_new();
    let standby = primary.standby().start();
    let mut command = repo.basebackup(&standby);
    let said = run(command.args(["--wal-timeout", "1s"])).fails_with(7, "the primary does not archive");
    assert!(said.contains("hint: set up archive_command on the primary"), "{said}");
    assert_eq!(repo.list(), ["pgark.json"]);
}

#[test]
fn a_promotion_in_the_middle_ends_the_backup() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    primary.pgbench_init(2);
    primary.archive_everything();
    let standby = primary.standby().start();
    primary.wait_replayed_by(&standby);
    let mut command = repo.basebackup(&standby);
    command.args(["--rate-limit", "100kB"]);
    let outcome = std::thread::scope(|scope| {
        let backup = scope.spawn(|| run(&mut command));
        standby.wait_for("the backup to write", || !repo.matching("/staging/").is_empty());
        standby.promote();
        backup.join().expect("no panic")
    });
    outcome.fails_with(7, "promoted during the backup");
    assert_eq!(repo.matching("/pack/"), Vec::<String>::new());
}
