//! The choice, over archives in memory.

use super::fake::Record::{End, Other, Point};
use super::fake::{Fake, lsn, name, second};
use super::*;
use crate::error::Kind;

fn aim(target: Target) -> Aim {
    Aim { target, inclusive: true, timeline: None }
}

fn plan(fake: &Fake, aim: &Aim) -> Result<Choice> {
    choose(fake, &fake.histories, &fake.backups, aim, second(1_000_000))
}

fn to(fake: &Fake, target: Target) -> Result<Choice> {
    plan(fake, &aim(target))
}

/// Backup, timeline and last segment: what most tests look at.
fn short(choice: Result<Choice>) -> (String, u32, u64) {
    let choice = choice.expect("reachable");
    (choice.backup.label.to_string(), choice.path.timeline().0, *choice.segments.end())
}

fn short_is(label: &str, timeline: u32, last: u64) -> (String, u32, u64) {
    (label.to_string(), timeline, last)
}

/// Three segments with a backup in the first, then one in the third:
/// 1: a(1) backup  2: end 10@100, end 11@110  3: second backup, end 12@300  4: end 13@400
fn simple() -> Fake {
    Fake::new()
        .segment(1, 1, &[Other, End(9, 50), Other, Other])
        .segment(1, 2, &[End(10, 100), Point("p", 105), End(11, 110), Other])
        .segment(1, 3, &[Other, Other, Other, End(12, 300)])
        .segment(1, 4, &[Point("p", 350), End(13, 400), Other])
        .backup("one", 1, lsn(1, 0), lsn(1, 3), 60)
        .backup("two", 1, lsn(3, 0), lsn(3, 2), 200)
}

#[test]
fn without_a_target_the_newest_backup_goes_to_the_last_record() {
    let choice = to(&simple(), Target::Latest).expect("reachable");
    assert_eq!(choice.backup.label.as_str(), "two");
    assert_eq!(choice.segments, 3..=4);
    assert_eq!(choice.stop, Stop::End { last_record: lsn(4, 2) });
}

#[test]
fn immediate_stops_at_the_first_record_behind_the_newest_backup() {
    let choice = to(&simple(), Target::Immediate).expect("reachable");
    assert_eq!((choice.segments.clone(), choice.stop), (3..=3, Stop::Consistent));
    // Without a record behind it PostgreSQL would not notice: the last record is the target then.
    let fake = Fake::new().segment(1, 1, &[Other, Other]).backup("b", 1, lsn(1, 0), lsn(1, 2), 60);
    let choice = to(&fake, Target::Immediate).expect("reachable");
    assert_eq!(choice.stop, Stop::End { last_record: lsn(1, 1) });
}

#[test]
fn a_time_is_reached_from_the_newest_backup_that_ended_before_it() {
    let at = |seconds| to(&simple(), Target::Time(second(seconds)));
    for (seconds, expected) in [
        (60, short_is("one", 1, 2)),
        (99, short_is("one", 1, 2)),
        (110, short_is("one", 1, 3)),
        (199, short_is("one", 1, 3)),
        (200, short_is("two", 1, 3)),
        (300, short_is("two", 1, 4)),
        (400, short_is("two", 1, 4)),
    ] {
        assert_eq!(short(at(seconds)), expected, "{seconds}");
    }
    let Stop::At(landmark) = at(105).expect("reachable").stop else { panic!("no landmark") };
    assert_eq!((landmark.lsn, landmark.xid, landmark.time), (lsn(2, 2), Some(11), Some(second(110))));
}

#[test]
fn exclusive_stops_before_a_transaction_that_ended_at_the_very_time() {
    let stop = |inclusive| {
        let aim = Aim { inclusive, ..aim(Target::Time(second(110))) };
        plan(&simple(), &aim).expect("reachable").lsn()
    };
    assert_eq!(stop(true), lsn(3, 3));
    assert_eq!(stop(false), lsn(2, 2));
}

#[test]
fn a_time_behind_the_last_transaction_is_the_end_of_the_archive() {
    let choice = to(&simple(), Target::Time(second(401))).expect("reachable");
    assert_eq!(choice.stop, Stop::End { last_record: lsn(4, 2) });
    let error = to(&simple(), Target::Time(second(1_000_001))).expect_err("the future");
    assert!(error.message().contains("has not come yet"), "{error}");
}

