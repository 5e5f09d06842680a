//! What a walk through a segment finds out, in the shape in which the stored segment's header keeps it
//! (JSON; what is empty is left out).
//!
//! Every list is bounded, with an exact count beside it, so that no segment of any size makes its header
//! or the memory grow without limit, and nothing is left out in silence.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::decode::Fact;
use super::unfinished::Unfinished;
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::oid::Oid;
use crate::pg::time::Timestamp;

/// How many restore points, settings, tablespaces and timelines are listed each.
pub const MAX_LISTED: usize = 1000;
/// How many places of damage are listed.
pub const MAX_DAMAGE: usize = 16;

/// The facts of one segment. A record belongs to the segment in which it starts; what the last one says, if
/// it ends in a later segment, is not among the facts but to be had by joining `unfinished`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentFacts {
    /// The first record that starts in this segment, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_lsn: Option<Lsn>,
    /// The last whole record that starts in this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_lsn: Option<Lsn>,
    /// Where the last whole record ends: where PostgreSQL looks for the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<Lsn>,
    /// How many good records lie wholly within.
    pub records: u64,
    /// The earliest and latest time over commits and aborts, of prepared transactions too: the times with
    /// which PostgreSQL compares recovery_target_time. They need not increase from record to record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_time: Option<Timestamp>,
    /// The same over PREPARE TRANSACTION. No target ever stops there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_prepare: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_prepare: Option<Timestamp>,
    /// The transactions that end here: those with which PostgreSQL compares recovery_target_xid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xids: Option<XidRange>,
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub restore_points: Listed<RestorePoint>,
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub settings: Listed<SettingsChange>,
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub tablespaces: Listed<TablespaceChange>,
    /// Where a new timeline begins: the record that says so.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub timelines: Listed<TimelineStart>,
    /// The WAL ends early in this segment and goes on in the next (pg_switch_wal, archive_timeout).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub switch: bool,
    /// What is not as PostgreSQL writes it.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub damage: Listed<Damage>,
    /// The last record, if it goes on in the next segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
}

impl SegmentFacts {
    /// Adds what the record at `lsn`, which ends at `end_lsn`, says.
    pub(super) fn note(&mut self, fact: Fact, lsn: Lsn, end_lsn: Lsn) {
        match fact {
            Fact::Nothing | Fact::Overwrites(_) => {}
            Fact::TransactionEnd { time, xid } => self.note_end(time, xid),
            Fact::Prepared { time } => self.note_prepared(time),
            Fact::RestorePoint { name, time } => {
                self.restore_points.push(RestorePoint { name, lsn, end_lsn, time });
            }
            Fact::Settings(settings) => self.settings.push(SettingsChange { lsn, settings }),
            Fact::TablespaceCreated { oid, path } => {
                self.tablespaces.push(TablespaceChange { lsn, oid, change: TablespaceAction::Created(path) });
            }
            Fact::TablespaceDropped { oid } => {
                self.tablespaces.push(TablespaceChange { lsn, oid, change: TablespaceAction::Dropped });
            }
            Fact::Switch => self.switch = true,
            Fact::NewTimeline { timeline, parent } => {
                self.timelines.push(TimelineStart { lsn, timeline, parent });
            }
        }
    }

    pub(super) fn note_end(&mut self, time: Timestamp, xid: Option<u32>) {
        self.earliest_time = Some(self.earliest_time.map_or(time, |earliest| earliest.min(time)));
        self.latest_time = self.latest_time.max(Some(time));
        if let Some(xid) = xid {
            let range = self.xids.get_or_insert(XidRange { lowest: xid, highest: xid });
            range.lowest = range.lowest.min(xid);
            range.highest = range.highest.max(xid);
        }
    }

    pub(super) fn note_prepared(&mut self, time: Timestamp) {
        self.earliest_prepare = Some(self.earliest_prepare.map_or(time, |earliest| earliest.min(time)));
        self.latest_prepare = self.latest_prepare.max(Some(time));
    }

    pub(super) fn note_damage(&mut self, lsn: Lsn, what: impl FnOnce() -> String) {
        self.damage.push_with(MAX_DAMAGE, || Damage { lsn, what: what() });
    }
}

/// The lowest and highest transaction id, as plain numbers: where ids wrap around within a segment the
/// range is wider than need be, never narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidRange {
    pub lowest: u32,
    pub highest: u32,
}

impl XidRange {
    /// May the transaction have ended in this segment?
    pub fn may_hold(self, xid: u32) -> bool {
        (self.lowest..=self.highest).contains(&xid)
    }
}

/// A named restore point (pg_create_restore_point).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    pub name: RawText,
    /// Where its record starts.
    pub lsn: Lsn,
    /// Where its record ends: what pg_create_restore_point returned.
    pub end_lsn: Lsn,
    pub time: Timestamp,
}

/// A change of settings that recovery needs (XLOG_PARAMETER_CHANGE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    pub lsn: Lsn,
    #[serde(flatten)]
    pub settings: WalSettings,
}

/// The settings, as they were from a record on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSettings {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_transactions: i32,
    pub max_locks_per_transaction: i32,
    pub wal_level: WalLevel,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
}

/// wal_level, by its names since 9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalLevel {
    Minimal,
    Replica,
    Logical,
    /// A number that no version up to 18 writes.
    Unknown(i32),
}

