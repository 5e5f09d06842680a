//! Keeps those bytes of a record spread over pages that its decoding needs, and no others, so that a
//! record of any length is decoded in bounded memory: the decoder names the bytes that it lacks, and they
//! are kept as they come by. What it needs lies in increasing order, so nothing is asked for too late.
//!
//! Invariant: every byte of the record before `next` was kept or is not needed; `next` is never behind the
//! record's bytes that have come by.

use super::record::{RecordBytes, Stop};

/// Kept at once, so that the decoder is not run again for every few bytes.
const READ_AHEAD: u32 = 64;

const TOO_LATE: &str = "the bytes kept of it are not those that it needs";

/// A run of kept bytes: `len` bytes from offset `at` of the record.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: u32,
    len: u32,
}

/// The kept bytes of one record. Used again for the next one without a new allocation.
#[derive(Debug, Default)]
pub(super) struct Capture {
    total: u32,
    runs: Vec<Run>,
    /// The runs' bytes, one run behind the other.
    bytes: Vec<u8>,
    /// Keep the record's bytes [next, until).
    next: u32,
    until: u32,
}

impl RecordBytes for Capture {
    fn total_len(&self) -> u32 {
        self.total
    }

    fn held(&self, at: u32, len: u32) -> Option<&[u8]> {
        self.pieces().find_map(|(start, bytes)| {
            let offset = at.checked_sub(start)?;
            bytes.get(offset as usize..)?.get(..len as usize)
        })
    }
}

impl Capture {
    /// Forgets the last record and starts with one of `total` bytes.
    pub fn start(&mut self, total: u32) {
        self.total = total;
        self.runs.clear();
        self.bytes.clear();
        self.want(0, READ_AHEAD);
    }

    /// Keeps nothing, so that what an earlier capture held can be put back.
    pub fn forget(&mut self) {
        self.runs.clear();
        self.bytes.clear();
        (self.next, self.until) = (0, 0);
    }

    /// Puts back one more run that an earlier capture held, in increasing order, and answers where it ends.
    /// None if it cannot have held that.
    pub fn restore(&mut self, at: u32, bytes: &[u8]) -> Option<u32> {
        let len = u32::try_from(bytes.len()).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= self.total)?;
        let behind = self.runs.last().is_none_or(|last| last.at.saturating_add(last.len) < at);
        if !behind {
            return None;
        }
        self.runs.push(Run { at, len });
        self.bytes.extend_from_slice(bytes);
        (self.next, self.until) = (end, end);
        Some(end)
    }

    /// The runs: offset and bytes.
    pub fn pieces(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.runs.iter().map(move |run| {
            let (bytes, behind) = rest.split_at_checked(run.len as usize).unwrap_or((rest, &[]));
            rest = behind;
            (run.at, bytes)
        })
    }

    /// Takes the record's bytes from `offset` on, keeps what is needed, and runs `decode` whenever it has
    /// what it asked for, until it answers. None: more of the record is needed.
    pub fn take<T>(
        &mut self,
        offset: u32,
        fragment: &[u8],
        decode: impl Fn(&Capture) -> Result<T, Stop>,
    ) -> Option<Result<T, &'static str>> {
        loop {
            if self.next < self.until && self.keep(offset, fragment).is_none() {
                return Some(Err(TOO_LATE));
            }
            if self.next < self.until {
                return None;
            }
            match decode(self) {
                Ok(answer) => return Some(Ok(answer)),
                Err(Stop::Malformed(what)) => return Some(Err(what)),
                Err(Stop::Missing { at, len }) => self.want(at, len),
            }
            if self.until <= self.next {
                return Some(Err(TOO_LATE));
            }
        }
    }

    /// Keep [at, at + len) next, and a little more.
    fn want(&mut self, at: u32, len: u32) {
        let continues = self.runs.last().is_some_and(|last| last.at.saturating_add(last.len) >= at);
        if !continues {
            self.runs.push(Run { at, len: 0 });
            self.next = at;
        }
        self.until = at.saturating_add(len.max(READ_AHEAD)).min(self.total);
    }

    /// Keeps what is wanted of a fragment. None if what is wanted lies in front of it.
    fn keep(&mut self, offset: u32, fragment: &[u8]) -> Option<()> {
        let wanted = self.until.saturating_sub(self.next) as usize;
        let start = self.next.checked_sub(offset)? as usize;
        let behind = fragment.get(start..).unwrap_or_default();
        let kept = behind.get(..wanted).unwrap_or(behind);
        let run = self.runs.last_mut()?;
        self.bytes.extend_from_slice(kept);
        run.len = run.len.saturating_add(kept.len() as u32);
        self.next = self.next.saturating_add(kept.len() as u32);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::wal::record::Cursor;
    use proptest::prelude::*;

    /// Reads a byte at each of the offsets.
    fn sample(record: &impl RecordBytes, offsets: &[u32]) -> Result<Vec<u8>, Stop> {
        offsets.iter().map(|at| Cursor::new(record, *at).u8()).collect()
    }

    #[test]
    fn a_record_that_lacks_what_it_needs_is_told_apart_from_one_still_to_come() {
        let mut capture = Capture::default();
        capture.start(300);
        assert_eq!(capture.take(0, &[7; 100], |held| sample(held, &[0, 200])), None);
        assert_eq!(capture.take(100, &[8; 200], |held| sample(held, &[0, 200])), Some(Ok(vec![7, 8])));
        let beyond = capture.take(300, &[], |held| sample(held, &[300]));
        assert!(matches!(beyond, Some(Err(_))));
    }

    #[test]
    fn kept_bytes_that_do_not_fit_together_are_refused() {
        let mut capture = Capture::default();
        capture.start(300);
        assert_eq!(capture.restore(290, &[0; 11]), None);
        let mut capture = Capture::default();
        capture.start(300);
        capture.forget();
        assert_eq!(capture.restore(0, &[1; 30]), Some(30));
        assert_eq!(capture.restore(20, &[1; 30]), None);
        assert_eq!(capture.restore(100, &[1; 100]), Some(200));
        assert_eq!(capture.take(200, &[2; 100], |held| sample(held, &[50])), Some(Err(TOO_LATE)));
    }

    proptest! {
        #[test]
        fn whatever_the_fragments_the_decoder_gets_its_bytes(
            record in proptest::collection::vec(any::<u8>(), 1..2000),
            gaps in proptest::collection::vec(0_u32..300, 0..20),
            cuts in proptest::collection::vec(1_usize..200, 1..30),
        ) {
            let offsets: Vec<u32> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) })
                .filter(|at| (*at as usize) < record.len()).collect();
            let expected: Vec<u8> = offsets.iter().map(|at| record[*at as usize]).collect();
            let mut capture = Capture::default();
            capture.start(record.len() as u32);
            let (mut offset, mut rest, mut answer) = (0, record.as_slice(), None);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (fragment, behind) = rest.split_at((*cut).min(rest.len()));
                if answer.is_none() {
                    answer = capture.take(offset, fragment, |held| sample(held, &offsets));
                }
                (offset, rest) = (offset + fragment.len() as u32, behind);
            }
            prop_assert_eq!(answer, Some(Ok(expected)));
            let kept: usize = capture.pieces().map(|(_, bytes)| bytes.len()).sum();
            prop_assert!(kept <= (offsets.len() + 1) * READ_AHEAD as usize);
        }
    }
}
