//! pgark: WAL archiving, base backups and restores for PostgreSQL. Layers: see `docs/architecture.md`.

pub mod cli;
pub mod config;
pub mod detach;
pub mod disk;
pub mod durable;
pub mod error;
pub mod flock;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod host;
pub mod ident;
pub mod interrupt;
pub mod location;
pub mod ops;
pub mod pg;
pub mod pipe;
pub mod progress;
pub mod repo;
pub mod spool;
pub mod store;
pub mod threads;
pub mod throttle;
pub mod words;
