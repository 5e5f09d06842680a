//! `pgark verify`: reads what is stored back, checks it, and says what the damage costs.
//!
//! What: everything; one backup with the WAL that makes it consistent; or a portion of everything, after which the next
//! one goes on. Invariants: nothing that is stored is changed or removed, but for the records of verifications. What was
//! deleted meanwhile, and what could not be read, is no damage. Memory is bounded by jobs, not by what is stored.

mod backups;
mod context;
mod continuity;
pub mod cost;
mod crew;
mod files;
mod findings;
mod lens;
mod lists;
mod outcome;
mod packs;
mod plan;
pub mod report;
mod system;
#[cfg(test)]
mod tests;
mod wal;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::ident::Name;
use crate::interrupt::Interrupt;
use crate::pg::lsn::SystemId;
use crate::progress::{Display, Progress};
use crate::repo::backup::{self, BackupHeader};
use crate::repo::layout::Id;
use crate::repo::verified::{self, Place, Position};
use crate::repo::{Cluster, Repository, incarnations};
use crate::throttle::Throttle;
use context::Context;
use findings::Findings;
use lists::PackLists;
use outcome::Outcome;
use plan::{Plan, Step, Until};
use report::Report;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request {
    pub scope: Scope,
    /// None: all incarnations of the cluster.
    pub system_id: Option<SystemId>,
    /// Decompress frames and compare slices too.
    pub deep: bool,
    /// None: as many as there are cores.
    pub jobs: Option<NonZeroUsize>,
    /// Bytes a second that are read, at most.
    pub rate_limit: Option<NonZeroU64>,
    pub display: Display,
}

/// What is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// A backup, and the WAL from its start to where it is consistent.
    Backup(Name),
    /// What can be done within a budget; the next one goes on from there.
    Sample(Budget),
}

/// How much may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Time(Duration),
    /// A count of objects, or of parts of large ones.
    Units(u64),
}

/// Verifies. Damage is in the report; an error says that the verification could not be done.
pub fn run(config: &Config, request: &Request) -> Result<Report> {
    let interrupt = Interrupt::install()?;
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let run = Run {
        request,
        interrupt: &interrupt,
        jobs: request.jobs.unwrap_or_else(host::cores),
        throttle: Throttle::new(request.rate_limit),
        location: config.repo()?.directory(),
        started: Timestamp::now(),
        ends: match request.scope {
            Scope::Sample(Budget::Time(budget)) => Instant::now().checked_add(budget),
            _ => None,
        },
    };
    let mut outcomes = Vec::new();
    for cluster in in_turn(clusters(&repository, config, request)?, &request.scope)? {
        if run.is_over(&outcomes) {
            break;
        }
        outcomes.push(run.verify(&cluster)?);
    }
    repository.confirm()?;
    Ok(Report::new(&repository, &config.cluster, request, run.started, outcomes))
}

/// The incarnations to look at. One whose cluster.json is damaged is one all the same.
fn clusters(repository: &Repository, config: &Config, request: &Request) -> Result<Vec<Cluster>> {
    let name = &config.cluster;
    let ids = match request.system_id {
        Some(id) => vec![id],
        None => repository.system_ids(name)?,
    };
    let mut clusters: Vec<Cluster> = ids.into_iter().map(|id| repository.cluster(name, id)).collect();
    let holds = |cluster: &Cluster| {
        cluster.store().level(&cluster.layout().root()?).map(|level| level != Default::default())
    };
    let mut found = Vec::new();
    for cluster in clusters.drain(..) {
        if holds(&cluster)? {
            found.push(cluster);
        }
    }
    if found.is_empty() {
        // Says what there is instead.
        incarnations::find(repository, name, request.system_id)?;
    }
    let Scope::Backup(label) = &request.scope else { return Ok(found) };
    let mut with_backup = Vec::new();
    for cluster in found {
        if cluster.store().exists(&cluster.layout().backup_header(label)?)? {
            with_backup.push(cluster);
        }
    }
    repository.confirm()?;
    if with_backup.is_empty() {
        return Err(Error::not_found(format!("there is no backup {label} of {name}"))
            .with_hint("`pgark info` lists the backups"));
    }
    Ok(with_backup)
}

/// Portions begin with the incarnation whose round is not done, then with the one whose turn was longest ago.
fn in_turn(clusters: Vec<Cluster>, scope: &Scope) -> Result<Vec<Cluster>> {
    if !matches!(scope, Scope::Sample(_)) {
        return Ok(clusters);
    }
    let mut turns = Vec::new();
    for cluster in clusters {
        let position = verified::position(&cluster)?.0;
        let begun = position.as_ref().is_some_and(|position| position.reached.is_some());
        turns.push(((!begun, position.map(|position| position.at)), cluster));
    }
    turns.sort_by_key(|(turn, _)| *turn);
    Ok(turns.into_iter().map(|(_, cluster)| cluster).collect())
}

struct Run<'a> {
    request: &'a Request,
    interrupt: &'a Interrupt,
    jobs: NonZeroUsize,
    throttle: Throttle,
    /// Where the repository is.
    location: &'a Path,
    started: Timestamp,
    /// When the budget of time is used up.
    ends: Option<Instant>,
}

