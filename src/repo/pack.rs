//! Packs: objects of at most 1 GiB that hold frames back to back and end with a list of them.
//!
//! A pack belongs to the backup run that writes it and is never changed; later backups may refer to its
//! frames. `zstd -dc` of a pack yields the raw bytes of all its frames. Invariants: a pack is visible only
//! when it is whole and durable; [`PackWriter::finish`] returns only when all packs are; a writer that is
//! dropped before that takes its packs with it. A killed one leaves garbage that no header refers to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::layout::{Id, PackId};
use super::parts::Parts;
use super::trailer::{self, Sealed};
use crate::error::{Error, Kind, Result};
use crate::pipe::digest::Sha256Digest;
use crate::pipe::frame::{self, Compressor, Decompressor, Frame, MAX_RAW};

/// Bytes of a pack, at most.
pub const PACK_SIZE: u64 = 1 << 30;

/// Frames in a pack, at most: bounds the list, which writers and readers hold in memory.
pub const PACK_FRAMES: usize = 16_384;

/// What the list and the trailer may take of [`PACK_SIZE`]: a line of the list has less than 160 bytes.
const LIST_RESERVE: u64 = 4 << 20;

/// Where a frame is, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameLocation {
    pub pack: PackId,
    /// Of the first stored byte in the pack.
    pub offset: u64,
    /// Bytes in the pack.
    pub stored: u32,
    /// Bytes before compression.
    pub raw: u32,
    /// Of the stored bytes.
    pub sha256: Sha256Digest,
}

/// A line of a pack's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    offset: u64,
    stored: u32,
    raw: u32,
    sha256: Sha256Digest,
}

/// A pack that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackSummary {
    pub id: PackId,
    /// Bytes of the object.
    pub size: u64,
    pub frames: u32,
}

/// Writes the frames of one backup run into packs. Holds a part and a frame in memory, some 12 MiB.
pub struct PackWriter {
    cluster: Cluster,
    backup: Id,
    /// Shared with the siblings.
    next_number: Arc<AtomicU32>,
    open: Option<OpenPack>,
    done: Vec<PackSummary>,
}

struct OpenPack {
    id: PackId,
    parts: Parts,
    frames: Vec<Listed>,
}

impl PackWriter {
    /// A writer of the packs of the run `backup`. A run has one, and siblings of it.
    pub fn new(cluster: &Cluster, backup: Id) -> Self {
        Self::numbered(cluster, backup, Arc::new(AtomicU32::new(0)))
    }

    /// Another writer for the same run, so that each worker has its own packs and none waits for another.
    pub fn sibling(&self) -> Self {
        Self::numbered(&self.cluster, self.backup, self.next_number.clone())
    }

    fn numbered(cluster: &Cluster, backup: Id, next_number: Arc<AtomicU32>) -> Self {
        Self { cluster: cluster.clone(), backup, next_number, open: None, done: Vec::new() }
    }

    /// Writes a frame; starts a new pack when it does not fit into this one. It can be read when the
    /// writer has finished, not before.
    pub fn append(&mut self, frame: &Frame) -> Result<FrameLocation> {
        let has_room =
            |open: &OpenPack| fits(open.parts.size(), open.frames.len(), frame.stored.len() as u64);
        if !self.open.as_ref().is_none_or(has_room) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(OpenPack::start(&self.cluster, self.backup, &self.next_number)?),
        };
        open.append(frame)
    }

    /// Ends the pack if the next frame might not fit, so that `append` need not. That makes it durable, which
    /// takes a while: for a moment at which nobody waits for this writer.
    pub fn rotate(&mut self) -> Result<()> {
        let largest = zstd::zstd_safe::compress_bound(frame::FRAME_SIZE) as u64;
        let has_room = |open: &OpenPack| fits(open.parts.size(), open.frames.len(), largest);
        if self.open.as_ref().is_none_or(has_room) { Ok(()) } else { self.close() }
    }

    /// Ends the last pack. When this returns, every pack is durable, and is the caller's.
    pub fn finish(mut self) -> Result<Vec<PackSummary>> {
        self.close()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            let done = open.finish()?;
            self.done.push(done);
            self.cluster.store().uncache(&self.cluster.layout().pack(done.id)?);
        }
        Ok(())
    }
}

