//! `bootstrap-restore`: creates a server like the one that was backed up, as it was at a chosen moment.

pub mod archive;
pub mod choose;
pub mod survey;
pub mod target;
pub mod window;
