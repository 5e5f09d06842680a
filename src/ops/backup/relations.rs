//! The names of damaged relations. Files are named by number, and only the database that a file belongs to
//! can say which relation has that number, so this connects to each. A name is a help, not a need: where
//! it can't be learnt, the file stands alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::pg::client::Client;
use crate::pg::conninfo::ConnSettings;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelationFile;
use crate::pg::version::PgMajor;
use crate::repo::backup::DamagedPages;

/// Relations that are asked for, at most.
const ASKED: usize = 100;

/// What identifies a relation within its database.
type Place = (Oid, Oid);

/// Adds the names of relations to the pages. `client` is a session with any database.
pub fn name(pages: &mut DamagedPages, client: &mut Client, settings: &ConnSettings, major: PgMajor) {
    let file = |page: &crate::repo::backup::DamagedPage| RelationFile::parse(page.path.as_path(), major);
    let mut wanted: BTreeMap<Oid, BTreeSet<Place>> = BTreeMap::new();
    for file in pages.first.iter().filter_map(file).take(ASKED) {
        let place = (file.directory.tablespace, file.name.number);
        wanted.entry(file.directory.database).or_default().insert(place);
    }
    for (database, places) in wanted {
        match names(database, &places, client, settings) {
            Ok(names) => {
                for page in &mut pages.first {
                    let found = file(page).filter(|file| file.directory.database == database);
                    let place = found.map(|file| (file.directory.tablespace, file.name.number));
                    page.relation =
                        place.and_then(|place| names.get(&place).cloned()).or(page.relation.take());
                }
            }
            Err(error) => tracing::info!("could not learn the names of damaged relations: {error}"),
        }
    }
}

fn names(
    database: Oid,
    places: &BTreeSet<Place>,
    client: &mut Client,
    settings: &ConnSettings,
) -> Result<BTreeMap<Place, String>> {
    // Shared relations are known to every database.
    let mut owner = match database {
        Oid(0) => None,
        Oid(oid) => {
            let sql = "select datname::text from pg_database where oid = $1";
            let dbname = client.query_one_text(sql, &[&oid])?;
            Some(Client::connect(&ConnSettings { dbname, ..settings.clone() })?)
        }
    };
    let client = owner.as_mut().unwrap_or(client);
    let mut names = BTreeMap::new();
    for (tablespace, number) in places {
        let sql = "select pg_filenode_relation($1, $2)::regclass::text";
        let name: Option<String> = client.query_one(sql, &[&tablespace.0, &number.0])?.get(0)?;
        names.extend(name.map(|name| ((*tablespace, *number), name)));
    }
    Ok(names)
}
