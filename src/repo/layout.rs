//! The shape of a repository: every key is built and parsed here, and nowhere else.
//!
//!     pgark.json
//!     <cluster>/<system-id>/cluster.json
//!     <cluster>/<system-id>/wal/<TTTTTTTT>/<XXXXXXXX>/<segment>.zst
//!     <cluster>/<system-id>/wal/<TTTTTTTT>/<XXXXXXXX>/<segment>.partial.<digest>.zst
//!     <cluster>/<system-id>/wal/<TTTTTTTT>/<XXXXXXXX>/<segment>.streamed.<end LSN>.zst
//!     <cluster>/<system-id>/wal/<TTTTTTTT>/<XXXXXXXX>/<segment>.<offset>.backup
//!     <cluster>/<system-id>/wal/<TTTTTTTT>.history
//!     <cluster>/<system-id>/backup/<label>/{backup.json,files.jsonl.zst}
//!     <cluster>/<system-id>/pack/<backup id>-<number>.pack
//!     <cluster>/<system-id>/lease/<id>.json
//!     <cluster>/<system-id>/gap/<id>.json
//!     <cluster>/<system-id>/<kind>/<id>.json                records, such as pin/
//!     <cluster>/<system-id>/lock/<WAL file>                 lock files of a local repository
//!     <cluster>/<system-id>/staging/<id>                    large objects before they get their name

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
pub use crate::ident::{Id, Name};
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::pg::names::{SegmentName, WalFile, parse_hex8};
use crate::store::Key;

/// The object that makes a directory a repository.
pub const REPOSITORY: &str = "pgark.json";

/// A pack: the `number`th of the backup run `backup`. So a lease that names the run protects all its
/// packs, also those that it has not begun when a sweep looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    pub backup: Id,
    pub number: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.backup, self.number)
    }
}

impl FromStr for PackId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (backup, number) = text.split_once('-')?;
            let fits = number.len() == 8 && number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let number = fits.then(|| u32::from_str_radix(number, 16).ok()).flatten()?;
            Some(Self { backup: backup.parse().ok()?, number })
        };
        parse().ok_or_else(|| Error::corrupt(format!("\"{text}\" is not the id of a pack")))
    }
}

impl Serialize for PackId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The key of `pgark.json`.
pub fn repository() -> Result<Key> {
    Key::new(REPOSITORY)
}

/// The key of an object with which `pgark init` tries the store.
pub fn probe(id: Id) -> Result<Key> {
    Key::new(&format!("probe-{id}"))
}

/// The keys of one incarnation of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLayout {
    prefix: String,
}

impl ClusterLayout {
    pub fn new(cluster: &Name, system_id: SystemId) -> Self {
        Self { prefix: format!("{cluster}/{system_id}") }
    }

    fn key(&self, rest: fmt::Arguments<'_>) -> Result<Key> {
        Key::new(&format!("{}/{rest}", self.prefix))
    }

    pub fn root(&self) -> Result<Key> {
        Key::new(&self.prefix)
    }

    pub fn cluster(&self) -> Result<Key> {
        self.key(format_args!("cluster.json"))
    }

    pub fn wal(&self) -> Result<Key> {
        self.key(format_args!("wal"))
    }

    pub fn timeline(&self, timeline: Timeline) -> Result<Key> {
        self.key(format_args!("wal/{:08X}", timeline.0))
    }

    pub fn log(&self, timeline: Timeline, log: u32) -> Result<Key> {
        self.key(format_args!("wal/{:08X}/{log:08X}", timeline.0))
    }

    pub fn segment(&self, name: SegmentName) -> Result<Key> {
        self.key(format_args!("wal/{:08X}/{:08X}/{name}.zst", name.timeline.0, name.log))
    }

    /// A `.partial` is named by the beginning of the digest of its raw bytes too: when a timeline is left
    /// by two promotions, both archive one of that name, and both are right.
    pub fn partial(&self, name: SegmentName, digest_prefix: &str) -> Result<Key> {
        let (timeline, log) = (name.timeline.0, name.log);
        self.key(format_args!("wal/{timeline:08X}/{log:08X}/{name}.partial.{digest_prefix}.zst"))
    }

