//! `bootstrap-restore`: creates a server like the one that was backed up, as it was at a chosen moment.

pub mod archive;
pub mod choose;
mod crew;
mod durability;
pub mod files;
pub mod place;
#[cfg(test)]
mod round_trip;
mod scatter;
pub mod survey;
pub mod target;
mod tree;
pub mod window;
