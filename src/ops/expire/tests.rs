//! Plans: a table of them, and what must hold of every one.

mod properties;
mod table;
mod world;
