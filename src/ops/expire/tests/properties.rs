//! What must hold of every plan, tried on random archives: failovers, restores to an earlier point, primaries that go
//! on beside their successors, holes, damaged backups, standby backups that begin early.

use std::ops::{ControlFlow, RangeInclusive};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::world::*;
use crate::config::Expire;
use crate::error::Result;
use crate::ops::expire::facts::{Facts, Records};
use crate::ops::expire::lines::lines;
use crate::ops::expire::plan::Plan;
use crate::ops::restore::choose::{Archive, Candidate, Visit};
use crate::ops::restore::window::{Window, windows};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::wal::{Landmark, Search, SegmentFacts, Unfinished};

#[derive(Clone, Debug)]
enum Step {
    Write {
        segments: u64,
        hours: i64,
    },
    /// `early`: it begins so many segments before the present end, as one of a standby may.
    Backup {
        early: u64,
        length: u64,
    },
    Fork {
        back: u64,
    },
    /// Goes on with another timeline.
    Switch {
        nth: usize,
    },
    Hole {
        back: u64,
    },
    Damage {
        nth: usize,
    },
    Pin {
        nth: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..6, 0i64..60).prop_map(|(segments, hours)| Step::Write { segments, hours }),
        5 => (0u64..4, 0u64..3).prop_map(|(early, length)| Step::Backup { early, length }),
        1 => (0u64..12).prop_map(|back| Step::Fork { back }),
        1 => (0usize..4).prop_map(|nth| Step::Switch { nth }),
        1 => (0u64..20).prop_map(|back| Step::Hole { back }),
        1 => (0usize..20).prop_map(|nth| Step::Damage { nth }),
        1 => (0usize..20).prop_map(|nth| Step::Pin { nth }),
    ]
}

/// As [`world`], but some servers' clocks lie about when a backup ended.
fn doubtful_world() -> impl Strategy<Value = World> {
    let lies = proptest::collection::vec((0usize..20, -400i64..400), 0..4);
    (world(), lies).prop_map(|(mut world, lies)| {
        for (nth, off) in lies {
            if let Some(backup) = world.backups.get_mut(nth) {
                backup.stop += SignedDuration::from_hours(off);
            }
        }
        world
    })
}

fn world() -> impl Strategy<Value = World> {
    proptest::collection::vec(step(), 1..60).prop_map(|steps| {
        let mut maker = Maker { world: World::new(), hours: 0, current: 1, made: 0 };
        steps.into_iter().for_each(|step| maker.step(step));
        maker.world
    })
}

struct Maker {
    world: World,
    hours: i64,
    current: u32,
    made: u32,
}

impl Maker {
    /// The first segment that the current timeline has not.
    fn end(&self) -> u64 {
        let own = self.world.segments.keys().filter(|(timeline, _)| timeline.0 == self.current);
        own.map(|(_, number)| number + 1).max().unwrap_or(1).max(self.begin() + 1)
    }

    fn begin(&self) -> u64 {
        let history = &self.world.histories[&Timeline(self.current)];
        history.entries().last().map_or(0, |entry| size().segment_of(entry.switch_lsn))
    }

    fn write(&mut self, segments: u64) {
        let time = hour(self.hours);
        for number in self.end()..self.end() + segments {
            self.world.segments.insert((Timeline(self.current), number), time);
        }
        self.world.host = time;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { segments, hours } => {
                self.hours += hours;
                self.write(segments);
            }
            Step::Backup { early, length } => {
                let last = self.end() + length;
                let start = (self.end().saturating_sub(early)).max(self.begin() + 1).min(last);
                self.hours += 1;
                self.write(length + 2);
                self.made += 1;
                let label = format!("b{}", self.made);
                self.world.add_backup(&label, (self.current, start), last, hour(self.hours));
            }
            Step::Fork { back } => {
                let number = (self.end() - 1).saturating_sub(back).max(self.begin()).max(1);
                let timeline = self.world.histories.len() as u32 + 1;
                // What is left behind was written before.
                self.write((number + 1).saturating_sub(self.end()));
                self.hours += 1;
                self.world.add_fork(timeline, self.current, number, hour(self.hours));
                self.current = timeline;
            }
            Step::Switch { nth } => self.current = (nth % self.world.histories.len()) as u32 + 1,
            Step::Hole { back } => {
                let number = self.end().saturating_sub(1 + back);
                self.world.segments.remove(&(Timeline(self.current), number));
            }
            Step::Damage { nth } => {
                if let Some(backup) = self.world.backups.get_mut(nth) {
                    backup.damage = Some("damaged".into());
                }
            }
            Step::Pin { nth } => {
                if let Some(label) = self.world.backups.get(nth).map(|backup| backup.at.label.to_string()) {
                    self.world = self.world.clone().pin(&label, None);
                }
            }
        }
    }
}

