//! Two segments of one name with different bytes: do they contradict each other, or does the one merely go on
//! where the WAL of the other ends? A standby archives the last segment of a timeline as it has it
//! (`archive_mode = always`), with zeros or pages of the file's earlier life behind the switch point.
//!
//! Refuses to guess: only if both are alike up to the end of the shorter one's WAL, and that one holds no page
//! of this place behind the first difference, is it shorter and not damaged or another history.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use super::{Cluster, segment};
use crate::error::{IoContext, Result};
use crate::pg::lsn::Lsn;
use crate::pg::names::SegmentName;
use crate::pg::wal::{Extent, SegmentFacts, SegmentHeader, Walk, page_address};

/// How a stored segment and another one of its name differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// They contradict each other.
    Differ,
    /// The stored one holds all of our WAL, which ends at `ours`.
    StoredIsLonger { ours: Lsn },
    /// The stored one's WAL ends at `stored`; ours is the same up to there and goes on.
    StoredIsShorter { stored: Lsn },
}

/// Compares the stored segment `name` with `ours`, which has this header. Errors are those of reading either.
pub fn compare(
    cluster: &Cluster,
    name: SegmentName,
    header: &SegmentHeader,
    ours: &mut File,
) -> Result<Overlap> {
    ours.rewind().doing(|| format!("read {name}"))?;
    let mut comparison = Comparison::new(name, header, BufReader::new(ours));
    segment::read(cluster, name, &mut comparison)?;
    Ok(comparison.finish())
}

/// Takes the stored bytes and reads ours along.
struct Comparison<R> {
    ours: R,
    start: Lsn,
    compared: u64,
    first_difference: Option<u64>,
    sides: [Side; 2],
    buffer: Vec<u8>,
}

impl<R: Read> Comparison<R> {
    fn new(name: SegmentName, header: &SegmentHeader, ours: R) -> Self {
        let side = || Side::new(name, header);
        Self {
            ours,
            start: header.page_address,
            compared: 0,
            first_difference: None,
            sides: [side(), side()],
            buffer: Vec::new(),
        }
    }

    fn finish(self) -> Overlap {
        let Some(difference) = self.first_difference else {
            return Overlap::StoredIsLonger { ours: Lsn(self.start.0.saturating_add(self.compared)) };
        };
        let difference = Lsn(self.start.0.saturating_add(difference));
        let [stored, ours] = self.sides.map(Side::finish);
        let (Some(stored), Some(ours)) = (stored, ours) else { return Overlap::Differ };
        let shorter = if ours.extent() <= stored.extent() { &ours } else { &stored };
        if difference < shorter.end || !shorter.ends_before(difference) {
            Overlap::Differ
        } else if ours.extent() <= stored.extent() {
            Overlap::StoredIsLonger { ours: ours.end }
        } else {
            Overlap::StoredIsShorter { stored: stored.end }
        }
    }
}

