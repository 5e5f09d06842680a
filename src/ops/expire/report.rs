//! What an expiry plans and did: the shape of `pgark expire --output json`, docs/schema/expire.v1.json.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::act::Done;
use super::clock::{Clock, Source};
use super::freed::Freed;
use super::plan::Plan;
use crate::error::Error;
use crate::ident::Name;
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub cluster: Name,
    pub dry_run: bool,
    /// The time by which was judged, and whose clock said it.
    pub now: Timestamp,
    pub clock: &'static str,
    pub incarnations: Vec<Incarnation>,
}

/// One system identifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    pub system_id: String,
    pub backups: Vec<BackupLine>,
    pub windows: Vec<WindowLine>,
    /// What goes, or went.
    pub wal: Vec<WalLine>,
    pub frees: Frees,
    pub notes: Vec<String>,
    /// What was done. None: nothing, it was only planned.
    pub done: Option<DoneLine>,
    /// Why nothing, or not all, was done.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupLine {
    pub label: Name,
    pub timeline: Timeline,
    pub stop_time: Timestamp,
    pub consistent_lsn: Lsn,
    pub keep: bool,
    pub why: Vec<String>,
    /// Why it can't be restored.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WindowLine {
    pub timeline: Timeline,
    pub wanted: Timestamp,
    /// From here on every moment can be reached.
    pub since: Timestamp,
    pub backup: Name,
}

/// A run of segments of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalLine {
    pub timeline: Timeline,
    pub first: SegmentName,
    pub last: SegmentName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frees {
    pub backups: u64,
    pub packs: u64,
    pub backup_bytes: u64,
    /// Segments and parts of segments.
    pub wal_objects: u64,
    pub wal_bytes: u64,
}

impl Frees {
    pub fn bytes(self) -> u64 {
        self.backup_bytes.saturating_add(self.wal_bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoneLine {
    pub backups: Vec<Name>,
    pub packs: u64,
    pub maps: u64,
    pub backup_bytes: u64,
    pub wal_objects: u64,
    pub wal_bytes: u64,
    pub gaps: u64,
    pub unfinished: u64,
    /// What is left to the next run, and why.
    pub postponed: Vec<String>,
}

impl Report {
    pub fn new(cluster: &Name, dry_run: bool, clock: &Clock) -> Self {
        let name = match clock.source {
            Source::Host => "host",
            Source::Store => "store",
            Source::Server => "server",
        };
        Self { cluster: cluster.clone(), dry_run, now: clock.now, clock: name, incarnations: Vec::new() }
    }
}

impl Incarnation {
    pub fn refused(system_id: SystemId, error: &Error) -> Self {
        Self {
            system_id: system_id.to_string(),
            backups: Vec::new(),
            windows: Vec::new(),
            wal: Vec::new(),
            frees: Frees::default(),
            notes: Vec::new(),
            done: None,
            error: Some(error.to_string()),
        }
    }

    pub fn planned(
        system_id: SystemId,
        size: SegmentSize,
        plan: &Plan,
        freed: &Freed,
        measured: &BTreeMap<Timeline, (u64, u64)>,
    ) -> Self {
        let backups = plan.verdicts.iter().map(|verdict| BackupLine {
            label: verdict.label.clone(),
            timeline: verdict.timeline,
            stop_time: verdict.stop,
            consistent_lsn: verdict.consistent,
            keep: verdict.is_kept(),
            why: verdict.why(),
            trouble: verdict.trouble.clone(),
        });
        let windows = plan.windows.iter().map(|window| WindowLine {
            timeline: window.timeline,
            wanted: window.wanted,
            since: window.since,
            backup: window.backup.clone(),
        });
        let name = |timeline, number| SegmentName::from_number(timeline, number, size);
        let wal = plan.wal.iter().flat_map(|(timeline, going)| {
            let timeline = *timeline;
            going.iter().map(move |run| WalLine {
                timeline,
                first: name(timeline, *run.start()),
                last: name(timeline, *run.end()),
            })
        });
        Self {
            system_id: system_id.to_string(),
            backups: backups.collect(),
            windows: windows.collect(),
            wal: wal.collect(),
            frees: Frees {
                backups: plan.going().count() as u64,
                packs: freed.count(),
                backup_bytes: freed.bytes(),
                wal_objects: measured.values().map(|(objects, _)| objects).sum(),
                wal_bytes: measured.values().map(|(_, bytes)| bytes).sum(),
            },
            notes: plan.notes.clone(),
            done: None,
            error: None,
        }
    }
}

impl From<Done> for DoneLine {
    fn from(done: Done) -> Self {
        Self {
            backups: done.backups,
            packs: done.swept.packs,
            maps: done.swept.maps,
            backup_bytes: done.swept.bytes,
            wal_objects: done.segments,
            wal_bytes: done.wal_bytes,
            gaps: done.gaps,
            unfinished: done.swept.unfinished,
            postponed: done.postponed,
        }
    }
}
