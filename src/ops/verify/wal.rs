//! One object of the archived WAL: all of it is read, decompressed and compared with both digests, and says of itself
//! what its key says.

use super::context::Context;
use super::findings::{Counts, Harm};
use crate::error::{Error, Kind, Result};
use crate::pg::label::BackupHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::{SegmentName, WalFile};
use crate::repo::layout;
use crate::repo::segment::{self, StoredSegment};
use crate::repo::streamed::{self, StreamedPart};
use crate::store::Key;

/// Longer than any backup history file.
const MAX_BACKUP_HISTORY: u64 = 64 << 10;

/// What a key below `wal/<T>/<X>` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalObject {
    Segment(SegmentName),
    Partial(SegmentName, String),
    Streamed(StreamedPart),
    BackupHistory(SegmentName, u32),
}

impl WalObject {
    /// None: no object of ours, or not where it belongs.
    pub fn parse(key: &Key, place: (Timeline, u32)) -> Option<Self> {
        let object = Self::named(key)?;
        let name = match &object {
            Self::Segment(name) | Self::Partial(name, _) | Self::BackupHistory(name, _) => *name,
            Self::Streamed(part) => part.segment,
        };
        ((name.timeline, name.log) == place).then_some(object)
    }

    fn named(key: &Key) -> Option<Self> {
        if let Some(name) = layout::parse_segment(key) {
            return Some(Self::Segment(name));
        }
        if let Some((name, digest)) = layout::parse_partial(key) {
            return Some(Self::Partial(name, digest.to_string()));
        }
        if let Some((segment, end)) = layout::parse_streamed(key) {
            return Some(Self::Streamed(StreamedPart { segment, end }));
        }
        match key.last().parse() {
            Ok(WalFile::BackupHistory(name, offset)) => Some(Self::BackupHistory(name, offset)),
            _ => None,
        }
    }

    /// What is lost with it.
    fn harm(&self) -> Harm {
        match self {
            Self::Segment(name) => Harm::Segment(*name),
            Self::Streamed(part) => Harm::Part(*part),
            Self::Partial(..) | Self::BackupHistory(..) => Harm::Nothing,
        }
    }
}

/// Checks one object.
pub fn check(context: &Context<'_>, key: &Key, object: &WalObject) -> Result<()> {
    let segments = u64::from(matches!(object, WalObject::Segment(_)));
    context.findings.count(Counts { objects: 1, segments, ..Counts::default() });
    context.settle(key, &object.harm(), examine(context, key, object))
}

fn examine(context: &Context<'_>, key: &Key, object: &WalObject) -> Result<()> {
    let cluster = context.cluster;
    let mut before = |bytes| context.about_to_read(bytes);
    let header = match object {
        WalObject::Segment(name) => segment::examine(cluster, *name, &mut before)?,
        WalObject::Partial(name, digest) => segment::examine_partial(cluster, *name, digest, &mut before)?,
        WalObject::Streamed(part) => streamed::examine(cluster, *part, &mut before)?,
        WalObject::BackupHistory(name, offset) => {
            return backup_history(context, key, WalFile::BackupHistory(*name, *offset));
        }
    };
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
        let parse = |text: &str| WalObject::parse(&Key::new(text).expect("a key"), (Timeline(1), 0));
        let name: SegmentName = "000000010000000000000003".parse().expect("a name");
        assert_eq!(parse("m/7/wal/x/000000010000000000000003.zst"), Some(WalObject::Segment(name)));
        let partial = parse("m/7/wal/x/000000010000000000000003.partial.0011.zst");
        assert_eq!(partial, Some(WalObject::Partial(name, "0011".into())));
        let backup = parse("m/7/wal/x/000000010000000000000003.00000028.backup");
        assert_eq!(backup, Some(WalObject::BackupHistory(name, 0x28)));
        assert!(matches!(
            parse("m/7/wal/x/000000010000000000000003.streamed.0000000003000100.zst"),
            Some(WalObject::Streamed(_))
        ));
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
