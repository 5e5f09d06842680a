//! Metrics of what checks and verifications found when they last looked, by the records that they left: of each
//! host its newest check, of each scope the newest verification.

use std::collections::BTreeMap;

use super::sheet::{Labels, Sheet, seconds};
use crate::error::{Kind, Result};
use crate::ident::Name;
use crate::ops::check::finding::Level;
use crate::ops::check::record::{self, CheckRecord};
use crate::ops::info::summary::Summary;
use crate::repo::verified::{self, Scope, Verification};
use crate::repo::{Cluster, Repository};

/// The newest looks at one incarnation.
struct Looks {
    labels: Labels,
    checks: Vec<CheckRecord>,
    verifications: Vec<(&'static str, Verification)>,
    /// None: the records can't be read, and nobody knows.
    damaged_packs: Option<usize>,
}

impl Looks {
    fn read(name: &Name, cluster: &Cluster) -> Result<Self> {
        // Oldest first, so that the newest one stays.
        let checks: BTreeMap<String, CheckRecord> = record::list(cluster)?
            .into_iter()
            .map(|found| (found.record.host.clone(), found.record))
            .collect();
        let verifications: BTreeMap<&str, Verification> = verified::verifications(cluster)?
            .into_iter()
            .map(|found| (scope(found.record.scope), found.record))
            .collect();
        Ok(Self {
            labels: super::gather::of_incarnation(name, cluster.system_id()),
            checks: checks.into_values().collect(),
            verifications: verifications.into_iter().collect(),
            damaged_packs: damaged_packs(cluster)?,
        })
    }

    fn with<const N: usize>(&self, more: [(&'static str, &str); N]) -> Labels {
        let more = more.into_iter().map(|(name, value)| (name, value.to_string()));
        self.labels.iter().cloned().chain(more).collect()
    }
}

fn damaged_packs(cluster: &Cluster) -> Result<Option<usize>> {
    match verified::damaged_packs(cluster) {
        Ok(packs) => Ok(Some(packs.len())),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Configuration) => {
            tracing::warn!("{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The word of a label.
fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Everything => "everything",
        Scope::Backup => "backup",
        Scope::Sample => "sample",
    }
}

/// Adds those of all incarnations in the summary.
pub fn add(sheet: &mut Sheet, repository: &Repository, summary: &Summary) -> Result<()> {
    let mut looks = Vec::new();
    for cluster in &summary.clusters {
        for incarnation in &cluster.incarnations {
            let of = repository.cluster(&cluster.name, incarnation.system_id);
            looks.push(Looks::read(&cluster.name, &of)?);
        }
    }
    checks(sheet, &looks);
    verifications(sheet, &looks);
    Ok(())
}

fn checks(sheet: &mut Sheet, looks: &[Looks]) {
    let each = |value: fn(&CheckRecord) -> f64| {
        let of =
            move |looks: &Looks, check: &CheckRecord| (looks.with([("host", &check.host)]), value(check));
        looks.iter().flat_map(move |looks| looks.checks.iter().map(move |check| of(looks, check)))
    };
    let help = "When a host's newest check began, by that host";
    sheet.gauge("pgark_check_timestamp_seconds", help, each(|check| seconds(check.started)));
    let help = "What it came to: 0 ok, 1 warning, 2 critical, 3 unknown";
    sheet.gauge("pgark_check_status", help, each(|check| f64::from(check.level.exit_code())));
    let findings =
        looks.iter().flat_map(|looks| looks.checks.iter().flat_map(|check| findings(looks, check)));
    sheet.gauge("pgark_check_finding_status", "The same of each thing that was looked at", findings);
}

/// The worst of each thing.
fn findings(looks: &Looks, check: &CheckRecord) -> Vec<(Labels, f64)> {
    let mut worst: BTreeMap<&str, Level> = BTreeMap::new();
    for finding in &check.findings {
        let level = worst.entry(&finding.check).or_insert(finding.level);
        *level = finding.level.max(*level);
    }
    let of = |(what, level): (&str, Level)| {
        (looks.with([("host", &check.host), ("check", what)]), f64::from(level.exit_code()))
    };
    worst.into_iter().map(of).collect()
}

/// A metric of the newest verification of each scope.
type OfVerification = (&'static str, &'static str, fn(&Verification) -> f64);

const VERIFICATIONS: [OfVerification; 5] = [
    ("pgark_verify_end_timestamp_seconds", "When the newest verification ended, by its host", |record| {
        seconds(record.ended)
    }),
    ("pgark_verify_sound", "1 if all of its scope was read and nothing was wrong, else 0", |record| {
        f64::from(u8::from(record.sound))
    }),
    ("pgark_verify_damaged_objects", "Damaged objects that it found", |record| record.damaged as f64),
    ("pgark_verify_unread_objects", "Objects that it could not read", |record| record.unread as f64),
    ("pgark_verify_lost_backups", "Backups that do not restore", |record| record.lost_backups as f64),
];

fn verifications(sheet: &mut Sheet, looks: &[Looks]) {
    for (name, help, value) in VERIFICATIONS {
        let values = looks.iter().flat_map(|looks| {
            let of = move |(scope, record): &(&'static str, Verification)| {
                (looks.with([("scope", *scope)]), value(record))
            };
            looks.verifications.iter().map(of)
        });
        sheet.gauge(name, help, values);
    }
    let of = |looks: &Looks| Some((looks.labels.clone(), looks.damaged_packs? as f64));
    let damaged = looks.iter().filter_map(of);
    sheet.gauge(
        "pgark_damaged_packs",
        "Packs in which verifications found damage that is still there",
        damaged,
    );
}
