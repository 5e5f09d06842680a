//! How far PostgreSQL reads to end a recovery as soon as a backup is consistent.
//!
//! It stops behind the record that makes the backup consistent (recoveryStopsAfter in xlogrecovery.c, RECOVERY_TARGET_IMMEDIATE),
//! or, where that is passed without a record of its own, before the next one (recoveryStopsBefore), which must then be
//! read whole. `bootstrap-restore` plans with that next record. So the segments stay in which it would find it.

use std::num::NonZeroUsize;

use super::facts::{Facts, Records};
use crate::error::{Kind, Result};
use crate::ops::restore::archive::StoredArchive;
use crate::ops::restore::choose::{Candidate, record_from};
use crate::ops::restore::streamed::Ends;
use crate::pg::history::TimelineHistory;
use crate::repo::Cluster;
use crate::repo::catalog::Catalog;

/// A record has at most 1 GiB (XLogRecordMaxSize): so many segments of 1 MiB, and both ends.
const FARTHEST: u64 = 1026;

/// The records of the repository.
pub struct Stored<'a> {
    pub cluster: &'a Cluster,
    pub facts: &'a Facts,
}

impl Records for Stored<'_> {
    fn last_needed(&self, path: &TimelineHistory, backup: &Candidate) -> Result<Option<u64>> {
        let catalog = Catalog::new(self.cluster, self.facts.size);
        let first = self.facts.size.segment_of(backup.consistent);
        let is_there = |number: &u64| {
            let name = catalog.name_on(path, *number);
            self.facts.wal.get(&name.timeline).is_some_and(|wal| wal.whole.contains(*number))
        };
        let Some(end) = (first..first.saturating_add(FARTHEST)).take_while(is_there).last() else {
            return Ok(None);
        };
        let archive = StoredArchive { catalog, jobs: NonZeroUsize::MIN, ends: &Ends::default() };
        match record_from(&archive, path, backup.consistent, end) {
            Ok(found) => Ok(found.map(|(segment, _)| segment)),
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::warn!("{error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
