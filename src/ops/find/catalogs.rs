//! The rows of pg_class, pg_namespace and pg_database, as far as the WAL that was read tells them: what a name was
//! when its relation was dropped. A row that was not seen is not known, and never guessed.
//!
//! Memory is bounded: of more than [`MAX_ROWS`] rows the pages that were not touched for longest are forgotten.
//! What stands on them comes back with their next image.

use std::collections::{BTreeMap, HashMap};

use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::page::BlockNumber;
use crate::pg::relfile::RelFileLocator;
use crate::pg::wal::{ClassRow, Row, RowChange, RowPlace, WalFormat, is_invalid_database};

/// Rows that are kept, of at most 256 bytes each.
const MAX_ROWS: usize = 50_000;
/// Names of schemas and databases that are kept.
const MAX_NAMES: usize = 50_000;

/// The oids of the catalogs (pg_class.h, pg_namespace.h, pg_database.h).
pub const PG_CLASS: Oid = Oid(1259);
pub const PG_NAMESPACE: Oid = Oid(2615);
pub const PG_DATABASE: Oid = Oid(1262);

/// The files in which catalogs are, where it is not the one of the catalog's own number: VACUUM FULL moves them.
/// (database, file) to the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved(BTreeMap<(Oid, Oid), Oid>);

impl Moved {
    /// Takes in where a catalog is. True when that was not known.
    pub fn learn(&mut self, database: Oid, catalog: Oid, file: Oid) -> bool {
        let of_interest = [PG_CLASS, PG_NAMESPACE, PG_DATABASE].contains(&catalog);
        of_interest
            && catalog != file
            && file.0 > 0
            && self.0.insert((database, file), catalog) != Some(catalog)
    }

    /// The file numbers to watch.
    pub fn files(&self) -> Vec<Oid> {
        [PG_CLASS, PG_NAMESPACE, PG_DATABASE]
            .into_iter()
            .chain(self.0.keys().map(|(_, file)| *file))
            .collect()
    }

    fn catalog(&self, file: RelFileLocator) -> Option<Oid> {
        let fixed = match file.number {
            PG_DATABASE => (file.database == Oid(0)).then_some(PG_DATABASE),
            PG_CLASS | PG_NAMESPACE => (file.database != Oid(0)).then_some(file.number),
            _ => None,
        };
        fixed.or_else(|| self.0.get(&(file.database, file.number)).copied())
    }
}

/// What a change of a row means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Of pg_class: a relation was made.
    Created(Option<ClassRow>),
    /// Of pg_class: another version of a relation's row. None: not known.
    Altered(Option<ClassRow>, Option<ClassRow>),
    /// Of pg_class.
    Dropped(Option<ClassRow>),
    /// Of pg_database. None: which one is not known.
    DatabaseDropped(Option<Oid>),
    /// A database can't be connected to from now on: the first step of dropping it.
    DatabaseInvalid(Oid),
}

/// The rows that are known.
#[derive(Debug, Default)]
pub struct Catalogs {
    pages: HashMap<(RelFileLocator, BlockNumber), PageRows>,
    rows: usize,
    schemas: HashMap<(Oid, Oid), String>,
    databases: HashMap<Oid, String>,
}

#[derive(Debug, Default)]
struct PageRows {
    rows: BTreeMap<u16, Row>,
    touched: Lsn,
}

impl Catalogs {
    /// Forgets the rows, but not the names: WAL is missing, so places may hold other rows now.
    pub fn lose_track(&mut self) {
        self.pages.clear();
        self.rows = 0;
    }

    pub fn name_schema(&mut self, database: Oid, schema: Oid, name: String) {
        if self.schemas.len() < MAX_NAMES {
            self.schemas.insert((database, schema), name);
        }
    }

    pub fn name_database(&mut self, database: Oid, name: String) {
        if self.databases.len() < MAX_NAMES {
            self.databases.insert(database, name);
        }
    }

    pub fn database(&self, oid: Oid) -> Option<String> {
        self.databases.get(&oid).cloned()
    }

    /// The name of a schema, where it is known or as initdb gave it (pg_namespace.dat).
    pub fn schema(&self, database: Oid, oid: Oid) -> Option<String> {
        let told = self.schemas.get(&(database, oid)).cloned();
        told.or_else(|| match oid.0 {
            11 => Some("pg_catalog".to_string()),
            99 => Some("pg_toast".to_string()),
            2200 => Some("public".to_string()),
            _ => None,
        })
    }

