//! What is refused before anything is copied, and how it is said.

use std::path::Path;

use crate::harness::*;

/// Nothing of a backup is in the repository.
fn assert_nothing_stored(repo: &TestRepo) {
    for part in ["/backup/", "/pack/", "/lease/", "/staging/"] {
        assert_eq!(repo.matching(part), Vec::<String>::new());
    }
}

#[test]
fn a_label_is_used_once() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    run(repo.basebackup(&primary).args(["--label", "x"])).succeeds();
    // The server archives a backup history file at its leisure.
    let stored = || {
        repo.list()
            .into_iter()
            .filter(|key| !key.contains("/wal/") && !key.contains("/lock/"))
            .collect::<Vec<_>>()
    };
    let before = stored();
    run(repo.basebackup(&primary).args(["--label", "x"])).fails_with(4, "a backup with the label x already");
    assert_eq!(stored(), before);
    run(repo.basebackup(&primary).args(["--label", "a/b"])).fails_with(2, "can't be a name");
}

#[test]
fn archiving_that_is_off_is_refused_with_what_to_set() {
    let repo = TestRepo::init();
    let primary = Cluster::start_new();
    let said = run(&mut repo.basebackup(&primary)).fails_with(2, "archive_mode is off");
    assert!(said.contains("hint: set archive_mode = on"), "{said}");
    let primary = Cluster::builder().set("archive_mode", "on").start();
    run(&mut repo.basebackup(&primary)).fails_with(2, "archive_command is empty");
    assert_nothing_stored(&repo);
}

#[test]
fn archiving_that_fails_is_found_out_before_the_copy() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().set("archive_mode", "on").set("archive_command", "false").start();
    let said = run(&mut repo.basebackup(&primary)).fails_with(7, "archiving does not work: it failed");
    assert!(said.contains("archive_command = 'false'"), "{said}");
    assert_nothing_stored(&repo);
}

#[test]
fn archiving_elsewhere_is_found_out_before_the_copy() {
    let repo = TestRepo::init();
    let elsewhere = TestRepo::init();
    let primary = Cluster::builder().archive_to(&elsewhere).start();
    primary.archive_everything();
    let said = run(&mut repo.basebackup(&primary)).fails_with(7, "archiving does not reach this repository");
    assert!(said.contains("wal-push %p"), "{said}");
    assert_nothing_stored(&repo);
}

/// Runs `basebackup` where another directory lies at the path of the server's data directory, as on another
/// host. None, and a reason, where this machine does not let us.
fn run_with_other_directory(
    repo: &TestRepo,
    primary: &Cluster,
    other: &Path,
) -> Option<(Option<i32>, String)> {
    if !is_root() {
        eprintln!("skipped: this test mounts a directory over another, which needs root");
        return None;
    }
    let user = server_user();
    let script = format!(
        "mount --bind \"$1\" \"$2\" || exit 99
         exec setpriv --reuid {} --regid {} --clear-groups \"$3\"",
        user.uid, user.gid
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(other).arg(primary.data_dir());
    command.arg(program_path("basebackup")).env("PGARK_CONFIG", repo.config()).envs(primary.env());
    let output = command.output().expect("start unshare: apt-get install util-linux");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unshare: ") || said.contains("unshare failed") || output.status.code() == Some(99) {
        eprintln!("skipped: could not mount: {said}");
        return None;
    }
    Some((output.status.code(), said))
}

#[test]
fn another_hosts_server_is_refused_even_if_a_standby_of_it_is_here() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    let standby = primary.standby().start();
    primary.psql("create table t as select 1");
    primary.wait_replayed_by(&standby);
    let stranger = Cluster::builder().build();
    let nothing = Scratch::new();
    for (directory, expected) in [
        (nothing.path().to_path_buf(), "but there is none here"),
        (stranger.data_dir(), "but the one here has system identifier"),
        (standby.data_dir(), "another server's of the same origin"),
    ] {
        let Some((code, said)) = run_with_other_directory(&repo, &primary, &directory) else { return };
        assert_eq!((code, said.contains(expected)), (Some(2), true), "{said}");
        assert!(said.contains("run it on the database host"), "{said}");
    }
    assert_nothing_stored(&repo);
}

#[test]
fn a_role_needs_no_more_than_the_hint_says() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    primary.psql("create role backup login");
    let mut command = repo.basebackup(&primary);
    let said = run(command.args(["--user", "backup"])).fails_with(2, "the role \"backup\" may not do it");
    let grants = said.split_once("let one run: ").expect("a hint").1.replace("; grant", ";\ngrant");
    primary.psql(&grants);
    // In a database where nothing is special: the grants are of the one that the backup connects to.
    run(&mut command).succeeds();
    let said = run(command.args(["--dbname", "dbname=template1"])).fails_with(2, "may not do it");
    assert!(said.contains("pg_read_all_settings"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).build();
    run(&mut repo.basebackup(&primary)).fails_with(7, "could not connect");
}

#[test]
fn a_repository_that_is_not_there_is_never_made() {
    let repo = TestRepo::not_initialised();
    let primary = Cluster::builder().archive_to(&repo).start();
    run(&mut repo.basebackup(&primary)).fails_with(2, "no repository here");
    assert_eq!(repo.list(), Vec::<String>::new());
}

#[test]
fn minimal_wal_is_refused() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().set("wal_level", "minimal").set("max_wal_senders", 0).start();
    run(&mut repo.basebackup(&primary)).fails_with(2, "wal_level = minimal");
}

#[test]
fn root_is_refused_when_the_server_is_another_users() {
    if !is_root() {
        eprintln!("skipped: this needs root");
        return;
    }
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    let mut command = std::process::Command::new(program_path("basebackup"));
    command.env("PGARK_CONFIG", repo.config()).envs(primary.env());
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this runs as root"));
}
