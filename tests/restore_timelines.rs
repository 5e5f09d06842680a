//! Restores across timelines, from standbys, into standbys, and over archives with holes.

mod harness;

use std::path::Path;

use harness::*;

/// A place to restore to, the server's socket beside it.
struct Host {
    repo: TestRepo,
    scratch: Scratch,
}

impl Host {
    fn new() -> Self {
        Self { repo: TestRepo::init(), scratch: Scratch::new() }
    }

    /// The names in the table of a new restore.
    #[track_caller]
    fn restored_names(&self, directory: &str, arguments: &[&str]) -> (Cluster, String) {
        let restored = self.repo.restore(&self.scratch, directory, arguments);
        let found = names(&restored);
        (restored, found)
    }

    /// What a restore says that is refused before it writes anything.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, message: &str) -> String {
        let target = self.scratch.join("refused");
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(&target).arg("--socket-dir").arg(self.scratch.make_dir("s"));
        let said = run(command.args(arguments)).fails_with(code, message);
        assert!(!target.exists(), "something was written: {said}");
        said
    }

    fn backup(&self, of: &Cluster, label: &str) {
        run(self.repo.basebackup(of).args(["--label", label])).succeeds();
    }

    /// Where the segment is stored.
    fn key(&self, segment: &str) -> String {
        self.repo.only(&format!("/{segment}.zst"))
    }
}

/// Writes down a name and returns a moment at which it was the newest.
fn note(server: &Cluster, name: &str) -> String {
    server.psql(&format!("insert into t values ('{name}')"));
    server.now()
}

fn names(server: &Cluster) -> String {
    server.psql("select coalesce(string_agg(name, ' ' order by name), '') from t")
}

fn timeline(server: &Cluster) -> String {
    server.psql("select timeline_id from pg_control_checkpoint()")
}

#[test]
fn each_branch_of_two_restores_in_a_row_can_be_reached() {
    let host = Host::new();
    let first = Cluster::builder().archive_to(&host.repo).start();
    first.psql("create table t (name text)");
    host.backup(&first, "one");
    let begin = note(&first, "a1");
    let late = note(&first, "a2");
    note(&first, "a3");
    first.archive_everything();
    first.stop(Stop::Fast);

    let (second, found) = host.restored_names("second", &["--target-time", &begin, "--takeover"]);
    assert_eq!((found.as_str(), timeline(&second).as_str()), ("a1", "2"));
    let middle = note(&second, "b1");
    note(&second, "b2");
    let later = second.now();
    note(&second, "b3");
    second.archive_everything();
    host.backup(&second, "two");
    second.stop(Stop::Fast);

    let (third, found) =
        host.restored_names("third", &["--target-time", &middle, "--target-timeline", "2", "--takeover"]);
    assert_eq!((found.as_str(), timeline(&third).as_str()), ("a1 b1", "3"));
    let end = note(&third, "c1");
    note(&third, "c2");
    third.archive_everything();
    third.stop(Stop::Fast);
    let mut histories = host.repo.matching(".history");
    histories.retain(|key| !key.contains("/lease/"));
    assert_eq!(histories.len(), 2, "{histories:?}");

    let cases: [(&str, Vec<&str>, &str); 6] = [
        ("first-branch", vec!["--target-time", &late, "--target-timeline", "1"], "a1 a2"),
        ("second-branch", vec!["--target-time", &later, "--target-timeline", "2"], "a1 b1 b2"),
        ("third-branch", vec!["--target-time", &end, "--target-timeline", "3"], "a1 b1 c1"),
        ("newest-branch", vec!["--target-time", &end], "a1 b1 c1"),
        ("end-of-the-second", vec!["--target-timeline", "2"], "a1 b1 b2 b3"),
        ("latest", vec![], "a1 b1 c1 c2"),
    ];
    side_by_side(
        &cases,
        |case| case.0,
        |(name, arguments, expected)| {
            let (restored, found) = host.restored_names(name, arguments);
            assert_eq!(&found, expected);
            assert_eq!(timeline(&restored), "4", "each number of the archive's timelines is taken");
            restored.assert_checksums();
        },
    );

    let said = host.refused(&["--target-timeline", "7"], 3, "no history of timeline 7");
    assert!(said.contains("1, 2, 3"), "{said}");
    // Backup "two" began on timeline 2 after timeline 3 left it; timeline 1 never saw it.
    let said = host.refused(&["--backup", "two", "--target-timeline", "3"], 3, "timeline 3");
    assert!(said.contains("what can be reached: timeline 2 from"), "{said}");
    host.refused(&["--backup", "two", "--target-timeline", "1"], 3, "timeline 1");
}

