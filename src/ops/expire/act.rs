//! Acting on a plan. THE ORDER IS WHAT MAKES THIS SAFE; `docs/decisions/leases.md` goes through the interleavings.
//!
//! 1. Each header, durably, right after another look at pins and restores: from then on the backup does not exist.
//! 2. Leases are listed again, then headers; then packs and maps go that no header refers to (`repo::sweep`).
//! 3. WAL, once it is recorded what goes, oldest first, unless a backup or a restore is at work that the plan did not know: what it needs is not known.
//!
//! Killed anywhere, the next run goes on: it finds the same garbage. Nothing goes when a listing is not to be trusted.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::facts::Restoring;
use super::freed::Freed;
use super::look::{self, Object, objects};
use super::plan::Plan;
use super::reason::Verdict;
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::interrupt::Interrupt;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::repo::catalog::logs;
use crate::repo::lease::{self, Lease, LeaseKind};
use crate::repo::runs::Runs;
use crate::repo::sweep::{self, Expired, Swept};
use crate::repo::{Cluster, backup, expired, gap};
use crate::store::Key;

/// What one run deletes from.
pub struct Acting<'a> {
    pub cluster: &'a Cluster,
    pub size: SegmentSize,
    pub lease: &'a Lease,
    pub plan: &'a Plan,
    /// What going backups alone refer to.
    pub freed: &'a Freed,
    pub interrupt: &'a Interrupt,
    pub now: jiff::Timestamp,
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub backups: Vec<Name>,
    pub swept: Swept,
    pub segments: u64,
    pub wal_bytes: u64,
    pub gaps: u64,
    /// What was left to the next run, and why.
    pub postponed: Vec<String>,
}

