//! What a cluster's part of a repository is before anything large is looked at: cluster.json, the histories, and the
//! small records. All of it is read each time, whatever the scope.
//!
//! A history that is damaged, or missing though its timeline is in use, stops every restore: recovery asks for
//! histories to find the newest timeline and the next free one, and `wal-fetch` gives no wrong answers.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::findings::{Counts, Harm};
use crate::error::{Error, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::WalFile;
use crate::repo::expired::Expired;
use crate::repo::gap::Gap;
use crate::repo::pin::Pin;
use crate::repo::{Cluster, ClusterHeader, backup, catalog, layout, lease, parse_json};
use crate::store::{Key, Meta};

/// Longer than any record: they name at most some thousand frames.
const MAX_RECORD: u64 = 1 << 20;

/// The segment size, from cluster.json or, if that can't be read, from a backup.
pub fn segment_size(cluster: &Cluster) -> Result<Option<SegmentSize>> {
    match cluster.header() {
        Ok(header) => return Ok(Some(header.segment_size)),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {}
        Err(error) => return Err(error),
    }
    let readable = backup::iter(cluster)?.find_map(|header| header.ok());
    Ok(readable.map(|header| header.segment_size))
}

/// Checks cluster.json.
pub fn check_header(context: &Context<'_>) -> Result<()> {
    let key = context.cluster.layout().cluster()?;
    context.findings.count(Counts { objects: 1, ..Counts::default() });
    let missing = || Error::corrupt(format!("{} is missing", context.name(&key)));
    match context.cluster.header() {
        // A restore needs of it no more than the segment size.
        Ok(header) => context.settle(&key, &Harm::Nothing, expect_itself(context, &key, &header)),
        Err(error) if error.kind() == Kind::NotFound && is_empty(context.cluster)? => Ok(()),
        Err(error) if error.kind() == Kind::NotFound => {
            context.settle(&key, &Harm::Everything, Err(missing()))
        }
        Err(error) => context.settle(&key, &Harm::Everything, Err(error)),
    }
}

fn expect_itself(context: &Context<'_>, key: &Key, header: &ClusterHeader) -> Result<()> {
    let expected = context.cluster.system_id();
    if header.system_id == expected {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} says system identifier {}, expected {expected}",
        context.name(key),
        header.system_id
    )))
}

/// Neither WAL nor a backup: a cluster that has archived no segment yet has no cluster.json.
fn is_empty(cluster: &Cluster) -> Result<bool> {
    let store = cluster.store();
    let none = |prefix: Key| Ok::<bool, Error>(store.level(&prefix)?.prefixes.is_empty());
    Ok(none(cluster.layout().wal()?)? && none(cluster.layout().backups()?)?)
}

/// Reads all histories, and compares each with those of its ancestors. Those that can be read are returned.
pub fn histories(context: &Context<'_>) -> Result<BTreeMap<Timeline, TimelineHistory>> {
    let mut histories = BTreeMap::from([(Timeline(1), TimelineHistory::without_parents(Timeline(1)))]);
    let mut damaged = BTreeSet::new();
    let in_use = timelines(context)?;
    for timeline in in_use.iter().filter(|timeline| **timeline != Timeline(1)) {
        let key = context.cluster.layout().history(*timeline)?;
        context.findings.count(Counts { objects: 1, histories: 1, ..Counts::default() });
        match catalog::history(context.cluster, *timeline) {
            Ok(Some(history)) => drop(histories.insert(*timeline, history)),
            Ok(None) => {
                let missing =
                    format!("{} is missing, but there is WAL of timeline {timeline}", context.name(&key));
                context.settle(&key, &Harm::Everything, Err(Error::corrupt(missing)))?;
            }
            Err(error) => {
                damaged.insert(*timeline);
                context.settle(&key, &Harm::Everything, Err(error))?;
            }
        }
    }
    for history in histories.values() {
        let key = context.cluster.layout().history(history.timeline())?;
        // Restores go by it as it is; whose mistake it is, nobody can say.
        context.settle(&key, &Harm::Nothing, check_ancestors(&histories, &in_use, &damaged, history))?;
    }
    Ok(histories)
}

/// The timelines of which there is a history or a directory of WAL that is not empty.
fn timelines(context: &Context<'_>) -> Result<BTreeSet<Timeline>> {
    let cluster = context.cluster;
    let mut timelines = BTreeSet::new();
    let level = cluster.store().level(&cluster.layout().wal()?)?;
    for object in &level.objects {
        match layout::parse_history(&object.key) {
            Some(timeline) => drop(timelines.insert(timeline)),
            None => context.findings.foreign(&object.key),
        }
    }
    for prefix in &level.prefixes {
        match layout::parse_timeline_prefix(prefix) {
            // An expired timeline leaves empty directories.
            Some(timeline) if cluster.store().walk(prefix).next().is_some() => {
                timelines.insert(timeline);
            }
            Some(_) => {}
            None => foreign(context, prefix)?,
        }
    }
    Ok(timelines)
}

