//! Sweeping: removing what killed and failed runs left behind, and nothing else.
//!
//! Garbage is a pack that no header lists and whose run has no lease, and a map without a header. THE ORDER OF
//! LOOKING IS WHAT MAKES THIS SAFE, whatever runs meanwhile on other hosts:
//!
//! 1. packs and maps first, 2. leases, 3. headers.
//!
//! - A run that began after step 1 has nothing in our list.
//! - A run that is at work in step 2 has a lease (it creates that before its first pack), and is left alone. The
//!   listing sees one of its objects, though it may be renewed meanwhile (`repo::lease`).
//! - A run that ended before step 2 saw its lease created its header before it deleted the lease, so step 3
//!   sees the header.
//! - A run that died has neither, and its packs never get a header: stale leases are deleted only by whoever
//!   acquires one, before any sweep, and a run whose lease is gone creates no header that stays.
//!
//! A header or lease that can't be read or parsed stops the sweep before it deletes anything: what it refers to
//! is unknown. Memory holds the names of packs, about 100 bytes for each GiB of the repository.

use std::collections::HashSet;
use std::time::Duration;

use super::layout::{self, Id, Name, PackId};
use super::lease::{self, Lease};
use super::{Cluster, backup};
use crate::error::{Error, Kind, Result};
use crate::store::Meta;

/// Unfinished objects that no lease tells of, such as segments of WAL, count as left behind when nobody
/// has written to them for this long.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub packs: u64,
    /// Of those packs.
    pub bytes: u64,
    pub maps: u64,
    /// Objects that were never published.
    pub unfinished: u64,
}

/// Removes garbage. The caller holds a lease, so that one sweeps at a time, and has not begun to write packs.
pub fn sweep(cluster: &Cluster, lease: &Lease) -> Result<Swept> {
    lease.still_held()?;
    let seen = Seen::look(cluster)?;
    let spared = Spared::look(cluster)?;
    let mut swept = Swept::default();
    for (pack, object) in &seen.packs {
        if !spared.runs.contains(&pack.backup) && !spared.packs.contains(pack) {
            swept.packs += u64::from(cluster.store().delete(&object.key)?);
            swept.bytes += object.size;
        }
    }
    for (label, object) in &seen.maps {
        // One younger than our lease can be of a run that began meanwhile under the label of a dead one.
        if !spared.labels.contains(label) && object.modified < lease.since() {
            swept.maps += u64::from(cluster.store().delete(&object.key)?);
        }
    }
    swept.unfinished = sweep_unfinished(cluster, lease, &spared)?;
    Ok(swept)
}

/// What may be garbage.
struct Seen {
    packs: Vec<(PackId, Meta)>,
    maps: Vec<(Name, Meta)>,
}

impl Seen {
    fn look(cluster: &Cluster) -> Result<Self> {
        let mut packs = Vec::new();
        for object in cluster.store().walk(&cluster.layout().packs()?) {
            let object = object?;
            if let Some(pack) = layout::parse_pack(&object.key) {
                packs.push((pack, object));
            }
        }
        let mut maps = Vec::new();
        for prefix in cluster.store().level(&cluster.layout().backups()?)?.prefixes {
            let Some(label) = layout::parse_backup_label(&prefix) else { continue };
            match cluster.store().head(&cluster.layout().backup_map(&label)?) {
                Ok(object) => maps.push((label, object)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { packs, maps })
    }
}

/// What is in use.
struct Spared {
    runs: HashSet<Id>,
    packs: HashSet<PackId>,
    labels: HashSet<Name>,
}

impl Spared {
    fn look(cluster: &Cluster) -> Result<Self> {
        let refused = |error: Error| error.context("swept nothing");
        let mut spared = Self { runs: HashSet::new(), packs: HashSet::new(), labels: HashSet::new() };
        for held in lease::list(cluster).map_err(refused)? {
            let record = held.record.ok_or_else(|| {
                refused(Error::conflict("there is a lease that can't be read")).with_hint(
                    "a newer pgark may be at work; the lease lapses in half an hour unless renewed",
                )
            })?;
            spared.runs.insert(record.run);
            spared.labels.insert(record.label);
        }
        for header in backup::iter(cluster).map_err(refused)? {
            let header = header.map_err(refused)?;
            spared.packs.extend(header.packs.iter().map(|pack| pack.id));
            spared.labels.insert(header.label);
        }
        Ok(spared)
    }
}

/// Uploads that were never finished. No other run than ours is alive if ours has the only lease, and ours
/// has begun none.
fn sweep_unfinished(cluster: &Cluster, lease: &Lease, spared: &Spared) -> Result<u64> {
    let alone = spared.runs.iter().all(|run| *run == lease.run());
    let idle = if alone { Duration::ZERO } else { IDLE };
    let (store, layout) = (cluster.store(), cluster.layout());
    let mut removed = store.sweep_staged(&layout.packs()?, idle)?;
    removed += store.sweep_staged(&layout.root()?, IDLE)?;
    for object in store.walk(&layout.staging_area()?) {
        let object = object?;
        if lease.since().duration_since(object.modified).is_ok_and(|age| age > IDLE) {
            removed += u64::from(store.delete(&object.key)?);
        }
    }
    Ok(removed)
}
