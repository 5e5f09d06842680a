//! Backups that end before their time: no backup exists then, the server is out of backup mode, and nothing
//! is left behind for good.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;
use crate::stored;

/// A primary that is large enough for a slow backup to be caught in the middle.
fn primary(repo: &TestRepo) -> Cluster {
    let primary = Cluster::builder().archive_to(repo).start();
    primary.pgbench_init(2);
    primary
}

/// A backup that takes minutes.
fn slow_backup(repo: &TestRepo, primary: &Cluster, label: &str) -> Running {
    let mut command = repo.std_program("basebackup");
    command.envs(primary.env()).args(["--label", label, "--rate-limit", "100kB", "--jobs", "2"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(Some(command.spawn().expect("start basebackup")))
}

struct Running(Option<Child>);

impl Running {
    fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("signalled");
    }

    /// Its exit code and what it said.
    fn ends(mut self) -> (Option<i32>, String) {
        let child = self.0.take().expect("it runs");
        let output = child.wait_with_output().expect("wait for basebackup");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
    }
}

/// Waits until files are being copied: the walk shows in the session's statement being over.
fn wait_until_copying(repo: &TestRepo, primary: &Cluster) {
    primary.wait_for("the backup to write", || !repo.matching("/staging/").is_empty());
}

const SESSIONS: &str = "select count(*) from pg_stat_activity where application_name = 'pgark'";

#[test]
fn a_killed_backup_leaves_what_the_next_one_sweeps() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    let running = slow_backup(&repo, &primary, "killed");
    wait_until_copying(&repo, &primary);
    running.signal(Signal::KILL);
    running.ends();
    primary.wait_sql(SESSIONS, "0");
    assert_eq!(repo.matching("/backup/"), Vec::<String>::new());
    assert!(!repo.matching("/lease/").is_empty());

    run(repo.basebackup(&primary).args(["--label", "killed"])).succeeds();
    let backup = stored::read(&repo, "killed");
    let packs: Vec<String> = backup.header.packs.iter().map(|pack| format!("{}.pack", pack.id)).collect();
    let found = repo.matching("/pack/");
    assert!(
        found.len() == packs.len() && packs.iter().all(|pack| found.iter().any(|key| key.ends_with(pack)))
    );
    assert_eq!(repo.matching("/lease/"), Vec::<String>::new());
}

#[test]
fn an_interrupted_backup_cleans_up_behind_itself() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    for signal in [Signal::INT, Signal::TERM] {
        let running = slow_backup(&repo, &primary, "interrupted");
        wait_until_copying(&repo, &primary);
        running.signal(signal);
        let (code, said) = running.ends();
        assert_eq!(code, Some(6), "{said}");
        assert!(said.contains("error: interrupted"), "{said}");
        primary.wait_sql(SESSIONS, "0");
        let left: Vec<String> = repo.list().into_iter().filter(|key| !key.contains("/wal/")).collect();
        assert!(left.iter().all(|key| key.ends_with("cluster.json") || key == "pgark.json"), "{left:#?}");
    }
}

#[test]
fn a_backup_under_nohup_goes_on_when_its_terminal_is_gone() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    let backup = repo.std_program("basebackup");
    let mut command = command("nohup");
    command.arg(backup.get_program()).args(["--rate-limit", "100kB", "--jobs", "2"]).envs(primary.env());
    command.envs(backup.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running(Some(command.spawn().expect("start nohup, which is part of coreutils")));
    wait_until_copying(&repo, &primary);
    running.signal(Signal::HUP);
    running.signal(Signal::HUP);
    running.signal(Signal::TERM);
    let (code, said) = running.ends();
    assert_eq!((code, said.contains("error: interrupted")), (Some(6), true), "{said}");
}

#[test]
fn an_interrupt_is_heeded_while_the_server_makes_its_checkpoint() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).set("checkpoint_timeout", "1h").start();
    primary.psql("alter system set checkpoint_completion_target = 1");
    primary.reload();
    primary.pgbench_init(2);
    let mut command = repo.std_program("basebackup");
    command.envs(primary.env()).args(["--checkpoint", "spread"]).stderr(Stdio::piped());
    let running = Running(Some(command.spawn().expect("start basebackup")));
    let waiting = "select count(*) from pg_stat_activity where application_name = 'pgark'
        and state = 'active' and query like '%backup%'";
    primary.wait_sql(waiting, "1");
    running.signal(Signal::INT);
    let (code, said) = running.ends();
    assert_eq!((code, said.contains("error: interrupted")), (Some(6), true), "{said}");
    primary.wait_sql(SESSIONS, "0");
    assert_eq!(repo.matching("/lease/"), Vec::<String>::new());
}

#[test]
fn a_lost_session_ends_the_backup_at_once() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    let running = slow_backup(&repo, &primary, "lost");
    wait_until_copying(&repo, &primary);
    primary.psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgark'");
    let (code, said) = running.ends();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the backup is lost with its session"), "{said}");
    assert_eq!(repo.matching("/pack/"), Vec::<String>::new());
    assert_eq!(repo.matching("/backup/"), Vec::<String>::new());
}

#[test]
fn of_two_at_once_the_second_is_told_who_is_at_work() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    let running = slow_backup(&repo, &primary, "first");
    wait_until_copying(&repo, &primary);
    let said = run(repo.basebackup(&primary).args(["--label", "second"])).fails_with(4, "first");
    assert!(said.contains(&running.0.as_ref().expect("it runs").id().to_string()), "{said}");
    let staged = repo.matching("/staging/");
    assert!(!staged.is_empty(), "the second has swept nothing of the first");
}

#[test]
fn wal_that_never_arrives_means_no_backup() {
    let repo = TestRepo::init();
    let primary = primary(&repo);
    primary.archive_everything();
    primary.psql("alter system set archive_command = 'false'");
    primary.reload();
    primary.wait_sql("show archive_command", "false");
    let said = run(repo.basebackup(&primary).args(["--wal-timeout", "1s"])).fails_with(7, "did not arrive");
    assert!(said.contains("hint: pg_stat_archiver"), "{said}");
    for part in ["/backup/", "/pack/", "/lease/"] {
        assert_eq!(repo.matching(part), Vec::<String>::new());
    }
}
