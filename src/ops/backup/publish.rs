//! The end of a backup: packs and map become durable, and the header makes the backup exist.
//!
//! Invariant: whatever fails before the header, nothing of this run stays in the repository; what a killed
//! run leaves, the next one sweeps.

use std::thread::{self, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::repo::Cluster;
use crate::repo::backup::{self, BackupHeader};
use crate::repo::layout::Name;
use crate::repo::lease::Lease;
use crate::repo::map::{MapSummary, MapWriter};
use crate::repo::pack::{PackSummary, PackWriter};
use crate::threads;

/// Packs and a map to which no header refers yet. Dropped without [`Unpublished::publish`], they are removed.
pub struct Unpublished<'a> {
    cluster: &'a Cluster,
    label: &'a Name,
    /// Sorted by id.
    packs: Vec<PackSummary>,
    map: Option<MapSummary>,
}

impl<'a> Unpublished<'a> {
    /// Makes packs and map durable, all packs at once.
    pub fn finish(
        cluster: &'a Cluster,
        label: &'a Name,
        packs: Vec<PackWriter>,
        map: MapWriter,
    ) -> Result<(Self, MapSummary)> {
        let mut unpublished = Self { cluster, label, packs: Vec::new(), map: None };
        let finished: Vec<Result<Vec<PackSummary>>> = thread::scope(|scope| {
            let finish = |packs: PackWriter| threads::start(scope, "finish", || packs.finish());
            let finishing: Vec<_> = packs.into_iter().map(finish).collect();
            let panicked = |_| Err(Error::bug("a thread panicked"));
            let join = |thread: Result<_>| {
                thread.and_then(|thread: ScopedJoinHandle<_>| thread.join().unwrap_or_else(panicked))
            };
            finishing.into_iter().map(join).collect()
        });
        // Those that succeeded are ours to remove if another failed.
        let failed =
            finished.into_iter().filter_map(|packs| packs.map(|packs| unpublished.packs.extend(packs)).err());
        if let Some(error) = failed.last() {
            return Err(error);
        }
        unpublished.packs.sort_by_key(|pack| pack.id);
        let map = map.finish(label)?;
        unpublished.map = Some(map.clone());
        Ok((unpublished, map))
    }

    pub fn packs(&self) -> &[PackSummary] {
        &self.packs
    }

    /// Makes the backup exist, if the lease is still held.
    pub fn publish(mut self, header: &BackupHeader, lease: &Lease) -> Result<()> {
        // From here on the header may exist even if this fails, and then what it refers to must: what is not
        // referred to is left to a sweep.
        self.packs.clear();
        self.map = None;
        backup::write(self.cluster, header, || lease.still_held())
    }

    fn remove(&mut self) -> Result<()> {
        let (store, layout) = (self.cluster.store(), self.cluster.layout());
        if self.map.take().is_some() {
            store.delete(&layout.backup_map(self.label)?)?;
        }
        for pack in self.packs.drain(..) {
            store.delete(&layout.pack(pack.id)?)?;
        }
        Ok(())
    }
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!("could not remove what the failed backup wrote: {error}; the next one sweeps it");
        }
    }
}
