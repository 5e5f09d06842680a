//! What came of the verification of one incarnation: what was found, what it costs, and the records of both.
//!
//! Records that can't be written keep nobody from the result: a repository may well be verified where it can only be
//! read. A portion that can't remember how far it came is an error, because the next one would begin where it did.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;

use super::backups;
use super::context::Context;
use super::cost::{self, Cost, Ledger};
use super::findings::Found;
use super::{Labels, Run, Scope};
use crate::error::{Kind, Result};
use crate::host;
use crate::ident::Name;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::repo::layout::{self, Id, PackId};
use crate::repo::verified::{self, DamagedPack, Position, Verification};
use crate::repo::{Cluster, backup, lease};

pub type Histories = BTreeMap<Timeline, TimelineHistory>;

/// Of one incarnation.
pub struct Outcome {
    pub cluster: Cluster,
    pub found: Found,
    pub cost: Cost,
    pub unreferenced: Option<Unreferenced>,
    /// Where a verification in portions is now.
    pub position: Option<Position>,
    /// What was handed out to be checked.
    pub units: u64,
    /// Whether the records of this verification are in the repository.
    pub recorded: bool,
}

/// Packs that no header lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Unreferenced {
    /// Left by a run that ended early; the next backup or `pgark expire` removes them.
    pub packs: u64,
    pub bytes: u64,
    /// Of runs that have a lease: they may be at work.
    pub leased: u64,
}

impl Outcome {
    pub(super) fn of(
        context: Context<'_>,
        histories: Histories,
        labels: &Labels,
        units: u64,
        run: &Run<'_>,
    ) -> Result<Self> {
        let (cluster, size) = (context.cluster.clone(), context.size);
        let labels = match labels {
            Labels::All => backup::labels(&cluster)?,
            Labels::One(label) => vec![label.clone()],
        };
        recheck(&context, &labels)?;
        let found = context.findings.into_found();
        let cost = match size {
            Some(size) => {
                let of_all = !matches!(run.request.scope, Scope::Backup(_));
                let histories = &histories;
                Ledger { cluster: &cluster, size, histories, found: &found, of_all }.cost(&labels)?
            }
            None => cost::without_wal(&labels, &found),
        };
        let unreferenced = match run.request.scope {
            Scope::Everything => unreferenced(&cluster)?,
            Scope::Backup(_) | Scope::Sample(_) => None,
        };
        Ok(Self { cluster, found, cost, unreferenced, position: None, units, recorded: false })
    }

    pub fn is_damaged(&self) -> bool {
        cost::is_damaged(&self.found, &self.cost)
    }

    /// Nothing wrong, and everything was read.
    pub fn is_sound(&self) -> bool {
        !self.is_damaged() && self.found.unread.is_empty()
    }

    /// Leaves the records behind.
    pub(super) fn record(mut self, position: Option<(Position, Vec<Id>)>, run: &Run<'_>) -> Result<Self> {
        if let Some((position, superfluous)) = position {
            host::refuse_foreign_root(run.location)?;
            verified::reached(&self.cluster, &position, &superfluous)?;
            self.position = Some(position);
        }
        match host::refuse_foreign_root(run.location).and_then(|()| self.put_records(run)) {
            Ok(()) => self.recorded = true,
            Err(error) => tracing::warn!("the result is not recorded in the repository: {error}"),
        }
        Ok(self)
    }

    fn put_records(&self, run: &Run<'_>) -> Result<()> {
        let damage = self.damaged_packs();
        let all_read = self.found.unread.is_empty();
        // A portion has seen a part of a pack.
        let whole = !matches!(run.request.scope, Scope::Sample(_));
        let seen = match &run.request.scope {
            Scope::Backup(label) => packs_of(&self.cluster, label)?,
            _ => None,
        };
        let sound = |pack: PackId| {
            let was_read = seen.as_ref().is_none_or(|seen| seen.contains(&pack));
            let is_damaged = damage.iter().any(|damaged| damaged.pack == pack);
            whole && all_read && was_read && !is_damaged
        };
        verified::note_damage(&self.cluster, &damage, sound)?;
        verified::finished(&self.cluster, &self.verification(run))
    }

