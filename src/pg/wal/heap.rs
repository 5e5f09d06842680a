//! What WAL records do to the rows of a few catalogs: pg_class, pg_namespace and pg_database, whose rows all begin
//! with an oid and a name (heapam_xlog.h, and the layouts of pg_class.h, pg_namespace.h and pg_database.h).
//!
//! A record that deletes a row names its place only; what stood there is known from the last record that wrote
//! it, or from the page's image, which PostgreSQL logs at the first change after each checkpoint. So whoever reads
//! on from a checkpoint's redo LSN knows every row that is changed behind it (with full_page_writes).

use super::header::WalFormat;
use super::image;
use super::record::{BlockHeader, Cursor, RecordHeader, Stop, Whole, headers};
use crate::pg::oid::Oid;
use crate::pg::page::BlockNumber;
use crate::pg::relfile::RelFileLocator;

const RM_HEAP: u8 = 10;

const XLOG_HEAP_OPMASK: u8 = 0x70;
const XLOG_HEAP_INSERT: u8 = 0x00;
const XLOG_HEAP_DELETE: u8 = 0x10;
const XLOG_HEAP_UPDATE: u8 = 0x20;
const XLOG_HEAP_HOT_UPDATE: u8 = 0x40;
const XLOG_HEAP_INPLACE: u8 = 0x70;

const XLH_UPDATE_PREFIX_FROM_OLD: u8 = 1 << 5;
const XLH_UPDATE_SUFFIX_FROM_OLD: u8 = 1 << 6;

/// SizeofHeapTupleHeader: the null bitmap begins here.
const TUPLE_HEADER: usize = 23;
/// SizeOfHeapHeader: t_infomask2, t_infomask, t_hoff.
const LOGGED_HEADER: usize = 5;
/// SizeOfPageHeaderData.
const PAGE_HEADER: usize = 24;

/// Where a row is within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPlace {
    pub block: BlockNumber,
    pub offset: u16,
}

/// The columns of a row from the first on. Only so many bytes are kept as the fixed columns of any catalog of
/// interest take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    columns: Box<[u8]>,
    /// Bytes that all columns have.
    length: usize,
}

/// What happens to the rows of a catalog's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// These are all rows of a page.
    Page {
        block: BlockNumber,
        rows: Vec<(u16, Row)>,
    },
    /// None: as on the page that was told before.
    Inserted {
        at: RowPlace,
        row: Option<Row>,
    },
    Updated {
        from: RowPlace,
        to: RowPlace,
        row: Option<Edit>,
    },
    /// In its place, without a new version.
    Overwritten {
        at: RowPlace,
        row: Option<Row>,
    },
    Deleted {
        at: RowPlace,
    },
}

/// A row's new version, told by how it differs from the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// So many bytes are those of the old row's beginning, and of its end.
    prefix: usize,
    suffix: usize,
    middle: Row,
}

impl Row {
    /// Covers all fixed columns of pg_class and pg_database up to those that are read.
    const KEPT: usize = 256;

    pub(crate) fn new(columns: &[u8]) -> Self {
        Self { columns: columns.get(..Self::KEPT).unwrap_or(columns).into(), length: columns.len() }
    }

    fn field<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.columns.get(at..)?.first_chunk().copied()
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.field(at).map(u32::from_le_bytes)
    }

    fn oid_at(&self, at: usize) -> Option<Oid> {
        self.u32(at).map(Oid)
    }

    /// The first column.
    pub fn oid(&self) -> Option<Oid> {
        self.oid_at(0)
    }

    /// The second column, of 64 bytes with its NUL.
    pub fn name(&self) -> Option<String> {
        let bytes: [u8; 64] = self.field(4)?;
        let name = bytes.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

impl Edit {
    /// The new row. None: bytes of the old one are missing.
    pub fn apply(&self, old: Option<&Row>) -> Option<Row> {
        if self.prefix == 0 && self.suffix == 0 {
            return Some(self.middle.clone());
        }
        let old = old?;
        let mut columns = old.columns.get(..self.prefix.min(Row::KEPT))?.to_vec();
        columns.extend_from_slice(&self.middle.columns);
        let complete = columns.len() == self.prefix.checked_add(self.middle.length)?;
        if complete {
            let from = old.length.checked_sub(self.suffix)?;
            columns.extend_from_slice(old.columns.get(from..).unwrap_or_default());
        }
        columns.truncate(Row::KEPT);
        let length = self.prefix.checked_add(self.middle.length)?.checked_add(self.suffix)?;
        Some(Row { columns: columns.into(), length })
    }
}

/// A row of pg_class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRow {
    pub oid: Oid,
    pub name: String,
    pub namespace: Oid,
    /// 0 of what has no storage of its own, or is mapped.
    pub file: Oid,
    /// 0: the database's.
    pub tablespace: Oid,
    pub pages: u32,
    /// 'p', 'u' or 't'.
    pub persistence: char,
    /// 'r' for a table, 'i' for an index …
    pub kind: char,
}

