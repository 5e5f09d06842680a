//! pg_control, the file that says what a cluster is and where recovery begins.
//!
//! Parses the layout of PostgreSQL 14 to 18 (catalog/pg_control.h, 64-bit machines), which is one for
//! all, except that 18 puts a byte before the nonce and so the CRC four bytes further. Refuses other
//! versions, another byte order, and values that a server would not start with; a CRC that does not
//! match is `Kind::Corrupt`, because a server that is writing the file can tear it under our eyes.
//!
//! Invariant: every `ControlFile` had a matching CRC.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use super::page::BlockSize;
use super::version::PgMajor;
use crate::error::{Error, IoContext, Kind, Result};

/// PG_CONTROL_FILE_SIZE.
pub const FILE_SIZE: usize = 8192;

/// FLOATFORMAT_VALUE.
const FLOAT_FORMAT: f64 = 1_234_567.0;

/// As get_controlfile (controldata_utils.c): that often, that far apart.
const RETRIES: u32 = 10;
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// What the server was doing when it last wrote pg_control (DBState).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbState {
    Startup,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl DbState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => DbState::Startup,
            1 => DbState::ShutDown,
            2 => DbState::ShutDownInRecovery,
            3 => DbState::ShuttingDown,
            4 => DbState::InCrashRecovery,
            5 => DbState::InArchiveRecovery,
            6 => DbState::InProduction,
            _ => return None,
        })
    }

    /// In the words of pg_controldata.
    pub fn as_str(self) -> &'static str {
        match self {
            DbState::Startup => "starting up",
            DbState::ShutDown => "shut down",
            DbState::ShutDownInRecovery => "shut down in recovery",
            DbState::ShuttingDown => "shutting down",
            DbState::InCrashRecovery => "in crash recovery",
            DbState::InArchiveRecovery => "in archive recovery",
            DbState::InProduction => "in production",
        }
    }
}

/// The setting wal_level (access/xlog.h, WalLevel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    Minimal,
    Replica,
    Logical,
}

impl WalLevel {
    fn from_number(number: u32) -> Option<Self> {
        [WalLevel::Minimal, WalLevel::Replica, WalLevel::Logical].get(usize::try_from(number).ok()?).copied()
    }

    /// As in postgresql.conf.
    pub fn as_str(self) -> &'static str {
        match self {
            WalLevel::Minimal => "minimal",
            WalLevel::Replica => "replica",
            WalLevel::Logical => "logical",
        }
    }
}

/// A transaction id with its epoch in the upper half (FullTransactionId).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FullXid(pub u64);

/// The settings in pg_control that a server in recovery may not have lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySettings {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

/// ControlFileData, without the fields that nobody here needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    pub system_id: SystemId,
    pub major: PgMajor,
    pub state: DbState,
    /// When pg_control was written.
    pub time: Timestamp,
    /// Where the record of the last checkpoint is.
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    pub checkpoint_timeline: Timeline,
    pub checkpoint_time: Timestamp,
    pub full_page_writes: bool,
    pub next_xid: FullXid,
    pub unlogged_lsn: Lsn,
    /// Up to where recovery must go before the cluster is consistent; 0/0 outside archive recovery.
    pub min_recovery_point: Lsn,
    /// The timeline of that point; 0 outside archive recovery.
    pub min_recovery_timeline: Timeline,
    /// The redo pointer of the backup that is being recovered from; else 0/0.
    pub backup_start_point: Lsn,
    /// The end of that backup if it came from a standby; else 0/0.
    pub backup_end_point: Lsn,
    pub backup_end_required: bool,
    pub wal_level: WalLevel,
    pub wal_log_hints: bool,
    pub recovery_settings: RecoverySettings,
    pub track_commit_timestamp: bool,
    /// In bytes.
    pub max_align: u32,
    pub block_size: BlockSize,
    /// Blocks in a file of a large relation (RELSEG_SIZE).
    pub blocks_per_file: u32,
    /// XLOG_BLCKSZ, in bytes.
    pub wal_block_size: u32,
    pub segment_size: SegmentSize,
    /// 0 for a cluster without data checksums.
    pub data_checksum_version: u32,
}

impl ControlFile {
    /// The file within a data directory.
    pub fn path(data_directory: &Path) -> PathBuf {
        data_directory.join("global").join("pg_control")
    }

    /// Reads the file of a data directory, again when a server that was writing it tore it.
    pub fn read(data_directory: &Path) -> Result<Self> {
        Ok(Self::read_with_bytes(data_directory)?.0)
    }