impl Acting<'_> {
    /// What was done is in `done`, also when this fails.
    pub fn act(&self, done: &mut Done) -> Result<()> {
        // Without any header everything looks like garbage. Perhaps they are on a disk that is not mounted.
        if self.plan.verdicts.is_empty() {
            return Ok(());
        }
        for verdict in self.plan.going_in_order() {
            self.interrupt.check()?;
            self.expect_kept(&self.headers()?)?;
            match self.obstacle(verdict)? {
                Some(why) => done.postponed.push(format!("backup {}: {why}", verdict.label)),
                None => self.delete_header(verdict, done)?,
            }
        }
        self.interrupt.check()?;
        self.sweep(done)?;
        if let Some(why) = self.delete_wal(done)? {
            done.postponed.push(format!("WAL: {why}"));
        }
        Ok(())
    }

    fn headers(&self) -> Result<BTreeSet<Name>> {
        Ok(backup::labels(self.cluster)?.into_iter().collect())
    }

    /// Whoever deletes because other backups stay must see them.
    fn expect_kept(&self, headers: &BTreeSet<Name>) -> Result<()> {
        match self.plan.kept().find(|verdict| !headers.contains(&verdict.label)) {
            None => Ok(()),
            Some(vanished) => Err(Error::conflict(format!(
                "stopped: backup {}, which is to be kept, has no header any more",
                vanished.label
            ))
            .with_hint("is the whole repository mounted? does somebody delete by hand?")),
        }
    }

    /// Who wants the backup since the plan was made.
    fn obstacle(&self, verdict: &Verdict) -> Result<Option<String>> {
        let pins = look::pins(self.cluster)?;
        let holds = |until: Option<jiff::Timestamp>| until.is_none_or(|until| self.now < until);
        if pins.iter().any(|pin| pin.label == verdict.label && holds(pin.until)) {
            return Ok(Some("it was pinned meanwhile".to_string()));
        }
        let restores = look::restores(self.cluster)?;
        let restore = restores.iter().find(|restore| restore.label == verdict.label);
        Ok(restore.map(|restore| format!("it is being restored by {}", restore.who)))
    }

    fn delete_header(&self, verdict: &Verdict, done: &mut Done) -> Result<()> {
        // Labels can be used again: this must still be the backup that was judged.
        match backup::read(self.cluster, &verdict.label) {
            Ok(header) if header.run == verdict.run => {}
            Ok(_) => {
                done.postponed.push(format!("backup {}: it is another one by now", verdict.label));
                return Ok(());
            }
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        self.lease.still_held()?;
        backup::remove(self.cluster, &verdict.label)?;
        done.backups.push(verdict.label.clone());
        Ok(())
    }

    fn sweep(&self, done: &mut Done) -> Result<()> {
        let expired = Expired {
            packs: self.freed.packs(&done.backups),
            labels: done.backups.iter().cloned().collect::<HashSet<Name>>(),
            kept: self.plan.kept().map(|verdict| verdict.label.clone()).collect(),
        };
        done.swept = sweep::sweep_expired(self.cluster, self.lease, &expired)?;
        if done.swept.postponed {
            done.postponed.push("packs and maps: another run may need them".to_string());
        }
        Ok(())
    }

    /// Why WAL must stay: somebody came of whom the plan does not know.
    fn why_no_wal(&self) -> Result<Option<String>> {
        for held in lease::list(self.cluster)? {
            let record = held.record.ok_or_else(look::unreadable_lease)?;
            let known = |restore: &Restoring| {
                Some(&restore.label) == record.label.as_ref() && Some(restore.wal) == record.wal
            };
            match record.kind {
                LeaseKind::Backup => return Ok(Some(format!("a {} runs, {}", record.what(), record.who()))),
                LeaseKind::Restore if !self.plan.restores.iter().any(known) => {
                    return Ok(Some(format!("a {} began, {}", record.what(), record.who())));
                }
                LeaseKind::Restore | LeaseKind::Expire => {}
            }
        }
        let headers = self.headers()?;
        self.expect_kept(&headers)?;
        let known = |label: &Name| self.plan.verdicts.iter().any(|verdict| verdict.label == *label);
        if let Some(new) = headers.iter().find(|label| !known(label)) {
            return Ok(Some(format!("backup {new} was made meanwhile")));
        }
        let kept_after_all = self.plan.going().find(|verdict| headers.contains(&verdict.label));
        Ok(kept_after_all.map(|verdict| format!("backup {} is still there", verdict.label)))
    }

    /// Answers with why not all of it went. A restore may begin at any time, and waits until we have seen it: so before
    /// each log number we look whether somebody came.
    fn delete_wal(&self, done: &mut Done) -> Result<Option<String>> {
        if let Some(why) = self.why_no_wal()? {
            return Ok(Some(why));
        }
        expired::note(self.cluster, self.size, &self.plan.expired())?;
        for (timeline, going) in &self.plan.wal {
            let logs = logs(self.cluster, *timeline)?;
            for log in &logs {
                let doomed = doomed(self.cluster, *timeline, *log, going, self.size)?;
                if doomed.is_empty() {
                    continue;
                }
                self.interrupt.check()?;
                if let Some(why) = self.why_no_wal()? {
                    return Ok(Some(why));
                }
                // Frozen for longer than a lease lasts, we are taken for dead, and a backup goes on without us.
                self.lease.still_held()?;
                self.cluster.repository().confirm()?;
                let keys: Vec<&Key> = doomed.iter().map(|object| &object.meta.key).collect();
                done.segments += self.cluster.store().delete_durably(keys)?;
                done.wal_bytes += doomed.iter().map(|object| object.meta.size).sum::<u64>();
                // Nobody writes behind a timeline's back; but its newest log stays, dead or alive.
                if logs.last() != Some(log) {
                    self.cluster.store().forget_empty(&self.cluster.layout().log(*timeline, *log)?)?;
                }
            }
        }
        self.delete_gaps(done)?;
        Ok(None)
    }

    /// Gaps of which nothing can be restored any more, so that nothing has to be explained.
    fn delete_gaps(&self, done: &mut Done) -> Result<()> {
        let gaps = match gap::list(self.cluster) {
            Ok(gaps) => gaps,
            // They only explain.
            Err(error) => {
                done.postponed.push(format!("recorded gaps: {error}"));
                return Ok(());
            }
        };
        for gap in gaps {
            let numbers = gap.numbers()?;
            let unneeded = self.plan.unneeded.get(&gap.first.timeline);
            if unneeded.is_some_and(|unneeded| unneeded.covers(&numbers)) {
                done.gaps += u64::from(self.cluster.store().delete(&self.cluster.layout().gap(gap.id)?)?);
            }
        }
        Ok(())
    }
}

/// What there is of the segments that go, within one log number.
pub fn doomed(
    cluster: &Cluster,
    timeline: Timeline,
    log: u32,
    going: &Runs,
    size: SegmentSize,
) -> Result<Vec<Object>> {
    let mut doomed = Vec::new();
    let (first, last) = numbers_of(log, size);
    if Runs::from(first..=last).within(going).is_empty() {
        return Ok(doomed);
    }
    for object in objects(cluster, timeline, log)? {
        if going.contains(object.name.number(size)?) {
            doomed.push(object);
        }
    }
    Ok(doomed)
}

fn numbers_of(log: u32, size: SegmentSize) -> (u64, u64) {
    let first = u64::from(log) * size.segments_per_log();
    (first, first + size.segments_per_log() - 1)
}

/// Segments and bytes that go, by timeline.
pub fn measure(cluster: &Cluster, plan: &Plan, size: SegmentSize) -> Result<BTreeMap<Timeline, (u64, u64)>> {
    let mut measured = BTreeMap::new();
    for (timeline, going) in &plan.wal {
        let (mut objects, mut bytes) = (0, 0);
        for log in logs(cluster, *timeline)? {
            for object in doomed(cluster, *timeline, log, going, size)? {
                objects += 1;
                bytes += object.meta.size;
            }
        }
        measured.insert(*timeline, (objects, bytes));
    }
    Ok(measured)
}
