//! One object of the archived WAL: all of it is read, decompressed and compared with both digests, and says of itself
//! what its key says.

use super::context::Context;
use super::findings::{Counts, Harm};
use crate::error::{Error, Kind, Result};
use crate::pg::label::BackupHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::{SegmentName, WalFile};
use crate::repo::segment::StoredSegment;
use crate::repo::wal_object::WalObject;
use crate::store::Key;

/// Longer than any backup history file.
const MAX_BACKUP_HISTORY: u64 = 64 << 10;

/// What lies in a directory of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archived {
    Wal(WalObject),
    BackupHistory(SegmentName, u32),
}

impl Archived {
    /// None: no object of ours, or not where it belongs.
    pub fn parse(key: &Key, place: (Timeline, u32)) -> Option<Self> {
        let (name, object) = match (WalObject::parse(key), key.last().parse()) {
            (Some(wal), _) => (wal.segment(), Self::Wal(wal)),
            (None, Ok(WalFile::BackupHistory(name, offset))) => (name, Self::BackupHistory(name, offset)),
            (None, _) => return None,
        };
        ((name.timeline, name.log) == place).then_some(object)
    }

    /// What is lost with it.
    fn harm(&self) -> Harm {
        match self {
            Self::Wal(WalObject::Segment(name)) => Harm::Segment(*name),
            Self::Wal(WalObject::Streamed(part)) => Harm::Part(*part),
            Self::Wal(WalObject::Partial(..)) | Self::BackupHistory(..) => Harm::Nothing,
        }
    }
}

/// Checks one object.
pub fn check(context: &Context<'_>, key: &Key, object: &Archived) -> Result<()> {
    let segments = u64::from(matches!(object, Archived::Wal(WalObject::Segment(_))));
    context.findings.count(Counts { objects: 1, segments, ..Counts::default() });
    let outcome = match object {
        Archived::Wal(wal) => examine(context, key, wal),
        Archived::BackupHistory(name, offset) => {
            backup_history(context, key, WalFile::BackupHistory(*name, *offset))
        }
    };
    context.settle(key, &object.harm(), outcome)
}

fn examine(context: &Context<'_>, key: &Key, wal: &WalObject) -> Result<()> {
    let header = wal.examine(context.cluster, &mut |bytes| context.about_to_read(bytes))?;
    expect_size(context, key, &header)?;
    if let Some(first) = header.facts.damage.first.first() {
        let count = header.facts.damage.count;
        context.findings.damaged_by_server(key, format!("{count} places, the first {first}"));
    }
    Ok(())
}

fn expect_size(context: &Context<'_>, key: &Key, header: &StoredSegment) -> Result<()> {
    match context.size {
        Some(size) if size != header.segment_size => Err(Error::corrupt(format!(
            "{} says segment size {}, expected {}",
            context.name(key),
            header.segment_size.bytes(),
            size.bytes()
        ))),
        _ => Ok(()),
    }
}

fn backup_history(context: &Context<'_>, key: &Key, file: WalFile) -> Result<()> {
    let store = context.cluster.store();
    let size = store.head(key)?.size;
    if size > MAX_BACKUP_HISTORY {
        return Err(Error::corrupt(format!("{} is no backup history file: {size} bytes", context.name(key))));
    }
    context.about_to_read(size)?;
    let check = |content: &[u8]| {
        let history = BackupHistory::parse(content)?;
        context.size.map_or(Ok(()), |size| history.check_name(file, size))
    };
    // Names in it that are no names are damage here, not a wrong flag.
    check(&store.get(key)?).map_err(|error| match error.kind() {
        Kind::Configuration => Error::corrupt(error.message().to_string()),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_wrong_place_is_no_object() {
        let parse = |text: &str| Archived::parse(&Key::new(text).expect("a key"), (Timeline(1), 0));
        let name: SegmentName = "000000010000000000000003".parse().expect("a name");
        let segment = Archived::Wal(WalObject::Segment(name));
        assert_eq!(parse("m/7/wal/x/000000010000000000000003.zst"), Some(segment));
        let backup = parse("m/7/wal/x/000000010000000000000003.00000028.backup");
        assert_eq!(backup, Some(Archived::BackupHistory(name, 0x28)));
        for wrong in [
            "m/7/wal/x/000000020000000000000003.zst",
            "m/7/wal/x/000000010000000100000003.zst",
            "m/7/wal/x/000000010000000000000003",
            "m/7/wal/x/notes.txt",
            "m/7/wal/x/00000002.history",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
