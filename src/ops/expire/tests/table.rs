//! A table of plans.

use super::world::*;
use crate::ops::expire::facts::Restoring;
use crate::pg::lsn::Timeline;
use crate::repo::lease::NeededWal;

/// A backup a day, on the days of November from the first on, in segments 10, 20, 30, …; WAL is stored from segment 5
/// to the one before the next backup.
fn daily(days: u64) -> World {
    let mut world = World::new().wal(1, 5..=9, "2026-11-01");
    for day in 1..=days {
        let date = format!("2026-11-{day:02}");
        world = world.backup(&format!("d{day}"), 1, day * 10, &date).wal(1, day * 10..=day * 10 + 9, &date);
    }
    world
}

#[track_caller]
fn check(world: &World, rules: &str, expected: (&str, &str)) {
    let plan = world.plan(&policy(rules));
    assert_eq!((kept(&plan).as_str(), gone(&plan).as_str()), expected, "{rules}");
}

#[test]
fn plans_of_a_cluster_that_never_failed_over() {
    let world = daily(20);
    for (rules, backups, wal) in [
        ("last 1", "d20", "1:5-199"),
        ("last 3", "d18 d19 d20", "1:5-179"),
        ("last 100", ALL, "1:5-9"),
        ("daily 2", "d19 d20", "1:5-189 1:192-199"),
        ("weekly 2", "d15 d20", "1:5-149 1:152-199"),
        ("weekly 3", "d8 d15 d20", "1:5-79 1:82-149 1:152-199"),
        ("monthly 2", "d20", "1:5-199"),
        ("yearly 1", "d20", "1:5-199"),
        ("window 1", "d19 d20", "1:5-189"),
        ("window 7", "d13 d14 d15 d16 d17 d18 d19 d20", "1:5-129"),
        ("window 400", ALL, "1:5-9"),
        ("window 2, weekly 3", "d8 d15 d18 d19 d20", "1:5-79 1:82-149 1:152-179"),
        ("last 1, window 1", "d19 d20", "1:5-189"),
    ] {
        check(&world, rules, (backups, wal));
    }
}

const ALL: &str = "d1 d2 d3 d4 d5 d6 d7 d8 d9 d10 d11 d12 d13 d14 d15 d16 d17 d18 d19 d20";

#[test]
fn the_reasons_say_which_rule_keeps_a_backup() {
    let plan = daily(20).plan(&policy("last 2, daily 1, weekly 2, window 3"));
    let why = |label: &str| {
        let verdict = plan.verdicts.iter().find(|verdict| verdict.label == name(label)).expect("that backup");
        verdict.why().join("; ")
    };
    assert_eq!(why("d20"), "the last; in the recovery window; last of day 2026-11-20; last of week 2026-W47");
    assert_eq!(why("d19"), "last but 1; in the recovery window");
    assert_eq!(why("d17"), "the recovery window begins with it");
    assert_eq!(why("d15"), "last of week 2026-W46");
    assert_eq!(why("d1"), "no rule keeps it");
}

#[test]
fn the_window_says_since_when_it_is_covered() {
    let since = |rules: &str| {
        let plan = daily(5).plan(&policy(rules));
        let window = plan.windows.first().expect("a window").clone();
        (window.backup.to_string(), window.since, window.wanted)
    };
    let wanted = at("2026-11-02");
    assert_eq!(since("window 3"), ("d2".into(), wanted, wanted));
    assert_eq!(since("window 30"), ("d1".into(), at("2026-11-01"), at("2026-10-06")));
}

#[test]
fn several_backups_of_a_day_leave_the_last_in_the_order_of_the_wal() {
    let world = World::new()
        .backup("morning", 1, 10, "2026-11-01T06:00:00Z")
        .backup("z-noon", 1, 20, "2026-11-01T12:00:00Z")
        .backup("a-night", 1, 30, "2026-11-01T23:59:59Z")
        .backup("next", 1, 40, "2026-11-02T00:00:00Z");
    check(&world, "daily 2", ("a-night next", "1:10-11 1:20-21"));
}

#[test]
fn pins_and_restores_keep_what_no_rule_does() {
    let world = daily(9).pin("d2", None).pin("d3", Some("2026-11-09")).pin("d4", Some("2026-12-01"));
    check(&world, "last 1", ("d2 d4 d9", "1:5-19 1:22-39 1:42-89"));
    let mut world = daily(9);
    let wal = NeededWal { first: segment(1, 60), timeline: Timeline(1) };
    world.restores.push(Restoring { label: name("d6"), wal, who: "somebody".into() });
    check(&world, "last 1", ("d6 d9", "1:5-59"));
    world.restores[0].wal.timeline = Timeline(7);
    check(&world, "last 1", ("d6 d9", ""));
}