/// A new history is a copy of its parent's with a line more (writeTimeLineHistory in timeline.c).
fn check_ancestors(
    histories: &BTreeMap<Timeline, TimelineHistory>,
    in_use: &BTreeSet<Timeline>,
    damaged: &BTreeSet<Timeline>,
    history: &TimelineHistory,
) -> Result<()> {
    let (file, entries) = (WalFile::History(history.timeline()), history.entries());
    for entry in entries.iter().filter(|entry| entry.timeline != Timeline(1)) {
        if !histories.contains_key(&entry.timeline)
            && !damaged.contains(&entry.timeline)
            && !in_use.contains(&entry.timeline)
        {
            return Err(Error::corrupt(format!(
                "{file} names timeline {}, of which the repository has no history",
                entry.timeline
            )));
        }
    }
    let Some((last, before)) = entries.split_last() else { return Ok(()) };
    let Some(parent) = histories.get(&last.timeline) else { return Ok(()) };
    let switches = |entries: &[crate::pg::history::HistoryEntry]| -> Vec<_> {
        entries.iter().map(|entry| (entry.timeline, entry.switch_lsn)).collect()
    };
    if switches(before) == switches(parent.entries()) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{file} contradicts {}, which it was made from",
        WalFile::History(last.timeline)
    )))
}

/// Checks the small objects: leases, gaps, pins and other records. None of them is needed to restore.
pub fn check_records(context: &Context<'_>) -> Result<()> {
    let layout = context.cluster.layout();
    let level = context.cluster.store().level(&layout.root()?)?;
    let ours = layout.cluster()?;
    level
        .objects
        .iter()
        .filter(|object| object.key != ours)
        .for_each(|object| context.findings.foreign(&object.key));
    for prefix in level.prefixes {
        match prefix.last() {
            // Locks are no objects, and what is staged is none yet.
            "wal" | "backup" | "pack" | "lock" | "staging" => {}
            kind => check_directory(context, &prefix, kind)?,
        }
    }
    Ok(())
}

fn check_directory(context: &Context<'_>, prefix: &Key, kind: &str) -> Result<()> {
    let level = context.cluster.store().level(prefix)?;
    for object in level.objects {
        if layout::parse_id(&object.key).is_none() {
            context.findings.foreign(&object.key);
            continue;
        }
        context.findings.count(Counts { objects: 1, records: 1, ..Counts::default() });
        context.settle(&object.key, &Harm::Nothing, check_record(context, &object, kind))?;
    }
    level.prefixes.iter().try_for_each(|prefix| foreign(context, prefix))
}

fn check_record(context: &Context<'_>, object: &Meta, kind: &str) -> Result<()> {
    let name = context.name(&object.key);
    if object.size > MAX_RECORD {
        return Err(Error::corrupt(format!("{name} is no record: {} bytes", object.size)));
    }
    context.about_to_read(object.size)?;
    let bytes = context.cluster.store().get(&object.key)?;
    match kind {
        "lease" => parse_json::<lease::Record>(&bytes, &name).map(drop),
        "gap" => {
            let gap: Gap = parse_json(&bytes, &name)?;
            let its_own = layout::parse_id(&object.key) == Some(gap.id);
            if its_own { Ok(()) } else { Err(Error::corrupt(format!("{name} is gap {}", gap.id))) }
        }
        "pin" => expect_format(&bytes, &name, kind).and_then(|()| parse_json::<Pin>(&bytes, &name).map(drop)),
        "expired" => {
            expect_format(&bytes, &name, kind).and_then(|()| parse_json::<Expired>(&bytes, &name).map(drop))
        }
        _ => expect_format(&bytes, &name, kind),
    }
}

/// What all records begin with; also those of kinds that came later than this program.
fn expect_format(bytes: &[u8], name: &str, kind: &str) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Preamble {
        format: String,
    }
    let found = parse_json::<Preamble>(bytes, name)?.format;
    let expected = format!("pgark {kind}");
    if found == expected {
        Ok(())
    } else {
        Err(Error::corrupt(format!("{name} says \"{found}\", expected \"{expected}\"")))
    }
}

/// Objects below a directory that no repository has.
fn foreign(context: &Context<'_>, prefix: &Key) -> Result<()> {
    for object in context.cluster.store().walk(prefix) {
        context.findings.foreign(&object?.key);
    }
    Ok(())
}
