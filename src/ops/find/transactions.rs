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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::time::Timestamp;

    const DB: Oid = Oid(5);

    fn file(number: u32) -> RelFileLocator {
        RelFileLocator { tablespace: Oid::DEFAULT_TABLESPACE, database: DB, number: Oid(number) }
    }

    fn row(oid: u32, name: &str, file: u32, kind: char) -> ClassRow {
        ClassRow {
            oid: Oid(oid),
            name: name.to_string(),
            namespace: Oid(2200),
            file: Oid(file),
            tablespace: Oid(0),
            pages: 3,
            persistence: 'p',
            kind,
        }
    }

    fn empty(row: ClassRow) -> ClassRow {
        ClassRow { pages: 0, ..row }
    }

    fn end(xid: u32, subxacts: &[u32], removed: &[u32]) -> Ended {
        Ended {
            time: Timestamp::UNIX_EPOCH,
            xid,
            committed: true,
            prepared: false,
            database: Some(DB),
            subxacts: subxacts.to_vec(),
            removed: removed.iter().map(|number| file(*number)).collect(),
        }
    }

    /// What transaction 9 did, by fate and name or file.
    fn told(meanings: &[(u32, Meaning)], made: &[u32], removed: &[u32]) -> Vec<(Fate, String)> {
        let mut open = Transactions::default();
        made.iter().for_each(|number| open.storage_created(9, Lsn(1), file(*number)));
        meanings.iter().for_each(|(xid, meaning)| open.meant(*xid, Lsn(2), DB, meaning.clone()));
        let lost = open.ended(&end(9, &[10], removed)).lost.into_iter();
        let name = |lost: &Lost| lost.row.as_ref().map(|row| row.name.clone());
        let told =
            lost.map(|lost| (lost.fate, name(&lost).or(lost.storage.map(|file| file.number.to_string()))));
        assert_eq!(open.changes, open.open.values().map(|open| open.changes.len()).sum::<usize>());
        told.map(|(fate, what)| (fate, what.expect("something"))).collect()
    }

    fn made(row: ClassRow) -> Meaning {
        Meaning::Created(Some(row))
    }

    fn altered(old: ClassRow, new: ClassRow) -> Meaning {
        Meaning::Altered(Some(old), Some(new))
    }

    #[test]
    fn a_relation_is_dropped_truncated_or_rewritten_as_its_rows_say() {
        let t = || row(100, "t", 100, 'r');
        let dropped = Meaning::Dropped(Some(t()));
        let fate = |fate, name: &str| vec![(fate, name.to_string())];
        assert_eq!(told(&[(9, dropped.clone())], &[], &[100]), fate(Fate::Dropped, "t"));
        assert_eq!(
            told(&[(10, dropped.clone())], &[], &[100]),
            fate(Fate::Dropped, "t"),
            "by a subtransaction"
        );
        assert_eq!(told(&[(11, dropped)], &[], &[]), [], "by another transaction");
        let truncated = altered(t(), empty(row(100, "t", 200, 'r')));
        assert_eq!(told(&[(9, truncated.clone())], &[200], &[100]), fate(Fate::Truncated, "t"));
        let again = altered(row(100, "t", 200, 'r'), empty(row(100, "t", 300, 'r')));
        assert_eq!(told(&[(9, truncated), (9, again)], &[200, 300], &[100, 200]), fate(Fate::Truncated, "t"));
        let index = altered(row(101, "i", 101, 'i'), empty(row(101, "i", 201, 'i')));
        assert_eq!(told(&[(9, index)], &[201], &[101]), fate(Fate::Rewritten, "i"));
        let moved = ClassRow { tablespace: Oid(1700), ..empty(row(100, "t", 200, 'r')) };
        assert_eq!(told(&[(9, altered(t(), moved))], &[200], &[100]), fate(Fate::Rewritten, "t"));
        let grown = altered(t(), ClassRow { pages: 9, ..t() });
        assert_eq!(told(&[(9, grown)], &[], &[]), []);
        let view = Meaning::Dropped(Some(row(102, "v", 0, 'v')));
        assert_eq!(told(&[(9, view)], &[], &[]), fate(Fate::Dropped, "v"));
    }

    #[test]
    fn what_is_written_anew_is_no_truncation_though_it_is_empty() {
        // make_new_heap, swap_relation_files, and the transient relation is dropped with the old storage.
        let t = || row(100, "t", 100, 'r');
        let transient = |file| row(300, "pg_temp_100", file, 'r');
        let meanings = [
            (9, made(transient(300))),
            (9, altered(t(), empty(row(100, "t", 300, 'r')))),
            (9, altered(transient(300), transient(100))),
            (9, Meaning::Dropped(Some(transient(100)))),
            (9, Meaning::Dropped(Some(row(103, "pg_toast_100", 103, 't')))),
        ];
        let expected = [(Fate::Rewritten, "pg_toast_100".to_string()), (Fate::Rewritten, "t".to_string())];
        assert_eq!(told(&meanings, &[300], &[100, 103]), expected);
    }

    #[test]
    fn what_is_not_known_is_told_by_its_storage() {
        let unknown = Meaning::Dropped(None);
        assert_eq!(told(&[(9, unknown)], &[], &[100]), [(Fate::Dropped, "100".to_string())]);
        let changed = Meaning::Altered(None, Some(row(100, "t", 200, 'r')));
        assert_eq!(told(&[(9, changed)], &[200], &[100]), [(Fate::DroppedOrReplaced, "100".to_string())]);
        assert_eq!(told(&[], &[200], &[200]), [], "its own");
        let mut open = Transactions::default();
        open.truncated(9, Lsn(1), DB, vec![Oid(100)]);
        let lost = open.ended(&end(9, &[], &[100])).lost;
        assert_eq!((lost[0].fate, lost[0].oid), (Fate::Truncated, Some(Oid(100))));
    }

    #[test]
    fn what_nobody_else_saw_and_what_was_rolled_back_is_not_lost() {
        let own = [(9, made(row(100, "t", 100, 'r'))), (9, Meaning::Dropped(Some(row(100, "t", 100, 'r'))))];
        assert_eq!(told(&own, &[100], &[100]), []);
        let temporary = ClassRow { persistence: 't', ..row(100, "t", 100, 'r') };
        assert_eq!(told(&[(9, Meaning::Dropped(Some(temporary)))], &[], &[]), []);
        let mut open = Transactions::default();
        open.meant(9, Lsn(1), DB, Meaning::Dropped(Some(row(100, "t", 100, 'r'))));
        let rolled_back = Ended { committed: false, ..end(9, &[], &[]) };
        assert_eq!(open.ended(&rolled_back), Deeds::default());
        assert_eq!(open.ended(&end(9, &[], &[])), Deeds::default(), "the xid comes again");
    }

    #[test]
    fn a_database_is_lost_from_the_record_on_that_makes_it_invalid() {
        let row_gone = || Meaning::DatabaseDropped(Some(DB));
        let mut open = Transactions::default();
        open.meant(0, Lsn(10), Oid(0), Meaning::DatabaseInvalid(DB));
        open.meant(9, Lsn(20), Oid(0), row_gone());
        open.database_removed(9, Lsn(30), DB);
        open.database_removed(9, Lsn(40), DB);
        let lost = |from, dropped| vec![LostDatabase { database: DB, from: Lsn(from), dropped }];
        assert_eq!(open.ended(&end(9, &[], &[])).databases, lost(10, true));
        open.database_removed(9, Lsn(50), DB);
        assert_eq!(open.ended(&end(9, &[], &[])).databases, lost(50, false), "moved");
        open.database_removed(9, Lsn(60), DB);
        let rolled_back = Ended { committed: false, ..end(9, &[], &[]) };
        assert_eq!(open.ended(&rolled_back).databases, [], "CREATE DATABASE that failed");
        open.database_removed(9, Lsn(70), DB);
        open.meant(9, Lsn(71), Oid(0), row_gone());
        assert_eq!(open.ended(&rolled_back).databases, lost(70, true), "its files are gone all the same");
    }

    #[test]
    fn the_oldest_of_too_many_changes_are_forgotten() {
        let mut open = Transactions::default();
        let drop_of = |oid| Meaning::Dropped(Some(row(oid, "t", oid, 'r')));
        open.meant(8, Lsn(1), DB, drop_of(7));
        for n in 0..MAX_CHANGES as u32 + 5 {
            open.meant(9, Lsn(2), DB, drop_of(n + 1000));
        }
        assert!(open.changes <= MAX_CHANGES);
        let first = open.ended(&end(8, &[], &[7])).lost.remove(0);
        assert_eq!((first.fate, first.row, first.storage), (Fate::Dropped, None, Some(file(7))));
    }
}
