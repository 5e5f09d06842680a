//! `--heal`: brings WAL that the archive lacks out of the server's own pg_wal. After a failover the segments that
//! the dead primary did not archive lie on the new one, marked as done, so that PostgreSQL archives them never
//! (XLogWalRcvClose, KeepFileRestoredFromArchive).
//!
//! Which files: those that recovery along the server's timeline path reads, under the names by which it looks for
//! them (XLogFileReadAnyTLI): of an old timeline the segments before the one of the fork. So the unfinished last
//! segment of an old timeline is never brought: from the fork on the file of the new timeline has its content.
//! And never the segment that is being written, nor one that the archiver is about to bring itself.
//!
//! Each goes through a copy that was read to its end: pages, records and timelines must be right. What is stored
//! then is what wal-push would have stored, under its lock and its rules about other content.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;

use super::local::Local;
use super::wal;
use crate::config::Config;
use crate::error::{IoContext, Result};
use crate::interrupt::Interrupt;
use crate::ops::wal_push::{self, ahead};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal_dir;
use crate::repo::segment;

/// A file that was brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healed {
    pub file: String,
}

/// The histories on a path that the repository lacks and pg_wal has; brought.
pub fn histories(
    config: &Config,
    local: &Local,
    lacks: &dyn Fn(Timeline) -> Result<bool>,
    timeline: Timeline,
) -> Result<Vec<Healed>> {
    let Some(history) = local_history(local, timeline)? else { return Ok(Vec::new()) };
    let mut healed = Vec::new();
    let ancestors = history.entries().iter().map(|entry| entry.timeline);
    for timeline in ancestors.chain([timeline]).filter(|timeline| *timeline > Timeline(1)) {
        let file = WalFile::History(timeline);
        if lacks(timeline)? && path_of(local, file).exists() {
            wal_push::bring_history(config, &local.data_directory, timeline)?;
            healed.push(Healed { file: file.to_string() });
        }
    }
    Ok(healed)
}

/// The path to a timeline as the server itself knows it.
pub fn local_history(local: &Local, timeline: Timeline) -> Result<Option<TimelineHistory>> {
    if timeline == Timeline(1) {
        return Ok(Some(TimelineHistory::without_parents(timeline)));
    }
    let path = path_of(local, WalFile::History(timeline));
    match std::fs::read(&path) {
        Ok(content) => TimelineHistory::parse(timeline, &content)
            .map(Some)
            .map_err(|error| error.context(path.display())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).doing(|| format!("read {}", path.display())),
    }
}

fn path_of(local: &Local, file: WalFile) -> std::path::PathBuf {
    local.pg_wal().join(file.to_string())
}

/// The segments that may be brought: on the path, from `first` on, before the one in which the server's WAL ends.
/// What has expired, though pg_wal may still have it, stays away.
pub fn candidates(path: &wal::Path<'_>, first: u64, end: Lsn) -> Result<Vec<SegmentName>> {
    let Some(last) = last_whole(path.catalog.segment_size(), end) else { return Ok(Vec::new()) };
    let missing = wal::missing_between(path, first, last)?;
    Ok(missing.runs.into_iter().flatten().map(|number| path.name(number)).collect())
}

/// The last segment that lies wholly before `end`.
fn last_whole(size: SegmentSize, end: Lsn) -> Option<u64> {
    size.segment_of(end).checked_sub(1)
}

/// Brings those of `names` that pg_wal has. Those that it has not are left for the holes to tell.
pub fn segments(
    config: &Config,
    local: &Local,
    names: &[SegmentName],
    interrupt: &Interrupt,
    healed: &mut Vec<Healed>,
) -> Result<()> {
    for name in names {
        interrupt.check()?;
        if !ahead::is_ready(&local.pg_wal(), &name.to_string()) && bring(config, local, *name)? {
            healed.push(Healed { file: name.to_string() });
        }
    }
    Ok(())
}

/// Through an unlinked copy: nothing is left of it, however this ends.
fn bring(config: &Config, local: &Local, name: SegmentName) -> Result<bool> {
    let path = local.pg_wal().join(name.to_string());
    let system_id = local.control.system_id;
    if !wal_dir::is_segment(&path, name, system_id)? {
        return Ok(false);
    }
    let directory = config.spool.clone().unwrap_or_else(std::env::temp_dir);
    let making = || format!("make a temporary file in {}", directory.display());
    let mut copy = tempfile::tempfile_in(&directory).doing(making)?;
    if !wal_dir::copy_segment(&local.data_directory, name, system_id, &mut copy)? {
        tracing::warn!("{} is not whole: not brought", path.display());
        return Ok(false);
    }
    copy.seek(SeekFrom::Start(0)).doing(|| "read the copy of a segment")?;
    wal_push::bring_segment(config, &local.data_directory, name, copy)?;
    Ok(true)
}

/// Whether pg_wal seems to have a segment: its first page says so.
pub fn is_here(local: &Local, name: SegmentName) -> bool {
    let path: &Path = &local.pg_wal().join(name.to_string());
    wal_dir::is_segment(path, name, local.control.system_id).unwrap_or(false)
}

/// Whether the repository lacks the history of a timeline.
pub fn lacks_history(path: &wal::Path<'_>, timeline: Timeline) -> Result<bool> {
    segment::has_history(path.catalog.cluster(), timeline).map(|has| !has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::catalog::Catalog;
    use crate::repo::fixture::Fixture;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(MIB).expect("a size")
    }

    fn names(history: &str, timeline: u32, there: &[(u32, u64)], first: u64, end: u64) -> Vec<String> {
        let fixture = Fixture::create();
        for (timeline, number) in there {
            let name = SegmentName::from_number(Timeline(*timeline), *number, size());
            let key = fixture.cluster.layout().segment(name).expect("key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        let history = match history {
            "" => TimelineHistory::without_parents(Timeline(timeline)),
            text => TimelineHistory::parse(Timeline(timeline), text.as_bytes()).expect("a history"),
        };
        let path = wal::Path { catalog: Catalog::new(&fixture.cluster, size()), history };
        let found = candidates(&path, first, Lsn(end)).expect("listed");
        found.iter().map(|name| format!("{}:{}", name.timeline, name.segment)).collect()
    }

    #[test]
    fn the_segment_of_a_fork_is_brought_under_the_new_timelines_name_only() {
        let history = "1\t0/500028\tno recovery target specified\n";
        assert_eq!(names(history, 2, &[(1, 1), (1, 2)], 1, 7 * MIB + 40), ["1:3", "1:4", "2:5", "2:6"]);
        assert_eq!(names(history, 2, &[(1, 1), (2, 5)], 2, 6 * MIB + 40), ["1:2", "1:3", "1:4"]);
        // The old timeline's own unfinished segment 5 would be there, too: it is no name of the path.
        assert_eq!(names(history, 2, &[(1, 4), (1, 5)], 4, 6 * MIB + 40), ["2:5"]);
    }

    #[test]
    fn a_fork_at_the_very_start_of_a_segment_leaves_the_one_before_to_the_old_timeline() {
        assert_eq!(names("1\t0/500000\tx\n", 2, &[], 4, 6 * MIB + 40), ["1:4", "2:5"]);
    }

    #[test]
    fn the_segment_that_is_being_written_is_never_brought() {
        assert_eq!(names("", 1, &[(1, 1)], 1, 3 * MIB + 40), ["1:2"]);
        assert_eq!(names("", 1, &[(1, 1)], 1, 3 * MIB), ["1:2"]);
        assert_eq!(names("", 1, &[], 0, 40), Vec::<String>::new());
    }
}
