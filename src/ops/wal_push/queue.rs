//! An archive that stays out of reach: pg_wal grows until its disk is full and the server stops. Every failed
//! push says how much waits, how much room is left, and for how long.
//!
//! `push.wal_queue_max` lets the server live at the price of WAL: while more waits, what has waited longest is
//! dropped. Never silently: it is recorded durably first (`outage.rs`), logged as an error, and recorded in
//! the repository as soon as that can be reached. Refuses to drop anything for another reason than a
//! repository that could not be reached again and again; a file that can't be read, or that PostgreSQL does
//! not wait for; and whatever can't be recorded. History files are never dropped, only deferred.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use indicatif::{BinaryBytes, HumanDuration};

use super::{Push, outage};
use crate::disk::Space;
use crate::error::{Error, IoContext, Result};
use crate::pg::control::ControlFile;
use crate::pg::lsn::SegmentSize;
use crate::pg::names::{SegmentName, WalFile};
use crate::spool::Spool;
use outage::Held;

/// So many pushes must have failed in a row, the last included, before anything is dropped. The archiver tries
/// three times, a second apart, and again after a minute or when the next segment is full (pgarch.c): a
/// repository that is away for a moment costs no WAL, however much waits.
const ENOUGH_FAILURES: u32 = 10;

/// Nothing is said about a rate that was seen for less.
const LEAST_SPAN: Duration = Duration::from_secs(1);

/// What waits in pg_wal, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queue {
    segments: u64,
    size: SegmentSize,
    /// Since the first of them was full.
    age: Duration,
    /// Bytes that are left on pg_wal's file system.
    space: u64,
}

impl Queue {
    /// Counts, and remembers only the first name: there may be hundreds of thousands.
    fn look(pg_wal: &Path, size: SegmentSize) -> Result<Self> {
        let directory = pg_wal.join("archive_status");
        let doing = || format!("list {}", directory.display());
        let (mut segments, mut first): (u64, Option<SegmentName>) = (0, None);
        for entry in fs::read_dir(&directory).doing(doing)? {
            if let Some(name) = waiting_segment(&entry.doing(doing)?.file_name().to_string_lossy()) {
                segments = segments.saturating_add(1);
                first = Some(first.map_or(name, |first| first.min(name)));
            }
        }
        let age = first.map_or(Duration::ZERO, |first| age(&directory.join(format!("{first}.ready"))));
        Ok(Self { segments, size, age, space: Space::of(pg_wal)?.free })
    }

    fn bytes(&self) -> u64 {
        self.segments.saturating_mul(self.size.bytes())
    }

    /// Until the file system is full, if the server goes on writing as it did since the first segment waits.
    fn time_left(&self) -> Option<Duration> {
        let written = self.segments.checked_sub(1)?.saturating_mul(self.size.bytes());
        if written == 0 || self.age < LEAST_SPAN {
            return None;
        }
        Duration::try_from_secs_f64(self.age.as_secs_f64() * self.space as f64 / written as f64).ok()
    }

    fn describe(&self, limit: Option<u64>) -> String {
        let left = self.time_left();
        let left = left.map(|time| format!(", enough for {} at the present rate", HumanDuration(time)));
        let then = match limit {
            None => "when that is full, the server stops".to_string(),
            Some(limit) => format!(
                "while more than {} wait and the repository can't be reached, WAL is dropped \
                 (push.wal_queue_max)",
                BinaryBytes(limit)
            ),
        };
        format!(
            "{} segments ({}) wait to be archived; {} are left on the file system of pg_wal{}; {then}",
            self.segments,
            BinaryBytes(self.bytes()),
            BinaryBytes(self.space),
            left.unwrap_or_default()
        )
    }
}

fn waiting_segment(status_file: &str) -> Option<SegmentName> {
    status_file.strip_suffix(".ready")?.parse().ok()
}

/// Zero when it can't be told: the status file has just become `.done`, the clock was set back.
fn age(file: &Path) -> Duration {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|then| SystemTime::now().duration_since(then).ok()).unwrap_or_default()
}

/// A push has failed: warns of what comes of that, and drops the file if that is wanted and needed. The
/// error comes back unless the file was dropped.
pub(super) fn after_failure(push: &Push, error: Error) -> Result<()> {
    let (Some(data_directory), Some(pg_wal)) = (push.data_directory, push.path.parent()) else {
        return Err(error);
    };
    // By hand anything can be pushed; what PostgreSQL does not wait for takes no room that it needs.
    if !super::ahead::is_ready(pg_wal, &push.file.to_string()) {
        return Err(error);
    }
    let looked = ControlFile::read(data_directory)
        .and_then(|control| Ok((Queue::look(pg_wal, control.segment_size)?, control)));
    let (queue, control) = match looked {
        Ok(looked) => looked,
        Err(trouble) => {
            tracing::warn!("could not tell how much WAL waits: {trouble}");
            return Err(error);
        }
    };
    let limit = push.config.push.wal_queue_max;
    tracing::warn!("{}", queue.describe(limit));
    let Some(limit) = limit else { return Err(error) };
    let spool = Spool::of(push.config.spool.as_deref(), data_directory);
    match drop_if_needed(push, &control, spool, &error, queue.bytes() > limit) {
        Ok(true) => Ok(()),
        Ok(false) => Err(error),
        Err(trouble) => {
            tracing::error!(hint = trouble.hint(), "{trouble}; so no WAL is dropped");
            Err(error)
        }
    }
}