#[test]
fn a_time_before_the_oldest_backup_is_refused_with_what_can_be_reached() {
    let error = to(&simple(), Target::Time(second(59))).expect_err("too early");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.message().contains("lies before the end of the oldest backup"), "{error}");
    let hint = error.hint().expect("what can be reached");
    for part in
        ["timeline 1 from 1970-01-01T00:01:00", "end of backup one", "to 1970-01-01T00:06:40", "LSN 0/500000"]
    {
        assert!(hint.contains(part), "{hint}");
    }
}

#[test]
fn a_backup_that_saw_later_transactions_is_not_taken_whatever_its_clock_said() {
    // The standby's clock was behind: transaction 12 ended, by the primary's clock, after the backup did.
    let fake = Fake::new()
        .segment(1, 1, &[Other, End(11, 90), Other, Other])
        .segment(1, 2, &[Other, End(12, 130), Other, Other])
        .backup("one", 1, lsn(1, 0), lsn(1, 3), 95)
        .backup("two", 1, lsn(2, 0), lsn(2, 3), 100);
    assert_eq!(short(to(&fake, Target::Time(second(120)))), short_is("one", 1, 2));
}

#[test]
fn an_lsn_needs_a_record_that_begins_there_or_behind() {
    let at = |lsn| to(&simple(), Target::Lsn(lsn));
    assert_eq!(short(at(lsn(1, 3))), short_is("one", 1, 1));
    assert_eq!(short(at(lsn(2, 3))), short_is("one", 1, 2));
    // Behind the last record of segment 2: the next one begins in segment 3.
    assert_eq!(short(at(Lsn(lsn(2, 3).0 + 1))), short_is("one", 1, 3));
    assert_eq!(short(at(lsn(3, 2))), short_is("two", 1, 3));
    let error = at(Lsn(lsn(1, 3).0 - 1)).expect_err("before the first backup's end");
    assert!(
        error.message().contains("oldest backup") && error.hint().is_some_and(|hint| hint.contains("LSN"))
    );
}

#[test]
fn an_lsn_behind_the_last_record_is_the_end_of_the_archive_only_up_to_its_last_byte() {
    let end = Lsn(5 * fake::SEGMENT);
    let choice = to(&simple(), Target::Lsn(end)).expect("what pg_switch_wal returned");
    assert_eq!(choice.stop, Stop::End { last_record: lsn(4, 2) });
    let error = to(&simple(), Target::Lsn(Lsn(end.0 + 1))).expect_err("behind the archive");
    assert!(error.message().contains("is not in the archive"), "{error}");
}

#[test]
fn a_transaction_is_searched_from_the_newest_backup_back() {
    let xid = |xid| to(&simple(), Target::Xid(super::super::target::Xid(xid)));
    assert_eq!(short(xid(13)), short_is("two", 1, 4));
    assert_eq!(short(xid(12)), short_is("two", 1, 3));
    assert_eq!(short(xid(10)), short_is("one", 1, 2));
    let error = xid(9).expect_err("ended before the first backup was consistent");
    assert!(error.message().contains("before the end of the oldest backup"), "{error}");
    let error = xid(77).expect_err("never ended");
    assert!(error.message().contains("transaction 77 is not in the archive"), "{error}");
}

#[test]
fn of_two_restore_points_of_a_name_the_one_behind_the_newest_backup_counts() {
    let target = Target::Name("p".parse().expect("a name"));
    assert_eq!(short(to(&simple(), target.clone())), short_is("two", 1, 4));
    let mut older = simple();
    older.backups.truncate(1);
    assert_eq!(short(to(&older, target)), short_is("one", 1, 2));
}

#[test]
fn a_record_that_spills_into_the_next_segment_needs_both() {
    let fake = Fake::new()
        .segment(1, 1, &[Other, Other, Other])
        .segment(1, 2, &[End(10, 100), End(11, 110)])
        .spilling(1, 2)
        .segment(1, 3, &[Other])
        .backup("one", 1, lsn(1, 0), lsn(1, 2), 60);
    let by_time = to(&fake, Target::Time(second(105)));
    assert_eq!(by_time.as_ref().expect("reachable").lsn(), lsn(2, 1));
    assert_eq!(short(by_time), short_is("one", 1, 3));
    assert_eq!(short(to(&fake, Target::Xid(super::super::target::Xid(11)))), short_is("one", 1, 3));
    assert_eq!(short(to(&fake, Target::Lsn(lsn(2, 1)))), short_is("one", 1, 3));
    // Its second half is not archived: the end is the record before it.
    let cut = fake.without(1, 3);
    assert_eq!(to(&cut, Target::Latest).map(|choice| choice.lsn()), Ok(lsn(2, 0)));
    assert!(to(&cut, Target::Xid(super::super::target::Xid(11))).is_err());
}

