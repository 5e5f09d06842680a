//! Free space of the repository's file system and of pg_wal's, where they are on this host, and how long it lasts
//! at the present rate: that of the newest WAL and backups, as if nothing were expired.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::backups::Backup;
use super::finding::{Finding, Limits, Measure};
use super::words::{bytes, span};
use crate::disk::Space;
use crate::error::Result;
use crate::pg::lsn::Timeline;
use crate::repo::catalog::Catalog;
use crate::store::Meta;

const DAY: f64 = 86_400.0;
/// WAL that came in this time tells the rate, if it spans at least the other.
const RECENT: Duration = Duration::from_secs(86_400);
const LEAST: Duration = Duration::from_secs(3600);
/// Backups of so many days tell theirs.
const BACKUP_DAYS: i64 = 7;
/// Logs of a timeline that are listed for it.
const LOGS: usize = 4;

/// What is free, of a hundred.
fn percent(space: Space) -> u64 {
    match space.total {
        0 => 0,
        total => (u128::from(space.free) * 100 / u128::from(total)) as u64,
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    pub free_percent: Limits<u64>,
    pub full_in: Limits<Duration>,
}

/// `per_day`: bytes that come in a day, if that is known.
pub fn judge(
    place: &Place,
    space: Space,
    per_day: Option<u64>,
    limits: &SpaceLimits,
) -> (Finding, Vec<Measure>) {
    let lasts = per_day.filter(|rate| *rate > 0).map(|rate| lasts(space.free, rate));
    let level = limits.free_percent.of_small(&percent(space));
    let level = lasts.map_or(level, |lasts| level.max(limits.full_in.of_small(&lasts)));
    let rate = match per_day.zip(lasts) {
        Some((rate, lasts)) => {
            format!("; {} came in a day: full in {} if nothing is removed", bytes(rate), span(lasts))
        }
        None => String::new(),
    };
    let (name, free, percent) = (place.what, bytes(space.free), percent(space));
    let finding = Finding::new(level, place.check, format!("{name} has {free} ({percent}%) free{rate}"))
        .because(place.why)
        .remedy(place.remedy);
    let measure = |suffix: &str, value| Measure::new(&format!("{}_{suffix}", place.check), value);
    let measures = vec![
        measure("free_bytes", space.free),
        measure("free_percent", percent).limits(limits.free_percent).low_is_bad(),
    ];
    (finding, measures)
}

/// One of the two places.
pub struct Place {
    check: &'static str,
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
}

pub const REPOSITORY: Place = Place {
    check: "repository_space",
    what: "the repository's file system",
    why: "when it is full, nothing is archived any more, and pg_wal fills its own disk next",
    remedy: "enlarge it, or keep less: `pgark expire`",
};

pub const PG_WAL: Place = Place {
    check: "pg_wal_space",
    what: "the file system of pg_wal",
    why: "when it is full, the server stops",
    remedy: "see the findings about archiving and slots, which make it grow; enlarge it",
};

fn lasts(free: u64, per_day: u64) -> Duration {
    let seconds = free as f64 / per_day as f64 * DAY;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Bytes that WAL and backups bring in a day. None: too little was seen.
pub fn per_day(
    catalog: &Catalog<'_>,
    timeline: Timeline,
    backups: &[Backup],
    now: Timestamp,
) -> Result<Option<u64>> {
    let mut objects = Vec::new();
    for log in catalog.logs(timeline)?.into_iter().rev().take(LOGS) {
        let key = catalog.cluster().layout().log(timeline, log)?;
        objects.extend(catalog.cluster().store().level(&key)?.objects);
    }
    Ok(wal_per_day(&objects).map(|wal| wal.saturating_add(backups_per_day(backups, now))))
}

fn wal_per_day(objects: &[Meta]) -> Option<u64> {
    let newest = objects.iter().map(|object| object.modified).max()?;
    let since = newest.checked_sub(RECENT).unwrap_or(SystemTime::UNIX_EPOCH);
    let recent = || objects.iter().filter(|object| object.modified >= since);
    let oldest = recent().map(|object| object.modified).min()?;
    let span = newest.duration_since(oldest).ok().filter(|span| *span >= LEAST)?;
    // The first one came before the span began.
    let came: u64 = recent().filter(|object| object.modified > oldest).map(|object| object.size).sum();
    Some((came as f64 / span.as_secs_f64() * DAY) as u64)
}

fn backups_per_day(backups: &[Backup], now: Timestamp) -> u64 {
    let since = now - jiff::SignedDuration::from_hours(24 * BACKUP_DAYS);
    // Not the first of all, which wrote everything.
    let recent = backups.iter().skip(1).filter(|backup| backup.time >= since);
    recent.map(|backup| backup.stored_bytes).sum::<u64>() / BACKUP_DAYS.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::super::backups::tests::{backup, now};
    use super::super::finding::Level;
    use super::*;
    use crate::store::Key;

    const GIB: u64 = 1 << 30;

    fn limits() -> SpaceLimits {
        let day = Duration::from_secs(86_400);
        SpaceLimits {
            free_percent: Limits { warning: 10, critical: 5 },
            full_in: Limits { warning: 3 * day, critical: day },
        }
    }

    #[test]
    fn space_is_judged_by_its_share_and_by_how_long_it_lasts() {
        let level = |free, per_day| {
            judge(&REPOSITORY, Space { free: free * GIB, total: 100 * GIB }, per_day, &limits()).0.level
        };
        assert_eq!(level(50, None), Level::Ok);
        assert_eq!(level(10, None), Level::Warning);
        assert_eq!(level(5, None), Level::Critical);
        assert_eq!(level(50, Some(10 * GIB)), Level::Ok);
        assert_eq!(level(50, Some(20 * GIB)), Level::Warning);
        assert_eq!(level(50, Some(60 * GIB)), Level::Critical);
        let (finding, measures) =
            judge(&PG_WAL, Space { free: 50 * GIB, total: 100 * GIB }, Some(10 * GIB), &limits());
        assert!(finding.what.contains("full in 5 d"), "{}", finding.what);
        assert_eq!(
            measures.iter().map(Measure::perfdata).collect::<Vec<_>>(),
            [format!("pg_wal_space_free={}B;;;0", 50 * GIB), "pg_wal_space_free=50%;10:;5:;0".to_string(),]
        );
    }

    fn object(seconds: u64, size: u64) -> Meta {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        Meta { key: Key::new("x").expect("key"), size, modified }
    }

    #[test]
    fn no_rate_is_told_where_none_was_seen() {
        assert_eq!(wal_per_day(&[]), None);
        assert_eq!(wal_per_day(&[object(0, 5), object(3599, 5)]), None);
        assert_eq!(wal_per_day(&[object(0, 5), object(43_200, 7)]), Some(14));
        assert_eq!(wal_per_day(&[object(0, 500), object(86_401, 7), object(129_601, 7)]), Some(14));
    }

    #[test]
    fn the_first_backup_is_no_rate() {
        let all: Vec<Backup> = [("a", 50), ("b", 40), ("c", 2)]
            .map(|(label, hours)| Backup { stored_bytes: 7 * GIB, ..backup(label, 1, 40, hours) })
            .to_vec();
        assert_eq!(backups_per_day(&all, now()), 2 * GIB);
    }
}
