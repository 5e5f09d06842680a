//! Removing streamed parts that a longer part, or the whole segment, holds too.
//!
//! Invariant: nothing is removed before what replaces it was read from front to back, is durable, begins with
//! the same bytes, and lies in a repository that is there.

use std::io::Write;

use super::{StreamedPart, parts, read, read_header};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::SegmentSize;
use crate::pg::names::SegmentName;
use crate::pipe::digest::{RawDigest, RawHasher};
use crate::repo::{Cluster, segment};

/// Removes all parts of a segment if the whole one is there, else all but the longest; the shortest first.
/// Answers with what it removed. [`Kind::Conflict`], and nothing is removed, when two of them contradict.
pub fn sweep(cluster: &Cluster, segment: SegmentName) -> Result<Vec<StreamedPart>> {
    let mut doomed = parts(cluster, segment)?;
    let kept = match segment::exists(cluster, segment)? {
        true => Kept::Whole(segment),
        false => match doomed.pop() {
            Some(longest) => Kept::Part(longest),
            None => return Ok(doomed),
        },
    };
    if doomed.is_empty() {
        return Ok(doomed);
    }
    kept.compare_with(cluster, &doomed)?;
    cluster.store().settle(&kept.key(cluster)?)?;
    cluster.repository().confirm()?;
    for part in &doomed {
        cluster.store().delete(&part.key(cluster)?)?;
    }
    Ok(doomed)
}

/// What replaces the parts.
#[derive(Clone, Copy)]
enum Kept {
    Whole(SegmentName),
    Part(StreamedPart),
}

impl Kept {
    fn key(self, cluster: &Cluster) -> Result<crate::store::Key> {
        match self {
            Kept::Whole(segment) => cluster.layout().segment(segment),
            Kept::Part(part) => part.key(cluster),
        }
    }

    /// One pass over what is kept gives the digests of all its beginnings.
    fn compare_with(self, cluster: &Cluster, parts: &[StreamedPart]) -> Result<()> {
        let size = self.segment_size(cluster)?;
        let lengths: Vec<u64> = parts.iter().map(|part| part.bytes(size)).collect::<Result<_>>()?;
        let mut beginnings = Beginnings::new(lengths);
        match self {
            Kept::Whole(segment) => segment::read(cluster, segment, &mut beginnings)?,
            Kept::Part(part) => read(cluster, part, &mut beginnings)?,
        };
        let digests = beginnings.digests;
        if digests.len() != parts.len() {
            return Err(Error::bug("a segment is shorter than a part of it"));
        }
        parts.iter().zip(digests).try_for_each(|(part, digest)| self.compare(cluster, *part, digest))
    }

    fn segment_size(self, cluster: &Cluster) -> Result<SegmentSize> {
        match self {
            Kept::Whole(segment) => segment::read_header(cluster, segment),
            Kept::Part(part) => read_header(cluster, part),
        }
        .map(|header| header.segment_size)
    }

    fn compare(self, cluster: &Cluster, part: StreamedPart, beginning: RawDigest) -> Result<()> {
        let found = match read_header(cluster, part) {
            Ok(header) => header.blake3,
            // Another sweep was faster.
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::warn!("{error}; it is removed, because a longer one is whole");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if found == beginning {
            return Ok(());
        }
        let name = cluster.store().name(&self.key(cluster)?);
        Err(Error::conflict(format!(
            "the streamed part {part} has other content than {name}: BLAKE3 {found} was streamed, the same bytes \
             there have {beginning}; nothing was removed"
        ))
        .with_hint(
            "two servers write the same timeline into this repository: stop one, find out whose WAL is right, and \
             move the other's objects out of the repository",
        ))
    }
}

/// Digests of the first bytes, for several lengths in one pass.
struct Beginnings {
    /// Ascending; those that are still to come.
    lengths: std::iter::Peekable<std::vec::IntoIter<u64>>,
    seen: u64,
    hasher: RawHasher,
    digests: Vec<RawDigest>,
}

impl Beginnings {
    fn new(lengths: Vec<u64>) -> Self {
        Self {
            lengths: lengths.into_iter().peekable(),
            seen: 0,
            hasher: RawHasher::default(),
            digests: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.seen = self.seen.saturating_add(bytes.len() as u64);
    }
}

impl Write for Beginnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut left = bytes;
        while let Some(length) = self.lengths.peek()
            && let Some((head, tail)) = left.split_at_checked(length.saturating_sub(self.seen) as usize)
        {
            self.take(head);
            self.digests.push(self.hasher.clone().finish());
            self.lengths.next();
            left = tail;
        }
        self.take(left);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
