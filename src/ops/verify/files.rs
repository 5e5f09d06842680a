//! Which files of a backup lie in damaged frames: its map is gone through, a chunk at a time.

use crate::error::{Kind, Result};
use crate::repo::Cluster;
use crate::repo::backup::BackupHeader;
use crate::repo::map::{Chunk, Entry, MapPath, MapReader, Slice};
use crate::repo::pack::FrameLocation;

use super::findings::Bounded;

/// Files that are named.
pub const NAMED: usize = 100;

/// The files of which bytes lie in frames that `hits` knows. Chunks that can't be read are passed over: that they are
/// damaged is known.
pub fn damaged(
    cluster: &Cluster,
    header: &BackupHeader,
    hits: impl Fn(&FrameLocation) -> bool,
) -> Result<Bounded<String>> {
    let mut files = Files::default();
    let reader = match MapReader::open(cluster, &header.label, &header.map) {
        Err(error) if is_known(error.kind()) => return Ok(files.found),
        reader => reader?,
    };
    for index in 0..reader.chunks() {
        match reader.read_chunk(index) {
            Ok(chunk) => files.look_at(&chunk, &hits),
            Err(error) if is_known(error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files.found)
}

fn is_known(kind: Kind) -> bool {
    matches!(kind, Kind::Corrupt | Kind::NotFound)
}

#[derive(Default)]
struct Files {
    found: Bounded<String>,
    /// The parts of one file follow each other.
    last: Option<MapPath>,
}

impl Files {
    fn look_at(&mut self, chunk: &Chunk, hits: &impl Fn(&FrameLocation) -> bool) {
        let damaged: Vec<bool> = chunk.frames.iter().map(hits).collect();
        let in_damage = |slice: &Slice| match slice {
            Slice::Data { frame, .. } => damaged.get(*frame as usize).is_some_and(|damaged| *damaged),
            Slice::Zeros { .. } => false,
        };
        for entry in &chunk.entries {
            let Entry::File(part) = entry else { continue };
            let path = &part.attributes.path;
            if self.last.as_ref() != Some(path) && part.slices.iter().any(in_damage) {
                self.found.push_within(NAMED, path.to_string());
                self.last = Some(path.clone());
            }
        }
    }
}
