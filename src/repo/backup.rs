//! The header of a backup, `backup.json`: the object whose existence is the backup's existence.
//!
//! It is written last, create-if-absent, after all that it refers to is durable and was seen to be there;
//! deletion removes it first. Whoever has a `BackupHeader` from [`read`] or [`list`] has a whole backup.
//!
//! Its last member is a digest of the object itself, so that a flipped digit in an LSN is not taken for one.

mod sealed;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::escape::StoredPath;
use super::layout::{self, Id, Name};
use super::map::MapSummary;
use super::pack::PackSummary;
use super::{Cluster, parse_json, to_json};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::pg::page::{BlockNumber, BlockSize};
use crate::pg::version::PgMajor;
use crate::store::{Created, Key};

/// What `format` says in every backup header.
pub const FORMAT: &str = "pgark backup";

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Damaged pages that a header names one by one, at most.
pub const DAMAGED_PAGES_NAMED: usize = 1000;

/// `backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// Always [`FORMAT`].
    pub format: String,
    pub version: u32,
    pub label: Name,
    /// Of the run that wrote the backup: names its own packs and its lease.
    pub run: Id,
    pub system_id: SystemId,
    pub server: Server,
    pub start: Start,
    pub stop: Stop,
    /// WAL is needed up to here before the restored cluster is consistent: the larger of the stop and, on a
    /// standby, pg_control's minRecoveryPoint.
    pub consistent_lsn: Lsn,
    pub from_standby: bool,
    pub checkpoint: CheckpointMode,
    pub tablespaces: Vec<Tablespace>,
    pub segment_size: SegmentSize,
    pub block_size: BlockSize,
    /// Blocks in a file of a large relation (RELSEG_SIZE).
    pub blocks_per_file: u32,
    pub data_checksums: bool,
    pub damaged_pages: DamagedPages,
    /// The file backup_label as the server made it; a restore writes it.
    pub backup_label: String,
    /// The file tablespace_map as the server made it; never restored, the links are made from `tablespaces`.
    pub tablespace_map: String,
    pub map: MapSummary,
    /// Every pack to which the map refers, sorted by id; those of earlier backups too.
    pub packs: Vec<PackSummary>,
    /// The backup that this one took unchanged parts from. It restores without it.
    pub predecessor: Option<Name>,
    /// What `SHOW` said at the start, by the setting's name; see [`SETTINGS`].
    pub settings: BTreeMap<String, String>,
    pub locale: Locale,
    /// Where the backup was taken.
    pub host: String,
    /// The version of pgark that took it.
    pub pgark: String,
    pub totals: Totals,
    /// What the operator was told while the backup was taken.
    pub warnings: Vec<String>,
}

/// The settings that a header keeps, because a restore needs or compares them.
pub const SETTINGS: [&str; 21] = [
    "archive_mode",
    "config_file",
    "cluster_name",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "huge_pages",
    "ident_file",
    "log_directory",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
    "port",
    "server_encoding",
    "shared_buffers",
    "shared_preload_libraries",
    "ssl",
    "unix_socket_directories",
    "wal_level",
];

/// The server that was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// What `version()` said.
    pub version: String,
    /// `server_version_num`, such as 150018.
    pub version_num: u32,
    pub major: PgMajor,
}

/// Where recovery from the backup begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The redo pointer of the checkpoint that the backup starts with, as backup_label says.
    pub lsn: Lsn,
    pub timeline: Timeline,
    /// By the server's clock.
    pub time: Timestamp,
    /// Holds `lsn`.
    pub redo_segment: SegmentName,
}

/// Where the backup ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What pg_backup_stop returned.
    pub lsn: Lsn,
    pub timeline: Timeline,
    /// By the server's clock.
    pub time: Timestamp,
}

/// How the backup's checkpoint was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointMode {
    Fast,
    Spread,
}

/// A tablespace outside the data directory. Its files are in the map below `pg_tblspc/<oid>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: Oid,
    pub name: String,
    /// On the source's host, absolute.
    pub location: StoredPath,
}

/// Pages that did not have the checksum that they claim, each read several times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPages {
    pub count: u64,
    /// The first [`DAMAGED_PAGES_NAMED`] of them.
    pub first: Vec<DamagedPage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    /// The file, relative to the data directory.
    pub path: StoredPath,
    /// Within the fork, across all its files.
    pub block: BlockNumber,
    /// The table or index with its schema, if the server could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
}

