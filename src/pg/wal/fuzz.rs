//! WAL for a fuzzer (`crate::fuzz`): pages of any bytes, and records of any content with right checksums.

use super::synthetic::Synthetic;
use super::{
    ClassRow, Event, Extent, Interest, Row, RowChange, Seen, SegmentFacts, SegmentHeader, WalFormat, Walk,
    Watching, is_invalid_database,
};
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;

/// The first bytes of a file are a segment's.
pub fn segment(data: &[u8]) {
    let Ok(header) = SegmentHeader::parse(data) else { return };
    let name: SegmentName = "000000010000000000000007".parse().expect("a segment");
    drop(header.check(name, data.len() as u64));
    for extent in [Extent::Whole, Extent::Partial] {
        same_in_pieces(data, |pieces| walk(&header, name, extent, pieces));
    }
}

/// Records: the resource manager, what it does, the transaction, the length, and so many bytes.
pub fn record(data: &[u8]) {
    let Some((format, mut rest)) = data.split_first() else { return };
    let formats = [WalFormat::V14, WalFormat::V15, WalFormat::V16, WalFormat::V17, WalFormat::V18];
    let format = formats[usize::from(*format) % formats.len()];
    let mut wal = Synthetic::new(format, 8192);
    while let Some(([rmgr, info, xid, length], behind)) = rest.split_first_chunk::<4>() {
        let (content, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        wal.put(&wal.record(*rmgr, *info, u32::from(*xid), content));
        rest = behind;
    }
    for (index, segment) in wal.segments().into_iter().enumerate() {
        let header = SegmentHeader::parse(&segment).expect("a header");
        same_in_pieces(&segment, |pieces| walk(&header, wal.name(index), Extent::Whole, pieces));
        same_in_pieces(&segment, |pieces| watch(&header, wal.name(index), pieces));
    }
}

/// What `pgark find` reads, page images and rows of catalogs among it.
fn watch(header: &SegmentHeader, name: SegmentName, pieces: &[&[u8]]) -> Vec<Seen> {
    let catalogs = [1259, 2615, 1262].map(Oid).to_vec();
    let watching = Watching::new(Interest::Relations, header.format, catalogs);
    let mut walk = Walk::new(header, name, Extent::Whole).watching(watching);
    let mut seen = Vec::new();
    for piece in pieces {
        walk.feed(piece);
        seen.extend(walk.seen());
    }
    // Damage that goes on is told anew behind each look.
    seen.dedup_by(|next, last| next.event == Event::Lost && last.event == Event::Lost);
    for seen in &seen {
        if let Event::Row { change, .. } = &seen.event {
            rows(change).iter().for_each(|row| {
                std::hint::black_box((ClassRow::read(row, header.format), row.name()));
                std::hint::black_box(is_invalid_database(row, header.format));
            });
        }
    }
    seen
}

fn rows(change: &RowChange) -> Vec<Row> {
    match change {
        RowChange::Page { rows, .. } => rows.iter().map(|(_, row)| row.clone()).collect(),
        RowChange::Inserted { row, .. } | RowChange::Overwritten { row, .. } => row.iter().cloned().collect(),
        RowChange::Updated { row: Some(edit), .. } => edit.apply(None).into_iter().collect(),
        RowChange::Updated { row: None, .. } | RowChange::Deleted { .. } => Vec::new(),
    }
}

fn walk(header: &SegmentHeader, name: SegmentName, extent: Extent, pieces: &[&[u8]]) -> SegmentFacts {
    let mut walk = Walk::new(header, name, extent);
    pieces.iter().for_each(|piece| walk.feed(piece));
    walk.finish()
}

/// However the bytes come, they say the same.
fn same_in_pieces<T: PartialEq + std::fmt::Debug>(data: &[u8], walk: impl Fn(&[&[u8]]) -> T) {
    let pieces: Vec<&[u8]> = data.chunks(1777).collect();
    assert_eq!(walk(&[data]), walk(&pieces));
}