#[test]
fn a_record_behind_the_backup_that_is_not_known_keeps_the_wal_to_the_end() {
    let world = daily(9).without(1, 31).pin("d3", None);
    let plan = world.plan(&policy("last 1"));
    assert_eq!((kept(&plan).as_str(), gone(&plan).as_str()), ("d3 d9", "1:5-29"));
    assert!(
        plan.notes.iter().any(|note| note.contains("which record follows backup d3")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn what_can_not_be_restored_counts_for_no_rule_but_the_newest_stays() {
    let world = daily(6).without(1, 50).damaged("d3");
    check(&world, "last 2", ("d4 d6", "1:5-39"));
    check(&world, "last 3", ("d2 d4 d6", "1:5-19"));
    check(&world, "daily 2", ("d4 d6", "1:5-39 1:42-49 1:51-59"));
    // Those in the window stay, good or not.
    check(&world, "window 2", ("d4 d5 d6", "1:5-39"));
    let newest = daily(6).without(1, 60).without(1, 50);
    check(&newest, "last 1", ("d4 d5 d6", "1:5-39"));
    let why = &newest.plan(&policy("last 1")).verdicts[5];
    assert_eq!(why.why(), ["can't be restored, but nothing newer of timeline 1 can be"]);
    assert_eq!(why.trouble.as_deref(), Some("00000001000000000000003C is missing"));
}

#[test]
fn without_a_good_backup_nothing_goes() {
    let world = daily(2).without(1, 10).damaged("d2");
    check(&world, "last 1", ("d1 d2", ""));
    check(&World::new().wal(1, 1..=9, "2026-11-01"), "last 1", ("", ""));
}

/// A week of backups, then a failover in segment 75; on the new timeline a backup a day from the eighth on.
fn failed_over(days: u64) -> World {
    let mut world = daily(7).fork(2, 1, 75, "2026-11-07T18:00:00Z");
    for day in 8..8 + days {
        let date = format!("2026-11-{day:02}");
        world = world.backup(&format!("d{day}"), 2, day * 10, &date).wal(2, day * 10..=day * 10 + 9, &date);
    }
    world.wal(2, 75..=79, "2026-11-07T19:00:00Z")
}

#[test]
fn a_failover_is_one_line() {
    // The old timeline still counts for a week.
    check(&failed_over(3), "last 2", ("d6 d7 d9 d10", "1:5-59"));
    check(&failed_over(3), "window 2", ("d7 d8 d9 d10", "1:5-69"));
    check(&failed_over(3), "daily 5", ("d6 d7 d8 d9 d10", "1:5-59 1:62-69"));
    // Then what came behind the fork goes, and so does all before the oldest that is kept.
    check(&failed_over(12), "last 2", ("d18 d19", "1:5-79 2:75-179"));
    check(&failed_over(12), "window 3", ("d16 d17 d18 d19", "1:5-79 2:75-159"));
    check(
        &failed_over(12),
        "daily 13",
        (
            LATE,
            "1:5-69 1:72-79 2:75-79 2:82-89 2:92-99 2:102-109 2:112-119 2:122-129 2:132-139 2:142-149 2:152-159 2:162-169 2:172-179 2:182-189",
        ),
    );
    check(&failed_over(12), "window 13", ("d6 d7 d8 d9 d10 d11 d12 d13 d14 d15 d16 d17 d18 d19", "1:5-59"));
}

const LATE: &str = "d7 d8 d9 d10 d11 d12 d13 d14 d15 d16 d17 d18 d19";

#[test]
fn a_window_that_spans_a_fork_needs_the_ancestors_wal_up_to_it() {
    // d7 anchors both lines; the old one's WAL behind the fork stays while it has a part in the window.
    let world = failed_over(12);
    check(&world, "window 12", ("d7 d8 d9 d10 d11 d12 d13 d14 d15 d16 d17 d18 d19", "1:5-69"));
    check(&world, "window 11", ("d8 d9 d10 d11 d12 d13 d14 d15 d16 d17 d18 d19", "1:5-79 2:75-79"));
}

#[test]
fn a_primary_that_went_on_beside_its_successor_keeps_its_own() {
    let world = failed_over(3).backup("old", 1, 85, "2026-11-10").wal(1, 80..=95, "2026-11-10");
    check(&world, "last 1", ("old d10", "1:5-84 2:75-99"));
    check(&world, "daily 1", ("old d10", "1:5-84 2:75-99"));
    // Until nothing is heard of it any more.
    let mut later = world;
    for day in 11..=19 {
        later = later.backup(&format!("d{day}"), 2, day * 10, &format!("2026-11-{day}"));
    }
    check(
        &later,
        "last 1",
        (
            "d19",
            "1:5-95 2:75-109 2:110-111 2:120-121 2:130-131 2:140-141 2:150-151 2:160-161 2:170-171 2:180-181"
                .replace("2:75-109 2:110-111", "2:75-111")
                .as_str(),
        ),
    );
}

#[test]
fn a_restore_to_an_earlier_point_leaves_a_branch_that_expires() {
    // Restored to the middle of the fifth: d6 and d7 lie on no line that goes on.
    let mut world = daily(7).fork(2, 1, 55, "2026-11-07T18:00:00Z");
    world = world.wal(2, 55..=59, "2026-11-07T19:00:00Z");
    check(&world, "last 1", ("d5 d7", "1:5-49"));
    check(&world, "daily 7", ("d1 d2 d3 d4 d5 d6 d7", "1:5-9 1:12-19 1:22-29 1:32-39 1:42-49"));
    for day in 8..=20 {
        world = world.backup(&format!("e{day}"), 2, day * 10, &format!("2026-11-{day:02}"));
    }
    let plan = world.plan(&policy("last 1"));
    assert_eq!(kept(&plan), "e20");
    assert!(gone(&plan).starts_with("1:5-79 "), "{}", gone(&plan));
}

#[test]
fn a_timeline_that_no_backup_leads_to_keeps_its_wal_while_it_is_heard_of() {
    // Restored to before the oldest backup that is there by now.
    let mut world = daily(7).fork(2, 1, 7, "2026-11-07T18:00:00Z").wal(2, 7..=12, "2026-11-07T18:00:00Z");
    check(&world, "last 1", ("d7", "1:7-69"));
    for day in 8..=20 {
        world = world.backup(&format!("d{day}"), 1, day * 10, &format!("2026-11-{day:02}"));
    }
    let plan = world.plan(&policy("last 1"));
    assert_eq!(kept(&plan), "d20");
    assert!(gone(&plan).ends_with("2:7-12"), "{}", gone(&plan));
}

#[test]
fn an_unknown_history_keeps_the_wal_of_all_older_timelines() {
    let mut world = failed_over(12);
    world.unknown.insert(Timeline(2));
    let plan = world.plan(&policy("last 1"));
    assert_eq!(gone(&plan), "");
    // What lies on it can't be judged; what lies on known lines can.
    assert_eq!(kept(&plan), format!("{LATE}"));
    assert!(plan.notes.iter().any(|note| note.contains("timeline 2")), "{:?}", plan.notes);
    let mut world = failed_over(12);
    world.unknown.insert(Timeline(3));
    check(&world, "last 1", ("d19", ""));
}

#[test]
fn no_clock_that_jumps_makes_anything_go_that_would_stay() {
    let world = || daily(20);
    for rules in ["window 7", "last 2", "daily 3", "window 3, daily 5"] {
        let sane = world().plan(&policy(rules));
        let (backups, wal) = (kept(&sane), gone(&sane));
        // This host's clock, years ahead.
        check(&world().now("2036-01-01"), rules, (&backups, &wal));
        // The server's.
        let mut ahead = world();
        ahead.server = Some(at("2036-01-01"));
        check(&ahead, rules, (&backups, &wal));
        // Either of them back: at least as much is kept.
        let mut back = world();
        back.server = Some(at("2020-01-01"));
        for less in [back, world().now("2020-01-01")] {
            let plan = less.plan(&policy(rules));
            let is_kept = |label: &str| plan.kept().any(|verdict| verdict.label == name(label));
            assert!(backups.split(' ').all(is_kept), "{rules}");
        }
    }
}

#[test]
fn a_jump_of_all_clocks_at_once_keeps_the_window() {
    let world = daily(20).backup("j1", 1, 210, "2030-05-01").backup("j2", 1, 220, "2030-05-02");
    // A sane clock would say that j2 was made on the 22nd.
    check(&world, "window 7", ("d14 d15 d16 d17 d18 d19 d20 j1 j2", "1:5-139"));
    let notes = world.plan(&policy("window 7")).notes;
    assert!(notes.iter().any(|note| note.contains("nothing was heard")), "{notes:?}");
}

#[test]
fn a_backup_whose_time_contradicts_the_wal_is_kept_rather_than_counted() {
    // The server's clock was years ahead for one backup, and for one it was years back.
    for claims in ["2030-01-01", "2020-01-01"] {
        let mut world = daily(4).backup_that_claims("odd", 1, 50, "2026-11-05", claims);
        for day in 6..=9 {
            world = world.backup(&format!("d{day}"), 1, day * 10, &format!("2026-11-{day:02}"));
        }
        let plan = world.plan(&policy("daily 5"));
        assert_eq!(kept(&plan), "d4 odd d6 d7 d8 d9", "{claims}");
        assert!(plan.notes.iter().any(|note| note.contains("backup odd claims")), "{:?}", plan.notes);
        assert_eq!(kept(&world.plan(&policy("daily 3"))), "d7 d8 d9", "it can't be of one of these days");
        // It counts as late as the next one, so the window does not begin with it.
        assert_eq!(kept(&world.plan(&policy("window 4"))), "d4 odd d6 d7 d8 d9", "{claims}");
        assert_eq!(kept(&world.plan(&policy("window 3"))), "d6 d7 d8 d9", "{claims}");
    }
}

#[test]
fn old_backups_on_an_idle_cluster_count_from_the_last_sign_of_life() {
    let world = daily(20).now("2027-11-20");
    check(&world, "window 2", ("d18 d19 d20", "1:5-179"));
}
