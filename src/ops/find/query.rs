//! What is looked for, and whether a segment may hold it: decided from the facts in its header, so that most are
//! never read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Zoned;

use crate::error::{Error, Result};
use crate::ops::restore::target::{PointName, Xid, parse_time};
use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelFileLocator;
use crate::pg::time::Timestamp;
use crate::pg::wal::{Interest, SegmentFacts};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Restore points, all or those of one name.
    Points(Option<PointName>),
    /// Transactions that ended around a time.
    Around {
        time: Timestamp,
        within: Duration,
    },
    Transaction(Xid),
    /// Transactions that dropped or truncated something; with `rewritten` also those that only rewrote it.
    Dropped {
        rewritten: bool,
    },
    Storage(Storage),
    Table(TableName),
}

/// The storage of a relation: `[SPC/]DB/REL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    pub tablespace: Option<Oid>,
    pub database: Oid,
    pub number: Oid,
}

/// The name of a relation: `[DB.][SCHEMA.]NAME`, as SQL spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    pub database: Option<String>,
    pub schema: Option<String>,
    pub name: String,
}

/// One end of a range of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Time(Timestamp),
    Lsn(Lsn),
}

/// The part of the WAL in which is looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub since: Option<Bound>,
    pub until: Option<Bound>,
}

impl Query {
    /// What of the records is looked at.
    pub fn interest(&self) -> Interest {
        match self {
            Self::Points(_) | Self::Around { .. } | Self::Transaction(_) => Interest::Ends,
            Self::Dropped { .. } | Self::Storage(_) | Self::Table(_) => Interest::Relations,
        }
    }

    /// Whether what is told of a record depends on those before it.
    pub fn needs_context(&self) -> bool {
        self.interest() == Interest::Relations
    }

    /// May a record of interest lie within a segment with these facts, or begin in it?
    pub fn may_be_in(&self, facts: &SegmentFacts) -> bool {
        if facts.unfinished.as_ref().is_some_and(|unfinished| unfinished.may_matter()) {
            return true;
        }
        match self {
            Self::Points(None) => !facts.restore_points.is_empty(),
            Self::Points(Some(name)) => {
                let points = &facts.restore_points;
                !points.is_complete()
                    || points.first.iter().any(|point| point.name.as_bytes() == name.as_str().as_bytes())
            }
            Self::Around { time, within } => {
                let (from, to) = around(*time, *within);
                overlaps(facts, Some(from), Some(to))
            }
            Self::Transaction(xid) => facts.xids.is_some_and(|range| range.may_hold(xid.0)),
            Self::Dropped { .. } | Self::Storage(_) | Self::Table(_) => facts.latest_time.is_some(),
        }
    }
}

/// The times not further than `within` from `time`.
pub fn around(time: Timestamp, within: Duration) -> (Timestamp, Timestamp) {
    let span = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
    let at = |unix: i64| Timestamp::from_unix(unix);
    let from = at(time.as_unix().saturating_sub(span)).unwrap_or(Timestamp::UNIX_EPOCH);
    (from, at(time.as_unix().saturating_add(span)).unwrap_or(time))
}

/// Whether a transaction may have ended between two times within a segment.
fn overlaps(facts: &SegmentFacts, from: Option<Timestamp>, to: Option<Timestamp>) -> bool {
    let (Some(earliest), Some(latest)) = (facts.earliest_time, facts.latest_time) else { return false };
    from.is_none_or(|from| latest >= from) && to.is_none_or(|to| earliest <= to)
}

