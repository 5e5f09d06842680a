//! What the damage costs: which backups do not restore and why, and to which moments one can still go back.
//!
//! Decided from what is there now, after all was read: a backup that was deleted meanwhile costs nothing. A backup
//! counts as lost when `bootstrap-restore` would refuse or break off, be it for a single frame.

use std::collections::BTreeMap;

use serde::Serialize;

use super::continuity::{self, Hole};
use super::files;
use super::findings::{Bounded, Found};
use super::lens::{Lens, View};
use crate::error::{Kind, Result};
use crate::ident::Name;
use crate::ops::restore::choose::{Archive, Candidate, on_path};
use crate::ops::restore::listed::ListedArchive;
use crate::ops::restore::streamed::Ends;
use crate::ops::restore::window::{self, Window};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::Cluster;
use crate::repo::backup::{self, BackupHeader};
use crate::repo::catalog::Catalog;
use crate::repo::inventory::Inventory;
use crate::repo::pack::PackSummary;

/// What is known of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing was found that keeps it from being restored.
    Restores,
    Lost,
    /// It could not be looked at.
    Unknown,
}

/// One backup and what it has lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupCost {
    pub label: Name,
    pub state: State,
    /// Why not.
    pub reasons: Vec<String>,
    /// Files of which bytes are lost.
    pub files: Bounded<String>,
}

impl BackupCost {
    fn new(label: &Name, reasons: Vec<String>) -> Self {
        Self { label: label.clone(), state: State::Restores, reasons, files: Bounded::default() }
    }
}

/// All that the damage costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub backups: Vec<BackupCost>,
    pub holes: Bounded<Hole>,
    /// Why segments are missing, by the first of them.
    pub stories: BTreeMap<SegmentName, String>,
    /// To where one could go back if nothing were damaged or missing, and to where one can.
    pub before: Vec<Window>,
    pub after: Vec<Window>,
}

/// What there is to decide by.
pub struct Ledger<'a> {
    pub cluster: &'a Cluster,
    pub size: SegmentSize,
    pub histories: &'a BTreeMap<Timeline, TimelineHistory>,
    pub found: &'a Found,
    /// Whether the WAL behind the backups counts too, and the windows that it makes.
    pub of_all: bool,
}

