//! Scattering: each frame of a chunk is read once, and its slices are written into the files that they belong to.
//!
//! Workers take frames and files in any order: a frame's writes create the files that they need, and a file's
//! own task sets its size and mode, before or after. So there is no barrier and no table of open files: a
//! worker has one file open at a time, and takes all that a frame has for it at once. Zeros are not written;
//! they are what is between the writes.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::direct::DirectWriter;
use crate::error::{Error, IoContext, Result};
use crate::repo::map::{Chunk, Entry, FileMode, FilePart, MapPath, Slice};
use crate::repo::pack::{FrameLocation, PackReader};

/// A file with this bit is writable for us, so its mode can be set at any time.
const OWNER_WRITE: u32 = 0o200;

/// What a chunk asks for.
pub struct ChunkPlan {
    pub files: Vec<PlannedFile>,
    /// Only those of which something is written.
    pub frames: Vec<PlannedFrame>,
}

/// A file, or a part of one.
pub struct PlannedFile {
    pub path: PathBuf,
    pub mode: FileMode,
    /// Known in the last part.
    pub size: Option<u64>,
    /// Bytes of this part that are not written.
    pub zeros: u64,
}

pub struct PlannedFrame {
    pub location: FrameLocation,
    /// By file, then by place in the file.
    pub writes: Vec<Write>,
}

/// Bytes of a frame that go to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index in [`ChunkPlan::files`].
    pub file: usize,
    pub at: u64,
    pub offset: u32,
    pub length: u32,
}

/// Opens a file for writing and creates it if needed; never through a link.
fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .doing(|| format!("create {}", path.display()))
}

impl ChunkPlan {
    pub fn new(chunk: &Chunk, locate: impl Fn(&MapPath) -> PathBuf) -> Self {
        let planned = |location: &FrameLocation| PlannedFrame { location: *location, writes: Vec::new() };
        let mut frames: Vec<PlannedFrame> = chunk.frames.iter().map(planned).collect();
        let mut files = Vec::new();
        for entry in &chunk.entries {
            let Entry::File(part) = entry else { continue };
            add_writes(&mut frames, files.len(), part);
            files.push(PlannedFile {
                path: locate(&part.attributes.path),
                mode: part.attributes.mode,
                size: part.size,
                zeros: zeros(part),
            });
        }
        frames.retain(|frame| !frame.writes.is_empty());
        Self { files, frames }
    }
}

fn add_writes(frames: &mut [PlannedFrame], file: usize, part: &FilePart) {
    let mut at = part.at;
    for slice in &part.slices {
        // The map's reader checked that the frame is there.
        if let Slice::Data { length, frame, offset, .. } = *slice
            && let Some(frame) = frames.get_mut(frame as usize)
        {
            match frame.writes.last_mut() {
                Some(last) if last.goes_on(file, at, offset) => last.length += length,
                _ => frame.writes.push(Write { file, at, offset, length }),
            }
        }
        at += slice.length();
    }
}

fn zeros(part: &FilePart) -> u64 {
    let length = |slice: &Slice| if let Slice::Zeros { length } = slice { *length } else { 0 };
    part.slices.iter().map(length).sum()
}

impl Write {
    /// Whether bytes of that place in the frame, for that place in that file, come right behind these.
    fn goes_on(&self, file: usize, at: u64, offset: u32) -> bool {
        self.file == file && self.at + u64::from(self.length) == at && self.offset + self.length == offset
    }
}

/// Bytes that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub all: u64,
    /// Of those, what only the page cache has so far.
    pub cached: u64,
}

/// Reads frames and writes files. One per thread.
pub struct Scatterer {
    reader: PackReader,
    direct: DirectWriter,
    /// Whether each file is made durable before it is closed.
    fsync: bool,
}

impl Scatterer {
    pub fn new(reader: PackReader, fsync: bool) -> Self {
        Self { reader, direct: DirectWriter::default(), fsync }
    }

    /// Writes what the chunk has of a frame.
    pub fn scatter(&mut self, plan: &ChunkPlan, frame: &PlannedFrame) -> Result<Written> {
        let raw = self.reader.read_frame(&frame.location)?;
        let mut written = Written::default();
        for writes in frame.writes.chunk_by(|a, b| a.file == b.file) {
            let file = writes.first().and_then(|write| plan.files.get(write.file));
            let path = &file.ok_or_else(|| Error::bug("a write without a file"))?.path;
            let file = open(path)?;
            for write in writes {
                let bytes = raw.get(write.offset as usize..).and_then(|raw| raw.get(..write.length as usize));
                let bytes = bytes.ok_or_else(|| Error::bug("a slice beyond its frame"))?;
                written.all += bytes.len() as u64;
                written.cached += write_at(&mut self.direct, &file, bytes, write.at)
                    .doing(|| format!("write {}", path.display()))?;
            }
            close(&file, path, self.fsync)?;
        }
        Ok(written)
    }

    /// Gives a file its size and mode, and creates it if nothing was written into it yet.
    pub fn shape(&self, planned: &PlannedFile) -> Result<()> {
        let Some(size) = planned.size else {
            return Ok(());
        };
        let path = &planned.path;
        let file = open(path)?;
        file.set_len(size).doing(|| format!("set the size of {}", path.display()))?;
        // A mode that would keep us out waits until everything is written: see `lock_modes`.
        let mode = planned.mode.bits() | OWNER_WRITE;
        file.set_permissions(Permissions::from_mode(mode))
            .doing(|| format!("set the mode of {}", path.display()))?;
        close(&file, path, self.fsync)
    }
}