impl ClassRow {
    /// None: it is no row of pg_class.
    pub fn read(row: &Row, format: WalFormat) -> Option<Self> {
        // relallfrozen came with 18.
        let behind = if format >= WalFormat::V18 { 4 } else { 0 };
        let letter = |at: usize| row.field::<1>(at + behind).map(|[byte]| char::from(byte));
        let (persistence, kind) = (letter(114)?, letter(115)?);
        let known = "put".contains(persistence) && "rtimvcfpIS".contains(kind);
        known.then_some(())?;
        Some(Self {
            oid: row.oid().filter(|oid| oid.0 > 0)?,
            name: row.name()?,
            namespace: row.oid_at(68)?,
            file: row.oid_at(88)?,
            tablespace: row.oid_at(92)?,
            pages: row.u32(96)?,
            persistence,
            kind,
        })
    }
}

/// Whether a row of pg_database says that the database is being dropped: datconnlimit is DATCONNLIMIT_INVALID_DB.
pub fn is_invalid_database(row: &Row, format: WalFormat) -> bool {
    let at = if format == WalFormat::V14 { 208 } else { 80 };
    row.field(at).map(i32::from_le_bytes) == Some(-2)
}

/// What a record does to the rows of catalogs: to files for which `is_catalog` holds.
pub(super) fn row_changes(
    record: &[u8],
    header: &RecordHeader,
    format: WalFormat,
    is_catalog: &dyn Fn(RelFileLocator) -> bool,
) -> Result<Vec<(RelFileLocator, RowChange)>, Stop> {
    let parts = Parts::read(record, format)?;
    let Some(first) = parts.blocks.first().filter(|block| is_catalog(block.file)) else {
        return Ok(Vec::new());
    };
    let file = first.file;
    let mut changes = Vec::new();
    for block in parts.blocks.iter().filter(|block| block.header.fork == 0 && block.file == file) {
        let page = block.header.image.map(|header| image::restore(header, block.image, format));
        if let Some(page) = page {
            let page = page.ok_or(Stop::Malformed("its page image can't be read"))?;
            changes.push((file, RowChange::Page { block: block.header.block, rows: rows_of(&page) }));
        }
    }
    if header.rmgr == RM_HEAP {
        changes.extend(heap_change(&parts, header)?.map(|change| (file, change)));
    }
    Ok(changes)
}

/// The parts of a record that lies in one piece.
struct Parts<'a> {
    blocks: Vec<Block<'a>>,
    main: &'a [u8],
}

struct Block<'a> {
    header: BlockHeader,
    file: RelFileLocator,
    image: &'a [u8],
    data: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(record: &'a [u8], format: WalFormat) -> Result<Self, Stop> {
        const SHORT: Stop = Stop::Malformed("it is shorter than its parts");
        let mut seen = Vec::new();
        let main = headers(&Whole(record), format, &mut |block| seen.push(block))?;
        let payload: usize = seen.iter().map(BlockHeader::payload).map(|bytes| bytes as usize).sum();
        let start = (main.at as usize).checked_sub(payload).ok_or(SHORT)?;
        let mut rest = record.get(start..).ok_or(SHORT)?;
        let mut blocks: Vec<Block<'a>> = Vec::new();
        for header in seen {
            let before = blocks.last().map(|block| block.file);
            let file = header.file.or(before).ok_or(Stop::Malformed("its first block has no file"))?;
            let image_len = header.image.map_or(0, |image| usize::from(image.len));
            let (image, behind) = rest.split_at_checked(image_len).ok_or(SHORT)?;
            let (data, behind) = behind.split_at_checked(usize::from(header.data)).ok_or(SHORT)?;
            blocks.push(Block { header, file, image, data });
            rest = behind;
        }
        Ok(Self { blocks, main: rest })
    }

    fn block(&self, index: usize) -> Result<&Block<'a>, Stop> {
        self.blocks.get(index).ok_or(Stop::Malformed("it names no block"))
    }
}

