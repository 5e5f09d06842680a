//! What the source server knows and the WAL that is read may not tell: names of databases and schemas, and where
//! catalogs are that VACUUM FULL moved. Only of the database that is connected to, but for the names of databases.
//!
//! A server that can't be reached, or is another one, is no error: it is said.

use super::catalogs::{Catalogs, Moved, PG_CLASS, PG_DATABASE, PG_NAMESPACE};
use crate::error::{Error, Result};
use crate::pg::client::Client;
use crate::pg::conninfo::{ConnRequest, ConnSettings, Environment};
use crate::pg::lsn::SystemId;
use crate::pg::oid::Oid;

/// What a server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub system_id: Option<SystemId>,
    databases: Vec<(Oid, String)>,
    /// Of the one database: its oid, and its schemas.
    schemas: Vec<(Oid, Oid, String)>,
    moved: Vec<(Oid, Oid, Oid)>,
}

impl Known {
    /// Adds it to what is known of the incarnation, if it is of that.
    pub fn tell(&self, system_id: SystemId, catalogs: &mut Catalogs, moved: &mut Moved) {
        if self.system_id != Some(system_id) {
            return;
        }
        self.databases.iter().for_each(|(oid, name)| catalogs.name_database(*oid, name.clone()));
        for (database, oid, name) in &self.schemas {
            catalogs.name_schema(*database, *oid, name.clone());
        }
        for (database, catalog, file) in &self.moved {
            moved.learn(*database, *catalog, *file);
        }
    }
}

/// Asks the server.
pub fn ask(request: &ConnRequest) -> Result<Known> {
    let settings = ConnSettings::resolve(request, &Environment::from_process()?)?;
    let mut client = Client::connect(&settings)?;
    let system = client.query_one_text("select system_identifier::text from pg_control_system()", &[])?;
    let database = oid(&client
        .query_one_text("select oid::text from pg_database where datname = current_database()", &[])?)?;
    let mut known = Known { system_id: Some(system.parse()?), ..Known::default() };
    for row in client.query("select oid::text, datname::text from pg_database", &[])? {
        known.databases.push((oid(&row.get::<String>(0)?)?, row.get(1)?));
    }
    for row in client.query("select oid::text, nspname::text from pg_namespace", &[])? {
        known.schemas.push((database, oid(&row.get::<String>(0)?)?, row.get(1)?));
    }
    for catalog in [PG_CLASS, PG_NAMESPACE, PG_DATABASE] {
        let sql = format!("select pg_relation_filenode({catalog})::text");
        let file = oid(&client.query_one_text(&sql, &[])?)?;
        known.moved.push((if catalog == PG_DATABASE { Oid(0) } else { database }, catalog, file));
    }
    Ok(known)
}

fn oid(text: &str) -> Result<Oid> {
    text.parse().map(Oid).map_err(|_| Error::postgres(format!("could not read the oid \"{text}\"")))
}
