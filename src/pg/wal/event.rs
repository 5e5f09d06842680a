//! What happened, told record by record, for who looks for a moment in the WAL: transactions that ended and what
//! storage they dropped, restore points, dropped databases, changed rows of the catalogs that know names.
//!
//! [`Watching`] decides from a record's header whether it is wanted, and decodes it when all of it is there.
//! Records of interest that are longer than [`MAX_WATCHED`] are told as unread.

use super::decode::{
    RESTORE_POINT_NAME, RM_XACT, RM_XLOG, XLOG_CHECKPOINT_SHUTDOWN, XLOG_RESTORE_POINT, XLOG_XACT_ABORT,
    XLOG_XACT_ABORT_PREPARED, XLOG_XACT_COMMIT, XLOG_XACT_COMMIT_PREPARED, XLOG_XACT_OPMASK,
    XLR_RMGR_INFO_MASK, end_parts, text, timestamp,
};
use super::facts::RawText;
use super::header::WalFormat;
use super::heap::{RowChange, row_changes};
use super::record::{Cursor, RecordHeader, Stop, Whole, main_data};
use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelFileLocator;
use crate::pg::time::Timestamp;

/// The longest record that is decoded, in bytes: a commit that drops 300,000 relations fits.
pub const MAX_WATCHED: u32 = 4 << 20;

const RM_SMGR: u8 = 2;
const RM_DBASE: u8 = 4;
const RM_RELMAP: u8 = 7;
const RM_HEAP2: u8 = 9;
const RM_HEAP: u8 = 10;

const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
const XLOG_FPI_FOR_HINT: u8 = 0xA0;
const XLOG_FPI: u8 = 0xB0;
const XLOG_SMGR_CREATE: u8 = 0x10;
const XLOG_RELMAP_UPDATE: u8 = 0x00;
const XLOG_HEAP_OPMASK: u8 = 0x70;
const XLOG_HEAP_TRUNCATE: u8 = 0x30;

/// XLOG_DBASE_DROP: 15 made two kinds of the creation before it.
fn dbase_drop(format: WalFormat) -> u8 {
    if format == WalFormat::V14 { 0x10 } else { 0x20 }
}

/// Where a record lies, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// 0: none. Of a subtransaction its own.
    pub xid: u32,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Ended(Ended),
    RestorePoint {
        name: RawText,
        time: Timestamp,
    },
    /// A checkpoint: recovery that begins with it begins at `redo`.
    Checkpoint {
        redo: Lsn,
        /// The next transaction, with its epoch.
        next_xid: u64,
    },
    StorageCreated(RelFileLocator),
    /// The directories of a database were removed. Replaying it removes them at once, before its transaction ends.
    DatabaseRemoved(Oid),
    /// TRUNCATE, by the tables' oids; told at wal_level=logical only.
    Truncated {
        database: Oid,
        tables: Vec<Oid>,
    },
    /// Catalogs whose files are told by a map of their own: (catalog, file).
    Mapped {
        database: Oid,
        files: Vec<(Oid, Oid)>,
    },
    Row {
        file: RelFileLocator,
        change: RowChange,
    },
    /// Records are missing here: they are damaged.
    Lost,
    /// It is of interest, but too long or malformed.
    Unread(&'static str),
}

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub time: Timestamp,
    /// 0: none was recorded.
    pub xid: u32,
    pub committed: bool,
    /// By COMMIT PREPARED or ROLLBACK PREPARED.
    pub prepared: bool,
    pub database: Option<Oid>,
    pub subxacts: Vec<u32>,
    /// The storage that is removed when it ends: of a commit what was dropped or replaced.
    pub removed: Vec<RelFileLocator>,
}

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Ends of transactions and restore points.
    Ends,
    /// These, and what became of relations and databases.
    Relations,
    /// Checkpoints.
    Checkpoints,
}

/// Which records are watched for, and the files in which the catalogs' rows are.
#[derive(Clone, Debug)]
pub struct Watching {
    pub interest: Interest,
    format: WalFormat,
    /// Sorted; those of all databases.
    catalogs: Vec<Oid>,
    seen: Vec<Seen>,
}

impl Watching {
    /// `catalogs` are file numbers, whatever the database.
    pub fn new(interest: Interest, format: WalFormat, mut catalogs: Vec<Oid>) -> Self {
        catalogs.sort();
        Self { interest, format, catalogs, seen: Vec::new() }
    }

    /// What was seen since the last time.
    pub fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn lost(&mut self, lsn: Lsn) {
        if self.seen.last().is_some_and(|last| last.event == Event::Lost) {
            return;
        }
        self.seen.push(Seen { lsn, end: lsn, xid: 0, event: Event::Lost });
    }

    /// Decided by its header alone. A false answer is final, a true one is not.
    #[inline]
    pub(super) fn wants(&self, header: &RecordHeader) -> bool {
        let info = header.info & XLR_RMGR_INFO_MASK;
        let relations = self.interest == Interest::Relations;
        let ends = relations || self.interest == Interest::Ends;
        match header.rmgr {
            RM_XACT => ends && is_end(header.info),
            RM_XLOG => match info {
                XLOG_CHECKPOINT_SHUTDOWN | XLOG_CHECKPOINT_ONLINE => true,
                XLOG_RESTORE_POINT => ends,
                XLOG_FPI | XLOG_FPI_FOR_HINT => relations,
                _ => false,
            },
            RM_SMGR => relations && info == XLOG_SMGR_CREATE,
            RM_DBASE => relations && info == dbase_drop(self.format),
            RM_RELMAP => relations && info == XLOG_RELMAP_UPDATE,
            RM_HEAP | RM_HEAP2 => relations,
            _ => false,
        }
    }

