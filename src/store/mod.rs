//! Objects behind one contract: the object_store trait, made synchronous, with our errors.
//!
//! What every store promises, and the conformance suite (`tests/store.rs`) checks:
//! - `create` is create-if-absent: of any number of racers one gets `New`, the others `AlreadyThere`, and
//!   nobody ever sees other bytes or half an object under that key;
//! - when `create`, `Upload::finish` or `settle` returned success, bytes and name are durable;
//! - `get`, `reader` and `head` answer `Kind::NotFound` only for a missing key, and listings leave nothing
//!   out. A store whose root has vanished (an unmounted disk) looks empty all the same: who concludes from
//!   that must look at the root again afterwards.

mod key;
mod listing;
mod local;
mod lock;
mod owner;
mod reader;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::executor::block_on;
use object_store::local::LocalFileSystem;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

pub use key::Key;
pub use lock::Lock;
pub use reader::ObjectReader;

use crate::error::{Error, Kind, Result};
pub use crate::location::Location;
use owner::AsOwner;

/// The mode of a local repository's directories, before the umask. Its files have 0666 from object_store, which
/// the umask of every program of ours makes 0640 at most (`cli.rs`).
pub const DIRECTORY_MODE: u32 = 0o750;

/// Bytes of an object that is read as a whole, at most: a bound for memory whatever the repository holds. The
/// header of a backup with a hundred thousand packs has 10 MiB.
const LARGEST: u64 = 64 << 20;

/// How a `create` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// Somebody's object stands under that key already; it was not touched.
    AlreadyThere,
}

/// What a listing knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// By the store's own clock.
    pub modified: SystemTime,
}

/// One level of a listing, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Keys of the "directories" right below.
    pub prefixes: Vec<Key>,
    pub objects: Vec<Meta>,
}

/// An open store. Cheap to clone; safe to use from many threads.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: PathBuf,
}

impl Store {
    /// Opens the store at a location; `Kind::NotFound` when there is no such directory. Looks at nothing
    /// inside it.
    pub fn open(location: &Location) -> Result<Self> {
        let root = location.directory().to_path_buf();
        local::require_directory(&root).map_err(store_failed)?;
        let inner = LocalFileSystem::new_with_prefix(&root)
            .map_err(|cause| translate(&cause, "open", &root.display().to_string()))?
            .with_fsync(true);
        Ok(Self { inner: Arc::new(inner), root })
    }

    /// The object's whole content. For small objects only: large ones go through [`Store::reader`]. One of more
    /// than 64 MiB is corrupt.
    pub fn get(&self, key: &Key) -> Result<Bytes> {
        let failed = |cause| self.failed(&cause, "read", key);
        let found = block_on(self.inner.get(key.path())).map_err(failed)?;
        let size = found.meta.size;
        if size > LARGEST {
            return Err(Error::corrupt(format!(
                "could not read {}: it has {size} bytes, and nothing that is read as a whole has more than {LARGEST}",
                self.name(key)
            )));
        }
        block_on(found.bytes()).map_err(failed)
    }

