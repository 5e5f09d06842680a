//! The prefetcher of `wal-fetch`, and what `wal-fetch` itself changes in the spool, killed or failing at each change:
//! what is delivered is what is stored, and the recovery goes on.

mod harness;
mod wal;

// Some of it is for tests/wal_fetch.rs only.
#[allow(dead_code)]
#[path = "wal_fetch/scene.rs"]
mod scene;
#[allow(dead_code)]
#[path = "wal_fetch/waiting.rs"]
mod waiting;

use std::fs;
use std::path::PathBuf;

use harness::*;
use scene::*;
use waiting::*;

fn waiting() -> Waiting {
    Waiting::with(6, "prefetch = 3\nprefetch_linger = \"1s\"")
}

fn spool(waiting: &Waiting) -> PathBuf {
    waiting.server.data_dir().join("pg_wal/pgark.spool")
}

/// The first segment was asked for, nobody prefetches, and nothing is ready.
fn asked(waiting: &Waiting) {
    waiting.ask(&waiting.names[0]);
    prefetchers(&waiting.server).into_iter().for_each(kill_and_wait);
    for directory in directories(&spool(waiting)) {
        for entry in fs::read_dir(directory).expect("list").map(|entry| entry.expect("entry")) {
            if entry.file_name() != "asked" {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
}

/// The prefetcher, as `wal-fetch` starts it, to its end.
fn prefetch(waiting: &Waiting, fault: Fault) -> (Outcome, Vec<Call>) {
    let mut command = waiting.repo().std_program("wal-fetch");
    command.current_dir(waiting.server.data_dir()).args(["--prefetch", &waiting.names[0], "pg_wal/ASKED"]);
    run_with_fault(command, fault.under(&spool(waiting)))
}

/// What is ready is what is stored, and so is what is delivered from now on.
#[track_caller]
fn expect_right(waiting: &Waiting, what: &str) {
    for directory in directories(&spool(waiting)) {
        for name in ready(&waiting.server) {
            let key = waiting.repo().only(&format!("{name}.zst"));
            let stored = zstd::decode_all(&waiting.repo().read(&key)[..]).expect("zstd");
            assert!(fs::read(directory.join(&name)).expect("read") == stored, "{what}: {name} is ready");
        }
    }
    for name in &waiting.names[1..4] {
        waiting.ask(name);
    }
}

fn at_each(purpose: &str, fault: fn(usize) -> Fault) {
    let waiting = waiting();
    asked(&waiting);
    let (outcome, calls) = prefetch(&waiting, Fault::none());
    outcome.succeeds();
    assert!(calls.len() > 10, "{calls:#?}");
    for n in moments(purpose, calls.len(), 12) {
        asked(&waiting);
        let (outcome, _) = prefetch(&waiting, fault(n));
        // At trouble it ends; the next fetch starts another.
        assert_ne!(outcome.code, Some(1), "{outcome}");
        expect_right(&waiting, &format!("{purpose}, at about {:?}: {outcome}", calls[n - 1]));
    }
}

#[test]
fn a_prefetcher_killed_at_any_change_leaves_nothing_half_ready() {
    at_each("kills of a prefetcher", Fault::kill_at);
}

#[test]
fn a_prefetcher_with_an_io_error_anywhere_has_nothing_half_ready() {
    at_each("errors of a prefetcher", |n| Fault::fail_at(n, Errno::IO));
}

#[test]
fn a_prefetcher_whose_disk_fills_up_has_nothing_half_ready() {
    at_each("a full disk of a prefetcher", |n| Fault::fail_from(n, Errno::NOSPC));
}

#[test]
fn a_fetch_delivers_also_when_it_is_killed_or_fails_in_the_spool() {
    let waiting = waiting();
    let fetch = |fault: Fault| {
        prefetchers(&waiting.server).into_iter().for_each(kill_and_wait);
        if spool(&waiting).exists() {
            fs::remove_dir_all(spool(&waiting)).expect("removed");
        }
        let mut command = waiting.repo().std_program("wal-fetch");
        command.current_dir(waiting.server.data_dir()).args(["-v", &waiting.names[0], "pg_wal/ASKED"]);
        run_with_fault(command, fault.under(&spool(&waiting)))
    };
    let (outcome, calls) = fetch(Fault::none());
    outcome.succeeds();
    assert!(calls.len() > 4, "{calls:#?}");
    for n in 1..=calls.len() {
        for errno in [Errno::IO, Errno::NOSPC] {
            for fault in [Fault::fail_at(n, errno), Fault::fail_from(n, errno)] {
                let (outcome, _) = fetch(fault);
                assert_eq!(outcome.code, Some(0), "{errno} at {:?}: {outcome}", calls[n - 1]);
                expect_right(&waiting, "after an error");
            }
        }
        fetch(Fault::kill_at(n));
        expect_right(&waiting, &format!("killed before {:?}", calls[n - 1]));
    }
}

#[test]
fn a_recovery_goes_on_beside_a_full_spool() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let scene = Scene::new();
    // A table of TOML is open at the end of the configuration: the key has to be in front of it.
    let config = fs::read_to_string(scene.repo.config()).expect("read");
    fs::write(scene.repo.config(), format!("spool = {:?}\n{config}", disk.path())).expect("written");
    let restored = scene.backup();
    let rows = scene.write_segments(8);
    let full = fs::write(disk.path().join("ballast"), vec![0; 2 << 20]).expect_err("the disk is full");
    assert_eq!(full.raw_os_error(), Some(28));
    assert_eq!(restored.recovers(), rows);
}
