//! The result of a verification: plain data for `cli::verify` to print, as text or as the JSON of
//! `docs/schema/verify.v1.json`. Lists name the first so many and have an exact count.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::continuity::Hole;
use super::cost::{BackupCost, State};
use super::findings::{Bounded, Counts, Damaged, Said};
use super::outcome::{Outcome, Unreferenced};
use super::{Request, Scope};
use crate::ident::{Id, Name};
use crate::ops::restore::window::Window;
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::Repository;
use crate::repo::verified::Position;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Sound,
    /// Something could not be read; what could is sound.
    Incomplete,
    Damaged,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub repository_id: Id,
    pub cluster: Name,
    #[serde(serialize_with = "scope")]
    pub scope: Scope,
    pub deep: bool,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub verdict: Verdict,
    pub systems: Vec<System>,
}

/// One incarnation of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    pub system_id: SystemId,
    pub verdict: Verdict,
    pub read: Counts,
    pub damaged: Bounded<Damaged>,
    /// More segments are damaged than what is told about the cost accounts for.
    pub more_damaged_segments: bool,
    pub unread: Bounded<Said>,
    pub holes: Bounded<HoleReport>,
    pub backups: Vec<BackupCost>,
    /// To where one could go back if nothing were damaged or missing, and to where one can. None: not looked at.
    pub windows: Option<Windows>,
    /// WAL that was damaged when the server handed it over, and is stored as it was.
    pub damaged_by_server: Bounded<Said>,
    pub unreferenced_packs: Option<Unreferenced>,
    pub foreign_objects: Bounded<String>,
    /// Objects that were deleted while they were to be read.
    pub deleted_meanwhile: u64,
    pub round: Option<Round>,
    /// Whether the result is recorded in the repository.
    pub recorded: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Windows {
    pub before: Vec<Window>,
    pub after: Vec<Window>,
}

#[derive(Clone, Debug, Serialize)]
pub struct HoleReport {
    pub timeline: Timeline,
    pub first: SegmentName,
    pub last: SegmentName,
    pub segments: u64,
    /// It is what retention leaves behind a backup that is kept for itself: no finding.
    pub retention: bool,
    /// Why the segments are missing, if that is recorded.
    pub recorded: Option<String>,
}

/// Where a verification in portions is.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub started: Timestamp,
    /// Whether everything was verified since then.
    pub complete: bool,
    /// The last object that was verified.
    pub reached: Option<String>,
}

impl Report {
    pub(super) fn new(
        repository: &Repository,
        cluster: &Name,
        request: &Request,
        started: Timestamp,
        outcomes: Vec<Outcome>,
    ) -> Self {
        let mut systems: Vec<System> =
            outcomes.into_iter().map(|outcome| System::new(outcome, &request.scope)).collect();
        systems.sort_by_key(|system| system.system_id);
        Self {
            repository_id: repository.id(),
            cluster: cluster.clone(),
            scope: request.scope.clone(),
            deep: request.deep,
            started,
            ended: Timestamp::now(),
            verdict: systems.iter().map(|system| system.verdict).max().unwrap_or(Verdict::Sound),
            systems,
        }
    }
}

impl System {
    fn new(outcome: Outcome, scope: &Scope) -> Self {
        let verdict = match (outcome.is_damaged(), outcome.is_sound()) {
            (true, _) => Verdict::Damaged,
            (false, true) => Verdict::Sound,
            (false, false) => Verdict::Incomplete,
        };
        let Outcome { cluster, found, cost, unreferenced, position, recorded, .. } = outcome;
        let stories = cost.stories;
        let hole = |hole: Hole| HoleReport {
            recorded: stories.get(&hole.first).cloned(),
            segments: hole.segments(),
            timeline: hole.timeline,
            first: hole.first,
            last: hole.last,
            retention: hole.retention,
        };
        let holes =
            Bounded { count: cost.holes.count, first: cost.holes.first.into_iter().map(hole).collect() };
        // What one backup alone gives is no window of the archive.
        let of_all = !matches!(scope, Scope::Backup(_));
        Self {
            system_id: cluster.system_id(),
            verdict,
            read: found.counts,
            damaged: found.damage.into_bounded(),
            more_damaged_segments: found.more_segments,
            unread: found.unread,
            holes,
            backups: cost.backups,
            windows: of_all.then_some(Windows { before: cost.before, after: cost.after }),
            damaged_by_server: found.by_server,
            unreferenced_packs: unreferenced,
            foreign_objects: found.foreign,
            deleted_meanwhile: found.vanished,
            round: position.map(Round::new),
            recorded,
        }
    }

    pub fn lost(&self) -> impl Iterator<Item = &BackupCost> {
        self.backups.iter().filter(|backup| backup.state != State::Restores)
    }
}

impl Round {
    fn new(position: Position) -> Self {
        Self {
            started: position.round_started,
            complete: position.reached.is_none(),
            reached: position.reached.map(|place| place.key),
        }
    }
}

fn scope<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shape<'a> {
        kind: &'static str,
        backup: Option<&'a Name>,
    }
    let (kind, backup) = match scope {
        Scope::Everything => ("everything", None),
        Scope::Backup(label) => ("backup", Some(label)),
        Scope::Sample(_) => ("sample", None),
    };
    Shape { kind, backup }.serialize(serializer)
}
