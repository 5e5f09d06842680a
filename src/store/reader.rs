//! Reading an object from start to end as a `Read`, whatever store it comes from.

use std::io::Read;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use futures::stream::BoxStream;
use object_store::{GetResult, GetResultPayload};

/// An object being read.
pub struct ObjectReader {
    source: Source,
    /// The whole object's bytes.
    pub size: u64,
}

enum Source {
    File(std::fs::File),
    Stream { stream: BoxStream<'static, object_store::Result<Bytes>>, chunk: Bytes },
}

impl ObjectReader {
    pub(super) fn new(result: GetResult) -> Self {
        let size = result.meta.size;
        let source = match result.payload {
            GetResultPayload::File(file, _) => Source::File(file),
            GetResultPayload::Stream(stream) => Source::Stream { stream, chunk: Bytes::new() },
        };
        Self { source, size }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.source {
            Source::File(file) => file.read(buffer),
            Source::Stream { stream, chunk } => {
                while chunk.is_empty() {
                    match block_on(stream.try_next()).map_err(std::io::Error::other)? {
                        Some(next) => *chunk = next,
                        None => return Ok(0),
                    }
                }
                let taken = chunk.split_to(buffer.len().min(chunk.len()));
                buffer[..taken.len()].copy_from_slice(&taken);
                Ok(taken.len())
            }
        }
    }
}
