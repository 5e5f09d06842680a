//! Writing a map as the files come, in order, with the memory of a chunk.
//!
//! The map goes to a random key of the staging area and gets its name when it is whole, so a writer that is
//! dropped or killed leaves no map. What a caller gives in the wrong order is a bug, not a damaged map.

use std::collections::HashMap;

use super::line::{ChunkLine, FRAMES_IN_LINE, Line, check_slice};
use super::{Attributes, Entry, FilePart, MapPath, MapSummary, PlacedSlice, SLICES_IN_LINE, Slice};
use crate::error::{Error, Result};
use crate::pipe::digest::Sha256Hasher;
use crate::pipe::frame::{Compressor, DEFAULT_LEVEL};
use crate::repo::Cluster;
use crate::repo::layout::{Id, Name};
use crate::repo::pack::FrameLocation;
use crate::repo::parts::Parts;
use crate::repo::trailer::{self, Sealed};
use crate::store::{Created, Key};

/// Bytes of lines after which a chunk ends. It may be longer by one line of slices and their frames.
const CHUNK_SIZE: usize = 1 << 20;

/// About what a frame takes in its line.
const FRAME_LINE: usize = 160;

/// Writes the map of one backup.
pub struct MapWriter {
    cluster: Cluster,
    staged: Key,
    parts: Parts,
    sha256: Sha256Hasher,
    compressor: Compressor,
    /// Memory for the next compressed chunk.
    recycled: Vec<u8>,
    chunk: ChunkBuilder,
    list: Vec<ChunkLine>,
    /// The file that is being written.
    file: Option<FilePart>,
    last: Option<MapPath>,
    files: u64,
    directories: u64,
    raw_bytes: u64,
}

/// A chunk that is not full yet.
#[derive(Default)]
struct ChunkBuilder {
    frames: Vec<FrameLocation>,
    numbers: HashMap<FrameLocation, u32>,
    lines: Vec<u8>,
    /// Path and offset of the first entry.
    first: Option<(MapPath, u64)>,
    is_final: bool,
}

