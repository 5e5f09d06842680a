//! The records on a page: each is checked (ValidXLogRecordHeader, ValidXLogRecord), counted, and asked for
//! what it says.
//!
//! A record whose checksum is wrong may have a wrong length too. So the walk takes the next one's place from
//! it only if that one points back at it; else it looks at the next page, without noting damage twice.

use super::{Extent, Previous, Replaced, State, Walk, align};
use crate::pg::lsn::Lsn;
use crate::pg::wal::decode::{Fact, decode, may_matter};
use crate::pg::wal::header::WalFormat;
use crate::pg::wal::record::{MAX_RECORD, RECORD_HEADER, RecordHeader, Stop, Whole, checksum};

impl Walk {
    /// The records that start on a page.
    pub(super) fn records(&mut self, mut bytes: &[u8], mut lsn: Lsn) {
        while let Some(length) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length)) {
            if !(RECORD_HEADER as u32..=MAX_RECORD).contains(&length) {
                return self.no_record(lsn, length);
            }
            let Some(record) = bytes.get(..length as usize) else {
                return self.open_record(bytes, lsn, length);
            };
            let taken = align(record.len());
            let end = Lsn(lsn.0.saturating_add(taken as u64));
            if !self.whole_record(record, lsn, end) {
                return;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            lsn = end;
        }
    }

    /// A record that lies on one page. Answers whether the next one can follow.
    #[inline]
    fn whole_record(&mut self, record: &[u8], lsn: Lsn, end: Lsn) -> bool {
        let Some(header) = RecordHeader::parse(record) else { return false };
        let data = record.get(RECORD_HEADER..).unwrap_or_default();
        let good = checksum(crc32c::crc32c(data), record) == header.checksum;
        let format = self.header.format;
        self.complete(lsn, end, &header, good, record, || fact_of(record, &header, format))
    }

    /// A record that goes on on the next page.
    fn open_record(&mut self, fragment: &[u8], lsn: Lsn, length: u32) {
        let linked = RecordHeader::parse(fragment).is_none_or(|header| self.is_linked(&header, lsn));
        if !linked && (self.extent == Extent::Partial || self.is_doubtful()) {
            return self.give_up();
        }
        self.open.start(lsn, length);
        self.state = State::InRecord;
        if let Err(what) = self.open.take(fragment, self.header.format) {
            self.lose_record(lsn, || what.to_string());
        }
    }

    /// Takes a record of which all bytes came by; `whole` are they, if it is watched. Answers whether the next one
    /// can follow.
    #[inline]
    pub(super) fn complete(
        &mut self,
        lsn: Lsn,
        end: Lsn,
        header: &RecordHeader,
        good: bool,
        whole: &[u8],
        fact: impl FnOnce() -> std::result::Result<Fact, &'static str>,
    ) -> bool {
        if !good || !self.is_linked(header, lsn) {
            return self.note_bad_record(lsn, header, good);
        }
        self.previous = Previous::At(lsn);
        self.facts.records = self.facts.records.saturating_add(1);
        self.facts.first_lsn.get_or_insert(lsn);
        self.facts.last_lsn = Some(lsn);
        self.facts.end_lsn = Some(end);
        if let Some(search) = self.search.as_ref().filter(|_| self.found.is_none()) {
            self.found = search.matches_any(lsn, end);
        }
        if let Some(watching) = self.watching.as_mut().filter(|watching| watching.wants(header)) {
            watching.see(lsn, end, header, whole);
        }
        if !may_matter(header) && self.replaced.is_none() {
            return true;
        }
        self.learn(lsn, end, fact())
    }

    fn learn(&mut self, lsn: Lsn, end: Lsn, fact: std::result::Result<Fact, &'static str>) -> bool {
        let fact = fact.unwrap_or_else(|what| {
            self.facts.note_damage(lsn, || what.to_string());
            Fact::Nothing
        });
        if let Some(replaced) = self.replaced.take() {
            self.check_replacement(lsn, replaced, &fact);
        }
        if let Some(search) = self.search.as_ref().filter(|_| self.found.is_none()) {
            self.found = search.matches(&fact, lsn, end);
        }
        let is_switch = fact == Fact::Switch;
        self.facts.note(fact, lsn, end);
        if is_switch {
            self.end_by_switch();
        }
        !is_switch
    }

    fn end_by_switch(&mut self) {
        self.facts.end_lsn = Some(self.segment_end());
        self.facts.switch = true;
        self.state = State::Ended;
    }

    /// A page that replaces a record must begin with the record that says which.
    fn check_replacement(&mut self, lsn: Lsn, replaced: Replaced, fact: &Fact) {
        match (fact, replaced.lsn) {
            (Fact::Overwrites(_), None) => {}
            (Fact::Overwrites(said), Some(lsn)) if *said == lsn => {}
            (Fact::Overwrites(said), Some(cut)) => {
                let what = || format!("it replaces the record at {said}, but the one at {cut} was cut off");
                self.facts.note_damage(lsn, what);
            }
            _ => {
                let what = || "its page replaces a record, but it does not say which".to_string();
                self.facts.note_damage(lsn, what);
            }
        }
    }

    /// A record whose checksum or back-link is wrong. Answers whether a next one can follow.
    #[cold]
    fn note_bad_record(&mut self, lsn: Lsn, header: &RecordHeader, good: bool) -> bool {
        let linked = self.is_linked(header, lsn);
        if self.extent == Extent::Partial || (!good && !linked && self.is_doubtful()) {
            self.give_up();
            return false;
        }
        self.tell_lost(lsn);
        let previous = self.previous;
        self.replaced = None;
        self.facts.first_lsn.get_or_insert(lsn);
        self.facts.note_damage(lsn, || match previous {
            _ if !good => "the record's checksum is wrong".to_string(),
            Previous::At(at) | Previous::DamagedAt(at) => {
                format!("the record says that the one before it is at {}, but that is at {at}", header.prev)
            }
            Previous::Unknown => format!("the record says that the one before it is at {}", header.prev),
        });
        self.previous = if good { Previous::At(lsn) } else { Previous::DamagedAt(lsn) };
        true
    }

    /// Zeros or nonsense where a record should start.
    #[cold]
    fn no_record(&mut self, lsn: Lsn, length: u32) {
        if length == 0 && self.extent == Extent::Whole && self.after_split_header == Some(lsn) {
            return self.end_by_switch();
        }
        self.lose_record(lsn, || format!("a record of {length} bytes cannot be"));
    }

    /// ValidXLogRecordHeader, as far as the back-link goes.
    #[inline]
    pub(super) fn is_linked(&self, header: &RecordHeader, lsn: Lsn) -> bool {
        match self.previous {
            Previous::At(at) | Previous::DamagedAt(at) => header.prev == at,
            Previous::Unknown => header.prev < lsn,
        }
    }

    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self.previous, Previous::DamagedAt(_))
    }
}

/// What a record that lies in one piece says.
fn fact_of(
    record: &[u8],
    header: &RecordHeader,
    format: WalFormat,
) -> std::result::Result<Fact, &'static str> {
    if !may_matter(header) {
        return Ok(Fact::Nothing);
    }
    decode(&Whole(record), format).map_err(|stop| match stop {
        Stop::Malformed(what) => what,
        Stop::Missing { .. } => "it is shorter than what it should hold",
    })
}
