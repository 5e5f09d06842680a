//! Facts about PostgreSQL: one room for everything that a new major version can change.

pub mod binaries;
pub mod client;
pub mod conninfo;
pub mod control;
pub mod datadir;
pub mod exclude;
pub mod hba;
pub mod history;
pub mod label;
pub mod lsn;
pub mod names;
pub mod oid;
pub mod page;
pub mod recovery;
pub mod relfile;
pub mod replication;
pub mod server;
pub mod settings;
pub mod settings_file;
pub mod settings_value;
pub mod time;
pub mod version;
pub mod wal;
pub mod wal_dir;
