//! What the operator should know about a plan and would not think of: a target behind the last transaction, a
//! second branch of time, damage, other versions than the source's.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use super::Request;
use super::choose::{Archive, Stop};
use super::libraries;
use super::plan::Decision;
use super::source::Source;
use super::streamed;
use super::target::Target;
use super::window::last_time;
use crate::error::Result;
use crate::host;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::time::Timestamp;
use crate::pg::wal::{Search, Sought};
use crate::repo::backup::{BackupHeader, DatabaseLocale};
use crate::repo::segment;

pub fn notes(
    source: &Source,
    request: &Request,
    decision: &Decision,
    jobs: NonZeroUsize,
) -> Result<Vec<String>> {
    let mut notes = source.notes.clone();
    notes.extend(end_of_archive(source, decision)?);
    if decision.standby.is_some() || matches!(decision.choice.stop, Stop::End { .. }) {
        notes.extend(decision.ends.why_not(decision.choice.path.timeline()));
    }
    if let (Target::Time(time), None) = (&decision.aim.target, decision.aim.timeline) {
        notes.extend(other_branches(&source.archive(jobs, &decision.ends), source, decision, *time)?);
    }
    notes.extend(unarchived_timelines(source, decision, jobs)?);
    let survey = &decision.survey;
    if survey.namesakes > 0 {
        notes.push(format!(
            "there are {} more restore points of this name behind the one where recovery stops",
            survey.namesakes
        ));
    }
    notes.extend(
        survey
            .damage
            .iter()
            .map(|damage| format!("the archived WAL is damaged, and recovery may fail there: {damage}")),
    );
    notes.extend(moved_by_replay(decision));
    notes.extend(of_backup(&decision.header));
    notes.extend(collations(&decision.header, host::libc_version().as_deref()));
    if !request.takeover {
        let left_out = libraries::left_out(request.setting(&decision.header, "shared_preload_libraries"))?;
        if !left_out.is_empty() {
            notes
                .push(format!("not loaded, because they run jobs or subscriptions: {}", left_out.join(", ")));
        }
    }
    Ok(notes)
}

/// An end of the archive in place of a target that the archive does not have.
fn end_of_archive(source: &Source, decision: &Decision) -> Result<Option<String>> {
    let Stop::End { last_record } = decision.choice.stop else { return Ok(None) };
    let last = decision.segments().1;
    let archived = match decision.streamed() {
        Some(part) => streamed::read_header(&source.cluster, part)?.archived,
        None => segment::read_header(&source.cluster, last)?.archived,
    };
    let why = match &decision.aim.target {
        Target::Time(time) => format!("no archived transaction ended after {time}"),
        Target::Lsn(lsn) => format!("no archived record begins at or behind {lsn}"),
        Target::Immediate => "no archived record follows the backup".to_string(),
        _ => return Ok(None),
    };
    let ended = match decision.survey.last_end {
        Some(time) => format!(", the last transaction in which ended at {time}"),
        None => String::new(),
    };
    Ok(Some(format!(
        "{why}: this restores to the end of the archive, LSN {last_record}{ended}; its last segment was archived at \
         {archived}. What the source wrote since then is not in it: if the source lives, run \
         `select pg_switch_wal()` there and plan again"
    )))
}

/// Other timelines that were being written at the target's time: a server and its failed-over successor, or
/// what was before an earlier restore.
fn other_branches<A: Archive>(
    archive: &A,
    source: &Source,
    decision: &Decision,
    time: Timestamp,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let chosen = &decision.choice.path;
    for (timeline, path) in &source.histories {
        if *timeline == chosen.timeline() || is_ahead(chosen, path) {
            continue;
        }
        let begin = path.entries().last().map_or(Lsn::INVALID, |entry| entry.switch_lsn);
        let from = chosen.switch_point(*timeline).unwrap_or(begin);
        if let Some((first, last)) = span(archive, path, *timeline, from)?
            && (first..=last).contains(&time)
        {
            notes.push(format!(
                "timeline {timeline} was written at that time too, up to {last}: add --target-timeline {timeline} for \
                 the state that it had"
            ));
        }
    }
    Ok(notes)
}