    /// The same, with the bytes in which it was found: those that a backup may keep.
    pub fn read_with_bytes(data_directory: &Path) -> Result<(Self, Vec<u8>)> {
        let path = Self::path(data_directory);
        parse_until_whole(
            || read_file(&path),
            |bytes| ControlFile::parse(bytes).map_err(|error| error.context(path.display())),
        )
    }

    /// Parses the whole file. `Kind::Corrupt` when it may be torn.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != FILE_SIZE {
            let found = bytes.len();
            return Err(Error::corrupt(format!(
                "could not read pg_control: expected {FILE_SIZE} bytes, found {found}"
            )));
        }
        let fields = Fields { bytes };
        let control_version = known_version(fields.u32(8))?;
        fields.check_crc(crc_offset(control_version))?;
        let major = PgMajor::from_catalog_version(fields.u32(12))?;
        if major.control_version() != control_version {
            return Err(implausible(format!("format version {control_version} for PostgreSQL {major}")));
        }
        if f64::from_bits(fields.u64(208)) != FLOAT_FORMAT {
            return Err(implausible("a floating-point format that is not this machine's"));
        }
        fields.control_file(major)
    }

    pub fn has_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// At most one byte more than the file can have, so that a longer one shows.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let limit = FILE_SIZE as u64 + 1;
    let mut bytes = Vec::with_capacity(FILE_SIZE + 1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.doing(|| format!("read {}", path.display()))?;
    Ok(bytes)
}

/// Until it is whole, or the same damage is seen twice, which is then no write under way, or too often:
/// as get_controlfile (controldata_utils.c).
fn parse_until_whole(
    mut read: impl FnMut() -> Result<Vec<u8>>,
    parse: impl Fn(&[u8]) -> Result<ControlFile>,
) -> Result<(ControlFile, Vec<u8>)> {
    let mut bytes = read()?;
    for _ in 0..RETRIES {
        match parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) if error.kind() != Kind::Corrupt => return Err(error),
            Err(_) => std::thread::sleep(RETRY_DELAY),
        }
        let again = read()?;
        if again == bytes {
            break;
        }
        bytes = again;
    }
    parse(&bytes).map(|control| (control, bytes))
}

/// The format version, if it is one of ours: before it is known there is no telling where the CRC is.
fn known_version(version: u32) -> Result<u32> {
    if PgMajor::all().any(|major| major.control_version() == version) {
        return Ok(version);
    }
    let swapped = version.swap_bytes();
    if PgMajor::all().any(|major| major.control_version() == swapped) {
        return Err(implausible("the byte order of another kind of machine"));
    }
    Err(Error::postgres(format!("could not read pg_control: its format version {version} is not supported"))
        .with_hint("supported are the releases of PostgreSQL 14 to 18, on 64-bit machines"))
}

/// Where the CRC is: behind all that it covers.
fn crc_offset(control_version: u32) -> usize {
    if control_version >= 1800 { 292 } else { 288 }
}

/// A file of these bytes, as a fuzzer wants it (`crate::fuzz`): of the right size, with a right CRC.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let mut bytes = data.get(..FILE_SIZE).unwrap_or(data).to_vec();
    bytes.resize(FILE_SIZE, 0);
    let at = crc_offset(Fields { bytes: &bytes }.u32(8));
    let (covered, rest) = bytes.split_at_mut(at);
    let crc = crc32c::crc32c(covered).to_ne_bytes();
    rest.iter_mut().zip(crc).for_each(|(byte, right)| *byte = right);
    if let Ok(control) = ControlFile::parse(&bytes) {
        std::hint::black_box((control.has_checksums(), control.segment_size));
    }
}

fn implausible(found: impl std::fmt::Display) -> Error {
    Error::postgres(format!("could not read pg_control: it holds {found}"))
}