impl Range {
    pub fn is_everything(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// Whether a record lies within. One without a time (the removal of a database, an end without any) is judged by
    /// the LSN alone.
    pub fn holds(&self, lsn: Lsn, time: Option<Timestamp>) -> bool {
        let behind = match self.since {
            None => true,
            Some(Bound::Lsn(since)) => lsn >= since,
            Some(Bound::Time(since)) => time.is_none_or(|time| time >= since),
        };
        let before = match self.until {
            None => true,
            Some(Bound::Lsn(until)) => lsn <= until,
            Some(Bound::Time(until)) => time.is_none_or(|time| time <= until),
        };
        behind && before
    }

    /// Whether a segment from `start` to before `end` may hold such a record.
    pub fn may_touch(&self, start: Lsn, end: Lsn) -> bool {
        let behind = !matches!(self.since, Some(Bound::Lsn(since)) if since >= end);
        behind && !matches!(self.until, Some(Bound::Lsn(until)) if until < start)
    }

    /// Whether one with these facts may. Restore points have times of their own.
    pub fn may_be_in(&self, facts: &SegmentFacts) -> bool {
        let time = |bound: Option<Bound>| match bound {
            Some(Bound::Time(time)) => Some(time),
            _ => None,
        };
        let (since, until) = (time(self.since), time(self.until));
        (since.is_none() && until.is_none())
            || !facts.restore_points.is_empty()
            || facts.unfinished.is_some()
            || overlaps(facts, since, until)
    }
}

impl Storage {
    pub fn is(&self, file: RelFileLocator) -> bool {
        (file.database, file.number) == (self.database, self.number)
            && self.tablespace.is_none_or(|tablespace| tablespace == file.tablespace)
    }
}

impl FromStr for Storage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            Error::configuration(format!("\"{text}\" is not the storage of a relation"))
                .with_hint("write DATABASE/FILE or TABLESPACE/DATABASE/FILE in numbers, as pg_waldump does, for example 1663/5/16384")
        };
        let parts: Option<Vec<u32>> = text
            .split('/')
            .map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit())))
            .collect();
        match parts.ok_or_else(refused)?.as_slice() {
            [database, number] => {
                Ok(Self { tablespace: None, database: Oid(*database), number: Oid(*number) })
            }
            [tablespace, database, number] => Ok(Self {
                tablespace: Some(Oid(*tablespace)),
                database: Oid(*database),
                number: Oid(*number),
            }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.database, &self.schema].into_iter().flatten() {
            write!(f, "{part}.")?;
        }
        f.write_str(&self.name)
    }
}

impl FromStr for TableName {
    type Err = Error;

    /// Identifiers as in SQL: in lower case unless they are quoted.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            Error::configuration(format!("\"{text}\" is not the name of a table")).with_hint(
                "write NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME; with double quotes around names that need them in SQL",
            )
        };
        let mut parts = identifiers(text).ok_or_else(refused)?;
        let name = parts.pop().ok_or_else(refused)?;
        let schema = parts.pop();
        let database = parts.pop();
        if parts.is_empty() { Ok(Self { database, schema, name }) } else { Err(refused()) }
    }
}

/// The identifiers between dots.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_identifier(quoted)?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let (name, behind) = rest.split_at_checked(end)?;
                (name.to_lowercase(), behind)
            }
        };
        if name.is_empty() || (name.contains('"') && !rest.starts_with('"')) {
            return None;
        }
        found.push(name);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(found),
        }
    }
}

/// The identifier behind an opening quote, and what follows the closing one.
fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => return Some((name, behind)),
        }
    }
}

