//! Reading a unit: what a worker does. Opens each file, reads it up to the size that it was listed with,
//! checks its pages, finds zeros, digests slices, and compresses all of it into one frame.
//!
//! The server goes on writing. Why none of this hurts (sendFile in basebackup.c): a file that vanished was
//! dropped after the backup began, and replay drops it again; what a file lacks at its end was truncated,
//! and replay truncates it again; what it grew by is in the WAL.
//!
//! The page cache stays as it was found: what was not in it when it was read is dropped from it again.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::pages::{BadPage, PageChecks};
use super::throttle::Throttle;
use super::units::{Piece, Step, Unit};
use crate::error::{IoContext, Result};
use crate::interrupt::Interrupt;
use crate::pg::page::BlockNumber;
use crate::pipe::digest::SliceDigest;
use crate::pipe::frame::{Compressor, FRAME_SIZE, Frame};
use crate::progress::Progress;
use crate::repo::map::{Attributes, MapPath, Root, SLICE_SIZE};

/// What all workers of a run share.
pub struct Reading<'a> {
    pub data_directory: PathBuf,
    pub level: i32,
    /// None for a cluster without checksums.
    pub checks: Option<PageChecks>,
    pub throttle: Throttle,
    pub progress: &'a Progress,
    /// Set when the run ends early.
    pub stop: Interrupt,
}

/// A unit that was read.
pub struct ReadUnit {
    pub number: u64,
    pub steps: Vec<ReadStep>,
    /// None when nothing but zeros was read.
    pub frame: Option<Frame>,
}

pub enum ReadStep {
    Directory(Attributes),
    File(ReadPiece),
}

/// A piece of a file as it was found.
pub struct ReadPiece {
    pub piece: Piece,
    /// From the piece's first byte on; they may end before its length.
    pub cuts: Vec<Cut>,
    /// The file was not there.
    pub gone: bool,
    pub bad_pages: Vec<BadPage>,
}

/// A slice whose place in the pack is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Bytes of the unit's frame.
    Data {
        offset: u32,
        length: u32,
        digest: SliceDigest,
    },
    Zeros {
        length: u32,
    },
}

/// One worker's memory.
pub struct UnitReader<'a> {
    reading: &'a Reading<'a>,
    compressor: Compressor,
    /// What goes into the frame, up to `filled`.
    raw: Vec<u8>,
    filled: usize,
}

impl<'a> UnitReader<'a> {
    pub fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let compressor = Compressor::new(reading.level)?;
        Ok(Self { reading, compressor, raw: vec![0; FRAME_SIZE], filled: 0 })
    }

    /// Reads a unit. `recycled` is memory for the frame.
    pub fn read(&mut self, unit: Unit, recycled: Vec<u8>) -> Result<ReadUnit> {
        self.filled = 0;
        let mut steps = Vec::with_capacity(unit.steps.len());
        for step in unit.steps {
            steps.push(match step {
                Step::Directory(attributes) => ReadStep::Directory(attributes),
                Step::File(piece) => ReadStep::File(self.read_piece(piece)?),
            });
        }
        let raw = self.raw.get(..self.filled).unwrap_or_default();
        let frame = if raw.is_empty() { None } else { Some(self.compressor.compress(raw, recycled)?) };
        Ok(ReadUnit { number: unit.number, steps, frame })
    }

    fn read_piece(&mut self, piece: Piece) -> Result<ReadPiece> {
        let mut read = ReadPiece { piece, cuts: Vec::new(), gone: false, bad_pages: Vec::new() };
        // An empty file is not opened. There are many, and if it is gone by now, replay removes it.
        if read.piece.length > 0 {
            let path = self.reading.source(&read.piece.attributes.path);
            match File::open(&path) {
                Ok(file) => self.read_slices(&file, &mut read).map_err(|e| e.context(path.display()))?,
                Err(cause) if cause.kind() == ErrorKind::NotFound => read.gone = true,
                Err(cause) => return Err(cause).doing(|| format!("open {}", path.display())),
            }
        }
        self.reading.progress.add(u64::from(read.piece.length));
        Ok(read)
    }

    fn read_slices(&mut self, file: &File, read: &mut ReadPiece) -> Result<()> {
        let (mut at, mut left) = (read.piece.at, read.piece.length);
        while left > 0 {
            let wanted = left.min(SLICE_SIZE);
            self.reading.throttle.wait(u64::from(wanted), &self.reading.stop)?;
            let block = self.reading.first_block(&read.piece.attributes.path, at);
            let got = self.read_slice(file, at, wanted, block, read)?;
            if got < wanted {
                break;
            }
            at += u64::from(got);
            left -= got;
        }
        Ok(())
    }

    /// Returns how many bytes there were.
    fn read_slice(
        &mut self,
        file: &File,
        at: u64,
        wanted: u32,
        block: Option<BlockNumber>,
        read: &mut ReadPiece,
    ) -> Result<u32> {
        // The planner gives a unit no more than fits.
        let room = self.raw.get_mut(self.filled..).unwrap_or_default();
        let target = room.get_mut(..wanted as usize).unwrap_or_default();
        let got = read_clean(file, target, at).doing(|| format!("read {wanted} bytes at byte {at}"))?;
        let bytes = target.get_mut(..got).unwrap_or_default();
        if let (Some(checks), Some(block)) = (&self.reading.checks, block) {
            read.bad_pages.extend(checks.check(file, at, bytes, block)?);
        }
        let length = got as u32;
        if length > 0 && is_zero(bytes) {
            read.cuts.push(Cut::Zeros { length });
        } else if length > 0 {
            let digest = SliceDigest::of(bytes);
            read.cuts.push(Cut::Data { offset: self.filled as u32, length, digest });
            self.filled += got;
        }
        Ok(length)
    }
}

impl Reading<'_> {
    /// Where a file of the map is on this host.
    pub fn source(&self, path: &MapPath) -> PathBuf {
        match path.root() {
            Root::Data => self.data_directory.join(path.as_path()),
            Root::Config => PathBuf::from("/").join(path.as_path()),
        }
    }

    fn first_block(&self, path: &MapPath, at: u64) -> Option<BlockNumber> {
        self.checks.filter(|_| path.root() == Root::Data)?.first_block(path, at)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk))
}

/// Fills `target` from `offset`, or as far as the file goes, and leaves the page cache as it was.
fn read_clean(file: &File, target: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let Some(cached) = read_cached(file, target, offset)? else {
        // Not known what was cached: leave it to the kernel.
        return read_rest(file, target, offset, 0);
    };
    if cached == target.len() {
        return Ok(cached);
    }
    // Reading ahead would bring in what the next slice could then not tell from what was there before.
    fadvise(file, 0, None, Advice::Random)?;
    let got = read_rest(file, target, offset, cached)?;
    if let Some(length) = NonZeroU64::new((got - cached) as u64) {
        fadvise(file, offset + cached as u64, Some(length), Advice::DontNeed)?;
    }
    Ok(got)
}

/// Reads what is in the page cache from `offset` on. None where the file system can't tell.
fn read_cached(file: &File, target: &mut [u8], offset: u64) -> std::io::Result<Option<usize>> {
    let buffers = &mut [IoSliceMut::new(target)];
    match preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        Err(Errno::AGAIN) => Ok(Some(0)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

/// Reads behind the first `have` bytes of `target`; returns how many there are then.
fn read_rest(file: &File, target: &mut [u8], offset: u64, mut have: usize) -> std::io::Result<usize> {
    while let Some(rest) = target.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(have)
}
