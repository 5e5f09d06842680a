//! `--for`: portions that go on where the last one ended.

use std::collections::BTreeSet;

use crate::harness::*;
use crate::scene::*;

fn portion(scene: &Scene, objects: u64) -> Verified {
    scene.verify(&["--for-objects", &objects.to_string(), "--jobs", "3"])
}

fn reached(verified: &Verified) -> Option<String> {
    verified.system()["round"]["reached"].as_str().map(str::to_owned)
}

#[test]
fn portions_cover_everything_in_the_end_and_then_begin_anew() {
    let scene = Scene::new();
    let all = scene.verify(&[]).system()["read"]["segments"].as_u64().expect("a count");
    let (mut segments, mut places) = (0, Vec::new());
    loop {
        let verified = portion(&scene, 3);
        verified.is_sound();
        segments += verified.system()["read"]["segments"].as_u64().expect("a count");
        if verified.system()["round"]["complete"] == true {
            break;
        }
        places.push(reached(&verified).expect("a place"));
        assert!(places.len() < 1000, "it never ends");
    }
    assert_eq!(segments, all, "each segment once");
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "each goes on: {places:?}");
    assert_eq!(scene.repo.matching("/sampled/").len(), 1, "old positions are forgotten");
    let again = portion(&scene, 3);
    assert_eq!(reached(&again).as_ref(), places.first());
}

#[test]
fn every_damaged_object_is_met_in_some_portion() {
    let scene = Scene::new();
    let damaged = [
        scene.packs("one").remove(0),
        scene.packs("two").remove(0),
        scene.segment(&scene.facts.late),
        scene.key(&["/two/files"]),
    ];
    for key in &damaged {
        scene.repo.damage(key, Damage::FlipByte(if key.contains("/wal/") { 4150 } else { 50 }));
    }
    let mut met = BTreeSet::new();
    loop {
        let verified = portion(&scene, 4);
        met.extend(verified.damaged().into_iter().map(|(key, _)| key));
        if verified.system()["round"]["complete"] == true {
            break;
        }
    }
    assert_eq!(met, damaged.into_iter().collect());
    assert_eq!(scene.repo.matching("/damaged/").len(), 2, "one record for each pack");
}

#[test]
fn a_budget_of_time_that_is_long_enough_covers_everything() {
    let scene = Scene::new();
    let verified = scene.verify(&["--for", "1h"]);
    verified.is_sound();
    assert_eq!(verified.system()["round"]["complete"], true);
    let text = run(&mut scene.repo.pgark(&["verify", "--for", "1h"])).succeeds();
    assert!(text.contains("read a portion") && text.contains("is complete"), "{text}");
}

#[test]
fn a_budget_of_no_time_still_gets_on() {
    let scene = Scene::new();
    let place = || {
        scene.verify(&["--for", "0s", "--jobs", "1"]).is_sound();
        let record = scene.repo.read(&scene.repo.only("/sampled/"));
        let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        (record["reached"]["key"].to_string(), record["reached"]["part"].as_u64())
    };
    let places = [place(), place(), place(), place()];
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
}

#[test]
fn a_position_that_can_not_be_read_begins_the_round_anew() {
    let scene = Scene::new();
    let first = reached(&portion(&scene, 3));
    portion(&scene, 3);
    scene.repo.damage(&scene.repo.only("/sampled/"), Damage::Truncate(20));
    // The record itself is damage, and told as such once a round begins.
    let verified = portion(&scene, 3);
    assert_eq!(verified.outcome.code, Some(5), "{}", verified.outcome);
    assert_eq!(reached(&verified), first);
}

#[test]
fn a_portion_that_can_not_remember_says_so() {
    let scene = Scene::new();
    portion(&scene, 3).is_sound();
    let directory = scene.repo.path(&scene.repo.only("/sampled/")).parent().expect("a directory").to_owned();
    read_only(&directory);
    portion(&scene, 3).outcome.fails_with(6, "sampled");
    // A whole verification is worth its result all the same.
    scene.verify(&[]).is_sound();
}

fn read_only(directory: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o500)).expect("chmod");
}