impl Bound {
    /// An LSN, or a time as `--target-time` takes it.
    pub fn parse(text: &str, now: &Zoned) -> Result<Self> {
        match text.parse() {
            Ok(lsn) => Ok(Self::Lsn(lsn)),
            Err(_) => parse_time(text, now).map(Self::Time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::wal::XidRange;
    use proptest::prelude::*;

    fn at(unix: i64) -> Timestamp {
        Timestamp::from_unix(unix).expect("in range")
    }

    fn facts(earliest: i64, latest: i64) -> SegmentFacts {
        SegmentFacts {
            earliest_time: Some(at(earliest)),
            latest_time: Some(at(latest)),
            xids: Some(XidRange { lowest: 5, highest: 9 }),
            ..SegmentFacts::default()
        }
    }

    fn table(text: &str) -> Option<(Option<String>, Option<String>, String)> {
        text.parse::<TableName>().ok().map(|name| (name.database, name.schema, name.name))
    }

    #[test]
    fn a_table_is_named_as_in_sql() {
        let name = |text: &str| Some(text.to_string());
        assert_eq!(table("orders"), Some((None, None, "orders".into())));
        assert_eq!(table("Public.Orders"), Some((None, name("public"), "orders".into())));
        assert_eq!(table("shop.public.orders"), Some((name("shop"), name("public"), "orders".into())));
        assert_eq!(table(r#""a.b"."C ""d""""#), Some((None, name("a.b"), "C \"d\"".into())));
        for bad in ["", ".", "a.", ".a", "a.b.c.d", "\"a", "\"a\"b", "a\"b"] {
            assert_eq!(table(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn storage_is_named_as_in_pg_waldump() {
        let file = RelFileLocator { tablespace: Oid(1663), database: Oid(5), number: Oid(16384) };
        for (text, is) in
            [("1663/5/16384", true), ("5/16384", true), ("1664/5/16384", false), ("4/16384", false)]
        {
            assert_eq!(text.parse::<Storage>().map(|storage| storage.is(file)), Ok(is), "{text}");
        }
        for bad in ["", "16384", "1/2/3/4", "a/b", "+1/2", "1/"] {
            assert!(bad.parse::<Storage>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn segments_that_cannot_hold_it_are_told_by_their_facts() {
        let second = Duration::from_micros(10);
        let around = |time| Query::Around { time: at(time), within: second };
        for (time, may) in [(89, false), (90, true), (150, true), (210, true), (211, false)] {
            assert_eq!(around(time).may_be_in(&facts(100, 200)), may, "{time}");
        }
        assert!(!around(150).may_be_in(&SegmentFacts::default()));
        assert!(Query::Transaction(Xid(7)).may_be_in(&facts(1, 2)));
        assert!(!Query::Transaction(Xid(10)).may_be_in(&facts(1, 2)));
        assert!(!Query::Points(None).may_be_in(&facts(1, 2)));
        assert!(!Query::Dropped { rewritten: true }.may_be_in(&SegmentFacts::default()));
    }

    #[test]
    fn a_range_is_of_times_or_of_lsns() {
        let now = Zoned::now();
        let range = Range {
            since: Some(Bound::parse("0/3000000", &now).expect("an LSN")),
            until: Some(Bound::parse("1970-01-01 00:00:01+00", &now).expect("a time")),
        };
        assert_eq!(range.until, Some(Bound::Time(at(1_000_000))));
        assert!(range.holds(Lsn(0x300_0000), Some(at(1_000_000))) && range.holds(Lsn(0x300_0000), None));
        assert!(!range.holds(Lsn(0x2FF_FFFF), None) && !range.holds(Lsn(0x400_0000), Some(at(1_000_001))));
        assert!(!range.may_touch(Lsn(0x200_0000), Lsn(0x300_0000)));
        assert!(range.may_touch(Lsn(0x200_0000), Lsn(0x300_0001)));
        assert!(
            range.may_be_in(&facts(1_000_000, 9_000_000)) && !range.may_be_in(&facts(1_000_001, 9_000_000))
        );
        assert!(Bound::parse("yesterday", &now).is_err());
    }

    proptest! {
        #[test]
        fn parsing_names_never_panics(text in "\\PC{0,20}|[a-z\".]{0,12}") {
            if let Ok(name) = text.parse::<TableName>() {
                prop_assert!(!name.name.is_empty());
            }
            prop_assert!(text.parse::<Storage>().is_err() || text.contains('/'));
        }

        #[test]
        fn every_identifier_can_be_quoted(schema in "[^\0]{1,9}", name in "[^\0]{1,9}") {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let parsed = format!("{}.{}", quoted(&schema), quoted(&name)).parse::<TableName>()?;
            prop_assert_eq!(parsed, TableName { database: None, schema: Some(schema), name });
        }
    }
}
