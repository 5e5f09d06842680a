//! What a record says that a restore must know: ends of transactions, restore points, settings,
//! tablespaces, timelines. Everything else is [`Fact::Nothing`].
//!
//! Reads what PostgreSQL's recovery looks at when it decides where to stop: xlogrecovery.c
//! (getRecordTimestamp, recoveryStopsBefore, recoveryStopsAfter; xlog.c in 14) and xactdesc.c
//! (ParseCommitRecord, ParseAbortRecord). So a prepared transaction has its own kind of fact: no recovery
//! target compares with the moment of PREPARE TRANSACTION.

use super::facts::{RawText, WalLevel, WalSettings};
use super::header::WalFormat;
use super::record::{Cursor, MainData, RecordBytes, RecordHeader, Stop, main_data};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::oid::Oid;
use crate::pg::time::Timestamp;

pub(super) const RM_XLOG: u8 = 0;
pub(super) const RM_XACT: u8 = 1;
const RM_TBLSPC: u8 = 5;

pub(super) const XLR_RMGR_INFO_MASK: u8 = 0xF0;

pub(super) const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_PARAMETER_CHANGE: u8 = 0x60;
pub(super) const XLOG_RESTORE_POINT: u8 = 0x70;
const XLOG_END_OF_RECOVERY: u8 = 0x90;
const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;

pub(super) const XLOG_XACT_OPMASK: u8 = 0x70;
pub(super) const XLOG_XACT_COMMIT: u8 = 0x00;
const XLOG_XACT_PREPARE: u8 = 0x10;
pub(super) const XLOG_XACT_ABORT: u8 = 0x20;
pub(super) const XLOG_XACT_COMMIT_PREPARED: u8 = 0x30;
pub(super) const XLOG_XACT_ABORT_PREPARED: u8 = 0x40;
const XLOG_XACT_HAS_INFO: u8 = 0x80;

const XLOG_TBLSPC_CREATE: u8 = 0x00;
const XLOG_TBLSPC_DROP: u8 = 0x10;

const XACT_XINFO_HAS_DBINFO: u32 = 1 << 0;
const XACT_XINFO_HAS_SUBXACTS: u32 = 1 << 1;
const XACT_XINFO_HAS_RELFILENODES: u32 = 1 << 2;
const XACT_XINFO_HAS_INVALS: u32 = 1 << 3;
const XACT_XINFO_HAS_TWOPHASE: u32 = 1 << 4;
const XACT_XINFO_HAS_DROPPED_STATS: u32 = 1 << 8;

/// MAXFNAMELEN: the space for a restore point's name, with its NUL.
pub(super) const RESTORE_POINT_NAME: u32 = 64;
/// MAXPGPATH: the longest path of a tablespace, with its NUL.
const MAX_PATH: u32 = 1024;

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Nothing,
    /// A transaction, prepared before or not, ended. No xid: none was recorded.
    TransactionEnd {
        time: Timestamp,
        xid: Option<u32>,
    },
    Prepared {
        time: Timestamp,
    },
    RestorePoint {
        name: RawText,
        time: Timestamp,
    },
    Settings(WalSettings),
    TablespaceCreated {
        oid: Oid,
        path: RawText,
    },
    TablespaceDropped {
        oid: Oid,
    },
    /// The rest of the segment is unused.
    Switch,
    NewTimeline {
        timeline: Timeline,
        parent: Timeline,
    },
    /// The record that began at this LSN was never finished.
    Overwrites(Lsn),
}

/// Can a record of this kind hold a fact? A false answer is final, a true one is not.
#[inline]
pub(super) fn may_matter(header: &RecordHeader) -> bool {
    match header.rmgr {
        RM_XACT => matches!(
            header.info & XLOG_XACT_OPMASK,
            XLOG_XACT_COMMIT
                | XLOG_XACT_PREPARE
                | XLOG_XACT_ABORT
                | XLOG_XACT_COMMIT_PREPARED
                | XLOG_XACT_ABORT_PREPARED
        ),
        RM_XLOG => matches!(
            header.info & XLR_RMGR_INFO_MASK,
            XLOG_CHECKPOINT_SHUTDOWN
                | XLOG_SWITCH
                | XLOG_PARAMETER_CHANGE
                | XLOG_RESTORE_POINT
                | XLOG_END_OF_RECOVERY
                | XLOG_OVERWRITE_CONTRECORD
        ),
        RM_TBLSPC => true,
        _ => false,
    }
}

/// Decodes a record, of which perhaps only parts are held.
pub(super) fn decode<R: RecordBytes>(record: &R, format: WalFormat) -> Result<Fact, Stop> {
    let header = record.header()?;
    let main = main_data(record, format)?;
    if !may_matter(&header) {
        return Ok(Fact::Nothing);
    }
    match header.rmgr {
        RM_XACT => transaction(record, &header, main, format),
        RM_XLOG => server_record(record, &header, main),
        _ => tablespace(record, &header, main),
    }
}

pub(super) fn timestamp(microseconds: i64) -> Result<Timestamp, Stop> {
    Timestamp::from_postgres(microseconds).ok_or(Stop::Malformed("its time is beyond the year 9999"))
}

