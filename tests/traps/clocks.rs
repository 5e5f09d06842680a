//! Clocks that jump by years, of the host, the store and the servers: nothing is deleted that would stay, and whoever
//! looks says something sensible. The host's clock is right here: what it compares with jumps.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::*;

const DAY: Duration = Duration::from_secs(86_400);
const YEARS: Duration = Duration::from_secs(86_400 * 3653);

/// A month of an archive that ends then.
fn archive(end: SystemTime) -> TestRepo {
    let repo = TestRepo::init();
    Generator { segments: 300, backups: 10, end, ..Generator::default() }.fill(repo.root());
    repo
}

/// When each object was stored, by the store's clock.
fn touch(repo: &TestRepo, part: &str, time: SystemTime) {
    for key in repo.matching(part) {
        let file = File::options().write(true).open(repo.path(&key)).expect("open");
        file.set_modified(time).expect("set the time");
    }
}

fn json(repo: &TestRepo, arguments: &[&str]) -> Value {
    let said = run(&mut repo.pgark(&[arguments, &["--output", "json"]].concat())).succeeds();
    serde_json::from_str(&said).expect("JSON")
}

/// What is there after an expiry of a week's window, which keeps the segments from some number on.
fn left(repo: &TestRepo) -> BTreeSet<String> {
    let said = json(repo, &["expire", "--recovery-window", "7 days"]);
    assert_matches_schema("expire", &said);
    repo.list().into_iter().filter(|key| key.ends_with("backup.json") || key.contains("/wal/")).collect()
}

/// An archive as it looks after a jump, given the time.
type Jumped = fn(SystemTime) -> TestRepo;

#[test]
fn no_clock_that_jumped_makes_an_expiry_delete_more() {
    let now = SystemTime::now();
    let sane = left(&archive(now));
    assert!((80..250).contains(&sane.len()), "a week of a month: {}", sane.len());
    let jumps: [(&str, Jumped); 6] = [
        ("the servers and the store are ahead", |now| archive(now + YEARS)),
        ("the servers and the store are behind, so this host is ahead", |now| archive(now - YEARS)),
        ("the store is ahead", |now| {
            let repo = archive(now);
            touch(&repo, "", now + YEARS);
            repo
        }),
        ("the store is behind", |now| {
            let repo = archive(now);
            touch(&repo, "", now - YEARS);
            repo
        }),
        ("the store began anew in 1970", |now| {
            let repo = archive(now);
            touch(&repo, "", SystemTime::UNIX_EPOCH + DAY);
            repo
        }),
        ("everything was copied just now", |now| {
            let repo = archive(now);
            touch(&repo, "", now);
            repo
        }),
    ];
    side_by_side(
        &jumps,
        |jump| jump.0,
        |(name, jumped)| {
            let left = left(&jumped(now));
            let missing: Vec<&String> = sane.difference(&left).collect();
            assert!(missing.is_empty(), "{name}: {missing:?}");
        },
    );
}

#[test]
fn whoever_looks_at_an_archive_from_another_time_says_something_sensible() {
    let now = SystemTime::now();
    let times = [
        ("ten years ahead", now + YEARS),
        ("ten years behind", now - YEARS),
        ("1970", SystemTime::UNIX_EPOCH + 40 * DAY),
    ];
    side_by_side(
        &times,
        |time| time.0,
        |(name, end)| {
            let repo = archive(*end);
            for verb in ["info", "verify"] {
                assert_matches_schema(verb, &json(&repo, &[verb]));
            }
            let page = repo.scratch().join("page.html");
            for arguments in [
                &["info"][..],
                &["verify", "--deep"],
                &["metrics"],
                &["report", "--html", page.to_str().expect("UTF-8")],
                &["expire", "--keep-last", "2", "--keep-daily", "3", "--keep-yearly", "2", "--dry-run"],
            ] {
                let said = run(&mut repo.pgark(arguments));
                assert!(matches!(said.code, Some(0..=9)), "{name}: {said}");
                for odd in ["a bug in pgark", "NaN", "inf "] {
                    let said = format!("{}{}", said.stdout, said.stderr);
                    assert!(!said.contains(odd), "{name}, {arguments:?}: {odd} in {said}");
                }
            }
        },
    );
}
