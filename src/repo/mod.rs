//! The repository: what the objects are, typed. Everything above speaks of segments, backups and leases;
//! only this layer knows keys and formats. `docs/repository-format.md` is the norm for both.
//!
//! Invariant: a `Repository` was really there when it was opened: its `pgark.json` was read and its id is
//! the pinned one. [`Repository::confirm`] checks that again, for answers that must not be wrong.

pub mod backup;
pub mod catalog;
pub mod escape;
pub mod expired;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fixture;
pub mod gap;
pub mod hole;
pub mod incarnations;
pub mod intake;
pub mod inventory;
pub mod layout;
pub mod lease;
pub mod map;
pub mod overlap;
pub mod pack;
mod parts;
pub mod pin;
pub mod records;
pub mod runs;
pub mod segment;
pub mod streamed;
pub mod sweep;
mod trailer;
pub mod verified;
pub mod wal_object;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::pg::lsn::{SegmentSize, SystemId};
use crate::store::{Created, Location, Store};
use layout::{ClusterLayout, Id, Name};

/// The version of the repository format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// `pgark.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryHeader {
    /// Always "pgark repository".
    pub format: String,
    pub version: u32,
    pub id: Id,
    pub created: jiff::Timestamp,
}

const FORMAT: &str = "pgark repository";

/// `cluster.json`: what holds for every object of one incarnation of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHeader {
    pub version: u32,
    pub system_id: SystemId,
    /// PostgreSQL's major version: pg_upgrade makes a new system identifier, so it never changes.
    pub postgres_major: u32,
    pub segment_size: SegmentSize,
    /// XLOG_BLCKSZ, bytes.
    pub wal_block_size: u32,
}

impl ClusterHeader {
    /// The version that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;
}

/// A repository that was there when it was opened.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
    header: RepositoryHeader,
}

impl Repository {
    /// Opens an initialised repository. `pinned` is the id that the configuration insists on.
    pub fn open(location: &Location, pinned: Option<Id>) -> Result<Self> {
        // Store::open fails on a missing directory; so does the header when only the mount point is there.
        let store = Store::open(location).map_err(|error| match error.kind() {
            Kind::NotFound => no_repository(location),
            _ => error,
        })?;
        Self::over(store, location, pinned)
    }

    /// The same over a store that is already open.
    pub fn over(store: Store, location: &Location, pinned: Option<Id>) -> Result<Self> {
        let header = read_header(&store).map_err(|error| match error.kind() {
            Kind::NotFound => no_repository(location),
            _ => error,
        })?;
        if let Some(pinned) = pinned
            && pinned != header.id
        {
            return Err(Error::configuration(format!(
                "the repository at {location} has id {}, but the configuration pins {pinned}",
                header.id
            ))
            .with_hint("is the right disk mounted? otherwise correct repo_id"));
        }
        Ok(Self { store, header })
    }

    /// Reads `pgark.json` again: an error unless the same repository is still there.
    pub fn confirm(&self) -> Result<()> {
        let now = read_header(&self.store).map_err(|error| match error.kind() {
            Kind::NotFound => Error::transient(format!("the repository vanished while it was used: {error}"))
                .with_hint("is its disk mounted?")
                .as_unreachable(),
            _ => error,
        })?;
        if now.id != self.header.id {
            return Err(Error::transient(format!(
                "the repository changed from id {} to {} while it was read",
                self.header.id, now.id
            )));
        }
        Ok(())
    }

    pub fn id(&self) -> Id {
        self.header.id
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// One incarnation of a cluster in this repository. Looks at nothing yet.
    pub fn cluster(&self, name: &Name, system_id: SystemId) -> Cluster {
        Cluster {
            repository: self.clone(),
            layout: ClusterLayout::new(name, system_id),
            name: name.clone(),
            system_id,
        }
    }

    /// The system identifiers that the repository holds under a cluster's name.
    pub fn system_ids(&self, name: &Name) -> Result<Vec<SystemId>> {
        let level = self.store.level(&crate::store::Key::new(name.as_str())?)?;
        Ok(level.prefixes.iter().filter_map(layout::parse_system_id).collect())
    }
}

/// Where the objects of one incarnation of a cluster are.
#[derive(Clone, Debug)]
pub struct Cluster {
    repository: Repository,
    layout: ClusterLayout,
    name: Name,
    system_id: SystemId,
}

impl Cluster {
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn store(&self) -> &Store {
        &self.repository.store
    }