/// Says how many bytes the page cache got.
fn write_at(direct: &mut DirectWriter, file: &File, bytes: &[u8], at: u64) -> std::io::Result<u64> {
    let written = direct.write(file, bytes, at)?;
    let rest = bytes.get(written..).unwrap_or_default();
    file.write_all_at(rest, at + written as u64)?;
    Ok(rest.len() as u64)
}

fn close(file: &File, path: &Path, fsync: bool) -> Result<()> {
    if fsync {
        file.sync_all().doing(|| format!("make {} durable", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ident::Id;
    use crate::pipe::digest::SliceDigest;
    use crate::pipe::frame::Compressor;
    use crate::repo::fixture::Fixture;
    use crate::repo::map::Attributes;
    use crate::repo::pack::PackWriter;

    const RAW: &[u8] = b"0123456789";

    fn store(fixture: &Fixture) -> FrameLocation {
        let mut writer = PackWriter::new(&fixture.cluster, Id::random().expect("id"));
        let frame = Compressor::new(1).and_then(|mut c| c.compress(RAW, Vec::new())).expect("frame");
        let location = writer.append(&frame).expect("appended");
        writer.finish().expect("finished");
        location
    }

    fn part(path: &str, at: u64, slices: Vec<Slice>, last: bool) -> Entry {
        let attributes = Attributes {
            path: MapPath::data(path).expect("path"),
            mode: FileMode::from_st_mode(0o400),
            mtime: "2026-11-23T03:10:00Z".parse().expect("time"),
        };
        let part = FilePart { attributes, at, slices, size: None };
        Entry::File(FilePart { size: last.then(|| part.end()), ..part })
    }

    fn data(offset: u32, length: u32) -> Slice {
        Slice::Data { length, frame: 0, offset, digest: SliceDigest::of(b"") }
    }

    fn zeros(length: u64) -> Slice {
        Slice::Zeros { length }
    }

    fn chunk(location: FrameLocation) -> Chunk {
        let entries = vec![
            part("a", 0, vec![data(0, 3), data(3, 2), zeros(4), data(5, 1), data(0, 1)], true),
            part("b", 0, vec![zeros(100)], true),
            part("c", 0, vec![data(9, 1)], false),
        ];
        Chunk { frames: vec![location, location], entries, is_final: false }
    }

    #[test]
    fn neighbouring_slices_are_one_write_and_zeros_are_none() {
        let fixture = Fixture::create();
        let plan = ChunkPlan::new(&chunk(store(&fixture)), |path| path.as_path().to_path_buf());
        assert_eq!(plan.frames.len(), 1, "a frame of which nothing is needed is not read");
        let write = |file, at, offset, length| Write { file, at, offset, length };
        let expected = [write(0, 0, 0, 5), write(0, 9, 5, 1), write(0, 10, 0, 1), write(2, 0, 9, 1)];
        assert_eq!(plan.frames[0].writes, expected);
        let files: Vec<(Option<u64>, u64)> = plan.files.iter().map(|file| (file.size, file.zeros)).collect();
        assert_eq!(files, [(Some(11), 4), (Some(100), 100), (None, 0)]);
    }

    #[test]
    fn writing_and_shaping_give_the_same_file_in_any_order() {
        let fixture = Fixture::create();
        let location = store(&fixture);
        for (fsync, shape_first) in [(false, false), (true, false), (false, true), (true, true)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let plan = ChunkPlan::new(&chunk(location), |path| dir.path().join(path.as_path()));
            let mut scatterer = Scatterer::new(PackReader::new(&fixture.cluster).expect("reader"), fsync);
            let shape = |scatterer: &Scatterer| {
                plan.files.iter().try_for_each(|file| scatterer.shape(file)).expect("shaped");
            };
            if shape_first {
                shape(&scatterer);
            }
            assert_eq!(scatterer.scatter(&plan, &plan.frames[0]), Ok(Written { all: 8, cached: 8 }));
            if !shape_first {
                shape(&scatterer);
            }
            assert_eq!(fs::read(dir.path().join("a")).expect("read"), b"01234\0\0\0\x0050");
            assert_eq!(fs::read(dir.path().join("b")).expect("read"), [0; 100]);
            assert_eq!(fs::read(dir.path().join("c")).expect("read"), b"9");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let fixture = Fixture::create();
        let dir = tempfile::tempdir().expect("tempdir");
        let precious = dir.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        std::os::unix::fs::symlink(&precious, dir.path().join("a")).expect("linked");
        let plan = ChunkPlan::new(&chunk(store(&fixture)), |path| dir.path().join(path.as_path()));
        let mut scatterer = Scatterer::new(PackReader::new(&fixture.cluster).expect("reader"), false);
        assert!(scatterer.scatter(&plan, &plan.frames[0]).is_err());
        assert!(scatterer.shape(&plan.files[0]).is_err());
        assert_eq!(fs::read(&precious).expect("read"), b"precious");
    }
}
