//! Reading a map, chunk by chunk and in any order.
//!
//! The header's digest vouches for the list of chunks, and the list for each chunk, so nothing is parsed
//! that is not what the backup wrote. What holds between entries is checked all the same, within a chunk and
//! against the beginning of the next; a map that says otherwise is corrupt, never a panic.

use std::cmp::Ordering;

use super::line::{ChunkLine, FRAMES_IN_LINE, Line};
use super::{Entry, MapPath, MapSummary};
use crate::error::{Error, Kind, Result};
use crate::pipe::frame::{Decompressor, MAX_RAW};
use crate::repo::Cluster;
use crate::repo::layout::Name;
use crate::repo::pack::FrameLocation;
use crate::repo::trailer::{self, Sealed};
use crate::store::Key;

/// A map that is being read. Any number of threads may read chunks.
pub struct MapReader {
    cluster: Cluster,
    key: Key,
    chunks: Vec<ChunkInfo>,
}

struct ChunkInfo {
    line: ChunkLine,
    first: MapPath,
}

/// A part of a map that can be understood alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What the slices' frame numbers mean.
    pub frames: Vec<FrameLocation>,
    pub entries: Vec<Entry>,
    /// Whether a restore writes these files last.
    pub is_final: bool,
}

impl MapReader {
    /// Opens the map of a backup. `summary` is from the backup's header.
    pub fn open(cluster: &Cluster, label: &Name, summary: &MapSummary) -> Result<Self> {
        let key = cluster.layout().backup_map(label)?;
        let name = cluster.store().name(&key);
        Self::read_list(cluster, key, summary).map_err(|error| in_map(error, &name))
    }

    fn read_list(cluster: &Cluster, key: Key, summary: &MapSummary) -> Result<Self> {
        let size = cluster.store().head(&key)?.size;
        if size != summary.size {
            return Err(Error::corrupt(format!("it has {size} bytes, expected {}", summary.size)));
        }
        let list = trailer::read_list(cluster.store(), &key, size, Sealed::Map)?;
        if list.sha256 != summary.list_sha256 {
            return Err(Error::corrupt(format!(
                "the SHA-256 of its list is {}, expected {}",
                list.sha256, summary.list_sha256
            )));
        }
        let lines = list.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let chunks = lines.map(ChunkInfo::parse).collect::<Result<Vec<_>>>()?;
        check_list(&chunks, list.content)?;
        Ok(Self { cluster: cluster.clone(), key, chunks })
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Reads and verifies the chunk `index`, of [`MapReader::chunks`].
    pub fn read_chunk(&self, index: usize) -> Result<Chunk> {
        let info =
            self.chunks.get(index).ok_or_else(|| Error::bug(format!("no chunk {index} in the map")))?;
        let name = || format!("chunk {index} of {}", self.cluster.store().name(&self.key));
        let end = info.line.offset + u64::from(info.line.stored);
        let stored = self.cluster.store().get_range(&self.key, info.line.offset..end)?;
        let mut lines = Vec::new();
        Decompressor::new()?
            .decompress(&stored, info.line.raw, &info.line.sha256, &mut lines)
            .and_then(|()| parse_chunk(&lines, info, self.chunks.get(index + 1)))
            .map_err(|error| in_map(error, &name()))
    }

    /// Bytes of a chunk as stored; 0 when there is no such chunk.
    pub fn stored_bytes(&self, index: usize) -> u64 {
        self.chunks.get(index).map_or(0, |chunk| u64::from(chunk.line.stored))
    }

    /// What a chunk begins with, by the list: known even when the chunk itself can't be read.
    pub fn first_path(&self, index: usize) -> Option<&MapPath> {
        self.chunks.get(index).map(|chunk| &chunk.first)
    }

    /// All chunks, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Chunk>> {
        (0..self.chunks()).map(|index| self.read_chunk(index))
    }
}

fn in_map(error: Error, name: &str) -> Error {
    match error.kind() {
        Kind::Corrupt => error.context(format!("could not read {name}")),
        _ => error,
    }
}

impl ChunkInfo {
    fn parse(line: &[u8]) -> Result<Self> {
        let line: ChunkLine = serde_json::from_slice(line)
            .map_err(|cause| Error::corrupt(format!("a line of its list: {cause}")))?;
        let first = MapPath::from_text(line.root, &line.path)?;
        Ok(Self { line, first })
    }

