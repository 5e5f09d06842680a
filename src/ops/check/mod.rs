//! `pgark check`: is this cluster safe right now? Asks the server and looks at the repository; every answer is a
//! finding with why it matters and what to do.
//!
//! A server or a repository that can't be reached is a finding, too: the other side is looked at all the same.
//! Only wrong flags and configuration are errors. Nothing is changed, but for the WAL switch that proves the
//! archive, what `--heal` brings, and the record of the result.

mod archiving;
mod backups;
mod command;
mod destination;
pub mod finding;
mod heal;
mod leases;
mod local;
pub mod record;
mod report;
mod server;
mod settings;
mod slots;
mod space;
mod stored;
mod verified;
mod wal;
mod words;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::Config;
use crate::disk::Space;
use crate::error::{Error, Result};
use crate::host;
use crate::interrupt::Interrupt;
use crate::pg::client::Client;
use crate::pg::conninfo::{ConnRequest, ConnSettings, Environment};
use crate::pg::lsn::SystemId;
use crate::pg::replication::SlotName;
use crate::repo::backup;
use crate::repo::{Cluster, Repository, incarnations};
use finding::{Finding, Limits, Measure, worst};
use heal::Healed;
use local::Local;
use record::CheckRecord;
pub use report::{Report, one_line, plugin_line};
use server::Server;
use settings::Way;
use space::{PG_WAL, SpaceLimits};
use words::span;

/// What the command line asks for.
#[derive(Clone)]
pub struct Request {
    pub connection: ConnRequest,
    /// Of the repository alone, when the server can't say.
    pub system_id: Option<SystemId>,
    /// Whether a segment is forced out and waited for.
    pub switch: bool,
    /// How long.
    pub timeout: Duration,
    pub heal: bool,
    /// Whether the result is kept in the repository.
    pub record: bool,
    /// So much time of work may be lost at most.
    pub rpo: Option<Duration>,
    /// The repository must have been verified since.
    pub verify_age: Option<Duration>,
    pub limits: AllLimits,
}

/// From where on a value is a warning, and critical.
#[derive(Clone, Copy, Debug)]
pub struct AllLimits {
    pub backup_age: Limits<Duration>,
    pub wal_age: Limits<Duration>,
    /// Segments.
    pub backlog: Limits<u64>,
    /// Percent.
    pub free: Limits<u64>,
    pub full_in: Limits<Duration>,
    /// Bytes that a slot keeps.
    pub slot_wal: Limits<u64>,
    pub clock: Limits<Duration>,
    pub prepared_age: Limits<Duration>,
}

/// Looks at everything. An error: the flags or the configuration are wrong, or somebody interrupted.
pub fn run(config: &Config, request: &Request) -> Result<Report> {
    let (started, began) = (Timestamp::now(), Instant::now());
    let location = config.repo()?;
    let slot: SlotName = config.receive.slot.parse()?;
    let settings = ConnSettings::resolve(&request.connection, &Environment::from_process()?)?;
    let interrupt = Interrupt::install()?;
    let mut check = Check { config, request, interrupt, slot, seen: Seen::default() };
    let repository = Repository::open(location, config.repo_id);
    let session = Client::connect(&settings).and_then(|mut client| {
        let server = Server::ask(&mut client)?;
        Ok((client, server))
    });
    let repository = check.repository(repository);
    let mut session = check.session(session);
    let cluster = match &repository {
        Some(repository) => check.cluster(repository, session.as_ref().map(|(_, server)| server)),
        None => None,
    };
    check.everything(session.as_mut(), cluster.as_ref())?;
    let server = session.map(|(_, server)| server);
    let mut report = Report {
        cluster: config.cluster.clone(),
        system_id: cluster
            .as_ref()
            .map(Cluster::system_id)
            .or(server.as_ref().map(|server| server.system_id)),
        repository: repository.as_ref().map(Repository::id),
        host: host::name(),
        started,
        duration: Duration::ZERO,
        server: server.as_ref().map(report::ServerSide::of),
        findings: check.seen.findings,
        healed: check.seen.healed,
        measures: check.seen.measures,
    };
    if let Some(cluster) = cluster.filter(|_| request.record) {
        keep(&cluster, &mut report);
    }
    report.duration = began.elapsed();
    Ok(report)
}