#[test]
fn what_was_prepared_where_a_timeline_began_is_passed_without_hot_standby_and_the_error_says_so() {
    let host = Host::new();
    let first = Cluster::builder().archive_to(&host.repo).set("max_prepared_transactions", "5").start();
    first.psql("create table t (name text)");
    host.backup(&first, "one");
    first.psql("begin; insert into t values ('pending'); prepare transaction 'pending'");
    note(&first, "a");
    let lsn = first.current_lsn();
    note(&first, "lost");
    first.archive_everything();
    first.stop(Stop::Fast);
    let (second, _) = host.restored_names("second", &["--target-lsn", &lsn, "--takeover"]);
    note(&second, "b");
    second.archive_everything();
    second.stop(Stop::Fast);

    let mut command = host.repo.bootstrap_restore();
    command.arg("-D").arg(host.scratch.join("third")).arg("--socket-dir").arg(host.scratch.make_dir("s"));
    let hot = run(&mut command);
    if hot.code == Some(0) {
        drop(Cluster::adopt(&host.scratch.join("third")));
        eprintln!("this PostgreSQL finds it");
    } else {
        let said = hot.fails_with(7, "has already been removed");
        assert!(said.contains("--replace --set hot_standby=off"), "{said}");
    }
    let arguments = ["--replace", "--set", "hot_standby=off"];
    let (third, found) = host.restored_names("third", &arguments);
    assert_eq!(found, "a b");
    third.psql("commit prepared 'pending'");
    assert_eq!(names(&third), "a b pending");
}

#[test]
fn a_backup_of_a_standby_restores() {
    let host = Host::new();
    // A standby can't end a segment of the primary's: the primary does so by itself.
    let primary =
        Cluster::builder().archive_to(&host.repo).tablespace("fast").set("archive_timeout", "1s").start();
    primary.pgbench_init(1);
    primary
        .psql("create table t (name text) tablespace fast; alter table pgbench_history set tablespace fast");
    let standby = primary.standby().restore_from(&host.repo).start();
    primary.wait_replayed_by(&standby);
    let load = primary.pgbench_in_background(&["-c", "3"]);
    host.backup(&standby, "standby");
    drop(load);
    let moment = note(&primary, "after the backup");
    note(&primary, "too late");
    primary.archive_everything();

    let cases: [(&str, Vec<&str>, &str); 3] = [
        ("time", vec!["--target-time", &moment], "after the backup"),
        ("immediate", vec!["--target", "immediate"], ""),
        ("latest", vec![], "after the backup too late"),
    ];
    side_by_side(
        &cases,
        |case| case.0,
        |(name, arguments, expected)| {
            let fast = format!("fast={}", host.scratch.join(format!("{name}-fast")).display());
            let arguments = [&arguments[..], &["--tablespace-map", &fast]].concat();
            let (restored, found) = host.restored_names(name, &arguments);
            assert_eq!(&found, expected);
            restored.assert_balanced();
            restored.assert_sound();
            restored.assert_checksums();
        },
    );
    drop(standby);
}

#[test]
fn a_restored_standby_follows_its_primary() {
    let host = Host::new();
    let primary = Cluster::builder().archive_to(&host.repo).start();
    primary.pgbench_init(1);
    primary.psql("create table t (name text)");
    host.backup(&primary, "one");
    note(&primary, "archived");
    primary.archive_everything();
    primary.psql("select pg_create_physical_replication_slot('second', true)");
    note(&primary, "not archived");

    let conninfo = primary.conninfo();
    let standby = host.repo.restore(
        &host.scratch,
        "streaming",
        &["--standby", "--primary-conninfo", &conninfo, "--primary-slot", "second"],
    );
    primary.wait_replayed_by(&standby);
    assert_eq!(names(&standby), "archived not archived");
    assert_eq!(standby.psql("select status from pg_stat_wal_receiver"), "streaming");
    assert_eq!(primary.psql("select active from pg_replication_slots"), "t");
    primary.pgbench(&["-c", "2", "-t", "50"]);
    primary.wait_replayed_by(&standby);
    assert_eq!(standby.content(), primary.content());

    // Without a primary it lives on the archive.
    let fetching = host.repo.restore(&host.scratch, "fetching", &["--standby"]);
    assert_eq!(fetching.psql("select pg_is_in_recovery()"), "t");
    note(&primary, "later");
    primary.archive_everything();
    fetching.wait_sql("select string_agg(name, ' ' order by name) from t", "archived later not archived");

    primary.stop(Stop::Fast);
    standby.promote();
    note(&standby, "promoted");
    standby.assert_balanced();
    standby.assert_sound();
}

