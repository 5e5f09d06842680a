//! zstd back to raw bytes by several threads, each frame straight to its place in a file.
//!
//! Whoever is free takes the next frame from the source, one at a time, and alone decompresses it and writes it:
//! the bytes stay with one core. What `compress` writes has frames of 512 KiB; bytes that are not cut into frames
//! of a known, moderate size are left to [`decompress`](super::decompress), which reads everything.
//!
//! Invariant: memory holds a frame as stored and as raw bytes per worker. Nothing in the file is to be trusted
//! before [`unpack`] returned success.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decompress::{Expected, Hashed};
use crate::error::{Error, IoContext, Result};
use crate::threads;

/// Raw bytes of a frame, at most.
const MOST: u64 = 1 << 20;
/// Stored bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// Stored bytes of a frame, at most: zstd stores what it can't compress with a few bytes around it.
const MOST_STORED: usize = (1 << 20) + (64 << 10);

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    Whole,
    /// It has a frame that is too large or does not say how large it is: to be read from the start again.
    NotInFrames,
}

/// Decompresses the next `expected.stored` bytes of `source` into `file`. `name` is the source in messages.
/// Errors as those of [`decompress`](super::decompress::decompress).
pub fn unpack(
    source: impl Read + Send,
    file: &File,
    expected: Expected,
    workers: usize,
    name: &str,
) -> Result<Unpacked> {
    let frames = Frames { source: Hashed::new(source.take(expected.stored)), ahead: Vec::new(), at: 0 };
    let work = Work { frames: Mutex::new(State { frames, ended: None }), file, expected, name };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            // Fewer hands do it too.
            if threads::start(scope, "unpack", || work.run()).is_err() {
                break;
            }
        }
        work.run();
    });
    let State { frames, ended } = work.frames.into_inner().unwrap_or_else(PoisonError::into_inner);
    match ended.unwrap_or(Err(Error::bug("nobody unpacked the frames")))? {
        End::NotInFrames => return Ok(Unpacked::NotInFrames),
        End::Source => {}
    }
    if frames.at != expected.raw {
        return Err(Error::corrupt(format!(
            "{name} should hold {} bytes, but holds {}",
            expected.raw, frames.at
        )));
    }
    frames.source.finish(expected, name).map(|()| Unpacked::Whole)
}

/// Why no more frames are taken.
enum End {
    Source,
    NotInFrames,
}

struct State<R> {
    frames: Frames<R>,
    /// The first reason counts.
    ended: Option<Result<End>>,
}

struct Work<'a, R> {
    frames: Mutex<State<R>>,
    file: &'a File,
    expected: Expected,
    name: &'a str,
}

