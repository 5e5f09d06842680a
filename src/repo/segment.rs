//! Stored WAL: segments and `.partial` files, compressed behind a header; history and backup history files
//! as PostgreSQL wrote them. `docs/repository-format.md`, "A stored segment", is the norm.
//!
//! A stored segment is, front to back: a zstd skippable frame of exactly [`HEADER_SIZE`] bytes with the
//! header in JSON, padded, and the CRC-32C of all that; the data, zstd frames; where the facts do not fit
//! into the header, a further skippable frame with them. The beginning of a segment that is still being
//! received is stored alike: `streamed.rs`.
//!
//! Refuses other content under an existing name. Invariant: what `put_*` reported as stored is durable, and
//! what [`read`] wrote into its sink before it returned success is to be thrown away.

mod examine;
mod sealed;

use std::fs::File;
use std::io::{Read, Write};

use bytes::Bytes;

use super::{Cluster, parse_json};
use crate::error::{Error, IoContext, Kind, Result};
use crate::ident::Id;
use crate::pg::lsn::{SegmentSize, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal::SegmentFacts;
use crate::pipe::compress::{Body, Compressed};
use crate::pipe::decompress::decompress;
use crate::pipe::digest::{RawDigest, Sha256Digest};
use crate::pipe::unpack::{Unpacked, unpack};
use crate::store::{Created, Key, ObjectReader};
pub use examine::Before;
pub(super) use examine::{examine_key, expect_timeline};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use sealed::fuzz;
pub use sealed::{Extent, HEADER_SIZE, StoredSegment};
use sealed::{MAX_MORE, seal, unseal};

/// How a `put_*` ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    New,
    /// The same bytes were there already, and are whole.
    Same,
}

/// What the caller knows of the file that it stores.
#[derive(Clone, Debug)]
pub struct Description {
    pub file: WalFile,
    pub postgres_major: u32,
    pub segment_size: SegmentSize,
    pub wal_block_size: u32,
    pub host: String,
    pub facts: SegmentFacts,
}

/// Stores a segment or a `.partial`, unless the same is there.
pub fn put(cluster: &Cluster, description: Description, compressed: Compressed) -> Result<Stored> {
    let key = match description.file {
        WalFile::Segment(name) => cluster.layout().segment(name)?,
        WalFile::Partial(name) => cluster.layout().partial(name, &partial_suffix(compressed.raw))?,
        other => return Err(Error::bug(format!("{other} is not stored as a segment"))),
    };
    let header = StoredSegment::of(cluster, description, &compressed);
    put_object(cluster, &key, header, compressed.body)
}

/// Creates the object of a header and its data, unless the same is there.
pub(super) fn put_object(cluster: &Cluster, key: &Key, header: StoredSegment, body: Body) -> Result<Stored> {
    let (header, more) = header.fit()?;
    match create(cluster, key, seal(&header)?, body, more)? {
        Created::New => Ok(Stored::New),
        Created::AlreadyThere => same_segment(cluster, key, &header.name, header.blake3),
    }
}

/// The part of a `.partial`'s key that tells two of one name apart.
pub fn partial_suffix(raw: RawDigest) -> String {
    raw.to_string().chars().take(16).collect()
}

/// One conditional creation out of memory; what is too large for that is uploaded under a name of its own
/// first and then given its final one, if that is still free.
fn create(cluster: &Cluster, key: &Key, sealed: Vec<u8>, body: Body, more: Vec<u8>) -> Result<Created> {
    let store = cluster.store();
    let (mut file, mut left) = match body {
        Body::Memory(bytes) => {
            let parts = [Bytes::from(sealed), Bytes::from(bytes), Bytes::from(more)];
            return store.create(key, parts.into_iter().collect::<object_store::PutPayload>());
        }
        Body::Spooled(file, length) => (file, length),
    };
    let staging = cluster.layout().staging(Id::random()?)?;
    let mut upload = store.upload(&staging)?;
    let mut part = sealed;
    while left > 0 {
        let length = left.min(PART);
        let read = (&mut file).take(length).read_to_end(&mut part).doing(|| "read the spool file")?;
        if read as u64 != length {
            return Err(Error::transient(
                "could not read the spool file: it is shorter than what was written",
            ));
        }
        left -= length;
        upload.write(Bytes::from(std::mem::take(&mut part)))?;
    }
    if !more.is_empty() {
        upload.write(Bytes::from(more))?;
    }
    upload.finish()?;
    store.promote(&staging, key)
}

