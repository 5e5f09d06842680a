//! A machine that was cloned with its data directory, and a standby's backup that is promoted elsewhere.

use crate::harness::*;

fn rows(server: &Cluster) -> String {
    server.psql("select coalesce(string_agg(name, ' ' order by name), '') from t")
}

fn note(server: &Cluster, name: &str) -> String {
    server.psql(&format!("insert into t values ('{name}')"));
    server.switch_wal()
}

#[test]
fn a_cloned_machine_adds_nothing_to_the_archive_of_its_original() {
    let repo = TestRepo::init();
    let original = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    original.psql("create table t (name text)");
    run(repo.basebackup(&original).args(["--label", "one"])).succeeds();
    original.archive_everything();
    original.stop(Stop::Fast);
    let clone = original.clone_machine();

    // The original is first, once; then the clone alone goes on for a while.
    original.start();
    note(&original, "original");
    original.archive_everything();
    original.stop(Stop::Fast);
    clone.start();
    note(&clone, "clone");
    note(&clone, "clone again");
    clone.wait_for_log("is already archived with other content");
    let refused = clone.psql("select last_failed_wal from pg_stat_archiver");
    original.start();
    note(&original, "original again");
    original.archive_everything();
    assert_eq!(original.psql("select failed_count from pg_stat_archiver"), "0");
    let scratch = Scratch::new();
    assert_eq!(rows(&repo.restore(&scratch, "restored", &[])), "original original again");
    run(&mut repo.pgark(&["verify"])).succeeds();

    // Nothing of the clone's is lost: it waits, and has its own place when it gets one.
    assert!(clone.data_dir().join("pg_wal").join(&refused).exists(), "{refused}");
    clone.append_config(&format!(
        "archive_command = '{} --cluster clone %p'",
        program_path("wal-push").display()
    ));
    clone.reload();
    run(repo.basebackup(&clone).args(["--cluster", "clone", "--label", "two"])).succeeds();
    note(&clone, "on its own");
    clone.archive_everything();
    let restored = repo.restore(&scratch, "clone", &["--cluster", "clone"]);
    assert_eq!(rows(&restored), "clone clone again on its own");
}

#[test]
fn a_standbys_backup_that_is_promoted_elsewhere_and_the_standby_get_timelines_of_their_own() {
    let repo = TestRepo::init();
    let primary =
        Cluster::builder().wal_segment_mib(1).set("archive_timeout", "1s").archive_to(&repo).start();
    primary.psql("create table t (name text)");
    let standby = primary.standby().restore_from(&repo).start();
    note(&primary, "primary");
    primary.wait_replayed_by(&standby);
    primary.pgbench_init(1);
    let load = primary.pgbench_in_background(&["-c", "1"]);
    run(repo.basebackup(&standby).args(["--label", "standby"])).succeeds();
    drop(load);
    primary.archive_everything();

    let scratch = Scratch::new();
    let elsewhere = repo.restore(&scratch, "elsewhere", &["--target", "immediate", "--takeover"]);
    note(&elsewhere, "elsewhere");
    elsewhere.archive_everything();
    run(repo.basebackup(&elsewhere).args(["--label", "elsewhere"])).succeeds();
    elsewhere.archive_everything();
    // The primary goes on meanwhile, and dies; the standby takes over from it.
    note(&primary, "primary again");
    primary.archive_everything();
    primary.wait_replayed_by(&standby);
    primary.stop(Stop::Fast);
    standby.promote();
    note(&standby, "standby");
    standby.archive_everything();
    for server in [&elsewhere, &standby] {
        assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0", "{}", server.log_tail());
    }
    let timeline = |server: &Cluster| {
        server.psql("checkpoint");
        server.psql("select timeline_id from pg_control_checkpoint()")
    };
    assert_eq!((timeline(&elsewhere).as_str(), timeline(&standby).as_str()), ("2", "3"));
    drop((primary, standby, elsewhere));

    run(&mut repo.pgark(&["verify"])).succeeds();
    for (timeline, expected) in
        [("1", "primary primary again"), ("2", "elsewhere primary"), ("3", "primary primary again standby")]
    {
        let restored =
            repo.restore(&scratch, &format!("timeline-{timeline}"), &["--target-timeline", timeline]);
        assert_eq!(rows(&restored), expected, "timeline {timeline}");
    }
}