impl<R: Read> Write for Comparison<R> {
    fn write(&mut self, stored: &[u8]) -> io::Result<usize> {
        self.buffer.resize(stored.len(), 0);
        self.ours.read_exact(&mut self.buffer)?;
        if self.first_difference.is_none()
            && let Some(at) = stored.iter().zip(&self.buffer).position(|(stored, ours)| stored != ours)
        {
            self.first_difference = Some(self.compared.saturating_add(at as u64));
        }
        let [theirs, ours] = &mut self.sides;
        theirs.feed(stored);
        ours.feed(&self.buffer);
        self.compared = self.compared.saturating_add(stored.len() as u64);
        Ok(stored.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of the two, while it is read.
struct Side {
    walk: Walk,
    block: usize,
    /// The page that is being gathered, and where it is.
    page: Vec<u8>,
    position: Lsn,
    /// The last page that says that it belongs where it is.
    last_in_place: Lsn,
}

impl Side {
    fn new(name: SegmentName, header: &SegmentHeader) -> Self {
        Self {
            walk: Walk::new(header, name, Extent::Partial),
            block: header.block_size as usize,
            page: Vec::new(),
            position: header.page_address,
            last_in_place: header.page_address,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        self.walk.feed(bytes);
        while !bytes.is_empty() {
            let missing = self.block.saturating_sub(self.page.len());
            let (taken, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            self.page.extend_from_slice(taken);
            bytes = rest;
            if self.page.len() == self.block {
                if page_address(&self.page) == Some(self.position) {
                    self.last_in_place = self.position;
                }
                self.position = Lsn(self.position.0.saturating_add(self.block as u64));
                self.page.clear();
            }
        }
    }

    fn finish(self) -> Option<Ended> {
        let facts: SegmentFacts = self.walk.finish();
        let unfinished = facts.unfinished.is_some();
        Some(Ended { end: facts.end_lsn?, unfinished, last_in_place: self.last_in_place })
    }
}

/// How far the WAL of one of the two goes.
struct Ended {
    /// Where its last whole record ends.
    end: Lsn,
    /// A record goes on in the next segment.
    unfinished: bool,
    last_in_place: Lsn,
}

impl Ended {
    /// What goes on in the next segment is longer than what ends.
    fn extent(&self) -> (Lsn, bool) {
        (self.end, self.unfinished)
    }

    /// A page that belongs where it is behind the first difference would mean damage, or other WAL.
    fn ends_before(&self, difference: Lsn) -> bool {
        !self.unfinished && self.last_in_place <= difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::wal::synthetic::Synthetic;

    /// WAL of records of this size, of more than a segment.
    fn wal(record: usize) -> Synthetic {
        let mut wal = Synthetic::v15();
        while wal.segments().len() < 2 {
            wal.filler(record);
        }
        wal
    }

    /// A whole segment, whose last record goes on in the next one.
    fn full() -> Vec<u8> {
        wal(5000).segments().swap_remove(0)
    }

    /// The same WAL up to `at`, and something else behind it.
    fn ending(at: usize, filler: u8) -> Vec<u8> {
        let mut segment = full();
        segment[at..].fill(filler);
        segment
    }

    fn compared(stored: &[u8], ours: &[u8]) -> Overlap {
        let header = SegmentHeader::parse(ours).expect("a header");
        let mut comparison = Comparison::new(wal(5000).name(0), &header, ours);
        for piece in stored.chunks(10_000) {
            comparison.write_all(piece).expect("compared");
        }
        comparison.finish()
    }

    #[test]
    fn wal_that_merely_ends_earlier_is_no_contradiction() {
        let full = full();
        for (at, filler) in [(100_000, 0), (100_000, 7), (8192 * 4, 0), (full.len() / 2, 0)] {
            let short = ending(at, filler);
            assert!(matches!(compared(&full, &short), Overlap::StoredIsLonger { .. }), "{at} {filler}");
            assert!(matches!(compared(&short, &full), Overlap::StoredIsShorter { .. }), "{at} {filler}");
            assert!(matches!(compared(&short, &ending(at, 9)), Overlap::StoredIsLonger { .. }), "{at}");
        }
        let Overlap::StoredIsShorter { stored } = compared(&ending(100_000, 0), &full) else { panic!() };
        let start = SegmentHeader::parse(&full).expect("a header").page_address.0;
        assert!(stored.0 <= start + 100_000 && stored.0 > start + 90_000, "{stored}");
    }

    #[test]
    fn damage_and_other_wal_are_contradictions() {
        let full = full();
        for at in [50_000, full.len() / 2, full.len() - 1] {
            let mut damaged = full.clone();
            damaged[at] ^= 1;
            assert_eq!(compared(&full, &damaged), Overlap::Differ, "{at}");
            assert_eq!(compared(&damaged, &full), Overlap::Differ, "{at}");
        }
        let mut other = ending(100_000, 0);
        other[60_000] ^= 1;
        assert_eq!(compared(&full, &other), Overlap::Differ);
        assert_eq!(compared(&full, &wal(4000).segments()[0]), Overlap::Differ);
    }
}
