//! Others at work: backups, restores, verifications, another expiry.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;
use crate::scene::*;

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("signalled");
}

fn ends_well(child: Child, what: &str) -> String {
    let output = child.wait_with_output().expect("waited");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{what}: {said}");
    said
}

#[test]
fn what_a_running_backup_builds_on_stays_and_it_completes_and_restores() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    server.psql("create table t (a int primary key, filler text)");
    for (n, label) in ["one", "two", "three"].into_iter().enumerate() {
        change(&server, n);
        backup(&repo, &server, label);
    }
    server.archive_everything();
    age(&repo, std::time::Duration::from_secs(2 * 86_400));
    let mut command = repo.std_program("basebackup");
    command.envs(server.env()).args(["--label", "running", "--rate-limit", "8MB", "--jobs", "2"]);
    let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    wait_for_lease(&repo, "backup");
    server.wait_sql("select count(*) > 0 from pg_stat_activity where query like '%backup_start%'", "t");
    send(&running, Signal::STOP);
    let before = state(&repo);
    let said = expire(&repo, &["--keep-last", "1"]);
    assert_eq!(labels(&said, false), ["one", "two"]);
    assert!(postponed(&said).contains("packs and maps") && postponed(&said).contains("WAL"), "{said:#}");
    assert_eq!(headers(&repo), ["three"]);
    let mut after = state(&repo);
    after.extend(before.iter().filter(|key| key.ends_with("backup.json") && !key.contains("three")).cloned());
    after.sort();
    assert_eq!(after, before, "only headers went");
    send(&running, Signal::CONT);
    ends_well(running, "the backup");
    change(&server, 3);
    let content = server.content();
    server.archive_everything();
    let said = expire(&repo, &["--keep-last", "1"]);
    assert_eq!(labels(&said, true), ["running"]);
    assert_eq!(postponed(&said), "[]");
    assert_eq!(repo.matching("files.jsonl.zst").len(), 1, "{:#?}", repo.list());
    let verified = run(&mut repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "{verified}");
    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "restored", &[]);
    restored.assert_content(&content);
    restored.assert_sound();
}

#[test]
fn a_backup_waits_for_an_expiry_that_is_at_work() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    backup(&repo, &server, "one");
    backup(&repo, &server, "two");
    server.archive_everything();
    let (stopped, mut plan) = stopped_expiry(&repo, &["--keep-last", "1"]);
    let mut command = repo.std_program("basebackup");
    command.envs(server.env()).args(["--label", "three"]);
    let log = repo.scratch().write("basebackup.log", "");
    let to_log = std::fs::File::options().append(true).open(&log).expect("open");
    let mut waiting = command.stdout(Stdio::null()).stderr(to_log).spawn().expect("started");
    let said = || std::fs::read_to_string(&log).expect("read");
    wait_for("it to wait for the expiry", said, || said().contains("waiting for the expiry to end"));
    assert_eq!(waiting.try_wait().expect("looked"), None, "it waits");
    run(&mut repo.pgark(&["expire", "--keep-last", "1"])).fails_with(4, "an expiry is running already");
    assert_eq!(headers(&repo).len(), 2);
    std::io::copy(&mut plan, &mut std::io::sink()).expect("read");
    ends_well(stopped, "the expiry");
    ends_well(waiting, "the backup");
    assert_eq!(headers(&repo), ["three", "two"]);
}

#[test]
fn what_a_running_restore_reads_stays_and_it_completes() {
    let scene = Scene::new();
    let scratch = Scratch::new();
    let sockets = scratch.make_dir("s");
    let mut command = scene.repo.std_program("bootstrap-restore");
    command.arg("-D").arg(scratch.join("data")).arg("--socket-dir").arg(&sockets);
    command.args(["--backup", "two", "--jobs", "1"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let running = command.spawn().expect("started");
    wait_for_lease(&scene.repo, "restore");
    send(&running, Signal::STOP);
    // Its objects are the server's user's, and whole.
    let said = scene.expire();
    assert_eq!(labels(&said, true), ["one", "two", "four", "five"]);
    assert!(said.to_string().contains("being restored by"), "{said:#}");
    send(&running, Signal::CONT);
    ends_well(running, "the restore");
    let restored = Cluster::adopt(&scratch.join("data"));
    restored.assert_content(&scene.facts.end);
    restored.assert_sound();
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
    assert_eq!(labels(&scene.expire(), false), ["two"]);
    scene.expect_kept("then");
}

#[test]
fn a_restore_that_begins_while_wal_is_deleted_gets_all_that_it_chose_or_chooses_again() {
    let scene = Scene::new();
    let scratch = Scratch::new();
    let target = |n: usize| scratch.join(format!("data{n}"));
    let restore = |n: usize| {
        let mut command = scene.repo.bootstrap_restore();
        command.arg("-D").arg(target(n)).arg("--socket-dir").arg(scratch.join("s"));
        // All WAL behind it, of which the plan deletes a part.
        command.args(["--backup", "one", "--no-start"]);
        run(&mut command)
    };
    scratch.make_dir("s");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            scene.expire();
            ended.store(true, Ordering::SeqCst);
        });
        let mut n = 0;
        while !ended.load(Ordering::SeqCst) || n == 0 {
            let outcome = restore(n);
            let told = outcome.stderr.contains("deleted while") || outcome.stderr.contains("can be reached");
            assert!(outcome.code == Some(0) || told, "{outcome}");
            n += 1;
        }
    });
    scene.expect_kept("beside restores");
    scene.expire();
    assert_eq!(headers(&scene.repo), ["five", "four", "one"]);
}

#[test]
fn a_verification_beside_an_expiry_finds_no_damage() {
    for _ in 0..3 {
        let scene = Scene::new();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(30));
                scene.expire();
                ended.store(true, Ordering::SeqCst);
            });
            let mut verifications = 0;
            while !ended.load(Ordering::SeqCst) || verifications == 0 {
                let verified = run(&mut scene.repo.pgark(&["verify", "--output", "json"]));
                assert_eq!(verified.code, Some(0), "{verified}");
                verifications += 1;
            }
        });
    }
}

#[test]
fn a_pin_that_comes_in_time_keeps_its_backup() {
    let scene = Scene::new();
    run(&mut scene.repo.pgark(&["pin", "two"])).succeeds();
    let said = scene.expire();
    assert_eq!(labels(&said, false), ["three"]);
    let verified = run(&mut scene.repo.pgark(&["verify", "--backup", "two"]));
    assert_eq!(verified.code, Some(0), "{verified}");
    run(&mut scene.repo.pgark(&["unpin", "two"])).succeeds();
    assert_eq!(labels(&scene.expire(), false), ["two"]);
}
