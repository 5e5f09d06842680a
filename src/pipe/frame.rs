//! Frames: one compressed, digested run of bytes, the unit in which a repository is read and verified.
//!
//! A frame is one zstd frame of its own, with its content's size in its header and a content checksum, and
//! has a SHA-256 of its stored bytes. Invariant: bytes leave [`Decompressor`] only when digest, checksum and
//! size are those that were expected; a frame that lies about its size allocates nothing beyond the
//! expected size, and nobody may expect more than [`MAX_RAW`].

use zstd::bulk;

use super::digest::Sha256Digest;
use crate::error::{Error, Result};

/// Raw bytes that a writer puts into a frame, at most. `docs/decisions/frame-size.md` has the measurements.
pub const FRAME_SIZE: usize = 2 << 20;

/// Raw bytes that a reader accepts in a frame, at most: a bound for memory whatever the repository says.
pub const MAX_RAW: usize = 16 << 20;

/// The zstd level unless the configuration says otherwise.
pub const DEFAULT_LEVEL: i32 = 1;

/// A compressed frame that waits for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What is stored.
    pub stored: Vec<u8>,
    /// Bytes before compression.
    pub raw_size: u32,
    /// Of `stored`.
    pub sha256: Sha256Digest,
}

/// Compresses frames. One per worker: it keeps the context of zstd.
pub struct Compressor(bulk::Compressor<'static>);

impl Compressor {
    pub fn new(level: i32) -> Result<Self> {
        let prepare = || {
            let mut compressor = bulk::Compressor::new(level)?;
            compressor.include_contentsize(true)?;
            compressor.include_checksum(true)?;
            Ok(Self(compressor))
        };
        prepare().map_err(|cause: std::io::Error| {
            Error::configuration(format!("could not set up zstd at level {level}: {cause}"))
        })
    }

    /// Compresses `raw`. `recycled` becomes the frame's buffer: give the one of a frame that is done with,
    /// and nothing is allocated.
    pub fn compress(&mut self, raw: &[u8], mut recycled: Vec<u8>) -> Result<Frame> {
        let raw_size = u32::try_from(raw.len())
            .ok()
            .filter(|_| raw.len() <= MAX_RAW)
            .ok_or_else(|| Error::bug(format!("a frame of {} bytes is too large", raw.len())))?;
        recycled.clear();
        recycled.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.0
            .compress_to_buffer(raw, &mut recycled)
            .map_err(|cause| Error::bug(format!("could not compress {} bytes: {cause}", raw.len())))?;
        let sha256 = Sha256Digest::of(&recycled);
        Ok(Frame { stored: recycled, raw_size, sha256 })
    }
}

/// Decompresses frames. One per worker: it keeps the context of zstd.
pub struct Decompressor(bulk::Decompressor<'static>);

impl Decompressor {
    pub fn new() -> Result<Self> {
        let decompressor = bulk::Decompressor::new()
            .map_err(|cause| Error::transient(format!("could not set up zstd: {cause}")))?;
        Ok(Self(decompressor))
    }

    /// Puts the frame's raw bytes into `raw`, whose memory is used again. `Kind::Corrupt` when anything is
    /// not as expected; the caller adds where the frame is.
    pub fn decompress(
        &mut self,
        stored: &[u8],
        raw_size: u32,
        sha256: &Sha256Digest,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let found = Sha256Digest::of(stored);
        if found != *sha256 {
            return Err(Error::corrupt(format!("its SHA-256 is {found}, expected {sha256}")));
        }
        let expected = raw_size as usize;
        if expected > MAX_RAW {
            return Err(Error::corrupt(format!("it claims {expected} bytes, more than the limit {MAX_RAW}")));
        }
        raw.clear();
        raw.reserve(expected);
        // zstd fills at most the capacity, which may be larger than asked for: a frame that holds more than
        // expected is caught by the comparison.
        let size = self
            .0
            .decompress_to_buffer(stored, raw)
            .map_err(|cause| Error::corrupt(format!("zstd can't decompress it: {cause}")))?;
        if size != expected {
            return Err(Error::corrupt(format!("it holds {size} bytes, expected {expected}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;

    fn compressed(raw: &[u8]) -> Frame {
        Compressor::new(DEFAULT_LEVEL).and_then(|mut c| c.compress(raw, Vec::new())).expect("compressed")
    }

    fn decompress(frame: &Frame) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        Decompressor::new()?.decompress(&frame.stored, frame.raw_size, &frame.sha256, &mut raw)?;
        Ok(raw)
    }

    /// The frame with other stored bytes and the digest that belongs to them.
    fn resealed(frame: &Frame, stored: Vec<u8>) -> Frame {
        Frame { sha256: Sha256Digest::of(&stored), stored, ..*frame }
    }

    #[test]
    fn buffers_are_used_again_without_growing() {
        let mut compressor = Compressor::new(DEFAULT_LEVEL).expect("zstd");
        let mut decompressor = Decompressor::new().expect("zstd");
        let (mut buffer, mut raw) = (Vec::new(), Vec::new());
        let mut capacities = None;
        for round in 0..3u8 {
            let bytes = vec![round; FRAME_SIZE];
            let frame = compressor.compress(&bytes, buffer).expect("compressed");
            decompressor
                .decompress(&frame.stored, frame.raw_size, &frame.sha256, &mut raw)
                .expect("decompressed");
            assert_eq!(raw, bytes);
            buffer = frame.stored;
            assert_eq!(
                *capacities.get_or_insert((buffer.capacity(), raw.capacity())),
                (buffer.capacity(), raw.capacity())
            );
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_size_is_refused_without_allocating_it() {
        // The largest content size that zstd's header can hold, behind magic and descriptor
        // (8-byte content size, single segment): RFC 8878, section 3.1.1.1.
        let mut lying = vec![0x28, 0xB5, 0x2F, 0xFD, 0xE0];
        lying.extend_from_slice(&[0xFF; 8]);
        lying.extend_from_slice(&[1, 0, 0]);
        let frame = resealed(&compressed(b"x"), lying);
        assert!(decompress(&frame).is_err_and(|error| error.kind() == Kind::Corrupt));
        for raw_size in [0, 4, 6, MAX_RAW as u32 + 1, u32::MAX] {
            let frame = Frame { raw_size, ..compressed(b"hello") };
            assert!(decompress(&frame).is_err_and(|error| error.kind() == Kind::Corrupt), "{raw_size}");
        }
    }

    #[test]
    fn the_stored_bytes_are_an_ordinary_zstd_file() {
        let raw = vec![7; 100_000];
        assert_eq!(zstd::decode_all(compressed(&raw).stored.as_slice()).expect("zstd"), raw);
    }

    proptest! {
        #[test]
        fn bytes_survive_their_frame(raw: Vec<u8>) {
            prop_assert_eq!(decompress(&compressed(&raw)), Ok(raw));
        }

        #[test]
        fn any_damage_is_corruption(raw: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut frame = compressed(&raw);
            let at = at.index(frame.stored.len());
            frame.stored[at] ^= 1 << bit;
            prop_assert!(decompress(&frame).is_err_and(|error| error.kind() == Kind::Corrupt));
        }

        #[test]
        fn damage_under_a_matching_digest_never_panics(raw: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let frame = compressed(&raw);
            let mut stored = frame.stored.clone();
            let at = at.index(stored.len());
            stored[at] = byte;
            // zstd ignores one reserved bit, so some damage changes nothing; it must never change the bytes.
            if let Ok(found) = decompress(&resealed(&frame, stored)) {
                prop_assert_eq!(found, raw);
            }
        }
    }
}
