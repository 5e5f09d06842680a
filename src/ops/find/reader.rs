//! Reads one segment for what happened in its records; the one that goes on in the following segments is read to its
//! end there.

use std::ops::ControlFlow;

use super::crew::Tell;
use super::lanes::Task;
use crate::error::Result;
use crate::ops::restore::archive::StoredArchive;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Lsn;
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::pg::wal::{
    Begun, Damage, Event, Extent, Interest, Listed, Seen, SegmentHeader, WalFormat, Walk, Watching,
};

/// What is told of a segment.
pub enum Told {
    Seen(WalFormat, Vec<Seen>),
    /// The server wrote it so, or it was changed before it was archived.
    Damaged(Listed<Damage>),
}

/// What is watched for in all segments.
#[derive(Clone, Debug)]
pub struct Watch {
    pub interest: Interest,
    /// Files of catalogs.
    pub files: Vec<Oid>,
}

impl Watch {
    fn on(&self, header: &SegmentHeader) -> Watching {
        Watching::new(self.interest, header.format, self.files.clone())
    }
}

/// Reads a segment on a path.
pub fn read(
    archive: &StoredArchive<'_>,
    path: &TimelineHistory,
    task: &Task,
    watch: &Watch,
    tell: &mut Tell<'_, Told>,
) -> Result<()> {
    let (name, extent) = (task.name, archive.extent(task.name));
    let start = |header: &SegmentHeader| Ok(Walk::new(header, name, extent).watching(watch.on(header)));
    let walk = archive.walk(name, &start, &mut |walk| hand_on(walk, tell))?;
    let (facts, mut begun) = walk.finish_watching();
    if !facts.damage.is_empty() && tell(Told::Damaged(facts.damage)).is_break() {
        return Ok(());
    }
    let mut number = task.number;
    while let Some(from) = begun.take() {
        number = number.saturating_add(1);
        let next = archive.catalog.name_on(path, number);
        if archive.ends.at(next).is_none() && !archive.catalog.exists(next)? {
            break;
        }
        begun = read_rest(archive, next, from, watch, tell)?;
    }
    Ok(())
}

/// The rest of a record; Some when it goes on behind this segment too.
fn read_rest(
    archive: &StoredArchive<'_>,
    name: SegmentName,
    from: Begun,
    watch: &Watch,
    tell: &mut Tell<'_, Told>,
) -> Result<Option<Begun>> {
    let extent: Extent = archive.extent(name);
    let start =
        |header: &SegmentHeader| Walk::watching_rest(from.clone(), header, name, extent, watch.on(header));
    let walk = archive.walk(name, &start, &mut |walk| hand_on(walk, tell))?;
    Ok(walk.finish_watching().1)
}

fn hand_on(walk: &mut Walk, tell: &mut Tell<'_, Told>) -> ControlFlow<()> {
    let seen = walk.seen();
    if seen.is_empty() { ControlFlow::Continue(()) } else { tell(Told::Seen(walk.format(), seen)) }
}

/// The redo LSN of the last checkpoint of which the record lies in a segment.
pub fn last_checkpoint(archive: &StoredArchive<'_>, name: SegmentName) -> Result<Option<Lsn>> {
    let watch = Watch { interest: Interest::Checkpoints, files: Vec::new() };
    let extent = archive.extent(name);
    let start = |header: &SegmentHeader| Ok(Walk::new(header, name, extent).watching(watch.on(header)));
    let mut redo = None;
    let mut look = |walk: &mut Walk| {
        for seen in walk.seen() {
            if let Event::Checkpoint { redo: found, .. } = seen.event {
                redo = Some(found);
            }
        }
        ControlFlow::Continue(())
    };
    archive.walk(name, &start, &mut look)?;
    Ok(redo)
}
