//! Raw bytes to zstd: read once, compressed and digested side by side, gathered in order.
//!
//! The input is cut into chunks; each becomes a zstd frame of its own with a content checksum, and frames
//! one after the other are again a zstd file. Level 1 has a window of 512 KiB, so that cutting costs next
//! to nothing in size, and several cores can work on one segment.
//!
//! Invariant: memory holds a few chunks per worker and the compressed output up to `Body::MEMORY`; the rest
//! of it goes to an unnamed file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

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

type Chunk = Arc<Vec<u8>>;
type Frame = Receiver<std::io::Result<Vec<u8>>>;
type Job = (Chunk, Sender<std::io::Result<Vec<u8>>>);

/// Reads `source` to its end. `observe` sees every byte of it, in order, on a thread of its own.
/// `name` is what messages call the source.
pub fn compress(
    source: &mut (dyn Read + Send),
    name: &str,
    options: &Options,
    observe: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Compressed> {
    let workers = options.workers.max(1);
    let (jobs, queue) = bounded::<Job>(1);
    let (order, frames) = bounded::<Frame>(workers + 1);
    let (seen, watched) = bounded::<Chunk>(1);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let queue = queue.clone();
            scope.spawn(move || compress_chunks(&queue, options.level));
        }
        drop(queue);
        let watcher = scope.spawn(move || watch(&watched, observe));
        let reader =
            scope.spawn(move || read_chunks(source, &jobs, &order, &seen).doing(|| format!("read {name}")));
        let gathered = gather(&frames, &options.spool);
        // A failed gatherer must not leave the reader waiting for room in the queue.
        drop(frames);
        reader.join().map_err(|_| Error::bug("the reader panicked"))??;
        let (raw, raw_size) = watcher.join().map_err(|_| Error::bug("the observer panicked"))?;
        let (body, sha256) = gathered?;
        Ok(Compressed { body, sha256, raw, raw_size })
    })
}

/// Hands every chunk to the observer and to a worker, and its place in the order to the gatherer. A queue
/// whose other end is gone ends the reading: that end reports why.
fn read_chunks(
    source: &mut dyn Read,
    jobs: &Sender<Job>,
    order: &Sender<Frame>,
    seen: &Sender<Chunk>,
) -> std::io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        source.take(CHUNK as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let chunk = Arc::new(bytes);
        let (done, frame) = bounded(1);
        let sent = order.send(frame).is_ok()
            && jobs.send((Arc::clone(&chunk), done)).is_ok()
            && seen.send(chunk).is_ok();
        if !sent {
            return Ok(());
        }
    }
}

fn compress_chunks(queue: &Receiver<Job>, level: i32) {
    let mut compressor = compressor(level);
    for (chunk, done) in queue {
        let frame = match &mut compressor {
            Ok(compressor) => compressor.compress(&chunk),
            Err(cause) => Err(std::io::Error::new(cause.kind(), cause.to_string())),
        };
        // Nobody waits for the frame any more when the gatherer has failed.
        drop(done.send(frame));
    }
}

fn compressor(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

fn watch(watched: &Receiver<Chunk>, observe: &mut (dyn FnMut(&[u8]) + Send)) -> (RawDigest, u64) {
    let mut hasher = RawHasher::default();
    let mut size = 0;
    for chunk in watched {
        hasher.update(&chunk);
        size += chunk.len() as u64;
        observe(&chunk);
    }
    (hasher.finish(), size)
}

fn gather(frames: &Receiver<Frame>, spool: &Path) -> Result<(Body, Sha256Digest)> {
    let mut body = Body::Memory(Vec::new());
    let mut hasher = Sha256Hasher::default();
    for frame in frames {
        let frame = frame
            .recv()
            .map_err(|_| Error::bug("a compressing thread ended early"))?
            .map_err(|cause| Error::bug(format!("could not compress: {cause}")))?;
        hasher.update(&frame);
        body.append(&frame, spool)?;
    }
    body.rewind()?;
    Ok((body, hasher.finish()))
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
