//! Small records of the spool: JSON in one line, its CRC-32C in the next. A record is there whole or not at
//! all: one that a power cut, a full disk or another version left unreadable counts as none.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::FILE_MODE;
use crate::durable;
use crate::error::{Error, IoContext, Result};

/// Records are far smaller.
const MOST: u64 = 4 << 20;

/// Writes a record durably under its name, replacing what is there.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    durable::write_file(path, &seal(record)?, FILE_MODE)
}

/// Writes a record that may be lost with a power cut.
pub fn place<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let mut staged = durable::StagedFile::create(path, FILE_MODE)?;
    staged.write_all(&seal(record)?).doing(|| format!("write {}", path.display()))?;
    staged.place()
}

/// Reads a record. None: there is none, or none that can be relied on.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match read_bytes(path) {
        Ok(bytes) => {
            let record = unseal(&bytes);
            if record.is_none() {
                tracing::warn!("{} is not a record of this program, or is damaged: not used", path.display());
            }
            record
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => {
            tracing::warn!("could not read {}: {cause}: not used", path.display());
            None
        }
    }
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn seal<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(record).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(format!("\n{checksum:08x}\n").as_bytes());
    if bytes.len() as u64 > MOST {
        return Err(Error::transient(format!("a record of {} bytes is too large", bytes.len())));
    }
    Ok(bytes)
}

fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (json, trailer) = bytes.split_at_checked(end)?;
    let expected = format!("\n{:08x}\n", crc32c::crc32c(json));
    if trailer != expected.as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_and_a_damaged_one_does_not(
            record: Vec<String>,
            at: prop::sample::Index,
            flip in 1u8..,
            cut: bool,
        ) {
            let mut bytes = seal(&record).expect("sealed");
            prop_assert_eq!(unseal::<Vec<String>>(&bytes), Some(record));
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else if let Some(byte) = bytes.get_mut(at) { *byte ^= flip }
            prop_assert_eq!(unseal::<Vec<String>>(&bytes), None);
        }
    }

    #[test]
    fn a_record_that_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x");
        let error = write(&path, &"x".repeat(4 << 20)).expect_err("too large");
        assert!(error.message().contains("too large"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_record_is_none() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x");
        assert_eq!(read::<u32>(&path), None);
        write(&path, &7u32).expect("written");
        assert_eq!(read::<u32>(&path), Some(7));
        assert_eq!(read::<String>(&path), None);
    }
}
