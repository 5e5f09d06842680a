//! Who may read what, and who could make us write elsewhere: permissions, secrets, links that somebody planted.

mod harness;
mod wal;

#[path = "security/permissions.rs"]
mod permissions;
#[path = "security/planted.rs"]
mod planted;
#[path = "security/secrets.rs"]
mod secrets;
