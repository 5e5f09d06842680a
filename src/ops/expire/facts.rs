//! What a plan is made from: everything that was found of one incarnation of a cluster, and nothing that has to be
//! looked up.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::error::Result;
use crate::ident::{Id, Name};
use crate::ops::restore::choose::Candidate;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::repo::lease::NeededWal;
use crate::repo::runs::Runs;

/// One incarnation of a cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    pub size: SegmentSize,
    /// The paths to all timelines whose history is known.
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    /// Timelines of which there is something, but no history that can be read.
    pub unknown: BTreeSet<Timeline>,
    pub backups: Vec<Backup>,
    pub wal: BTreeMap<Timeline, Wal>,
    /// When WAL was last heard of on a timeline: by whichever clock says the latest.
    pub activity: BTreeMap<Timeline, Timestamp>,
    /// Those that have run out too.
    pub pins: Vec<Pinned>,
    /// Restores that are under way.
    pub restores: Vec<Restoring>,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Of the run that made it: a label can be used again.
    pub run: Id,
    pub at: Candidate,
    /// The server's clock at its end.
    pub stop: Timestamp,
    /// Why it can't be restored, though its WAL may be there.
    pub damage: Option<String>,
}

/// What the archive holds of a timeline, by the number of the segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wal {
    /// Whole segments.
    pub whole: Runs,
    /// Anything of a segment, whole or not.
    pub any: Runs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub label: Name,
    pub until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoring {
    pub label: Name,
    pub wal: NeededWal,
    /// For people.
    pub who: String,
}

/// What only the content of WAL says.
pub trait Records {
    /// The segment up to which PostgreSQL must read so that a recovery along the path that ends as soon as the
    /// backup is consistent ends well. None when the archive does not say.
    fn last_needed(&self, path: &TimelineHistory, backup: &Candidate) -> Result<Option<u64>>;
}
