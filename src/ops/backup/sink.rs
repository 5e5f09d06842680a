//! Writing what was read: frames into packs, lines into the map. Results come in any order and are written
//! in the order of their units.
//!
//! Invariants: the map has each file once, with slices that cover it; who waits here is bounded by the
//! number of buffers that are on their way (`copy`).

use std::collections::BTreeMap;

use super::pages::BadPage;
use super::read::{Cut, ReadPiece, ReadStep, ReadUnit};
use crate::error::{Error, Result};
use crate::repo::Cluster;
use crate::repo::layout::Id;
use crate::repo::map::{Attributes, MapPath, MapWriter, PlacedSlice};
use crate::repo::pack::{FrameLocation, PackWriter};

/// Pages that are kept until the end of the backup is known, at most. In a cluster that is whole there are
/// none; where there are thousands, their number is no longer the news.
const SUSPECTS: usize = 10_000;

/// Receives the units of one run.
pub struct Sink {
    packs: PackWriter,
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
    pub fn start(cluster: &Cluster, run: Id) -> Result<Self> {
        Ok(Self {
            packs: PackWriter::new(cluster, run),
            map: MapWriter::start(cluster)?,
            next: 0,
            early: BTreeMap::new(),
            file: FileState::None,
            pages: Suspects::default(),
            vanished: 0,
        })
    }

    /// Takes a unit. Returns the memory of frames that are written.
    pub fn accept(&mut self, unit: ReadUnit) -> Result<Vec<Vec<u8>>> {
        self.early.insert(unit.number, unit);
        let mut done = Vec::new();
        while let Some(unit) = self.early.remove(&self.next) {
            done.push(self.write(unit)?);
            self.next += 1;
        }
        Ok(done)
    }

    /// Ends the packs and the map's entries but for the final ones.
    pub fn into_writers(self) -> Result<(PackWriter, MapWriter)> {
        match self.file {
            FileState::None if self.early.is_empty() => Ok((self.packs, self.map)),
            _ => Err(Error::bug(format!("unit {} never came", self.next))),
        }
    }

    fn write(&mut self, unit: ReadUnit) -> Result<Vec<u8>> {
        let location = unit.frame.as_ref().map(|frame| self.packs.append(frame)).transpose()?;
        for step in unit.steps {
            match step {
                ReadStep::Directory(attributes) => self.map.directory(attributes)?,
                ReadStep::File(read) => self.piece(read, location)?,
            }
        }
        Ok(unit.frame.map(|frame| frame.stored).unwrap_or_default())
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
