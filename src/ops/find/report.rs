//! What was found, as the command line prints it and as JSON (docs/schema/find.v1.json).

use serde::{Serialize, Serializer};

use super::transactions::Fate;
use crate::error::{Error, Kind};
use crate::ident::Name;
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelFileLocator;
use crate::pg::time::Timestamp;
use crate::pg::wal::RawText;

/// Relations of one transaction that are listed.
pub const MAX_RELATIONS: usize = 1000;

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub cluster: Name,
    /// In the order of the WAL, timeline by timeline.
    pub hits: Vec<Hit>,
    /// How many there were; more than are listed when the limit cut them.
    pub found: u64,
    pub searched: Searched,
    /// What one should know about the result.
    pub notes: Vec<String>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The worst of what could not be read.
    pub fn worst(&self) -> Option<Kind> {
        let is = |kind: Kind| self.problems.iter().any(|problem| problem.kind == kind);
        [Kind::Corrupt, Kind::Transient]
            .into_iter()
            .find(|kind| is(*kind))
            .or_else(|| self.problems.first().map(|problem| problem.kind))
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Searched {
    /// Segments in the range.
    pub segments: u64,
    /// Those whose content was read.
    pub read: u64,
}

/// A segment that could not be read, or not all of it.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    pub segment: SegmentName,
    pub what: String,
    #[serde(serialize_with = "word")]
    pub kind: Kind,
}

fn word<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl Problem {
    pub fn of(segment: SegmentName, error: &Error) -> Self {
        Self { segment, what: error.message().to_string(), kind: error.kind() }
    }
}

/// What a hit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    RestorePoint,
    Commit,
    Abort,
    /// A transaction that dropped, truncated or rewrote relations.
    Relations,
    DatabaseDropped,
    /// Its directory in one tablespace was removed, but its row in pg_database was not: it was moved.
    DatabaseMoved,
}

/// One moment that was looked for.
#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    pub what: What,
    pub system_id: SystemId,
    pub timeline: Timeline,
    /// The file in which the record is.
    pub segment: SegmentName,
    /// Where the record starts and ends.
    pub lsn: Lsn,
    pub end_lsn: Lsn,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
    /// With its epoch, as pg_current_xact_id() gave it; where a checkpoint told the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_xid: Option<u64>,
    /// By COMMIT PREPARED or ROLLBACK PREPARED.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepared: bool,
    /// The name of a restore point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RawText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<Relation>,
    /// How many there are; more than are listed of a transaction with very many.
    #[serde(skip_serializing_if = "is_zero")]
    pub relations_found: u64,
    /// Relations without storage of their own that were dropped and whose names are not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub unnamed: u64,
    pub restore: Restore,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    pub oid: Oid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A relation that a transaction dropped, truncated or rewrote.
#[derive(Clone, Debug, Serialize)]
pub struct Relation {
    pub fate: Fate,
    pub database: Database,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_oid: Option<Oid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// "table", "index" …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<Oid>,
    /// What was removed, as PostgreSQL names it: tablespace, database, file.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub storage: Option<RelFileLocator>,
}

fn text<S: Serializer>(storage: &Option<RelFileLocator>, serializer: S) -> Result<S::Ok, S::Error> {
    match storage {
        Some(storage) => serializer.collect_str(storage),
        None => serializer.serialize_none(),
    }
}

/// How to get to the moment just before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restore {
    /// Recovery stops in front of this record.
    pub lsn: Lsn,
    /// Flags of `bootstrap-restore`.
    pub arguments: Vec<String>,
    /// Whether there is a backup before it, and all WAL in between.
    pub reachable: bool,
    /// What is left to do on the restored server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

/// What pg_class calls a relation by a letter (relkind).
pub fn kind_word(kind: char) -> &'static str {
    match kind {
        'r' => "table",
        'p' => "partitioned table",
        'i' => "index",
        'I' => "partitioned index",
        'S' => "sequence",
        't' => "toast table",
        'v' => "view",
        'm' => "materialized view",
        'c' => "composite type",
        'f' => "foreign table",
        _ => "relation",
    }
}
