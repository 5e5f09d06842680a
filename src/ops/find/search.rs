//! The records of a lane, one after the other, become hits.

use super::catalogs::{Catalogs, Moved};
use super::query::{Query, Range, TableName, around};
use super::report::{Database, Hit, MAX_RELATIONS, Relation, Restore, What, kind_word};
use super::transactions::{Deeds, Fate, Lost, LostDatabase, Transactions};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SystemId};
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::pg::time::Timestamp;
use crate::pg::wal::{Ended, Event, RawText, Seen, WalFormat};

/// What is looked for, where, and what is known besides the WAL.
pub struct Search<'a> {
    pub query: &'a Query,
    pub range: &'a Range,
    pub system_id: SystemId,
    /// Where catalogs are that VACUUM FULL moved; grows.
    pub moved: &'a mut Moved,
    pub catalogs: Catalogs,
    transactions: Transactions,
    /// The next transaction with its epoch, as the last checkpoint told it.
    next_xid: Option<u64>,
    /// A catalog moved to a file that was not watched: names need another reading.
    pub moved_unseen: bool,
    /// Transactions in the range that did something to relations of which the name is not known.
    pub unnamed: u64,
    /// Records of interest that could not be decoded.
    pub unread: u64,
}

/// The file in which a record is, and the path on which it is read.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub path: &'a TimelineHistory,
    pub segment: SegmentName,
}

impl<'a> Search<'a> {
    pub fn new(
        query: &'a Query,
        range: &'a Range,
        system_id: SystemId,
        moved: &'a mut Moved,
        catalogs: Catalogs,
    ) -> Self {
        Self {
            query,
            range,
            system_id,
            moved,
            catalogs,
            transactions: Transactions::default(),
            next_xid: None,
            moved_unseen: false,
            unnamed: 0,
            unread: 0,
        }
    }

    /// WAL is missing here.
    pub fn lose_track(&mut self) {
        self.catalogs.lose_track();
        self.transactions.forget();
        self.next_xid = None;
    }

    /// Takes a record; the hits that it makes.
    pub fn take(&mut self, place: Place<'_>, format: WalFormat, seen: Seen) -> Vec<Hit> {
        let Seen { lsn, end, xid, event } = seen;
        match event {
            Event::Ended(ended) => self.ended(place, lsn, end, &ended),
            Event::RestorePoint { name, time } => {
                self.point(place, lsn, end, name, time).into_iter().collect()
            }
            other => {
                self.learn(format, lsn, xid, other);
                Vec::new()
            }
        }
    }

    /// What makes no hit by itself.
    fn learn(&mut self, format: WalFormat, lsn: Lsn, xid: u32, event: Event) {
        match event {
            Event::Checkpoint { next_xid, .. } => self.next_xid = Some(next_xid),
            Event::StorageCreated(storage) => self.transactions.storage_created(xid, lsn, storage),
            Event::DatabaseRemoved(database) => self.transactions.database_removed(xid, lsn, database),
            Event::Truncated { database, tables } => self.transactions.truncated(xid, lsn, database, tables),
            Event::Mapped { database, files } => {
                for (catalog, file) in files {
                    self.moved_unseen |= self.moved.learn(database, catalog, file);
                }
            }
            Event::Row { file, change } => {
                if let Some(meaning) = self.catalogs.apply(self.moved, format, lsn, file, change) {
                    self.transactions.meant(xid, lsn, file.database, meaning);
                }
            }
            Event::Lost => self.lose_track(),
            Event::Unread(_) => {
                self.unread = self.unread.saturating_add(1);
                self.catalogs.lose_track();
            }
            Event::Ended(_) | Event::RestorePoint { .. } => {}
        }
    }