    /// Takes in a change at `lsn`.
    pub fn apply(
        &mut self,
        moved: &Moved,
        format: WalFormat,
        lsn: Lsn,
        file: RelFileLocator,
        change: RowChange,
    ) -> Option<Meaning> {
        let catalog = moved.catalog(file)?;
        let class = |row: Option<Row>| row.and_then(|row| ClassRow::read(&row, format));
        match change {
            RowChange::Page { block, rows } => {
                rows.iter().for_each(|(_, row)| self.note_name(catalog, file.database, row));
                self.put_page(file, block, lsn, rows);
                None
            }
            RowChange::Inserted { at, row } => {
                let row = self.write(catalog, file, at, lsn, row);
                (catalog == PG_CLASS).then(|| Meaning::Created(class(row)))
            }
            RowChange::Updated { from, to, row } => {
                let old = self.row(file, from, lsn);
                let new = row.and_then(|edit| edit.apply(old.as_ref()));
                let new = self.write(catalog, file, to, lsn, new);
                (catalog == PG_CLASS).then(|| Meaning::Altered(class(old), class(new)))
            }
            RowChange::Overwritten { at, row } => {
                let row = self.write(catalog, file, at, lsn, row)?;
                let invalid = catalog == PG_DATABASE && is_invalid_database(&row, format);
                row.oid().filter(|_| invalid).map(Meaning::DatabaseInvalid)
            }
            RowChange::Deleted { at } => {
                let row = self.row(file, at, lsn);
                match catalog {
                    PG_CLASS => Some(Meaning::Dropped(class(row))),
                    PG_DATABASE => Some(Meaning::DatabaseDropped(row.and_then(|row| row.oid()))),
                    _ => None,
                }
            }
        }
    }

    fn row(&mut self, file: RelFileLocator, at: RowPlace, lsn: Lsn) -> Option<Row> {
        let page = self.pages.get_mut(&(file, at.block))?;
        page.touched = lsn;
        page.rows.get(&at.offset).cloned()
    }

    /// Puts a row where it is; None: it is on the page already, which was told before.
    fn write(
        &mut self,
        catalog: Oid,
        file: RelFileLocator,
        at: RowPlace,
        lsn: Lsn,
        row: Option<Row>,
    ) -> Option<Row> {
        let Some(row) = row else {
            return self.row(file, at, lsn);
        };
        self.note_name(catalog, file.database, &row);
        let page = self.pages.entry((file, at.block)).or_default();
        page.touched = lsn;
        let before = page.rows.insert(at.offset, row.clone());
        self.rows = self.rows.saturating_add(usize::from(before.is_none()));
        self.keep_bound();
        Some(row)
    }

    fn put_page(&mut self, file: RelFileLocator, block: BlockNumber, lsn: Lsn, rows: Vec<(u16, Row)>) {
        let page = PageRows { rows: rows.into_iter().collect(), touched: lsn };
        self.rows = self.rows.saturating_add(page.rows.len());
        if let Some(before) = self.pages.insert((file, block), page) {
            self.rows = self.rows.saturating_sub(before.rows.len());
        }
        self.keep_bound();
    }

    fn note_name(&mut self, catalog: Oid, database: Oid, row: &Row) {
        let (Some(oid), Some(name)) = (row.oid(), row.name()) else { return };
        match catalog {
            PG_NAMESPACE => self.name_schema(database, oid, name),
            PG_DATABASE => self.name_database(oid, name),
            _ => {}
        }
    }