/// Bytes of one part of an upload.
const PART: u64 = 8 << 20;

/// Somebody stored this name before. The same bytes are success, once they are known to be whole: after
/// our exit 0 the server throws its copy away.
fn same_segment(cluster: &Cluster, key: &Key, file: &str, raw: RawDigest) -> Result<Stored> {
    let name = cluster.store().name(key);
    let (header, reader) = open(cluster, key).map_err(move_away)?;
    if header.blake3 != raw {
        return Err(Error::conflict(format!(
            "{file} is already archived with other content: BLAKE3 {} is stored at {name}, {raw} was pushed",
            header.blake3
        ))
        .with_hint(
            "two servers write the same timeline into this repository: stop one, or give it another cluster name",
        ));
    }
    verify(&header, reader, &name).map_err(move_away)?;
    cluster.store().settle(key)?;
    Ok(Stored::Same)
}

fn move_away(error: Error) -> Error {
    match error.kind() {
        Kind::Corrupt => {
            error.with_hint("move the damaged object out of the repository; the next push stores it again")
        }
        _ => error,
    }
}

fn verify(header: &StoredSegment, mut reader: ObjectReader, name: &str) -> Result<()> {
    decompress(&mut reader, &mut std::io::sink(), header.expected(), name)
}

/// Opens a stored segment: its header, and a reader that stands at the data.
fn open(cluster: &Cluster, key: &Key) -> Result<(StoredSegment, ObjectReader)> {
    let name = cluster.store().name(key);
    let mut reader = cluster.store().reader(key)?;
    let mut bytes = Vec::with_capacity(HEADER_SIZE);
    (&mut reader).take(HEADER_SIZE as u64).read_to_end(&mut bytes).doing(|| format!("read {name}"))?;
    let header = unseal(&bytes, &name)?;
    if header.data.offset != HEADER_SIZE as u64 || header.system_id != cluster.system_id() {
        return Err(Error::corrupt(format!(
            "{name} is not what its place says: system identifier {}, data at {}",
            header.system_id, header.data.offset
        )));
    }
    Ok((header, reader))
}

/// Reads a stored segment into `sink`, with every check; [`Kind::NotFound`] only when the object is not
/// there. Until this returns success, what is in the sink may be wrong.
pub fn read(cluster: &Cluster, segment: SegmentName, sink: &mut impl Write) -> Result<StoredSegment> {
    read_key(cluster, &cluster.layout().segment(segment)?, &segment.to_string(), sink)
}

/// The same into a new file, by several threads.
pub fn read_into_file(
    cluster: &Cluster,
    segment: SegmentName,
    mut file: &File,
    workers: usize,
) -> Result<StoredSegment> {
    let key = cluster.layout().segment(segment)?;
    let (header, reader) = open(cluster, &key)?;
    expect_name(cluster, &key, &header, &segment.to_string())?;
    match unpack(reader, file, header.expected(), workers, &cluster.store().name(&key))? {
        Unpacked::Whole => Ok(header),
        // From the start again, where the file still stands: that was written by place.
        Unpacked::NotInFrames => read(cluster, segment, &mut file),
    }
}

/// Reads the object of a key, which must say of itself that it is `expected`.
pub(super) fn read_key(
    cluster: &Cluster,
    key: &Key,
    expected: &str,
    sink: &mut impl Write,
) -> Result<StoredSegment> {
    let (header, mut reader) = open(cluster, key)?;
    expect_name(cluster, key, &header, expected)?;
    decompress(&mut reader, sink, header.expected(), &cluster.store().name(key))?;
    Ok(header)
}

fn expect_name(cluster: &Cluster, key: &Key, header: &StoredSegment, expected: &str) -> Result<()> {
    if header.name == expected {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} should hold {expected}, but holds {}",
        cluster.store().name(key),
        header.name
    )))
}

