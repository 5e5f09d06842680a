//! `basebackup` against a real PostgreSQL: what is in a backup, and when there is none.

mod harness;

#[path = "basebackup/content.rs"]
mod content;
#[path = "basebackup/damage.rs"]
mod damage;
#[path = "basebackup/ended.rs"]
mod ended;
#[path = "basebackup/large.rs"]
mod large;
#[path = "basebackup/refusals.rs"]
mod refusals;
#[path = "basebackup/standby.rs"]
mod standby;
#[path = "basebackup/stored.rs"]
mod stored;
