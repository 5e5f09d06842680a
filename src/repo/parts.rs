//! Writing an object of unknown size from small pieces: gathered into parts as object stores want them.

use bytes::BytesMut;

use crate::error::Result;
use crate::store::{Key, Store, Upload};

/// Bytes of each part but the last. Object stores want at least 5 MiB, and some want all alike.
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

    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        while let Some((fits, rest)) = bytes.split_at_checked(PART_SIZE - self.part.len()) {
            self.gather(fits);
            let part = self.part.split().freeze();
            self.upload.write(part)?;
            bytes = rest;
        }
        self.gather(bytes);
        Ok(())
    }

    /// `bytes` do not overfill the part.
    fn gather(&mut self, bytes: &[u8]) {
        self.part.reserve(PART_SIZE - self.part.len());
        self.part.extend_from_slice(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::Fixture;
    use crate::repo::layout::Id;

    #[test]
    fn pieces_of_all_sizes_come_out_in_order_and_the_memory_is_that_of_a_part() {
        let fixture = Fixture::create();
        let key = fixture.cluster.layout().staging(Id::random().expect("id")).expect("key");
        let mut parts = Parts::start(fixture.cluster.store(), &key).expect("started");
        let mut expected = Vec::new();
        let mut memory = None;
        for length in [1, 0, PART_SIZE - 1, PART_SIZE, 3, 2 * PART_SIZE + 5, 700_000, PART_SIZE - 8] {
            let piece: Vec<u8> = (0..length).map(|n| (n ^ (n >> 8) ^ length) as u8).collect();
            parts.write(&piece).expect("written");
            expected.extend_from_slice(&piece);
            assert!(parts.part.len() < PART_SIZE && parts.part.capacity() <= PART_SIZE);
            if parts.part.capacity() == PART_SIZE {
                let start = parts.part.as_ptr();
                assert_eq!(*memory.get_or_insert(start), start, "allocated once");
            }
        }
        assert_eq!(parts.finish(), Ok(expected.len() as u64));
        assert!(fixture.cluster.store().get(&key).expect("read") == expected);
    }
}
