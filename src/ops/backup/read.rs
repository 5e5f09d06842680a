//! Reading a unit: what a worker does. Opens each file, reads it up to the size that it was listed with,
//! checks its pages, finds zeros, digests slices, and compresses all of it into one frame of its own pack.
//! Slices that are holes are not read.
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

use super::holes::Holes;
use super::pages::{BadPage, PageChecks};
use super::units::{Piece, Step, Unit};
use crate::error::{Error, IoContext, Result};
use crate::interrupt::Interrupt;
use crate::pg::page::BlockNumber;
use crate::pipe::digest::SliceDigest;
use crate::pipe::frame::{Compressor, FRAME_SIZE};
use crate::progress::Progress;
use crate::repo::map::{Attributes, MapPath, Root, SLICE_SIZE};
use crate::repo::pack::{FrameLocation, PackWriter};
use crate::throttle::Throttle;

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
    pub frame: Option<FrameLocation>,
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

/// A slice as it was read.
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
    /// Memory for the next frame.
    recycled: Vec<u8>,
}

impl<'a> UnitReader<'a> {
    pub fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let compressor = Compressor::new(reading.level)?;
        Ok(Self { reading, compressor, raw: vec![0; FRAME_SIZE], filled: 0, recycled: Vec::new() })
    }

    /// Reads a unit and appends its frame to `packs`.
    pub fn read(&mut self, unit: Unit, packs: &mut PackWriter) -> Result<ReadUnit> {
        self.filled = 0;
        let mut steps = Vec::with_capacity(unit.steps.len());
        for step in unit.steps {
            steps.push(match step {
                Step::Directory(attributes) => ReadStep::Directory(attributes),
                Step::File(piece) => ReadStep::File(self.read_piece(piece)?),
            });
        }
        Ok(ReadUnit { number: unit.number, steps, frame: self.store(packs)? })
    }

    fn store(&mut self, packs: &mut PackWriter) -> Result<Option<FrameLocation>> {
        let (raw, _) = self.raw.split_at(self.filled);
        if raw.is_empty() {
            return Ok(None);
        }
        let frame = self.compressor.compress(raw, std::mem::take(&mut self.recycled))?;
        let location = packs.append(&frame)?;
        self.recycled = frame.stored;
        Ok(Some(location))
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
        // Nothing is read ahead then, which the next slice could not tell from what was cached before.
        fadvise(file, 0, None, Advice::Random)
            .map_err(std::io::Error::from)
            .doing(|| "turn off reading ahead")?;
        let (mut at, mut left) = (read.piece.at, read.piece.length);
        // What is shorter than a slice is read as fast as it is asked about.
        let holes = if left < SLICE_SIZE { None } else { Holes::of(file).doing(|| "look for holes")? };
        while left > 0 {
            let wanted = left.min(SLICE_SIZE);
            let got = match hole(holes, file, at, wanted)? {
                Some(length) => {
                    read.cuts.push(Cut::Zeros { length });
                    length
                }
                None => self.read_slice(file, at, wanted, read)?,
            };
            if got < wanted {
                break;
            }
            at += u64::from(got);
            left -= got;
        }
        Ok(())
    }

    /// Returns how many bytes there were.
    fn read_slice(&mut self, file: &File, at: u64, wanted: u32, read: &mut ReadPiece) -> Result<u32> {
        self.reading.throttle.wait(u64::from(wanted), &self.reading.stop)?;
        let block = self.reading.first_block(&read.piece.attributes.path, at);
        let end = self.filled + wanted as usize;
        let target = self.raw.get_mut(self.filled..end).ok_or_else(|| Error::bug("a unit is too large"))?;
        let got = read_clean(file, target, at).doing(|| format!("read {wanted} bytes at byte {at}"))?;
        let (bytes, _) = target.split_at_mut(got);
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

/// How many of the next bytes there are, if all of them are a hole.
fn hole(holes: Option<Holes>, file: &File, at: u64, wanted: u32) -> Result<Option<u32>> {
    let Some(holes) = holes else { return Ok(None) };
    let length =
        holes.cover(file, at, at + u64::from(wanted)).doing(|| format!("look for holes at byte {at}"))?;
    Ok(length.and_then(|length| u32::try_from(length).ok()))
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

#[cfg(test)]
mod tests {
    use super::super::holes;
    use super::*;
    use crate::progress::Display;
    use crate::repo::fixture::Fixture;
    use crate::repo::layout::Id;
    use crate::repo::map::FileMode;
    use crate::repo::pack::PackReader;
    use jiff::Timestamp;

    const MIB: usize = 1 << 20;

    /// Reads files of which the listing said these sizes. Returns the pieces and the frame's raw bytes.
    fn read(files: &[(&str, Option<&[u8]>, u32)]) -> (Vec<ReadPiece>, Option<Vec<u8>>) {
        let dir = tempfile::tempdir().expect("tempdir");
        let progress = Progress::start(Display::Silent, "copying");
        let reading = Reading {
            data_directory: dir.path().to_path_buf(),
            level: 1,
            checks: None,
            throttle: Throttle::new(None),
            progress: &progress,
            stop: Interrupt::default(),
        };
        let mut unit = Unit::default();
        for (name, content, length) in files {
            if let Some(content) = content {
                std::fs::write(dir.path().join(name), content).expect("written");
            }
            let path = MapPath::data(name).expect("a path");
            let attributes =
                Attributes { path, mode: FileMode::from_st_mode(0o600), mtime: Timestamp::UNIX_EPOCH };
            unit.steps.push(Step::File(Piece {
                attributes,
                at: 0,
                length: *length,
                size: u64::from(*length),
            }));
        }
        let repo = Fixture::create();
        let mut packs = PackWriter::new(&repo.cluster, Id::random().expect("random"));
        let mut reader = UnitReader::new(&reading).expect("zstd");
        // Twice: nothing of the first reading may be left in the second.
        reader.read(unit.clone(), &mut packs).expect("read");
        let unit = reader.read(unit, &mut packs).expect("read");
        packs.finish().expect("durable");
        let mut stored = PackReader::new(&repo.cluster).expect("zstd");
        let frame = unit.frame.map(|location| stored.read_frame(&location).expect("whole").to_vec());
        let pieces = unit.steps.into_iter().map(|step| match step {
            ReadStep::File(piece) => piece,
            ReadStep::Directory(_) => panic!("there is none"),
        });
        (pieces.collect(), frame)
    }

    fn data(offset: usize, bytes: &[u8]) -> Cut {
        Cut::Data { offset: offset as u32, length: bytes.len() as u32, digest: SliceDigest::of(bytes) }
    }

    #[test]
    fn slices_follow_one_another_in_the_frame_and_zeros_take_no_room() {
        let large = [vec![0; MIB], vec![2; 5]].concat();
        let (pieces, frame) =
            read(&[("a", Some(b"abc"), 3), ("b", Some(&large), MIB as u32 + 5), ("c", Some(b"c"), 1)]);
        assert_eq!(pieces[0].cuts, [data(0, b"abc")]);
        assert_eq!(pieces[1].cuts, [Cut::Zeros { length: MIB as u32 }, data(3, &[2; 5])]);
        assert_eq!(pieces[2].cuts, [data(8, b"c")]);
        assert_eq!(frame, Some([b"abc", &[2; 5][..], b"c"].concat()));
    }

    #[test]
    fn nothing_but_zeros_makes_no_frame() {
        let (pieces, frame) = read(&[("a", Some(&[0; 9000]), 9000), ("b", Some(b""), 0)]);
        assert_eq!(pieces[0].cuts, [Cut::Zeros { length: 9000 }]);
        assert_eq!((pieces[1].cuts.len(), pieces[1].gone, frame), (0, false, None));
    }

    #[test]
    fn a_file_that_grew_is_read_up_to_its_listed_size_and_one_that_shrank_to_its_end() {
        let content = vec![7; MIB + 100];
        let listed = MIB as u32 + 200_000;
        let (pieces, _) = read(&[("grown", Some(b"abcdef"), 3), ("shrunk", Some(&content), listed)]);
        assert_eq!(pieces[0].cuts, [data(0, b"abc")]);
        assert_eq!(pieces[1].cuts, [data(3, &content[..MIB]), data(3 + MIB, &content[MIB..])]);
    }

    /// Bytes that this thread has read by system calls.
    fn bytes_read() -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").expect("io accounting");
        let count = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("what was read");
        count.parse().expect("a number")
    }

    #[test]
    fn holes_are_not_read_and_what_lies_between_them_is() {
        let mib = MIB as u64;
        let Some(file) = holes::tests::sparse(20 * mib, &[mib + 5]) else { return };
        let progress = Progress::start(Display::Silent, "copying");
        let root = file.path().parent().expect("a directory");
        let reading = Reading {
            data_directory: root.to_path_buf(),
            level: 1,
            checks: None,
            throttle: Throttle::new(None),
            progress: &progress,
            stop: Interrupt::default(),
        };
        let path = MapPath::data(file.path().strip_prefix(root).expect("within")).expect("a path");
        let attributes =
            Attributes { path, mode: FileMode::from_st_mode(0o600), mtime: Timestamp::UNIX_EPOCH };
        // One more than there are: it has shrunk since it was listed.
        let size = 21 * mib;
        let repo = Fixture::create();
        let mut packs = PackWriter::new(&repo.cluster, Id::random().expect("random"));
        let mut reader = UnitReader::new(&reading).expect("zstd");
        let mut cuts = Vec::new();
        let before = bytes_read();
        for at in (0..size).step_by(2 * MIB) {
            let length = (size - at).min(2 * mib) as u32;
            let piece = Piece { attributes: attributes.clone(), at, length, size };
            let unit = Unit { number: at / mib, steps: vec![Step::File(piece)] };
            let read = reader.read(unit, &mut packs).expect("read").steps;
            read.into_iter().for_each(|step| match step {
                ReadStep::File(piece) => cuts.extend(piece.cuts),
                ReadStep::Directory(_) => panic!("there is none"),
            });
        }
        let read = bytes_read() - before;
        assert!((mib..mib + mib / 2).contains(&read), "{read} bytes read");
        let content = [&[0; 5][..], b"data", &[0; MIB - 9]].concat();
        let hole = Cut::Zeros { length: MIB as u32 };
        assert_eq!(cuts, [vec![hole, data(0, &content)], vec![hole; 18]].concat());
    }

    #[test]
    fn a_file_that_vanished_is_gone() {
        let (pieces, frame) = read(&[("gone", None, 100), ("empty and gone", None, 0)]);
        assert!(pieces[0].gone && !pieces[1].gone && frame.is_none());
    }
}
