//! The WAL of each timeline in figures, and the gaps that servers have recorded.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::summary::{Fork, RecordedGap, StreamedSummary, TimelineSummary};
use crate::ops::restore::streamed::Ends;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::repo::gap::Gap;
use crate::repo::inventory::{Inventory, Rate, Run, TimelineWal};

/// Every timeline of which there is WAL or a history.
pub fn summaries(
    inventory: &Inventory,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    ends: &Ends,
    size: SegmentSize,
    now: Timestamp,
) -> Vec<TimelineSummary> {
    let nothing = TimelineWal::default();
    let of = |timeline: Timeline| {
        let wal = inventory.timelines.get(&timeline).unwrap_or(&nothing);
        let history = histories.get(&timeline);
        TimelineSummary {
            history_known: history.is_some(),
            fork: history.and_then(|history| fork(history, inventory)),
            streamed: streamed(timeline, wal, ends, size),
            ..summary(timeline, wal, size, now)
        }
    };
    inventory.known_timelines().into_iter().map(of).collect()
}

fn summary(timeline: Timeline, wal: &TimelineWal, size: SegmentSize, now: Timestamp) -> TimelineSummary {
    let name = |number| SegmentName::from_number(timeline, number, size);
    let raw = |segments: u64| segments.saturating_mul(size.bytes());
    let rate = wal.pace.rate().unwrap_or(Rate { last_day: 0, last_week: 0, hours: 1 });
    let newest_time = wal.newest();
    TimelineSummary {
        timeline,
        history_known: false,
        fork: None,
        first_segment: wal.runs.first().map(name),
        last_segment: wal.runs.last().map(name),
        segments: wal.runs.segments(),
        stored_bytes: wal.segments().bytes,
        raw_bytes: raw(wal.runs.segments()),
        last_day_raw_bytes: raw(rate.last_day),
        raw_bytes_per_day: raw(rate.last_week).saturating_mul(24) / rate.hours.max(1),
        oldest_time: wal.runs.as_slice().iter().map(|run: &Run| run.oldest).min(),
        newest_time,
        newest_age_seconds: newest_time.map(|newest| now.duration_since(newest).as_secs()),
        partials: wal.partials.objects,
        streamed: None,
    }
}

fn fork(history: &TimelineHistory, inventory: &Inventory) -> Option<Fork> {
    let entry = history.entries().last()?;
    let time = inventory.histories.get(&history.timeline()).copied();
    Some(Fork { parent: entry.timeline, lsn: entry.switch_lsn, time })
}

/// What was streamed behind the whole segments, used or not.
fn streamed(
    timeline: Timeline,
    wal: &TimelineWal,
    ends: &Ends,
    size: SegmentSize,
) -> Option<StreamedSummary> {
    let part = wal.newest_streamed?;
    let whole = wal.runs.last().map(|number| SegmentName::from_number(timeline, number, size));
    whole.is_none_or(|whole| whole < part.segment).then(|| StreamedSummary {
        segment: part.segment,
        end_lsn: part.end,
        refused: ends.why_not(timeline),
    })
}

/// What servers said that they dropped.
pub fn recorded_gaps(inventory: &Inventory, gaps: &[Gap]) -> Vec<RecordedGap> {
    gaps.iter().filter_map(|gap| recorded(inventory, gap)).collect()
}

/// None: it names impossible segments.
fn recorded(inventory: &Inventory, gap: &Gap) -> Option<RecordedGap> {
    let numbers = gap.numbers().ok()?;
    let segments = numbers.end().saturating_sub(*numbers.start()).saturating_add(1);
    let wal = inventory.timelines.get(&gap.first.timeline);
    let present: u64 = wal.map_or(0, |wal| {
        wal.runs.within(&numbers).map(|run| run.end().saturating_sub(*run.start()).saturating_add(1)).sum()
    });
    Some(RecordedGap {
        first_segment: gap.first,
        last_segment: gap.last,
        segments,
        since: gap.since,
        until: gap.until,
        host: gap.host.clone(),
        missing: present < segments,
    })
}
