//! The map of a backup: for every file the slices of frames that it consists of. `files.jsonl.zst`.
//!
//! JSON lines, in independent zstd frames of about 1 MiB of lines ("chunks"), each of which can be read alone:
//! it starts with the locations of the frames that its slices refer to by number. Behind the chunks are a
//! list of them and a trailer (`repo::trailer`), which zstd skips.
//!
//! Invariants: entries are strictly in the order of [`MapPath`], except for the last chunks, which are marked
//! as final and hold what a restore writes last (`global/pg_control`); the slices of a file are contiguous
//! and cover it. Writers check both and so do readers. Memory is bounded by a chunk, except for one line of
//! the list per chunk (some 200 bytes per MiB of lines).

mod check;
mod line;
mod path;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use check::Totals;
pub use path::{MapPath, Root};
pub use reader::{Chunk, MapReader};
pub use writer::MapWriter;

use super::pack::FrameLocation;
use crate::error::{Error, Result};
use crate::pipe::digest::{Sha256Digest, SliceDigest};

/// Raw bytes of a slice, at most; zeros have no limit. So there is a digest for each MiB at least.
pub const SLICE_SIZE: u32 = 1 << 20;

/// Slices in a line, at most: a file with more continues on further lines.
pub const SLICES_IN_LINE: usize = 1024;

/// Unix permission bits (`st_mode & 07777`), written as four octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u32);

impl FileMode {
    /// From `st_mode`, whose type bits are dropped.
    pub fn from_st_mode(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    /// What a restored file or directory gets. Nothing that PostgreSQL makes lets everybody write or changes who
    /// runs it, so nothing that is restored does.
    pub fn bits(self) -> u32 {
        self.0 & 0o775
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = text.len() == 4 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = if fits { u32::from_str_radix(text, 8).ok() } else { None };
        mode.map(Self).ok_or_else(|| Error::corrupt(format!("\"{text}\" is not a mode: four octal digits")))
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What every entry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub path: MapPath,
    pub mode: FileMode,
    pub mtime: Timestamp,
}

/// A slice as a writer gives it: the next bytes of the file are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacedSlice {
    /// `length` bytes from `offset` of the frame's raw bytes; at most [`SLICE_SIZE`].
    Data { frame: FrameLocation, offset: u32, length: u32, digest: SliceDigest },
    /// Zeros, of which nothing is stored: holes and new pages.
    Zeros { length: u64 },
}

/// A slice as a reader gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// `frame` is the number of the frame in the chunk's [`Chunk::frames`].
    Data {
        length: u32,
        frame: u32,
        offset: u32,
        digest: SliceDigest,
    },
    Zeros {
        length: u64,
    },
}

impl Slice {
    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        match self {
            Slice::Data { length, .. } => u64::from(*length),
            Slice::Zeros { length } => *length,
        }
    }
}

/// One line of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory(Attributes),
    File(FilePart),
}

impl Entry {
    pub fn attributes(&self) -> &Attributes {
        match self {
            Entry::Directory(attributes) => attributes,
            Entry::File(part) => &part.attributes,
        }
    }
}

/// A file, or a part of one that has too many slices for a line. Almost every file is one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    pub attributes: Attributes,
    /// The offset in the file at which the slices begin: 0 in the first part.
    pub at: u64,
    /// Contiguous, in the order in which they lie in the file.
    pub slices: Vec<Slice>,
    /// The size of the file, in its last part; the parts before have none.
    pub size: Option<u64>,
}

impl FilePart {
    /// The offset in the file behind the last slice.
    pub fn end(&self) -> u64 {
        self.slices.iter().fold(self.at, |end, slice| end.saturating_add(slice.length()))
    }
}

/// What a backup's header says of its map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSummary {
    /// Bytes of the object.
    pub size: u64,
    /// Of the whole object: for `sha256sum`.
    pub sha256: Sha256Digest,
    /// Of the list of chunks as stored, which holds the digest of each chunk: what readers go by.
    pub list_sha256: Sha256Digest,
    pub chunks: u32,
    pub files: u64,
    pub directories: u64,
    /// The sum of the sizes of all files.
    pub raw_bytes: u64,
}