/// What sorting and indexes depend on outside the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locale {
    /// Of the C library, as it names itself.
    pub libc: Option<String>,
    /// Of ICU, as the server's collations name it.
    pub icu: Option<String>,
    pub databases: Vec<DatabaseLocale>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseLocale {
    pub oid: Oid,
    pub name: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// "libc", "icu" or "builtin".
    pub provider: String,
    /// Recorded when the database was created; absent where the provider has no versions.
    pub collation_version: Option<String>,
}

/// How much, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The size of all files of the cluster.
    pub raw_bytes: u64,
    /// What this run wrote into the repository: its packs and its map.
    pub stored_bytes: u64,
    /// From the run's start to its copy of pg_control.
    pub copy_seconds: u64,
    /// Waiting for the WAL that the backup needs.
    pub wal_wait_seconds: u64,
}

impl Totals {
    pub fn seconds(duration: Duration) -> u64 {
        duration.as_millis().div_ceil(1000) as u64
    }
}

/// Makes the backup exist. Looks first that map and packs are there with the right sizes.
///
/// `guard` says whether the lease is still held. It is asked right before the header is created and once more
/// after; if it fails then, the header is removed again: this process was frozen between the two for longer
/// than a lease lasts, and a sweep may have taken the packs meanwhile (`repo::lease`). `Kind::Conflict` when
/// another backup has the label. After another error the header may exist: leave cleaning up to a sweep.
pub fn write(cluster: &Cluster, header: &BackupHeader, guard: impl Fn() -> Result<()>) -> Result<()> {
    expect_size(cluster, &cluster.layout().backup_map(&header.label)?, header.map.size)?;
    for pack in &header.packs {
        expect_size(cluster, &cluster.layout().pack(pack.id)?, pack.size)?;
    }
    guard()?;
    create(cluster, header)?;
    guard().map_err(|lost| match remove(cluster, &header.label) {
        Ok(_) => lost,
        Err(error) => lost.context(format!("backup {} must be removed: {error}", header.label)),
    })
}

fn create(cluster: &Cluster, header: &BackupHeader) -> Result<()> {
    let key = cluster.layout().backup_header(&header.label)?;
    if cluster.store().create(&key, sealed::seal(&to_json(header)?)?)? == Created::New {
        return Ok(());
    }
    // A store that answered the first of two attempts too late makes us meet our own header.
    cluster.store().settle(&key)?;
    if read(cluster, &header.label)?.run == header.run {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "could not create {}: another backup has the label {}",
        cluster.store().name(&key),
        header.label
    ))
    .with_hint("choose another label"))
}

fn expect_size(cluster: &Cluster, key: &Key, size: u64) -> Result<()> {
    let found = cluster.store().head(key)?.size;
    if found != size {
        return Err(Error::corrupt(format!(
            "{} has {found} bytes, expected {size}",
            cluster.store().name(key)
        )));
    }
    Ok(())
}

/// Reads the header of a backup; `Kind::NotFound` when there is no such backup.
pub fn read(cluster: &Cluster, label: &Name) -> Result<BackupHeader> {
    let key = cluster.layout().backup_header(label)?;
    let name = cluster.store().name(&key);
    let header = parse(&cluster.store().get(&key)?, &name, label)?;
    let (found, expected) = (header.system_id, cluster.system_id());
    if found != expected {
        return Err(Error::corrupt(format!("{name} says system identifier {found}, expected {expected}")));
    }
    Ok(header)
}

fn parse(bytes: &[u8], name: &str, label: &Name) -> Result<BackupHeader> {
    // Damage before the version, and the version before what only this version has.
    let whole = sealed::check(bytes).map_err(|error| error.context(format!("could not read {name}")));
    #[derive(Deserialize)]
    struct Preamble {
        format: String,
        version: u32,
    }
    let preamble = parse_json::<Preamble>(bytes, name);
    if let Ok(Preamble { format, version }) = &preamble
        && format == FORMAT
        && *version > VERSION
    {
        return Err(Error::configuration(format!(
            "{name} has version {version}; this program reads versions up to {VERSION}"
        ))
        .with_hint("use a newer pgark"));
    }
    whole?;
    let Preamble { format, version } = preamble?;
    if format != FORMAT || version == 0 {
        return Err(Error::corrupt(format!(
            "{name} says \"{format}\" version {version}, expected \"{FORMAT}\""
        )));
    }
    let header: BackupHeader = parse_json(bytes, name)?;
    if header.label != *label {
        return Err(Error::corrupt(format!("{name} is the header of backup {}", header.label)));
    }
    Ok(header)
}

