//! What checks and verifications found when they last looked, by the records that they left in the repository.

use jiff::Timestamp;

use super::html::{Html, Table};
use super::page::minute;
use crate::error::Result;
use crate::ops::check::finding::Level;
use crate::ops::check::record::{self, CheckRecord};
use crate::repo::Cluster;
use crate::repo::verified::{self, Scope, Verification};
use crate::words::{bytes, span};

/// Rows, at most.
const NEWEST: usize = 12;

/// One look at the cluster or its repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub time: Timestamp,
    pub host: String,
    pub what: String,
    pub outcome: Outcome,
    /// In a sentence.
    pub found: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Warning,
    Bad,
}

/// The newest looks, newest first.
pub fn read(cluster: &Cluster) -> Result<Vec<Event>> {
    let (verifications, checks) = (verified::verifications(cluster)?, record::list(cluster)?);
    let mut events: Vec<Event> = verifications.iter().map(|found| verification(&found.record)).collect();
    events.extend(checks.iter().map(|found| check(&found.record)));
    events.sort_by_key(|event| std::cmp::Reverse(event.time));
    events.truncate(NEWEST);
    Ok(events)
}

fn verification(record: &Verification) -> Event {
    let took = std::time::Duration::try_from(record.ended.duration_since(record.started)).unwrap_or_default();
    let scope = match (&record.scope, &record.backup) {
        (Scope::Everything, _) => "everything".to_string(),
        (Scope::Sample, _) => "a portion".to_string(),
        (Scope::Backup, Some(label)) => format!("backup {label}"),
        (Scope::Backup, None) => "one backup".to_string(),
    };
    Event {
        time: record.ended,
        host: record.host.clone(),
        what: format!("verified {scope}: {} in {}", bytes(record.bytes), span(took)),
        outcome: if record.sound { Outcome::Good } else { Outcome::Bad },
        found: findings(record),
    }
}

fn findings(record: &Verification) -> String {
    let counts = [
        (record.damaged, "damaged"),
        (record.unread, "could not be read"),
        (record.holes, "places where WAL is missing"),
        (record.lost_backups, "backups that do not restore"),
    ];
    let found = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let mut found: Vec<String> = found.collect();
    if found.is_empty() {
        found.push(if record.sound { "sound".to_string() } else { "not all of it was read".to_string() });
    }
    found.join(", ")
}

fn check(record: &CheckRecord) -> Event {
    let remarkable: Vec<&str> = record
        .findings
        .iter()
        .filter(|finding| finding.level != Level::Ok)
        .map(|finding| finding.what.as_str())
        .collect();
    Event {
        time: record.started,
        host: record.host.clone(),
        what: "checked the cluster".to_string(),
        outcome: match record.level {
            Level::Ok => Outcome::Good,
            Level::Unknown | Level::Warning => Outcome::Warning,
            Level::Critical => Outcome::Bad,
        },
        found: match remarkable.is_empty() {
            true => record.level.word().to_lowercase(),
            false => format!("{}: {}", record.level.word().to_lowercase(), remarkable.join("; ")),
        },
    }
}

pub fn table(events: &[Event]) -> Option<Html> {
    let mut table = Table::new(&["when", "where", "what", "found"]);
    for event in events {
        let class = match event.outcome {
            Outcome::Good => "good",
            Outcome::Warning => "warn",
            Outcome::Bad => "bad",
        };
        table.row([
            Html::text(minute(event.time)),
            Html::text(&event.host),
            Html::text(&event.what),
            Html::span(class, &event.found),
        ]);
    }
    (!events.is_empty()).then(|| table.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_with_what_it_found() {
        use crate::ops::check::finding::Finding;
        let findings =
            vec![Finding::ok("fsync", "fsync is on"), Finding::warning("backup_age", "the backup is old")];
        let record = |level, findings| CheckRecord {
            host: "db1".into(),
            started: "2026-11-23T03:00:00Z".parse().expect("time"),
            level,
            findings,
            measures: Vec::new(),
        };
        let warned = check(&record(Level::Warning, findings));
        assert_eq!((warned.outcome, warned.found.as_str()), (Outcome::Warning, "warning: the backup is old"));
        let fine = check(&record(Level::Ok, vec![Finding::ok("fsync", "fsync is on")]));
        assert_eq!((fine.outcome, fine.found.as_str()), (Outcome::Good, "ok"));
    }

    fn record(damaged: u64, sound: bool) -> Verification {
        Verification {
            scope: Scope::Backup,
            backup: Some("one".parse().expect("a name")),
            deep: false,
            started: "2026-11-23T03:00:00Z".parse().expect("time"),
            ended: "2026-11-23T03:10:00Z".parse().expect("time"),
            host: "db1".into(),
            objects: 5,
            bytes: 1 << 30,
            damaged,
            damaged_first: Vec::new(),
            unread: 0,
            holes: damaged,
            lost_backups: 0,
            lost_backups_first: Vec::new(),
            sound,
        }
    }

    #[test]
    fn a_verification_is_told_in_a_sentence() {
        let sound = verification(&record(0, true));
        assert_eq!(sound.what, "verified backup one: 1.00 GiB in 10 min");
        assert_eq!((sound.outcome, sound.found.as_str()), (Outcome::Good, "sound"));
        let damaged = verification(&record(2, false));
        let found = "2 damaged, 2 places where WAL is missing";
        assert_eq!((damaged.outcome, damaged.found.as_str()), (Outcome::Bad, found));
        assert_eq!(verification(&record(0, false)).found, "not all of it was read");
        assert_eq!(table(&[]), None);
        assert!(table(&[sound]).is_some_and(|html| html.0.contains("class=\"good\"")));
    }
}