/// A timeline that begins behind where the chosen one stops has nothing of its own before.
fn is_ahead(chosen: &TimelineHistory, other: &TimelineHistory) -> bool {
    other.contains(chosen.timeline())
}

/// The times of the transactions that ended on a timeline from an LSN on: the first and the latest.
fn span<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    timeline: Timeline,
    from: Lsn,
) -> Result<Option<(Timestamp, Timestamp)>> {
    let size = archive.segment_size();
    let first = size.segment_of(from);
    let newest = archive.newest_of(timeline)?.map(|newest| newest.number(size)).transpose()?;
    if newest.is_none_or(|newest| newest < first) {
        return Ok(None);
    }
    let Some(last) = archive.last_contiguous(path, first)? else { return Ok(None) };
    // The segment of the fork holds what both timelines have, too.
    let any = Sought::EndedAfter { time: Timestamp::UNIX_EPOCH, or_at: true };
    let mut earliest = archive.find(path, first, &Search { from, sought: any })?.and_then(|found| found.time);
    if earliest.is_none() && first < last {
        archive.facts(path, first.saturating_add(1)..=last, &mut |_, facts| {
            earliest = facts.earliest_time;
            Ok(if earliest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(earliest.zip(last_time(archive, path, first, last)?))
}

/// A promotion of which nothing but the history file got into the archive.
fn unarchived_timelines(source: &Source, decision: &Decision, jobs: NonZeroUsize) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (timeline, path) in
        source.histories.iter().filter(|(timeline, _)| **timeline > decision.choice.path.timeline())
    {
        if source.archive(jobs, &decision.ends).newest_of(*timeline)?.is_none()
            && let Some(entry) = path.entries().last()
        {
            notes.push(format!(
                "timeline {timeline} began at LSN {} of timeline {}, but none of its WAL is archived",
                entry.switch_lsn, entry.timeline
            ));
        }
    }
    Ok(notes)
}

/// Tablespaces that the backup has and replay creates again: they end up at the original path, mapped or not.
fn moved_by_replay(decision: &Decision) -> Vec<String> {
    let has = |oid| decision.header.tablespaces.iter().find(move |tablespace| tablespace.oid == oid);
    let created = decision.survey.created.iter();
    let moved = created.filter_map(|created| Some((has(created.oid)?, created)));
    moved
        .map(|(tablespace, created)| {
            format!(
                "tablespace {} was created while the backup was taken: replay makes it again, at {}",
                tablespace.name, created.path
            )
        })
        .collect()
}

fn of_backup(header: &BackupHeader) -> Vec<String> {
    let mut notes: Vec<String> =
        header.warnings.iter().map(|warning| format!("when the backup was taken: {warning}")).collect();
    if header.damaged_pages.count > 0 {
        let first = header.damaged_pages.first.first();
        let example = first
            .map(|page| format!(", the first in block {} of {}", page.block, page.path.as_path().display()));
        notes.push(format!(
            "the backup holds {} damaged pages, as its source did{}",
            header.damaged_pages.count,
            example.unwrap_or_default()
        ));
    }
    notes
}

/// Another version of the C library sorts text otherwise, and then indexes on text are wrong.
fn collations(header: &BackupHeader, here: Option<&str>) -> Option<String> {
    let there = header.locale.libc.as_deref()?;
    let here = here.filter(|here| *here != there)?;
    let concerned: Vec<&str> = header
        .locale
        .databases
        .iter()
        .filter(|database| depends_on_libc(database))
        .map(|database| database.name.as_str())
        .collect();
    if concerned.is_empty() {
        return None;
    }
    Some(format!(
        "the C library is {here} here and was {there} at the source: text may sort otherwise; reindex what is \
         indexed by text in {} (REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION)",
        concerned.join(", ")
    ))
}

fn depends_on_libc(database: &DatabaseLocale) -> bool {
    let fixed = |name: &str| name == "C" || name == "POSIX" || name.starts_with("C.");
    database.provider == "libc" && !(fixed(&database.collate) && fixed(&database.ctype))
}