/// The labels of all backups, sorted. What has no header is none.
pub fn labels(cluster: &Cluster) -> Result<Vec<Name>> {
    let mut labels = Vec::new();
    for prefix in cluster.store().level(&cluster.layout().backups()?)?.prefixes {
        if let Some(label) = layout::parse_backup_label(&prefix)
            && cluster.store().exists(&cluster.layout().backup_header(&label)?)?
        {
            labels.push(label);
        }
    }
    // A repository that has gone looks like one without backups.
    cluster.repository().confirm()?;
    Ok(labels)
}

/// The headers of all backups, sorted by label, one at a time: together they may be large.
pub fn iter(cluster: &Cluster) -> Result<impl Iterator<Item = Result<BackupHeader>>> {
    Ok(labels(cluster)?.into_iter().filter_map(|label| match read(cluster, &label) {
        // Deleted since it was listed.
        Err(error) if error.kind() == Kind::NotFound => None,
        read => Some(read),
    }))
}

/// The headers of all backups, sorted by label. One that can't be read is an error: whoever decides what may
/// be deleted, or which backup is the newest, must not overlook one.
pub fn list(cluster: &Cluster) -> Result<Vec<BackupHeader>> {
    iter(cluster)?.collect()
}

/// Makes the backup not exist, for good when this returns. Its map and packs become garbage; false when there was
/// no such backup.
pub fn remove(cluster: &Cluster, label: &Name) -> Result<bool> {
    Ok(cluster.store().delete_durably([&cluster.layout().backup_header(label)?])? > 0)
}

