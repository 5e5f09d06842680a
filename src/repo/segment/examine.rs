//! Reading a stored segment, or part of one, for nothing but to know that it is whole.

use std::io::Write;

use super::{StoredSegment, expect_name, open, read_more};
use crate::error::{Error, Result};
use crate::pg::names::SegmentName;
use crate::pipe::decompress::decompress;
use crate::pipe::digest::RawHasher;
use crate::repo::Cluster;
use crate::store::Key;

/// Reads the object of a key through, with every check: the header, the stored bytes, what they decompress to,
/// the facts behind them. `before` is told how many bytes are about to be read.
pub(in crate::repo) fn examine_key(
    cluster: &Cluster,
    key: &Key,
    expected: &str,
    before: &mut Before<'_>,
) -> Result<StoredSegment> {
    let name = cluster.store().name(key);
    let (mut header, mut reader) = open(cluster, key)?;
    expect_name(cluster, key, &header, expected)?;
    before(header.data.size)?;
    let mut raw = RawHasher::default();
    decompress(&mut reader, &mut Digesting(&mut raw), header.expected(), &name)?;
    let raw = raw.finish();
    if raw != header.blake3 {
        return Err(Error::corrupt(format!(
            "{name} is damaged: the BLAKE3 of what it holds is {raw}, but should be {}",
            header.blake3
        )));
    }
    if let Some(more) = header.more {
        header.facts = read_more(cluster, key, more)?;
    }
    Ok(header)
}

/// Is told how many stored bytes are about to be read; an error keeps them from being read.
pub type Before<'a> = dyn FnMut(u64) -> Result<()> + 'a;

/// Takes bytes for their digest alone.
struct Digesting<'a>(&'a mut RawHasher);

impl Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The header says the timeline of its segment's name.
pub(in crate::repo) fn expect_timeline(
    cluster: &Cluster,
    key: &Key,
    header: StoredSegment,
    segment: SegmentName,
) -> Result<StoredSegment> {
    if header.timeline == segment.timeline {
        return Ok(header);
    }
    Err(Error::corrupt(format!(
        "{} says that it is of timeline {}, expected {}",
        cluster.store().name(key),
        header.timeline,
        segment.timeline
    )))
}