fn keep(cluster: &Cluster, report: &mut Report) {
    let record = CheckRecord {
        host: report.host.clone(),
        started: report.started,
        level: worst(&report.findings),
        findings: report.findings.clone(),
        measures: report.measures.clone(),
    };
    if let Err(error) = record::keep(cluster, &record) {
        report.findings.push(
            Finding::warning("record", format!("the result could not be kept in the repository: {error}"))
                .because(
                    "`pgark report` will not show this check; and what can't write there can't archive there",
                )
                .remedy(
                    error.hint().unwrap_or("run the check as the repository's owner, or with --no-record"),
                ),
        );
    }
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    findings: Vec<Finding>,
    measures: Vec<Measure>,
    healed: Vec<Healed>,
}

impl Seen {
    fn add(&mut self, (finding, measures): (Finding, impl IntoIterator<Item = Measure>)) {
        self.findings.push(finding);
        self.measures.extend(measures);
    }
}

struct Check<'a> {
    config: &'a Config,
    request: &'a Request,
    interrupt: Interrupt,
    slot: SlotName,
    seen: Seen,
}

type Session = (Client, Server);

impl Check<'_> {
    fn tell(&mut self, finding: Finding) {
        self.seen.findings.push(finding);
    }

    fn repository(&mut self, opened: Result<Repository>) -> Option<Repository> {
        match opened {
            Ok(repository) => {
                self.tell(Finding::ok("repository", format!("the repository has id {}", repository.id())));
                Some(repository)
            }
            Err(error) => {
                self.tell(
                    refused("repository", &error)
                        .because("nothing can be archived into it, nor restored from it"),
                );
                None
            }
        }
    }

    fn session(&mut self, session: Result<Session>) -> Option<Session> {
        match session {
            Ok((client, server)) => {
                let role = if server.in_recovery { "a standby" } else { "a primary" };
                let what =
                    format!("PostgreSQL {} answers: {role} on timeline {}", server.version, server.timeline);
                self.tell(Finding::ok("server", what));
                Some((client, server))
            }
            Err(error) => {
                self.tell(
                    refused("server", &error)
                        .because("whether it archives can't be told while it does not answer"),
                );
                None
            }
        }
    }

    /// The server's part of the repository; if it does not say, the one with the newest backup.
    fn cluster(&mut self, repository: &Repository, server: Option<&Server>) -> Option<Cluster> {
        const CHECK: &str = "system_id";
        let wanted = server.map(|server| server.system_id).or(self.request.system_id);
        let found = incarnations::find(repository, &self.config.cluster, wanted).and_then(|found| {
            let mut clusters: Vec<Cluster> = found.into_iter().map(|(cluster, _)| cluster).collect();
            let mut newest = Vec::new();
            for cluster in &clusters {
                newest.push(backup::iter(cluster)?.filter_map(|header| Some(header.ok()?.stop.time)).max());
            }
            let best = (0..clusters.len()).max_by_key(|index| newest.get(*index).copied().flatten());
            best.map(|best| clusters.swap_remove(best)).ok_or_else(|| Error::bug("there is no cluster"))
        });
        match found {
            Ok(cluster) => {
                let what = format!(
                    "the repository knows {} with system identifier {}",
                    cluster.name(),
                    cluster.system_id()
                );
                self.tell(Finding::ok(CHECK, what));
                Some(cluster)
            }
            Err(error) => {
                self.tell(
                    refused(CHECK, &error)
                        .because("nothing of this server was ever archived here; after initdb or pg_upgrade it is another cluster")
                        .remedy("set up archiving, then take a backup"),
                );
                None
            }
        }
    }

    fn everything(&mut self, session: Option<&mut Session>, cluster: Option<&Cluster>) -> Result<()> {
        match session {
            None => self.stored(None, None, cluster),
            Some((client, server)) => {
                let local = Local::look(client, server);
                let asked = self.server_side(client, server, cluster);
                self.interrupt.check()?;
                if let Err(error) = asked {
                    self.tell(refused("server", &error).because("what it did not answer is not known"));
                }
                self.host_side(&local);
                self.stored(Some(&*server), local.ok().as_ref(), cluster)
            }
        }
    }

    /// What the server can be asked, and the segment that it is made to archive.
    fn server_side(&mut self, client: &mut Client, server: &Server, cluster: Option<&Cluster>) -> Result<()> {
        let limits = self.request.limits;
        let slots = server::slots(client, server.end)?;
        let way = Way::of(&server.settings, &slots, &self.slot);
        let received = settings::is_received(&slots, &self.slot);
        self.seen.findings.extend(settings::judge(server, &way, received, self.request.rpo));
        self.seen.findings.extend(destination::judge(self.config, &way));
        if let Some(cluster) = cluster.filter(|_| server.is_primary() && self.request.switch) {
            let (timeout, interrupt) = (self.request.timeout, &self.interrupt);
            let trial = archiving::Trial { cluster, way: &way, limit: timeout, interrupt };
            let finding = trial.run(client, server)?;
            self.tell(finding);
        }
        if server.is_primary() || server.settings.is("archive_mode", "always") {
            self.seen.findings.extend(archiving::archiver(client, &way)?);
            let waiting = server::waiting(client)?;
            self.seen.add(archiving::backlog(waiting, &server.role, &limits.backlog));
        }
        let expected =
            slots::Expected { ours: &self.slot, lag: self.config.receive.lag_limit, kept: limits.slot_wal };
        self.seen.findings.extend(slots::judge(&slots, &server.settings, &way, &expected));
        self.tell(prepared(server::oldest_prepared(client)?, &limits.prepared_age));
        self.tell(clock(server.clock_difference, &limits.clock));
        Ok(())
    }

    fn host_side(&mut self, local: &Result<Local>) {
        match local {
            Ok(local) => {
                self.tell(local::spool(self.config, &local.data_directory));
                let judged = Space::of(&local.pg_wal())
                    .map(|space| space::judge(&PG_WAL, space, None, &self.space_limits()));
                match judged {
                    Ok(judged) => self.seen.add(judged),
                    Err(error) => self.tell(Finding::unknown("pg_wal_space", error.message())),
                }
            }
            Err(why) if self.request.heal => self.tell(cannot_heal(why)),
            Err(why) => tracing::info!("the spool and the space of pg_wal are not looked at: {why}"),
        }
    }

    fn space_limits(&self) -> SpaceLimits {
        let limits = &self.request.limits;
        SpaceLimits { free_percent: limits.free, full_in: limits.full_in }
    }
}

