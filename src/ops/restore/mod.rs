//! Creating a server from a backup.

mod crew;
mod durability;
pub mod files;
pub mod place;
#[cfg(test)]
mod round_trip;
mod scatter;
mod tree;
