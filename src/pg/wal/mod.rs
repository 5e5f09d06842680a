//! Reads WAL segments of PostgreSQL 14 to 18: is a file what its name says, are its pages and records as
//! PostgreSQL wrote them, and what do they say that a restore must know.
//!
//! [`SegmentHeader`] judges the file, [`Walk`] goes through it in one pass and bounded memory and answers
//! with [`SegmentFacts`], [`join_unfinished`] reads the record that two segments share.

mod bytes;
mod capture;
mod decode;
mod event;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod header;
mod heap;
mod image;
mod open;
mod page;
mod record;
mod search;
#[cfg(any(test, feature = "fuzzing"))]
// Fuzzing uses a part of it.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod synthetic;
mod unfinished;
mod walk;

pub use event::{Ended, Event, Interest, MAX_WATCHED, Seen, Watching};
pub use facts::{
    Damage, Listed, MAX_DAMAGE, MAX_LISTED, RawText, RestorePoint, SegmentFacts, SettingsChange,
    TablespaceAction, TablespaceChange, TimelineStart, WalLevel, WalSettings, XidRange,
};
pub use header::{SegmentHeader, TimelineMatch, WalFormat};
pub use heap::{ClassRow, Edit, Row, RowChange, RowPlace, is_invalid_database};
pub use page::page_address;
pub use search::{Landmark, Search, Sought};
pub use unfinished::{Piece, Unfinished, join_unfinished};
pub use walk::{Begun, Extent, Walk};
