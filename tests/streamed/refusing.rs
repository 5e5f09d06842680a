//! Where a streamed part is not used, and that the plan says why; and parts that are damaged.

use crate::harness::*;
use crate::parts::*;

#[test]
fn a_server_that_archives_always_would_archive_the_padded_segment() {
    let lost = Lost::new(|builder| builder.set("archive_mode", "always"));
    let not_used = format!(
        "segment {} was streamed up to {}, but that part is not used",
        lost.part.segment, lost.part.end
    );
    let plan = lost.dry_run(&["--takeover"]);
    assert!(plan.contains(&not_used) && plan.contains("archive_mode = always"), "{plan}");
    assert!(!plan.contains("come from a streamed part"), "{plan}");
    let said = run(lost.restoring("dry").args(["--takeover", "--target-lsn", &lost.part.end.to_string()]))
        .fails_with(3, "is not in the archive");
    assert!(said.contains("what can be reached") && said.contains(&not_used), "{said}");
    // A quarantined server archives nothing, and this one archives like most.
    for arguments in [&["--dry-run"][..], &["--takeover", "--set", "archive_mode=on"]] {
        let plan = lost.dry_run(arguments.strip_prefix(&["--dry-run"]).unwrap_or(arguments));
        assert!(plan.contains("come from a streamed part") && !plan.contains(&not_used), "{plan}");
    }
    let without = lost.restore("without", &["--takeover"]);
    assert_eq!(names(&without), "archived");
    drop(without);
    assert_eq!(
        names(&lost.restore("with", &["--takeover", "--set", "archive_mode=on"])),
        "archived first second"
    );
    assert_eq!(lost.repo.matching(&lost.part.segment.to_string()).len(), 1, "{:?}", lost.repo.list());
}

#[test]
fn archive_mode_that_was_to_become_always_is_kept_on() {
    let lost = Lost::new(|builder| builder);
    // As if somebody had changed the file after the server was started, and before the backup.
    lost.primary.start();
    lost.primary.psql("alter system set archive_mode = 'always'");
    run(lost.repo.basebackup(&lost.primary).args(["--label", "two"])).succeeds();
    note(&lost.primary, "third");
    let part = flushed(&lost.primary);
    let wal = segment_file(&lost.primary, part);
    lost.primary.crash();
    lost.store(part, &wal);
    let next = lost.restore("next", &["--takeover"]);
    assert_eq!(names(&next), "archived first second third");
    assert_eq!(next.psql("show archive_mode"), "on");
    assert_eq!(lost.repo.matching(&part.segment.to_string()).len(), 1, "{:?}", lost.repo.list());
}

#[test]
fn a_standby_gets_no_part() {
    let lost = Lost::new(|builder| builder);
    let plan = lost.dry_run(&["--standby"]);
    assert!(plan.contains("that part is not used: a standby goes on behind it"), "{plan}");
    let standby = lost.restore("standby", &["--standby"]);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    assert_eq!(names(&standby), "archived");
    // The primary comes back, and the standby goes on with what it archives.
    lost.primary.start();
    lost.primary.archive_everything();
    standby.wait_sql("select string_agg(name, ' ' order by name) from t", "archived first second");
}

#[test]
fn a_part_behind_which_the_timeline_was_left_is_not_its_end() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    primary.psql("create table t (name text)");
    run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
    note(&primary, "archived");
    primary.archive_everything();
    let standby = primary.standby().restore_from(&repo).start();
    note(&primary, "streamed");
    let part = flushed(&primary);
    let wal = segment_file(&primary, part);
    note(&primary, "more");
    primary.wait_replayed_by(&standby);
    primary.crash();
    store(&repo, part, &wal);
    standby.promote();
    note(&standby, "promoted");
    standby.archive_everything();

    let scratch = Scratch::new();
    let mut command = repo.bootstrap_restore();
    command.arg("-D").arg(scratch.join("dry")).arg("--dry-run").args(["--target-timeline", "1"]);
    let plan = run(&mut command).succeeds();
    assert!(plan.contains("that part is not used: timeline 2 left timeline 1 behind it"), "{plan}");
    let restored = repo.restore(&scratch, "latest", &[]);
    assert_eq!(names(&restored), "archived more promoted streamed");
}

#[test]
fn a_damaged_part_is_said_to_be_damaged_before_anything_is_written() {
    let lost = Lost::new(|builder| builder);
    let key = lost.repo.only(".streamed.");
    let whole = lost.repo.read(&key);
    for (damage, message) in [
        (Damage::FlipByte(500), "is damaged: its checksum does not match"),
        (Damage::Truncate(4000), "is damaged"),
        (Damage::FlipByte(4100), "could not decompress"),
        (Damage::Truncate(4110), "could not decompress"),
    ] {
        lost.repo.damage(&key, damage);
        let said = run(&mut lost.restoring("damaged")).fails_with(5, message);
        assert!(!lost.scratch.join("damaged").exists(), "nothing is written before that is known");
        assert!(said.contains(&lost.part.segment.to_string()), "{said}");
        assert!(said.contains("out of the repository"), "{damage:?}: {said}");
        lost.repo.scratch().write(lost.repo.path(&key), &whole);
    }
    assert_eq!(names(&lost.restore("whole", &[])), "archived first second");
    // Without it, the rest can be had.
    lost.repo.damage(&key, Damage::Delete);
    assert_eq!(names(&lost.restore("without", &[])), "archived");
}
