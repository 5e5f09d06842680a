//! The backups on the server's path: is there one, how old is the newest, can all of them be read?

use std::time::Duration;

use jiff::Timestamp;

use super::finding::{Finding, Level, Limits, Measure};
use super::words::span;
use crate::error::{Kind, Result};
use crate::ops::restore::choose::Candidate;
use crate::pg::history::TimelineHistory;
use crate::repo::Cluster;
use crate::repo::backup::{self, BackupHeader};

/// What is remembered of a header: together these may be large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where it begins and becomes consistent.
    pub at: Candidate,
    pub time: Timestamp,
    pub damaged_pages: u64,
    pub stored_bytes: u64,
}

impl Backup {
    fn of(header: &BackupHeader) -> Result<Self> {
        Ok(Self {
            at: Candidate::of(header)?,
            time: header.stop.time,
            damaged_pages: header.damaged_pages.count,
            stored_bytes: header.totals.stored_bytes,
        })
    }
}

/// All that can be read, oldest first, and a finding for each that can't.
pub fn read(cluster: &Cluster) -> Result<(Vec<Backup>, Vec<Finding>)> {
    let (mut backups, mut findings) = (Vec::new(), Vec::new());
    for label in backup::labels(cluster)? {
        match backup::read(cluster, &label).and_then(|header| Backup::of(&header)) {
            Ok(backup) => backups.push(backup),
            // Deleted since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => findings.push(
                Finding::critical(
                    "backup_headers",
                    format!("the header of backup {label} can't be read: {error}"),
                )
                .because("a backup without its header can't be restored")
                .remedy(
                    error.hint().unwrap_or("take a backup now; `pgark verify` tells what else is damaged"),
                ),
            ),
        }
    }
    backups.sort_by_key(|backup| backup.time);
    Ok((backups, findings))
}

/// Those from which the server's present state can be reached, oldest first.
pub fn on_path(backups: &[Backup], path: &TimelineHistory) -> Vec<Backup> {
    backups.iter().filter(|backup| backup.at.lies_on(path)).cloned().collect()
}

/// The age of the newest. `usable` are those on the path, of `all`.
pub fn age(
    usable: &[Backup],
    all: &[Backup],
    now: Timestamp,
    limits: &Limits<Duration>,
) -> (Vec<Finding>, Option<Measure>) {
    const CHECK: &str = "backup_age";
    const WHY: &str = "a restore begins with a backup; the older it is, the more WAL is replayed, and the more there is to lose";
    let Some(newest) = usable.last() else {
        let others = match all.len() {
            0 => String::new(),
            count => {
                format!("; the {count} that are there lie on other timelines, or behind what this server has")
            }
        };
        let finding = Finding::critical(CHECK, format!("there is no backup of this server{others}"))
            .because("nothing can be restored without one, however much WAL is archived")
            .remedy("run basebackup on the database host");
        return (vec![finding], None);
    };
    let age = Duration::try_from(now.duration_since(newest.time)).unwrap_or_default();
    let what = format!(
        "the newest backup, {}, ended {} ago; {} can be used",
        newest.at.label,
        span(age),
        usable.len()
    );
    let seconds = Limits { warning: limits.warning.as_secs(), critical: limits.critical.as_secs() };
    let measure = Measure::new("last_backup_age_seconds", age.as_secs()).limits(seconds);
    let mut findings = vec![
        Finding::new(limits.of_large(&age), CHECK, what)
            .because(WHY)
            .remedy("run basebackup, and see why the one that is due did not run or failed"),
    ];
    findings.extend(damaged_pages(newest));
    (findings, Some(measure))
}

fn damaged_pages(newest: &Backup) -> Option<Finding> {
    (newest.damaged_pages > 0).then(|| {
        let what = format!(
            "{} pages of the cluster were damaged when backup {} was taken",
            newest.damaged_pages, newest.at.label
        );
        Finding::new(Level::Critical, "damaged_pages", what)
            .because("the server's own data is damaged, and backups without the damage will expire")
            .remedy(format!(
                "`pgark info {}` names the tables; restore an older backup beside, and pin it",
                newest.at.label
            ))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pg::lsn::{Lsn, Timeline};
    use crate::pg::time;

    pub fn backup(label: &str, timeline: u32, start: u64, hours_ago: i64) -> Backup {
        Backup {
            at: Candidate {
                label: label.parse().expect("a label"),
                start: Lsn(start),
                start_timeline: Timeline(timeline),
                consistent: Lsn(start + 0x200),
                consistent_timeline: Timeline(timeline),
                stop_time: time::Timestamp::UNIX_EPOCH,
            },
            time: now() - jiff::SignedDuration::from_hours(hours_ago),
            damaged_pages: 0,
            stored_bytes: 0,
        }
    }

    pub fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().expect("a time")
    }

    fn limits() -> Limits<Duration> {
        Limits { warning: Duration::from_secs(26 * 3600), critical: Duration::from_secs(50 * 3600) }
    }

    #[test]
    fn the_newest_backup_on_the_path_counts() {
        let all =
            [backup("a", 1, 0x100_0028, 60), backup("b", 1, 0x900_0028, 2), backup("c", 2, 0x500_0028, 30)];
        let path = TimelineHistory::parse(Timeline(2), b"1\t0/4000000\tx\n").expect("a history");
        let usable = on_path(&all, &path);
        assert_eq!(usable.iter().map(|backup| backup.at.label.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        let (findings, measure) = age(&usable, &all, now(), &limits());
        assert_eq!(findings.iter().map(|finding| finding.level).collect::<Vec<_>>(), [Level::Warning]);
        assert_eq!(measure.map(|measure| measure.value), Some(30 * 3600));
    }

    #[test]
    fn no_backup_is_the_worst_age_and_one_from_the_future_the_best() {
        assert_eq!(
            age(&[], &[], now(), &limits()).0.first().map(|finding| finding.level),
            Some(Level::Critical)
        );
        let future = [backup("a", 1, 40, -1)];
        assert_eq!(age(&future, &future, now(), &limits()).1.map(|measure| measure.value), Some(0));
    }

    #[test]
    fn damaged_pages_of_the_newest_backup_are_told() {
        let damaged = [Backup { damaged_pages: 3, ..backup("a", 1, 40, 1) }];
        let (findings, _) = age(&damaged, &damaged, now(), &limits());
        assert_eq!(findings.last().map(|finding| finding.check.as_str()), Some("damaged_pages"));
    }
}