#[test]
fn a_hole_is_refused_unless_the_target_lies_before_or_a_backup_behind_it() {
    let fake = simple().without(1, 2);
    assert_eq!(short(to(&fake, Target::Latest)), short_is("two", 1, 4));
    let error = to(&fake, Target::Time(second(110))).expect_err("in the hole");
    assert!(error.message().contains(&format!("{} is missing", name(1, 2))), "{error}");
    let hint = error.hint().expect("windows");
    assert_eq!(hint.matches("timeline 1 from").count(), 2, "{hint}");

    let mut fake = simple().without(1, 3);
    fake.backups.truncate(1);
    assert_eq!(short(to(&fake, Target::Time(second(105)))), short_is("one", 1, 2));
    for target in [Target::Latest, Target::Time(second(200)), Target::Lsn(lsn(4, 0))] {
        let error = to(&fake, target).expect_err("behind the hole");
        assert!(error.message().contains("is missing from the archive: somebody knows"), "{error}");
    }
}

#[test]
fn a_backup_that_lacks_its_own_wal_is_no_backup() {
    let fake = simple().without(1, 3);
    let error = to(&fake, Target::Latest).expect_err("a hole");
    assert!(error.message().contains(&name(1, 3).to_string()), "{error}");
    assert_eq!(short(to(&fake, Target::Immediate)), short_is("one", 1, 1));
    let none = Fake::new().segment(1, 1, &[Other]);
    let error = to(&none, Target::Latest).expect_err("no backup");
    assert!(error.message().contains("no backup can be used"), "{error}");
}

/// Timeline 1 went on after timeline 2 left it at record 2 of segment 2.
fn forked() -> Fake {
    simple()
        .segment(2, 2, &[End(10, 100), Point("p", 105), Other, End(21, 500)])
        .segment(2, 3, &[End(22, 600), Other])
        .history(2, &[(1, lsn(2, 2))])
}

#[test]
fn the_newest_timeline_is_the_default_and_its_backups_are_those_before_the_fork() {
    let fake = forked();
    assert_eq!(short(to(&fake, Target::Latest)), short_is("one", 2, 3));
    assert_eq!(short(to(&fake, Target::Time(second(550)))), short_is("one", 2, 3));
    let one = Aim { timeline: Some(Timeline(1)), ..aim(Target::Time(second(300))) };
    assert_eq!(short(plan(&fake, &one)), short_is("two", 1, 4));
    let error = plan(&fake, &Aim { timeline: Some(Timeline(7)), ..one }).expect_err("unknown");
    assert!(error.hint().is_some_and(|hint| hint.contains("1, 2")), "{error:?}");
}

#[test]
fn what_only_an_older_timeline_has_is_found_there() {
    let fake = forked();
    assert_eq!(short(to(&fake, Target::Xid(super::super::target::Xid(13)))), short_is("two", 1, 4));
    assert_eq!(short(to(&fake, Target::Lsn(lsn(4, 1)))), short_is("two", 1, 4));
    // Both have the LSN: the newer one counts.
    assert_eq!(short(to(&fake, Target::Lsn(lsn(3, 0)))), short_is("one", 2, 3));
}

#[test]
fn a_target_before_the_fork_is_planned_on_the_timeline_that_holds_it() {
    let mut fake = forked();
    fake = fake.segment(1, 1, &[Other, End(9, 50), Other, Other, End(91, 70)]);
    assert_eq!(short(to(&fake, Target::Lsn(lsn(1, 4)))), short_is("one", 1, 1));
    let told = Aim { timeline: Some(Timeline(2)), ..aim(Target::Lsn(lsn(1, 4))) };
    assert_eq!(short(plan(&fake, &told)), short_is("one", 2, 1));
    // In the segment of the fork only the newer timeline's file is sure to be there.
    assert_eq!(short(to(&fake, Target::Lsn(lsn(2, 0)))), short_is("one", 2, 2));
}