impl MapWriter {
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let staged = cluster.layout().staging(Id::random()?)?;
        Ok(Self {
            parts: Parts::start(cluster.store(), &staged)?,
            cluster: cluster.clone(),
            staged,
            sha256: Sha256Hasher::default(),
            compressor: Compressor::new(DEFAULT_LEVEL)?,
            recycled: Vec::new(),
            chunk: ChunkBuilder::default(),
            list: Vec::new(),
            file: None,
            last: None,
            files: 0,
            directories: 0,
            raw_bytes: 0,
        })
    }

    /// Adds a directory.
    pub fn directory(&mut self, attributes: Attributes) -> Result<()> {
        self.advance(&attributes.path)?;
        self.directories += 1;
        self.write_entry(&Entry::Directory(attributes))
    }

    /// Adds a whole file.
    pub fn file(
        &mut self,
        attributes: Attributes,
        slices: impl IntoIterator<Item = PlacedSlice>,
    ) -> Result<()> {
        self.begin_file(attributes)?;
        slices.into_iter().try_for_each(|slice| self.slice(slice))?;
        self.end_file().map(drop)
    }

    /// Begins a file, whose slices follow one by one.
    pub fn begin_file(&mut self, attributes: Attributes) -> Result<()> {
        self.advance(&attributes.path)?;
        self.files += 1;
        self.file = Some(FilePart { attributes, at: 0, slices: Vec::new(), size: None });
        Ok(())
    }

    /// Adds the next bytes of the file that was begun.
    pub fn slice(&mut self, slice: PlacedSlice) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::bug("a slice without a file"))?;
        if let PlacedSlice::Zeros { length } = slice
            && let Some(Slice::Zeros { length: before }) = file.slices.last_mut()
        {
            *before += length;
            return Ok(());
        }
        if slice == (PlacedSlice::Zeros { length: 0 }) {
            return Ok(());
        }
        if file.slices.len() >= SLICES_IN_LINE {
            self.continue_file()?;
        }
        let file = self.file.as_mut().ok_or_else(|| Error::bug("a slice without a file"))?;
        let slice = self.chunk.number(slice);
        check_slice(&slice, &self.chunk.frames)
            .map_err(|error| Error::bug(format!("{}: {error}", file.attributes.path)))?;
        file.slices.push(slice);
        Ok(())
    }

    /// Ends the file. Returns its size: the sum of its slices.
    pub fn end_file(&mut self) -> Result<u64> {
        let mut part = self.file.take().ok_or_else(|| Error::bug("the end of no file"))?;
        let size = part.end();
        part.size = Some(size);
        self.raw_bytes += size;
        self.write_entry(&Entry::File(part))?;
        Ok(size)
    }

    /// What follows is written last by a restore, and may come before what was added so far.
    pub fn begin_final(&mut self) -> Result<()> {
        self.refuse_open_file()?;
        self.write_chunk()?;
        self.chunk.is_final = true;
        self.last = None;
        Ok(())
    }

    /// Publishes the map under the backup's label. `Kind::Conflict` if that label has a map already.
    pub fn finish(mut self, label: &Name) -> Result<MapSummary> {
        self.refuse_open_file()?;
        self.write_chunk()?;
        let list =
            self.compressor.compress(&trailer::lines(&self.list)?, std::mem::take(&mut self.recycled))?;
        self.write(&trailer::seal(Sealed::Map, &list, self.parts.size())?)?;
        let summary = MapSummary {
            size: self.parts.finish()?,
            sha256: self.sha256.finish(),
            list_sha256: list.sha256,
            chunks: self.list.len() as u32,
            files: self.files,
            directories: self.directories,
            raw_bytes: self.raw_bytes,
        };
        let key = self.cluster.layout().backup_map(label)?;
        match self.cluster.store().promote(&self.staged, &key)? {
            Created::New => Ok(summary),
            Created::AlreadyThere => Err(Error::conflict(format!(
                "could not create {}: another backup has the label {label}",
                self.cluster.store().name(&key)
            ))
            .with_hint("choose another label")),
        }
    }

    fn refuse_open_file(&self) -> Result<()> {
        match &self.file {
            Some(file) => Err(Error::bug(format!("{} is not ended", file.attributes.path))),
            None => Ok(()),
        }
    }

    fn advance(&mut self, path: &MapPath) -> Result<()> {
        self.refuse_open_file()?;
        if let Some(last) = self.last.replace(path.clone())
            && last >= *path
        {
            return Err(Error::bug(format!("{path} came behind {last} in a map")));
        }
        Ok(())
    }

    /// Writes what there is of the file, so that it can go on in the next line.
    fn continue_file(&mut self) -> Result<()> {
        let part = self.file.take().ok_or_else(|| Error::bug("no file to continue"))?;
        let (attributes, at) = (part.attributes.clone(), part.end());
        self.write_entry(&Entry::File(part))?;
        self.file = Some(FilePart { attributes, at, slices: Vec::new(), size: None });
        Ok(())
    }

    fn write_entry(&mut self, entry: &Entry) -> Result<()> {
        self.chunk.push(entry)?;
        if self.chunk.size() >= CHUNK_SIZE {
            self.write_chunk()?;
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<()> {
        let is_final = self.chunk.is_final;
        let chunk = std::mem::replace(&mut self.chunk, ChunkBuilder { is_final, ..ChunkBuilder::default() });
        let Some((first, at)) = &chunk.first else {
            return Ok(());
        };
        let frame = self.compressor.compress(&chunk.lines()?, std::mem::take(&mut self.recycled))?;
        self.list.push(ChunkLine {
            offset: self.parts.size(),
            stored: frame.stored.len() as u32,
            raw: frame.raw_size,
            sha256: frame.sha256,
            root: first.root(),
            path: first.text(),
            at: *at,
            is_final,
        });
        self.write(&frame.stored)?;
        self.recycled = frame.stored;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.parts.write(bytes)
    }
}

impl ChunkBuilder {
    /// The slice with its frame's number in this chunk.
    fn number(&mut self, slice: PlacedSlice) -> Slice {
        match slice {
            PlacedSlice::Zeros { length } => Slice::Zeros { length },
            PlacedSlice::Data { frame, offset, length, digest } => {
                let next = self.frames.len() as u32;
                let number = *self.numbers.entry(frame).or_insert(next);
                if number == next {
                    self.frames.push(frame);
                }
                Slice::Data { length, frame: number, offset, digest }
            }
        }
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        write_line(&mut self.lines, &Line::from(entry))?;
        let at = match entry {
            Entry::Directory(_) => 0,
            Entry::File(part) => part.at,
        };
        self.first.get_or_insert_with(|| (entry.attributes().path.clone(), at));
        Ok(())
    }

    fn size(&self) -> usize {
        self.lines.len() + self.frames.len() * FRAME_LINE
    }

    /// The lines of frames, then those of entries.
    fn lines(&self) -> Result<Vec<u8>> {
        let mut lines = Vec::with_capacity(self.size() + FRAME_LINE);
        for frames in self.frames.chunks(FRAMES_IN_LINE) {
            write_line(&mut lines, &Line::frames(frames))?;
        }
        lines.extend_from_slice(&self.lines);
        Ok(lines)
    }
}

fn write_line(lines: &mut Vec<u8>, line: &Line) -> Result<()> {
    serde_json::to_writer(&mut *lines, line)
        .map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
    lines.push(b'\n');
    Ok(())
}
