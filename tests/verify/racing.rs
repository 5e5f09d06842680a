//! Others at work, and verifications that are killed.

use std::process::Stdio;

use crate::harness::*;
use crate::scene::*;

fn with(scene: &Scene, arguments: &[&str], fault: Fault) -> (Outcome, Vec<Call>) {
    let mut command = scene.repo.std_program("pgark");
    command.args(["verify", "--jobs", "2"]).args(arguments);
    run_with_fault(command, fault.under(scene.repo.root()))
}

/// A whole verification and a portion, of a repository with a damaged pack: all kinds of records are written.
fn cases() -> impl Iterator<Item = (Scene, &'static [&'static str])> {
    [&["--output", "text"][..], &["--for-objects", "1000"]].into_iter().map(|arguments| {
        let scene = Scene::new();
        scene.repo.damage(&scene.packs("one")[0], Damage::FlipByte(5000));
        // A position and damage are recorded already, and are to be replaced.
        assert_eq!(scene.verify(&["--for-objects", "2"]).outcome.code, Some(0));
        (scene, arguments)
    })
}

#[test]
fn a_verification_that_is_killed_anywhere_leaves_nothing_that_hurts_the_next() {
    for (scene, arguments) in cases() {
        let (_, calls) = with(&scene, arguments, Fault::none());
        assert!(calls.len() >= 5, "{calls:#?}");
        for (n, call) in calls.iter().enumerate() {
            let (outcome, _) = with(&scene, arguments, Fault::kill_at(n + 1));
            let verified = scene.verify(&[]);
            assert_eq!(
                verified.lost(),
                ["one"],
                "killed before {call:?}: {outcome}, then {}",
                verified.outcome
            );
            assert_eq!(verified.damaged().len(), 1, "killed before {call:?}: {}", verified.outcome);
            // Where it goes on, there may be the damage.
            let portion = scene.verify(&["--for-objects", "2"]).outcome;
            assert!([Some(0), Some(5)].contains(&portion.code), "killed before {call:?}: {portion}");
            scene.verify(&["--backup", "two"]).is_sound();
        }
    }
}

#[test]
fn a_write_that_fails_does_not_change_what_is_said_of_damage() {
    for (scene, arguments) in cases() {
        let (_, calls) = with(&scene, arguments, Fault::none());
        for (n, call) in calls.iter().enumerate() {
            let (outcome, _) = with(&scene, arguments, Fault::fail_from(n + 1, Errno::IO));
            // A portion that can't remember where it came is an error of its own.
            let codes: &[Option<i32>] =
                if arguments[0] == "--output" { &[Some(5)] } else { &[Some(5), Some(6)] };
            assert!(codes.contains(&outcome.code), "{call:?} failed: {outcome}");
            assert_eq!(scene.verify(&[]).lost(), ["one"], "{call:?} failed");
        }
    }
}

#[test]
fn two_at_once_do_not_hurt_each_other() {
    let scene = Scene::new();
    let start = |arguments: &[&str]| {
        let mut command = scene.repo.std_program("pgark");
        command.args(["verify", "--output", "json"]).args(arguments).stdout(Stdio::null());
        command.spawn().expect("started")
    };
    let mut others: Vec<_> =
        (0..3).flat_map(|_| [start(&[]), start(&["--for-objects", "5"]), start(&["--for", "1h"])]).collect();
    for other in &mut others {
        assert_eq!(other.wait().expect("waited").code(), Some(0));
    }
    scene.verify(&[]).is_sound();
}

#[test]
fn an_interrupted_portion_remembers_what_it_did() {
    let scene = Scene::new();
    let mut command = scene.repo.std_program("pgark");
    command.args(["verify", "--for", "1h", "--rate-limit", "100kB", "--jobs", "1"]).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().expect("started");
    let pid = rustix::process::Pid::from_child(&child);
    wait_until_heeded(pid.as_raw_nonzero().get());
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    assert_eq!(child.wait().expect("waited").code(), Some(6));
    assert_eq!(scene.repo.matching("/sampled/").len(), 1);
    scene.verify(&["--for", "1h"]).is_sound();
}

/// Until the process listens for SIGINT.
fn wait_until_heeded(pid: i32) {
    wait_for("it to listen for signals", String::new, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
        u64::from_str_radix(caught.trim(), 16).expect("hex") & 2 != 0
    });
}
