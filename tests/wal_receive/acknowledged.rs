//! The promise of `--synchronous`: what was acknowledged is in the restored server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::scene::*;
use super::server;
use crate::harness::*;

/// Each client numbers its commits; pgbench logs those that the server acknowledged.
const SCRIPT: &str = "\\set n :n + 1\ninsert into acknowledged values (:client_id, :n);\n";

fn start_clients(server: &Cluster, directory: &Path) -> Child {
    fs::write(directory.join("script.sql"), SCRIPT).expect("written");
    let mut command = server.client("pgbench");
    command.args(["-n", "-c", "4", "-T", "600", "-D", "n=0", "-f", "script.sql", "--log"]);
    command.current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start pgbench")
}

/// By client, how many of its commits were acknowledged.
fn acknowledged(directory: &Path) -> BTreeMap<String, u64> {
    let mut commits = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("list") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log")) {
            for line in fs::read_to_string(path).expect("a log").lines() {
                let client = line.split(' ').next().expect("a client").to_owned();
                *commits.entry(client).or_default() += 1;
            }
        }
    }
    commits
}

/// A primary whose commits wait for the receiver, under load, and with a backup.
struct Scene {
    repo: TestRepo,
    primary: Cluster,
    receiver: Receiver,
    logs: PathBuf,
    clients: Child,
}

impl Scene {
    fn start() -> Self {
        let repo = TestRepo::init();
        // Nothing else archives: a backup may rely on the receiver alone.
        let primary = server();
        let receiver = Receiver::start(&repo, &primary, &["--synchronous"]);
        receiver.wait_for_log("streaming timeline 1");
        run(&mut repo.basebackup(&primary)).succeeds();
        primary.psql("create table acknowledged (client int, n int)");
        primary.append_config("synchronous_standby_names = 'pgark'");
        primary.reload();
        primary.wait_sql("select sync_state from pg_stat_replication", "sync");
        let logs = primary.scratch().make_dir("logs");
        let clients = start_clients(&primary, &logs);
        primary.wait_for("commits", || {
            primary.psql("select count(*) from acknowledged").parse::<u64>().expect("a number") > 2000
        });
        Self { repo, primary, receiver, logs, clients }
    }
}

/// Restores what the repository has and looks for every commit.
fn assert_restores(repo: &TestRepo, commits: &BTreeMap<String, u64>) {
    assert_eq!(commits.len(), 4, "every client committed: {commits:?}");
    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "restored", &[]);
    for (client, count) in commits {
        let there = restored.psql(&format!("select count(*) from acknowledged where client = {client}"));
        let there: u64 = there.parse().expect("a number");
        assert!(there >= *count, "client {client} saw {count} commits, {there} are there");
    }
}

#[test]
fn with_synchronous_no_acknowledged_commit_is_lost_with_the_primary() {
    let Scene { repo, primary, receiver, logs, mut clients } = Scene::start();
    primary.crash();
    clients.wait().expect("pgbench ends with its server");
    receiver.wait_for_log("the next attempt follows");
    wait_for("the last part", || format!("{:#?}", repo.list()), || !repo.matching(".streamed.").is_empty());
    receiver.leave();
    let commits = acknowledged(&logs);
    drop(primary);
    assert_restores(&repo, &commits);
}

#[test]
fn what_only_the_spool_of_a_killed_receiver_holds_is_stored_at_its_next_start_without_the_primary() {
    let Scene { repo, primary, receiver, logs, mut clients } = Scene::start();
    receiver.kill();
    // Commits wait now. What was acknowledged is in the spool, and nowhere else once the primary is gone.
    primary.crash();
    clients.wait().expect("pgbench ends with its server");
    let commits = acknowledged(&logs);
    let receiver = Receiver::start(&repo, &primary, &["--synchronous"]);
    receiver.wait_for_log("was left in the spool and is stored now");
    receiver.wait_for_log("the next attempt follows");
    receiver.leave();
    drop(primary);
    assert_restores(&repo, &commits);
}