fn transaction<R: RecordBytes>(
    record: &R,
    header: &RecordHeader,
    main: MainData,
    format: WalFormat,
) -> Result<Fact, Stop> {
    let mut data = Cursor::new(record, main.at);
    let operation = header.info & XLOG_XACT_OPMASK;
    if operation == XLOG_XACT_PREPARE {
        data.skip(4, 4)?; // magic, total_len, xid, database
        return Ok(Fact::Prepared { time: timestamp(data.i64()?)? });
    }
    let time = timestamp(data.i64()?)?;
    let xid = match operation {
        XLOG_XACT_COMMIT | XLOG_XACT_ABORT => header.xid,
        _ => prepared_xid(&mut data, header.info, format)?,
    };
    Ok(Fact::TransactionEnd { time, xid: Some(xid).filter(|xid| *xid != 0) })
}

/// The xid of the prepared transaction that a record ends; `data` stands behind its time. Everything in
/// front of it is of variable length (ParseCommitRecord, ParseAbortRecord).
fn prepared_xid<R: RecordBytes>(data: &mut Cursor<'_, R>, info: u8, format: WalFormat) -> Result<u32, Stop> {
    end_parts(data, info, format).map(|parts| parts.prepared_xid)
}

/// Where the parts of a transaction's end are that are of variable length.
pub(super) struct EndParts {
    pub database: Option<Oid>,
    /// Offset and count.
    pub subxacts: (u32, u32),
    pub dropped: (u32, u32),
    /// 0 when it was not prepared.
    pub prepared_xid: u32,
}

/// Passes them; `data` stands behind the time.
pub(super) fn end_parts<R: RecordBytes>(
    data: &mut Cursor<'_, R>,
    info: u8,
    format: WalFormat,
) -> Result<EndParts, Stop> {
    let xinfo = if info & XLOG_XACT_HAS_INFO != 0 { data.u32()? } else { 0 };
    let is_commit = matches!(info & XLOG_XACT_OPMASK, XLOG_XACT_COMMIT | XLOG_XACT_COMMIT_PREPARED);
    // xl_xact_stats_item: an object has 8 bytes since 18.
    let stats_item = if format >= WalFormat::V18 { 16 } else { 12 };
    let mut database = None;
    if xinfo & XACT_XINFO_HAS_DBINFO != 0 {
        database = Some(Oid(data.u32()?));
        data.u32()?; // its tablespace
    }
    let mut list = |flag: u32, present: bool, size: u32| -> Result<(u32, u32), Stop> {
        if !present || xinfo & flag == 0 {
            return Ok((data.at, 0));
        }
        let count = data.u32()?;
        let at = data.at;
        data.skip(count, size)?;
        Ok((at, count))
    };
    let subxacts = list(XACT_XINFO_HAS_SUBXACTS, true, 4)?;
    let dropped = list(XACT_XINFO_HAS_RELFILENODES, true, 12)?;
    list(XACT_XINFO_HAS_DROPPED_STATS, format >= WalFormat::V15, stats_item)?;
    list(XACT_XINFO_HAS_INVALS, is_commit, 16)?;
    let prepared_xid = if xinfo & XACT_XINFO_HAS_TWOPHASE != 0 { data.u32()? } else { 0 };
    Ok(EndParts { database, subxacts, dropped, prepared_xid })
}

fn server_record<R: RecordBytes>(record: &R, header: &RecordHeader, main: MainData) -> Result<Fact, Stop> {
    let mut data = Cursor::new(record, main.at);
    match header.info & XLR_RMGR_INFO_MASK {
        XLOG_SWITCH => Ok(Fact::Switch),
        XLOG_PARAMETER_CHANGE => settings(&mut data),
        XLOG_RESTORE_POINT => {
            let time = timestamp(data.i64()?)?;
            Ok(Fact::RestorePoint { name: text(data.bytes(RESTORE_POINT_NAME)?), time })
        }
        XLOG_OVERWRITE_CONTRECORD => Ok(Fact::Overwrites(Lsn(data.u64()?))),
        // A checkpoint starts with its redo LSN, the end of recovery with its time.
        _ => {
            data.u64()?;
            let (timeline, parent) = (Timeline(data.u32()?), Timeline(data.u32()?));
            Ok(if timeline == parent { Fact::Nothing } else { Fact::NewTimeline { timeline, parent } })
        }
    }
}

/// xl_parameter_change.
fn settings<R: RecordBytes>(data: &mut Cursor<'_, R>) -> Result<Fact, Stop> {
    Ok(Fact::Settings(WalSettings {
        max_connections: data.i32()?,
        max_worker_processes: data.i32()?,
        max_wal_senders: data.i32()?,
        max_prepared_transactions: data.i32()?,
        max_locks_per_transaction: data.i32()?,
        wal_level: WalLevel::from_number(data.i32()?),
        wal_log_hints: data.u8()? != 0,
        track_commit_timestamp: data.u8()? != 0,
    }))
}

fn tablespace<R: RecordBytes>(record: &R, header: &RecordHeader, main: MainData) -> Result<Fact, Stop> {
    let mut data = Cursor::new(record, main.at);
    match header.info & XLR_RMGR_INFO_MASK {
        XLOG_TBLSPC_CREATE => {
            let oid = Oid(data.u32()?);
            let path = data.bytes(main.len.saturating_sub(4).min(MAX_PATH))?;
            Ok(Fact::TablespaceCreated { oid, path: text(path) })
        }
        XLOG_TBLSPC_DROP => Ok(Fact::TablespaceDropped { oid: Oid(data.u32()?) }),
        _ => Ok(Fact::Nothing),
    }
}

/// The text in front of the first NUL.
pub(super) fn text(bytes: &[u8]) -> RawText {
    RawText(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}
