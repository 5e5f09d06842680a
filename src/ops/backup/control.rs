//! Copying pg_control: after everything else, so that on a standby its minRecoveryPoint covers whatever
//! was copied, and before the stop (backup.sgml). It stands last in the map, and a restore writes it last.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use super::server::Server;
use crate::error::{Error, IoContext, Result};
use crate::pg::control::ControlFile;
use crate::pipe::digest::SliceDigest;
use crate::pipe::frame::Compressor;
use crate::repo::map::{Attributes, FileMode, MapPath, MapWriter, PlacedSlice};
use crate::repo::pack::PackWriter;

/// Adds pg_control to the backup and returns what it says.
pub fn copy(server: &Server, level: i32, packs: &mut PackWriter, map: &mut MapWriter) -> Result<ControlFile> {
    let path = ControlFile::path(&server.data_directory);
    let metadata = path.metadata().doing(|| format!("look at {}", path.display()))?;
    let (control, bytes) = ControlFile::read_with_bytes(&server.data_directory)?;
    if control.system_id != server.control.system_id {
        let found = control.system_id;
        return Err(Error::postgres(format!("{} is now of system identifier {found}", path.display())));
    }
    let frame = Compressor::new(level)?.compress(&bytes, Vec::new())?;
    let slice = PlacedSlice::Data {
        frame: packs.append(&frame)?,
        offset: 0,
        length: frame.raw_size,
        digest: SliceDigest::of(&bytes),
    };
    let attributes = Attributes {
        path: MapPath::data(ControlFile::path(Path::new("")))?,
        mode: FileMode::from_st_mode(metadata.mode()),
        mtime: Timestamp::from_second(metadata.mtime()).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    map.begin_final()?;
    map.file(attributes, [slice])?;
    Ok(control)
}