impl Ledger<'_> {
    /// The cost for these backups, and to the archive behind them.
    pub fn cost(&self, labels: &[Name]) -> Result<Cost> {
        let catalog = Catalog::new(self.cluster, self.size);
        let mut ends = Ends::find(&catalog, self.histories)?;
        let whole = ends.clone();
        self.found.parts.iter().for_each(|part| ends.refuse(*part, "it is damaged"));
        // Once, and before the headers: WAL goes behind the headers of all backups that need it.
        let inventory = Inventory::of_wal(self.cluster, self.size)?;
        let archive = |ends| ListedArchive::new(&inventory, catalog, ends);
        let (all, left) = (archive(&whole), archive(&ends));
        let damaged = Lens { archive: &left, view: View::Damaged(&self.found.segments) };
        let mut cost = Cost::default();
        let (mut candidates, mut good) = (Vec::new(), Vec::new());
        for label in labels {
            let Some((backup, candidate)) = self.backup(label, &damaged)? else { continue };
            if let Some(candidate) = candidate {
                good.extend((backup.state != State::Lost).then(|| candidate.clone()));
                candidates.push(candidate);
            }
            cost.backups.push(backup);
        }
        self.forget_deleted(&mut cost)?;
        if !self.of_all {
            return Ok(cost);
        }
        let streamed = |timeline| match whole.of(timeline) {
            Some(part) => part.segment.number(self.size).map(Some),
            None => Ok(None),
        };
        cost.holes = continuity::holes(&catalog, self.histories, &candidates, streamed)?;
        for hole in &mut cost.holes.first {
            if let Some(story) = all.why_missing(hole.first) {
                // Dropped WAL is a loss wherever it lies.
                hole.retention = false;
                cost.stories.insert(hole.first, story);
            }
        }
        let findings: Vec<Hole> = cost.holes.first.iter().filter(|hole| !hole.retention).cloned().collect();
        let undamaged = Lens { archive: &all, view: View::Whole(&findings) };
        cost.before = window::windows(&undamaged, self.histories, &candidates)?;
        cost.after = window::windows(&damaged, self.histories, &good)?;
        Ok(cost)
    }

    /// An expiry deletes the header first: what misses something may have been deleted since it was read.
    fn forget_deleted(&self, cost: &mut Cost) -> Result<()> {
        if cost.backups.iter().all(|backup| backup.state == State::Restores) {
            return Ok(());
        }
        let there = backup::labels(self.cluster)?;
        cost.backups.retain(|backup| backup.state == State::Restores || there.contains(&backup.label));
        Ok(())
    }

    /// One backup; None when it was deleted meanwhile. One whose header can't be read is no candidate.
    fn backup(
        &self,
        label: &Name,
        archive: &impl Archive,
    ) -> Result<Option<(BackupCost, Option<Candidate>)>> {
        let damage = self.found.backups.get(label);
        let mut cost =
            BackupCost::new(label, damage.map_or(Vec::new(), |damage| damage.reasons.first.clone()));
        let header = match backup::read(self.cluster, label) {
            Ok(header) => header,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => {
                let unknown = error.kind() != Kind::Corrupt;
                if unknown || cost.reasons.is_empty() {
                    cost.reasons.push(error.message().to_string());
                }
                cost.state = if unknown { State::Unknown } else { State::Lost };
                return Ok(Some((cost, None)));
            }
        };
        cost.reasons.extend(self.found.blocks.first.iter().cloned());
        let candidate = Candidate::of(&header)?;
        cost.reasons.extend(self.wal(&candidate, archive)?);
        let files = self.files(&header);
        if let Ok(files) = &files
            && !files.is_empty()
        {
            cost.reasons.push(format!("{} of its files are damaged", files.count));
        }
        cost.state = if cost.reasons.is_empty() { State::Restores } else { State::Lost };
        match files {
            Ok(files) => cost.files = files,
            Err(error) if cost.state == State::Restores => {
                cost.state = State::Unknown;
                cost.reasons.push(error.message().to_string());
            }
            Err(error) => cost.reasons.push(error.message().to_string()),
        }
        Ok(Some((cost, Some(candidate))))
    }

    fn files(&self, header: &BackupHeader) -> Result<Bounded<String>> {
        let references = self.found.backups.get(&header.label).map(|damage| &damage.references);
        let references = references.filter(|references| !references.is_empty());
        let hit = |pack: &PackSummary| self.found.packs.get(&pack.id).is_some_and(|damaged| damaged.costs());
        if references.is_none() && !header.packs.iter().any(hit) {
            return Ok(Bounded::default());
        }
        files::damaged(self.cluster, header, |frame| {
            let in_pack = self.found.packs.get(&frame.pack).is_some_and(|damaged| damaged.hits(frame.offset));
            in_pack || references.is_some_and(|all| all.contains(&(frame.pack, frame.offset)))
        })
    }

    /// Why the WAL does not make a backup consistent, if it does not.
    fn wal(&self, backup: &Candidate, archive: &impl Archive) -> Result<Option<String>> {
        let from = self.size.segment_of(backup.start);
        let mut lacks = None;
        for path in self.histories.values() {
            if on_path(std::slice::from_ref(backup), path).is_empty() {
                continue;
            }
            let last = archive.last_contiguous(path, from)?;
            if last.is_some_and(|last| archive.end_of(path, last) >= backup.consistent) {
                return Ok(None);
            }
            let next = last.map_or(from, |last| last.saturating_add(1));
            let timeline = path.path_timeline_for_segment(next, self.size);
            lacks.get_or_insert(SegmentName::from_number(timeline, next, self.size));
        }
        Ok(Some(match lacks {
            Some(name) if self.found.segments.contains(&name) => {
                format!("segment {name}, which it needs, is damaged")
            }
            Some(name) => format!("segment {name}, which it needs, is missing"),
            None => {
                format!("no history that can be read leads to its timeline {}", backup.consistent_timeline)
            }
        }))
    }
}

/// Backups to look at when there is nothing that could be said about WAL: without a segment size.
pub fn without_wal(labels: &[Name], found: &Found) -> Cost {
    let lost = |label: &Name| BackupCost {
        state: State::Lost,
        ..BackupCost::new(label, found.blocks.first.clone())
    };
    Cost { backups: labels.iter().map(lost).collect(), ..Cost::default() }
}

impl Cost {
    pub fn lost(&self) -> impl Iterator<Item = &BackupCost> {
        self.backups.iter().filter(|backup| backup.state == State::Lost)
    }

    /// Holes that retention does not explain.
    pub fn unexplained(&self) -> u64 {
        let explained = self.holes.first.iter().filter(|hole| hole.retention).count() as u64;
        self.holes.count.saturating_sub(explained)
    }
}

/// Whether anything was wrong that an exit status must tell.
pub fn is_damaged(found: &Found, cost: &Cost) -> bool {
    found.damage.count > 0 || cost.unexplained() > 0 || cost.lost().next().is_some()
}
