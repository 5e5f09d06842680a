//! What there is to know of a repository's clusters at a glance: the one account that `info` prints, `report`
//! draws and `metrics` counts. Plain data; its JSON is `docs/schema/info.v1.json`.
//!
//! Times are UTC; sizes are bytes in the store unless they are called raw; ages are seconds before `time`.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Kind;
use crate::ident::{Id, Name};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub repository: RepositorySummary,
    /// When this was looked up, by this host's clock.
    pub time: Timestamp,
    /// By name.
    pub clusters: Vec<ClusterSummary>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepositorySummary {
    pub id: Id,
    pub location: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterSummary {
    pub name: Name,
    /// The one that archived last comes last.
    pub incarnations: Vec<Incarnation>,
    /// Incarnations of which not even `cluster.json` can be read.
    pub unreadable: Vec<Unreadable>,
}

/// All of one system identifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incarnation {
    pub system_id: SystemId,
    pub postgres_major: u32,
    #[serde(rename = "segment_size_bytes")]
    pub segment_size: SegmentSize,
    /// Oldest first, by their end.
    pub backups: Vec<BackupSummary>,
    /// Backups that are being taken, or whose lease has not lapsed yet.
    pub running: Vec<RunningBackup>,
    /// Every timeline of which there is WAL or a history file, lowest first.
    pub timelines: Vec<TimelineSummary>,
    /// Where one can go back to along each path that is known, lowest timeline first.
    pub paths: Vec<PathSummary>,
    /// Segments that are missing though later ones are there, by timeline and place.
    pub holes: Vec<HoleSummary>,
    /// Segments that a server has dropped on purpose, by its own account.
    pub gaps: Vec<RecordedGap>,
    pub stored: Stored,
    /// WAL by the day (UTC) on which it was stored, days without any left out.
    pub days: Vec<Day>,
    /// What is there and can't be read, backups above all.
    pub unreadable: Vec<Unreadable>,
}

/// A backup as its header tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupSummary {
    pub label: Name,
    pub start_time: Timestamp,
    pub stop_time: Timestamp,
    /// Since its end. Negative when the server's clock is ahead of ours.
    pub age_seconds: i64,
    pub duration_seconds: i64,
    /// The size of the cluster's files.
    pub raw_bytes: u64,
    /// What the backup's own run wrote.
    pub stored_bytes: u64,
    /// Its map and the packs to which no other backup refers: what deleting it would free.
    pub alone_bytes: u64,
    pub start_lsn: Lsn,
    pub start_timeline: Timeline,
    pub stop_lsn: Lsn,
    pub stop_timeline: Timeline,
    pub consistent_lsn: Lsn,
    pub from_standby: bool,
    pub damaged_pages: u64,
    /// Those that hold now.
    pub pins: Vec<PinSummary>,
    pub predecessor: Option<Name>,
    /// How many things the operator was told while it was taken.
    pub warnings: u64,
    pub packs: u64,
    /// Packs that it refers to and that are not there: it can't be restored.
    pub missing_packs: u64,
    /// Whether a path that is known leads through it. Otherwise a history is missing, and it can't be restored.
    pub on_known_path: bool,
    /// The first segment that is missing of those without which the backup is not consistent.
    pub missing_wal: Option<SegmentName>,
    pub host: String,
}