    /// Frames that the next backup must not take over: damaged ones, and those of which a map says what is not so.
    fn damaged_packs(&self) -> Vec<DamagedPack> {
        let mut packs: BTreeMap<PackId, DamagedPack> = BTreeMap::new();
        let start = |pack| DamagedPack {
            pack,
            frames: BTreeSet::new(),
            whole: false,
            found: Timestamp::now(),
            host: host::name(),
        };
        for (pack, damaged) in &self.found.packs {
            let record = packs.entry(*pack).or_insert_with(|| start(*pack));
            // A pack that can't say what it holds is better not built upon either.
            record.whole = damaged.whole || damaged.list;
            if !record.whole {
                record.frames = damaged.offsets.clone();
            }
        }
        for (pack, offset) in self.found.backups.values().flat_map(|damage| &damage.references) {
            packs.entry(*pack).or_insert_with(|| start(*pack)).frames.insert(*offset);
        }
        packs.into_values().collect()
    }

    fn verification(&self, run: &Run<'_>) -> Verification {
        let damage = &self.found.damage;
        let lost: Vec<Name> = self.cost.lost().map(|backup| backup.label.clone()).collect();
        let (scope, backup) = match &run.request.scope {
            Scope::Everything => (verified::Scope::Everything, None),
            Scope::Backup(label) => (verified::Scope::Backup, Some(label.clone())),
            Scope::Sample(_) => (verified::Scope::Sample, None),
        };
        Verification {
            scope,
            backup,
            deep: run.request.deep,
            started: run.started,
            ended: Timestamp::now(),
            host: host::name(),
            objects: self.found.counts.objects,
            bytes: self.found.counts.bytes,
            damaged: damage.count,
            damaged_first: damage.named().take(verified::NAMED).map(|damaged| damaged.key.clone()).collect(),
            unread: self.found.unread.count,
            holes: self.cost.unexplained(),
            lost_backups: lost.len() as u64,
            lost_backups_first: lost.into_iter().take(verified::NAMED).collect(),
            sound: self.is_sound(),
        }
    }
}

/// What vanished while it was read was perhaps of a backup that is still there.
pub(super) fn recheck(context: &Context<'_>, labels: &[Name]) -> Result<()> {
    if !context.findings.saw_vanishing() {
        return Ok(());
    }
    for label in labels {
        match backup::read(context.cluster, label) {
            Ok(header) => backups::check_packs(context, &header)?,
            // Told when it was read first, or deleted.
            Err(error) => tracing::debug!("{error}"),
        }
    }
    Ok(())
}

/// Packs that no header lists, in the order of looking that a sweep has. None when a header can't be read: then
/// nobody knows.
fn unreferenced(cluster: &Cluster) -> Result<Option<Unreferenced>> {
    let mut sizes = BTreeMap::new();
    for object in cluster.store().level(&cluster.layout().packs()?)?.objects {
        if let Some(pack) = layout::parse_pack(&object.key) {
            sizes.insert(pack, object.size);
        }
    }
    let leased: HashSet<Id> =
        lease::list(cluster)?.iter().filter_map(|held| Some(held.record.as_ref()?.run)).collect();
    for header in backup::iter(cluster)? {
        let Ok(header) = header else { return Ok(None) };
        for pack in &header.packs {
            sizes.remove(&pack.id);
        }
    }
    let mut unreferenced = Unreferenced::default();
    for (pack, bytes) in sizes {
        if leased.contains(&pack.backup) {
            unreferenced.leased += 1;
        } else {
            unreferenced.packs += 1;
            unreferenced.bytes = unreferenced.bytes.saturating_add(bytes);
        }
    }
    Ok(Some(unreferenced))
}

fn packs_of(cluster: &Cluster, label: &Name) -> Result<Option<HashSet<PackId>>> {
    match backup::read(cluster, label) {
        Ok(header) => Ok(Some(header.packs.iter().map(|pack| pack.id).collect())),
        // Then nothing is known to be sound.
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => Ok(Some(HashSet::new())),
        Err(error) => Err(error),
    }
}
