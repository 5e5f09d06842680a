//! Raw bytes to zstd: read once, compressed and digested side by side, gathered in order.
//!
//! The input is cut into chunks; each becomes a zstd frame of its own with a content checksum, and frames
//! one after the other are again a zstd file. Level 1 has a window of 512 KiB, so that cutting costs next
//! to nothing in size, and several cores can work on one segment.
//!
//! Each worker does all the work on a chunk itself: it reads the next one (one at a time may), compresses it,
//! waits for its turn, and hands both forms on. So a chunk stays in one core's cache, and no thread waits for
//! another except where order asks for it.
//!
//! Invariant: memory holds two chunks per worker and the compressed output up to `Body::MEMORY`; the rest
//! of it goes to an unnamed file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::digest::{RawDigest, RawHasher, Sha256Digest, Sha256Hasher};
use crate::error::{Error, IoContext, Result};

/// Raw bytes per frame.
const CHUNK: usize = 512 << 10;

/// How to compress.
#[derive(Clone, Debug)]
pub struct Options {
    /// zstd level.
    pub level: i32,
    /// Threads that compress, at least one.
    pub workers: usize,
    /// Where output beyond [`Body::MEMORY`] goes.
    pub spool: PathBuf,
}

/// The compressed output, to be read once from its start.
#[derive(Debug)]
pub enum Body {
    Memory(Vec<u8>),
    /// An unnamed file and its length in bytes.
    Spooled(File, u64),
}

impl Body {
    /// Bytes of output that are kept in memory.
    pub const MEMORY: usize = 64 << 20;

    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Spooled(_, length) => *length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn append(&mut self, bytes: &[u8], spool: &Path) -> Result<()> {
        if let Body::Memory(kept) = self {
            if kept.len() + bytes.len() <= Self::MEMORY {
                kept.extend_from_slice(bytes);
                return Ok(());
            }
            let mut file = tempfile::tempfile_in(spool).map_err(|cause| spool_failed(&cause, spool))?;
            file.write_all(kept).map_err(|cause| spool_failed(&cause, spool))?;
            *self = Body::Spooled(file, kept.len() as u64);
        }
        if let Body::Spooled(file, length) = self {
            file.write_all(bytes).map_err(|cause| spool_failed(&cause, spool))?;
            *length += bytes.len() as u64;
        }
        Ok(())
    }

    /// Back to the start, for reading.
    fn rewind(&mut self) -> Result<()> {
        match self {
            Body::Memory(_) => Ok(()),
            Body::Spooled(file, _) => {
                file.seek(SeekFrom::Start(0)).map(drop).doing(|| "rewind the spool file")
            }
        }
    }
}

fn spool_failed(cause: &std::io::Error, spool: &Path) -> Error {
    Error::io(format!("write a spool file in {}", spool.display()), cause)
        .with_hint("set `spool` in the configuration to a directory with room for one compressed segment")
}

/// What came of the input.
#[derive(Debug)]
pub struct Compressed {
    pub body: Body,
    /// Of the body's bytes.
    pub sha256: Sha256Digest,
    /// Of the input.
    pub raw: RawDigest,
    /// Bytes of input.
    pub raw_size: u64,
}

/// Reads `source` to its end. `observe` sees every byte of it, in order, on any thread.
/// `name` is what messages call the source.
pub fn compress(
    source: &mut (dyn Read + Send),
    name: &str,
    options: &Options,
    observe: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Compressed> {
    let work = Work {
        level: options.level,
        input: Mutex::new(Input { source, chunks: 0, ended: None }),
        output: Mutex::new(Output {
            chunks: 0,
            failed: None,
            body: Body::Memory(Vec::new()),
            spool: &options.spool,
            stored: Sha256Hasher::default(),
            raw: RawHasher::default(),
            raw_size: 0,
            observe,
        }),
        turn: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 1..options.workers {
            // A host that is short of threads gets a slower push, not a failed one.
            if let Err(cause) = std::thread::Builder::new().spawn_scoped(scope, || work.take_chunks()) {
                tracing::debug!("could not start another thread: {cause}");
                break;
            }
        }
        work.take_chunks();
    });
    work.finish(name)
}

/// What the workers share.
struct Work<'a> {
    level: i32,
    input: Mutex<Input<'a>>,
    output: Mutex<Output<'a>>,
    /// Signalled when `output` has got on by a chunk, or has failed.
    turn: Condvar,
}

struct Input<'a> {
    source: &'a mut (dyn Read + Send),
    /// Chunks handed out so far.
    chunks: u64,
    /// Nothing more is to be read, and whether that is the end of the input.
    ended: Option<std::io::Result<()>>,
}

struct Output<'a> {
    /// Chunks taken in so far: the number of the one whose turn it is.
    chunks: u64,
    failed: Option<Error>,
    body: Body,
    spool: &'a Path,
    stored: Sha256Hasher,
    raw: RawHasher,
    raw_size: u64,
    observe: &'a mut (dyn FnMut(&[u8]) + Send),
}

