//! What the metrics are: names, units and meaning, from the account that `info` prints (in `looks.rs`: from the
//! records of checks and verifications). `docs/metrics.md` lists them; dashboards and alerts depend on the names, so
//! that one is added, never changed.
//!
//! Moments are given as Unix times, not as ages: an age in a file grows old with the file.

use std::path::Path;

use jiff::Timestamp;

use super::sheet::{Labels, Sheet, seconds};
use crate::disk::Space;
use crate::error::Result;
use crate::ident::Name;
use crate::ops::info::summary::{
    BackupSummary, HoleSummary, Incarnation, Summary, TimelineSummary, WindowSummary,
};
use crate::pg::lsn::SystemId;

/// One incarnation and the cluster that it belongs to.
struct Part<'a> {
    cluster: &'a Name,
    incarnation: &'a Incarnation,
}

impl Part<'_> {
    fn labels(&self) -> Labels {
        of_incarnation(self.cluster, self.incarnation.system_id)
    }

    fn with(&self, name: &'static str, value: impl ToString) -> Labels {
        let mut labels = self.labels();
        labels.push((name, value.to_string()));
        labels
    }

    /// They are in the order in which they ended.
    fn newest(&self) -> Option<&BackupSummary> {
        self.incarnation.backups.last()
    }
}

pub fn of_incarnation(cluster: &Name, id: SystemId) -> Labels {
    vec![("cluster", cluster.to_string()), ("system_id", id.to_string())]
}

