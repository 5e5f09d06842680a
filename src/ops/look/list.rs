//! The objects below a prefix, in the order of their keys. One level of a listing is in memory at a time, and of the
//! levels above it what is still to come.

use jiff::Timestamp;
use serde::Serialize;

use super::parse;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::repo::Repository;
use crate::store::{Key, Meta, Store};

/// What is listed.
#[derive(Clone, Debug)]
pub struct Request {
    /// None: the whole repository.
    pub prefix: Option<String>,
    /// All below, not only the next level.
    pub recursive: bool,
}

/// An object, or a level of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Relative to the repository; that of a level ends with a slash.
    pub key: String,
    /// Bytes; a level has none.
    pub size_bytes: Option<u64>,
    /// By the store's clock.
    pub modified: Option<Timestamp>,
}

/// Shows `visit` what there is; nothing at all is [`Kind::NotFound`].
pub fn list(config: &Config, request: &Request, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let prefix = match request.prefix.as_deref().map(|prefix| prefix.trim_end_matches('/')) {
        None | Some("") => Key::root(),
        Some(prefix) => parse(prefix)?,
    };
    let mut found = false;
    walk(repository.store(), &prefix, request.recursive, &mut |entry| {
        found = true;
        visit(entry)
    })?;
    if !found && prefix != Key::root() {
        // Perhaps it is an object.
        match repository.store().head(&prefix) {
            Ok(object) => return visit(Entry::of(&object)?),
            Err(error) if error.kind() == Kind::NotFound => {
                repository.confirm()?;
                return Err(Error::not_found(format!("there is nothing below {prefix} in the repository")));
            }
            Err(error) => return Err(error),
        }
    }
    repository.confirm()
}

/// Levels and objects, sorted by the text of their keys.
fn walk(
    store: &Store,
    prefix: &Key,
    recursive: bool,
    visit: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let level = store.level(prefix)?;
    let mut objects = level.objects.iter().peekable();
    for below in &level.prefixes {
        while let Some(object) = objects.next_if(|object| object.key < *below) {
            visit(Entry::of(object)?)?;
        }
        match recursive {
            true => walk(store, below, recursive, visit)?,
            false => visit(Entry { key: format!("{below}/"), size_bytes: None, modified: None })?,
        }
    }
    objects.try_for_each(|object| visit(Entry::of(object)?))
}

impl Entry {
    fn of(object: &Meta) -> Result<Self> {
        let modified = Timestamp::try_from(object.modified).map_err(|cause| {
            Error::corrupt(format!("{} was modified at an impossible time: {cause}", object.key))
        })?;
        Ok(Self { key: object.key.to_string(), size_bytes: Some(object.size), modified: Some(modified) })
    }
}