fn rules() -> impl Strategy<Value = Expire> {
    let count = || prop_oneof![2 => Just(0u32), 3 => 1u32..6];
    (count(), count(), count(), count(), count(), prop_oneof![1 => Just(0u32), 3 => 1u32..30])
        .prop_map(|(last, day, week, month, year, window)| {
            let rule = |name: &str, count: u32| (count > 0).then(|| format!("{name} {count}"));
            let rules = [
                rule("last", last),
                rule("daily", day),
                rule("weekly", week),
                rule("monthly", month),
                rule("yearly", year),
                rule("window", window),
            ];
            policy(&rules.into_iter().flatten().collect::<Vec<_>>().join(", "))
        })
        .prop_filter("a rule", |policy| *policy != Expire::default())
}

/// At least as much of everything.
fn more(one: &Expire, two: &Expire) -> Expire {
    Expire {
        keep_last: one.keep_last.max(two.keep_last),
        keep_daily: one.keep_daily.max(two.keep_daily),
        keep_weekly: one.keep_weekly.max(two.keep_weekly),
        keep_monthly: one.keep_monthly.max(two.keep_monthly),
        keep_yearly: one.keep_yearly.max(two.keep_yearly),
        recovery_window: one.recovery_window.max(two.recovery_window),
    }
}

/// The archive as `bootstrap-restore` sees it.
struct Seen<'a>(&'a Facts);

impl Archive for Seen<'_> {
    fn segment_size(&self) -> SegmentSize {
        size()
    }
    fn last_contiguous(&self, path: &TimelineHistory, from: u64) -> Result<Option<u64>> {
        Ok((from..).take_while(|number| self.0.holds(path, *number)).last())
    }
    fn newest_on(&self, _: &TimelineHistory, _: u64) -> Result<Option<u64>> {
        unreachable!("windows do not ask")
    }
    fn newest_of(&self, _: Timeline) -> Result<Option<SegmentName>> {
        unreachable!("windows do not ask")
    }
    fn end_of(&self, _: &TimelineHistory, segment: u64) -> Lsn {
        size().start_of(segment + 1)
    }
    fn why_missing(&self, _: SegmentName) -> Option<String> {
        None
    }
    fn facts(&self, _: &TimelineHistory, segments: RangeInclusive<u64>, visit: &mut Visit<'_>) -> Result<()> {
        for number in segments {
            if let ControlFlow::Break(()) = visit(number, SegmentFacts::default())? {
                break;
            }
        }
        Ok(())
    }
    fn join(&self, _: &TimelineHistory, _: u64, _: &Unfinished) -> Result<SegmentFacts> {
        unreachable!("windows do not ask")
    }
    fn find(&self, _: &TimelineHistory, _: u64, _: &Search) -> Result<Option<Landmark>> {
        unreachable!("windows do not ask")
    }
}

/// What `bootstrap-restore` says can be reached, from backups that are whole.
fn reachable(world: &World) -> Vec<Window> {
    let facts = world.facts();
    let whole = world.backups.iter().filter(|backup| backup.damage.is_none());
    let candidates: Vec<Candidate> = whole.map(|backup| backup.at.clone()).collect();
    windows(&Seen(&facts), &facts.histories, &candidates).expect("in memory")
}

/// Where on a path the WAL was written that is not older than `begin`.
fn position(world: &World, path: &TimelineHistory, begin: Timestamp) -> Lsn {
    let last = world.segments.keys().map(|(_, number)| *number).max().unwrap_or(0);
    let is_old =
        |timeline, number: u64| world.segments.get(&(timeline, number)).is_some_and(|time| *time <= begin);
    let old = |number: &u64| {
        // The segment of a fork begins as a copy of the parent's.
        let mut forks = path.entries().iter().filter(|entry| size().segment_of(entry.switch_lsn) == *number);
        is_old(path.path_timeline_for_segment(*number, size()), *number)
            || forks.any(|entry| is_old(entry.timeline, *number))
    };
    let first = (0..=last).rfind(old).map_or(0, |old| old + 1);
    size().start_of(first)
}

