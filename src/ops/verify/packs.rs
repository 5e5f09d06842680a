//! One pack: its list, then each of its frames as it is stored. Nothing is decompressed: the digest is of the stored
//! bytes.

use std::ops::Range;
use std::sync::Arc;

use super::backups::expect_digest;
use super::context::Context;
use super::findings::{Counts, Harm};
use super::lists::PackList;
use crate::error::{Error, Kind, Result};
use crate::repo::layout::PackId;
use crate::repo::pack::FrameLocation;
use crate::store::Key;

/// Stored bytes that a worker checks in one go, about: the smallest portion of a verification.
const RUN: u64 = 32 << 20;

/// Stored bytes that are read at once, unless one frame has more.
const READ: u64 = 4 << 20;

/// What a pack lists, cut into runs.
pub struct OpenPack {
    pub key: Key,
    pub id: PackId,
    list: Arc<PackList>,
}

/// Reads the list of a pack. None when there is nothing more to check.
pub fn open(context: &Context<'_>, id: PackId) -> Result<Option<OpenPack>> {
    let key = context.cluster.layout().pack(id)?;
    let list = context.lists.get(context.cluster, id);
    match list.as_ref() {
        Ok(_) => {
            context.findings.count(Counts { objects: 1, packs: 1, ..Counts::default() });
            Ok(Some(OpenPack { key, id, list }))
        }
        Err(error) => {
            context.settle(&key, &Harm::PackList(id), Err(error.clone()))?;
            Ok(None)
        }
    }
}

impl OpenPack {
    fn frames(&self) -> &[FrameLocation] {
        self.list.as_ref().as_deref().unwrap_or_default()
    }

    /// The frames of the run that begins with the frame number `from`; None behind the last one.
    pub fn run(&self, from: usize) -> Option<Range<usize>> {
        let mut bytes = 0;
        let full = |frame: &FrameLocation| {
            bytes += u64::from(frame.stored);
            bytes >= RUN
        };
        let rest = self.frames().get(from..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(full).map_or(rest.len(), |last| last.saturating_add(1));
        Some(from..from.saturating_add(length))
    }
}

/// Checks the frames of a run.
pub fn check(context: &Context<'_>, pack: &OpenPack, run: Range<usize>) -> Result<()> {
    let mut frames = pack.frames().get(run).unwrap_or_default();
    context.findings.count(Counts { frames: frames.len() as u64, ..Counts::default() });
    while let Some((first, _)) = frames.split_first() {
        let fits = |frame: &&FrameLocation| end(frame).saturating_sub(first.offset) <= READ;
        let count = frames.iter().take_while(fits).count().max(1);
        let (now, later) = frames.split_at_checked(count).unwrap_or((frames, &[]));
        check_some(context, pack, now)?;
        frames = later;
    }
    Ok(())
}

fn end(frame: &FrameLocation) -> u64 {
    frame.offset.saturating_add(u64::from(frame.stored))
}

/// Reads neighbouring frames in one go.
fn check_some(context: &Context<'_>, pack: &OpenPack, frames: &[FrameLocation]) -> Result<()> {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Ok(()) };
    let range = first.offset..end(last);
    context.about_to_read(range.end.saturating_sub(range.start))?;
    let bytes = match context.cluster.store().get_range(&pack.key, range) {
        Ok(bytes) => bytes,
        // What was listed a moment ago is shorter now.
        Err(error) if error.kind() == Kind::Corrupt => {
            return context.settle(&pack.key, &Harm::Pack(pack.id), Err(error));
        }
        Err(error) => return context.settle(&pack.key, &Harm::Nothing, Err(error)),
    };
    let mut rest: &[u8] = &bytes;
    for frame in frames {
        let (stored, behind) = rest.split_at_checked(frame.stored as usize).unwrap_or((rest, &[]));
        rest = behind;
        let outcome = expect_digest(stored, frame).map_err(|error: Error| {
            error.context(format!(
                "could not read the frame at byte {} of {}",
                frame.offset,
                context.name(&pack.key)
            ))
        });
        context.settle(&pack.key, &Harm::Frame(*frame), outcome)?;
    }
    Ok(())
}
