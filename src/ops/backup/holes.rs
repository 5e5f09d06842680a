//! Holes: parts of a file that were never written, take no room on the disk and read as zeros. A cluster can
//! have a terabyte of them, and copying zeros out of the kernel to find out that they are zeros takes an hour.
//!
//! Asked is only where it helps and where the answer can be trusted: a file that is nearly all holes, on a
//! file system of which no wrong answer is known. Else the bytes are read: `docs/decisions/holes.md`.
//!
//! Invariant: what counts as a hole had no data at one moment after the file was opened, up to the size that
//! the file had before.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{SeekFrom, fstatfs, seek};
use rustix::io::Errno;

/// statfs(2)'s f_type of ext2 to ext4, XFS and tmpfs.
const TRUSTED: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// A file is asked for its holes if no more than this part of it is allocated.
const SPARSE: u64 = 8;

/// The unit of st_blocks, bytes.
const BLOCK: u64 = 512;

/// A file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holes {
    /// Bytes, before any hole was looked for: what it grows by later is nothing that was looked at.
    size: u64,
}

impl Holes {
    /// None for a file whose bytes are to be read.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let allocated = metadata.blocks().saturating_mul(BLOCK);
        if allocated > metadata.size() / SPARSE {
            return Ok(None);
        }
        let kind = fstatfs(file)?.f_type as u64;
        Ok(TRUSTED.contains(&kind).then_some(Self { size: metadata.size() }))
    }

    /// How many of the bytes from `at` up to `end` the file has, if all that it has of them is a hole.
    pub fn cover(&self, file: &File, at: u64, end: u64) -> io::Result<Option<u64>> {
        let hole = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => (data >= end).then_some(end),
            // There is no data up to the end of the file.
            Err(Errno::NXIO) => Some(end.min(self.size)),
            Err(Errno::INVAL) => None,
            Err(cause) => return Err(cause.into()),
        };
        Ok(hole.map(|hole| hole.saturating_sub(at)).filter(|length| *length > 0))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    /// A file of `size` with data at these places; None, and a line that says so, on a file system whose holes
    /// are not looked for.
    pub fn sparse(size: u64, data: &[u64]) -> Option<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(size).expect("sized");
        if Holes::of(file.as_file()).expect("looked at").is_none() {
            eprintln!("skipped: no holes are looked for on the file system of {}", file.path().display());
            return None;
        }
        data.iter().for_each(|at| file.as_file().write_all_at(b"data", *at).expect("written"));
        Some(file)
    }

    #[test]
    fn a_hole_is_told_up_to_the_next_data_or_the_end_of_the_file() {
        let Some(file) = sparse(64 * MIB, &[0, 7 * MIB + 5, 20 * MIB]) else { return };
        let holes = Holes::of(file.as_file()).expect("looked at").expect("nearly all holes");
        let cover = |at: u64, end: u64| holes.cover(file.as_file(), at * MIB, end * MIB).expect("asked");
        assert_eq!(cover(0, 1), None, "it begins with data");
        assert_eq!(cover(1, 2), Some(MIB));
        assert_eq!(cover(1, 7), Some(6 * MIB));
        assert_eq!(cover(6, 8), None, "there is data within");
        assert_eq!(cover(7, 8), None);
        assert_eq!(cover(21, 22), Some(MIB));
        assert_eq!(cover(21, 100), Some(43 * MIB), "and no more than the file has");
        assert_eq!(cover(64, 65), None);
        assert_eq!(cover(100, 101), None);
    }

    #[test]
    fn what_a_file_grew_by_since_it_was_looked_at_is_no_hole_and_what_it_lost_is_not_asked_twice() {
        let Some(file) = sparse(10 * MIB, &[]) else { return };
        let holes = Holes::of(file.as_file()).expect("looked at").expect("all hole");
        file.as_file().set_len(20 * MIB).expect("grown");
        assert_eq!(holes.cover(file.as_file(), 9 * MIB, 12 * MIB).expect("asked"), Some(MIB));
        assert_eq!(holes.cover(file.as_file(), 10 * MIB, 12 * MIB).expect("asked"), None);
        file.as_file().set_len(MIB).expect("shrunk");
        assert_eq!(holes.cover(file.as_file(), 0, 2 * MIB).expect("asked"), Some(2 * MIB), "as it was");
    }

    #[test]
    fn a_file_with_much_data_is_read_and_so_is_one_whose_file_system_is_not_known() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&vec![1; 2 << 20], 0).expect("written");
        assert_eq!(Holes::of(&file).expect("looked at"), None);
        file.set_len(8 * MIB).expect("sized");
        assert_eq!(Holes::of(&file).expect("looked at"), None, "a quarter is data");
        let proc = File::open("/proc/self/status").expect("opened");
        assert_eq!(Holes::of(&proc).expect("looked at"), None);
        assert_eq!(Holes { size: 100 }.cover(&proc, 0, 100).expect("asked"), None, "it does not know");
    }
}
