//! Transactions that have not ended yet, and what each did to relations: kept by the xid that is in its records
//! (a subtransaction has its own) and put together when the transaction ends.
//!
//! Says no more than the records do: a relation of which only the storage is known was dropped, or its storage
//! was replaced when the transaction made some, too. Bounded: beyond [`MAX_CHANGES`] the oldest are forgotten, and
//! what they drop is then known by its storage alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::catalogs::Meaning;
use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelFileLocator;
use crate::pg::wal::{ClassRow, Ended};

/// Changes of all open transactions that are kept.
const MAX_CHANGES: usize = 50_000;

/// What became of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    Dropped,
    Truncated,
    /// Its storage was removed, and the transaction made new storage, perhaps for it.
    DroppedOrReplaced,
    /// VACUUM FULL, CLUSTER, REINDEX, REFRESH MATERIALIZED VIEW, or an ALTER TABLE that writes all rows anew.
    Rewritten,
}

/// A relation that a transaction dropped, truncated or rewrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub fate: Fate,
    pub database: Oid,
    /// As it was before. None: the WAL that was read does not tell.
    pub row: Option<ClassRow>,
    /// The oid, where only that is known.
    pub oid: Option<Oid>,
    /// What was removed.
    pub storage: Option<RelFileLocator>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    pub lost: Vec<Lost>,
    /// Rows of pg_class that it deleted and that are not known.
    pub unnamed: u64,
    pub databases: Vec<LostDatabase>,
}

/// A database whose directories were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostDatabase {
    pub database: Oid,
    /// The first record whose replay harms it.
    pub from: Lsn,
    /// The row in pg_database was deleted, too: it was not moved to another tablespace.
    pub dropped: bool,
}

/// What is known so far.
#[derive(Debug, Default)]
pub struct Transactions {
    open: HashMap<u32, Open>,
    changes: usize,
    /// Where a database was made invalid, and the end of transactions has not come yet.
    invalid: BTreeMap<Oid, Lsn>,
}

#[derive(Debug)]
struct Open {
    began: Lsn,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Storage(RelFileLocator),
    Relation(Oid, Meaning),
    Truncated(Oid, Vec<Oid>),
    Database(Oid, Lsn),
    DatabaseRow,
}

impl Transactions {
    /// Nothing that began before matters any more: WAL is missing.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    pub fn storage_created(&mut self, xid: u32, lsn: Lsn, storage: RelFileLocator) {
        self.push(xid, lsn, Change::Storage(storage));
    }

    pub fn truncated(&mut self, xid: u32, lsn: Lsn, database: Oid, tables: Vec<Oid>) {
        self.push(xid, lsn, Change::Truncated(database, tables));
    }

    pub fn database_removed(&mut self, xid: u32, lsn: Lsn, database: Oid) {
        let from = self.invalid.remove(&database).unwrap_or(lsn);
        self.push(xid, lsn, Change::Database(database, from));
    }

    /// What became of a catalog's row in a database.
    pub fn meant(&mut self, xid: u32, lsn: Lsn, database: Oid, meaning: Meaning) {
        match &meaning {
            Meaning::DatabaseInvalid(database) => {
                self.invalid.entry(*database).or_insert(lsn);
            }
            Meaning::DatabaseDropped(_) => self.push(xid, lsn, Change::DatabaseRow),
            Meaning::Altered(Some(old), Some(new)) if old.file == new.file => {}
            _ => self.push(xid, lsn, Change::Relation(database, meaning)),
        }
    }

    fn push(&mut self, xid: u32, lsn: Lsn, change: Change) {
        if self.changes >= MAX_CHANGES {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.began).map(|(xid, _)| *xid);
            let forgotten = oldest.and_then(|oldest| self.open.remove(&oldest));
            self.changes = self.changes.saturating_sub(forgotten.map_or(0, |open| open.changes.len()));
        }
        let open = self.open.entry(xid).or_insert_with(|| Open { began: lsn, changes: Vec::new() });
        open.changes.push(change);
        self.changes = self.changes.saturating_add(1);
    }

    /// What a transaction did that ended now. Of one that was rolled back nothing but what can't be undone.
    pub fn ended(&mut self, end: &Ended) -> Deeds {
        let mut changes = Vec::new();
        for xid in end.subxacts.iter().chain([&end.xid]) {
            if let Some(open) = self.open.remove(xid) {
                self.changes = self.changes.saturating_sub(open.changes.len());
                changes.extend(open.changes);
            }
        }
        let databases = databases(&changes, end.committed);
        if !end.committed {
            return Deeds { databases, ..Deeds::default() };
        }
        let mut account = Account::default();
        changes.iter().for_each(|change| account.take(change));
        let (lost, unnamed) = account.settle(&end.removed);
        Deeds { lost, unnamed, databases }
    }
}

/// The removed databases, each once. Where the transaction was rolled back without having deleted the row, it was
/// CREATE DATABASE that failed and cleaned up.
fn databases(changes: &[Change], committed: bool) -> Vec<LostDatabase> {
    let dropped = changes.iter().any(|change| matches!(change, Change::DatabaseRow));
    let mut found: Vec<LostDatabase> = Vec::new();
    for change in changes {
        if let Change::Database(database, from) = change
            && (committed || dropped)
            && found.iter().all(|known| known.database != *database)
        {
            found.push(LostDatabase { database: *database, from: *from, dropped });
        }
    }
    found
}

