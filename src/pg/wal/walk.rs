//! The walk: one pass over the bytes of a segment, page by page and record by record, in bounded memory
//! and without an allocation per record.
//!
//! Checks what xlogreader.c checks (XLogReaderValidatePageHeader, ValidXLogRecordHeader, ValidXLogRecord,
//! and the continuation in XLogDecodeNextRecord). What is wrong is noted as damage, never an error, and
//! the walk goes on where the next page says that a record starts. Not checked: the rest of a record that
//! began in an earlier segment (its checksum covers bytes that are not here), and unused space.
//!
//! Not damage: anything behind an XLOG_SWITCH record; in a partial segment whatever follows the last good
//! record (zeros, or pages of the file's earlier life); a record that a crash cut off, if the page that
//! should continue it says so (XLP_FIRST_IS_OVERWRITE_CONTRECORD).

use super::decode::Fact;
use super::event::{Seen, Watching};
use super::facts::SegmentFacts;
use super::header::{SegmentHeader, WalFormat};
use super::open::OpenRecord;
use super::page::{LONG_HEADER, PageHeader};
use super::search::{Landmark, Search};
use super::unfinished::Unfinished;
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::names::SegmentName;

mod records;

/// How much of the segment holds WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it, or up to an XLOG_SWITCH.
    Whole,
    /// Up to the last good record: a `.partial` file, or the segment being written.
    Partial,
}

/// Where the walk stands between two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first page and behind damage: the next page says where a record starts.
    Seeking,
    /// A record starts next.
    AtRecord,
    /// In the middle of the open record.
    InRecord,
    /// So many bytes follow of a record whose start is not known.
    Skipping(u32),
    /// Nothing of interest follows.
    Ended,
}

/// What is known of the record in front of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Previous {
    Unknown,
    At(Lsn),
    /// Its checksum is wrong, so perhaps its length, so perhaps the next one's place.
    DamagedAt(Lsn),
}

/// Why a page or record begins with what it begins with: a crash cut off the record in front of it.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    /// Where that record started, if in this segment.
    lsn: Option<Lsn>,
}

/// A walk through one segment. Feed it all bytes in order, in chunks of any size, then finish it.
#[derive(Debug)]
pub struct Walk {
    header: SegmentHeader,
    /// The timeline of the name: no page is of a later one.
    last_timeline: Timeline,
    /// The timeline of the page before.
    timeline: Timeline,
    extent: Extent,
    /// How many bytes were fed.
    fed: u64,
    /// The first bytes of a page of which the rest is still to be fed.
    torn: Vec<u8>,
    /// The LSN of the next page.
    position: Lsn,
    state: State,
    previous: Previous,
    open: OpenRecord,
    replaced: Option<Replaced>,
    /// If the segment begins with the last bytes of a record that was nothing but a header: where zeros
    /// would mean that it was an XLOG_SWITCH.
    after_split_header: Option<Lsn>,
    /// Only the record begun earlier is of interest.
    joining: bool,
    search: Option<Search>,
    /// The first record that is sought.
    found: Option<Landmark>,
    watching: Option<Watching>,
    facts: SegmentFacts,
}

/// A watched record that goes on in the next segment.
#[derive(Clone, Debug)]
pub struct Begun {
    pub unfinished: Unfinished,
    /// All of its bytes so far.
    whole: Vec<u8>,
}

impl Walk {
    /// A walk through the segment `name`, which [`SegmentHeader::check`] accepted.
    pub fn new(header: &SegmentHeader, name: SegmentName, extent: Extent) -> Self {
        Self {
            header: *header,
            last_timeline: name.timeline,
            timeline: header.timeline,
            extent,
            fed: 0,
            torn: Vec::new(),
            position: header.page_address,
            state: State::Seeking,
            previous: Previous::Unknown,
            open: OpenRecord::default(),
            replaced: None,
            after_split_header: None,
            joining: false,
            search: None,
            found: None,
            watching: None,
            facts: SegmentFacts::default(),
        }
    }

    /// A walk through the start of the segment `name`, for nothing but the rest of a record that began
    /// earlier: feed it until it [`Walk::is_done`]. The facts are those of that record alone.
    pub fn join(
        from: &Unfinished,
        header: &SegmentHeader,
        name: SegmentName,
        extent: Extent,
    ) -> Result<Self> {
        if header.page_address != from.next {
            return Err(Error::corrupt(format!(
                "could not join the unfinished record at {}: it goes on at {}, segment {name} starts at {}",
                from.lsn, from.next, header.page_address
            )));
        }
        let mut walk = Self::new(header, name, extent);
        walk.open.resume(from)?;
        walk.state = State::InRecord;
        walk.joining = true;
        Ok(walk)
    }

    /// Looks for a record on the way: see [`Walk::found`].
    pub fn searching(mut self, search: Search) -> Self {
        self.search = Some(search);
        self
    }

