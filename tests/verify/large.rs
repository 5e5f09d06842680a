//! Memory goes by the number of jobs, not by what is stored.

use crate::harness::*;
use crate::scene::*;

/// Kilobytes of heap that two jobs may take.
const MEMORY: u64 = 20 << 10;

fn made(segments: u64, backups: u64) -> TestRepo {
    let repo = TestRepo::init();
    Generator { segments, backups, timelines: 2, holes: 1, ..Generator::default() }.fill(repo.root());
    repo
}

/// The exit status of the real program with so many kilobytes of heap, its data segment included.
fn within(repo: &TestRepo, kilobytes: u64) -> Option<i32> {
    let limited = format!("ulimit -d {kilobytes} && exec \"$0\" verify --jobs 2 --deep");
    let mut command = command("sh");
    command.env("PGARK_CONFIG", repo.config()).arg("-c").arg(limited).arg(program_path("pgark"));
    command.output().expect("run sh").status.code()
}

#[test]
fn many_segments_and_backups_take_no_more_memory_than_few() {
    let (small, large) = (made(8, 2), made(1000, 200));
    // There is a hole in each.
    assert_eq!(within(&small, MEMORY), Some(5));
    assert_eq!(within(&large, MEMORY), Some(5));
    assert_ne!(within(&small, 1 << 10), Some(5), "this limit does not limit");
    let verified = verify(&large, &[]);
    assert_eq!(verified.damaged(), [], "{}", verified.outcome);
    assert_eq!(verified.lost(), Vec::<String>::new());
    assert_eq!(verified.system()["holes"]["count"], 1);
    assert_eq!(verified.system()["holes"]["first"][0]["segments"], 2);
    assert_eq!(verified.windows("before").len() + 1, verified.windows("after").len(), "the hole splits one");
}
