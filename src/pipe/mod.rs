//! Bytes on their way into a repository and out of it: cut, compressed and digested.

pub mod compress;
pub mod decompress;
pub mod digest;
pub mod frame;
pub mod unpack;