    /// Tells what happens in the records, those that begin here and are whole: see [`Walk::seen`].
    pub fn watching(mut self, watching: Watching) -> Self {
        self.watching = Some(watching);
        self.open.watched = true;
        self
    }

    /// The same for the rest of a record that began in an earlier segment, and for that record alone.
    pub fn watching_rest(
        from: Begun,
        header: &SegmentHeader,
        name: SegmentName,
        extent: Extent,
        watching: Watching,
    ) -> Result<Self> {
        let mut walk = Self::join(&from.unfinished, header, name, extent)?.watching(watching);
        walk.open.put_whole(from.whole);
        Ok(walk)
    }

    /// The layout of the segment's records.
    pub fn format(&self) -> WalFormat {
        self.header.format
    }

    /// What was seen since this was last asked.
    pub fn seen(&mut self) -> Vec<Seen> {
        self.watching.as_mut().map(Watching::take).unwrap_or_default()
    }

    /// What the walk found out, and the record that goes on in the next segment, if it may be one that is watched for.
    pub fn finish_watching(mut self) -> (SegmentFacts, Option<Begun>) {
        let wanted = match (&self.watching, self.open.header()) {
            (Some(watching), Some(header)) => watching.wants(&header),
            (watching, _) => watching.is_some(),
        };
        let whole = self.open.take_whole();
        if self.is_done() {
            // Whoever looks for records need not feed what holds none.
            self.fed = self.header.segment_size.bytes();
        }
        let mut facts = self.finish();
        let unfinished = facts.unfinished.take().filter(|_| wanted);
        (facts, unfinished.map(|unfinished| Begun { unfinished, whole }))
    }

    /// The first record so far that is sought, of those that lie wholly within the segment.
    pub fn found(&self) -> Option<&Landmark> {
        self.found.as_ref()
    }