/// What is to be done in one incarnation.
struct Task {
    steps: Vec<Step>,
    labels: Labels,
    until: Until,
    sample: Option<Sample>,
}

/// The backups about which the cost is told.
enum Labels {
    All,
    One(Name),
}

/// The portion of a round.
struct Sample {
    round_started: Timestamp,
    behind: Option<Place>,
    superfluous: Vec<Id>,
}

impl Run<'_> {
    /// Whether a budget is used up.
    fn is_over(&self, outcomes: &[Outcome]) -> bool {
        let handed: u64 = outcomes.iter().map(|outcome| outcome.units).sum();
        match self.request.scope {
            Scope::Sample(Budget::Units(most)) => handed >= most,
            _ => self.ends.is_some_and(|end| !outcomes.is_empty() && Instant::now() >= end),
        }
    }

    /// One incarnation, from its listing to the records of what came of it.
    fn verify(&self, cluster: &Cluster) -> Result<Outcome> {
        let progress = Progress::start(self.request.display, "verifying");
        let stop = Interrupt::default();
        let context = Context {
            cluster,
            size: system::segment_size(cluster)?,
            deep: self.request.deep,
            throttle: &self.throttle,
            progress: &progress,
            stop: &stop,
            findings: Findings::default(),
            lists: PackLists::default(),
        };
        system::check_header(&context)?;
        let histories = system::histories(&context)?;
        let task = self.task(&context, &histories)?;
        let sample = task.sample;
        let behind = sample.as_ref().and_then(|sample| sample.behind.clone());
        let (plan, outcome) =
            crew::run(&context, Plan::new(task.steps, behind, task.until), self.jobs, self.interrupt);
        progress.finish();
        let position = sample.map(|sample| (self.position(&plan, sample.round_started), sample.superfluous));
        if let Err(error) = outcome {
            // What was verified until then need not be verified again.
            return Err(match position.map(|(position, old)| verified::reached(cluster, &position, &old)) {
                Some(Err(lost)) => error.context(format!("could not remember how far this came: {lost}")),
                _ => error,
            });
        }
        let outcome = Outcome::of(context, histories, &task.labels, plan.units(), self)?;
        outcome.record(position, self)
    }

    fn position(&self, plan: &Plan, round_started: Timestamp) -> Position {
        let reached = plan.reached().filter(|_| !plan.is_complete()).cloned();
        Position { round_started, reached, at: Timestamp::now(), host: host::name() }
    }

    fn task(&self, context: &Context<'_>, histories: &outcome::Histories) -> Result<Task> {
        let cluster = context.cluster;
        match &self.request.scope {
            Scope::Everything => {
                system::check_records(context)?;
                context.progress.set_total(stored_bytes(cluster)?);
                Ok(Task {
                    steps: plan::everything(context)?,
                    labels: Labels::All,
                    until: Until::TheEnd,
                    sample: None,
                })
            }
            Scope::Sample(budget) => {
                let (position, superfluous) = verified::position(cluster)?;
                let begun = position.filter(|position| position.reached.is_some());
                if begun.is_none() {
                    system::check_records(context)?;
                }
                let round_started = begun.as_ref().map_or(self.started, |position| position.round_started);
                let behind = begun.and_then(|position| position.reached);
                let until = match (budget, self.ends) {
                    (Budget::Units(most), _) => Until::Units(*most),
                    (Budget::Time(_), Some(end)) => Until::Time(end),
                    (Budget::Time(_), None) => Until::TheEnd,
                };
                let sample = Some(Sample { round_started, behind, superfluous });
                Ok(Task { steps: plan::everything(context)?, labels: Labels::All, until, sample })
            }
            Scope::Backup(label) => {
                let steps = backup_steps(context, label, histories)?;
                Ok(Task { steps, labels: Labels::One(label.clone()), until: Until::TheEnd, sample: None })
            }
        }
    }
}

/// The header, the map, the packs and the WAL of one backup.
fn backup_steps(context: &Context<'_>, label: &Name, histories: &outcome::Histories) -> Result<Vec<Step>> {
    let mut steps = vec![Step::Backup(label.clone())];
    let header = match backup::read(context.cluster, label) {
        // The first step says why.
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => return Ok(steps),
        header => header?,
    };
    if let Some((path, size)) = histories.get(&header.stop.timeline).zip(context.size) {
        let (first, last) = (size.segment_of(header.start.lsn), size.segment_before(header.consistent_lsn));
        steps.push(Step::Path(path.clone(), first..=last));
    }
    steps.extend(header.packs.iter().map(|pack| Step::Pack(pack.id)));
    context.progress.set_total(backup_bytes(&header));
    Ok(steps)
}

/// What is to be read of a backup, but for its WAL.
fn backup_bytes(header: &BackupHeader) -> u64 {
    header.map.size + header.packs.iter().map(|pack| pack.size).sum::<u64>()
}

/// All bytes of a cluster's part of the repository.
fn stored_bytes(cluster: &Cluster) -> Result<u64> {
    let mut bytes: u64 = 0;
    for object in cluster.store().walk(&cluster.layout().root()?) {
        bytes = bytes.saturating_add(object?.size);
    }
    Ok(bytes)
}
