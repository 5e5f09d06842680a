//! `pg/client`, `pg/settings` and `pg/server` against real PostgreSQL servers.

mod harness;

#[path = "pgserver/connecting.rs"]
mod connecting;
#[path = "pgserver/encrypting.rs"]
mod encrypting;
#[path = "pgserver/recovering.rs"]
mod recovering;
#[path = "pgserver/replicating.rs"]
mod replicating;
#[path = "pgserver/settings.rs"]
mod settings;
#[path = "pgserver/starting.rs"]
mod starting;
