//! Writing the map of what was read. Results come in any order and are written in the order of their units.
//!
//! Invariants: the map has each file once, with slices that cover it; how many units wait here for an
//! earlier one is bounded by how many are on their way (`copy`).

use std::collections::BTreeMap;

use super::pages::BadPage;
use super::read::{Cut, ReadPiece, ReadStep, ReadUnit};
use crate::error::{Error, Result};
use crate::repo::Cluster;
use crate::repo::map::{Attributes, MapPath, MapWriter, PlacedSlice};
use crate::repo::pack::FrameLocation;

/// Pages that are kept until the end of the backup is known, at most. In a cluster that is whole there are
/// none; where there are thousands, their number is no longer the news.
const SUSPECTS: usize = 10_000;

/// Receives the units of one run.
pub struct Sink {
    map: MapWriter,
    next: u64,
    /// Units that came before their turn.
    early: BTreeMap<u64, ReadUnit>,
    file: FileState,
    pub pages: Suspects,
    /// Files that vanished before they were opened.
    pub vanished: u64,
}

/// Where the map is within a file that is read in pieces.
enum FileState {
    None,
    /// Up to which byte its slices go.
    Open {
        end: u64,
    },
    /// It was gone when its first piece was read.
    Skipped,
}

/// Pages whose checksum was wrong.
#[derive(Debug, Default)]
pub struct Suspects {
    pub count: u64,
    /// The first of them, in the order of the map.
    pub first: Vec<(MapPath, BadPage)>,
}

impl Sink {
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            map: MapWriter::start(cluster)?,
            next: 0,
            early: BTreeMap::new(),
            file: FileState::None,
            pages: Suspects::default(),
            vanished: 0,
        })
    }

    /// Takes a unit. Returns how many are written by that: those whose turn it is now.
    pub fn accept(&mut self, unit: ReadUnit) -> Result<usize> {
        self.early.insert(unit.number, unit);
        let mut done = 0;
        while let Some(unit) = self.early.remove(&self.next) {
            self.write(unit)?;
            self.next += 1;
            done += 1;
        }
        Ok(done)
    }

    /// The map with everything but its final entries.
    pub fn into_map(self) -> Result<MapWriter> {
        match self.file {
            FileState::None if self.early.is_empty() => Ok(self.map),
            _ => Err(Error::bug(format!("unit {} never came", self.next))),
        }
    }

    fn write(&mut self, unit: ReadUnit) -> Result<()> {
        for step in unit.steps {
            match step {
                ReadStep::Directory(attributes) => self.map.directory(attributes)?,
                ReadStep::File(read) => self.piece(read, unit.frame)?,
            }
        }
        Ok(())
    }

    fn piece(&mut self, read: ReadPiece, location: Option<FrameLocation>) -> Result<()> {
        if read.piece.is_first() {
            self.begin(&read.piece.attributes, read.gone)?;
        }
        let is_last = read.piece.is_last();
        if let FileState::Open { end } = self.file {
            self.pages.add(&read);
            self.slices(&read, end, location)?;
            if is_last {
                self.map.end_file()?;
            }
        }
        if is_last {
            self.file = FileState::None;
        }
        Ok(())
    }

    fn begin(&mut self, attributes: &Attributes, gone: bool) -> Result<()> {
        if gone {
            self.vanished += 1;
            self.file = FileState::Skipped;
            return Ok(());
        }
        self.map.begin_file(attributes.clone())?;
        self.file = FileState::Open { end: 0 };
        Ok(())
    }

    fn slices(&mut self, read: &ReadPiece, mut end: u64, location: Option<FrameLocation>) -> Result<()> {
        // The file was shorter when an earlier piece was read, and has grown again. What it lacked is zeros, as
        // for a file that is extended beyond its end, and replay, which has both, writes it.
        if !read.cuts.is_empty() && end < read.piece.at {
            self.map.slice(PlacedSlice::Zeros { length: read.piece.at - end })?;
            end = read.piece.at;
        }
        for cut in &read.cuts {
            let slice = place(*cut, location)?;
            end += match slice {
                PlacedSlice::Data { length, .. } => u64::from(length),
                PlacedSlice::Zeros { length } => length,
            };
            self.map.slice(slice)?;
        }
        self.file = FileState::Open { end };
        Ok(())
    }
}

fn place(cut: Cut, location: Option<FrameLocation>) -> Result<PlacedSlice> {
    match (cut, location) {
        (Cut::Zeros { length }, _) => Ok(PlacedSlice::Zeros { length: u64::from(length) }),
        (Cut::Data { offset, length, digest }, Some(frame)) => {
            Ok(PlacedSlice::Data { frame, offset, length, digest })
        }
        (Cut::Data { .. }, None) => Err(Error::bug("data without a frame")),
    }
}

