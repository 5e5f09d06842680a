//! `pgark verify` on repositories that real servers filled: what it says of each kind of damage and what that costs,
//! and whether a restore agrees. A new check adds a row.

mod harness;

#[path = "verify/damage.rs"]
mod damage;
#[path = "verify/forged.rs"]
mod forged;
#[path = "verify/large.rs"]
mod large;
#[path = "verify/objects.rs"]
mod objects;
#[path = "verify/portions.rs"]
mod portions;
#[path = "verify/racing.rs"]
mod racing;
#[path = "verify/renewing.rs"]
mod renewing;
#[path = "verify/scene.rs"]
mod scene;
