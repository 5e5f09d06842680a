//! How a pack and a map end: a list of what they hold, then a trailer of fixed size that says where the list is.
//!
//! Both are skippable frames (RFC 8878, section 3.1.2), so that `zstd -dc` of the whole object yields its
//! content and nothing else. The list is JSON lines in one zstd frame. The trailer carries the list's
//! SHA-256 and a CRC-32C of itself. Everything is little-endian:
//!
//!     0   u32      magic number of a skippable frame, 0x184D2A5B
//!     4   u32      76, the bytes that follow
//!     8   [u8;12]  what this object is, padded with zeros: "pgark pack", "pgark map"
//!     20  u32      version, 1
//!     24  u64      offset of the list's zstd frame in the object
//!     32  u64      its length as stored
//!     40  u64      its length before compression
//!     48  [u8;32]  its SHA-256 as stored
//!     80  u32      CRC-32C of the 80 bytes before

use std::ops::Range;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::pipe::digest::Sha256Digest;
use crate::pipe::frame::{Decompressor, Frame, MAX_RAW};
use crate::store::{Key, Store};

/// The magic number of our skippable frames: one of the sixteen that the standard leaves to us.
const SKIPPABLE: u32 = 0x184D_2A5B;
const SKIPPABLE_HEADER: u64 = 8;
const LENGTH: usize = 84;
const VERSION: u32 = 1;

/// What an object with a trailer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    Pack,
    Map,
}

impl Sealed {
    fn magic(self) -> &'static [u8; 12] {
        match self {
            Sealed::Pack => b"pgark pack\0\0",
            Sealed::Map => b"pgark map\0\0\0",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Sealed::Pack => "pack",
            Sealed::Map => "map",
        }
    }
}

/// The list of an object, and how far the object's content goes.
pub struct List {
    /// JSON lines.
    pub lines: Vec<u8>,
    /// Of the list as stored: the one digest that vouches for all that the list vouches for.
    pub sha256: Sha256Digest,
    /// The bytes before the list.
    pub content: u64,
}

/// The bytes that end an object: `list` goes behind `content` bytes.
pub fn seal(sealed: Sealed, list: &Frame, content: u64) -> Result<Vec<u8>> {
    let stored = u32::try_from(list.stored.len()).map_err(|_| Error::bug("the list is too large"))?;
    let mut trailer = Vec::with_capacity(LENGTH);
    trailer.extend_from_slice(&skippable_header(LENGTH - 8));
    trailer.extend_from_slice(sealed.magic());
    trailer.extend_from_slice(&VERSION.to_le_bytes());
    trailer.extend_from_slice(&(content + SKIPPABLE_HEADER).to_le_bytes());
    trailer.extend_from_slice(&u64::from(stored).to_le_bytes());
    trailer.extend_from_slice(&u64::from(list.raw_size).to_le_bytes());
    trailer.extend_from_slice(&list.sha256.0);
    trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
    Ok([&skippable_header(list.stored.len()), list.stored.as_slice(), &trailer].concat())
}

/// JSON lines, one for each item.
pub fn lines<T: Serialize>(items: &[T]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for item in items {
        serde_json::to_writer(&mut lines, item)
            .map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Reads the list of an object of `size` bytes. `Kind::Corrupt` when it or the trailer is damaged.
pub fn read_list(store: &Store, key: &Key, size: u64, sealed: Sealed) -> Result<List> {
    read(store, key, size, sealed).map_err(|error| match error.kind() {
        Kind::Corrupt => error.context(format!("could not read the list of {}", store.name(key))),
        _ => error,
    })
}

fn read(store: &Store, key: &Key, size: u64, sealed: Sealed) -> Result<List> {
    let start = size
        .checked_sub(LENGTH as u64)
        .ok_or_else(|| Error::corrupt(format!("{size} bytes are too few for a {}", sealed.name())))?;
    let trailer = Trailer::parse(&store.get_range(key, start..size)?, sealed)?;
    let range = trailer.list_range(start)?;
    let content = range.start - SKIPPABLE_HEADER;
    let framed = store.get_range(key, content..range.end)?;
    let (header, stored) = framed
        .split_at_checked(SKIPPABLE_HEADER as usize)
        .ok_or_else(|| Error::corrupt("the list ends too early"))?;
    if header != skippable_header(stored.len()) {
        return Err(Error::corrupt(format!("no list begins at byte {content}")));
    }
    let mut lines = Vec::new();
    Decompressor::new()?.decompress(stored, trailer.raw, &trailer.sha256, &mut lines)?;
    Ok(List { lines, sha256: trailer.sha256, content })
}

fn skippable_header(length: usize) -> [u8; 8] {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&SKIPPABLE.to_le_bytes());
    header[4..].copy_from_slice(&(length as u32).to_le_bytes());
    header
}

struct Trailer {
    offset: u64,
    stored: u64,
    raw: u32,
    sha256: Sha256Digest,
}

impl Trailer {
    fn parse(bytes: &[u8], sealed: Sealed) -> Result<Self> {
        let damaged = || Error::corrupt(format!("no trailer of a {} at its end", sealed.name()));
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| damaged())?;
        let known = bytes[..8] == skippable_header(LENGTH - 8) && bytes[8..20] == *sealed.magic();
        let crc = u32_at(bytes, 80);
        if !known {
            return Err(damaged());
        }
        let found = crc32c::crc32c(&bytes[..80]);
        if found != crc {
            return Err(Error::corrupt(format!("the trailer's CRC-32C is {found:08x}, expected {crc:08x}")));
        }
        let version = u32_at(bytes, 20);
        if version != VERSION {
            return Err(Error::configuration(format!(
                "this {} has version {version}; this program reads version {VERSION}",
                sealed.name()
            ))
            .with_hint("use a newer pgark"));
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[48..80]);
        let raw = u64_at(bytes, 40);
        let raw = u32::try_from(raw)
            .ok()
            .filter(|raw| *raw as usize <= MAX_RAW)
            .ok_or_else(|| Error::corrupt(format!("its list claims {raw} bytes")))?;
        let (offset, stored) = (u64_at(bytes, 24), u64_at(bytes, 32));
        Ok(Self { offset, stored, raw, sha256: Sha256Digest(sha256) })
    }

    /// Where the list is; it ends where the trailer starts.
    fn list_range(&self, trailer_start: u64) -> Result<Range<u64>> {
        let ends = self.offset.checked_add(self.stored) == Some(trailer_start);
        if !ends || self.offset < SKIPPABLE_HEADER || self.stored > 2 * MAX_RAW as u64 {
            return Err(Error::corrupt(format!(
                "its list can't be at bytes {} to {} before a trailer at {trailer_start}",
                self.offset,
                self.offset.saturating_add(self.stored)
            )));
        }
        Ok(self.offset..trailer_start)
    }
}