#[test]
fn a_hole_is_refused_and_one_beyond_the_target_does_not_hurt() {
    let host = Host::new();
    let primary = Cluster::builder().archive_to(&host.repo).wal_segment_mib(1).start();
    primary.psql("create table t (name text)");
    host.backup(&primary, "one");
    let early = note(&primary, "a");
    note(&primary, "b");
    primary.archive_everything();
    note(&primary, "in the hole");
    let lost = primary.archive_everything();
    let late = note(&primary, "c");
    let (late_lsn, _) = (primary.current_lsn(), note(&primary, "d"));
    primary.archive_everything();
    let object = host.repo.path(&host.key(&lost));
    let aside = host.scratch.join("aside");
    std::fs::rename(&object, &aside).expect("lose a segment");

    for arguments in [vec!["--target-time", &late], vec!["--target-lsn", &late_lsn], vec![]] {
        let said = host.refused(&arguments, 3, &format!("{lost} is missing from the archive"));
        assert!(said.contains("what can be reached: timeline 1 from"), "{said}");
        assert!(said.contains("the end of backup one"), "{said}");
    }
    let (restored, found) = host.restored_names("before", &["--target-time", &early]);
    assert_eq!(found, "a");
    restored.assert_checksums();

    // A newer backup makes what lies behind the hole reachable.
    host.backup(&primary, "two");
    note(&primary, "e");
    primary.archive_everything();
    assert_eq!(host.restored_names("behind", &[]).1, "a b c d e in the hole");
    assert_eq!(host.restored_names("before-again", &["--target-time", &early]).1, "a");
    std::fs::rename(&aside, &object).expect("find it again");
    assert_eq!(host.restored_names("found", &["--target-time", &late]).1, "a b c in the hole");
}

#[test]
fn an_idle_cluster_is_restored_to_the_end_of_its_archive() {
    let host = Host::new();
    let primary = Cluster::builder().archive_to(&host.repo).start();
    primary.psql("create table t (name text)");
    host.backup(&primary, "one");
    note(&primary, "last");
    primary.archive_everything();
    let later = primary.now();

    // PostgreSQL itself fails such a target: no transaction ended after it.
    let plan = host.dry_run(&["--target-time", &later]);
    assert!(plan.contains("behind the last archived record"), "{plan}");
    let (restored, found) = host.restored_names("idle", &["--target-time", &later]);
    assert_eq!((found.as_str(), timeline(&restored).as_str()), ("last", "2"));
    assert_eq!(host.restored_names("ago", &["--target-time", "0 seconds ago"]).1, "last");

    host.refused(&["--target-time", "2100-01-01 00:00:00+00"], 3, "has not come yet");
    // What follows was never archived.
    note(&primary, "unarchived");
    let beyond = primary.current_lsn();
    let said = host.refused(&["--target-lsn", &beyond], 3, "is not in the archive");
    assert!(said.contains("what can be reached: timeline 1 from"), "{said}");
    assert_eq!(host.restored_names("end", &[]).1, "last");
    assert!(!Path::new(&host.scratch.join("refused")).exists());
}

impl Host {
    #[track_caller]
    fn dry_run(&self, arguments: &[&str]) -> String {
        let target = self.scratch.join("dry");
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(&target).arg("--socket-dir").arg(self.scratch.make_dir("s"));
        let said = run(command.arg("--dry-run").args(arguments)).succeeds();
        assert!(!target.exists(), "something was written: {said}");
        said
    }
}