impl Work<'_> {
    /// What each worker does.
    fn take_chunks(&self) {
        let mut compressor = compressor(self.level);
        let mut raw = vec![0; CHUNK];
        let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK));
        while let Some((number, raw)) = self.read_chunk(&mut raw) {
            let compressed = match &mut compressor {
                Ok(compressor) => compressor.compress_to_buffer(raw, &mut frame).map(drop),
                Err(cause) => Err(std::io::Error::new(cause.kind(), cause.to_string())),
            };
            if !self.hand_on(number, compressed.map(|()| (raw, &frame[..]))) {
                return;
            }
        }
    }

    /// The next chunk's number and bytes; None when there is none.
    fn read_chunk<'b>(&self, buffer: &'b mut [u8]) -> Option<(u64, &'b [u8])> {
        let mut input = lock(&self.input);
        if input.ended.is_some() {
            return None;
        }
        match fill(input.source, buffer) {
            Ok([]) => input.ended = Some(Ok(())),
            Ok(chunk) => {
                input.chunks += 1;
                return Some((input.chunks - 1, chunk));
            }
            Err(cause) => input.ended = Some(Err(cause)),
        }
        None
    }

    /// Waits for the chunk's turn and puts it out; false when it is no use to go on.
    fn hand_on(&self, number: u64, chunk: std::io::Result<(&[u8], &[u8])>) -> bool {
        let waiting = |output: &mut Output| output.failed.is_none() && output.chunks != number;
        let mut output =
            self.turn.wait_while(lock(&self.output), waiting).unwrap_or_else(PoisonError::into_inner);
        if output.failed.is_none() {
            output.take_in(chunk);
        }
        self.turn.notify_all();
        output.failed.is_none()
    }

    fn finish(self, name: &str) -> Result<Compressed> {
        let input = self.input.into_inner().unwrap_or_else(PoisonError::into_inner);
        let output = self.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(cause)) = input.ended {
            return Err(Error::io(format!("read {name}"), &cause));
        }
        output.finish()
    }
}

/// Reads until the buffer is full or the source ends: no smaller reads than the source makes them.
fn fill<'b>(source: &mut dyn Read, buffer: &'b mut [u8]) -> std::io::Result<&'b [u8]> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
}

/// A worker that panicked has ended the process, in every program (`cli::run`): a lock is never poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output<'_> {
    fn take_in(&mut self, chunk: std::io::Result<(&[u8], &[u8])>) {
        let appended = chunk
            .map_err(|cause| Error::bug(format!("could not compress: {cause}")))
            .and_then(|(raw, frame)| self.body.append(frame, self.spool).map(|()| (raw, frame)));
        match appended {
            Ok((raw, frame)) => {
                self.stored.update(frame);
                self.raw.update(raw);
                self.raw_size += raw.len() as u64;
                (self.observe)(raw);
                self.chunks += 1;
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn finish(mut self) -> Result<Compressed> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.body.rewind()?;
        Ok(Compressed {
            body: self.body,
            sha256: self.stored.finish(),
            raw: self.raw.finish(),
            raw_size: self.raw_size,
        })
    }
}

fn compressor(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(workers: usize) -> Options {
        Options { level: 1, workers, spool: std::env::temp_dir() }
    }

    fn some_bytes(length: usize) -> Vec<u8> {
        (0..length as u32)
            .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> (i % 13)).to_le_bytes())
            .take(length)
            .collect()
    }

    #[test]
    fn the_output_is_the_input_in_zstd_whatever_the_number_of_workers() {
        for (length, workers) in [(1, 3), (CHUNK, 2), (CHUNK + 1, 1), (5 * CHUNK + 77, 4)] {
            let input = some_bytes(length);
            let mut observed = Vec::new();
            let done =
                compress(&mut &input[..], "x", &options(workers), &mut |b| observed.extend_from_slice(b))
                    .expect("compressed");
            let Body::Memory(bytes) = done.body else { panic!("small enough for memory") };
            assert_eq!(zstd::decode_all(&bytes[..]).expect("zstd"), input);
            assert_eq!(observed, input);
            assert_eq!(done.sha256, Sha256Digest::of(&bytes));
            assert_eq!((done.raw, done.raw_size), (RawDigest::of(&input), length as u64));
        }
    }

    #[test]
    fn output_beyond_the_bound_goes_to_a_file() {
        let mut body = Body::Memory(Vec::new());
        let part = vec![7; Body::MEMORY / 4];
        for _ in 0..5 {
            body.append(&part, &std::env::temp_dir()).expect("appended");
        }
        body.rewind().expect("rewound");
        let length = body.len();
        let Body::Spooled(mut file, _) = body else { panic!("still in memory") };
        let mut back = Vec::new();
        file.read_to_end(&mut back).expect("read");
        assert_eq!(back.len() as u64, length);
        assert!(back.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_failing_source_and_a_missing_spool_are_errors_and_end_all_threads() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from_raw_os_error(5))
            }
        }
        let error = compress(&mut Failing, "pg_wal/x", &options(2), &mut |_| ()).expect_err("fails");
        assert!(error.message().starts_with("could not read pg_wal/x: "), "{error}");

        let mut noise = vec![0; Body::MEMORY + (4 << 20)];
        getrandom::fill(&mut noise).expect("random");
        let nowhere = Options { spool: "/nonexistent".into(), ..options(2) };
        let error = compress(&mut &noise[..], "x", &nowhere, &mut |_| ()).expect_err("fails");
        assert!(error.message().contains("/nonexistent"), "{error}");
    }
}