/// The changes of one transaction, put together.
#[derive(Default)]
struct Account {
    /// Storage that the transaction made itself.
    made: BTreeSet<RelFileLocator>,
    /// Relations that it made itself: (database, oid).
    created: BTreeSet<(Oid, Oid)>,
    /// Oids for which a relation was made only to be written anew: make_new_heap calls it pg_temp_<oid>.
    rewritten: BTreeSet<(Oid, Oid)>,
    /// The rows before the first change of their storage, and the rows after the last.
    altered: BTreeMap<(Oid, Oid), (ClassRow, ClassRow)>,
    dropped: BTreeMap<(Oid, Oid), ClassRow>,
    truncated: BTreeSet<(Oid, Oid)>,
    unnamed: u64,
}

impl Account {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Storage(storage) => drop(self.made.insert(*storage)),
            Change::Truncated(database, tables) => {
                self.truncated.extend(tables.iter().map(|table| (*database, *table)));
            }
            Change::Relation(database, meaning) => self.relation(*database, meaning),
            Change::Database(..) | Change::DatabaseRow => {}
        }
    }

    fn relation(&mut self, database: Oid, meaning: &Meaning) {
        match meaning {
            Meaning::Created(Some(row)) => {
                self.created.insert((database, row.oid));
                let of = row.name.strip_prefix("pg_temp_").and_then(|oid| oid.parse().ok());
                self.rewritten.extend(of.map(|oid| (database, Oid(oid))));
            }
            Meaning::Altered(Some(old), Some(new)) => {
                let first =
                    self.altered.remove(&(database, old.oid)).map_or_else(|| old.clone(), |(first, _)| first);
                self.altered.insert((database, old.oid), (first, new.clone()));
            }
            Meaning::Dropped(Some(row)) => drop(self.dropped.insert((database, row.oid), row.clone())),
            Meaning::Dropped(None) => self.unnamed = self.unnamed.saturating_add(1),
            _ => {}
        }
    }

    /// What was lost, with what the end of the transaction removed; and how many dropped relations have no name.
    fn settle(mut self, removed: &[RelFileLocator]) -> (Vec<Lost>, u64) {
        let mut unexplained: BTreeMap<(Oid, Oid), RelFileLocator> =
            removed.iter().map(|storage| ((storage.database, storage.number), *storage)).collect();
        let mut lost = Vec::new();
        for ((database, oid), row) in std::mem::take(&mut self.dropped) {
            // The transaction's own; or a temporary one, of which no other session saw anything.
            if self.created.contains(&(database, oid)) || row.persistence == 't' {
                continue;
            }
            // Its storage before the transaction replaced that, if it did.
            let row = self.altered.remove(&(database, oid)).map_or(row, |(first, _)| first);
            let storage = unexplained.remove(&(database, row.file));
            let fate =
                if self.is_toast_of_rewritten(database, &row) { Fate::Rewritten } else { Fate::Dropped };
            lost.push(Lost { fate, database, oid: Some(oid), row: Some(row), storage });
        }
        for ((database, oid), (old, new)) in std::mem::take(&mut self.altered) {
            let storage = unexplained.remove(&(database, old.file));
            if self.created.contains(&(database, oid)) || old.persistence == 't' || old.file == new.file {
                continue;
            }
            let fate = self.fate(database, &old, &new);
            lost.push(Lost { fate, database, oid: Some(oid), row: Some(old), storage });
        }
        for (database, oid) in &self.truncated {
            if !lost.iter().any(|lost| (lost.database, lost.oid) == (*database, Some(*oid))) {
                let fate = Fate::Truncated;
                lost.push(Lost { fate, database: *database, oid: Some(*oid), row: None, storage: None });
            }
        }
        let fate = if self.made.is_empty() { Fate::Dropped } else { Fate::DroppedOrReplaced };
        let unexplained = unexplained.into_values().filter(|storage| !self.made.contains(storage));
        lost.extend(unexplained.map(|storage| Lost {
            fate,
            database: storage.database,
            row: None,
            oid: None,
            storage: Some(storage),
        }));
        (lost, self.unnamed)
    }

    /// What writes a table anew may drop its toast table and make another.
    fn is_toast_of_rewritten(&self, database: Oid, row: &ClassRow) -> bool {
        let owner = row.name.strip_prefix("pg_toast_").filter(|_| row.kind == 't');
        let owner = owner.and_then(|oid| oid.parse().ok()).map(Oid);
        owner.is_some_and(|owner| self.rewritten.contains(&(database, owner)))
    }

    /// TRUNCATE gives a table new, empty storage (RelationSetNewRelfilenode); what writes it anew makes another
    /// relation first and swaps the storage of both (make_new_heap, finish_heap_swap).
    fn fate(&self, database: Oid, old: &ClassRow, new: &ClassRow) -> Fate {
        let oid = (database, old.oid);
        let emptied = new.pages == 0 && old.tablespace == new.tablespace && "rtm".contains(old.kind);
        let truncated = self.truncated.contains(&oid) || (emptied && !self.rewritten.contains(&oid));
        if truncated { Fate::Truncated } else { Fate::Rewritten }
    }
}
