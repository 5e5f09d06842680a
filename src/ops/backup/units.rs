//! Planning: what the walk finds is cut into units of work. Each unit becomes at most one frame.
//!
//! Small neighbours share a unit; a large file is spread over several, so that all workers read it. Pieces
//! of a file begin at multiples of a slice, which are multiples of every block size.
//!
//! Invariants: units hold the entries in the order in which they came; a unit has at most [`FRAME_SIZE`]
//! bytes and [`STEPS`] steps, so it is bounded however many small files there are.

use crate::error::Result;
use crate::pipe::frame::FRAME_SIZE;
use crate::repo::map::{Attributes, SLICE_SIZE};

/// Steps of a unit, at most.
pub const STEPS: usize = 1024;

/// One entry of the map, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Directory(Attributes),
    File(Piece),
}

/// A piece of a file: bytes [at, at + length) of the `size` that it had when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub attributes: Attributes,
    pub at: u64,
    pub length: u32,
    pub size: u64,
}

impl Piece {
    pub fn is_first(&self) -> bool {
        self.at == 0
    }

    pub fn is_last(&self) -> bool {
        self.at + u64::from(self.length) >= self.size
    }
}

/// What one worker does in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Counted from 0: the order in which results are written.
    pub number: u64,
    pub steps: Vec<Step>,
}

/// Cuts entries into units, which it hands to `send` in order.
pub struct Planner<F: FnMut(Unit) -> Result<()>> {
    send: F,
    unit: Unit,
    /// Bytes that the unit has room for.
    room: u32,
}

impl<F: FnMut(Unit) -> Result<()>> Planner<F> {
    pub fn new(send: F) -> Self {
        Self { send, unit: Unit::default(), room: FRAME_SIZE as u32 }
    }

    pub fn directory(&mut self, attributes: Attributes) -> Result<()> {
        self.push(Step::Directory(attributes), 0)
    }

    /// Adds a file of that many bytes.
    pub fn file(&mut self, attributes: Attributes, size: u64) -> Result<()> {
        let mut at = 0;
        loop {
            let length = piece_length(size - at, self.room);
            if length == 0 && at < size {
                self.flush()?;
                continue;
            }
            let piece = Piece { attributes: attributes.clone(), at, length, size };
            self.push(Step::File(piece), length)?;
            at += u64::from(length);
            if at >= size {
                return Ok(());
            }
        }
    }

    /// Sends what is left.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn push(&mut self, step: Step, length: u32) -> Result<()> {
        self.unit.steps.push(step);
        self.room -= length;
        if self.room == 0 || self.unit.steps.len() >= STEPS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.unit.steps.is_empty() {
            return Ok(());
        }
        let next = Unit { number: self.unit.number + 1, steps: Vec::new() };
        self.room = FRAME_SIZE as u32;
        (self.send)(std::mem::replace(&mut self.unit, next))
    }
}

/// How much of the rest of a file goes into this unit: all of it, or whole slices.
fn piece_length(rest: u64, room: u32) -> u32 {
    match u32::try_from(rest) {
        Ok(rest) if rest <= room => rest,
        _ => room - room % SLICE_SIZE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::map::{FileMode, MapPath};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn attributes(path: &str) -> Attributes {
        let path = MapPath::data(path).expect("a path");
        Attributes { path, mode: FileMode::from_st_mode(0o600), mtime: Timestamp::UNIX_EPOCH }
    }

    fn planned(sizes: &[u64]) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut planner = Planner::new(|unit| {
            units.push(unit);
            Ok(())
        });
        for (number, size) in sizes.iter().enumerate() {
            planner.file(attributes(&format!("{number}")), *size).expect("planned");
        }
        planner.finish().expect("planned");
        units
    }

    fn lengths(units: &[Unit]) -> Vec<Vec<u32>> {
        let length = |step: &Step| match step {
            Step::Directory(_) => 0,
            Step::File(piece) => piece.length,
        };
        units.iter().map(|unit| unit.steps.iter().map(length).collect()).collect()
    }

    #[test]
    fn small_files_share_a_unit_and_large_ones_are_cut_at_slices() {
        assert_eq!(lengths(&planned(&[])), Vec::<Vec<u32>>::new());
        assert_eq!(lengths(&planned(&[8192, 0, 100])), [vec![8192, 0, 100]]);
        let (slice, unit) = (SLICE_SIZE, FRAME_SIZE as u32);
        let units = planned(&[8192, u64::from(2 * unit + 5), u64::from(slice)]);
        let expected = [vec![8192, unit - slice], vec![unit], vec![slice + 5], vec![slice]];
        assert_eq!(lengths(&units), expected);
        assert_eq!(lengths(&planned(&[u64::from(unit), 1])), [vec![unit], vec![1]]);
    }

    #[test]
    fn a_unit_of_empty_files_is_bounded_too() {
        let units = planned(&vec![0; 2 * STEPS + 1]);
        assert_eq!(units.iter().map(|unit| unit.steps.len()).collect::<Vec<_>>(), [STEPS, STEPS, 1]);
    }

    #[test]
    fn an_error_of_the_receiver_ends_the_planning() {
        let mut planner = Planner::new(|_| Err(crate::error::Error::bug("full")));
        assert!(planner.file(attributes("a"), 1 << 40).is_err());
        assert!(planner.directory(attributes("b")).is_ok());
        assert!(planner.finish().is_err());
    }

    proptest! {
        #[test]
        fn every_byte_is_planned_once_and_in_order(sizes in proptest::collection::vec(0u64..20 << 20, 0..20)) {
            let units = planned(&sizes);
            let mut expected = sizes.iter().enumerate();
            let mut open: Option<(String, u64, u64)> = None;
            for (number, unit) in units.iter().enumerate() {
                prop_assert_eq!(unit.number, number as u64);
                let mut total = 0;
                for step in &unit.steps {
                    let Step::File(piece) = step else { panic!("no directories here") };
                    let (path, at, size) = open.take().unwrap_or_else(|| {
                        let (number, size) = expected.next().expect("a file more than planned");
                        (number.to_string(), 0, *size)
                    });
                    prop_assert_eq!(piece.attributes.path.to_string(), path.clone());
                    prop_assert_eq!((piece.at, piece.size), (at, size));
                    prop_assert_eq!(piece.at % u64::from(SLICE_SIZE), 0);
                    prop_assert_eq!(piece.is_first(), at == 0);
                    total += piece.length;
                    let end = at + u64::from(piece.length);
                    prop_assert_eq!(piece.is_last(), end == size);
                    if end < size {
                        open = Some((path, end, size));
                    }
                }
                prop_assert!(total as usize <= FRAME_SIZE && unit.steps.len() <= STEPS);
            }
            prop_assert!(open.is_none() && expected.next().is_none());
        }
    }
}