fn applied(world: &World, plan: &Plan) -> World {
    let mut after = world.clone();
    after.apply(plan);
    after
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_moment_of_the_window_stays_reachable(world in world(), rules in rules()) {
        let Some(window) = rules.recovery_window else { return Ok(()) };
        let plan = world.plan(&rules);
        let after = reachable(&applied(&world, &plan));
        let begin = world.clock().back(window).begin;
        let facts = world.facts();
        for line in lines(&facts, &world.clock(), begin).iter().filter(|line| line.active) {
            let from = position(&world, line.path, begin);
            for before in reachable(&world).iter().filter(|window| window.timeline == line.timeline()) {
                let from = from.max(before.from_lsn);
                let covers = |window: &&Window| {
                    window.timeline == before.timeline && window.from_lsn <= from && window.to_lsn >= before.to_lsn
                };
                prop_assert!(
                    from >= before.to_lsn || after.iter().any(|window| covers(&window)),
                    "{before:?} from {from} on is lost: {after:?}\n{plan:#?}"
                );
            }
        }
    }

    #[test]
    fn what_is_kept_can_be_restored_as_before(world in world(), rules in rules()) {
        let plan = world.plan(&rules);
        let (before, after) = (world.facts(), applied(&world, &plan).facts());
        for path in before.histories.values() {
            for backup in before.backups.iter().filter(|backup| backup.at.lies_on(path)) {
                let kept = plan.kept().any(|verdict| verdict.label == backup.at.label);
                let first = size().segment_of(backup.at.start);
                let whole = |facts: &Facts, last: u64| (first..=last).all(|number| facts.holds(path, number));
                let last = size().segment_before(backup.at.consistent);
                let last = Next { facts: &before }.last_needed(path, &backup.at).expect("in memory").unwrap_or(last);
                prop_assert!(!kept || !whole(&before, last) || whole(&after, last), "{}: {plan:#?}", backup.at.label);
            }
        }
    }

    #[test]
    fn the_newest_good_backup_of_the_newest_line_stays_with_its_wal(world in world(), rules in rules()) {
        let plan = world.plan(&rules);
        let facts = world.facts();
        let after = applied(&world, &plan).facts();
        let lines = lines(&facts, &world.clock(), world.clock().now);
        let good = lines.iter().filter(|line| line.good().next().is_some());
        let Some(line) = good.max_by_key(|line| (facts.activity.get(&line.timeline()), line.timeline())) else {
            prop_assert_eq!((plan.going().count(), plan.wal.len()), (0, 0));
            return Ok(());
        };
        let newest = line.good().next_back().map(|placed| &facts.backups[placed.index]).expect("a good one");
        prop_assert!(plan.kept().any(|verdict| verdict.label == newest.at.label), "{plan:#?}");
        let from = size().segment_of(newest.at.start);
        let last = world.segments.keys().map(|(_, number)| *number).max().unwrap_or(0);
        for number in from..=last {
            prop_assert_eq!(facts.holds(line.path, number), after.holds(line.path, number));
        }
    }

    #[test]
    fn a_run_after_one_that_was_killed_anywhere_ends_where_that_would_have(
        world in doubtful_world(),
        rules in rules(),
        done in 0.0..1.0f64,
    ) {
        let plan = world.plan(&rules);
        let mut killed = world.clone();
        killed.apply_part(&plan, done);
        let again = killed.plan(&rules);
        let (whole, both) = (applied(&world, &plan), applied(&killed, &again));
        prop_assert_eq!(&whole.backups, &both.backups, "{:#?}\n{:#?}", plan, again);
        let lost = whole.segments.keys().find(|segment| !both.segments.contains_key(segment));
        prop_assert_eq!(lost, None, "{:#?}\n{:#?}", plan, again);
        // What was deleted may have shown that there was no silence, and then more is kept.
        let begin = |world: &World| rules.recovery_window.map(|window| world.clock().back(window).begin);
        if begin(&world) == begin(&killed) {
            prop_assert_eq!(whole.segments, both.segments, "{:#?}\n{:#?}", plan, again);
        }
    }

    #[test]
    fn a_second_run_finds_nothing(world in doubtful_world(), rules in rules()) {
        let after = applied(&world, &world.plan(&rules));
        let again = after.plan(&rules);
        prop_assert_eq!(gone(&again), String::new());
        prop_assert_eq!(again.going().count(), 0);
    }

    #[test]
    fn more_policy_keeps_more(world in world(), one in rules(), two in rules()) {
        let (less, both) = (world.plan(&one), world.plan(&more(&one, &two)));
        for verdict in less.kept() {
            prop_assert!(both.kept().any(|kept| kept.label == verdict.label), "{}\n{less:#?}\n{both:#?}", verdict.label);
        }
        for (timeline, going) in &both.wal {
            let goes = less.wal.get(timeline).map(|less| going.without(less));
            prop_assert!(goes.is_some_and(|more| more.is_empty()), "{less:#?}\n{both:#?}");
        }
    }

    #[test]
    fn a_wrong_clock_of_this_host_makes_nothing_go(world in world(), rules in rules(), off in -100_000i64..1_000_000) {
        let sane = world.plan(&rules);
        let mut wrong = world.clone();
        wrong.host = world.host + SignedDuration::from_hours(off);
        let plan = wrong.plan(&rules);
        for verdict in sane.kept() {
            prop_assert!(plan.kept().any(|kept| kept.label == verdict.label), "{}\n{sane:#?}\n{plan:#?}", verdict.label);
        }
    }

    #[test]
    fn pinned_backups_stay_and_all_of_the_newest_wal(world in world(), rules in rules()) {
        let plan = world.plan(&rules);
        for pin in &world.pins {
            prop_assert!(plan.kept().any(|verdict| verdict.label == pin.label));
        }
        let newest = world.segments.iter().max_by_key(|((timeline, number), time)| (**time, *timeline, *number));
        if let Some(((timeline, number), _)) = newest {
            let active = world.facts().activity[timeline] >= world.facts().activity.values().copied().max().expect("some");
            prop_assert!(!active || !plan.wal.get(timeline).is_some_and(|going| going.contains(*number)), "{plan:#?}");
        }
    }
}