/// Reads a stored `.partial`. Several of one name are a conflict that only a person can decide.
pub fn read_partial(cluster: &Cluster, segment: SegmentName, sink: &mut impl Write) -> Result<StoredSegment> {
    let level = cluster.store().level(&cluster.layout().log(segment.timeline, segment.log)?)?;
    let ours = |key: &Key| super::layout::parse_partial(key).is_some_and(|(name, _)| name == segment);
    let keys: Vec<Key> = level.objects.into_iter().map(|meta| meta.key).filter(ours).collect();
    let file = WalFile::Partial(segment).to_string();
    match keys.as_slice() {
        [key] => read_key(cluster, key, &file, sink),
        [] => Err(Error::not_found(format!("could not find {file} in the repository"))),
        several => {
            let names: Vec<String> = several.iter().map(|key| cluster.store().name(key)).collect();
            Err(Error::conflict(format!(
                "there are {} files called {file}: {}",
                several.len(),
                names.join(", ")
            ))
            .with_hint("take the one you want with `zstd -dc`"))
        }
    }
}

/// The header of a stored segment, with all its facts.
pub fn read_header(cluster: &Cluster, segment: SegmentName) -> Result<StoredSegment> {
    read_header_of(cluster, &cluster.layout().segment(segment)?, &segment.to_string())
}

pub(super) fn read_header_of(cluster: &Cluster, key: &Key, expected: &str) -> Result<StoredSegment> {
    let (mut header, _) = open(cluster, key)?;
    expect_name(cluster, key, &header, expected)?;
    if let Some(more) = header.more {
        header.facts = read_more(cluster, key, more)?;
    }
    Ok(header)
}

fn read_more(cluster: &Cluster, key: &Key, more: Extent) -> Result<SegmentFacts> {
    let name = cluster.store().name(key);
    let damaged = || Error::corrupt(format!("the facts behind the data of {name} are damaged"));
    if more.size > MAX_MORE {
        return Err(damaged());
    }
    let bytes = cluster.store().get_range(key, more.offset..more.offset.saturating_add(more.size))?;
    if Sha256Digest::of(&bytes) != more.sha256 {
        return Err(damaged());
    }
    parse_json(&bytes, &name)
}

/// Stores a history or backup history file as it is, unless the same is there.
pub fn put_plain(cluster: &Cluster, file: WalFile, content: &[u8]) -> Result<Stored> {
    let key = plain_key(cluster, file)?;
    let store = cluster.store();
    match store.create(&key, content.to_vec())? {
        Created::New => Ok(Stored::New),
        Created::AlreadyThere => {
            let found = store.get(&key)?;
            if found != content {
                return Err(Error::conflict(format!(
                    "{file} is already archived with other content: SHA-256 {} is stored at {}, {} was pushed",
                    Sha256Digest::of(&found),
                    store.name(&key),
                    Sha256Digest::of(content)
                ))
                .with_hint("two servers made the same timeline: give one another cluster name"));
            }
            store.settle(&key)?;
            Ok(Stored::Same)
        }
    }
}

/// Reads a history or backup history file.
pub fn read_plain(cluster: &Cluster, file: WalFile) -> Result<Bytes> {
    cluster.store().get(&plain_key(cluster, file)?)
}

/// Whether the repository has the history of a timeline.
pub fn has_history(cluster: &Cluster, timeline: Timeline) -> Result<bool> {
    cluster.store().exists(&cluster.layout().history(timeline)?)
}

fn plain_key(cluster: &Cluster, file: WalFile) -> Result<Key> {
    match file {
        WalFile::History(timeline) => cluster.layout().history(timeline),
        WalFile::BackupHistory(name, offset) => cluster.layout().backup_history(name, offset),
        other => Err(Error::bug(format!("{other} is not stored as it is"))),
    }
}

/// Whether the repository has a segment, without opening it.
pub fn exists(cluster: &Cluster, segment: SegmentName) -> Result<bool> {
    cluster.store().exists(&cluster.layout().segment(segment)?)
}

#[cfg(test)]
mod tests;
