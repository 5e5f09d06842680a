//! The verbs: one file (or folder) each, `run()` on top, then its steps in the order in which they happen.

pub mod backup;
pub mod check;
pub mod expire;
pub mod find;
pub mod info;
pub mod init;
pub mod look;
pub mod metrics;
pub mod pin;
pub mod report;
pub mod restore;
pub mod verify;
pub mod wal_fetch;
pub mod wal_push;
pub mod wal_receive;