/// heap_xlog_insert, heap_xlog_delete, heap_xlog_update, heap_xlog_inplace.
fn heap_change(parts: &Parts<'_>, header: &RecordHeader) -> Result<Option<RowChange>, Stop> {
    let block = parts.block(0)?;
    let number = block.header.block;
    // Where there is an image, it has the row.
    let data = if block.header.image.is_some() && block.data.is_empty() { None } else { Some(block.data) };
    let whole = Whole(parts.main);
    let mut main = Cursor::new(&whole, 0);
    let place = |offset| RowPlace { block: number, offset };
    Ok(match header.info & XLOG_HEAP_OPMASK {
        XLOG_HEAP_INSERT => {
            let at = place(main.u16()?);
            let row = data.map(|data| logged_row(data, 0)).transpose()?;
            Some(RowChange::Inserted { at, row })
        }
        XLOG_HEAP_DELETE => {
            main.u32()?; // xmax
            Some(RowChange::Deleted { at: place(main.u16()?) })
        }
        XLOG_HEAP_UPDATE | XLOG_HEAP_HOT_UPDATE => {
            main.u32()?; // old_xmax
            let old = main.u16()?;
            main.u8()?; // old_infobits_set
            let flags = main.u8()?;
            main.u32()?; // new_xmax
            let to = place(main.u16()?);
            let from_block = parts.blocks.get(1).map_or(number, |block| block.header.block);
            let row = data.map(|data| edit(data, flags)).transpose()?;
            Some(RowChange::Updated { from: RowPlace { block: from_block, offset: old }, to, row })
        }
        XLOG_HEAP_INPLACE => {
            let at = place(main.u16()?);
            Some(RowChange::Overwritten { at, row: data.map(Row::new) })
        }
        _ => None,
    })
}

const NO_ROW: Stop = Stop::Malformed("it is shorter than its row");

/// A row behind its logged header, which stands behind `before` bytes of lengths.
fn logged_row(data: &[u8], before: usize) -> Result<Row, Stop> {
    let data = data.get(before..).ok_or(NO_ROW)?;
    let hoff = data.get(4).map(|hoff| usize::from(*hoff)).ok_or(NO_ROW)?;
    let start = hoff.checked_sub(TUPLE_HEADER).and_then(|bitmap| bitmap.checked_add(LOGGED_HEADER));
    start.and_then(|start| data.get(start..)).map(Row::new).ok_or(NO_ROW)
}

fn edit(data: &[u8], flags: u8) -> Result<Edit, Stop> {
    let whole = Whole(data);
    let mut lengths = Cursor::new(&whole, 0);
    let mut length = |flag: u8| if flags & flag == 0 { Ok(0) } else { lengths.u16().map(usize::from) };
    let (prefix, suffix) = (length(XLH_UPDATE_PREFIX_FROM_OLD)?, length(XLH_UPDATE_SUFFIX_FROM_OLD)?);
    Ok(Edit { prefix, suffix, middle: logged_row(data, lengths.at as usize)? })
}

