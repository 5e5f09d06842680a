//! The account of one incarnation of a cluster: what its parts say, put together.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::backups;
use super::paths;
use super::summary::{Day, Incarnation, PinSummary, RunningBackup, Stored, Unreadable, What};
use super::timelines;
use crate::error::Result;
use crate::ident::{Id, Name};
use crate::ops::restore::listed::ListedArchive;
use crate::ops::restore::streamed::Ends;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::catalog::Catalog;
use crate::repo::expired::Gone;
use crate::repo::inventory::{Inventory, Volume};
use crate::repo::lease::{self, Held, LeaseKind, Record};
use crate::repo::{Cluster, ClusterHeader, gap, pin};

/// Looks at packs first, then at leases, then at headers: what `repo::sweep` does, for the same reason.
pub fn look(cluster: &Cluster, header: &ClusterHeader, now: Timestamp) -> Result<Incarnation> {
    let size = header.segment_size;
    let inventory = Inventory::take(cluster, size)?;
    // Behind the listing: what expired before that is recorded by now.
    let gone = Gone::read(cluster, size)?;
    let mut unreadable = Vec::new();
    let leases = or_listed(lease::list(cluster), What::Leases, &mut unreadable);
    let pins = pins(cluster, now, &mut unreadable);
    let gaps = or_listed(gap::list(cluster), What::Gaps, &mut unreadable);
    let histories = histories(cluster, &inventory, size, &mut unreadable)?;
    let ends = ends(&inventory, &histories, size);
    let archive = ListedArchive::new(&inventory, Catalog::new(cluster, size), &ends);
    let mut backups = backups::read(cluster, &inventory, &mut unreadable)?;
    backups::look_for_wal(&mut backups, &archive, &histories)?;
    let paths = paths::look(&archive, &histories, &backups, &gone).unwrap_or_else(|error| {
        unreadable.push(Unreadable::new(What::Windows, None, &error));
        Vec::new()
    });
    let holes = paths::holes(&inventory, &histories, &backups.candidates, (&gaps, &gone), size);
    let spared: HashSet<Id> = leases.iter().filter_map(|held| Some(held.record.as_ref()?.run)).collect();
    let stored = stored(&inventory, backups.unreferenced(&inventory, &spared));
    // A repository that has gone looks like one without backups and pins.
    cluster.repository().confirm()?;
    Ok(Incarnation {
        system_id: header.system_id,
        postgres_major: header.postgres_major,
        segment_size: size,
        backups: backups.summaries(&pins, now),
        running: running(&leases, now),
        timelines: timelines::summaries(&inventory, &histories, &ends, size, now),
        paths,
        holes,
        gaps: timelines::recorded_gaps(&inventory, &gaps),
        stored,
        days: days(&inventory),
        unreadable,
    })
}

/// A list that can't be had is told, and empty.
fn or_listed<T>(listed: Result<Vec<T>>, what: What, unreadable: &mut Vec<Unreadable>) -> Vec<T> {
    listed.unwrap_or_else(|error| {
        unreadable.push(Unreadable::new(what, None, &error));
        Vec::new()
    })
}

/// The pins that hold now, by backup.
fn pins(
    cluster: &Cluster,
    now: Timestamp,
    unreadable: &mut Vec<Unreadable>,
) -> BTreeMap<Name, Vec<PinSummary>> {
    let mut pins: BTreeMap<Name, Vec<PinSummary>> = BTreeMap::new();
    let listed = or_listed(pin::list(cluster), What::Pins, unreadable);
    for pin in listed.into_iter().map(|found| found.record).filter(|pin| pin.holds_at(now)) {
        let summary = PinSummary { until: pin.until, note: pin.note, created: pin.created, host: pin.host };
        pins.entry(pin.label).or_default().push(summary);
    }
    pins
}

/// The paths that are known. One damaged history must not hide the others.
fn histories(
    cluster: &Cluster,
    inventory: &Inventory,
    size: SegmentSize,
    unreadable: &mut Vec<Unreadable>,
) -> Result<BTreeMap<Timeline, TimelineHistory>> {
    let catalog = Catalog::new(cluster, size);
    let mut histories = BTreeMap::new();
    for timeline in inventory.known_timelines() {
        match catalog.history(timeline) {
            Ok(history) => histories.extend(history.map(|history| (timeline, history))),
            Err(error) => {
                unreadable.push(Unreadable::new(What::History, Some(timeline.to_string()), &error));
            }
        }
    }
    Ok(histories)
}

/// The streamed parts that lie behind all whole segments.
fn ends(inventory: &Inventory, histories: &BTreeMap<Timeline, TimelineHistory>, size: SegmentSize) -> Ends {
    let parts = inventory.timelines.iter().filter_map(|(timeline, wal)| {
        let part = wal.newest_streamed?;
        let whole = wal.runs.last().map(|number| SegmentName::from_number(*timeline, number, size));
        (histories.contains_key(timeline) && whole.is_none_or(|whole| whole < part.segment)).then_some(part)
    });
    Ends::judge(parts, histories)
}

/// Of those leases that were not left behind by a killed run.
fn running(leases: &[Held], now: Timestamp) -> Vec<RunningBackup> {
    let fresh = |held: &Held| {
        let renewed = Timestamp::try_from(held.renewed()).unwrap_or(Timestamp::MIN);
        now.duration_since(renewed) < SignedDuration::try_from(lease::TTL).unwrap_or(SignedDuration::MAX)
    };
    let backups = leases.iter().filter(|held| fresh(held)).filter_map(|held| held.record.as_ref());
    let backups = backups.filter(|record| record.kind == LeaseKind::Backup);
    let running = |record: &Record| {
        let (label, host) = (record.label.clone()?, record.process.host.clone());
        Some(RunningBackup { label, started: record.started, host })
    };
    backups.filter_map(running).collect()
}

fn stored(inventory: &Inventory, unreferenced: Option<u64>) -> Stored {
    let packs = Volume {
        objects: inventory.packs.len() as u64,
        bytes: inventory.packs.iter().map(|(_, size)| *size).sum(),
    };
    let parts = [inventory.wal(), packs, inventory.backups, inventory.other];
    Stored {
        total_bytes: parts.into_iter().fold(Volume::default(), Volume::plus).bytes,
        wal_bytes: inventory.wal().bytes,
        packs: packs.objects,
        packs_bytes: packs.bytes,
        backups_bytes: inventory.backups.bytes,
        other_bytes: inventory.other.bytes,
        unreferenced_packs_bytes: unreferenced,
    }
}

/// Over all timelines.
fn days(inventory: &Inventory) -> Vec<Day> {
    let mut sums: BTreeMap<i64, Volume> = BTreeMap::new();
    for (day, volume) in inventory.timelines.values().flat_map(|wal| wal.pace.days()) {
        let sum = sums.entry(day).or_default();
        *sum = sum.plus(volume);
    }
    let day = |(day, volume): (i64, Volume)| {
        let begin = Timestamp::from_second(day.saturating_mul(24 * 3600)).ok()?;
        let day = begin.to_zoned(jiff::tz::TimeZone::UTC).date();
        Some(Day { day, segments: volume.objects, stored_bytes: volume.bytes })
    };
    sums.into_iter().filter_map(day).collect()
}