/// Whether the asked file was dropped, or deferred.
fn drop_if_needed(
    push: &Push,
    control: &ControlFile,
    spool: Spool,
    error: &Error,
    too_long: bool,
) -> Result<bool> {
    if !error.is_unreachable() {
        // What else failed may have been here, before anything was asked of the repository.
        if push.repository().is_ok() {
            outage::answered(spool)?;
        }
        return Ok(false);
    }
    let mut held = Held::open(spool)?;
    held.outage.failures = held.outage.failures.saturating_add(1);
    let needed = too_long && held.outage.failures >= ENOUGH_FAILURES;
    if needed {
        refuse_unreadable(push)?;
        held.outage.take(push, control)?;
    }
    held.write()?;
    if needed {
        tell(push, error);
    }
    Ok(needed)
}

/// What the repository would refuse is kept, for a person to see.
fn refuse_unreadable(push: &Push) -> Result<()> {
    let mut source = push.open()?;
    if let WalFile::Segment(name) | WalFile::Partial(name) = push.file {
        let header = push.read_header(&mut source)?;
        push.check_owner(name, &header)?;
        let size = source.metadata().doing(|| format!("look at {}", push.path.display()))?.len();
        header.check(name, size)?;
    }
    std::io::copy(&mut source, &mut std::io::sink()).doing(|| format!("read {}", push.path.display()))?;
    Ok(())
}

fn tell(push: &Push, error: &Error) {
    match push.file {
        WalFile::Segment(_) | WalFile::Partial(_) => tracing::error!(
            hint = "bring the repository back and take a backup: no earlier one can be restored beyond this",
            "{} is DROPPED, not archived: more WAL waits than push.wal_queue_max, and {error}",
            push.file
        ),
        WalFile::History(_) | WalFile::BackupHistory(..) => tracing::error!(
            "{} is deferred: it is kept in the spool, and archived when the repository can be reached again: {error}",
            push.file
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn queue(segments: u64, age: u64, space: u64) -> Queue {
        let size = SegmentSize::try_from(16 << 20).expect("a size");
        Queue { segments, size, age: Duration::from_secs(age), space }
    }

    #[test]
    fn the_time_left_follows_from_how_fast_the_queue_grew() {
        // 4 segments in 3 intervals of a minute; room for 60.
        let left = queue(4, 180, 60 * (16 << 20)).time_left();
        assert_eq!(left, Some(Duration::from_secs(3600)));
        assert_eq!(queue(9, 60, 0).time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn no_time_is_told_where_no_rate_was_seen() {
        for unknown in [queue(0, 0, GIB), queue(1, 60, GIB), queue(9, 0, GIB)] {
            assert_eq!(unknown.time_left(), None);
            assert!(unknown.describe(None).contains("of pg_wal; "), "{}", unknown.describe(None));
        }
    }

    #[test]
    fn what_waits_is_told_in_one_sentence() {
        assert_eq!(
            queue(4, 180, 60 * (16 << 20)).describe(None),
            "4 segments (64.00 MiB) wait to be archived; 960.00 MiB are left on the file system of pg_wal, enough \
             for 60 minutes at the present rate; when that is full, the server stops"
        );
        let limited = queue(4, 180, GIB).describe(Some(200 * GIB));
        assert!(
            limited.ends_with(
                "200.00 GiB wait and the repository can't be reached, WAL is dropped (push.wal_queue_max)"
            ),
            "{limited}"
        );
    }

    #[test]
    fn a_queue_is_counted_and_as_old_as_its_first_segment() {
        let pg_wal = tempfile::tempdir().expect("tempdir");
        let status = pg_wal.path().join("archive_status");
        fs::create_dir(&status).expect("made");
        let size = SegmentSize::try_from(1 << 20).expect("a size");
        let look = || Queue::look(pg_wal.path(), size).expect("looked");
        assert_eq!((look().bytes(), look().age), (0, Duration::ZERO));
        for name in ["000000010000000000000003", "000000010000000000000002", "000000020000000000000001"] {
            let file = fs::File::create(status.join(format!("{name}.ready"))).expect("made");
            let ago = if name.ends_with('2') { 1000 } else { 10 };
            file.set_modified(SystemTime::now() - Duration::from_secs(ago)).expect("set");
        }
        fs::write(status.join("000000010000000000000001.done"), "").expect("made");
        let queue = look();
        assert_eq!(queue.bytes(), 3 << 20);
        assert!(queue.age >= Duration::from_secs(1000), "{queue:?}");
        assert!(queue.space > 0);
        fs::remove_dir_all(&status).expect("removed");
        assert!(Queue::look(pg_wal.path(), size).expect_err("nothing to list").message().contains("list"));
    }

    #[test]
    fn only_segments_count_as_waiting() {
        assert!(waiting_segment("000000010000000000000001.ready").is_some());
        for other in [
            "000000010000000000000001.done",
            "00000002.history.ready",
            "000000010000000000000001.partial.ready",
            "000000010000000000000001.00000028.backup.ready",
            ".ready",
        ] {
            assert_eq!(waiting_segment(other), None, "{other}");
        }
    }
}