#[test]
fn a_timeline_of_which_nothing_is_archived_is_not_chosen() {
    let fake = forked().history(3, &[(1, lsn(2, 2)), (2, lsn(3, 1))]);
    assert_eq!(short(to(&fake, Target::Latest)), short_is("one", 2, 3));
}

#[test]
fn a_hole_in_the_newest_timeline_never_leads_to_an_older_one_in_silence() {
    let fake = forked().without(2, 2);
    let error = to(&fake, Target::Latest).expect_err("a hole");
    assert!(error.message().contains(&name(2, 2).to_string()), "{error}");
    let error = to(&fake, Target::Time(second(300))).expect_err("a hole");
    assert!(error.message().contains(&name(2, 2).to_string()), "{error}");
    let told = Aim { timeline: Some(Timeline(1)), ..aim(Target::Latest) };
    assert_eq!(short(plan(&fake, &told)), short_is("two", 1, 4));
}

#[test]
fn windows_list_what_a_timeline_shares_with_its_parent_once() {
    let fake = forked();
    let windows = window::windows(&fake, &fake.histories, &fake.backups).expect("read");
    let told: Vec<String> = windows.iter().map(ToString::to_string).collect();
    assert_eq!(windows.len(), 2, "{told:?}");
    assert_eq!((windows[0].timeline, windows[0].to_lsn), (Timeline(1), Lsn(5 * fake::SEGMENT)));
    assert_eq!((windows[1].timeline, windows[1].to_time), (Timeline(2), Some(second(600))));
}

/// As [`simple`], but segment 4 is there only up to behind its second record.
fn streamed() -> Fake {
    simple().segment(1, 4, &[Point("p", 350), End(13, 400)]).streamed(1, 4, lsn(4, 2))
}

#[test]
fn what_was_streamed_of_the_last_segment_is_part_of_the_archive() {
    let fake = streamed();
    let choice = to(&fake, Target::Latest).expect("reachable");
    assert_eq!((choice.segments, choice.stop), (3..=4, Stop::End { last_record: lsn(4, 1) }));
    assert_eq!(short(to(&fake, Target::Time(second(399)))), short_is("two", 1, 4));
    assert_eq!(short(to(&fake, Target::Lsn(lsn(4, 1)))), short_is("two", 1, 4));
    assert_eq!(
        to(&fake, Target::Lsn(lsn(4, 2))).expect("its end").stop,
        Stop::End { last_record: lsn(4, 1) }
    );
    let error = to(&fake, Target::Lsn(Lsn(lsn(4, 2).0 + 1))).expect_err("behind the part");
    assert!(error.message().contains("is not in the archive"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains(&format!("LSN {}", lsn(4, 2)))), "{error:?}");
}

#[test]
fn a_backup_that_ends_behind_what_was_streamed_is_not_used() {
    let mut fake = streamed().backup("three", 1, lsn(4, 0), lsn(4, 3), 500);
    assert_eq!(short(to(&fake, Target::Latest)), short_is("two", 1, 4));
    fake.backups.drain(..2);
    let error = to(&fake, Target::Latest).expect_err("no other");
    assert!(error.message().contains(&format!("{} is missing", name(1, 4))), "{error}");
    // Up to the very end is enough.
    let fake = streamed().backup("three", 1, lsn(4, 0), lsn(4, 2), 500);
    assert_eq!(short(to(&fake, Target::Latest)), short_is("three", 1, 4));
}

#[test]
fn a_commit_that_ends_where_streaming_ended_is_the_last_record() {
    let fake = Fake::new()
        .segment(1, 1, &[Other, Other])
        .segment(1, 2, &[Other, End(10, 100)])
        .spilling(1, 2)
        .backup("b", 1, lsn(1, 0), lsn(1, 1), 60);
    let last = |fake: &Fake| to(fake, Target::Latest).expect("reachable").stop;
    assert_eq!(last(&fake), Stop::End { last_record: lsn(2, 0) }, "the rest of it was not archived");
    let fake = fake.segment(1, 3, &[]).streamed(1, 3, Lsn(3 * fake::SEGMENT + 64));
    assert_eq!(last(&fake), Stop::End { last_record: lsn(2, 1) });
}
