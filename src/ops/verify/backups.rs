//! One backup: its header and that its packs are there; then its map, chunk by chunk. Every frame that the map names
//! is one that the pack lists, with the same place, sizes and digest. Deep: each slice is what the map says.
//!
//! A pack whose list can't be read does not stop a restore, which goes by the map: its frames are read and checked
//! as the map names them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::context::Context;
use super::findings::{Counts, Harm};
use crate::error::{Error, Kind, Result};
use crate::ident::Name;
use crate::pipe::digest::{Sha256Digest, SliceDigest};
use crate::repo::backup::{self, BackupHeader};
use crate::repo::layout::PackId;
use crate::repo::map::{Chunk, Entry, MapReader, Slice, Totals};
use crate::repo::pack::{FrameLocation, PackReader};
use crate::store::Key;

/// A backup whose map is being checked.
pub struct OpenMap {
    pub header: BackupHeader,
    key: Key,
    reader: MapReader,
    packs: BTreeSet<PackId>,
    totals: Mutex<Totals>,
    /// Chunks that are still to be checked, of all of them.
    left: AtomicUsize,
}

impl OpenMap {
    pub fn chunks(&self) -> usize {
        self.reader.chunks()
    }

    fn label(&self) -> &Name {
        &self.header.label
    }
}

/// Checks what is not in the map, and opens that. None when there is nothing more to check.
pub fn open(context: &Context<'_>, label: &Name) -> Result<Option<OpenMap>> {
    let cluster = context.cluster;
    let key = cluster.layout().backup_header(label)?;
    let harm = Harm::Backup(label.clone());
    let read = cluster.store().head(&key).and_then(|meta| {
        context.about_to_read(meta.size)?;
        read_header(context, label)
    });
    let header = match read {
        Ok(header) => header,
        // Without a header it is no backup: not yet, or not any more.
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => {
            context.settle(&key, &harm, Err(error))?;
            return Ok(None);
        }
    };
    context.findings.count(Counts { objects: 2, backups: 1, ..Counts::default() });
    check_packs(context, &header)?;
    let key = cluster.layout().backup_map(label)?;
    let reader = match MapReader::open(cluster, label, &header.map) {
        Ok(reader) => reader,
        Err(error) => return context.missing(&key, label, &harm, error).map(|()| None),
    };
    let packs = header.packs.iter().map(|pack| pack.id).collect();
    let left = AtomicUsize::new(reader.chunks());
    let map = OpenMap { packs, left, totals: Mutex::default(), header, key, reader };
    if map.chunks() == 0 {
        context.settle(&map.key, &harm, map.check_totals())?;
    }
    Ok(Some(map))
}

fn read_header(context: &Context<'_>, label: &Name) -> Result<BackupHeader> {
    let header = backup::read(context.cluster, label)?;
    match context.size {
        Some(size) if size != header.segment_size => Err(Error::corrupt(format!(
            "the header of backup {label} says segment size {}, expected {}",
            header.segment_size.bytes(),
            size.bytes()
        ))),
        _ => Ok(header),
    }
}

/// Every pack that the header lists is there, with that size. One that is not is told once, not for each backup.
pub fn check_packs(context: &Context<'_>, header: &BackupHeader) -> Result<()> {
    for pack in &header.packs {
        if context.findings.knows_frame(pack.id, None) {
            continue;
        }
        let key = context.cluster.layout().pack(pack.id)?;
        match context.cluster.store().head(&key) {
            Ok(meta) if meta.size == pack.size => {}
            Ok(meta) => {
                let name = context.name(&key);
                let wrong = format!("{name} has {} bytes, expected {}", meta.size, pack.size);
                context.settle(&key, &Harm::PackList(pack.id), Err(Error::corrupt(wrong)))?;
            }
            Err(error) => context.missing(&key, &header.label, &Harm::Pack(pack.id), error)?,
        }
    }
    Ok(())
}

/// Checks one chunk of the map.
pub fn check_chunk(context: &Context<'_>, map: &OpenMap, index: usize, hands: &mut PackReader) -> Result<()> {
    context.about_to_read(map.reader.stored_bytes(index))?;
    let harm = Harm::Backup(map.label().clone());
    match map.reader.read_chunk(index) {
        Ok(chunk) => {
            check_frames(context, map, &chunk)?;
            if context.deep {
                check_slices(context, map, &chunk, hands)?;
            }
            map.add(&chunk);
            let fits = chunk.refuse_strangers(map.header.server.major).map_err(|error| map.wrong(error));
            context.settle(&map.key, &harm, fits)?;
        }
        Err(error) if error.kind() == Kind::Corrupt => {
            let first =
                map.reader.first_path(index).map_or(String::new(), |path| format!("; it begins with {path}"));
            let error = Error::corrupt(format!("{}{first}", error.message()));
            context.settle(&map.key, &harm, Err(error))?;
            return Ok(());
        }
        Err(error) => return context.missing(&map.key, map.label(), &harm, error),
    }
    if map.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        context.settle(&map.key, &harm, map.check_totals())?;
    }
    Ok(())
}

impl OpenMap {
    fn add(&self, chunk: &Chunk) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).add(chunk);
    }

    fn check_totals(&self) -> Result<()> {
        let totals = *self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.expect(&self.header.map).map_err(|error| self.wrong(error))
    }

    fn wrong(&self, error: Error) -> Error {
        error.context(format!("the map of backup {} can't be right", self.label()))
    }
}