    /// Bytes [start, end) of the object; an object that ends before `end` is corrupt.
    pub fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let fetch = async { self.inner.get_opts(key.path(), options).await?.bytes().await };
        let bytes = block_on(fetch).map_err(|cause| self.failed(&cause, "read", key))?;
        if bytes.len() as u64 != range.end.saturating_sub(range.start) {
            return Err(Error::corrupt(format!(
                "could not read bytes {} to {} of {}: it ends after {} of them",
                range.start,
                range.end,
                self.name(key),
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Opens the object for reading from start to end.
    pub fn reader(&self, key: &Key) -> Result<ObjectReader> {
        block_on(self.inner.get(key.path()))
            .map(ObjectReader::new)
            .map_err(|cause| self.failed(&cause, "open", key))
    }

    /// Size and age of the object.
    pub fn head(&self, key: &Key) -> Result<Meta> {
        block_on(self.inner.head(key.path())).map(meta).map_err(|cause| self.failed(&cause, "look up", key))
    }

    /// Whether the object is there.
    pub fn exists(&self, key: &Key) -> Result<bool> {
        match self.head(key) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates the object if nothing stands under its key; durable when it returns `New`. After
    /// `AlreadyThere`, call [`Store::settle`] before relying on the other's object.
    pub fn create(&self, key: &Key, content: impl Into<PutPayload>) -> Result<Created> {
        let _acting = self.as_owner(key)?;
        local::prepare_parent(&self.root, key).map_err(store_failed)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match block_on(self.inner.put_opts(key.path(), content.into(), options)) {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::AlreadyThere),
            Err(cause) => Err(self.failed(&cause, "write", key)),
        }
    }

    /// Starts an object that is too large for one `create`. Not create-if-absent: only for keys that
    /// hold enough randomness to be nobody else's. Nothing is visible before [`Upload::finish`].
    pub fn upload(&self, key: &Key) -> Result<Upload> {
        let _acting = self.as_owner(key)?;
        local::prepare_parent(&self.root, key).map_err(store_failed)?;
        let inner = block_on(self.inner.put_multipart(key.path()))
            .map_err(|cause| self.failed(&cause, "start writing", key))?;
        Ok(Upload { inner: Some(inner), key: key.clone(), store: self.clone() })
    }

    /// Creates `to` from the object `from`, if absent, without moving bytes; then removes `from`.
    pub fn promote(&self, from: &Key, to: &Key) -> Result<Created> {
        let _acting = self.as_owner(to)?;
        local::prepare_parent(&self.root, to).map_err(store_failed)?;
        let outcome = match block_on(self.inner.copy_if_not_exists(from.path(), to.path())) {
            Ok(()) => Created::New,
            Err(object_store::Error::AlreadyExists { .. }) => Created::AlreadyThere,
            Err(cause) => return Err(self.failed(&cause, "publish", to)),
        };
        self.delete(from)?;
        Ok(outcome)
    }

    /// Makes an object that somebody else created durable: its creator may have died between giving it
    /// its name and making the name durable.
    pub fn settle(&self, key: &Key) -> Result<()> {
        local::settle(&self.root, key).map_err(store_failed)
    }

    /// Drops a finished object, which nobody will read soon, from the memory of this machine.
    pub fn uncache(&self, key: &Key) {
        local::uncache(&self.root, key);
    }

    /// The objects and "directories" right below a prefix; empty when there is no such prefix.
    pub fn level(&self, prefix: &Key) -> Result<Level> {
        listing::level(&self.root, prefix)
    }

    /// Every object below a prefix, in no order, a few at a time.
    pub fn walk(&self, prefix: &Key) -> impl Iterator<Item = Result<Meta>> + use<> {
        listing::walk(&self.root, prefix)
    }

    /// Deletes the object; false when there was none. After a power cut it may be there again: whoever deletes
    /// something else because this is gone calls [`Store::delete_durably`].
    pub fn delete(&self, key: &Key) -> Result<bool> {
        match block_on(self.inner.delete(key.path())) {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(cause) => Err(self.failed(&cause, "delete", key)),
        }
    }

    /// Deletes objects in this order; they stay deleted when this returns success. Answers with how many there
    /// were. Cheap for many in one "directory".
    pub fn delete_durably<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Result<u64> {
        let mut deleted = 0;
        // One that is gone already may have been deleted by somebody who died before that was durable.
        let mut places = BTreeSet::new();
        for key in keys {
            deleted += u64::from(self.delete(key)?);
            places.insert(key.parent());
        }
        places.iter().try_for_each(|place| self.settle_deletions(place))?;
        Ok(deleted)
    }

    /// Makes deletions right below a prefix durable, whoever made them.
    pub fn settle_deletions(&self, prefix: &Key) -> Result<()> {
        local::sync_removals(&self.root, prefix).map_err(store_failed)
    }

    /// Removes a prefix's own trace where a store keeps one: the directory, if it is empty. The caller knows that
    /// nobody is about to create an object there.
    pub fn forget_empty(&self, prefix: &Key) -> Result<()> {
        local::remove_if_empty(&self.root, prefix).map_err(store_failed)
    }

    /// Waits, at most `wait`, until no other process holds the lock of that name.
    pub fn lock(&self, key: &Key, wait: Duration) -> Result<Lock> {
        let _acting = self.as_owner(key)?;
        Lock::acquire(&self.root, key, wait)
    }

    /// Removes what killed writers left unpublished below a prefix and nobody has written to since `before`, by the
    /// store's clock. Returns how many. No object is ever among them.
    pub fn sweep_staged(&self, prefix: &Key, before: SystemTime) -> Result<u64> {
        local::sweep_staged(&self.root, prefix, before)
    }

    /// Whether what we create under the key belongs to the owner of what is around it, who can delete it again.
    pub fn leaves_to_owner(&self, key: &Key) -> Result<bool> {
        owner::is_ours(&self.root.join(key.as_str()))
    }

    /// Root creates objects for the owner of the directory above.
    fn as_owner(&self, key: &Key) -> Result<AsOwner> {
        AsOwner::of(&self.root.join(key.as_str())).map_err(store_failed)
    }

    /// The key as messages show it: where to look.
    pub fn name(&self, key: &Key) -> String {
        self.root.join(key.as_str()).display().to_string()
    }

    fn failed(&self, cause: &object_store::Error, verb: &str, key: &Key) -> Error {
        translate(cause, verb, &self.name(key))
    }
}

/// An object being written in parts. Dropped unfinished, it leaves nothing visible.
pub struct Upload {
    inner: Option<Box<dyn MultipartUpload>>,
    key: Key,
    store: Store,
}

impl Upload {
    /// Appends a part. Object stores want parts of at least 5 MiB, except for the last.
    pub fn write(&mut self, part: Bytes) -> Result<()> {
        let Some(inner) = &mut self.inner else {
            return Err(Error::bug("wrote to a finished upload"));
        };
        block_on(inner.put_part(part.into())).map_err(|cause| self.store.failed(&cause, "write", &self.key))
    }

    /// Publishes the object; durable when this returns.
    pub fn finish(mut self) -> Result<()> {
        let Some(mut inner) = self.inner.take() else {
            return Err(Error::bug("finished an upload twice"));
        };
        block_on(inner.complete()).map_err(|cause| self.store.failed(&cause, "publish", &self.key))?;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut inner) = self.inner.take()
            && let Err(cause) = block_on(inner.abort())
        {
            tracing::warn!("could not remove the unfinished {}: {cause}", self.store.name(&self.key));
        }
    }
}

fn meta(meta: ObjectMeta) -> Meta {
    Meta { key: Key::found(meta.location), size: meta.size, modified: meta.last_modified.into() }
}

/// Marks an input or output error of the store, so that it is told from one of our own files.
fn store_failed(error: Error) -> Error {
    if error.kind() == Kind::Transient { error.as_unreachable() } else { error }
}

/// object_store wraps the system's error several layers deep; what the operator needs is that error.
fn translate(cause: &object_store::Error, verb: &str, name: &str) -> Error {
    if matches!(cause, object_store::Error::NotFound { .. }) {
        return Error::not_found(format!("could not {verb} {name}: it is not there"));
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return store_failed(Error::io(format!("{verb} {name}"), io));
        }
        source = error.source();
    }
    store_failed(Error::transient(format!("could not {verb} {name}: {cause}")))
}
