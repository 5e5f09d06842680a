//! What is checked, in which order, a unit at a time: whoever is free takes the next one.
//!
//! The order is that of [`Place`]: backups, WAL, packs, each by key. So a verification in portions can go on where the
//! last one ended. Only one level of a listing is in memory. Invariant: [`Plan::reached`] is a place before which
//! every unit was handed out and came back.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Instant;

use super::backups::{self, OpenMap};
use super::context::Context;
use super::packs::{self, OpenPack};
use super::wal::Archived;
use crate::error::Result;
use crate::ident::Name;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::repo::catalog::{self, Catalog};
use crate::repo::layout::{self, PackId};
use crate::repo::verified::{Place, Stage};
use crate::repo::wal_object::WalObject;
use crate::store::Key;

/// Names of segments that are made at a time.
const PATH_RUN: u64 = 256;

/// A piece of work.
pub enum Unit {
    Chunk(Arc<OpenMap>, usize),
    Wal(Key, Archived),
    Frames(Arc<OpenPack>, Range<usize>),
}

/// What is still to be listed.
pub enum Step {
    Backup(Name),
    Timeline(Timeline),
    Log(Timeline, u32),
    /// The segments of a path with these numbers, whether they are there or not.
    Path(TimelineHistory, RangeInclusive<u64>),
    Pack(PackId),
}

/// When to stop handing out.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    TheEnd,
    Time(Instant),
    Units(u64),
}

pub struct Plan {
    steps: VecDeque<Step>,
    units: VecDeque<(Place, Unit)>,
    /// A pack of which some runs are still to be handed out.
    pack: Option<(Arc<OpenPack>, usize)>,
    /// What was verified before.
    behind: Option<Place>,
    until: Until,
    handed: u64,
    /// Units that are out, oldest first, and whether each came back.
    out: VecDeque<(Place, bool)>,
    /// The number of the first of `out`.
    first_out: u64,
    reached: Option<Place>,
    complete: bool,
}

impl Plan {
    pub fn new(steps: Vec<Step>, behind: Option<Place>, until: Until) -> Self {
        Self {
            steps: steps.into(),
            units: VecDeque::new(),
            pack: None,
            reached: behind.clone(),
            behind,
            until,
            handed: 0,
            out: VecDeque::new(),
            first_out: 0,
            complete: false,
        }
    }

    /// The next unit and its number; None when there is none, or it is time to stop.
    pub fn next(&mut self, context: &Context<'_>) -> Result<Option<(u64, Unit)>> {
        // At least one each time: whoever comes again and again gets through.
        let enough = match self.until {
            Until::TheEnd => false,
            Until::Time(end) => self.handed > 0 && Instant::now() >= end,
            Until::Units(most) => self.handed >= most,
        };
        if enough {
            return Ok(None);
        }
        while self.units.is_empty() {
            context.stop.check()?;
            if !self.more(context)? {
                self.complete = true;
                return Ok(None);
            }
        }
        let Some((place, unit)) = self.units.pop_front() else { return Ok(None) };
        self.out.push_back((place, false));
        self.handed += 1;
        Ok(Some((self.handed - 1, unit)))
    }

    /// A unit came back.
    pub fn done(&mut self, number: u64) {
        let at = usize::try_from(number.saturating_sub(self.first_out)).ok();
        if let Some((_, done)) = at.and_then(|at| self.out.get_mut(at)) {
            *done = true;
        }
        while self.out.front().is_some_and(|(_, done)| *done) {
            self.reached = self.out.pop_front().map(|(place, _)| place);
            self.first_out += 1;
        }
    }

    /// How far the verification is; None when nothing was verified.
    pub fn reached(&self) -> Option<&Place> {
        self.reached.as_ref()
    }

    /// How many units were handed out.
    pub fn units(&self) -> u64 {
        self.handed
    }

    /// Whether all was handed out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Puts more units into the queue, if there are more; false at the end.
    fn more(&mut self, context: &Context<'_>) -> Result<bool> {
        if let Some((pack, from)) = self.pack.take() {
            self.add_run(pack, from);
            return Ok(true);
        }
        let Some(step) = self.steps.pop_front() else { return Ok(false) };
        match step {
            Step::Backup(label) => self.add_backup(context, &label)?,
            Step::Timeline(timeline) => {
                let logs = catalog::logs(context.cluster, timeline)?;
                let logs = logs.into_iter().rev().map(|log| Step::Log(timeline, log));
                logs.for_each(|log| self.steps.push_front(log));
            }
            Step::Log(timeline, log) => self.add_log(context, timeline, log)?,
            Step::Path(path, numbers) => self.add_path(context, path, numbers)?,
            Step::Pack(pack) => self.add_pack(context, pack)?,
        }
        Ok(true)
    }

    fn is_behind(&self, place: &Place) -> bool {
        self.behind.as_ref().is_some_and(|behind| place <= behind)
    }

    fn push(&mut self, place: Place, unit: Unit) {
        if !self.is_behind(&place) {
            self.units.push_back((place, unit));
        }
    }

    /// Whether all of an object was verified before: there is no part of it behind this one.
    fn is_over(&self, stage: Stage, key: &Key) -> bool {
        self.behind.as_ref().is_some_and(|behind| (stage, key.as_str()) < (behind.stage, behind.key.as_str()))
    }

