//! The lines of a map as JSON, and of the list of its chunks. What they say together is checked by the reader.
//!
//!     {"frames":[{"pack":…,"offset":…,"stored":…,"raw":…,"sha256":…},…]}
//!     {"kind":"directory","path":"base","mode":"0700","mtime":"2026-11-23T03:10:00Z"}
//!     {"kind":"file","path":"base/5/1259","mode":"0600","mtime":…,"size":16384,"slices":[[8192,0,0,"<hex>"],[8192]]}
//!
//! A slice is `[length, frame, offset in frame, digest]`, or `[length]` for zeros. A part of a larger file has
//! `"at"` unless it is the first, and `"more":true` instead of `"size"` unless it is the last.

use std::fmt;

use jiff::Timestamp;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Attributes, Entry, FileMode, FilePart, MapPath, Root, SLICE_SIZE, SLICES_IN_LINE, Slice};
use crate::error::{Error, Result};
use crate::pipe::digest::Sha256Digest;
use crate::repo::pack::FrameLocation;

/// Frames in one line, at most.
pub(super) const FRAMES_IN_LINE: usize = 256;

/// Bytes of a file: the kernel's offsets are signed.
const LARGEST_FILE: u64 = i64::MAX as u64;

/// Any line of a chunk, with what each kind may have.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<Vec<FrameLocation>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Root::is_data")]
    root: Root,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<FileMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtime: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    more: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slices: Option<Vec<Slice>>,
}

/// A line of the list: where a chunk is, what it must be, and what it begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunkLine {
    pub offset: u64,
    pub stored: u32,
    pub raw: u32,
    pub sha256: Sha256Digest,
    #[serde(default, skip_serializing_if = "Root::is_data")]
    pub root: Root,
    /// Of the first entry.
    pub path: String,
    /// Of the first entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub at: u64,
    #[serde(default, rename = "final", skip_serializing_if = "is_false")]
    pub is_final: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Line {
    pub fn frames(frames: &[FrameLocation]) -> Self {
        Self { frames: Some(frames.to_vec()), ..Self::default() }
    }

    /// The entry of a line that is not one of frames. `frames` are those of its chunk.
    pub fn into_entry(self, frames: &[FrameLocation]) -> Result<Entry> {
        let missing = |what: &str| Error::corrupt(format!("a line without \"{what}\""));
        let text = self.path.ok_or_else(|| missing("path"))?;
        let attributes = Attributes {
            path: MapPath::from_text(self.root, &text)?,
            mode: self.mode.ok_or_else(|| missing("mode"))?,
            mtime: self.mtime.ok_or_else(|| missing("mtime"))?,
        };
        match self.kind.as_deref() {
            Some("directory") => Ok(Entry::Directory(attributes)),
            Some("file") => {
                let slices = self.slices.ok_or_else(|| missing("slices"))?;
                let part = FilePart { attributes, at: self.at, slices, size: self.size };
                check_part(&part, self.more, frames)?;
                Ok(Entry::File(part))
            }
            Some(other) => Err(Error::corrupt(format!("\"{text}\" is of the unknown kind \"{other}\""))),
            None => Err(missing("kind")),
        }
    }
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        let attributes = entry.attributes();
        let line = Self {
            root: attributes.path.root(),
            path: Some(attributes.path.text()),
            mode: Some(attributes.mode),
            mtime: Some(attributes.mtime),
            ..Self::default()
        };
        match entry {
            Entry::Directory(_) => Self { kind: Some("directory".into()), ..line },
            Entry::File(part) => Self {
                kind: Some("file".into()),
                at: part.at,
                size: part.size,
                more: part.size.is_none(),
                slices: Some(part.slices.clone()),
                ..line
            },
        }
    }
}

/// What must hold for a part on its own.
fn check_part(part: &FilePart, more: bool, frames: &[FrameLocation]) -> Result<()> {
    let wrong = |what: String| Error::corrupt(format!("\"{}\" {what}", part.attributes.path));
    if part.slices.len() > SLICES_IN_LINE {
        return Err(wrong(format!("has {} slices in one line", part.slices.len())));
    }
    if more != part.size.is_none() {
        return Err(wrong("needs either a size or more lines".to_string()));
    }
    let mut end = part.at;
    for slice in &part.slices {
        check_slice(slice, frames).map_err(|error| wrong(format!("has {error}")))?;
        let next = end.checked_add(slice.length()).filter(|end| *end <= LARGEST_FILE);
        end = next.ok_or_else(|| wrong("is larger than a file can be".into()))?;
    }
    match part.size {
        Some(size) if size != end => Err(wrong(format!("has slices up to byte {end}, expected {size}"))),
        None if end == part.at => Err(wrong("continues without slices".to_string())),
        _ => Ok(()),
    }
}

pub(super) fn check_slice(slice: &Slice, frames: &[FrameLocation]) -> Result<()> {
    let (length, frame, offset) = match *slice {
        Slice::Data { length, frame, offset, .. } => (length, frame, offset),
        Slice::Zeros { length: 0 } => return Err(Error::corrupt("a slice of no zeros")),
        Slice::Zeros { .. } => return Ok(()),
    };
    let location = frames
        .get(frame as usize)
        .ok_or_else(|| Error::corrupt(format!("a slice of frame {frame}, and there are {}", frames.len())))?;
    let within = offset.checked_add(length).is_some_and(|end| end <= location.raw);
    if length == 0 || length > SLICE_SIZE || !within {
        return Err(Error::corrupt(format!(
            "a slice of {length} bytes from byte {offset} of a frame of {}",
            location.raw
        )));
    }
    Ok(())
}

impl Serialize for Slice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Slice::Data { length, frame, offset, digest } => {
                let mut tuple = serializer.serialize_tuple(4)?;
                tuple.serialize_element(length)?;
                tuple.serialize_element(frame)?;
                tuple.serialize_element(offset)?;
                tuple.serialize_element(digest)?;
                tuple.end()
            }
            Slice::Zeros { length } => {
                let mut tuple = serializer.serialize_tuple(1)?;
                tuple.serialize_element(length)?;
                tuple.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Slice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(SliceVisitor)
    }
}

struct SliceVisitor;

impl<'de> Visitor<'de> for SliceVisitor {
    type Value = Slice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a slice: [length, frame, offset, digest], or [length] for zeros")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Slice, A::Error> {
        let short = |count| serde::de::Error::invalid_length(count, &self);
        let length: u64 = seq.next_element()?.ok_or_else(|| short(0))?;
        let Some(frame) = seq.next_element()? else {
            return Ok(Slice::Zeros { length });
        };
        let length = u32::try_from(length).map_err(|_| serde::de::Error::custom("a slice is too long"))?;
        let offset = seq.next_element()?.ok_or_else(|| short(2))?;
        let digest = seq.next_element()?.ok_or_else(|| short(3))?;
        Ok(Slice::Data { length, frame, offset, digest })
    }
}
