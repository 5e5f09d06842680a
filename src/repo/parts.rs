//! Writing an object of unknown size from small pieces: gathered into parts as object stores want them.

use bytes::BytesMut;

use crate::error::Result;
use crate::store::{Key, Store, Upload};

/// Bytes of a part. Object stores want at least 5 MiB.
const PART_SIZE: usize = 8 << 20;

/// An object being written. Dropped unfinished, it leaves nothing visible.
pub struct Parts {
    upload: Upload,
    /// What the store does not have yet. Its memory is used again for the next part.
    part: BytesMut,
    size: u64,
}

impl Parts {
    /// The key must hold enough randomness to be nobody else's ([`Store::upload`]).
    pub fn start(store: &Store, key: &Key) -> Result<Self> {
        Ok(Self { upload: store.upload(key)?, part: BytesMut::new(), size: 0 })
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.part.reserve(bytes.len().max(PART_SIZE.saturating_sub(self.part.len())));
        self.part.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.part.len() >= PART_SIZE {
            let part = self.part.split().freeze();
            self.upload.write(part)?;
        }
        Ok(())
    }

    /// Publishes the object; durable when this returns. Returns its size.
    pub fn finish(mut self) -> Result<u64> {
        if !self.part.is_empty() {
            self.upload.write(self.part.freeze())?;
        }
        self.upload.finish()?;
        Ok(self.size)
    }
}
