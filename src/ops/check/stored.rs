//! The repository's half of a check: what it holds for this server, and what `--heal` brings into it.

use std::time::SystemTime;

use jiff::Timestamp;

use super::backups::Backup;
use super::finding::{Finding, Measure};
use super::heal::Healed;
use super::local::Local;
use super::server::Server;
use super::space::REPOSITORY;
use super::{Check, backups, cannot_heal, heal, leases, refused, space, verified, wal};
use crate::disk::Space;
use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::repo::Cluster;
use crate::repo::catalog::Catalog;
use crate::repo::verified::verifications;

impl Check<'_> {
    /// What the repository holds for this server.
    pub fn stored(
        &mut self,
        server: Option<&Server>,
        local: Option<&Local>,
        cluster: Option<&Cluster>,
    ) -> Result<()> {
        let Some(cluster) = cluster else { return Ok(()) };
        let looked = self.archive(server, local, cluster);
        self.interrupt.check()?;
        if let Err(error) = looked {
            self.tell(refused("repository", &error).because("what can't be read can't be restored from"));
        }
        Ok(())
    }

    fn archive(&mut self, server: Option<&Server>, local: Option<&Local>, cluster: &Cluster) -> Result<()> {
        let (backups, unreadable) = backups::read(cluster)?;
        self.seen.findings.extend(unreadable);
        let (catalog, _) = Catalog::open(cluster)?;
        let (path, known) = self.path(catalog, server, local)?;
        let usable = backups::on_path(&backups, &path.history);
        let known = match (server, local) {
            (Some(server), Some(local)) if self.request.heal => {
                self.heal(server, local, &path, &usable)? || known
            }
            _ => known,
        };
        let now = Timestamp::now();
        let (findings, measure) = backups::age(&usable, &backups, now, &self.request.limits.backup_age);
        self.seen.findings.extend(findings);
        self.seen.measures.extend(measure);
        let newest = wal::newest(&path, &usable)?;
        self.seen.add(wal::age(&path, newest, server, SystemTime::now(), &self.request.limits.wal_age)?);
        let missing = wal::missing(&path, &usable, newest)?;
        let here = |name| local.is_some_and(|local| heal::is_here(local, name));
        self.seen.findings.extend(wal::holes(&path, &missing, &usable, here));
        self.seen.measures.push(Measure::new("missing_segments", missing.count));
        if let Some(server) = server {
            self.seen.findings.extend(wal::timeline(&path, known, server)?);
        }
        self.seen.findings.extend(leases::judge(cluster)?);
        self.tell(verified::judge(&verifications(cluster)?, now, self.request.verify_age));
        let per_day = space::per_day(&path.catalog, path.history.timeline(), &usable, now)?;
        let space = Space::of(self.config.repo()?.directory())?;
        self.seen.add(space::judge(&REPOSITORY, space, per_day, &self.space_limits()));
        cluster.repository().confirm()
    }

    /// The way to the server's timeline, and whether the repository knows it. Without a server: to the newest.
    fn path<'c>(
        &self,
        catalog: Catalog<'c>,
        server: Option<&Server>,
        local: Option<&Local>,
    ) -> Result<(wal::Path<'c>, bool)> {
        let newest = || catalog.histories().map(|histories| histories.into_values().next_back());
        let timeline = match server {
            Some(server) => server.timeline,
            None => newest()?.map_or(Timeline(1), |history| history.timeline()),
        };
        if let Some(history) = catalog.history(timeline)? {
            return Ok((wal::Path { catalog, history }, true));
        }
        let beside = local.map_or(Ok(None), |local| heal::local_history(local, timeline))?;
        let history = beside.unwrap_or_else(|| TimelineHistory::without_parents(timeline));
        Ok((wal::Path { catalog, history }, false))
    }

    /// Brings what pg_wal has; whether the repository knows the server's timeline now. What goes wrong is told.
    fn heal(
        &mut self,
        server: &Server,
        local: &Local,
        path: &wal::Path<'_>,
        usable: &[Backup],
    ) -> Result<bool> {
        let mut healed = Vec::new();
        let outcome = self.heal_into(server, local, path, usable, &mut healed);
        self.interrupt.check()?;
        let count = healed.len();
        self.seen.healed.append(&mut healed);
        match outcome {
            Ok(()) if count == 0 => {
                self.tell(Finding::ok("heal", "there was nothing to heal from this server's pg_wal"))
            }
            Ok(()) => self
                .tell(Finding::ok("heal", format!("{count} files were brought from this server's pg_wal"))),
            Err(error) => self.tell(cannot_heal(&error)),
        }
        Ok(!heal::lacks_history(path, server.timeline)?)
    }

    fn heal_into(
        &self,
        server: &Server,
        local: &Local,
        path: &wal::Path<'_>,
        usable: &[Backup],
        healed: &mut Vec<Healed>,
    ) -> Result<()> {
        let lacks = |timeline| heal::lacks_history(path, timeline);
        healed.extend(heal::histories(self.config, local, &lacks, server.timeline)?);
        let size = path.catalog.segment_size();
        let Some(first) = usable.iter().map(|backup| size.segment_of(backup.at.start)).min() else {
            return Ok(());
        };
        let names = heal::candidates(path, first, server.end)?;
        heal::segments(self.config, local, &names, &self.interrupt, healed)
    }
}
