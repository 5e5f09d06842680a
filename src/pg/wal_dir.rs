//! Around the file that PostgreSQL hands to `archive_command` or asks `restore_command` for: the server
//! runs both in its data directory and names the file relative to it.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::control::ControlFile;
use super::lsn::{Lsn, SystemId};
use super::names::SegmentName;
use super::wal::{Extent, SegmentFacts, SegmentHeader, Walk};
use crate::error::{Error, IoContext, Result};

/// The data directory that a WAL file's path belongs to: the working directory, as PostgreSQL sets it, or,
/// when a person gave an absolute path, the parent of its pg_wal. None: the path lies in no data directory.
pub fn data_directory(wal_file: &Path) -> Result<Option<PathBuf>> {
    let working = std::env::current_dir().doing(|| "find the working directory")?;
    if wal_file.is_absolute()
        && let Some(owner) = wal_file.parent().and_then(Path::parent)
        && is_data_directory(owner)
    {
        return Ok(Some(owner.to_path_buf()));
    }
    Ok(Some(working).filter(|path| is_data_directory(path)))
}

fn is_data_directory(path: &Path) -> bool {
    ControlFile::path(path).exists()
}

/// The control file of the cluster in `data_directory`, or an error that says how to name that.
pub fn control_file(data_directory: Option<&Path>) -> Result<ControlFile> {
    match data_directory {
        Some(directory) => ControlFile::read(directory),
        None => Err(Error::configuration(
            "could not tell which cluster this is: there is no global/pg_control here",
        )
        .with_hint("PostgreSQL runs this in its data directory; by hand, change to it first")),
    }
}

/// Whether pg_wal holds this very segment, and all of it: names are recycled, and in a copy of a pg_wal the
/// last segment that was written ends somewhere in the middle.
pub fn holds_segment(data_directory: &Path, name: SegmentName, system_id: SystemId) -> Result<bool> {
    copy_segment(data_directory, name, system_id, &mut std::io::sink())
}

/// Copies a segment of pg_wal, and answers whether the copy is that very segment and whole. What the server gives
/// to no archiver it may recycle at any moment, so only such a copy may be relied on.
pub fn copy_segment(
    data_directory: &Path,
    name: SegmentName,
    system_id: SystemId,
    copy: &mut dyn Write,
) -> Result<bool> {
    let facts = walk(data_directory, name, system_id, Extent::Whole, copy)?;
    Ok(facts.is_some_and(|facts| facts.damage.is_empty()))
}

/// Where the last whole record of a segment ends that pg_wal holds, whole or not. None: it holds no such
/// segment, or no whole record of it.
pub fn end_of_wal(data_directory: &Path, name: SegmentName, system_id: SystemId) -> Result<Option<Lsn>> {
    let facts = walk(data_directory, name, system_id, Extent::Partial, &mut std::io::sink())?;
    Ok(facts.and_then(|facts| facts.end_lsn))
}

/// None: pg_wal has no file that says of itself that it is this segment.
fn walk(
    data_directory: &Path,
    name: SegmentName,
    system_id: SystemId,
    extent: Extent,
    copy: &mut dyn Write,
) -> Result<Option<SegmentFacts>> {
    let path = data_directory.join("pg_wal").join(name.to_string());
    let Some((mut file, header)) = open_segment(&path, name, system_id)? else { return Ok(None) };
    let mut walk = Walk::new(&header, name, extent);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match read_some(&mut file, &mut buffer).doing(|| format!("read {}", path.display()))? {
            [] => return Ok(Some(walk.finish())),
            bytes => {
                walk.feed(bytes);
                copy.write_all(bytes).doing(|| format!("copy {}", path.display()))?;
            }
        }
    }
}

/// Whether the file says of itself that it is this segment, and has its size. What follows the first page is
/// not looked at.
pub fn is_segment(path: &Path, name: SegmentName, system_id: SystemId) -> Result<bool> {
    Ok(open_segment(path, name, system_id)?.is_some())
}

/// None: there is no such file, or it is another segment's.
fn open_segment(
    path: &Path,
    name: SegmentName,
    system_id: SystemId,
) -> Result<Option<(File, SegmentHeader)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io(format!("open {}", path.display()), &cause)),
    };
    let reading = || format!("read {}", path.display());
    let size = file.metadata().doing(reading)?.len();
    let mut first = [0; SegmentHeader::LENGTH];
    let header = SegmentHeader::parse(read_some(&mut file, &mut first).doing(reading)?);
    file.rewind().doing(reading)?;
    Ok(header
        .ok()
        .filter(|header| header.system_id == system_id && header.check(name, size).is_ok())
        .map(|header| (file, header)))
}

fn read_some<'b>(file: &mut File, buffer: &'b mut [u8]) -> std::io::Result<&'b [u8]> {
    let length = file.read(buffer)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// Whether the server that runs in `data_directory` is, or will start as, a standby: one that asks again
/// and again (CheckRecoveryConfig, readRecoverySignalFile).
pub fn is_standby(data_directory: &Path) -> Result<bool> {
    let signal = data_directory.join("standby.signal");
    signal.try_exists().doing(|| format!("look for {}", signal.display()))
}

/// Whether the server recovers from an archive: PostgreSQL removes these when recovery has ended (StartupXLOG).
pub fn is_in_recovery(data_directory: &Path) -> Result<bool> {
    let signal = data_directory.join("recovery.signal");
    Ok(is_standby(data_directory)?
        || signal.try_exists().doing(|| format!("look for {}", signal.display()))?)
}