    /// The beginning of a segment, up to `end`. Sixteen digits, so that the longest sorts last.
    pub fn streamed(&self, name: SegmentName, end: Lsn) -> Result<Key> {
        let (timeline, log) = (name.timeline.0, name.log);
        self.key(format_args!("wal/{timeline:08X}/{log:08X}/{name}.streamed.{:016X}.zst", end.0))
    }

    pub fn history(&self, timeline: Timeline) -> Result<Key> {
        self.key(format_args!("wal/{}", WalFile::History(timeline)))
    }

    pub fn backup_history(&self, name: SegmentName, offset: u32) -> Result<Key> {
        let file = WalFile::BackupHistory(name, offset);
        self.key(format_args!("wal/{:08X}/{:08X}/{file}", name.timeline.0, name.log))
    }

    pub fn backups(&self) -> Result<Key> {
        self.key(format_args!("backup"))
    }

    pub fn backup(&self, label: &Name) -> Result<Key> {
        self.key(format_args!("backup/{label}"))
    }

    pub fn backup_header(&self, label: &Name) -> Result<Key> {
        self.key(format_args!("backup/{label}/backup.json"))
    }

    pub fn backup_map(&self, label: &Name) -> Result<Key> {
        self.key(format_args!("backup/{label}/files.jsonl.zst"))
    }

    pub fn packs(&self) -> Result<Key> {
        self.key(format_args!("pack"))
    }

    pub fn pack(&self, id: PackId) -> Result<Key> {
        self.key(format_args!("pack/{id}.pack"))
    }

    pub fn leases(&self) -> Result<Key> {
        self.key(format_args!("lease"))
    }

    pub fn lease(&self, id: Id) -> Result<Key> {
        self.key(format_args!("lease/{id}.json"))
    }

    pub fn gaps(&self) -> Result<Key> {
        self.key(format_args!("gap"))
    }

    pub fn gap(&self, id: Id) -> Result<Key> {
        self.key(format_args!("gap/{id}.json"))
    }

    /// All records of a kind; see `repo::records`.
    pub fn records(&self, kind: &str) -> Result<Key> {
        self.key(format_args!("{kind}"))
    }

    pub fn record(&self, kind: &str, id: Id) -> Result<Key> {
        self.key(format_args!("{kind}/{id}.json"))
    }

    /// Lock files of a local repository: two pushers of one name take turns.
    pub fn lock(&self, file: WalFile) -> Result<Key> {
        self.key(format_args!("lock/{file}"))
    }

    /// Where an object waits that is too large to be created in one piece.
    pub fn staging(&self, id: Id) -> Result<Key> {
        self.key(format_args!("staging/{id}"))
    }

    pub fn staging_area(&self) -> Result<Key> {
        self.key(format_args!("staging"))
    }
}

/// What a key's last part says that the object is, for listings. None: nothing of ours.
pub fn parse_timeline_prefix(key: &Key) -> Option<Timeline> {
    parse_hex8(key.last()).filter(|timeline| *timeline > 0).map(Timeline)
}

pub fn parse_log_prefix(key: &Key) -> Option<u32> {
    parse_hex8(key.last())
}

pub fn parse_segment(key: &Key) -> Option<SegmentName> {
    key.last().strip_suffix(".zst")?.parse().ok()
}

/// The segment and the digest prefix of a stored `.partial`.
pub fn parse_partial(key: &Key) -> Option<(SegmentName, &str)> {
    let (name, digest) = key.last().strip_suffix(".zst")?.split_once(".partial.")?;
    Some((name.parse().ok()?, digest))
}

/// The segment and the end of a streamed part.
pub fn parse_streamed(key: &Key) -> Option<(SegmentName, Lsn)> {
    let (name, end) = key.last().strip_suffix(".zst")?.split_once(".streamed.")?;
    let (high, low) = end.split_at_checked(8)?;
    let end = (u64::from(parse_hex8(high)?) << 32) | u64::from(parse_hex8(low)?);
    Some((name.parse().ok()?, Lsn(end)))
}

