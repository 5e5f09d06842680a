//! zstd back to raw bytes: digested as stored, decompressed, counted. Nothing is trusted before the end:
//! the caller gives the sink its final name only after [`decompress`] returned success.

use std::io::{BufReader, Read, Write};

use super::digest::{Sha256Digest, Sha256Hasher};
use crate::error::{Error, Result};

/// What the bytes must turn out to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Stored bytes.
    pub stored: u64,
    pub sha256: Sha256Digest,
    /// Bytes after decompression.
    pub raw: u64,
}

/// Decompresses the next `expected.stored` bytes of `source` into `sink`. `name` is the source in messages.
///
/// Errors: `Corrupt` when the bytes are not what is expected (zstd's content checksums included);
/// `Transient` when reading or writing fails.
pub fn decompress(
    source: &mut impl Read,
    sink: &mut impl Write,
    expected: Expected,
    name: &str,
) -> Result<()> {
    let mut hashed = Hashed::new(source.take(expected.stored));
    let outcome = copy_out(&mut hashed, sink, expected.raw, name);
    if let Some(cause) = hashed.failed.take() {
        return Err(Error::io(format!("read {name}"), &cause));
    }
    outcome.and_then(|()| hashed.finish(expected, name))
}

fn copy_out(source: &mut impl Read, sink: &mut impl Write, raw: u64, name: &str) -> Result<()> {
    let damaged = |cause: &std::io::Error| Error::corrupt(format!("could not decompress {name}: {cause}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(128 << 10, source))
        .map_err(|cause| damaged(&cause))?;
    let mut buffer = vec![0; 256 << 10];
    let mut written: u64 = 0;
    loop {
        let length = decoder.read(&mut buffer).map_err(|cause| damaged(&cause))?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        written += bytes.len() as u64;
        // A lying header must not fill the disk.
        if written > raw {
            break;
        }
        sink.write_all(bytes).map_err(|cause| Error::io(format!("write what {name} holds"), &cause))?;
    }
    if written != raw {
        let found = if written > raw { "more".to_string() } else { written.to_string() };
        return Err(Error::corrupt(format!("{name} should hold {raw} bytes, but holds {found}")));
    }
    Ok(())
}

/// Digests what passes through, and keeps a failed read apart from damaged bytes.
pub(super) struct Hashed<R> {
    inner: std::io::Take<R>,
    hasher: Sha256Hasher,
    failed: Option<std::io::Error>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(length) => {
                if let Some(bytes) = buffer.get(..length) {
                    self.hasher.update(bytes);
                }
                Ok(length)
            }
            Err(cause) => {
                let kind = cause.kind();
                self.failed = Some(cause);
                Err(kind.into())
            }
        }
    }
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(inner: std::io::Take<R>) -> Self {
        Self { inner, hasher: Sha256Hasher::default(), failed: None }
    }

    pub(super) fn finish(mut self, expected: Expected, name: &str) -> Result<()> {
        // zstd stops at the end of its last frame; whatever is left belongs to the digest all the same.
        std::io::copy(&mut self, &mut std::io::sink())
            .map_err(|cause| Error::io(format!("read {name}"), &cause))?;
        if self.inner.limit() > 0 {
            let found = expected.stored - self.inner.limit();
            return Err(Error::corrupt(format!(
                "{name} should have {} bytes, but ends after {found}",
                expected.stored
            )));
        }
        let found = self.hasher.finish();
        if found != expected.sha256 {
            return Err(Error::corrupt(format!(
                "{name} is damaged: its SHA-256 is {found}, but should be {}",
                expected.sha256
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(raw: &[u8]) -> (Vec<u8>, Expected) {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("encoder");
        encoder.include_checksum(true).expect("checksum");
        encoder.write_all(raw).expect("written");
        let bytes = encoder.finish().expect("finished");
        let expected =
            Expected { stored: bytes.len() as u64, sha256: Sha256Digest::of(&bytes), raw: raw.len() as u64 };
        (bytes, expected)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let raw: Vec<u8> = (0..700_000u32).map(|i| (i / 5) as u8).collect();
        let (bytes, expected) = stored(&raw);
        let mut back = Vec::new();
        decompress(&mut &bytes[..], &mut back, expected, "x").expect("fine");
        assert_eq!(back, raw);
    }

    #[test]
    fn more_bytes_than_the_header_says_are_not_written() {
        let (bytes, expected) = stored(&vec![0; 1 << 20]);
        let mut back = Vec::new();
        let error =
            decompress(&mut &bytes[..], &mut back, Expected { raw: 10, ..expected }, "x").expect_err("lies");
        assert!(error.message().contains("holds more"), "{error}");
        assert!(back.len() <= 10);
    }

    proptest! {
        #[test]
        fn every_damage_is_found(raw: Vec<u8>, at: prop::sample::Index, flip in 1u8.., cut: bool) {
            let (mut bytes, expected) = stored(&raw);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else if let Some(byte) = bytes.get_mut(at) { *byte ^= flip }
            let error = decompress(&mut &bytes[..], &mut std::io::sink(), expected, "x").expect_err("damaged");
            prop_assert_eq!(error.kind(), crate::error::Kind::Corrupt);
        }
    }
}