impl WalLevel {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            0 => WalLevel::Minimal,
            1 => WalLevel::Replica,
            2 => WalLevel::Logical,
            other => WalLevel::Unknown(other),
        }
    }
}

/// A tablespace that was created or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceChange {
    pub lsn: Lsn,
    pub oid: Oid,
    pub change: TablespaceAction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TablespaceAction {
    /// At this path; an empty one is a directory inside pg_tblspc (allow_in_place_tablespaces).
    Created(RawText),
    Dropped,
}

/// A promotion: the WAL goes on as `timeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineStart {
    pub lsn: Lsn,
    pub timeline: Timeline,
    pub parent: Timeline,
}

/// Something that is not as PostgreSQL writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The page or record.
    pub lsn: Lsn,
    /// What was found and what was expected there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", self.lsn, self.what)
    }
}

/// The first so many of a list, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReadListed<T>")]
pub struct Listed<T> {
    pub count: u64,
    pub first: Vec<T>,
}

#[derive(Deserialize)]
struct ReadListed<T> {
    count: u64,
    first: Vec<T>,
}

impl<T> TryFrom<ReadListed<T>> for Listed<T> {
    type Error = String;

    fn try_from(read: ReadListed<T>) -> Result<Self, String> {
        let ReadListed { count, first } = read;
        match first.len() {
            listed if listed as u64 > count => Err(format!("{listed} are listed of {count}")),
            _ => Ok(Self { count, first }),
        }
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Listed<T> {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The count alone.
    pub fn emptied(&self) -> Self {
        Self { count: self.count, first: Vec::new() }
    }

    /// Are all of them listed?
    pub fn is_complete(&self) -> bool {
        self.count == self.first.len() as u64
    }

    pub(super) fn push(&mut self, item: T) {
        self.push_with(MAX_LISTED, || item);
    }

    fn push_with(&mut self, limit: usize, item: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < limit {
            self.first.push(item());
        }
    }
}

/// Text as the server wrote it: in whatever encoding, usually UTF-8. A name or path must not change on its
/// way, so JSON holds a string if it is UTF-8, else `{"hex": "…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawText(pub Vec<u8>);

impl RawText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for RawText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonText {
    Utf8(String),
    Other { hex: String },
}

impl Serialize for RawText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => JsonText::Other { hex: hex::encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match JsonText::deserialize(deserializer)? {
            JsonText::Utf8(text) => Ok(Self(text.into_bytes())),
            JsonText::Other { hex } => hex::decode(hex).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn facts_of_nothing_are_short() {
        let json = serde_json::to_string(&SegmentFacts::default()).expect("JSON");
        assert_eq!(json, r#"{"records":0}"#);
        assert_eq!(serde_json::from_str::<SegmentFacts>("{}").expect("facts"), SegmentFacts::default());
    }

    #[test]
    fn the_facts_survive_json() {
        let at = |n| Timestamp::from_postgres(n).expect("in range");
        let mut facts = SegmentFacts { first_lsn: Some(Lsn(40)), switch: true, ..Default::default() };
        facts.note_end(at(7), Some(12));
        facts.note_end(at(3), Some(9));
        facts.note_end(at(5), None);
        facts.note_prepared(at(4));
        facts.restore_points.push(RestorePoint {
            name: RawText(vec![b'x', 0xFF]),
            lsn: Lsn(1 << 32),
            end_lsn: Lsn((1 << 32) + 104),
            time: at(1),
        });
        let path = "/srv/\u{e9}t\u{e9}".into();
        let change = TablespaceAction::Created(path);
        facts.tablespaces.push(TablespaceChange { lsn: Lsn(80), oid: Oid(16_400), change });
        facts.timelines.push(TimelineStart { lsn: Lsn(90), timeline: Timeline(2), parent: Timeline(1) });
        facts.note_damage(Lsn(99), || "page magic is 0x0000".to_string());
        assert_eq!((facts.earliest_time, facts.latest_time), (Some(at(3)), Some(at(7))));
        assert_eq!(facts.xids, Some(XidRange { lowest: 9, highest: 12 }));
        let json = serde_json::to_string(&facts).expect("JSON");
        assert_eq!(serde_json::from_str::<SegmentFacts>(&json).expect("facts"), facts);
        assert!(json.contains(r#""restore_points":{"count":1,"first":[{"name":{"hex":"78ff"},"lsn":"1/0""#));
    }

    #[test]
    fn lists_are_bounded_and_counted() {
        let mut facts = SegmentFacts::default();
        for n in 0..40 {
            facts.note_damage(Lsn(n), || format!("damage {n}"));
        }
        assert_eq!((facts.damage.count, facts.damage.first.len()), (40, MAX_DAMAGE));
        assert!(!facts.damage.is_complete());
        let mut numbers = Listed::default();
        (0..MAX_LISTED + 5).for_each(|n| numbers.push(n));
        assert_eq!((numbers.count, numbers.first.len()), (MAX_LISTED as u64 + 5, MAX_LISTED));
    }

    proptest! {
        #[test]
        fn text_in_any_encoding_survives_json(bytes: Vec<u8>) {
            let text = RawText(bytes);
            let json = serde_json::to_string(&text).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<RawText>(&json).expect("text"), text);
        }
    }
}