/// Whether a pack of `size` bytes and so many frames can take another of `stored` bytes.
fn fits(size: u64, frames: usize, stored: u64) -> bool {
    frames < PACK_FRAMES && size + stored <= PACK_SIZE - LIST_RESERVE
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        for pack in &self.done {
            let removed =
                self.cluster.layout().pack(pack.id).and_then(|key| self.cluster.store().delete(&key));
            if let Err(error) = removed {
                tracing::warn!("could not remove the unused pack {}: {error}", pack.id);
            }
        }
    }
}

impl OpenPack {
    fn start(cluster: &Cluster, backup: Id, next_number: &AtomicU32) -> Result<Self> {
        let id = PackId { backup, number: next_number.fetch_add(1, Ordering::Relaxed) };
        let parts = Parts::start(cluster.store(), &cluster.layout().pack(id)?)?;
        Ok(Self { id, parts, frames: Vec::new() })
    }

    fn append(&mut self, frame: &Frame) -> Result<FrameLocation> {
        let stored = u32::try_from(frame.stored.len()).map_err(|_| Error::bug("a frame is too large"))?;
        let listed = Listed { offset: self.parts.size(), stored, raw: frame.raw_size, sha256: frame.sha256 };
        self.parts.write(&frame.stored)?;
        self.frames.push(listed);
        Ok(listed.in_pack(self.id))
    }

    fn finish(mut self) -> Result<PackSummary> {
        let list =
            Compressor::new(frame::DEFAULT_LEVEL)?.compress(&trailer::lines(&self.frames)?, Vec::new())?;
        self.parts.write(&trailer::seal(Sealed::Pack, &list, self.parts.size())?)?;
        let frames = self.frames.len() as u32;
        Ok(PackSummary { id: self.id, size: self.parts.finish()?, frames })
    }
}

impl Listed {
    fn in_pack(self, pack: PackId) -> FrameLocation {
        let Self { offset, stored, raw, sha256 } = self;
        FrameLocation { pack, offset, stored, raw, sha256 }
    }
}

/// Reads frames. One per worker: it keeps the buffers.
pub struct PackReader {
    cluster: Cluster,
    decompressor: Decompressor,
    raw: Vec<u8>,
}

impl PackReader {
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self { cluster: cluster.clone(), decompressor: Decompressor::new()?, raw: Vec::new() })
    }

    /// The raw bytes of a frame, verified. `Kind::Corrupt` names the pack, the offset and what is wrong.
    pub fn read_frame(&mut self, location: &FrameLocation) -> Result<&[u8]> {
        let place = |error: Error| match error.kind() {
            Kind::Corrupt => error.context(format!(
                "could not read the frame at byte {} of {}",
                location.offset,
                self.cluster.pack_name(location.pack)
            )),
            _ => error,
        };
        let stored = read_stored(&self.cluster, location).map_err(place)?;
        self.decompressor
            .decompress(&stored, location.raw, &location.sha256, &mut self.raw)
            .map_err(place)?;
        Ok(&self.raw)
    }
}

/// The stored bytes of a frame, not verified.
fn read_stored(cluster: &Cluster, location: &FrameLocation) -> Result<Bytes> {
    let end = location.offset.checked_add(u64::from(location.stored));
    let end = end.filter(|end| *end <= PACK_SIZE && location.stored as usize <= 2 * MAX_RAW);
    let end =
        end.ok_or_else(|| Error::corrupt(format!("{} stored bytes can't be there", location.stored)))?;
    let (store, key) = (cluster.store(), cluster.layout().pack(location.pack)?);
    store.get_range(&key, location.offset..end).or_else(|error| {
        // A range that begins behind the end is refused by stores in many words: look who is wrong.
        let size = store.head(&key)?.size;
        if size < end {
            return Err(Error::corrupt(format!("the pack ends at byte {size}, expected {end} at least")));
        }
        Err(error)
    })
}