/// The segment to which any object of a timeline's WAL belongs: all of it, a part, or a backup history file.
pub fn parse_wal(key: &Key) -> Option<SegmentName> {
    let whole_or_part = parse_segment(key)
        .or_else(|| parse_partial(key).map(|(name, _)| name))
        .or_else(|| parse_streamed(key).map(|(name, _)| name));
    whole_or_part.or_else(|| match key.last().parse() {
        Ok(WalFile::BackupHistory(name, _)) => Some(name),
        _ => None,
    })
}

pub fn parse_history(key: &Key) -> Option<Timeline> {
    match key.last().parse() {
        Ok(WalFile::History(timeline)) => Some(timeline),
        _ => None,
    }
}

pub fn parse_system_id(key: &Key) -> Option<SystemId> {
    key.last().parse().ok()
}

pub fn parse_backup_label(prefix: &Key) -> Option<Name> {
    prefix.last().parse().ok()
}

pub fn parse_pack(key: &Key) -> Option<PackId> {
    key.last().strip_suffix(".pack")?.parse().ok()
}

/// Of a lease, a gap or any other record.
pub fn parse_id(key: &Key) -> Option<Id> {
    key.last().strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> ClusterLayout {
        ClusterLayout::new(&"main".parse().expect("name"), SystemId(7_650_000_000_000_000_001))
    }

    #[test]
    fn keys_are_where_the_format_document_says() {
        let name: SegmentName = "0000000A000000010000002F".parse().expect("name");
        let key = layout().segment(name).expect("key");
        assert_eq!(
            key.as_str(),
            "main/7650000000000000001/wal/0000000A/00000001/0000000A000000010000002F.zst"
        );
        assert_eq!(parse_segment(&key), Some(name));
        let history = layout().history(Timeline(10)).expect("key");
        assert_eq!(history.as_str(), "main/7650000000000000001/wal/0000000A.history");
        assert_eq!(parse_history(&history), Some(Timeline(10)));
        let partial = layout().partial(name, "0123456789abcdef").expect("key");
        assert_eq!(parse_partial(&partial), Some((name, "0123456789abcdef")));
        assert_eq!(parse_segment(&partial), None);
        let streamed = layout().streamed(name, Lsn(0x1_2F00_0148)).expect("key");
        assert_eq!(
            streamed.as_str(),
            "main/7650000000000000001/wal/0000000A/00000001/0000000A000000010000002F.streamed.000000012F000148.zst"
        );
        assert_eq!(parse_streamed(&streamed), Some((name, Lsn(0x1_2F00_0148))));
        assert_eq!((parse_segment(&streamed), parse_partial(&streamed)), (None, None));
        assert_eq!((parse_streamed(&key), parse_streamed(&partial)), (None, None));
        let backup = layout().backup_history(name, 0x28).expect("key");
        assert_eq!([&key, &partial, &streamed, &backup].map(parse_wal), [Some(name); 4]);
        assert_eq!(parse_wal(&history), None);
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(bytes: [u8; 16], number: u32) {
            let pack = PackId { backup: hex::encode(bytes).parse()?, number };
            prop_assert_eq!(pack.to_string().parse::<PackId>(), Ok(pack));
            prop_assert_eq!(parse_pack(&layout().pack(pack)?), Some(pack));
        }

        #[test]
        fn the_end_of_a_streamed_part_survives_its_key_and_longer_ones_sort_later(one: u64, other: u64) {
            let name: SegmentName = "0000000A000000010000002F".parse()?;
            let [first, second] = [one, other].map(|end| layout().streamed(name, Lsn(end)));
            let (first, second) = (first?, second?);
            prop_assert_eq!(parse_streamed(&first), Some((name, Lsn(one))));
            prop_assert_eq!(first.cmp(&second), one.cmp(&other));
        }

        #[test]
        fn parsing_keys_never_panics(text in "[0-9A-Fstreamedp.z]{1,60}") {
            let key = Key::new(&text);
            prop_assume!(key.is_ok());
            let key = key?;
            if let Some((name, end)) = parse_streamed(&key) {
                let again = layout().streamed(name, end)?;
                prop_assert_eq!(again.last(), key.last());
            }
        }

        #[test]
        fn parsing_ids_never_panics(text in "\\PC{0,50}") {
            if let Ok(pack) = text.parse::<PackId>() {
                prop_assert_eq!(pack.to_string(), text);
            }
        }
    }
}
