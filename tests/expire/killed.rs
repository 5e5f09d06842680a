//! Expiries that are killed, or whose disk fails, at any of their changes; and repositories that are not whole.

use crate::harness::*;
use crate::scene::*;

fn with(scene: &Scene, fault: Fault) -> (Outcome, Vec<Call>) {
    let mut command = scene.repo.std_program("pgark");
    command.arg("expire").args(scene.arguments());
    run_with_fault(command, fault.under(scene.repo.root()))
}

/// One scene of its own for each of the calls, counted from 1; four at a time.
fn at_each(calls: &[Call], check: impl Fn(Scene, usize) + Sync) {
    let cases: Vec<String> = (1..=calls.len()).map(|n| n.to_string()).collect();
    for cases in cases.chunks(4) {
        side_by_side(cases, |n| n, |n| check(Scene::new(), n.parse().expect("a number")));
    }
}

#[test]
fn killed_at_any_change_the_kept_stay_whole_and_the_next_run_ends_as_one_that_was_not() {
    let undisturbed = Scene::new();
    let (outcome, calls) = with(&undisturbed, Fault::none());
    assert_eq!(outcome.code, Some(0), "{outcome}");
    let expected = state(&undisturbed.repo);
    let deleted = calls.iter().filter(|call| call.name.starts_with("unlink")).count();
    assert!(deleted > 20 && calls.iter().any(|call| call.name == "rmdir"), "{calls:#?}");
    at_each(&calls, |scene, n| {
        let (outcome, _) = with(&scene, Fault::kill_at(n));
        let what = format!("killed before {:?}", calls[n - 1]);
        assert_eq!(outcome.code, None, "{what}: {outcome}");
        scene.expect_kept(&what);
        let verified = run(&mut scene.repo.pgark(&["verify"]));
        assert_eq!(verified.code, Some(0), "{what}, whose lease tells: {verified}");
        scene.expire();
        assert_eq!(state(&scene.repo), expected, "{what}");
        let verified = run(&mut scene.repo.pgark(&["verify"]));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
    });
}

#[test]
fn when_a_change_fails_it_says_so_and_the_next_run_ends_as_one_where_none_did() {
    let undisturbed = Scene::new();
    let (_, calls) = with(&undisturbed, Fault::none());
    let expected = state(&undisturbed.repo);
    at_each(&calls, |scene, n| {
        let (outcome, _) = with(&scene, Fault::fail_at(n, Errno::IO));
        let what = format!("failed at {:?}: {outcome}", calls[n - 1]);
        assert!([Some(0), Some(6)].contains(&outcome.code), "{what}");
        scene.expect_kept(&what);
        scene.expire();
        assert_eq!(state(&scene.repo), expected, "{what}");
    });
}

#[test]
fn an_expiry_that_is_interrupted_says_so_and_gives_its_lease_back() {
    let scene = Scene::new();
    let (mut child, mut plan) = stopped_expiry(&scene.repo, &scene.arguments());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    std::io::copy(&mut plan, &mut std::io::sink()).expect("read");
    assert_eq!(child.wait().expect("waited").code(), Some(6));
    assert_eq!(scene.repo.matching("/lease/"), Vec::<String>::new());
    assert_eq!(headers(&scene.repo).len(), 5);
    scene.expire();
    assert_eq!(headers(&scene.repo), ["five", "four", "one"]);
}

#[test]
fn without_headers_wal_or_packs_nothing_is_deleted() {
    for part in ["backup", "wal", "pack"] {
        let scene = Scene::new();
        let before: Vec<String> = state(&scene.repo);
        let cluster = scene.repo.path(&scene.repo.only("cluster.json"));
        let place = cluster.parent().expect("a directory").join(part);
        let aside = place.with_extension("aside");
        std::fs::rename(&place, &aside).expect("unmounted");
        let said = expire(&scene.repo, &["--keep-last", "1"]);
        assert_eq!(labels(&said, false), Vec::<String>::new(), "{part}");
        std::fs::rename(&aside, &place).expect("mounted");
        assert_eq!(state(&scene.repo), before, "{part}");
    }
}

#[test]
fn what_can_not_be_read_keeps_everything_and_is_named() {
    for (part, damage, code, message) in [
        ("/backup/two/backup.json", Damage::Truncate(100), 5, "move the directory of that backup out"),
        ("/backup/five/backup.json", Damage::FlipByte(300), 5, "nothing was expired"),
        ("/pin/", Damage::Truncate(20), 5, "nothing was expired"),
        ("/backup/three/backup.json", Damage::Unreadable, 6, "Permission denied"),
    ] {
        if matches!(damage, Damage::Unreadable) && !is_root() {
            continue;
        }
        let scene = Scene::new();
        scene.repo.damage(&scene.repo.only(part), damage);
        let before = state(&scene.repo);
        let refused = run(scene.repo.pgark(&["expire"]).args(scene.arguments()));
        refused.fails_with(code, message);
        assert_eq!(state(&scene.repo), before, "{part}");
    }
    let scene = Scene::new();
    let lease = scene
        .repo
        .only("cluster.json")
        .replace("cluster.json", "lease/00112233445566778899aabbccddeeff.json");
    let directory = lease.rsplit_once('/').expect("a directory").0;
    std::fs::create_dir_all(scene.repo.path(directory)).expect("made");
    scene.repo.scratch().write(scene.repo.path(&lease), "{");
    std::os::unix::fs::chown(scene.repo.path(directory), Some(server_user().uid), Some(server_user().gid))
        .expect("chown");
    let before = state(&scene.repo);
    run(scene.repo.pgark(&["expire"]).args(scene.arguments())).fails_with(4, "lease that can't be read");
    assert_eq!(state(&scene.repo), before);
}

#[test]
fn a_backup_that_lacks_a_pack_or_its_map_takes_nobody_s_place() {
    for (part, damage) in
        [("/pack/", Damage::Delete), ("/pack/", Damage::Truncate(10)), ("five/files", Damage::Delete)]
    {
        let scene = Scene::new();
        let header = scene.repo.read(&scene.repo.only("/backup/five/backup.json"));
        let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
        let pack = header["packs"][0]["id"].as_str().expect("an id");
        let key = scene.repo.only(if part == "/pack/" { pack } else { part });
        scene.repo.damage(&key, damage);
        let said = expire(&scene.repo, &["--keep-last", "1"]);
        assert_eq!(labels(&said, true), ["one", "four", "five"], "{key}: {said:#}");
        assert!(said.to_string().contains("missing, or not whole"), "{said:#}");
        let verified = run(&mut scene.repo.pgark(&["verify", "--backup", "four"]));
        assert_eq!(verified.code, Some(0), "{key}: {verified}");
    }
}