    fn add_backup(&mut self, context: &Context<'_>, label: &Name) -> Result<()> {
        let key = context.cluster.layout().backup(label)?;
        if self.is_over(Stage::Backups, &key) {
            return Ok(());
        }
        let Some(map) = backups::open(context, label)?.map(Arc::new) else { return Ok(()) };
        for chunk in 0..map.chunks() {
            let place = place(Stage::Backups, &key, chunk as u64);
            self.push(place, Unit::Chunk(map.clone(), chunk));
        }
        Ok(())
    }

    fn add_log(&mut self, context: &Context<'_>, timeline: Timeline, log: u32) -> Result<()> {
        let level = context.cluster.store().level(&context.cluster.layout().log(timeline, log)?)?;
        for object in level.objects {
            match Archived::parse(&object.key, (timeline, log)) {
                Some(wal) => self.push(place(Stage::Wal, &object.key, 0), Unit::Wal(object.key, wal)),
                None => context.findings.foreign(&object.key),
            }
        }
        Ok(())
    }

    fn add_path(
        &mut self,
        context: &Context<'_>,
        path: TimelineHistory,
        numbers: RangeInclusive<u64>,
    ) -> Result<()> {
        let Some(size) = context.size else { return Ok(()) };
        let (first, last) = numbers.into_inner();
        let until = first.saturating_add(PATH_RUN - 1).min(last);
        for number in first..=until {
            let name = Catalog::new(context.cluster, size).name_on(&path, number);
            let key = context.cluster.layout().segment(name)?;
            self.push(place(Stage::Wal, &key, 0), Unit::Wal(key, Archived::Wal(WalObject::Segment(name))));
        }
        if until < last {
            self.steps.push_front(Step::Path(path, until.saturating_add(1)..=last));
        }
        Ok(())
    }

    fn add_pack(&mut self, context: &Context<'_>, pack: PackId) -> Result<()> {
        let key = context.cluster.layout().pack(pack)?;
        if self.is_over(Stage::Packs, &key) {
            return Ok(());
        }
        let here =
            self.behind.as_ref().filter(|behind| behind.stage == Stage::Packs && behind.key == key.as_str());
        let from = here.map_or(0, |behind| usize::try_from(behind.part).unwrap_or(usize::MAX));
        if let Some(pack) = packs::open(context, pack)? {
            self.add_run(Arc::new(pack), from);
        }
        Ok(())
    }

    fn add_run(&mut self, pack: Arc<OpenPack>, from: usize) {
        let Some(run) = pack.run(from) else { return };
        let place = Place { stage: Stage::Packs, key: pack.key.to_string(), part: run.end as u64 };
        self.pack = Some((pack.clone(), run.end));
        self.units.push_back((place, Unit::Frames(pack, run)));
    }
}

/// `part` is counted from 0 here.
fn place(stage: Stage, key: &Key, part: u64) -> Place {
    Place { stage, key: key.to_string(), part: part.saturating_add(1) }
}

/// Everything that a cluster's part of the repository has, in order.
pub fn everything(context: &Context<'_>) -> Result<Vec<Step>> {
    let (store, layout) = (context.cluster.store(), context.cluster.layout());
    let mut steps = Vec::new();
    let backups = store.level(&layout.backups()?)?;
    backups.objects.iter().for_each(|object| context.findings.foreign(&object.key));
    steps.extend(backups.prefixes.iter().filter_map(layout::parse_backup_label).map(Step::Backup));
    let timelines = store.level(&layout.wal()?)?.prefixes;
    steps.extend(timelines.iter().filter_map(layout::parse_timeline_prefix).map(Step::Timeline));
    for object in store.level(&layout.packs()?)?.objects {
        match layout::parse_pack(&object.key) {
            Some(pack) => steps.push(Step::Pack(pack)),
            None => context.findings.foreign(&object.key),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(part: u64) -> Place {
        Place { stage: Stage::Wal, key: "x".into(), part }
    }

    #[test]
    fn the_place_that_is_reached_has_nothing_open_before_it() {
        let mut plan = Plan::new(Vec::new(), None, Until::TheEnd);
        plan.out = (1..=4).map(|part| (at(part), false)).collect();
        assert_eq!(plan.reached(), None);
        plan.done(1);
        plan.done(2);
        assert_eq!(plan.reached(), None, "the first one is still out");
        plan.done(0);
        assert_eq!(plan.reached(), Some(&at(3)));
        plan.done(3);
        assert_eq!(plan.reached(), Some(&at(4)));
    }

    #[test]
    fn what_lies_behind_is_not_handed_out_again() {
        let plan = Plan::new(Vec::new(), Some(at(3)), Until::TheEnd);
        assert!(plan.is_behind(&at(3)) && !plan.is_behind(&at(4)));
        let key = |text: &str| Key::new(text).expect("a key");
        assert!(plan.is_over(Stage::Backups, &key("z")) && plan.is_over(Stage::Wal, &key("w")));
        assert!(!plan.is_over(Stage::Wal, &key("x")) && !plan.is_over(Stage::Packs, &key("a")));
    }
}
