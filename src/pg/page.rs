//! Data pages of relations.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The size of a data page in bytes: a power of two from 1 KiB to 32 KiB (configure --with-blocksize).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BlockSize(u32);

impl BlockSize {
    pub fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = Error;

    fn try_from(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (1 << 10..=1 << 15).contains(&bytes) {
            return Ok(BlockSize(bytes));
        }
        Err(Error::corrupt(format!("{bytes} is not a block size: a power of two from 1 KiB to 32 KiB")))
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.0
    }
}