/// A metric with at most one value for each incarnation.
type OfPart = (&'static str, &'static str, fn(&Part<'_>) -> Option<f64>);

/// Those of backups.
const BACKUPS: [OfPart; 11] = [
    ("pgark_backups", "Backups in the repository", |part| Some(part.incarnation.backups.len() as f64)),
    ("pgark_backups_broken", "Backups of which packs or WAL are missing", |part| {
        Some(part.incarnation.backups.iter().filter(|backup| !backup.is_whole()).count() as f64)
    }),
    ("pgark_backups_pinned", "Backups that are pinned", |part| {
        Some(part.incarnation.backups.iter().filter(|backup| !backup.pins.is_empty()).count() as f64)
    }),
    ("pgark_backups_running", "Backups that are being taken", |part| {
        Some(part.incarnation.running.len() as f64)
    }),
    ("pgark_backup_newest_stop_timestamp_seconds", "When the newest backup ended, by the server", |part| {
        part.newest().map(|backup| seconds(backup.stop_time))
    }),
    ("pgark_backup_oldest_stop_timestamp_seconds", "When the oldest backup ended, by the server", |part| {
        part.incarnation.backups.first().map(|backup| seconds(backup.stop_time))
    }),
    ("pgark_backup_newest_duration_seconds", "How long the newest backup took", |part| {
        part.newest().map(|backup| backup.duration_seconds as f64)
    }),
    ("pgark_backup_newest_raw_bytes", "The size of the cluster in the newest backup", |part| {
        part.newest().map(|backup| backup.raw_bytes as f64)
    }),
    ("pgark_backup_newest_stored_bytes", "What the newest backup wrote into the repository", |part| {
        part.newest().map(|backup| backup.stored_bytes as f64)
    }),
    ("pgark_backup_newest_damaged_pages", "Pages of the cluster that were damaged then", |part| {
        part.newest().map(|backup| backup.damaged_pages as f64)
    }),
    ("pgark_unreadable_objects", "Headers, histories and records that can't be read", |part| {
        Some(part.incarnation.unreadable.len() as f64)
    }),
];

/// Those of holes and of where one can go back to: of the path on which WAL arrived last.
const REACH: [OfPart; 6] = [
    ("pgark_wal_holes", "Runs of segments that are missing though later ones are there", |part| {
        Some(holes(part).count() as f64)
    }),
    ("pgark_wal_missing_segments", "Segments in these runs", |part| {
        Some(holes(part).map(|hole| hole.segments).sum::<u64>() as f64)
    }),
    ("pgark_wal_gaps", "Recorded gaps of which segments are really missing", |part| {
        Some(part.incarnation.gaps.iter().filter(|gap| gap.missing).count() as f64)
    }),
    ("pgark_window_from_timestamp_seconds", "The earliest moment of the newest window", |part| {
        newest_window(part).map(|window| seconds(window.from_time))
    }),
    ("pgark_window_to_timestamp_seconds", "The last transaction in the newest window", |part| {
        newest_window(part).and_then(|window| window.to_time).map(seconds)
    }),
    ("pgark_window_interrupted", "1 if WAL is missing behind the newest window, else 0", |part| {
        newest_window(part).map(|window| f64::from(u8::from(window.missing.is_some())))
    }),
];

/// Not those that expiry left.
fn holes<'a>(part: &'a Part<'_>) -> impl Iterator<Item = &'a HoleSummary> {
    part.incarnation.holes.iter().filter(|hole| !hole.expired)
}

fn newest_window<'a>(part: &'a Part<'_>) -> Option<&'a WindowSummary> {
    let newest = part.incarnation.paths.iter().max_by_key(|path| (path.newest_time, path.timeline));
    newest.and_then(|path| path.windows.last())
}

/// Everything that the account says.
pub fn summary(sheet: &mut Sheet, summary: &Summary) {
    let parts: Vec<Part<'_>> = summary
        .clusters
        .iter()
        .flat_map(|cluster| {
            let part = |incarnation| Part { cluster: &cluster.name, incarnation };
            cluster.incarnations.iter().map(part)
        })
        .collect();
    let info = |part: &Part<'_>| (part.with("postgres_major", part.incarnation.postgres_major), 1.0);
    sheet.gauge("pgark_incarnation_info", "A cluster's incarnation", parts.iter().map(info));
    for (name, help, value) in BACKUPS.iter().chain(&REACH) {
        let values = parts.iter().filter_map(|part| value(part).map(|value| (part.labels(), value)));
        sheet.gauge(name, help, values);
    }
    wal(sheet, &parts);
    stored(sheet, &parts);
}

fn wal(sheet: &mut Sheet, parts: &[Part<'_>]) {
    let mut of_timelines = |name, help, value: fn(&TimelineSummary) -> Option<f64>| {
        let values = parts.iter().flat_map(|part| {
            let of = |timeline: &TimelineSummary| {
                Some((part.with("timeline", timeline.timeline.0), value(timeline)?))
            };
            part.incarnation.timelines.iter().filter_map(of)
        });
        sheet.gauge(name, help, values);
    };
    of_timelines("pgark_wal_segments", "Whole segments of a timeline", |timeline| {
        Some(timeline.segments as f64)
    });
    of_timelines("pgark_wal_stored_bytes", "What they take", |timeline| Some(timeline.stored_bytes as f64));
    of_timelines(
        "pgark_wal_raw_bytes_per_day",
        "WAL that a day brings, before compression, over the last week of it",
        |timeline| Some(timeline.raw_bytes_per_day as f64),
    );
    of_timelines(
        "pgark_wal_newest_timestamp_seconds",
        "When the newest segment was stored, by the store",
        |timeline| timeline.newest_time.map(seconds),
    );
}

fn stored(sheet: &mut Sheet, parts: &[Part<'_>]) {
    let values = parts.iter().flat_map(|part| {
        let stored = part.incarnation.stored;
        let of = |kind: &'static str, bytes: u64| (part.with("kind", kind), bytes as f64);
        [
            of("wal", stored.wal_bytes),
            of("packs", stored.packs_bytes),
            of("backups", stored.backups_bytes),
            of("other", stored.other_bytes),
        ]
    });
    sheet.gauge("pgark_stored_bytes", "What a cluster takes in the repository", values);
}

/// The file system of a local repository.
pub fn space(sheet: &mut Sheet, repository: &Path) -> Result<()> {
    let space = Space::of(repository)?;
    let of_disk = |bytes: u64| [(Vec::new(), bytes as f64)];
    sheet.gauge("pgark_repository_size_bytes", "The size of the repository's disk", of_disk(space.total));
    let help = "What is free on it for those who are not root";
    sheet.gauge("pgark_repository_free_bytes", help, of_disk(space.free));
    Ok(())
}

/// Whether the repository could be looked at, and when that was.
pub fn looked(sheet: &mut Sheet, cluster: &Name, up: bool, now: Timestamp) {
    let labels = vec![("cluster", cluster.to_string())];
    let help = "1 if the repository could be read, else 0 and nothing else is known";
    sheet.gauge("pgark_up", help, [(labels, f64::from(u8::from(up)))]);
    let help = "When these metrics were collected, by this host";
    sheet.gauge("pgark_collected_timestamp_seconds", help, [(Vec::new(), seconds(now))]);
}
