//! pgark: WAL archiving, base backups and restores for PostgreSQL. Layers: see `docs/architecture.md`.

pub mod error;
pub mod pg;
