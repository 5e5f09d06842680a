//! An object that holds WAL, by its key: a segment, a `.partial`, the streamed beginning of a segment. For who goes
//! through what is stored rather than along a timeline.

use std::io::Write;

use super::layout;
use super::segment::{self, Before, StoredSegment};
use super::streamed::{self, StreamedPart};
use super::{Cluster, segment::partial_suffix};
use crate::error::{Error, Result};
use crate::pg::names::{SegmentName, WalFile};
use crate::store::Key;

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalObject {
    Segment(SegmentName),
    /// With the beginning of the digest of its raw bytes.
    Partial(SegmentName, String),
    Streamed(StreamedPart),
}

impl WalObject {
    /// By the last part of a key. None: it names no WAL.
    pub fn parse(key: &Key) -> Option<Self> {
        if let Some(name) = layout::parse_segment(key) {
            return Some(Self::Segment(name));
        }
        if let Some((name, digest)) = layout::parse_partial(key) {
            return Some(Self::Partial(name, digest.to_string()));
        }
        let (segment, end) = layout::parse_streamed(key)?;
        Some(Self::Streamed(StreamedPart { segment, end }))
    }

    /// The segment that it is, or is of.
    pub fn segment(&self) -> SegmentName {
        match self {
            Self::Segment(name) | Self::Partial(name, _) => *name,
            Self::Streamed(part) => part.segment,
        }
    }

    pub fn key(&self, cluster: &Cluster) -> Result<Key> {
        let layout = cluster.layout();
        match self {
            Self::Segment(name) => layout.segment(*name),
            Self::Partial(name, digest) => layout.partial(*name, digest),
            Self::Streamed(part) => layout.streamed(part.segment, part.end),
        }
    }

    /// What the object says of itself.
    fn name(&self) -> String {
        match self {
            Self::Segment(name) => name.to_string(),
            Self::Partial(name, _) => WalFile::Partial(*name).to_string(),
            Self::Streamed(part) => part.name(),
        }
    }

    /// Reads all of it, with every check. `before` is told how many stored bytes are about to be read.
    /// [`Kind::NotFound`](crate::error::Kind::NotFound) only when it is not there.
    pub fn examine(&self, cluster: &Cluster, before: &mut Before<'_>) -> Result<StoredSegment> {
        let header = segment::examine_key(cluster, &self.key(cluster)?, &self.name(), before)?;
        self.expect_itself(cluster, header)
    }

    /// The header, with all facts.
    pub fn read_header(&self, cluster: &Cluster) -> Result<StoredSegment> {
        let header = segment::read_header_of(cluster, &self.key(cluster)?, &self.name())?;
        self.expect_itself(cluster, header)
    }

    /// Writes the WAL into `sink`; of a streamed part as a segment, with zeros behind it. Until this returns success,
    /// what is in the sink may be wrong.
    pub fn read(&self, cluster: &Cluster, sink: &mut impl Write) -> Result<StoredSegment> {
        let header = match self {
            Self::Streamed(part) => streamed::read(cluster, *part, sink),
            _ => segment::read_key(cluster, &self.key(cluster)?, &self.name(), sink),
        }?;
        self.expect_itself(cluster, header)
    }

    /// The header says what the key says.
    fn expect_itself(&self, cluster: &Cluster, header: StoredSegment) -> Result<StoredSegment> {
        let key = self.key(cluster)?;
        match self {
            Self::Segment(_) => {}
            Self::Partial(_, digest) if partial_suffix(header.blake3) == *digest => {}
            Self::Partial(_, digest) => {
                return Err(Error::corrupt(format!(
                    "{} holds bytes of the BLAKE3 {}, expected one that begins with {digest}",
                    cluster.store().name(&key),
                    header.blake3
                )));
            }
            Self::Streamed(part) => streamed::check(*part, &header)?,
        }
        segment::expect_timeline(cluster, &key, header, self.segment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Lsn;
    use proptest::prelude::*;

    #[test]
    fn keys_of_wal_are_told_from_others() {
        let parse = |last: &str| WalObject::parse(&Key::new(&format!("m/7/wal/x/{last}")).expect("a key"));
        let segment: SegmentName = "000000010000000000000003".parse().expect("a name");
        assert_eq!(parse("000000010000000000000003.zst"), Some(WalObject::Segment(segment)));
        let partial = WalObject::Partial(segment, "0011223344556677".into());
        assert_eq!(parse("000000010000000000000003.partial.0011223344556677.zst"), Some(partial));
        let part = StreamedPart { segment, end: Lsn(0x3000100) };
        let streamed = parse("000000010000000000000003.streamed.0000000003000100.zst");
        assert_eq!(streamed, Some(WalObject::Streamed(part)));
        for other in
            ["000000010000000000000003", "00000002.history", "000000010000000000000003.00000028.backup"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back_from_its_key(log: u32, number: u32, end: u64, digest in "[0-9a-f]{16}", kind in 0..3) {
            let fixture = crate::repo::fixture::Fixture::create();
            let segment = SegmentName { timeline: crate::pg::lsn::Timeline(1), log, segment: number };
            let object = match kind {
                0 => WalObject::Segment(segment),
                1 => WalObject::Partial(segment, digest),
                _ => WalObject::Streamed(StreamedPart { segment, end: Lsn(end) }),
            };
            prop_assert_eq!(WalObject::parse(&object.key(&fixture.cluster)?), Some(object));
        }
    }
}
