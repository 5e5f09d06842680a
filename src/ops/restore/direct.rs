//! Writing large runs of bytes past the page cache (O_DIRECT). Several threads that write into one file through
//! the cache wait for each other, since the kernel locks the file for each write, and what they wrote has to be
//! written once more to the disk. `docs/decisions/direct-writes.md` has the measurements.
//!
//! Refuses nothing: what a file system does not do directly, or what is too short or not aligned, is left to
//! the caller to write as usual.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl};
use rustix::io::Errno;

/// Of the place in the file, the length and the memory, bytes: no disk's sectors are larger.
const ALIGNMENT: usize = 4096;
/// Shorter runs are better gathered by the page cache.
const LEAST: usize = 256 << 10;

/// One per thread: it keeps the memory.
#[derive(Debug, Default)]
pub struct DirectWriter {
    buffer: Vec<u8>,
    /// This file system does not do it.
    refused: bool,
}

impl DirectWriter {
    /// Writes the beginning of `bytes` to `at`, and says how much of it that was.
    pub fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        let length = bytes.len() - bytes.len() % ALIGNMENT;
        let aligned = at.is_multiple_of(ALIGNMENT as u64);
        let Some(bytes) = bytes.get(..length).filter(|_| !self.refused && aligned && length >= LEAST) else {
            return Ok(0);
        };
        reserve(file, at, length as u64)?;
        let written = fcntl_setfl(file, OFlags::DIRECT).map_err(io::Error::from).and_then(|()| {
            file.write_all_at(place_aligned(&mut self.buffer, bytes), at)?;
            Ok(fcntl_setfl(file, OFlags::empty())?)
        });
        match written {
            Ok(()) => Ok(length),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
                self.refused = true;
                fcntl_setfl(file, OFlags::empty())?;
                Ok(0)
            }
            Err(cause) => Err(cause),
        }
    }
}

/// Where blocks are allocated and the file is long enough already, ext4 and XFS let several threads write at a time
/// (ext4_dio_write_checks, xfs_file_dio_write_aligned). Where that can't be done, writing does it.
fn reserve(file: &File, at: u64, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), at, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}

/// A copy of `bytes` in aligned memory.
fn place_aligned<'b>(buffer: &'b mut Vec<u8>, bytes: &[u8]) -> &'b [u8] {
    let room = bytes.len() + ALIGNMENT;
    if buffer.len() < room {
        buffer.resize(room, 0);
    }
    let first = buffer.as_ptr().align_offset(ALIGNMENT);
    let place = &mut buffer[first..][..bytes.len()];
    place.copy_from_slice(bytes);
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn large_runs_are_written_and_the_rest_is_left_to_the_caller() {
        let file = tempfile::tempfile().expect("a file");
        let bytes = pattern(LEAST + ALIGNMENT + 5);
        let mut writer = DirectWriter::default();
        let written = writer.write(&file, &bytes, 3 * ALIGNMENT as u64).expect("written");
        if writer.refused {
            assert_eq!(written, 0);
        } else {
            assert_eq!(written, LEAST + ALIGNMENT);
            let mut found = vec![0; written];
            file.read_exact_at(&mut found, 3 * ALIGNMENT as u64).expect("read");
            assert_eq!(found, bytes[..written]);
        }
        // As usual again.
        file.write_all_at(b"x", 1).expect("unaligned");
        assert_eq!(writer.write(&file, &bytes, 1).expect("not aligned"), 0);
        assert_eq!(writer.write(&file, &bytes[..LEAST - 1], 0).expect("too short"), 0);
    }

    #[test]
    fn a_file_that_can_not_be_written_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("f"), "").expect("made");
        let file = File::open(dir.path().join("f")).expect("opened for reading");
        assert!(DirectWriter::default().write(&file, &pattern(LEAST), 0).is_err());
    }

    #[test]
    fn what_does_not_take_direct_writes_is_left_to_the_caller() {
        let (_reader, pipe) = io::pipe().expect("a pipe");
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let outcome = DirectWriter::default().write(&file, &pattern(LEAST), 0);
        assert!(outcome.is_err(), "a pipe has no places to write to");
    }

    proptest! {
        #[test]
        fn the_copy_is_aligned_and_the_same(length in 0usize..9000, before in 0usize..9000) {
            let mut buffer = vec![1; before];
            let bytes = pattern(length);
            let copy = place_aligned(&mut buffer, &bytes);
            prop_assert_eq!(copy.as_ptr().align_offset(ALIGNMENT), 0);
            prop_assert_eq!(copy, &bytes[..]);
        }
    }
}
