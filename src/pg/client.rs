//! A session with a PostgreSQL server: connecting in libpq's order of hosts and encryption, and the few
//! calls that a backup or a restore needs.
//!
//! Invariants: the session's own settings neither end it (no timeouts) nor change what it reads (schemas,
//! encoding, date format); a peer that vanished is noticed (keepalives); no error shows a secret.

pub(super) mod certificate;
mod connect;
pub(super) mod failure;
pub(super) mod hosts;
pub(super) mod tls;

use std::time::Duration;

pub use postgres::types::{FromSql, ToSql};

use crate::error::{Error, Result};
use crate::pg::conninfo::ConnSettings;
use crate::pg::version::PgMajor;

/// What a statement's `$1`, `$2` ... stand for.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// Ours, unless the environment chose another application_name.
pub(super) const APPLICATION_NAME: &str = "pgark";

/// Without effect on the server's own settings. All names exist from PostgreSQL 14 to 18 except those of
/// the timeouts, which are looked up.
const SESSION: &str = "set search_path = pg_catalog, pg_temp;
    set client_encoding = 'UTF8'; set standard_conforming_strings = on;
    set datestyle = 'ISO'; set intervalstyle = 'postgres'; set timezone = 'UTC';
    set default_transaction_read_only = off; set client_min_messages = notice;
    select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name in
        ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
         'idle_session_timeout', 'transaction_timeout')";

/// An open session. Dropping it closes it, which ends a backup that it began.
pub struct Client {
    inner: postgres::Client,
    version_num: u32,
}

impl Client {
    /// Connects to the first of the hosts that lets us in and is what `target_session` asks for.
    pub fn connect(settings: &ConnSettings) -> Result<Self> {
        settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut client = Self { inner: connect::connect(settings)?, version_num: 0 };
        client.batch(SESSION)?;
        let version = client.query_one_text("select current_setting('server_version_num')", &[])?;
        client.version_num = version.parse().map_err(|_| {
            Error::postgres(format!("could not understand the server's version \"{version}\""))
        })?;
        Ok(client)
    }

    /// `server_version_num`, such as 150018.
    pub fn version_num(&self) -> u32 {
        self.version_num
    }

    /// The server's major version; an error if pgark does not support it.
    pub fn major(&self) -> Result<PgMajor> {
        PgMajor::from_version_num(self.version_num)
    }

    /// Runs one statement and returns its rows.
    pub fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let rows = self.inner.query(sql, params).map_err(|cause| failure::statement(sql, &cause))?;
        Ok(rows.into_iter().map(Row).collect())
    }

    /// Runs a statement that gives exactly one row.
    pub fn query_one(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Row> {
        let row = self.inner.query_one(sql, params).map_err(|cause| failure::statement(sql, &cause))?;
        Ok(Row(row))
    }

    /// The one text of the one row; null is an error. Cast to text in the statement.
    pub fn query_one_text(&mut self, sql: &str, params: &[Param<'_>]) -> Result<String> {
        self.query_one(sql, params)?.get(0)
    }

    /// Runs one statement and returns how many rows it touched.
    pub fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        self.inner.execute(sql, params).map_err(|cause| failure::statement(sql, &cause))
    }

    /// Runs statements without parameters, separated by semicolons.
    pub fn batch(&mut self, sql: &str) -> Result<()> {
        self.inner.batch_execute(sql).map_err(|cause| failure::statement(sql, &cause))
    }

    /// An error if the server does not answer within `limit`: for a session that only has to stay open.
    pub fn check_alive(&mut self, limit: Duration) -> Result<()> {
        self.inner.is_valid(limit).map_err(|cause| failure::statement("an empty statement", &cause))
    }
}

/// A row of a result.
pub struct Row(postgres::Row);

impl Row {
    /// The value of a column, counted from 0. `Option<T>` for one that may be null.
    pub fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T> {
        self.0
            .try_get(column)
            .map_err(|cause| Error::bug(format!("could not read column {column} of a row: {cause}")))
    }
}