impl Suspects {
    fn add(&mut self, read: &ReadPiece) {
        self.count += read.bad_pages.len() as u64;
        let room = SUSPECTS - self.first.len();
        let path = &read.piece.attributes.path;
        self.first.extend(read.bad_pages.iter().take(room).map(|page| (path.clone(), *page)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::backup::units::Piece;
    use crate::pg::lsn::Lsn;
    use crate::pg::page::BlockNumber;
    use crate::pipe::digest::{Sha256Digest, SliceDigest};
    use crate::repo::fixture::Fixture;
    use crate::repo::layout::{Id, PackId};
    use crate::repo::map::{Entry, FileMode, MapReader, Slice};
    use jiff::Timestamp;

    /// Each file of the map that these units make, with the lengths of its slices, those of zeros negative.
    fn slices(units: impl IntoIterator<Item = ReadUnit>) -> Vec<(String, Vec<i64>)> {
        let repo = Fixture::create();
        let mut sink = Sink::start(&repo.cluster).expect("started");
        let written: usize = units.into_iter().map(|unit| sink.accept(unit).expect("written")).sum();
        assert!(written > 0);
        let label = "x".parse().expect("name");
        let summary = sink.into_map().and_then(|map| map.finish(&label)).expect("durable");
        let map = MapReader::open(&repo.cluster, &label, &summary).expect("opened");
        let length = |slice: &Slice| match slice {
            Slice::Zeros { length } => -(*length as i64),
            Slice::Data { length, .. } => i64::from(*length),
        };
        let named = |entry: Entry| match entry {
            Entry::Directory(_) => None,
            Entry::File(part) => {
                Some((part.attributes.path.to_string(), part.slices.iter().map(length).collect()))
            }
        };
        map.iter().flat_map(|chunk| chunk.expect("whole").entries).filter_map(named).collect()
    }

    /// A unit with one piece of a file, of which `got` bytes were there; None: the file was gone.
    fn unit(number: u64, path: &str, at: u64, length: u32, size: u64, got: Option<u32>) -> ReadUnit {
        let path = MapPath::data(path).expect("a path");
        let attributes =
            Attributes { path, mode: FileMode::from_st_mode(0o600), mtime: Timestamp::UNIX_EPOCH };
        let frame = got.filter(|got| *got > 0).map(|raw| FrameLocation {
            pack: PackId { backup: Id::random().expect("random"), number: 0 },
            offset: 0,
            stored: raw,
            raw,
            sha256: Sha256Digest::of(b""),
        });
        let cut =
            |frame: FrameLocation| Cut::Data { offset: 0, length: frame.raw, digest: SliceDigest::of(b"") };
        let piece = Piece { attributes, at, length, size };
        let cuts = frame.into_iter().map(cut).collect();
        let read = ReadPiece { piece, cuts, gone: got.is_none(), bad_pages: Vec::new() };
        ReadUnit { number, steps: vec![ReadStep::File(read)], frame }
    }

    /// A unit with the next hundred bytes of a file of `size`.
    fn hundred(number: u64, size: u64, got: Option<u32>) -> ReadUnit {
        unit(number, "a", number * 100, 100, size, got)
    }

    #[test]
    fn units_are_written_in_their_order_as_soon_as_it_is_their_turn() {
        let units =
            [unit(2, "c", 0, 5, 5, Some(5)), unit(0, "a", 0, 1, 1, Some(1)), unit(1, "b", 0, 0, 0, Some(0))];
        let repo = Fixture::create();
        let mut sink = Sink::start(&repo.cluster).expect("started");
        let written = units.map(|unit| sink.accept(unit).expect("written"));
        assert_eq!(written, [0, 1, 2]);
        let units = [unit(1, "b", 0, 1, 1, Some(1)), unit(0, "a", 0, 0, 0, Some(0))];
        assert_eq!(slices(units), [("a".into(), vec![]), ("b".into(), vec![1])]);
    }

    #[test]
    fn what_a_file_lacked_in_its_middle_is_zeros_and_at_its_end_is_left_out() {
        let got = [Some(100), Some(60), Some(0), Some(100), Some(30), None];
        let units = (0..).zip(got).map(|(number, got)| hundred(number, 600, got));
        let found = slices(units.chain([unit(6, "b", 0, 1, 1, Some(1))]));
        assert_eq!(found, [("a".into(), vec![100, 60, -140, 100, 30]), ("b".into(), vec![1])]);
    }

    #[test]
    fn a_file_that_was_gone_at_first_is_left_out_altogether() {
        let units = (0..).zip([None, Some(100), Some(50)]).map(|(number, got)| hundred(number, 300, got));
        assert_eq!(slices(units.chain([unit(3, "b", 0, 1, 1, Some(1))])), [("b".into(), vec![1])]);
    }

    #[test]
    fn a_unit_that_never_came_is_noticed() {
        let repo = Fixture::create();
        let mut sink = Sink::start(&repo.cluster).expect("started");
        sink.accept(unit(1, "a", 0, 1, 1, Some(1))).expect("kept");
        assert!(sink.into_map().is_err_and(|error| error.message().contains("unit 0 never came")));
    }

    #[test]
    fn bad_pages_are_counted_all_and_kept_up_to_a_limit() {
        let mut suspects = Suspects::default();
        let mut read = match unit(0, "base/5/1", 0, 1, 1, Some(1)).steps.pop() {
            Some(ReadStep::File(read)) => read,
            _ => panic!("a file"),
        };
        read.bad_pages = vec![BadPage { block: BlockNumber(3), lsn: Lsn(7) }; SUSPECTS - 1];
        suspects.add(&read);
        suspects.add(&read);
        assert_eq!(suspects.count, 2 * (SUSPECTS as u64 - 1));
        assert_eq!(suspects.first.len(), SUSPECTS);
    }
}