fn u32_at(bytes: &[u8; LENGTH], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8; LENGTH], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::frame::{Compressor, DEFAULT_LEVEL};
    use crate::repo::fixture::Fixture;
    use crate::repo::layout::Id;
    use proptest::prelude::*;

    fn sealed(sealed_as: Sealed, lines: &[u8], content: &[u8]) -> Vec<u8> {
        let list =
            Compressor::new(DEFAULT_LEVEL).and_then(|mut c| c.compress(lines, Vec::new())).expect("list");
        [content, &seal(sealed_as, &list, content.len() as u64).expect("sealed")].concat()
    }

    fn read(fixture: &Fixture, object: &[u8], sealed: Sealed) -> Result<List> {
        let key = fixture.cluster.layout().staging(Id::random()?)?;
        fixture.cluster.store().create(&key, object.to_vec())?;
        read_list(fixture.cluster.store(), &key, object.len() as u64, sealed)
    }

    #[test]
    fn an_object_ends_with_its_list_which_zstd_skips() {
        let fixture = Fixture::create();
        let content = zstd::encode_all(&b"content"[..], 1).expect("zstd");
        let object = sealed(Sealed::Pack, b"{}\n", &content);
        let list = read(&fixture, &object, Sealed::Pack).expect("read");
        assert_eq!((list.lines.as_slice(), list.content), (&b"{}\n"[..], content.len() as u64));
        assert_eq!(zstd::decode_all(object.as_slice()).expect("zstd"), b"content");
    }

    #[test]
    fn another_kind_of_object_and_another_version_are_refused() {
        let fixture = Fixture::create();
        let mut object = sealed(Sealed::Pack, b"", b"");
        assert!(read(&fixture, &object, Sealed::Map).is_err_and(|error| error.kind() == Kind::Corrupt));
        let trailer = object.len() - LENGTH;
        object[trailer + 20] = 2;
        let crc = crc32c::crc32c(&object[trailer..trailer + 80]);
        object[trailer + 80..].copy_from_slice(&crc.to_le_bytes());
        assert!(
            read(&fixture, &object, Sealed::Pack).is_err_and(|error| error.kind() == Kind::Configuration)
        );
    }

    #[test]
    fn every_bit_of_a_list_and_its_trailer_counts() {
        let fixture = Fixture::create();
        let object = sealed(Sealed::Map, b"{\"a\":1}\n", b"content");
        for bit in 7 * 8..object.len() * 8 {
            let mut damaged = object.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let outcome = read(&fixture, &damaged, Sealed::Map);
            assert!(outcome.is_err_and(|error| error.kind() == Kind::Corrupt), "bit {bit}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn reading_a_list_of_any_bytes_never_panics(
            content in prop::collection::vec(any::<u8>(), 0..40),
            offset: u64,
            stored: u64,
            raw: u64,
        ) {
            let fixture = Fixture::create();
            let mut object = sealed(Sealed::Map, b"{}\n", &content);
            let trailer = object.len() - LENGTH;
            for (at, number) in [(24, offset), (32, stored), (40, raw)] {
                object[trailer + at..trailer + at + 8].copy_from_slice(&number.to_le_bytes());
            }
            let crc = crc32c::crc32c(&object[trailer..trailer + 80]);
            object[trailer + 80..].copy_from_slice(&crc.to_le_bytes());
            prop_assert!(read(&fixture, &object, Sealed::Map).is_err());
            prop_assert!(read(&fixture, &content, Sealed::Map).is_err());
        }
    }
}
