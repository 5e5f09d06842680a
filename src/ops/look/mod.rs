//! `pgark repo`: looks at stored objects by their keys. `ls` lists, `cat` and `get` give the bytes as they are, or
//! decoded.
//!
//! Refuses keys that no repository has, so nothing outside of it is ever read, and to say "not there" of a
//! repository that has gone. Changes nothing in it.

mod decode;
pub mod list;

use std::io::Write;
use std::path::Path;

use crate::config::Config;
use crate::durable::StagedFile;
use crate::error::{Error, IoContext, Kind, Result};
use crate::repo::Repository;
use crate::store::Key;

pub use decode::Decoding;

/// Writes an object into `sink`. When this fails, what is in the sink is not the object.
pub fn cat(config: &Config, key: &str, decoding: Decoding, sink: &mut dyn Write) -> Result<()> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let key = parse(key)?;
    write(&repository, &key, decoding, sink).map_err(|error| explain(&repository, error))
}

/// Writes an object into a file that does not exist yet. There is no such file unless all of it is there.
pub fn get(config: &Config, key: &str, decoding: Decoding, file: &Path) -> Result<()> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let key = parse(key)?;
    if file.symlink_metadata().is_ok() {
        return Err(Error::conflict(format!("{} exists already", file.display())));
    }
    let mut staged = StagedFile::create(file, 0o600)?;
    write(&repository, &key, decoding, &mut staged).map_err(|error| explain(&repository, error))?;
    staged.publish_new()
}

fn write(repository: &Repository, key: &Key, decoding: Decoding, sink: &mut dyn Write) -> Result<()> {
    match decoding {
        Decoding::Stored => {
            let mut reader = repository.store().reader(key)?;
            let name = repository.store().name(key);
            std::io::copy(&mut reader, sink).map(drop).doing(|| format!("copy {name}"))
        }
        Decoding::Content => decode::content(repository, key, sink),
        Decoding::Header => decode::header(repository, key, sink),
    }
}

/// The text of a key, as `ls` shows it.
fn parse(text: &str) -> Result<Key> {
    Key::new(text).map_err(|error| match error.kind() {
        Kind::Configuration => {
            error.with_hint("a key is what `pgark repo ls -R` shows, relative to the repository")
        }
        _ => error,
    })
}

/// A repository that has gone has no objects.
fn explain(repository: &Repository, error: Error) -> Error {
    match (error.kind(), repository.confirm()) {
        (Kind::NotFound, Err(gone)) => gone,
        (Kind::NotFound, Ok(())) => error.with_hint("`pgark repo ls -R` shows all keys"),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