impl BackupSummary {
    /// Whether all that it needs is there, by name and size.
    pub fn is_whole(&self) -> bool {
        self.missing_packs == 0 && self.missing_wal.is_none() && self.on_known_path
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PinSummary {
    pub until: Option<Timestamp>,
    pub note: Option<String>,
    pub created: Timestamp,
    pub host: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningBackup {
    pub label: Name,
    pub started: Timestamp,
    pub host: String,
}

/// The WAL of one timeline, by its own files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimelineSummary {
    pub timeline: Timeline,
    /// Whether the path that led to it is known. Without, nothing on it can be restored.
    pub history_known: bool,
    /// Where it left its parent. None: it has none, or it is not known.
    pub fork: Option<Fork>,
    pub first_segment: Option<SegmentName>,
    pub last_segment: Option<SegmentName>,
    /// Whole ones.
    pub segments: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    /// Segments of the last 24 hours before the newest, raw.
    pub last_day_raw_bytes: u64,
    /// The mean over the last week of it, or as long as there is any if that is less.
    pub raw_bytes_per_day: u64,
    /// When its oldest and its newest segment were stored, by the store's clock.
    pub oldest_time: Option<Timestamp>,
    pub newest_time: Option<Timestamp>,
    pub newest_age_seconds: Option<i64>,
    /// `.partial` files, which promotions leave.
    pub partials: u64,
    /// The last segment as far as it was streamed, behind all whole ones.
    pub streamed: Option<StreamedSummary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fork {
    pub parent: Timeline,
    /// The first byte that belongs to the new timeline.
    pub lsn: Lsn,
    /// When the history file was stored, soon after the promotion.
    pub time: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamedSummary {
    pub segment: SegmentName,
    pub end_lsn: Lsn,
    /// Why a restore does not use it, if it does not.
    pub refused: Option<String>,
}

/// The path to one timeline: what a restore with that `--target-timeline` follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathSummary {
    pub timeline: Timeline,
    /// Its ancestors, oldest first, and where the path leaves each.
    pub ancestors: Vec<Ancestor>,
    /// The stretches within which every moment can be reached, oldest first. None of its own for a timeline of
    /// which nothing is archived.
    pub windows: Vec<WindowSummary>,
    /// The backups that lie on it, oldest first.
    pub backups: Vec<Name>,
    /// The newest whole segment on it, whether it can be reached or not, and when it was stored.
    pub newest_segment: Option<SegmentName>,
    pub newest_time: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ancestor {
    pub timeline: Timeline,
    pub until_lsn: Lsn,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowSummary {
    /// The backup whose end is the window's begin.
    pub backup: Name,
    /// By the server's clock.
    pub from_time: Timestamp,
    pub from_lsn: Lsn,
    /// The last transaction that ended within it. None: no transaction did, or it is not known.
    pub to_time: Option<Timestamp>,
    pub to_lsn: Lsn,
    /// The segment at which it ends because that one is missing. None: it goes up to the end of the archive.
    pub missing: Option<SegmentName>,
    /// That one is missing on purpose: see [`HoleSummary::expired`].
    pub expired: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoleSummary {
    pub timeline: Timeline,
    pub first_segment: SegmentName,
    pub last_segment: SegmentName,
    pub segments: u64,
    pub from_lsn: Lsn,
    pub to_lsn: Lsn,
    /// `pgark expire` deleted it, or would have: not a loss.
    pub expired: bool,
    /// Why, as far as records tell.
    pub stories: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordedGap {
    pub first_segment: SegmentName,
    pub last_segment: SegmentName,
    pub segments: u64,
    pub since: Timestamp,
    pub until: Timestamp,
    pub host: String,
    /// Whether any of it is really missing: a segment may have come from another server.
    pub missing: bool,
}

/// What everything takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stored {
    pub total_bytes: u64,
    /// Segments, parts of them, and histories.
    pub wal_bytes: u64,
    pub packs: u64,
    pub packs_bytes: u64,
    /// Headers and maps.
    pub backups_bytes: u64,
    pub other_bytes: u64,
    /// Packs of no backup, neither finished nor running: the next backup sweeps them. None: there are headers
    /// that can't be read, so nobody knows.
    pub unreferenced_packs_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Day {
    pub day: jiff::civil::Date,
    pub segments: u64,
    pub stored_bytes: u64,
}

/// An object that is there and can't be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unreadable {
    pub what: What,
    /// The backup's label, the timeline's number, the system identifier. None: of all of that kind.
    pub name: Option<String>,
    pub error: String,
    /// The error's kind: it decides the exit code.
    #[serde(serialize_with = "kind_word")]
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Backup,
    Cluster,
    Gaps,
    History,
    Leases,
    Pins,
    Records,
    Windows,
}

impl What {
    /// What it is called before its name, if it has one.
    pub fn words(self) -> &'static str {
        match self {
            What::Backup => "backup",
            What::Cluster => "system identifier",
            What::Gaps => "recorded gaps",
            What::History => "history of timeline",
            What::Leases => "leases",
            What::Pins => "pins",
            What::Records => "records of checks and verifications",
            What::Windows => "the ends of windows",
        }
    }
}

fn kind_word<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl Unreadable {
    pub fn new(what: What, name: Option<String>, error: &crate::error::Error) -> Self {
        Self { what, name, error: error.to_string(), kind: error.kind() }
    }
}

impl Summary {
    /// Everything that can't be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &Unreadable> {
        self.clusters.iter().flat_map(|cluster| {
            let inner = cluster.incarnations.iter().flat_map(|incarnation| &incarnation.unreadable);
            cluster.unreadable.iter().chain(inner)
        })
    }

    /// What the exit code must tell: damage before all else.
    pub fn worst(&self) -> Option<Kind> {
        let kinds = || self.unreadable().map(|unreadable| unreadable.kind);
        kinds().find(|kind| *kind == Kind::Corrupt).or_else(|| kinds().next())
    }
}

impl Incarnation {
    /// When it was last written to, as far as WAL and backups tell.
    pub fn newest(&self) -> Option<Timestamp> {
        let wal = self.timelines.iter().filter_map(|timeline| timeline.newest_time);
        wal.chain(self.backups.iter().map(|backup| backup.stop_time)).max()
    }

    pub fn backup(&self, label: &Name) -> Option<&BackupSummary> {
        self.backups.iter().find(|backup| backup.label == *label)
    }
}