/// The bytes of ControlFileData. All offsets are below `FILE_SIZE`, which `parse` has checked; beyond
/// the end zeros would be read.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }

    fn bool(&self, offset: usize) -> bool {
        self.array::<1>(offset) != [0]
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.array(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.array(offset))
    }

    fn lsn(&self, offset: usize) -> Lsn {
        Lsn(self.u64(offset))
    }

    /// pg_time_t: seconds since 1970.
    fn time(&self, offset: usize) -> Result<Timestamp> {
        let seconds = i64::from_ne_bytes(self.array(offset));
        Timestamp::from_second(seconds).map_err(|_| implausible(format!("time {seconds}")))
    }

    fn check_crc(&self, offset: usize) -> Result<()> {
        let computed = crc32c::crc32c(self.bytes.get(..offset).unwrap_or_default());
        let found = self.u32(offset);
        if computed == found {
            return Ok(());
        }
        let message = format!("could not read pg_control: its CRC is {found:08x}, expected {computed:08x}");
        Err(Error::corrupt(message))
    }

    fn control_file(&self, major: PgMajor) -> Result<ControlFile> {
        let state = self.u32(16);
        let wal_level = self.u32(172);
        let segment_size = self.u32(228);
        Ok(ControlFile {
            system_id: SystemId(self.u64(0)),
            major,
            state: DbState::from_number(state).ok_or_else(|| implausible(format!("state {state}")))?,
            time: self.time(24)?,
            checkpoint: self.lsn(32),
            redo: self.lsn(40),
            checkpoint_timeline: Timeline(self.u32(48)),
            full_page_writes: self.bool(56),
            next_xid: FullXid(self.u64(64)),
            checkpoint_time: self.time(104)?,
            unlogged_lsn: self.lsn(128),
            min_recovery_point: self.lsn(136),
            min_recovery_timeline: Timeline(self.u32(144)),
            backup_start_point: self.lsn(152),
            backup_end_point: self.lsn(160),
            backup_end_required: self.bool(168),
            wal_level: WalLevel::from_number(wal_level)
                .ok_or_else(|| implausible(format!("wal_level {wal_level}")))?,
            wal_log_hints: self.bool(176),
            recovery_settings: self.recovery_settings(),
            track_commit_timestamp: self.bool(200),
            max_align: self.u32(204),
            block_size: BlockSize::try_from(self.u32(216)).map_err(implausible)?,
            blocks_per_file: self.u32(220),
            wal_block_size: self.u32(224),
            segment_size: SegmentSize::try_from(u64::from(segment_size)).map_err(implausible)?,
            data_checksum_version: self.u32(252),
        })
    }

    fn recovery_settings(&self) -> RecoverySettings {
        RecoverySettings {
            max_connections: self.u32(180),
            max_worker_processes: self.u32(184),
            max_wal_senders: self.u32(188),
            max_prepared_transactions: self.u32(192),
            max_locks_per_transaction: self.u32(196),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The used part of files that real servers wrote, standbys in recovery (`tests/pgfacts.rs` compares
    /// every field of each with what pg_controldata says).
    const REAL: [(u32, &[u8]); 5] = [
        (14, include_bytes!("../../tests/pg_control/14.bin")),
        (15, include_bytes!("../../tests/pg_control/15.bin")),
        (16, include_bytes!("../../tests/pg_control/16.bin")),
        (17, include_bytes!("../../tests/pg_control/17.bin")),
        (18, include_bytes!("../../tests/pg_control/18.bin")),
    ];

    fn real(major: u32) -> Vec<u8> {
        let found = REAL.iter().find(|(number, _)| *number == major).expect("one of ours");
        let mut bytes = found.1.to_vec();
        bytes.resize(FILE_SIZE, 0);
        bytes
    }

    /// Overwrites four bytes and, as a server would, writes the CRC anew.
    fn rewritten(major: u32, offset: usize, value: [u8; 4]) -> Vec<u8> {
        let mut bytes = real(major);
        bytes[offset..offset + 4].copy_from_slice(&value);
        let end = if major >= 18 { 292 } else { 288 };
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_files_of_all_supported_majors_are_read() {
        for (number, _) in REAL {
            let control = ControlFile::parse(&real(number)).expect("a real file");
            assert_eq!(control.major.number(), number);
            assert_eq!(control.state, DbState::InArchiveRecovery);
            assert_eq!(control.segment_size.bytes(), 1 << (number + 6));
            assert_eq!(control.recovery_settings.max_prepared_transactions, number);
            assert!(control.has_checksums() && control.min_recovery_point > control.redo);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_before_the_end_of_the_crc_is_noticed() {
        for (number, _) in REAL {
            for bit in 0..(if number >= 18 { 296 } else { 292 }) * 8 {
                let mut bytes = real(number);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let kind = ControlFile::parse(&bytes).expect_err("damaged").kind();
                let in_version = (64..96).contains(&bit);
                assert!(kind == Kind::Corrupt || in_version, "PostgreSQL {number}, bit {bit}: {kind:?}");
            }
        }
    }

    #[test]
    fn what_this_machine_or_program_cannot_use_is_refused_and_not_called_torn() {
        for (offset, value, cause) in [
            (8, 1201_u32.to_ne_bytes(), "its format version 1201 is not supported"),
            (8, 1300_u32.swap_bytes().to_ne_bytes(), "the byte order of another kind of machine"),
            (12, 202_007_201_u32.to_ne_bytes(), "catalog version 202007201 is not one"),
            (12, 202_406_281_u32.to_ne_bytes(), "format version 1300 for PostgreSQL 17"),
            (16, 7_u32.to_ne_bytes(), "state 7"),
            (172, 3_u32.to_ne_bytes(), "wal_level 3"),
            (208, [1; 4], "a floating-point format"),
            (216, 8191_u32.to_ne_bytes(), "8191 is not a block size"),
            (228, 1234_u32.to_ne_bytes(), "1234 is not a WAL segment size"),
        ] {
            let error = ControlFile::parse(&rewritten(15, offset, value)).expect_err(cause);
            assert!(error.message().contains(cause), "{error}");
            assert_eq!(error.kind(), Kind::Postgres, "{error}");
        }
    }

    #[test]
    fn a_file_of_another_length_is_corrupt() {
        for length in [0, 512, FILE_SIZE - 1, FILE_SIZE + 1] {
            let mut bytes = real(15);
            bytes.resize(length, 0);
            let error = ControlFile::parse(&bytes).expect_err("wrong length");
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.message().contains(&format!("expected 8192 bytes, found {length}")), "{error}");
        }
    }

    #[test]
    fn a_torn_file_is_read_again_until_it_is_whole() {
        let torn = |byte| [&rewritten(15, 32, [byte; 4])[..100], &real(15)[100..]].concat();
        let mut reads = vec![real(15), torn(8), torn(9)];
        let read = parse_until_whole(|| Ok(reads.pop().expect("no further reads")), ControlFile::parse);
        assert!(read.is_ok_and(|(_, bytes)| bytes == real(15)));
        assert!(reads.is_empty());
    }

    #[test]
    fn damage_that_stays_is_reported_at_once_and_damage_that_changes_in_the_end() {
        let damaged = |byte: u8| {
            let mut bytes = real(15);
            bytes[40] = byte;
            bytes
        };
        let mut count = 0_u8;
        let same = parse_until_whole(
            || {
                count += 1;
                Ok(damaged(0xAA))
            },
            ControlFile::parse,
        );
        assert_eq!((same.map_err(|error| error.kind()), count), (Err(Kind::Corrupt), 2));
        let changing = parse_until_whole(
            || {
                count += 1;
                Ok(damaged(0xA0 | count))
            },
            ControlFile::parse,
        );
        assert_eq!((changing.map_err(|error| error.kind()), count), (Err(Kind::Corrupt), 13));
    }

    #[test]
    fn an_error_names_the_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = ControlFile::read(directory.path()).expect_err("nothing there");
        let path = ControlFile::path(directory.path()).display().to_string();
        assert!(missing.message().starts_with(&format!("could not read {path}: No such file")), "{missing}");
        std::fs::create_dir(directory.path().join("global")).expect("created");
        std::fs::write(ControlFile::path(directory.path()), b"short").expect("written");
        let short = ControlFile::read(directory.path()).expect_err("too short");
        assert!(short.message().starts_with(&format!("{path}: could not read pg_control: ")), "{short}");
        std::fs::write(ControlFile::path(directory.path()), real(16)).expect("written");
        assert!(ControlFile::read(directory.path()).is_ok_and(|control| control.major.number() == 16));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(head in proptest::collection::vec(any::<u8>(), 0..300), major in 13u32..19) {
            let mut bytes = head;
            bytes.resize(FILE_SIZE, 0);
            if let Some((_, real)) = REAL.iter().find(|(number, _)| *number == major) {
                bytes[8..16].copy_from_slice(&real[8..16]);
            }
            prop_assert!(ControlFile::parse(&bytes).is_err());
        }

        #[test]
        fn any_field_may_hold_anything(major in 14u32..=18, offset in 0usize..284, value: [u8; 4]) {
            if let Ok(control) = ControlFile::parse(&rewritten(major, offset, value)) {
                prop_assert_eq!(control.major.number(), major);
            }
        }
    }
}