    /// Forgets the half of the pages that was not touched for longest, when there are too many rows.
    fn keep_bound(&mut self) {
        if self.rows <= MAX_ROWS {
            return;
        }
        let mut touched: Vec<Lsn> = self.pages.values().map(|page| page.touched).collect();
        let middle = touched.len() / 2;
        let (_, median, _) = touched.select_nth_unstable(middle);
        let median = *median;
        self.pages.retain(|_, page| page.touched > median);
        self.rows = self.pages.values().map(|page| page.rows.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::wal::Row;

    const DB: Oid = Oid(5);
    const FORMAT: WalFormat = WalFormat::V15;

    fn file(number: Oid, database: Oid) -> RelFileLocator {
        RelFileLocator { tablespace: Oid::DEFAULT_TABLESPACE, database, number }
    }

    /// A row of any of the catalogs.
    fn row(oid: u32, name: &str) -> Row {
        let mut columns = vec![0; 150];
        columns[0..4].copy_from_slice(&oid.to_le_bytes());
        columns[4..4 + name.len()].copy_from_slice(name.as_bytes());
        (columns[114], columns[115]) = (b'p', b'r');
        Row::new(&columns)
    }

    fn at(block: u32, offset: u16) -> RowPlace {
        RowPlace { block: BlockNumber(block), offset }
    }

    /// Applies a change of pg_class; the name of what was dropped.
    fn apply(catalogs: &mut Catalogs, lsn: u64, change: RowChange) -> Option<Option<String>> {
        let meaning = catalogs.apply(&Moved::default(), FORMAT, Lsn(lsn), file(PG_CLASS, DB), change);
        match meaning {
            Some(Meaning::Dropped(row)) => Some(row.map(|row| row.name)),
            _ => None,
        }
    }

    fn page(block: u32, rows: &[(u16, &str)]) -> RowChange {
        let rows = rows.iter().map(|(offset, name)| (*offset, row(100 + u32::from(*offset), name)));
        RowChange::Page { block: BlockNumber(block), rows: rows.collect() }
    }

    fn deleted(block: u32, offset: u16) -> RowChange {
        RowChange::Deleted { at: at(block, offset) }
    }

    #[test]
    fn a_deleted_row_is_the_one_that_was_written_there_last() {
        let mut catalogs = Catalogs::default();
        assert_eq!(apply(&mut catalogs, 1, deleted(0, 1)), Some(None), "nobody told");
        apply(&mut catalogs, 2, page(0, &[(1, "one"), (2, "two")]));
        apply(&mut catalogs, 3, RowChange::Inserted { at: at(0, 2), row: Some(row(9, "later")) });
        assert_eq!(apply(&mut catalogs, 4, deleted(0, 1)), Some(Some("one".into())));
        assert_eq!(apply(&mut catalogs, 5, deleted(0, 2)), Some(Some("later".into())));
        assert_eq!(apply(&mut catalogs, 6, deleted(1, 1)), Some(None), "another page");
        apply(&mut catalogs, 7, page(0, &[(2, "new image")]));
        assert_eq!(apply(&mut catalogs, 8, deleted(0, 1)), Some(None), "an image tells all of a page");
        catalogs.lose_track();
        assert_eq!(apply(&mut catalogs, 9, deleted(0, 2)), Some(None));
    }

    #[test]
    fn names_of_schemas_and_databases_are_kept_as_they_come_by() {
        let (mut catalogs, mut moved) = (Catalogs::default(), Moved::default());
        let mut insert = |moved: &Moved, file, oid, name| {
            let change = RowChange::Inserted { at: at(0, 1), row: Some(row(oid, name)) };
            catalogs.apply(moved, FORMAT, Lsn(1), file, change);
        };
        insert(&moved, file(PG_NAMESPACE, DB), 40, "shop");
        insert(&moved, file(PG_DATABASE, Oid(0)), 50, "main");
        insert(&moved, file(Oid(777), DB), 41, "unseen");
        assert!(moved.learn(DB, PG_NAMESPACE, Oid(777)));
        assert!(!moved.learn(DB, PG_NAMESPACE, Oid(777)), "known");
        assert!(!moved.learn(DB, Oid(1249), Oid(778)), "of no interest");
        insert(&moved, file(Oid(777), DB), 42, "moved");
        insert(&moved, file(Oid(777), Oid(6)), 43, "of another database");
        let schema = |oid| catalogs.schema(DB, Oid(oid));
        assert_eq!(schema(40).as_deref(), Some("shop"));
        assert_eq!(schema(2200).as_deref(), Some("public"));
        assert_eq!((schema(41), schema(42).as_deref(), schema(43)), (None, Some("moved"), None));
        assert_eq!((catalogs.database(Oid(50)).as_deref(), catalogs.database(Oid(51))), (Some("main"), None));
        assert_eq!(moved.files(), [PG_CLASS, PG_NAMESPACE, PG_DATABASE, Oid(777)]);
    }

    #[test]
    fn the_pages_that_were_not_touched_for_longest_are_forgotten() {
        let mut catalogs = Catalogs::default();
        let names: Vec<(u16, &str)> = (1..=100).map(|offset| (offset, "t")).collect();
        let pages = MAX_ROWS as u32 / 100 + 1;
        for block in 0..pages {
            apply(&mut catalogs, u64::from(block) + 1, page(block, &names));
            assert!(catalogs.rows <= MAX_ROWS);
        }
        assert_eq!(apply(&mut catalogs, 9999, deleted(0, 1)), Some(None));
        assert_eq!(apply(&mut catalogs, 9999, deleted(pages - 1, 1)), Some(Some("t".into())));
        let counted: usize = catalogs.pages.values().map(|page| page.rows.len()).sum();
        assert_eq!(catalogs.rows, counted);
    }
}