/// The frames of a pack, in the order in which they lie there, by the pack's own list.
pub fn list_frames(cluster: &Cluster, pack: PackId) -> Result<Vec<FrameLocation>> {
    let key = cluster.layout().pack(pack)?;
    let size = cluster.store().head(&key)?.size;
    let list = trailer::read_list(cluster.store(), &key, size, Sealed::Pack)?;
    let damaged = |cause: String| {
        Error::corrupt(format!("could not read the list of {}: {cause}", cluster.store().name(&key)))
    };
    let mut frames = Vec::new();
    let mut expected = 0;
    for line in list.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let listed: Listed = serde_json::from_slice(line).map_err(|cause| damaged(cause.to_string()))?;
        if listed.offset != expected {
            return Err(damaged(format!("a frame at byte {}, expected at {expected}", listed.offset)));
        }
        expected += u64::from(listed.stored);
        frames.push(listed.in_pack(pack));
    }
    if expected != list.content {
        return Err(damaged(format!("its frames end at byte {expected}, expected {}", list.content)));
    }
    Ok(frames)
}

impl Cluster {
    /// The pack as messages show it: where to look.
    pub fn pack_name(&self, pack: PackId) -> String {
        self.layout().pack(pack).map_or_else(|_| pack.to_string(), |key| self.store().name(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::frame::FRAME_SIZE;
    use crate::repo::fixture::Fixture;
    use proptest::prelude::*;

    fn compress(raw: &[u8]) -> Frame {
        Compressor::new(1)
            .and_then(|mut compressor| compressor.compress(raw, Vec::new()))
            .expect("compressed")
    }

    fn raws() -> Vec<Vec<u8>> {
        (0..20u8).map(|n| vec![n; usize::from(n) * 1000]).collect()
    }

    /// A pack with the frames of `raws`.
    fn write(cluster: &Cluster, backup: Id) -> (Vec<FrameLocation>, Vec<PackSummary>) {
        let mut writer = PackWriter::new(cluster, backup);
        let frames = raws().iter().map(|raw| writer.append(&compress(raw)).expect("appended")).collect();
        (frames, writer.finish().expect("finished"))
    }

    #[test]
    fn frames_come_back_from_their_places_and_the_list_names_them_all() {
        let fixture = Fixture::create();
        let (frames, packs) = write(&fixture.cluster, Id::random().expect("id"));
        assert_eq!((packs.len(), packs[0].frames), (1, 20));
        let key = fixture.cluster.layout().pack(packs[0].id).expect("key");
        assert_eq!(fixture.cluster.store().head(&key).expect("head").size, packs[0].size);
        let mut reader = PackReader::new(&fixture.cluster).expect("reader");
        for (location, raw) in frames.iter().zip(raws()).rev() {
            assert_eq!(reader.read_frame(location), Ok(raw.as_slice()));
        }
        assert_eq!(list_frames(&fixture.cluster, packs[0].id), Ok(frames));
        let file = std::fs::read(fixture.file(&key)).expect("read");
        assert_eq!(zstd::decode_all(file.as_slice()).expect("zstd"), raws().concat());
    }

    #[test]
    fn a_run_without_frames_has_no_packs() {
        let fixture = Fixture::create();
        let writer = PackWriter::new(&fixture.cluster, Id::random().expect("id"));
        assert_eq!(writer.finish(), Ok(Vec::new()));
        assert!(fixture.objects().is_empty());
    }

    #[test]
    fn siblings_write_packs_of_the_same_run_with_other_numbers() {
        let fixture = Fixture::create();
        let run = Id::random().expect("id");
        let mut writers = vec![PackWriter::new(&fixture.cluster, run)];
        writers.push(writers[0].sibling());
        writers.push(writers[1].sibling());
        for writer in &mut writers {
            writer.append(&compress(b"x")).expect("appended");
        }
        let packs = writers.into_iter().map(|writer| writer.finish().expect("finished")[0].id);
        let expected: Vec<PackId> = (0..3).map(|number| PackId { backup: run, number }).collect();
        assert_eq!(packs.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pack_is_full_after_so_many_frames() {
        let fixture = Fixture::create();
        let mut writer = PackWriter::new(&fixture.cluster, Id::random().expect("id"));
        let frame = compress(b"x");
        for _ in 0..=PACK_FRAMES {
            writer.append(&frame).expect("appended");
        }
        let packs = writer.finish().expect("finished");
        let counts: Vec<usize> = packs.iter().map(|pack| pack.frames as usize).collect();
        assert_eq!(counts, [PACK_FRAMES, 1]);
        assert_eq!(list_frames(&fixture.cluster, packs[0].id).expect("listed").len(), PACK_FRAMES);
        let list = packs[0].size - PACK_FRAMES as u64 * frame.stored.len() as u64;
        assert!(list < LIST_RESERVE, "{list}");
    }

    #[test]
    fn a_pack_never_grows_beyond_its_size() {
        let (packed, stored) = (PACK_SIZE - LIST_RESERVE, FRAME_SIZE as u64);
        assert!(fits(packed - stored, 5, stored));
        assert!(!fits(packed - stored + 1, 5, stored));
        assert!(!fits(0, PACK_FRAMES, 1));
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let fixture = Fixture::create();
        let mut writer = PackWriter::new(&fixture.cluster, Id::random().expect("id"));
        let frame = compress(b"x");
        for _ in 0..=PACK_FRAMES {
            writer.append(&frame).expect("appended");
        }
        assert_eq!(fixture.objects().len(), 2, "a whole pack and one that is being written");
        drop(writer);
        assert_eq!(fixture.objects(), Vec::<String>::new());
    }

    #[test]
    fn a_damaged_frame_is_named_with_its_pack_offset_and_digests() {
        let fixture = Fixture::create();
        let (frames, packs) = write(&fixture.cluster, Id::random().expect("id"));
        let key = fixture.cluster.layout().pack(packs[0].id).expect("key");
        let mut reader = PackReader::new(&fixture.cluster).expect("reader");
        for at in 0..frames[3].offset as usize {
            fixture.damage(&key, |bytes| bytes[at] ^= 0x10);
            let location = frames.iter().rfind(|frame| frame.offset as usize <= at).expect("frame");
            let error = reader.read_frame(location).expect_err("damaged");
            assert_eq!(error.kind(), Kind::Corrupt);
            let place = format!("at byte {} of {}", location.offset, fixture.cluster.store().name(&key));
            assert!(error.message().contains(&place), "{error}");
            assert!(error.message().contains(&format!("expected {}", location.sha256)), "{error}");
            fixture.damage(&key, |bytes| bytes[at] ^= 0x10);
        }
    }

    #[test]
    fn a_pack_that_is_too_short_or_not_there_is_told_apart_from_trouble() {
        let fixture = Fixture::create();
        let (frames, packs) = write(&fixture.cluster, Id::random().expect("id"));
        let key = fixture.cluster.layout().pack(packs[0].id).expect("key");
        let mut reader = PackReader::new(&fixture.cluster).expect("reader");
        let last = *frames.last().expect("frames");
        for length in [0, last.offset as usize, last.offset as usize + 1] {
            fixture.damage(&key, |bytes| bytes.truncate(length));
            assert!(reader.read_frame(&last).is_err_and(|error| error.kind() == Kind::Corrupt), "{length}");
            assert!(
                list_frames(&fixture.cluster, packs[0].id).is_err_and(|error| error.kind() == Kind::Corrupt)
            );
        }
        fixture.cluster.store().delete(&key).expect("deleted");
        assert!(reader.read_frame(&last).is_err_and(|error| error.kind() == Kind::NotFound));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_location_makes_the_reader_panic_or_allocate(offset: u64, stored: u32, raw: u32) {
            let fixture = Fixture::create();
            let (frames, _) = write(&fixture.cluster, Id::random().expect("id"));
            let mut reader = PackReader::new(&fixture.cluster).expect("reader");
            for location in [
                FrameLocation { offset, ..frames[0] },
                FrameLocation { stored, ..frames[0] },
                FrameLocation { raw, ..frames[0] },
                FrameLocation { offset, stored, raw, ..frames[0] },
            ] {
                if location != frames[0] {
                    prop_assert!(reader.read_frame(&location).is_err_and(|error| error.kind() == Kind::Corrupt));
                }
            }
        }
    }
}