    /// Takes a whole, good record that is wanted.
    pub(super) fn see(&mut self, lsn: Lsn, end: Lsn, header: &RecordHeader, record: &[u8]) {
        let events = if record.len() == header.total_len as usize {
            self.events(header, record)
        } else {
            Ok(vec![Event::Unread("it is too long to be looked at")])
        };
        let events = events.unwrap_or_else(|stop| {
            vec![Event::Unread(match stop {
                Stop::Malformed(what) => what,
                Stop::Missing { .. } => "it is shorter than what it should hold",
            })]
        });
        let xid = header.xid;
        self.seen.extend(events.into_iter().map(|event| Seen { lsn, end, xid, event }));
    }

    fn events(&self, header: &RecordHeader, record: &[u8]) -> Result<Vec<Event>, Stop> {
        if matches!(header.rmgr, RM_HEAP | RM_HEAP2)
            || (header.rmgr == RM_XLOG
                && matches!(header.info & XLR_RMGR_INFO_MASK, XLOG_FPI | XLOG_FPI_FOR_HINT))
        {
            return self.rows(header, record);
        }
        let whole = Whole(record);
        let main = main_data(&whole, self.format)?;
        let mut data = Cursor::new(&whole, main.at);
        let event = match header.rmgr {
            RM_XACT => Event::Ended(ended(&mut data, header, self.format)?),
            RM_SMGR => Event::StorageCreated(data.locator()?),
            RM_DBASE => Event::DatabaseRemoved(Oid(data.u32()?)),
            RM_RELMAP => mapped(&mut data)?,
            _ if header.info & XLR_RMGR_INFO_MASK == XLOG_RESTORE_POINT => {
                let time = timestamp(data.i64()?)?;
                Event::RestorePoint { name: text(data.bytes(RESTORE_POINT_NAME)?), time }
            }
            _ => {
                let redo = Lsn(data.u64()?);
                // The timelines, full_page_writes, since 17 wal_level.
                data.skip(4, 4)?;
                Event::Checkpoint { redo, next_xid: data.u64()? }
            }
        };
        Ok(vec![event])
    }

    fn rows(&self, header: &RecordHeader, record: &[u8]) -> Result<Vec<Event>, Stop> {
        if header.rmgr == RM_HEAP && header.info & XLOG_HEAP_OPMASK == XLOG_HEAP_TRUNCATE {
            let whole = Whole(record);
            let main = main_data(&whole, self.format)?;
            let mut data = Cursor::new(&whole, main.at);
            return truncated(&mut data).map(|event| vec![event]);
        }
        let is_catalog = |file: RelFileLocator| self.catalogs.binary_search(&file.number).is_ok();
        let changes = row_changes(record, header, self.format, &is_catalog)?;
        Ok(changes.into_iter().map(|(file, change)| Event::Row { file, change }).collect())
    }
}

fn is_end(info: u8) -> bool {
    matches!(
        info & XLOG_XACT_OPMASK,
        XLOG_XACT_COMMIT | XLOG_XACT_ABORT | XLOG_XACT_COMMIT_PREPARED | XLOG_XACT_ABORT_PREPARED
    )
}

/// ParseCommitRecord, ParseAbortRecord.
fn ended(data: &mut Cursor<'_, Whole<'_>>, header: &RecordHeader, format: WalFormat) -> Result<Ended, Stop> {
    let operation = header.info & XLOG_XACT_OPMASK;
    let time = timestamp(data.i64()?)?;
    let parts = end_parts(data, header.info, format)?;
    let prepared = matches!(operation, XLOG_XACT_COMMIT_PREPARED | XLOG_XACT_ABORT_PREPARED);
    data.at = parts.subxacts.0;
    let subxacts = (0..parts.subxacts.1).map(|_| data.u32()).collect::<Result<_, Stop>>()?;
    data.at = parts.dropped.0;
    let removed = (0..parts.dropped.1).map(|_| data.locator()).collect::<Result<_, Stop>>()?;
    Ok(Ended {
        time,
        xid: if prepared { parts.prepared_xid } else { header.xid },
        committed: matches!(operation, XLOG_XACT_COMMIT | XLOG_XACT_COMMIT_PREPARED),
        prepared,
        database: parts.database,
        subxacts,
        removed,
    })
}

/// xl_heap_truncate.
fn truncated(data: &mut Cursor<'_, Whole<'_>>) -> Result<Event, Stop> {
    let (database, count) = (Oid(data.u32()?), data.u32()?);
    data.u32()?; // flags
    let tables = (0..count).map(|_| data.u32().map(Oid)).collect::<Result<_, Stop>>()?;
    Ok(Event::Truncated { database, tables })
}

/// xl_relmap_update with the RelMapFile in it.
fn mapped(data: &mut Cursor<'_, Whole<'_>>) -> Result<Event, Stop> {
    let database = Oid(data.u32()?);
    data.skip(3, 4)?; // tablespace, size, magic
    let count = data.u32()?;
    let file = |data: &mut Cursor<'_, Whole<'_>>| Ok((Oid(data.u32()?), Oid(data.u32()?)));
    let files = (0..count).map(|_| file(data)).collect::<Result<_, Stop>>()?;
    Ok(Event::Mapped { database, files })
}