    /// Takes the next bytes of the segment.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        let block = self.header.block_size as usize;
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if !self.torn.is_empty() {
            let missing = block.saturating_sub(self.torn.len());
            let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            self.torn.extend_from_slice(head);
            bytes = rest;
            if self.torn.len() < block {
                return;
            }
            let mut page = std::mem::take(&mut self.torn);
            self.page(&page);
            page.clear();
            self.torn = page;
        }
        let pages = bytes.chunks_exact(block);
        self.torn.extend_from_slice(pages.remainder());
        pages.for_each(|page| self.page(page));
    }

    /// Nothing that may follow changes the facts, but for the length of the whole file.
    pub fn is_done(&self) -> bool {
        self.state == State::Ended
    }

    /// What the walk found out.
    pub fn finish(mut self) -> SegmentFacts {
        let expected = self.header.segment_size.bytes();
        if self.fed != expected && self.extent == Extent::Whole && !self.joining {
            let at = Lsn(self.header.page_address.0.saturating_add(self.fed));
            let fed = self.fed;
            self.facts.note_damage(at, || format!("the file has {fed} bytes instead of {expected}"));
        }
        if self.state == State::InRecord && self.position == self.segment_end() {
            self.leave_unfinished();
        } else if self.state == State::InRecord && self.joining {
            let (at, owed) = (self.open.lsn, self.open.owed());
            self.facts.note_damage(at, || format!("{owed} bytes of the record were not looked for"));
        }
        self.facts
    }

    fn segment_end(&self) -> Lsn {
        Lsn(self.header.page_address.0.saturating_add(self.header.segment_size.bytes()))
    }

    /// One whole page.
    fn page(&mut self, page: &[u8]) {
        let address = self.position;
        if self.state == State::Ended || address >= self.segment_end() {
            return;
        }
        self.position = Lsn(address.0.saturating_add(page.len() as u64));
        let Some((header, body)) = PageHeader::parse(page) else { return };
        if let Some(what) = header.fault(&self.header, address, self.timeline..=self.last_timeline) {
            return self.lose(address, || what);
        }
        self.timeline = header.timeline;
        let start = self.continuation(&header, body, address).and_then(|skip| body.get(skip..));
        if self.joining && self.state != State::InRecord {
            self.state = State::Ended;
        } else if let Some(records) = start {
            let before = page.len().saturating_sub(records.len());
            self.records(records, Lsn(address.0.saturating_add(before as u64)));
        }
    }

    /// The start of a page: what remains of a record begun earlier. Answers at which offset of the body
    /// the next record starts, if one does on this page.
    fn continuation(&mut self, page: &PageHeader, body: &[u8], address: Lsn) -> Option<usize> {
        if page.replaces_record() && self.state != State::AtRecord {
            let lsn = (self.state == State::InRecord).then_some(self.open.lsn);
            self.replaced = Some(Replaced { lsn });
            self.state = State::AtRecord;
            return Some(0);
        }
        let owed = match self.state {
            State::Seeking => None,
            State::InRecord => Some(self.open.owed()),
            State::Skipping(owed) => Some(owed),
            State::AtRecord | State::Ended => Some(0),
        };
        let fits = owed.is_none_or(|owed| owed == page.remaining)
            && page.continues_record() == (page.remaining > 0)
            && !page.replaces_record();
        if !fits {
            self.lose(address, || misfit(page, owed));
            if self.state == State::Ended {
                return None;
            }
        } else if self.state == State::InRecord {
            return self.continue_open(body, address);
        }
        if owed.is_none() {
            self.note_split_header(page, address);
        }
        self.skip(page.remaining, body)
    }

    /// Skips `remaining` bytes of a record that cannot be read.
    fn skip(&mut self, remaining: u32, body: &[u8]) -> Option<usize> {
        let beyond = (remaining as usize).saturating_sub(body.len());
        if beyond > 0 {
            self.state = State::Skipping(beyond as u32);
            return None;
        }
        self.state = State::AtRecord;
        Some(align(remaining as usize))
    }

    /// ReserveXLogSwitch lets the 24 bytes of an XLOG_SWITCH cross the end of a segment; then it is the
    /// next segment that ends early, although no XLOG_SWITCH starts in it.
    fn note_split_header(&mut self, page: &PageHeader, address: Lsn) {
        if address == self.header.page_address && matches!(page.remaining, 8 | 16) {
            let behind = (LONG_HEADER as u64).saturating_add(u64::from(page.remaining));
            self.after_split_header = Some(Lsn(address.0.saturating_add(behind)));
        }
    }

    fn continue_open(&mut self, body: &[u8], address: Lsn) -> Option<usize> {
        let owed = self.open.owed() as usize;
        let fragment = body.get(..owed).unwrap_or(body);
        if let Err(what) = self.open.take(fragment, self.header.format) {
            let lsn = self.open.lsn;
            self.lose_record(lsn, || what.to_string());
            return None;
        }
        if self.open.owed() > 0 {
            return None;
        }
        self.state = State::AtRecord;
        let page_end = Lsn(address.0.saturating_add(u64::from(self.header.block_size)));
        let behind = body.len().saturating_sub(align(owed)) as u64;
        let end = Lsn(page_end.0.saturating_sub(behind));
        let header = self.open.header()?;
        let good = self.open.checksum() == header.checksum;
        let fact = self.open.take_fact().unwrap_or(Fact::Nothing);
        let whole = self.open.take_whole();
        let follows = self.complete(self.open.lsn, end, &header, good, &whole, || Ok(fact));
        self.open.put_whole(whole);
        follows.then_some(align(owed))
    }

    /// Something is wrong with a page: note it, and look at the next one.
    #[cold]
    fn lose(&mut self, at: Lsn, what: impl FnOnce() -> String) {
        if self.extent == Extent::Whole {
            self.facts.note_damage(at, what);
        }
        self.give_up();
    }

    /// No record can be read here. Behind a damaged record that is its consequence, so it was noted.
    #[cold]
    fn lose_record(&mut self, lsn: Lsn, what: impl FnOnce() -> String) {
        if self.is_doubtful() {
            return self.give_up();
        }
        self.lose(lsn, what);
    }

    /// Reads on at the next page that says where a record starts. In a partial segment the WAL ends here.
    fn give_up(&mut self) {
        self.tell_lost(self.position);
        self.previous = Previous::Unknown;
        self.replaced = None;
        let ends = self.extent == Extent::Partial || self.joining;
        self.state = if ends { State::Ended } else { State::Seeking };
    }

    /// Whoever watches must know that records are missing.
    fn tell_lost(&mut self, lsn: Lsn) {
        if let Some(watching) = &mut self.watching {
            watching.lost(lsn);
        }
    }

    /// The segment ends in the middle of the open record.
    fn leave_unfinished(&mut self) {
        let lsn = self.open.lsn;
        let linked = self.joining || self.open.header().is_none_or(|header| self.is_linked(&header, lsn));
        if !linked {
            let what = || "the segment's last record does not say where the one before it is".to_string();
            return self.lose_record(lsn, what);
        }
        self.facts.first_lsn.get_or_insert(lsn);
        self.facts.unfinished = Some(self.open.to_unfinished(self.position));
    }
}

/// The sentence for a page that does not start with what was to come.
fn misfit(page: &PageHeader, owed: Option<u32>) -> String {
    match owed {
        Some(0) if page.replaces_record() => {
            "the page replaces a record, but the one before it is whole".to_string()
        }
        Some(owed) => format!(
            "the page continues a record with {} bytes, but {owed} were to come",
            if page.continues_record() { page.remaining } else { 0 }
        ),
        None => "the page contradicts itself about the record that it continues".to_string(),
    }
}

/// MAXALIGN.
#[inline]
fn align(length: usize) -> usize {
    length.saturating_add(7) & !7
}

#[cfg(test)]
mod tests;
