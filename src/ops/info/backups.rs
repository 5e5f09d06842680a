//! The backups of an incarnation: read one header at a time, with what each refers to counted on the way.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::summary::{BackupSummary, PinSummary, Unreadable, What};
use crate::error::{Kind, Result};
use crate::ident::{Id, Name};
use crate::ops::restore::choose::{Archive, Candidate, on_path};
use crate::ops::restore::listed::ListedArchive;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::SegmentName;
use crate::repo::Cluster;
use crate::repo::backup::{self, BackupHeader};
use crate::repo::inventory::Inventory;
use crate::repo::layout::PackId;
use crate::repo::pack::PackSummary;

/// The backups that can be read, oldest first.
pub struct Backups {
    summaries: Vec<BackupSummary>,
    /// In the same order.
    pub candidates: Vec<Candidate>,
    /// Of each pack the last backup that refers to it, and whether it is the only one.
    users: HashMap<PackId, (Name, bool)>,
    /// Whether every header could be read, so that what nobody refers to is known.
    complete: bool,
}

pub fn read(cluster: &Cluster, inventory: &Inventory, unreadable: &mut Vec<Unreadable>) -> Result<Backups> {
    let mut found =
        Backups { summaries: Vec::new(), candidates: Vec::new(), users: HashMap::new(), complete: true };
    for label in backup::labels(cluster)? {
        let taken = match backup::read(cluster, &label) {
            // Deleted since it was listed.
            Err(error) if error.kind() == Kind::NotFound => continue,
            read => read.and_then(|header| found.take_in(cluster, inventory, &header)),
        };
        if let Err(error) = taken {
            unreadable.push(Unreadable::new(What::Backup, Some(label.to_string()), &error));
            found.complete = false;
        }
    }
    found.sort();
    found.count_alone(inventory);
    Ok(found)
}

impl Backups {
    fn take_in(&mut self, cluster: &Cluster, inventory: &Inventory, header: &BackupHeader) -> Result<()> {
        let candidate = Candidate::of(header)?;
        let mut missing_packs = 0;
        for pack in &header.packs {
            missing_packs += u64::from(!is_there(cluster, inventory, pack)?);
            self.users
                .entry(pack.id)
                .and_modify(|user| *user = (header.label.clone(), false))
                .or_insert_with(|| (header.label.clone(), true));
        }
        self.summaries.push(summary(header, missing_packs));
        self.candidates.push(candidate);
        Ok(())
    }

    fn sort(&mut self) {
        self.summaries.sort_by(|a, b| (a.stop_time, &a.label).cmp(&(b.stop_time, &b.label)));
        let order: HashMap<&Name, usize> =
            self.summaries.iter().enumerate().map(|(place, backup)| (&backup.label, place)).collect();
        self.candidates.sort_by_key(|candidate| order.get(&candidate.label).copied());
    }

    /// Adds the packs that one backup has for itself to its map, which nobody shares.
    fn count_alone(&mut self, inventory: &Inventory) {
        let mut alone: HashMap<&Name, u64> = HashMap::new();
        for (pack, (label, only)) in &self.users {
            if *only {
                *alone.entry(label).or_default() += inventory.pack(*pack).unwrap_or(0);
            }
        }
        for backup in &mut self.summaries {
            backup.alone_bytes =
                backup.alone_bytes.saturating_add(alone.get(&backup.label).copied().unwrap_or(0));
        }
    }

    /// Bytes in packs of no backup and of no run in `spared`. None: not all headers could be read.
    pub fn unreferenced(&self, inventory: &Inventory, spared: &HashSet<Id>) -> Option<u64> {
        let unused =
            |(pack, _): &&(PackId, u64)| !self.users.contains_key(pack) && !spared.contains(&pack.backup);
        self.complete.then(|| inventory.packs.iter().filter(unused).map(|(_, size)| *size).sum())
    }

    /// The summaries with what changes: age and pins.
    pub fn summaries(self, pins: &BTreeMap<Name, Vec<PinSummary>>, now: Timestamp) -> Vec<BackupSummary> {
        let finish = |backup: BackupSummary| BackupSummary {
            age_seconds: now.duration_since(backup.stop_time).as_secs(),
            pins: pins.get(&backup.label).cloned().unwrap_or_default(),
            ..backup
        };
        self.summaries.into_iter().map(finish).collect()
    }
}

/// The listing was made before the header was read: a pack that is not in it may be younger.
fn is_there(cluster: &Cluster, inventory: &Inventory, pack: &PackSummary) -> Result<bool> {
    let size = match inventory.pack(pack.id) {
        Some(size) => Some(size),
        None => match cluster.store().head(&cluster.layout().pack(pack.id)?) {
            Ok(object) => Some(object.size),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        },
    };
    Ok(size == Some(pack.size))
}

fn summary(header: &BackupHeader, missing_packs: u64) -> BackupSummary {
    let (start, stop) = (&header.start, &header.stop);
    BackupSummary {
        label: header.label.clone(),
        start_time: start.time,
        stop_time: stop.time,
        age_seconds: 0,
        duration_seconds: stop.time.duration_since(start.time).as_secs(),
        raw_bytes: header.totals.raw_bytes,
        stored_bytes: header.totals.stored_bytes,
        alone_bytes: header.map.size,
        start_lsn: start.lsn,
        start_timeline: start.timeline,
        stop_lsn: stop.lsn,
        stop_timeline: stop.timeline,
        consistent_lsn: header.consistent_lsn,
        from_standby: header.from_standby,
        damaged_pages: header.damaged_pages.count,
        pins: Vec::new(),
        predecessor: header.predecessor.clone(),
        warnings: header.warnings.len() as u64,
        packs: header.packs.len() as u64,
        missing_packs,
        on_known_path: true,
        missing_wal: None,
        host: header.host.clone(),
    }
}

/// Looks for the WAL without which each backup is not consistent, along any path on which the backup lies.
pub fn look_for_wal(
    backups: &mut Backups,
    archive: &ListedArchive<'_>,
    histories: &BTreeMap<Timeline, TimelineHistory>,
) -> Result<()> {
    // It needs no history, and so is known even when nothing of it is there.
    let first = TimelineHistory::without_parents(Timeline(1));
    for (summary, candidate) in backups.summaries.iter_mut().zip(&backups.candidates) {
        let leads_through =
            |path: &&TimelineHistory| !on_path(std::slice::from_ref(candidate), path).is_empty();
        let paths: Vec<&TimelineHistory> = histories.values().chain([&first]).filter(leads_through).collect();
        summary.on_known_path = !paths.is_empty();
        summary.missing_wal = missing_wal(candidate, archive, &paths)?;
    }
    Ok(())
}

/// None: along one of the paths everything is there, or there is no path.
fn missing_wal(
    backup: &Candidate,
    archive: &ListedArchive<'_>,
    paths: &[&TimelineHistory],
) -> Result<Option<SegmentName>> {
    let size = archive.segment_size();
    let from = size.segment_of(backup.start);
    let mut missing = None;
    for path in paths {
        let last = archive.last_contiguous(path, from)?;
        if last.is_some_and(|last| archive.end_of(path, last) >= backup.consistent) {
            return Ok(None);
        }
        let first_missing = last.map_or(from, |last| size.segment_of(archive.end_of(path, last)));
        missing = missing.max(Some(archive.name_on(path, first_missing)));
    }
    Ok(missing)
}