    pub fn layout(&self) -> &ClusterLayout {
        &self.layout
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// Reads `cluster.json`; `Kind::NotFound` when this cluster never archived here.
    pub fn header(&self) -> Result<ClusterHeader> {
        #[derive(Deserialize)]
        struct Preamble {
            version: u32,
        }
        let key = self.layout.cluster()?;
        let (bytes, name) = (self.store().get(&key)?, self.store().name(&key));
        let Preamble { version } = parse_json(&bytes, &name)?;
        if version != ClusterHeader::VERSION {
            return Err(Error::configuration(format!(
                "{name} has version {version}; this program reads version {}",
                ClusterHeader::VERSION
            ))
            .with_hint("use a newer pgark"));
        }
        parse_json(&bytes, &name)
    }

    /// Creates `cluster.json`, or checks that what is there says the same.
    pub fn ensure_header(&self, header: &ClusterHeader) -> Result<()> {
        match self.header() {
            Ok(found) => return same_cluster(&found, header),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        let key = self.layout.cluster()?;
        match self.store().create(&key, to_json(header)?)? {
            Created::New => Ok(()),
            Created::AlreadyThere => {
                self.store().settle(&key)?;
                same_cluster(&self.header()?, header)
            }
        }
    }
}

fn same_cluster(found: &ClusterHeader, ours: &ClusterHeader) -> Result<()> {
    if found == ours {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the repository knows system identifier {} as PostgreSQL {} with segments of {} bytes in blocks of {}, \
         but this is PostgreSQL {} with segments of {} bytes in blocks of {}",
        found.system_id,
        found.postgres_major,
        found.segment_size.bytes(),
        found.wal_block_size,
        ours.postgres_major,
        ours.segment_size.bytes(),
        ours.wal_block_size
    ))
    .with_hint("after pg_resetwal with another segment size, archive under another cluster name"))
}

fn no_repository(location: &Location) -> Error {
    Error::configuration(format!("no repository here: {location}"))
        .with_hint("`pgark init` creates one; or is the disk not mounted?")
        .as_unreachable()
}

fn read_header(store: &Store) -> Result<RepositoryHeader> {
    let key = layout::repository()?;
    parse_versioned(&store.get(&key)?, &store.name(&key), (FORMAT, FORMAT_VERSION))
}

/// Parses an object that says its format and version, those first: what else a newer version has only that knows.
fn parse_versioned<T: DeserializeOwned>(bytes: &[u8], name: &str, ours: (&str, u32)) -> Result<T> {
    #[derive(Deserialize)]
    struct Preamble {
        format: String,
        version: u32,
    }
    let Preamble { format, version } = parse_json(bytes, name)?;
    expect_format(name, (&format, version), ours)?;
    parse_json(bytes, name)
}

/// Refuses an object of another format than ours, or of a newer version of it. Each is a name and a version.
fn expect_format(object: &str, found: (&str, u32), ours: (&str, u32)) -> Result<()> {
    if found.0 == ours.0 && (1..=ours.1).contains(&found.1) {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "{object} says \"{}\" version {}; this program reads \"{}\" up to version {}",
        found.0, found.1, ours.0, ours.1
    ))
    .with_hint("use a newer pgark"))
}

/// What [`init`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialised {
    New(Id),
    AlreadyThere(Id),
}

impl Initialised {
    pub fn id(self) -> Id {
        match self {
            Initialised::New(id) | Initialised::AlreadyThere(id) => id,
        }
    }
}

