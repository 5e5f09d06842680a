//! Streamed parts of segments on real servers: what a restore makes of the beginning of the segment that a
//! primary was writing when it was lost.

mod harness;
mod wal;

#[path = "streamed/crossing.rs"]
mod crossing;
#[path = "streamed/fetching.rs"]
mod fetching;
#[path = "streamed/parts.rs"]
mod parts;
#[path = "streamed/refusing.rs"]
mod refusing;
// What the tests of wal-fetch need besides is of no use here.
#[allow(dead_code)]
#[path = "wal_fetch/scene.rs"]
mod scene;

use harness::*;
use parts::*;

#[test]
fn the_latest_has_the_last_streamed_commit_and_every_target_in_the_part_is_reached() {
    let lost = Lost::new(|builder| builder);
    let plan = lost.dry_run(&[]);
    assert!(plan.contains(&format!("come from a streamed part of {}", lost.part.segment)), "{plan}");
    assert!(plan.contains(&format!("up to LSN {}, come", lost.part.end)), "{plan}");
    let json = lost.dry_run(&["--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["plan"]["streamed"]["end_lsn"], lost.part.end.to_string());
    assert_eq!(json["plan"]["last_segment"], lost.part.segment.to_string());

    let xid = lost.xid.to_string();
    let cases: [(&str, Vec<&str>, &str); 6] = [
        ("latest", vec![], "archived first second"),
        ("time", vec!["--target-time", &lost.between], "archived first"),
        ("later", vec!["--target-time", "0 seconds ago"], "archived first second"),
        ("lsn", vec!["--target-lsn", &lost.between_lsn, "--exclusive"], "archived first"),
        ("xid", vec!["--target-xid", &xid, "--action", "pause"], "archived first second"),
        ("name", vec!["--target-name", "between", "--action", "pause"], "archived first"),
    ];
    // A primary that is down is of no use to other threads.
    let Lost { repo, scratch, part, .. } = &lost;
    side_by_side(
        &cases,
        |case| case.0,
        |(name, arguments, expected)| {
            let restored = repo.restore(scratch, name, arguments);
            assert_eq!(&names(&restored), expected);
            let command = restored.psql("show restore_command");
            assert!(command.contains(&format!("--streamed {part} ")), "{command}");
            restored.assert_checksums();
        },
    );
}

#[test]
fn after_a_takeover_archiving_goes_on_whatever_becomes_of_the_old_segment() {
    let lost = Lost::new(|builder| builder);
    let next = lost.restore("next", &["--takeover"]);
    assert_eq!(names(&next), "archived first second");
    note(&next, "third");
    let first = next.archive_everything();
    assert_eq!(first.get(..8), Some("00000002"));
    assert_eq!(first.get(8..), lost.part.segment.to_string().get(8..), "it begins in the streamed segment");
    lost.repo.only("/00000002.history");
    lost.repo.only(&format!("/{first}.zst"));
    // It came from the archive: PostgreSQL archives neither it nor a .partial of it.
    let old = lost.part.segment.to_string();
    assert_eq!(lost.repo.matching(&old), [lost.repo.only(".streamed.")]);
    assert_eq!(next.psql("select failed_count from pg_stat_archiver"), "0");
    assert_eq!(names(&lost.restore("both", &[])), "archived first second third");

    // The old primary comes back, and archives the whole segment.
    lost.primary.start();
    note(&lost.primary, "after all");
    lost.primary.archive_everything();
    lost.repo.only(&format!("/{old}.zst"));
    assert_eq!(lost.sweep(), 1);
    assert_eq!(lost.repo.matching(".streamed."), [""; 0]);
    note(&next, "fourth");
    next.archive_everything();
    assert_eq!(names(&lost.restore("newest", &[])), "archived first fourth second third");
    let branch = lost.restore("branch", &["--target-timeline", "1"]);
    assert_eq!(names(&branch), "after all archived first second");
}

#[test]
fn a_part_of_the_new_timeline_ends_it() {
    let lost = Lost::new(|builder| builder);
    let next = lost.restore("next", &["--takeover"]);
    // Not even a whole segment of timeline 2, and the rest of it is lost again.
    note(&next, "third");
    let part = flushed(&next);
    assert_eq!(part.segment.timeline.0, 2);
    let wal = segment_file(&next, part);
    next.stop(Stop::Immediate);
    lost.store(part, &wal);
    let plan = lost.dry_run(&[]);
    assert!(plan.contains(&format!("a streamed part of {}", part.segment)), "{plan}");
    let last = lost.restore("last", &[]);
    assert_eq!(names(&last), "archived first second third");
    assert_eq!(last.psql("select timeline_id from pg_control_checkpoint()"), "3");
}

#[test]
fn the_whole_segment_is_preferred_whenever_it_comes() {
    let lost = Lost::new(|builder| builder);
    let target = lost.scratch.join("waiting");
    run(lost.restoring("waiting").arg("--no-start")).succeeds();

    lost.primary.start();
    note(&lost.primary, "after all");
    lost.primary.archive_everything();
    let plan = lost.dry_run(&[]);
    assert!(!plan.contains("streamed"), "{plan}");
    assert_eq!(names(&lost.restore("whole", &[])), "after all archived first second");

    // What was planned with the part ends where it was planned to end, with the part and without.
    assert_eq!(lost.sweep(), 1);
    let waiting = Cluster::adopt_stopped(&target);
    waiting.start();
    waiting.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(names(&waiting), "archived first second");
}

#[test]
fn a_longer_part_stands_in_for_the_one_that_was_planned_with() {
    let lost = Lost::new(|builder| builder);
    let target = lost.scratch.join("waiting");
    run(lost.restoring("waiting").arg("--no-start")).succeeds();
    lost.primary.start();
    note(&lost.primary, "after all");
    let longer = flushed(&lost.primary);
    let wal = segment_file(&lost.primary, longer);
    lost.primary.crash();
    lost.store(longer, &wal);
    assert_eq!(lost.sweep(), 1);
    let waiting = Cluster::adopt_stopped(&target);
    waiting.start();
    waiting.wait_sql("select pg_is_in_recovery()", "f");
    assert_eq!(names(&waiting), "archived first second");
    assert_eq!(names(&lost.restore("longer", &[])), "after all archived first second");
}
