//! Errors at each change that a receiver makes to its spool or the repository, and disks that are full for a while:
//! nothing is reported as flushed that is not there, and the archive has no gap once the trouble is over.

use std::fs;
use std::time::Duration;

use super::coverage::*;
use super::scene::*;
use crate::harness::*;

/// Keeps all of its WAL, to be compared with.
fn server() -> Cluster {
    let server = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "4GB").start();
    server.pgbench_init(1);
    server
}

/// One receiver with a slot, a spool and a repository of its own.
struct Case {
    name: String,
    in_spool: bool,
    fault: Fault,
    synchronous: bool,
}

/// What goes wrong from the n-th change on.
type Kind = fn(usize) -> Fault;

fn cases() -> Vec<Case> {
    let kinds: [(&str, Kind); 3] = [
        ("error", |n| Fault::fail_at(n, Errno::IO)),
        ("gone", |n| Fault::fail_from(n, Errno::IO)),
        ("full", |n| Fault::fail_from(n, Errno::NOSPC)),
    ];
    let mut cases = Vec::new();
    for (in_spool, count) in [(true, 24), (false, 16)] {
        for (kind, fault) in kinds {
            let place = if in_spool { "spool" } else { "repository" };
            for n in moments(&format!("{kind} in the {place} of a receiver"), count, 3) {
                let (name, synchronous) = (format!("{place}_{kind}_{n}"), cases.len() % 2 == 0);
                cases.push(Case { name, in_spool, fault: fault(n), synchronous });
            }
        }
    }
    cases
}

/// With its slot, from which on everything counts.
struct Prepared<'a> {
    case: &'a Case,
    repo: TestRepo,
    first: u64,
}

impl<'a> Prepared<'a> {
    fn new(server: &Cluster, case: &'a Case) -> Self {
        let repo = TestRepo::init();
        once(&repo, server, &["--create-slot-only", "--slot", &case.name]).succeeds();
        Self { case, repo, first: flushed(server, &case.name) }
    }

    /// Receives for a while, or until the fault ends it, which it says.
    fn fail(&self, env: &[(String, String)]) {
        let (case, spool) = (self.case, spool(&self.repo));
        let mut command = self.repo.std_program("wal-receive");
        command.envs(env.to_vec()).arg("--spool").arg(&spool).args(["--slot", &case.name]);
        if case.synchronous {
            command.arg("--synchronous");
        }
        let fault = case.fault.clone().under(if case.in_spool { &spool } else { self.repo.root() });
        let (outcome, calls) = run_with_fault_for(command, fault, Some(Duration::from_secs(2)));
        let what = format!("{}: {outcome}\n{calls:?}", case.name);
        assert!([Some(0), Some(6)].contains(&outcome.code), "{what}");
        let words = ["Input/output error", "No space left on device"];
        let said = words.iter().any(|words| outcome.stderr.contains(words));
        assert!(outcome.code == Some(0) || said, "{what}");
    }

    fn expect_covered(&self, server: &Cluster) {
        let spool = spool(&self.repo);
        let spool = self.case.synchronous.then_some(spool.as_path());
        expect_covered(server, &self.repo, spool, self.first..flushed(server, &self.case.name));
    }
}

#[test]
fn an_error_at_any_change_to_spool_or_repository_leaves_no_gap_and_nothing_was_flushed_that_is_not_there() {
    let server = server();
    let load = server.pgbench_in_background(&["-c", "2", "-R", "300"]);
    let (cases, env) = (cases(), server.env());
    for cases in cases.chunks(8) {
        let prepared: Vec<Prepared> = cases.iter().map(|case| Prepared::new(&server, case)).collect();
        side_by_side(&prepared, |prepared| &prepared.case.name, |prepared| prepared.fail(&env));
        prepared.iter().for_each(|prepared| prepared.expect_covered(&server));
        let start = |one: &Prepared| Receiver::start(&one.repo, &server, &["--slot", &one.case.name]);
        let receivers: Vec<Receiver> = prepared.iter().map(start).collect();
        let last = write_segments(&server, 1);
        for (Prepared { case, repo, first }, receiver) in prepared.iter().zip(receivers) {
            wait_for_segment(repo, &last);
            receiver.leave();
            let begin = format!("00000001{:08X}{:08X}", first >> 32, (first & 0xFFFF_FFFF) / SEGMENT);
            assert_holds(&segments(repo), &segment_files(&server.data_dir().join("pg_wal"), &begin, &last));
            once(repo, &server, &["--drop-slot", "--slot", &case.name]).succeeds();
        }
    }
    drop(load);
}

#[test]
fn a_repository_that_is_full_for_a_while_is_waited_for_and_nothing_is_reported_meanwhile() {
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let server = server();
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    run(&mut repo.pgark(&["init"])).succeeds();
    let receiver = Receiver::start(&repo, &server, &[]);
    let first = write_segments(&server, 1);
    wait_for_segment(&repo, &first);
    let begun = flushed(&server, "pgark");
    let hog = disk.path().join("hog");
    let full = fs::write(&hog, vec![1; 65 << 20]).expect_err("the disk is full");
    assert_eq!(full.raw_os_error(), Some(28));
    let load = server.pgbench_in_background(&["-c", "2"]);
    receiver.wait_for_log("No space left on device");
    receiver.wait_for_log("waits in the spool and is tried again");
    write_segments(&server, 3);
    expect_covered(&server, &repo, None, begun..flushed(&server, "pgark"));
    fs::remove_file(&hog).expect("room");
    drop(load);
    let last = write_segments(&server, 1);
    wait_for_segment(&repo, &last);
    receiver.leave();
    assert_holds(&segments(&repo), &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
}
