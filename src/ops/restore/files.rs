//! Restoring the files of a backup into empty directories: chunk by chunk of the map, each frame read and
//! verified once, in parallel, everything durable, and pg_control last.
//!
//! A frame is verified by the SHA-256 of its stored bytes and zstd's checksum of its raw bytes, the map by the
//! header's digest. That says which bytes are where; the slices' own digests are for comparing, and are not
//! computed again here.
//!
//! Invariant: until [`Unfinished::complete`] the data directory has no global/pg_control, without which no
//! server starts in it. The order is: files, made durable; what the caller adds; then pg_control.

use std::num::NonZeroUsize;
use std::path::Path;

use super::crew::{self, Copied};
use super::durability::Durability;
use super::place::Places;
use super::tree;
use crate::durable;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pg::control::ControlFile;
use crate::progress::Progress;
use crate::repo::Cluster;
use crate::repo::backup::BackupHeader;
use crate::repo::map::{Chunk, Entry, FilePart, MapReader, Slice};
use crate::repo::pack::PackReader;

/// Bytes of a file that is written last, at most: it is put together in memory. pg_control has 8 KiB.
const LARGEST_FINAL: u64 = 1 << 20;

/// What to restore, and where to.
pub struct FilesJob<'a> {
    pub cluster: &'a Cluster,
    pub header: &'a BackupHeader,
    pub places: Places,
    /// Threads that read, decompress and write.
    pub jobs: NonZeroUsize,
    pub progress: &'a Progress,
    pub interrupt: &'a Interrupt,
}

impl FilesJob<'_> {
    /// Refuses what no backup holds.
    pub fn check(&self, chunk: &Chunk) -> Result<()> {
        self.blame_map(chunk.refuse_strangers(self.header.server.major))
    }

    fn blame_map(&self, outcome: Result<()>) -> Result<()> {
        outcome
            .map_err(|error| error.context(format!("the map of backup {} can't be right", self.header.label)))
    }
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub files: u64,
    pub directories: u64,
    /// The sum of the files' sizes.
    pub bytes: u64,
    /// Of those, what was written: the rest is holes.
    pub written: u64,
    /// Read from the repository.
    pub frames: u64,
}

/// A restored directory that lacks pg_control, so that no server starts in it.
pub struct Unfinished<'a> {
    job: &'a FilesJob<'a>,
    map: MapReader,
    durability: Durability,
    copied: Copied,
}

/// Restores every file but those that come last, makes the links to the tablespaces, and makes it all durable.
pub fn restore_files<'a>(job: &'a FilesJob<'a>) -> Result<Unfinished<'a>> {
    job.places.check(&job.header.tablespaces)?;
    job.places.roots().try_for_each(|root| durable::create_dir_all(root, durable::PRIVATE))?;
    refuse_control_file(&job.places.data)?;
    let map = MapReader::open(job.cluster, &job.header.label, &job.header.map)?;
    let durability = Durability::of(job.places.roots())?;
    job.progress.set_total(job.header.map.raw_bytes);
    let copied = crew::copy(job, &map, &durability)?;
    job.blame_map(copied.totals.expect(&job.header.map))?;
    tree::link_tablespaces(&job.places)?;
    if copied.locked_modes {
        tree::lock_modes(&job.places, &map)?;
    }
    durability.settle(job.places.roots())?;
    Ok(Unfinished { job, map, durability, copied })
}

fn refuse_control_file(data: &Path) -> Result<()> {
    let control = ControlFile::path(data);
    match control.symlink_metadata() {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io(format!("look for {}", control.display()), &cause)),
        Ok(_) => {
            Err(Error::conflict(format!("could not restore into {}: it has a pg_control", data.display()))
                .with_hint("restore into an empty directory"))
        }
    }
}

impl Unfinished<'_> {
    /// Makes what the caller added durable, and then writes the files that come last: pg_control.
    pub fn complete(self) -> Result<Summary> {
        let places = &self.job.places;
        self.durability.settle(places.roots())?;
        let mut summary = Summary {
            files: self.copied.totals.files,
            directories: self.copied.totals.directories,
            bytes: self.copied.totals.bytes,
            written: self.copied.written,
            frames: self.copied.frames,
        };
        let mut reader = PackReader::new(self.job.cluster)?;
        for chunk in self.map.iter() {
            let chunk = chunk?;
            self.job.check(&chunk)?;
            for entry in chunk.entries.iter().filter(|_| chunk.is_final) {
                let Entry::File(part) = entry else { continue };
                let bytes = put_together(&mut reader, &chunk, part)?;
                let place = places.locate(&part.attributes.path);
                durable::write_file(&place, &bytes, part.attributes.mode.bits())?;
                // The umask may have taken something away.
                tree::set_mode(&place, part.attributes.mode)?;
                summary.written += bytes.len() as u64;
                self.job.progress.add(bytes.len() as u64);
            }
        }
        Ok(summary)
    }
}

/// The content of a small file.
fn put_together(reader: &mut PackReader, chunk: &Chunk, part: &FilePart) -> Result<Vec<u8>> {
    let size = part.size.filter(|size| part.at == 0 && *size <= LARGEST_FINAL).ok_or_else(|| {
        Error::corrupt(format!("{} is too large for a file that is written last", part.attributes.path))
    })?;
    let mut bytes = Vec::with_capacity(size as usize);
    for slice in &part.slices {
        match *slice {
            Slice::Zeros { length } => bytes.resize(bytes.len() + length as usize, 0),
            Slice::Data { length, frame, offset, .. } => {
                let location = chunk.frames.get(frame as usize);
                let raw = reader.read_frame(location.ok_or_else(|| Error::bug("a slice of no frame"))?)?;
                let raw = raw.get(offset as usize..).and_then(|raw| raw.get(..length as usize));
                bytes.extend_from_slice(raw.ok_or_else(|| Error::bug("a slice beyond its frame"))?);
            }
        }
    }
    Ok(bytes)
}
