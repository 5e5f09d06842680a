//! The lists of packs, kept for a while: neighbouring chunks of a map refer to the same packs.
//!
//! Invariant: at most [`FRAMES`] frames are kept, besides those of the list that was asked for last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::repo::Cluster;
use crate::repo::layout::PackId;
use crate::repo::pack::{self, FrameLocation};

/// Frames whose place is kept, of all packs together: some 9 MiB.
const FRAMES: usize = 128 << 10;

/// What a pack says that it holds, by offset; or why it can't be read.
pub type PackList = Result<Vec<FrameLocation>>;

#[derive(Default)]
pub struct PackLists {
    /// The one asked for last is in front.
    kept: Mutex<VecDeque<(PackId, Arc<PackList>)>>,
}

impl PackLists {
    pub fn get(&self, cluster: &Cluster, pack: PackId) -> Arc<PackList> {
        if let Some(list) = self.kept(pack) {
            return list;
        }
        // Not under the lock: two that ask at once read it twice.
        let list = Arc::new(pack::list_frames(cluster, pack));
        self.keep(pack, list.clone());
        list
    }

    fn kept(&self, pack: PackId) -> Option<Arc<PackList>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(id, _)| *id == pack)?;
        let entry = kept.remove(at)?;
        let list = entry.1.clone();
        kept.push_front(entry);
        Some(list)
    }

    fn keep(&self, pack: PackId, list: Arc<PackList>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(id, _)| *id != pack);
        kept.push_front((pack, list));
        while kept.len() > 1 && kept.iter().map(|(_, list)| weight(list)).sum::<usize>() > FRAMES {
            kept.pop_back();
        }
    }
}

/// A list that can't be read takes memory too.
fn weight(list: &PackList) -> usize {
    list.as_ref().map_or(16, |frames| frames.len().max(16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Id;
    use crate::pipe::digest::Sha256Digest;

    fn list(pack: PackId, frames: usize) -> Arc<PackList> {
        let frame = |n: usize| FrameLocation {
            pack,
            offset: n as u64,
            stored: 1,
            raw: 1,
            sha256: Sha256Digest([0; 32]),
        };
        Arc::new(Ok((0..frames).map(frame).collect()))
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let lists = PackLists::default();
        let run = Id::random().expect("an id");
        let packs: Vec<PackId> = (0..4).map(|number| PackId { backup: run, number }).collect();
        for pack in &packs[..3] {
            lists.keep(*pack, list(*pack, FRAMES / 3));
        }
        assert!(lists.kept(packs[0]).is_some());
        lists.keep(packs[3], list(packs[3], FRAMES / 3));
        let kept: Vec<bool> = packs.iter().map(|pack| lists.kept(*pack).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        lists.keep(packs[1], list(packs[1], 2 * FRAMES));
        let kept: Vec<bool> = packs.iter().map(|pack| lists.kept(*pack).is_some()).collect();
        assert_eq!(kept, [false, true, false, false], "the one that is in use stays, however long it is");
    }
}
