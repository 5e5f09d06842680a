//! `pgark expire` on archives of real servers: what is kept restores, whatever happens meanwhile.

mod harness;

#[path = "expire/beside.rs"]
mod beside;
#[path = "expire/between.rs"]
mod between;
#[path = "expire/killed.rs"]
mod killed;
#[path = "expire/large.rs"]
mod large;
#[path = "expire/lines.rs"]
mod lines;
#[path = "expire/restores.rs"]
mod restores;
#[path = "expire/said.rs"]
mod said;
#[path = "expire/scene.rs"]
mod scene;
#[path = "expire/with_backup.rs"]
mod with_backup;
