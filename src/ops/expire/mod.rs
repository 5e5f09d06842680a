//! `pgark expire`: retention. The only program that deletes backups and WAL. `run()` is the sequence; each step has
//! its file.
//!
//! Refuses to delete anything of an incarnation of which something can't be read: a header, a lease, a pin. Invariant:
//! every backup that it keeps restores, and every moment that the policy wants reachable stays so, whatever other
//! programs do meanwhile and wherever this one is killed.

mod act;
mod clock;
mod facts;
mod freed;
mod lines;
mod look;
mod needs;
mod periods;
mod plan;
mod reason;
mod records;
pub mod report;
mod rules;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::config::{Config, Expire};
use crate::error::{Error, Result};
use crate::host;
use crate::ident::Id;
use crate::interrupt::Interrupt;
use crate::pg::lsn::SystemId;
use crate::repo::lease::{Lease, Purpose};
use crate::repo::{Cluster, ClusterHeader, Repository, incarnations};
use act::{Acting, Done, measure};
use clock::{Clock, Evidence};
use facts::Facts;
use freed::Freed;
use plan::Plan;
use records::Stored;
use report::{Incarnation, Report};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Flags; they win over the configuration's rules.
    pub policy: Expire,
    pub system_id: Option<SystemId>,
    pub dry_run: bool,
}

/// What came of it.
pub struct Outcome {
    pub report: Report,
    /// The first incarnation of which nothing, or not all, could be done.
    pub failed: Option<Error>,
}

/// Plans, shows the plan, and, unless it is a dry run, carries it out. `now` is this host's clock.
pub fn run(
    config: &Config,
    request: &Request,
    now: Timestamp,
    planned: impl FnOnce(&Report) -> Result<()>,
) -> Result<Outcome> {
    let policy = request.policy.clone().over(&config.expire);
    policy.require_rule()?;
    let interrupt = Interrupt::install()?;
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    host::refuse_foreign_root(config.repo()?.directory())?;
    // The time is told by all of them together, whichever is asked for.
    let found = incarnations::find(&repository, &config.cluster, None)?;
    if let Some(wanted) = request.system_id {
        incarnations::find(&repository, &config.cluster, Some(wanted))?;
    }
    let mut evidence = Evidence::default();
    let mut looked = Vec::new();
    for (cluster, header) in &found {
        looked.push(Looked::at(cluster, header, request, &mut evidence));
    }
    let clock = Clock::new(now, evidence);
    let mut report = Report::new(&config.cluster, request.dry_run, &clock);
    let wanted = |looked: &Looked<'_>| request.system_id.is_none_or(|id| id == looked.cluster.system_id());
    let planned_ones: Vec<Planned<'_>> =
        looked.into_iter().filter(wanted).map(|looked| looked.plan(&policy, &clock)).collect();
    report.incarnations = planned_ones.iter().map(Planned::report).collect();
    planned(&report)?;
    let mut failed = None;
    for (planned, line) in planned_ones.into_iter().zip(&mut report.incarnations) {
        if let Err(error) = planned.carry_out(request, &clock, &interrupt, line) {
            line.error = Some(error.to_string());
            failed.get_or_insert(error.context(format!("system identifier {}", line.system_id)));
        }
    }
    Ok(Outcome { report, failed })
}

/// An incarnation that was looked at, under a lease unless nothing is to be done.
struct Looked<'a> {
    cluster: &'a Cluster,
    header: &'a ClusterHeader,
    found: Result<(Option<Lease>, Facts)>,
}

impl<'a> Looked<'a> {
    fn at(
        cluster: &'a Cluster,
        header: &'a ClusterHeader,
        request: &Request,
        evidence: &mut Evidence,
    ) -> Self {
        let acts = !request.dry_run && request.system_id.is_none_or(|id| id == cluster.system_id());
        let mut look = || {
            let lease = match acts {
                true => Some(Lease::acquire(cluster, Purpose::expire(), Id::random()?)?),
                false => None,
            };
            Ok((lease, look::look(cluster, header, evidence)?))
        };
        Self { cluster, header, found: look() }
    }

    fn plan(self, policy: &Expire, clock: &Clock) -> Planned<'a> {
        let Self { cluster, header, found } = self;
        let size = header.segment_size;
        let plan = || {
            let (lease, facts) = found?;
            let plan = plan::plan(&facts, policy, clock, &Stored { cluster, facts: &facts })?;
            let freed = Freed::of(cluster, &plan)?;
            let measured = measure(cluster, &plan, size)?;
            cluster.repository().confirm()?;
            let report = Incarnation::planned(cluster.system_id(), size, &plan, &freed, &measured);
            Ok(Ready { lease, plan, freed, report })
        };
        Planned { cluster, header, ready: plan() }
    }
}

struct Planned<'a> {
    cluster: &'a Cluster,
    header: &'a ClusterHeader,
    ready: Result<Ready>,
}

struct Ready {
    lease: Option<Lease>,
    plan: Plan,
    freed: Freed,
    report: Incarnation,
}

impl Planned<'_> {
    fn report(&self) -> Incarnation {
        match &self.ready {
            Ok(ready) => ready.report.clone(),
            Err(error) => Incarnation::refused(self.cluster.system_id(), error),
        }
    }

    fn carry_out(
        self,
        request: &Request,
        clock: &Clock,
        interrupt: &Interrupt,
        line: &mut Incarnation,
    ) -> Result<()> {
        let Ready { lease, plan, freed, .. } = self.ready?;
        let Some(lease) = lease.filter(|_| !request.dry_run) else { return Ok(()) };
        let acting = Acting {
            cluster: self.cluster,
            size: self.header.segment_size,
            lease: &lease,
            plan: &plan,
            freed: &freed,
            interrupt,
            now: clock.now,
        };
        let mut done = Done::default();
        let acted = acting.act(&mut done);
        line.done = Some(done.into());
        acted?;
        lease.release()
    }
}
