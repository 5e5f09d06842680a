//! A large archive that a generator made.

use crate::harness::*;
use crate::scene::*;

/// Kilobytes of heap that `expire` may take.
const MEMORY: u64 = 32 << 10;

#[test]
fn twenty_thousand_segments_and_four_hundred_backups_expire_in_little_memory() {
    let repo = TestRepo::init();
    let made = Generator { segments: 20_000, backups: 400, timelines: 3, ..Generator::default() };
    made.fill(repo.root());
    age(&repo, std::time::Duration::from_secs(2 * 86_400));
    let arguments = ["--recovery-window", "10 days", "--keep-weekly", "4"];
    let planned = expire(&repo, &[&arguments[..], &["--dry-run"]].concat());
    let (kept, going) = (labels(&planned, true), labels(&planned, false));
    assert_eq!(kept.len() + going.len(), 400);
    assert!((130..145).contains(&kept.len()), "a third and some weeks: {kept:?}");
    assert!(!succeeds_within(&repo, &arguments, 256), "this limit does not limit");
    assert_eq!(headers(&repo).len(), 400);
    assert!(succeeds_within(&repo, &arguments, MEMORY), "expire takes more than {MEMORY} kB of memory");
    assert_eq!(headers(&repo), kept);
    let packs = repo.matching("/pack/").len();
    assert!((kept.len()..kept.len() + 8 * 8).contains(&packs), "{packs} packs");
    let segments = repo.matching("/wal/").iter().filter(|key| key.ends_with(".zst")).count() as u64;
    let gone = incarnation(&planned)["frees"]["wal_objects"].as_u64().expect("a number");
    assert_eq!(segments + gone, 20_000);
    assert_eq!(repo.matching(".history").len(), 2, "histories stay");
    let again = expire(&repo, &arguments);
    assert_eq!(
        (labels(&again, false).len(), incarnation(&again)["done"]["wal_objects"].as_u64()),
        (0, Some(0))
    );
}

/// Whether the real program gets along with so many kilobytes of heap.
fn succeeds_within(repo: &TestRepo, arguments: &[&str], kilobytes: u64) -> bool {
    let limited = format!("ulimit -d {kilobytes} && exec \"$0\" expire \"$@\"");
    let mut command = command("sh");
    command
        .env("PGARK_CONFIG", repo.config())
        .arg("-c")
        .arg(limited)
        .arg(program_path("pgark"))
        .args(arguments);
    command.output().expect("run sh").status.success()
}