/// Every frame that the chunk names is in a pack of the backup, as that pack lists it.
fn check_frames(context: &Context<'_>, map: &OpenMap, chunk: &Chunk) -> Result<()> {
    let mut by_pack: BTreeMap<PackId, Vec<&FrameLocation>> = BTreeMap::new();
    for frame in &chunk.frames {
        by_pack.entry(frame.pack).or_default().push(frame);
    }
    for (pack, frames) in by_pack {
        if let Some(frame) = frames.first().filter(|_| !map.packs.contains(&pack)) {
            refuse(context, map, frame, format!("pack {pack}, which the backup does not list"))?;
            continue;
        }
        match context.lists.get(context.cluster, pack).as_ref() {
            Ok(_) if context.findings.distrusts_list(pack) => check_unlisted(context, &frames)?,
            Ok(list) => check_listed(context, map, &frames, list)?,
            Err(error) if error.kind() == Kind::Corrupt => check_unlisted(context, &frames)?,
            // That the pack is missing was seen when the header was read.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                context.settle(&context.cluster.layout().pack(pack)?, &Harm::Nothing, Err(error.clone()))?
            }
        }
    }
    Ok(())
}

fn check_listed(
    context: &Context<'_>,
    map: &OpenMap,
    frames: &[&FrameLocation],
    list: &[FrameLocation],
) -> Result<()> {
    for frame in frames {
        let at = list.binary_search_by_key(&frame.offset, |listed| listed.offset);
        let listed = at.ok().and_then(|at| list.get(at));
        if listed != Some(*frame) {
            let listed = listed.map_or("lists none there".to_string(), |listed| {
                format!("lists one of {} bytes, raw {}, SHA-256 {}", listed.stored, listed.raw, listed.sha256)
            });
            let FrameLocation { pack, offset, stored, raw, sha256 } = frame;
            let what = format!(
                "a frame at byte {offset} of pack {pack} of {stored} bytes, raw {raw}, SHA-256 {sha256}, but that pack \
                 {listed}"
            );
            refuse(context, map, frame, what)?;
        }
    }
    Ok(())
}

fn refuse(context: &Context<'_>, map: &OpenMap, frame: &FrameLocation, what: String) -> Result<()> {
    let harm = Harm::Reference(map.label().clone(), *frame);
    let error = Error::corrupt(format!("the map of backup {} names {what}", map.label()));
    context.settle(&map.key, &harm, Err(error))
}

/// Frames of a pack that can't say itself what it holds.
fn check_unlisted(context: &Context<'_>, frames: &[&FrameLocation]) -> Result<()> {
    for frame in frames {
        if context.findings.knows_frame(frame.pack, Some(frame.offset)) {
            continue;
        }
        context.about_to_read(u64::from(frame.stored))?;
        let key = context.cluster.layout().pack(frame.pack)?;
        context.settle(&key, &Harm::Frame(**frame), check_stored(context, &key, frame))?;
    }
    Ok(())
}

fn check_stored(context: &Context<'_>, key: &Key, frame: &FrameLocation) -> Result<()> {
    let end = frame.offset.saturating_add(u64::from(frame.stored));
    let at = |error: Error| {
        error.context(format!("could not read the frame at byte {} of {}", frame.offset, context.name(key)))
    };
    let store = context.cluster.store();
    // What a store says about a range that begins behind the end differs.
    let size = store.head(key)?.size;
    if size < end {
        return Err(at(Error::corrupt(format!("the pack ends at byte {size}, expected {end} at least"))));
    }
    let stored = store.get_range(key, frame.offset..end)?;
    expect_digest(&stored, frame).map_err(at)
}

/// Compares the stored bytes of a frame with its digest.
pub fn expect_digest(stored: &[u8], frame: &FrameLocation) -> Result<()> {
    let found = Sha256Digest::of(stored);
    if found == frame.sha256 {
        return Ok(());
    }
    Err(Error::corrupt(format!("its SHA-256 is {found}, expected {}", frame.sha256)))
}

/// Decompresses the frames of a chunk and compares each slice with its digest.
fn check_slices(context: &Context<'_>, map: &OpenMap, chunk: &Chunk, hands: &mut PackReader) -> Result<()> {
    let mut slices: BTreeMap<u32, Vec<(u32, u32, SliceDigest)>> = BTreeMap::new();
    for entry in &chunk.entries {
        let Entry::File(part) = entry else { continue };
        for slice in &part.slices {
            if let Slice::Data { length, frame, offset, digest } = *slice {
                slices.entry(frame).or_default().push((offset, length, digest));
            }
        }
    }
    for (number, slices) in slices {
        let Some(frame) = chunk.frames.get(number as usize) else { continue };
        if context.findings.knows_frame(frame.pack, Some(frame.offset)) {
            continue;
        }
        context.about_to_read(u64::from(frame.stored))?;
        let key = context.cluster.layout().pack(frame.pack)?;
        let outcome = match hands.read_frame(frame) {
            Ok(raw) => {
                let wrong = slices.iter().find(|slice| !is_slice(raw, slice));
                if let Some((offset, length, digest)) = wrong {
                    let what = format!(
                        "{length} bytes from byte {offset} of the frame at byte {} of pack {}, which have another \
                         digest than {digest}",
                        frame.offset, frame.pack
                    );
                    refuse(context, map, frame, what)?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        context.settle(&key, &Harm::Frame(*frame), outcome)?;
    }
    Ok(())
}

fn is_slice(raw: &[u8], (offset, length, digest): &(u32, u32, SliceDigest)) -> bool {
    let (start, length) = (*offset as usize, *length as usize);
    let bytes = start.checked_add(length).and_then(|end| raw.get(start..end));
    bytes.is_some_and(|bytes| SliceDigest::of(bytes) == *digest)
}
