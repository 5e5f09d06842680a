//! What can be reached: for each timeline the stretches between the end of a backup and the last segment
//! that follows it without a gap. Every refusal of a target says them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;

use super::choose::{Archive, Candidate, on_path};
use super::target::Aim;
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::time::Timestamp;

/// A stretch of a timeline within which every target can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    pub timeline: Timeline,
    /// The oldest backup of the stretch, whose end is its begin.
    pub backup: Name,
    pub from_time: Timestamp,
    pub from_lsn: Lsn,
    /// The last transaction that ended within it, if any did.
    pub to_time: Option<Timestamp>,
    pub to_lsn: Lsn,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, from_time, from_lsn, to_lsn, backup, .. } = self;
        write!(f, "timeline {timeline} from {from_time} (LSN {from_lsn}, the end of backup {backup}) to ")?;
        match self.to_time {
            Some(time) => write!(f, "{time} (LSN {to_lsn})"),
            None => write!(f, "LSN {to_lsn}"),
        }
    }
}

/// The refusal of a target: why, and what can be reached instead.
pub fn refuse<A: Archive, T>(
    archive: &A,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
    aim: &Aim,
    cause: Error,
) -> Result<T> {
    let windows = windows(archive, histories, backups)?;
    let reachable: Vec<String> = windows.iter().map(ToString::to_string).collect();
    let on = aim.timeline.map(|timeline| format!(" on timeline {timeline}")).unwrap_or_default();
    let error = cause.context(format!("could not plan a restore to {}{on}", aim.target));
    Err(match reachable.is_empty() {
        true => error.with_hint("nothing can be reached: no backup has all the WAL that it needs"),
        false => error.with_hint(format!("what can be reached: {}", reachable.join("; "))),
    })
}

/// All stretches, by timeline. What a timeline shares with its parent is listed under the parent.
pub fn windows<A: Archive>(
    archive: &A,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    backups: &[Candidate],
) -> Result<Vec<Window>> {
    let mut windows = Vec::new();
    for path in histories.values() {
        let own_begin = path.entries().last().map_or(Lsn::INVALID, |entry| entry.switch_lsn);
        windows.extend(
            windows_of(archive, path, backups)?.into_iter().filter(|window| window.to_lsn > own_begin),
        );
    }
    Ok(windows)
}

fn windows_of<A: Archive>(archive: &A, path: &TimelineHistory, backups: &[Candidate]) -> Result<Vec<Window>> {
    let size = archive.segment_size();
    let mut windows: Vec<Window> = Vec::new();
    for backup in on_path(backups, path).into_iter().rev() {
        if windows.last().is_some_and(|window| backup.start < window.to_lsn) {
            continue;
        }
        let from = size.segment_of(backup.start);
        let Some(end) = archive.last_contiguous(path, from)? else { continue };
        let to_lsn = archive.end_of(path, end);
        if to_lsn < backup.consistent {
            continue;
        }
        windows.push(Window {
            timeline: path.timeline(),
            backup: backup.label.clone(),
            from_time: backup.stop_time,
            from_lsn: backup.consistent,
            to_time: last_time(archive, path, from, end)?,
            to_lsn,
        });
    }
    Ok(windows)
}

/// The latest time of the last segment in which a transaction ended.
pub fn last_time<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    from: u64,
    end: u64,
) -> Result<Option<Timestamp>> {
    let mut segment = end;
    loop {
        let mut latest = None;
        let read = archive.facts(path, segment..=segment, &mut |_, facts| {
            latest = facts.latest_time;
            Ok(ControlFlow::Break(()))
        });
        match read {
            // It is only told for orientation.
            Err(error) if error.kind() == Kind::Corrupt => {}
            read => read?,
        }
        if latest.is_some() || segment <= from {
            return Ok(latest);
        }
        segment = segment.saturating_sub(1);
    }
}