/// Makes the store at its location a repository; the location's directory must exist.
///
/// Refuses one that holds anything that is not a repository's. Tries first that the store refuses to
/// create an object twice, since the promise never to overwrite rests on that.
pub fn init(location: &Location) -> Result<Initialised> {
    let store = Store::open(location)?;
    match read_header(&store) {
        Ok(header) => {
            probe_creation(&store)?;
            return Ok(Initialised::AlreadyThere(header.id));
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    refuse_foreign(&store, location)?;
    probe_creation(&store)?;
    let header = RepositoryHeader {
        format: FORMAT.to_string(),
        version: FORMAT_VERSION,
        id: Id::random()?,
        created: jiff::Timestamp::now(),
    };
    let key = layout::repository()?;
    match store.create(&key, to_json(&header)?)? {
        Created::New => Ok(Initialised::New(header.id)),
        Created::AlreadyThere => {
            store.settle(&key)?;
            Ok(Initialised::AlreadyThere(read_header(&store)?.id))
        }
    }
}

/// `lost+found` is what a fresh file system holds; probes are our own, of an `init` that was killed.
fn refuse_foreign(store: &Store, location: &Location) -> Result<()> {
    for entry in std::fs::read_dir(location.directory())
        .map_err(|cause| Error::io(format!("list {location}"), &cause))?
    {
        let entry = entry.map_err(|cause| Error::io(format!("list {location}"), &cause))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "lost+found" || name.starts_with("probe-") || name.starts_with(layout::REPOSITORY) {
            continue;
        }
        // Another `init` may have finished between our look and this one.
        if store.exists(&layout::repository()?)? {
            return Ok(());
        }
        return Err(Error::conflict(format!(
            "{location} is no repository and not empty: it holds \"{name}\""
        ))
        .with_hint("give `pgark init` an empty directory, or one that does not exist yet"));
    }
    Ok(())
}

fn probe_creation(store: &Store) -> Result<()> {
    let key = layout::probe(Id::random()?)?;
    let first = store.create(&key, &b"first"[..])?;
    let second = store.create(&key, &b"second"[..]);
    let found = store.get(&key);
    store.delete(&key)?;
    if first != Created::New || second? != Created::AlreadyThere || found?.as_ref() != b"first" {
        return Err(Error::configuration(format!(
            "the store of {} lets an object be created twice, so two servers could overwrite each other's WAL",
            store.name(&key)
        ))
        .with_hint("use a store with create-if-absent: a local file system with hard links has it"));
    }
    Ok(())
}

/// Parses one of our JSON objects; `name` is where it is.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| Error::corrupt(format!("could not read {name}: {cause}")))
}

/// JSON as we store it: pretty, with a final newline, for the human who looks with `cat`.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_is_idempotent_and_a_foreign_directory_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let location = Location::parse(&dir.path().display().to_string()).expect("location");
        assert!(
            Repository::open(&location, None).is_err_and(|e| e.message().starts_with("no repository here"))
        );
        let Initialised::New(id) = init(&location).expect("created") else { panic!("not new") };
        assert_eq!(init(&location), Ok(Initialised::AlreadyThere(id)));
        assert_eq!(Repository::open(&location, Some(id)).map(|r| r.id()), Ok(id));
        let other = Id::random().expect("id");
        assert!(Repository::open(&location, Some(other)).is_err_and(|e| e.message().contains("pins")));
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1, "no probe is left");
        let foreign = tempfile::tempdir().expect("tempdir");
        std::fs::write(foreign.path().join("precious"), "x").expect("written");
        let location = Location::parse(&foreign.path().display().to_string()).expect("location");
        assert!(init(&location).is_err_and(|e| e.message().contains("precious")));
    }

    #[test]
    fn out_of_reach_is_what_does_not_answer_and_not_what_refuses() {
        let dir = tempfile::tempdir().expect("tempdir");
        let location = Location::parse(&dir.path().join("repo").display().to_string()).expect("location");
        let opened = |pinned| Repository::open(&location, pinned).map_err(|error| error.is_unreachable());
        assert!(opened(None).expect_err("no directory"));
        std::fs::create_dir(location.directory()).expect("made");
        assert!(opened(None).expect_err("an empty mount point"));
        init(&location).expect("created");
        let repository = opened(None).expect("there");
        assert!(!opened(Some(Id::random().expect("id"))).expect_err("another"));
        let header = location.directory().join("pgark.json");
        let content = std::fs::read_to_string(&header).expect("read");
        std::fs::write(&header, content.replace("\"version\": 1", "\"version\": 9")).expect("written");
        assert!(!opened(None).expect_err("newer"));
        std::fs::write(&header, "{").expect("written");
        assert!(!opened(None).expect_err("damaged"));
        std::fs::remove_dir_all(location.directory()).expect("removed");
        assert!(repository.confirm().expect_err("vanished").is_unreachable());
        let key = layout::probe(Id::random().expect("id")).expect("key");
        assert!(repository.store().create(&key, &b"x"[..]).expect_err("vanished").is_unreachable());
        std::fs::write(location.directory(), "").expect("written");
        assert!(repository.store().get(&key).expect_err("no directory").is_unreachable());
    }

    #[test]
    fn a_repository_that_vanishes_or_changes_is_not_confirmed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let location = Location::parse(&dir.path().display().to_string()).expect("location");
        init(&location).expect("created");
        let repository = Repository::open(&location, None).expect("open");
        assert_eq!(repository.confirm(), Ok(()));
        std::fs::remove_file(dir.path().join("pgark.json")).expect("removed");
        let error = repository.confirm().expect_err("vanished");
        assert_eq!(error.kind(), Kind::Transient);
        assert!(error.message().starts_with("the repository vanished while it was used"), "{error}");
        init(&location).expect("created");
        assert!(repository.confirm().is_err_and(|error| error.message().contains("changed from id")));
    }
}