impl<R: Read> Work<'_, R> {
    fn run(&self) {
        let end = self.take_frames();
        let mut state = self.lock();
        match (&state.ended, end) {
            (None | Some(Ok(_)), Err(error)) => state.ended = Some(Err(error)),
            (None, end) => state.ended = Some(end),
            (Some(_), _) => {}
        }
    }

    fn take_frames(&self) -> Result<End> {
        let (mut stored, mut raw) = (Vec::new(), Vec::new());
        let mut decompressor = zstd::bulk::Decompressor::new()
            .map_err(|cause| Error::transient(format!("could not set up zstd: {cause}")))?;
        loop {
            let taken = {
                let mut state = self.lock();
                if state.ended.is_some() {
                    return Ok(End::Source);
                }
                state.frames.take(&mut stored, self.name)?
            };
            let (at, size) = match taken {
                Taken::Frame { at, size } => (at, size),
                Taken::End => return Ok(End::Source),
                Taken::Unknown => return Ok(End::NotInFrames),
            };
            // A lying header must not fill the disk.
            if at.saturating_add(size) > self.expected.raw {
                return Err(self.damaged(&format!("it holds more than {} bytes", self.expected.raw)));
            }
            raw.clear();
            raw.reserve(size as usize);
            let found = decompressor
                .decompress_to_buffer(&stored, &mut raw)
                .map_err(|cause| self.damaged(&cause.to_string()))?;
            if found as u64 != size {
                return Err(self.damaged(&format!("a frame holds {found} bytes, not {size}")));
            }
            self.file.write_all_at(&raw, at).doing(|| format!("write what {} holds", self.name))?;
        }
    }

    fn damaged(&self, cause: &str) -> Error {
        Error::corrupt(format!("could not decompress {}: {cause}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frames of a source, one after the other.
struct Frames<R> {
    source: Hashed<R>,
    /// Read, and not taken yet.
    ahead: Vec<u8>,
    /// Where the next frame's raw bytes go.
    at: u64,
}

#[derive(Debug)]
enum Taken {
    Frame { at: u64, size: u64 },
    End,
    Unknown,
}

impl<R: Read> Frames<R> {
    /// Moves the next frame into `stored`.
    fn take(&mut self, stored: &mut Vec<u8>, name: &str) -> Result<Taken> {
        loop {
            if let Ok(length) = zstd::zstd_safe::find_frame_compressed_size(&self.ahead) {
                let known = zstd::zstd_safe::get_frame_content_size(&self.ahead).ok().flatten();
                let Some(size) = known.filter(|size| *size <= MOST) else { return Ok(Taken::Unknown) };
                stored.clear();
                stored.extend(self.ahead.drain(..length.min(self.ahead.len())));
                let at = self.at;
                self.at = at.saturating_add(size);
                return Ok(Taken::Frame { at, size });
            }
            if self.ahead.len() > MOST_STORED {
                return Ok(Taken::Unknown);
            }
            if self.read_on(name)? == 0 {
                return match self.ahead.as_slice() {
                    [] => Ok(Taken::End),
                    // Cut off, or no zstd at all: whoever reads all of it knows.
                    _ => Ok(Taken::Unknown),
                };
            }
        }
    }

    fn read_on(&mut self, name: &str) -> Result<usize> {
        let read = (&mut self.source).take(PIECE as u64).read_to_end(&mut self.ahead);
        read.map_err(|cause| Error::io(format!("read {name}"), &cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::pipe::digest::Sha256Digest;
    use proptest::prelude::*;
    use std::io::{Seek, Write};

    const FRAME: usize = 10_000;

    /// Frames of different sizes, the last one short.
    fn stored(raw: &[u8], frame: usize, sized: bool) -> (Vec<u8>, Expected) {
        let mut bytes = Vec::new();
        for chunk in raw.chunks(frame) {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("encoder");
            encoder.include_checksum(true).expect("checksum");
            encoder.include_contentsize(sized).expect("content size");
            if sized {
                encoder.set_pledged_src_size(Some(chunk.len() as u64)).expect("size");
            }
            encoder.write_all(chunk).expect("written");
            bytes.extend(encoder.finish().expect("finished"));
        }
        let expected =
            Expected { stored: bytes.len() as u64, sha256: Sha256Digest::of(&bytes), raw: raw.len() as u64 };
        (bytes, expected)
    }

    fn unpacked(bytes: &[u8], expected: Expected, workers: usize) -> Result<(Unpacked, Vec<u8>)> {
        let mut file = tempfile::tempfile().expect("a file");
        let outcome = unpack(bytes, &file, expected, workers, "x")?;
        let mut found = Vec::new();
        file.rewind().expect("rewound");
        file.read_to_end(&mut found).expect("read");
        Ok((outcome, found))
    }

    fn raw() -> Vec<u8> {
        (0..25 * FRAME + 7).map(|at| (at / 3 % 251) as u8).collect()
    }

    #[test]
    fn frames_land_in_their_places_whoever_takes_them() {
        let (bytes, expected) = stored(&raw(), FRAME, true);
        for workers in [1, 2, 5] {
            assert_eq!(unpacked(&bytes, expected, workers), Ok((Unpacked::Whole, raw())));
        }
        let (bytes, expected) = stored(&[], FRAME, true);
        assert_eq!(unpacked(&bytes, expected, 2), Ok((Unpacked::Whole, vec![])));
    }

    #[test]
    fn what_is_not_cut_into_moderate_frames_is_left_to_others() {
        let (bytes, expected) = stored(&raw(), FRAME, false);
        assert_eq!(unpacked(&bytes, expected, 2).map(|(outcome, _)| outcome), Ok(Unpacked::NotInFrames));
        let large: Vec<u8> =
            (0..(MOST as u32) / 2).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let (bytes, expected) = stored(&large, large.len(), true);
        assert_eq!(unpacked(&bytes, expected, 2).map(|(outcome, _)| outcome), Ok(Unpacked::NotInFrames));
    }

    #[test]
    fn lies_about_sizes_and_digests_are_refused() {
        let (bytes, expected) = stored(&raw(), FRAME, true);
        let refused = |expected| unpacked(&bytes, expected, 2).expect_err("refused");
        for raw in [expected.raw - 1, expected.raw + 1] {
            assert_eq!(refused(Expected { raw, ..expected }).kind(), Kind::Corrupt);
        }
        let other = Expected { sha256: Sha256Digest::of(b"other"), ..expected };
        assert!(refused(other).message().contains("its SHA-256 is"));
        let longer = refused(Expected { stored: expected.stored + 1, ..expected });
        assert!(longer.message().contains("but ends after"), "{longer}");
    }

    #[test]
    fn a_file_that_can_not_be_written_is_an_error() {
        let (bytes, expected) = stored(&raw(), FRAME, true);
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let error = unpack(&bytes[..], &full, expected, 2, "x").expect_err("full");
        assert!(error.message().contains("could not write what x holds"), "{error}");
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_never_taken_for_whole(at in 0usize..5000, flip in 1u8.., workers in 1usize..4) {
            let (mut bytes, expected) = stored(&raw(), FRAME, true);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok((outcome, _)) = unpacked(&bytes, expected, workers) {
                prop_assert_eq!(outcome, Unpacked::NotInFrames);
            }
        }
    }
}