fn refused(check: &str, error: &Error) -> Finding {
    let finding = Finding::critical(check, error.message());
    match error.hint() {
        Some(hint) => finding.remedy(hint),
        None => finding,
    }
}

fn cannot_heal(error: &Error) -> Finding {
    Finding::critical("heal", format!("could not heal the archive: {error}"))
        .because("WAL that only this server still has is not in the repository")
        .remedy(error.hint().unwrap_or("run `pgark check --heal` on the database host, as the server's user"))
}

fn prepared(oldest: Option<(String, Duration)>, limits: &Limits<Duration>) -> Finding {
    const CHECK: &str = "prepared_transactions";
    let Some((gid, age)) = oldest else { return Finding::ok(CHECK, "no transaction waits prepared") };
    Finding::new(limits.of_large(&age), CHECK, format!("transaction '{gid}' was prepared {} ago", span(age)))
        .because(
            "it holds its locks and keeps VACUUM from cleaning up; a restore brings it back, still undecided",
        )
        .remedy(format!("decide it: commit prepared '{}', or rollback prepared", gid.replace('\'', "''")))
}

fn clock(difference: Duration, limits: &Limits<Duration>) -> Finding {
    let what = format!("the server's clock and this host's differ by {}", span(difference));
    Finding::new(limits.of_large(&difference), "clock", what)
        .because(
            "a restore to a time goes by the server's clock, and leases and ages by those of other hosts",
        )
        .remedy("run NTP on both hosts")
}

#[cfg(test)]
mod tests {
    use super::finding::Level;
    use super::*;

    #[test]
    fn clocks_and_prepared_transactions_are_judged_by_their_limits() {
        let limits = Limits { warning: Duration::from_secs(10), critical: Duration::from_secs(300) };
        let level = |seconds| clock(Duration::from_secs(seconds), &limits).level;
        assert_eq!([0, 9, 10, 300].map(level), [Level::Ok, Level::Ok, Level::Warning, Level::Critical]);
        assert_eq!(prepared(None, &limits).level, Level::Ok);
        let old = prepared(Some(("it's".into(), Duration::from_secs(11))), &limits);
        assert_eq!(old.level, Level::Warning);
        assert!(old.remedy.is_some_and(|remedy| remedy.contains("commit prepared 'it''s'")));
    }
}
