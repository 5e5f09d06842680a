//! A large archive that a generator made: what `info` says of it is right, and it needs little memory.

use super::*;

/// Kilobytes of heap that `info` may take.
const MEMORY: u64 = 16 << 10;

#[test]
fn twenty_thousand_segments_and_four_hundred_backups_are_told_right_in_little_memory() {
    let repo = TestRepo::init();
    let made = Generator { segments: 20_000, backups: 400, timelines: 3, holes: 2, ..Generator::default() };
    made.fill(repo.root());
    let found = incarnation(&repo);
    assert_eq!(each(&found["timelines"], "segments"), [6664, 6667, 6665]);
    assert_eq!(each(&found["timelines"], "history_known"), [true, true, true]);
    assert_eq!(each(&found["timelines"], "raw_bytes")[0], 6664_u64 << 24);
    assert_eq!(found["backups"].as_array().map(Vec::len), Some(400));
    for (place, backup) in found["backups"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(backup["label"], format!("b{place:04}"));
        assert_eq!((&backup["missing_packs"], &backup["missing_wal"]), (&Value::from(0), &Value::Null));
    }
    assert_eq!(found["stored"]["unreferenced_packs_bytes"], 0);
    assert_eq!(found["stored"]["packs"], 400);
    assert_eq!(each(&found["holes"], "segments"), [2, 2]);
    assert_eq!(each(&found["holes"], "timeline"), [1, 3]);
    let windows: Vec<usize> = each(&found["paths"], "windows")
        .iter()
        .map(|windows| windows.as_array().expect("a list").len())
        .collect();
    assert_eq!(windows, [2, 1, 2], "each hole ends a window; what is shared is told once");
    assert_eq!(found["paths"][0]["windows"][0]["missing"], found["holes"][0]["first_segment"]);
    assert_eq!(found["paths"][2]["windows"][1]["missing"], Value::Null);
    let days = found["days"].as_array().expect("a list");
    assert!((30..=31).contains(&days.len()), "{days:?}");
    assert_eq!(days.iter().filter_map(|day| day["segments"].as_u64()).sum::<u64>(), 19_996);
    let rate = found["timelines"][2]["raw_bytes_per_day"].as_u64().expect("a number") as f64;
    let expected = 20_000.0 / 30.0 * (16 << 20) as f64;
    assert!((0.95..1.05).contains(&(rate / expected)), "{rate} bytes a day, expected {expected}");

    assert!(succeeds_within(&repo, MEMORY), "info takes more than {MEMORY} kB of memory");
    assert!(!succeeds_within(&repo, 256), "this limit does not limit");
}

/// Whether the real program gets along with so many kilobytes of heap, its data segment included. The peak that
/// getrusage tells is at least that of this process, from which it was forked.
fn succeeds_within(repo: &TestRepo, kilobytes: u64) -> bool {
    let limited = format!("ulimit -d {kilobytes} && exec \"$0\" info");
    let mut command = command("sh");
    command.env("PGARK_CONFIG", repo.config()).arg("-c").arg(limited).arg(program_path("pgark"));
    command.output().expect("run sh").status.success()
}

#[test]
fn old_backups_are_left_out_unless_asked_for() {
    let repo = TestRepo::init();
    Generator { segments: 120, backups: 30, ..Generator::default() }.fill(repo.root());
    run(&mut repo.pgark(&["pin", "b0003", "--note", "the year's end"])).succeeds();
    let short = text(&repo, &[]);
    assert!(short.contains("b0003") && short.contains("pinned: the year's end"), "{short}");
    assert!(short.contains("b0029") && short.contains("b0010") && !short.contains("b0009"), "{short}");
    assert!(short.contains("and 9 older ones: --all lists them"), "{short}");
    let all = text(&repo, &["--all"]);
    assert!(all.contains("b0000") && all.contains("b0009") && !all.contains("--all lists"), "{all}");
}