/// The rows of a page, dead ones too: they are told apart by who deletes them.
fn rows_of(page: &[u8]) -> Vec<(u16, Row)> {
    let lower = page.get(12..).and_then(|rest| rest.first_chunk()).map(|lower| u16::from_le_bytes(*lower));
    let pointers = page.get(PAGE_HEADER..usize::from(lower.unwrap_or_default())).unwrap_or_default();
    let (pointers, _) = pointers.as_chunks::<4>();
    let row = |pointer: &[u8; 4]| {
        // ItemIdData: 15 bits of offset, 2 of flags (1: LP_NORMAL), 15 of length.
        let pointer = u32::from_le_bytes(*pointer);
        let (at, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
        let tuple = page.get(at..at + length).filter(|_| pointer >> 15 & 3 == 1)?;
        let hoff = usize::from(*tuple.get(TUPLE_HEADER - 1)?);
        tuple.get(hoff..).filter(|_| hoff >= TUPLE_HEADER).map(Row::new)
    };
    (1..).zip(pointers).filter_map(|(offset, pointer)| Some((offset, row(pointer)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The columns of a row of pg_class, as 14 to 17 lay them out.
    fn class(name: &str, file: u32, kind: char) -> Vec<u8> {
        let mut columns = vec![0; 150];
        columns[0..4].copy_from_slice(&16_384_u32.to_le_bytes());
        columns[4..4 + name.len()].copy_from_slice(name.as_bytes());
        columns[68..72].copy_from_slice(&2200_u32.to_le_bytes());
        columns[88..92].copy_from_slice(&file.to_le_bytes());
        columns[96..100].copy_from_slice(&7_u32.to_le_bytes());
        (columns[114], columns[115]) = (b'p', kind as u8);
        columns
    }

    /// log_heap_update: the common beginning and end of both rows are left out.
    fn logged(old: &[u8], new: &[u8], suffix: bool) -> (Vec<u8>, u8) {
        let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let left = old.len().min(new.len()) - prefix;
        let same = old.iter().rev().zip(new.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
        let same = if suffix { same } else { 0 };
        let mut data = (prefix as u16).to_le_bytes().to_vec();
        let mut flags = XLH_UPDATE_PREFIX_FROM_OLD;
        if suffix {
            data.extend((same as u16).to_le_bytes());
            flags |= XLH_UPDATE_SUFFIX_FROM_OLD;
        }
        data.extend([0, 0, 0, 0, 32]);
        data.extend([0xFF; 32 - TUPLE_HEADER]);
        data.extend(&new[prefix..new.len() - same]);
        (data, flags)
    }

    #[test]
    fn a_row_of_pg_class_is_read_in_every_layout() {
        let row = ClassRow::read(&Row::new(&class("orders", 777, 'r')), WalFormat::V14).expect("a row");
        assert_eq!((row.oid, row.name.as_str(), row.namespace), (Oid(16_384), "orders", Oid(2200)));
        assert_eq!((row.file, row.pages, row.persistence, row.kind), (Oid(777), 7, 'p', 'r'));
        assert_eq!(ClassRow::read(&Row::new(&class("orders", 777, 'r')), WalFormat::V18), None);
        let mut later = class("orders", 777, 'i');
        later.splice(108..108, [0; 4]);
        let later = ClassRow::read(&Row::new(&later), WalFormat::V18).expect("a row");
        assert_eq!((later.file, later.kind), (Oid(777), 'i'));
        assert_eq!(ClassRow::read(&Row::new(&class("", 777, 'r')), WalFormat::V14), None);
        assert_eq!(ClassRow::read(&Row::new(&class("x", 777, 'q')), WalFormat::V14), None);
    }

    #[test]
    fn an_invalid_database_is_told_by_its_connection_limit() {
        let mut columns = vec![0; 220];
        columns[80..84].copy_from_slice(&(-2_i32).to_le_bytes());
        assert!(is_invalid_database(&Row::new(&columns), WalFormat::V15));
        assert!(!is_invalid_database(&Row::new(&columns), WalFormat::V14));
        columns[208..212].copy_from_slice(&(-2_i32).to_le_bytes());
        assert!(is_invalid_database(&Row::new(&columns), WalFormat::V14));
    }

    #[test]
    fn the_rows_of_a_page_are_those_that_its_pointers_name() {
        let mut page = vec![0; 8192];
        let tuple = [&[0; 22][..], &[24, 0], b"the row"].concat();
        page[8000..8000 + tuple.len()].copy_from_slice(&tuple);
        let pointer = |flags: u32| (8000 | flags << 15 | (tuple.len() as u32) << 17).to_le_bytes();
        page[12..14].copy_from_slice(&36_u16.to_le_bytes());
        page[24..28].copy_from_slice(&pointer(3));
        page[28..32].copy_from_slice(&pointer(1));
        page[32..36].copy_from_slice(&pointer(0));
        assert_eq!(rows_of(&page), [(2, Row::new(b"the row"))]);
    }

    proptest! {
        #[test]
        fn a_new_row_is_made_of_the_old_one_and_what_differs(
            old in proptest::collection::vec(0_u8..3, 150..600),
            new in proptest::collection::vec(0_u8..3, 150..600),
            common in 0_usize..150,
            suffix: bool,
        ) {
            let mut new = new;
            new[..common].copy_from_slice(&old[..common]);
            let (data, flags) = logged(&old, &new, suffix);
            let edit = edit(&data, flags).expect("an edit");
            let applied = edit.apply(Some(&Row::new(&old)));
            // What lies behind the bytes that are kept of the old row is not known: then fewer are known of the new.
            let applied = applied.filter(|_| old.len() <= Row::KEPT);
            prop_assert!(old.len() > Row::KEPT || applied == Some(Row::new(&new)));
            let guess = edit.apply(Some(&Row::new(&old)));
            if let Some(guess) = guess {
                prop_assert_eq!(guess.length, new.len());
                prop_assert_eq!(&guess.columns[..], &new[..guess.columns.len()]);
            }
            if edit.prefix > 0 {
                prop_assert_eq!(edit.apply(None), None);
            }
        }

        #[test]
        fn pages_of_any_content_never_panic(page in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(rows_of(&page).len() <= page.len());
        }
    }
}