    /// How the beginning of this chunk compares with another place in the map.
    fn order(&self, path: &MapPath, at: u64) -> Ordering {
        self.first.cmp(path).then(self.line.at.cmp(&at))
    }
}

/// Chunks lie back to back, in order, the final ones at the end.
fn check_list(chunks: &[ChunkInfo], content: u64) -> Result<()> {
    let mut expected = 0;
    for chunk in chunks {
        if chunk.line.offset != expected || chunk.line.raw as usize > MAX_RAW {
            return Err(Error::corrupt(format!(
                "a chunk of {} bytes at byte {}",
                chunk.line.raw, chunk.line.offset
            )));
        }
        expected = expected.saturating_add(u64::from(chunk.line.stored));
    }
    if expected != content {
        return Err(Error::corrupt(format!("its chunks end at byte {expected}, expected {content}")));
    }
    let continues = |chunk: &ChunkInfo| chunk.line.at != 0;
    if chunks.first().is_some_and(continues) {
        return Err(Error::corrupt("it begins within a file"));
    }
    let in_order = |a: &ChunkInfo, b: &ChunkInfo| match (a.line.is_final, b.line.is_final) {
        (false, true) => !continues(b),
        (true, false) => false,
        _ => b.order(&a.first, a.line.at) == Ordering::Greater,
    };
    if !chunks.is_sorted_by(in_order) {
        return Err(Error::corrupt("its chunks are not in order"));
    }
    Ok(())
}

fn parse_chunk(lines: &[u8], info: &ChunkInfo, next: Option<&ChunkInfo>) -> Result<Chunk> {
    let is_final = info.line.is_final;
    let mut chunk = Chunk { frames: Vec::new(), entries: Vec::new(), is_final };
    for (number, line) in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        add_line(&mut chunk, line).map_err(|error| error.context(format!("line {}", number + 1)))?;
    }
    check_start(&chunk, info)?;
    if !chunk.entries.is_sorted_by(follows) {
        return Err(Error::corrupt("its entries are not in order"));
    }
    check_end(&chunk, next.filter(|next| next.line.is_final == is_final))?;
    Ok(chunk)
}

fn add_line(chunk: &mut Chunk, line: &[u8]) -> Result<()> {
    let mut line: Line = serde_json::from_slice(line).map_err(|cause| Error::corrupt(cause.to_string()))?;
    match line.frames.take() {
        Some(_) if !chunk.entries.is_empty() => Err(Error::corrupt("frames behind entries")),
        Some(frames) if frames.len() > FRAMES_IN_LINE => Err(Error::corrupt("too many frames in a line")),
        Some(frames) => {
            chunk.frames.extend(frames);
            Ok(())
        }
        None => {
            chunk.entries.push(line.into_entry(&chunk.frames)?);
            Ok(())
        }
    }
}

/// The chunk begins with what the list says.
fn check_start(chunk: &Chunk, info: &ChunkInfo) -> Result<()> {
    let begins = match chunk.entries.first() {
        Some(Entry::File(part)) => info.order(&part.attributes.path, part.at),
        Some(Entry::Directory(attributes)) => info.order(&attributes.path, 0),
        None => return Err(Error::corrupt("it is empty")),
    };
    if begins != Ordering::Equal {
        return Err(Error::corrupt(format!("it does not begin with {}", info.first)));
    }
    Ok(())
}

/// Whether `b` may come right behind `a`: the next part of the same file, or a later path.
fn follows(a: &Entry, b: &Entry) -> bool {
    let (path, next) = (&a.attributes().path, &b.attributes().path);
    match (a, b) {
        (Entry::File(a), Entry::File(b)) if a.size.is_none() => path == next && a.end() == b.at,
        (Entry::File(a), _) if a.size.is_none() => false,
        (_, Entry::File(b)) => path < next && b.at == 0,
        _ => path < next,
    }
}

/// The chunk ends before the next one begins; a file that continues does so there.
fn check_end(chunk: &Chunk, next: Option<&ChunkInfo>) -> Result<()> {
    let fits = match (chunk.entries.last(), next) {
        (Some(Entry::File(part)), Some(next)) if part.size.is_none() => {
            next.order(&part.attributes.path, part.end()) == Ordering::Equal
        }
        (Some(Entry::File(part)), None) => part.size.is_some(),
        (Some(entry), Some(next)) => entry.attributes().path < next.first && next.line.at == 0,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Error::corrupt("it does not end where the next chunk begins")) }
}
