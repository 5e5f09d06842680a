//! A record that did not fit its page: what came by of it so far. Its bytes run through the checksum, and
//! only those that decoding needs are kept ([`Capture`]).

use super::capture::Capture;
use super::decode::{Fact, decode};
use super::event::MAX_WATCHED;
use super::header::WalFormat;
use super::record::{MAX_RECORD, RECORD_HEADER, RecordBytes, RecordHeader, checksum};
use super::unfinished::{Piece, Unfinished};
use crate::error::{Error, Result};
use crate::pg::lsn::Lsn;

/// Used again for each such record, without a new allocation.
#[derive(Debug, Default)]
pub(super) struct OpenRecord {
    pub lsn: Lsn,
    total: u32,
    /// How many of its bytes came by.
    got: u32,
    /// The checksum of those behind the header.
    crc: u32,
    kept: Capture,
    fact: Option<Fact>,
    /// Whether all bytes are kept, up to [`MAX_WATCHED`].
    pub watched: bool,
    whole: Vec<u8>,
}

impl OpenRecord {
    pub fn start(&mut self, lsn: Lsn, total: u32) {
        (self.lsn, self.total, self.got, self.crc, self.fact) = (lsn, total, 0, 0, None);
        self.kept.start(total);
        self.whole.clear();
    }

    /// All bytes so far of a record that is watched.
    pub fn take_whole(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.whole)
    }

    /// Gives back what [`OpenRecord::take_whole`] took: for its memory, or to go on behind it.
    pub fn put_whole(&mut self, whole: Vec<u8>) {
        self.whole = whole;
    }

    /// As it was where a walk through an earlier segment left it.
    pub fn resume(&mut self, from: &Unfinished) -> Result<()> {
        let refused = |cause: &str| {
            Error::corrupt(format!("could not join the unfinished record at {}: {cause}", from.lsn))
        };
        if !(RECORD_HEADER as u32..=MAX_RECORD).contains(&from.length) || from.here >= from.length {
            return Err(refused(&format!("{} of {} bytes cannot be", from.here, from.length)));
        }
        self.start(from.lsn, from.length);
        (self.got, self.crc) = (from.here, from.crc);
        self.kept.forget();
        for piece in &from.pieces {
            self.kept
                .restore(piece.at, &piece.bytes)
                .filter(|end| *end <= from.here)
                .ok_or_else(|| refused(&format!("there can be no piece at offset {}", piece.at)))?;
        }
        Ok(())
    }

    /// How many bytes are still to come.
    pub fn owed(&self) -> u32 {
        self.total.saturating_sub(self.got)
    }

    /// Takes the record's next bytes. The error says why PostgreSQL cannot have written them.
    pub fn take(&mut self, fragment: &[u8], format: WalFormat) -> std::result::Result<(), &'static str> {
        let header_left = RECORD_HEADER.saturating_sub(self.got as usize);
        self.crc = crc32c::crc32c_append(self.crc, fragment.get(header_left..).unwrap_or_default());
        let offset = self.got;
        self.got = self.got.saturating_add(u32::try_from(fragment.len()).unwrap_or(u32::MAX));
        if self.watched && self.total <= MAX_WATCHED {
            self.whole.extend_from_slice(fragment);
        }
        if self.fact.is_none() {
            let answer = self.kept.take(offset, fragment, |kept| decode(kept, format)).transpose()?;
            self.fact = answer;
        }
        Ok(())
    }

    /// Its header, once that came by.
    pub fn header(&self) -> Option<RecordHeader> {
        self.kept.held(0, RECORD_HEADER as u32).and_then(RecordHeader::parse)
    }

    /// The checksum over all of it.
    pub fn checksum(&self) -> u32 {
        self.kept.held(0, RECORD_HEADER as u32).map_or(self.crc, |header| checksum(self.crc, header))
    }

    /// What it says, once enough of it came by.
    pub fn take_fact(&mut self) -> Option<Fact> {
        self.fact.take()
    }

    /// What a later walk needs to go on with it, from the segment that starts at `next`.
    pub fn to_unfinished(&self, next: Lsn) -> Unfinished {
        let piece = |(at, bytes): (u32, &[u8])| Piece { at, bytes: bytes.to_vec() };
        Unfinished {
            lsn: self.lsn,
            next,
            length: self.total,
            here: self.got,
            crc: self.crc,
            pieces: self.kept.pieces().filter(|(_, bytes)| !bytes.is_empty()).map(piece).collect(),
        }
    }
}