    fn point(&self, place: Place<'_>, lsn: Lsn, end: Lsn, name: RawText, time: Timestamp) -> Option<Hit> {
        let Query::Points(wanted) = self.query else { return None };
        let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.as_str().as_bytes() == name.as_bytes());
        (is_wanted && self.range.holds(lsn, Some(time))).then(|| Hit {
            time: Some(time),
            name: Some(name),
            ..self.hit(What::RestorePoint, place, lsn, end)
        })
    }

    /// A hit of which all is told that any has.
    fn hit(&self, what: What, place: Place<'_>, lsn: Lsn, end_lsn: Lsn) -> Hit {
        Hit {
            what,
            system_id: self.system_id,
            timeline: place.path.timeline_of(lsn),
            segment: place.segment,
            lsn,
            end_lsn,
            time: None,
            xid: None,
            full_xid: None,
            prepared: false,
            name: None,
            database: None,
            relations: Vec::new(),
            relations_found: 0,
            unnamed: 0,
            restore: just_before(place, lsn),
        }
    }

    fn ended(&mut self, place: Place<'_>, lsn: Lsn, end: Lsn, ended: &Ended) -> Vec<Hit> {
        let hit = Hit {
            time: Some(ended.time),
            xid: Some(ended.xid).filter(|xid| *xid > 0),
            full_xid: self.full_xid(ended.xid),
            prepared: ended.prepared,
            database: ended.database.filter(|oid| oid.0 > 0).map(|oid| self.database(oid)),
            ..self.hit(if ended.committed { What::Commit } else { What::Abort }, place, lsn, end)
        };
        let in_range = self.range.holds(lsn, hit.time);
        match self.query {
            Query::Points(_) => Vec::new(),
            Query::Around { time, within } => {
                let (from, to) = around(*time, *within);
                let is_near = in_range && (from..=to).contains(&ended.time);
                is_near.then_some(hit).into_iter().collect()
            }
            Query::Transaction(xid) => (in_range && ended.xid == xid.0).then_some(hit).into_iter().collect(),
            Query::Dropped { .. } | Query::Storage(_) | Query::Table(_) => {
                let deeds = self.transactions.ended(ended);
                if in_range { self.deeds(&hit, deeds, place) } else { Vec::new() }
            }
        }
    }

    /// The hits of what a transaction did.
    fn deeds(&mut self, hit: &Hit, deeds: Deeds, place: Place<'_>) -> Vec<Hit> {
        let mut hits: Vec<Hit> =
            deeds.databases.iter().filter_map(|lost| self.lost_database(hit, *lost, place)).collect();
        if deeds.unnamed > 0 || deeds.lost.iter().any(|lost| lost.row.is_none()) {
            self.unnamed = self.unnamed.saturating_add(1);
        }
        let relations: Vec<Relation> = deeds.lost.into_iter().filter_map(|lost| self.wanted(lost)).collect();
        let is_drop = |relation: &Relation| relation.fate != Fate::Rewritten;
        let found = match self.query {
            Query::Dropped { rewritten } => {
                relations.iter().any(|relation| *rewritten || is_drop(relation)) || deeds.unnamed > 0
            }
            _ => !relations.is_empty(),
        };
        if found {
            let then = (hit.prepared).then(|| still_prepared(hit.xid));
            hits.push(Hit {
                what: What::Relations,
                relations_found: relations.len() as u64,
                relations: told(relations),
                unnamed: deeds.unnamed,
                restore: Restore { then, ..hit.restore.clone() },
                ..hit.clone()
            });
        }
        hits
    }

    fn lost_database(&self, hit: &Hit, lost: LostDatabase, place: Place<'_>) -> Option<Hit> {
        let database = self.database(lost.database);
        let wanted = match self.query {
            Query::Dropped { rewritten } => lost.dropped || *rewritten,
            Query::Storage(storage) => storage.database == lost.database,
            // All of its tables went with it.
            Query::Table(table) => table.database.is_some() && table.database == database.name,
            _ => false,
        };
        let what = if lost.dropped { What::DatabaseDropped } else { What::DatabaseMoved };
        wanted.then(|| Hit {
            what,
            database: Some(database),
            restore: just_before(place, lost.from),
            ..hit.clone()
        })
    }

    /// The relation, if it is looked for.
    fn wanted(&self, lost: Lost) -> Option<Relation> {
        let is_wanted = match self.query {
            Query::Storage(storage) => lost.storage.is_some_and(|file| storage.is(file)),
            Query::Table(table) => self.is_table(table, &lost),
            _ => true,
        };
        is_wanted.then(|| self.relation(lost))
    }

    /// A schema or database of which the name is not known is not held against it.
    fn is_table(&self, table: &TableName, lost: &Lost) -> bool {
        let Some(row) = lost.row.as_ref().filter(|row| row.name == table.name) else { return false };
        let fits = |wanted: &Option<String>, known: Option<String>| match (wanted, known) {
            (Some(wanted), Some(known)) => *wanted == known,
            _ => true,
        };
        fits(&table.schema, self.catalogs.schema(lost.database, row.namespace))
            && fits(&table.database, self.database(lost.database).name)
    }

    fn relation(&self, lost: Lost) -> Relation {
        let row = lost.row.as_ref();
        let schema = row.and_then(|row| self.catalogs.schema(lost.database, row.namespace));
        Relation {
            fate: lost.fate,
            database: self.database(lost.database),
            schema_oid: row.map(|row| row.namespace).filter(|_| schema.is_none()),
            schema,
            name: row.map(|row| row.name.clone()),
            kind: row.map(|row| kind_word(row.kind)),
            oid: lost.oid,
            storage: lost.storage,
        }
    }

    fn database(&self, oid: Oid) -> Database {
        Database { oid, name: self.catalogs.database(oid) }
    }

    /// An xid is at most 2^31 away from the next one (FullTransactionIdFromAllowableAt).
    fn full_xid(&self, xid: u32) -> Option<u64> {
        let next = self.next_xid?;
        let distance = xid.wrapping_sub(next as u32) as i32;
        next.checked_add_signed(i64::from(distance)).filter(|_| xid > 2)
    }
}

/// Tables first, what belongs to them behind; at most so many as are told.
fn told(mut relations: Vec<Relation>) -> Vec<Relation> {
    let rank = |relation: &Relation| match relation.kind {
        Some("table" | "partitioned table" | "materialized view" | "foreign table") => 0,
        Some("view" | "sequence") => 1,
        None => 2,
        _ => 3,
    };
    relations.sort_by_key(rank);
    relations.truncate(MAX_RELATIONS);
    relations
}

/// recoveryStopsBefore: with an exclusive LSN recovery ends in front of the first record that starts there or behind it.
/// The timeline is the one of the file: its path leads to the record.
fn just_before(place: Place<'_>, lsn: Lsn) -> Restore {
    let timeline = place.segment.timeline.to_string();
    let arguments = ["--target-lsn", &lsn.to_string(), "--exclusive", "--target-timeline", &timeline];
    Restore { lsn, arguments: arguments.map(str::to_string).to_vec(), reachable: false, then: None }
}

fn still_prepared(xid: Option<u32>) -> String {
    let which = xid.map(|xid| format!(" where transaction = '{xid}'")).unwrap_or_default();
    format!(
        "the transaction is still prepared then and holds its locks: \
         select gid from pg_prepared_xacts{which}; then ROLLBACK PREPARED '<gid>'"
    )
}