#[cfg(any(test, feature = "fuzzing"))]
/// A header of these bytes, as a fuzzer wants it (`crate::fuzz`): with a right digest.
pub(crate) fn fuzz(data: &[u8]) -> Result<BackupHeader> {
    parse(&sealed::seal(data)?, "a header", &"fuzz".parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::frame::Compressor;
    use crate::repo::fixture::{Fixture, header, name};
    use crate::repo::map::MapWriter;
    use crate::repo::pack::PackWriter;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A header whose map and one pack are there.
    fn prepared(fixture: &Fixture, label: &str) -> BackupHeader {
        let run = Id::random().expect("id");
        let mut writer = PackWriter::new(&fixture.cluster, run);
        let frame = Compressor::new(1).and_then(|mut c| c.compress(b"x", Vec::new())).expect("frame");
        writer.append(&frame).expect("appended");
        let packs = writer.finish().expect("finished");
        let map = MapWriter::start(&fixture.cluster).and_then(|map| map.finish(&name(label))).expect("map");
        header(label, run, map, &packs)
    }

    fn exists(fixture: &Fixture, label: &str) -> bool {
        fixture.objects().contains(&format!("backup/{label}/backup.json"))
    }

    #[test]
    fn a_backup_exists_exactly_when_its_header_does() {
        let fixture = Fixture::create();
        assert_eq!(labels(&fixture.cluster), Ok(Vec::new()));
        let header = prepared(&fixture, "one");
        assert!(read(&fixture.cluster, &name("one")).is_err_and(|error| error.kind() == Kind::NotFound));
        assert_eq!(labels(&fixture.cluster), Ok(Vec::new()), "a map alone is no backup");
        write(&fixture.cluster, &header, || Ok(())).expect("written");
        assert_eq!(read(&fixture.cluster, &name("one")), Ok(header.clone()));
        assert_eq!(list(&fixture.cluster), Ok(vec![header]));
        assert_eq!(remove(&fixture.cluster, &name("one")), Ok(true));
        assert_eq!(remove(&fixture.cluster, &name("one")), Ok(false));
        assert_eq!(labels(&fixture.cluster), Ok(Vec::new()));
    }

    #[test]
    fn no_header_refers_to_what_is_not_there() {
        let fixture = Fixture::create();
        let header = prepared(&fixture, "one");
        let layout = fixture.cluster.layout();
        let pack = layout.pack(header.packs[0].id).expect("key");
        let map = layout.backup_map(&name("one")).expect("key");
        for key in [&pack, &map] {
            fixture.damage(key, |bytes| bytes.push(0));
            let error = write(&fixture.cluster, &header, || Ok(())).expect_err("another size");
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            fixture.damage(key, |bytes| bytes.truncate(bytes.len() - 1));
        }
        fixture.cluster.store().delete(&pack).expect("deleted");
        let error = write(&fixture.cluster, &header, || Ok(())).expect_err("no pack");
        assert!(error.message().contains(pack.as_str()), "{error}");
        assert!(!exists(&fixture, "one"));
    }

    #[test]
    fn a_lease_that_is_lost_before_or_after_leaves_no_header() {
        let fixture = Fixture::create();
        let header = prepared(&fixture, "one");
        for lost_at in 1..=2 {
            let asked = Cell::new(0);
            let guard = || {
                asked.set(asked.get() + 1);
                assert_eq!(exists(&fixture, "one"), asked.get() == 2);
                if asked.get() == lost_at { Err(Error::conflict("lost")) } else { Ok(()) }
            };
            assert_eq!(write(&fixture.cluster, &header, guard), Err(Error::conflict("lost")));
            assert!(!exists(&fixture, "one"), "lost at {lost_at}");
        }
        write(&fixture.cluster, &header, || Ok(())).expect("written");
    }

    #[test]
    fn a_label_belongs_to_the_run_that_took_it() {
        let fixture = Fixture::create();
        let header = prepared(&fixture, "one");
        write(&fixture.cluster, &header, || Ok(())).expect("written");
        // As after a store's late answer: our own header stands there.
        write(&fixture.cluster, &header, || Ok(())).expect("the same again");
        let other = BackupHeader { run: Id::random().expect("id"), ..header.clone() };
        let error = write(&fixture.cluster, &other, || Ok(())).expect_err("taken");
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(read(&fixture.cluster, &name("one")), Ok(header));
    }

    #[test]
    fn a_newer_header_is_told_from_a_damaged_one() {
        let fixture = Fixture::create();
        let header = prepared(&fixture, "one");
        write(&fixture.cluster, &header, || Ok(())).expect("written");
        let key = fixture.cluster.layout().backup_header(&name("one")).expect("key");
        let set = |text: &str| fixture.damage(&key, |bytes| *bytes = text.as_bytes().to_vec());
        for (text, kind) in [
            (r#"{"format":"pgark backup","version":2,"all":"different"}"#, Kind::Configuration),
            (r#"{"format":"pgark backup","version":0}"#, Kind::Corrupt),
            (r#"{"format":"pgark backup","version":1}"#, Kind::Corrupt),
            (r#"{"format":"something","version":1}"#, Kind::Corrupt),
            ("{", Kind::Corrupt),
            ("", Kind::Corrupt),
        ] {
            set(text);
            assert!(read(&fixture.cluster, &name("one")).is_err_and(|error| error.kind() == kind), "{text}");
            assert!(list(&fixture.cluster).is_err(), "nobody may overlook it: {text}");
        }
        let mut json = serde_json::to_value(&header).expect("json");
        let set = |json: &serde_json::Value| {
            let bytes = to_json(json).and_then(|json| sealed::seal(&json)).expect("sealed");
            fixture.damage(&key, |found| *found = bytes);
        };
        json["added_later"] = true.into();
        set(&json);
        assert_eq!(read(&fixture.cluster, &name("one")), Ok(header), "what is unknown is ignored");
        json["label"] = "two".into();
        set(&json);
        assert!(read(&fixture.cluster, &name("one")).is_err_and(|error| error.kind() == Kind::Corrupt));
    }

    #[test]
    fn a_repository_that_went_away_does_not_look_like_one_without_backups() {
        let fixture = Fixture::create();
        std::fs::remove_file(fixture.dir.path().join("pgark.json")).expect("removed");
        assert!(labels(&fixture.cluster).is_err());
    }

    #[test]
    fn every_bit_of_a_header_counts() {
        let fixture = Fixture::create();
        let header = prepared(&fixture, "one");
        let sealed = sealed::seal(&to_json(&header).expect("json")).expect("sealed");
        assert_eq!(parse(&sealed, "here", &name("one")), Ok(header));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let outcome = parse(&damaged, "here", &name("one"));
            // A version that became a larger one is one that we can't read.
            let kinds = [Kind::Corrupt, Kind::Configuration];
            assert!(outcome.is_err_and(|error| kinds.contains(&error.kind())), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, cut: prop::sample::Index) {
            let sealed = sealed::seal(b"{\n  \"format\": \"pgark backup\"\n}\n")?;
            prop_assert!(parse(&bytes, "here", &name("one")).is_err());
            prop_assert!(parse(&sealed[cut.index(sealed.len())..], "here", &name("one")).is_err());
            prop_assert!(parse(&sealed[..cut.index(sealed.len())], "here", &name("one")).is_err());
        }
    }
}
