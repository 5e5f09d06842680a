//! Trees of files through frames, packs and a map into a repository, and back.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::files::{FilesJob, Summary, restore_files};
use super::place::Places;
use crate::error::{Error, Kind, Result};
use crate::interrupt::Interrupt;
use crate::pg::oid::Oid;
use crate::pipe::digest::SliceDigest;
use crate::pipe::frame::{Compressor, FRAME_SIZE};
use crate::progress::{Display, Progress};
use crate::repo::backup::{self, BackupHeader, Tablespace};
use crate::repo::fixture::{Fixture, header, name};
use crate::repo::layout::Id;
use crate::repo::map::{Attributes, FileMode, MapPath, MapWriter, PlacedSlice, SLICE_SIZE};
use crate::repo::pack::PackWriter;

/// A file or directory of a source.
#[derive(Clone)]
struct Item {
    path: MapPath,
    mode: u32,
    /// None: a directory.
    content: Option<Vec<u8>>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} bytes", self.path, self.content.as_ref().map(Vec::len))
    }
}

fn directory(path: &str, mode: u32) -> Item {
    Item { path: MapPath::data(path).expect("path"), mode, content: None }
}

fn file(path: MapPath, mode: u32, content: Vec<u8>) -> Item {
    Item { path, mode, content: Some(content) }
}

fn data(path: &str, content: impl Into<Vec<u8>>) -> Item {
    file(MapPath::data(path).expect("path"), 0o600, content.into())
}

/// Bytes that neither repeat nor compress well.
fn noise(length: usize, mut seed: u32) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Everything that a data directory may hold.
fn sample() -> Vec<Item> {
    let mut sparse = vec![0; 3 * SLICE_SIZE as usize];
    sparse[SLICE_SIZE as usize..][..8192].copy_from_slice(&noise(8192, 3));
    let mut items = vec![
        directory(".", 0o750),
        directory("base", 0o700),
        directory("base/5", 0o700),
        data("base/5/1259", noise(5 * 8192, 1)),
        data("base/5/2619_fsm", vec![0; 24_576]),
        data("base/5/empty", []),
        data("base/5/large", noise(20 << 20, 2)),
        data("base/5/sparse", sparse),
        directory("global", 0o700),
        directory("keys", 0o500),
        file(MapPath::data("keys/server.key").expect("path"), 0o400, b"secret".to_vec()),
        directory("pg_tblspc", 0o700),
        directory("pg_tblspc/16400/PG_15_202209061", 0o700),
        data("pg_tblspc/16400/PG_15_202209061/16401", noise(8192, 4)),
        directory("pg_wal", 0o700),
        data("postgresql.conf.% \u{e9}\"\n", "odd"),
        file(MapPath::new(Default::default(), b"\xff\xfe%41").expect("path"), 0o644, b"no UTF-8".to_vec()),
        file(MapPath::config("/etc/postgresql/15/main/pg_hba.conf").expect("path"), 0o640, b"local".to_vec()),
    ];
    items.extend((0..300u32).map(|n| data(&format!("base/5/9{n:04}"), noise(n as usize * 7, n))));
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items
}

/// Writes packs, map and header as a backup does, with pg_control last.
fn store(fixture: &Fixture, items: &[Item], label: &str) -> Result<BackupHeader> {
    let run = Id::random()?;
    let mut map = MapWriter::start(&fixture.cluster)?;
    let mut store = Storing {
        packs: PackWriter::new(&fixture.cluster, run),
        compressor: Compressor::new(1)?,
        raw: Vec::new(),
        waiting: Vec::new(),
    };
    for item in items {
        let attributes = Attributes {
            path: item.path.clone(),
            mode: FileMode::from_st_mode(item.mode),
            mtime: "2026-11-23T03:10:00Z".parse().expect("time"),
        };
        store.add(&mut map, attributes, item.content.as_deref())?;
    }
    store.flush(&mut map)?;
    map.begin_final()?;
    let attributes = Attributes {
        path: MapPath::data("global/pg_control")?,
        mode: FileMode::from_st_mode(0o600),
        mtime: "2026-11-23T03:11:00Z".parse().expect("time"),
    };
    store.add(&mut map, attributes, Some(&noise(8192, 9)))?;
    store.flush(&mut map)?;
    let packs = store.packs.finish()?;
    let mut header = header(label, run, map.finish(&name(label))?, &packs);
    header.tablespaces =
        vec![Tablespace { oid: Oid(16400), name: "fast".into(), location: PathBuf::from("/src").into() }];
    backup::write(&fixture.cluster, &header, || Ok(()))?;
    Ok(header)
}

/// Gathers small files into frames, and writes a frame's files into the map when it is full.
struct Storing {
    packs: PackWriter,
    compressor: Compressor,
    raw: Vec<u8>,
    /// Files of which something is in `raw`, and what there is before and in it.
    waiting: Vec<(Attributes, Option<Vec<Part>>)>,
}

/// Either settled, or a range of `raw`.
enum Part {
    Settled(PlacedSlice),
    Raw(usize, usize),
}

impl Storing {
    fn add(&mut self, map: &mut MapWriter, attributes: Attributes, content: Option<&[u8]>) -> Result<()> {
        self.waiting.push((attributes, content.map(|_| Vec::new())));
        for piece in content.unwrap_or_default().chunks(SLICE_SIZE as usize) {
            if self.raw.len() + piece.len() > FRAME_SIZE {
                self.flush_frame()?;
            }
            let part = if piece.iter().all(|byte| *byte == 0) {
                Part::Settled(PlacedSlice::Zeros { length: piece.len() as u64 })
            } else {
                self.raw.extend_from_slice(piece);
                Part::Raw(self.raw.len() - piece.len(), piece.len())
            };
            let parts = self.waiting.last_mut().and_then(|(_, parts)| parts.as_mut());
            parts.ok_or_else(|| Error::bug("no file"))?.push(part);
        }
        if self.waiting.len() > 100 { self.flush(map) } else { Ok(()) }
    }

    fn flush_frame(&mut self) -> Result<()> {
        let frame = self.compressor.compress(&self.raw, Vec::new())?;
        let location = self.packs.append(&frame)?;
        for part in self.waiting.iter_mut().flat_map(|(_, parts)| parts.iter_mut().flatten()) {
            if let Part::Raw(offset, length) = *part {
                let digest = SliceDigest::of(&self.raw[offset..offset + length]);
                let (offset, length) = (offset as u32, length as u32);
                *part = Part::Settled(PlacedSlice::Data { frame: location, offset, length, digest });
            }
        }
        self.raw.clear();
        Ok(())
    }

    fn flush(&mut self, map: &mut MapWriter) -> Result<()> {
        if !self.raw.is_empty() {
            self.flush_frame()?;
        }
        for (attributes, parts) in self.waiting.drain(..) {
            let settled = |part| if let Part::Settled(slice) = part { slice } else { unreachable!() };
            match parts {
                None => map.directory(attributes)?,
                Some(parts) => map.file(attributes, parts.into_iter().map(settled))?,
            }
        }
        Ok(())
    }
}

/// Empty directories to restore into.
struct Target {
    dir: TempDir,
}

impl Target {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("tempdir") }
    }

    fn places(&self) -> Places {
        Places {
            data: self.dir.path().join("data"),
            tablespaces: BTreeMap::from([(Oid(16400), self.dir.path().join("fast"))]),
            config: self.dir.path().join("config"),
        }
    }

    fn restore(&self, fixture: &Fixture, header: &BackupHeader) -> Result<Summary> {
        let job = FilesJob {
            cluster: &fixture.cluster,
            header,
            places: self.places(),
            jobs: NonZeroUsize::new(3).expect("three"),
            progress: &Progress::start(Display::Silent, "restoring"),
            interrupt: &Interrupt::default(),
        };
        let unfinished = restore_files(&job)?;
        assert!(!self.control().exists(), "pg_control comes last");
        unfinished.complete()
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("data/global/pg_control")
    }
}

fn assert_same(place: &Path, item: &Item) {
    let metadata = fs::symlink_metadata(place).unwrap_or_else(|cause| panic!("{}: {cause}", place.display()));
    assert_eq!(metadata.mode() & 0o7777, item.mode, "{}", item.path);
    assert_eq!(metadata.is_dir(), item.content.is_none(), "{}", item.path);
    if let Some(content) = &item.content {
        // The tests may run as a user whom the mode keeps out.
        fs::set_permissions(place, Permissions::from_mode(0o600)).expect("mode");
        assert!(fs::read(place).expect("read") == *content, "{}", item.path);
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let fixture = Fixture::create();
    let items = sample();
    let header = store(&fixture, &items, "one").expect("stored");
    let target = Target::new();
    let summary = target.restore(&fixture, &header).expect("restored");
    let places = target.places();
    let key_directory = places.data.join("keys");
    assert_eq!(fs::metadata(&key_directory).expect("keys").mode() & 0o7777, 0o500);
    for item in &items {
        assert_same(&places.locate(&item.path), item);
    }
    fs::set_permissions(&key_directory, Permissions::from_mode(0o700)).expect("mode");
    let files = items.iter().filter(|item| item.content.is_some()).count() as u64;
    assert_eq!((summary.files, summary.directories), (files + 1, items.len() as u64 - files));
    assert_eq!(fs::read(target.control()).expect("pg_control"), noise(8192, 9));
    assert_eq!(
        fs::read_link(places.data.join("pg_tblspc/16400")).expect("link"),
        places.tablespaces[&Oid(16400)]
    );
    let sparse = fs::metadata(places.data.join("base/5/sparse")).expect("sparse");
    assert!(sparse.blocks() * 512 < sparse.len() / 2, "zeros are holes");
}

#[test]
fn a_damaged_pack_or_map_stops_the_restore_before_pg_control() {
    let fixture = Fixture::create();
    let header = store(&fixture, &sample(), "one").expect("stored");
    let (layout, store) = (fixture.cluster.layout(), fixture.cluster.store());
    let pack = layout.pack(header.packs[0].id).expect("key");
    let map = layout.backup_map(&header.label).expect("key");
    for (key, at) in [(&pack, 10), (&pack, 5 << 20), (&map, 10)] {
        fixture.damage(key, |bytes| bytes[at] ^= 1);
        let target = Target::new();
        let error = target.restore(&fixture, &header).expect_err("damaged");
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.message().contains(&store.name(key)), "{error}");
        assert!(!target.control().exists());
        fixture.damage(key, |bytes| bytes[at] ^= 1);
    }
    Target::new().restore(&fixture, &header).expect("whole again");
}

#[test]
fn a_restore_that_is_interrupted_or_would_mix_two_clusters_leaves_no_pg_control() {
    let fixture = Fixture::create();
    let header = store(&fixture, &sample(), "one").expect("stored");
    let target = Target::new();
    let interrupt = Interrupt::default();
    interrupt.set();
    let progress = Progress::start(Display::Silent, "restoring");
    let job = FilesJob {
        cluster: &fixture.cluster,
        header: &header,
        places: target.places(),
        jobs: NonZeroUsize::MIN,
        progress: &progress,
        interrupt: &interrupt,
    };
    assert!(restore_files(&job).is_err_and(|error| error.message() == "interrupted"));
    assert!(!target.control().exists());

    let full = Target::new();
    full.restore(&fixture, &header).expect("restored");
    let error = full.restore(&fixture, &header).expect_err("refused");
    assert_eq!(error.kind(), Kind::Conflict, "{error}");

    let places = Places { tablespaces: BTreeMap::new(), ..Target::new().places() };
    let job = FilesJob { places, interrupt: &Interrupt::default(), ..job };
    assert!(restore_files(&job).is_err_and(|error| error.message().contains("tablespace fast")));
}

#[test]
fn a_pack_that_is_not_there_is_named() {
    let fixture = Fixture::create();
    let header = store(&fixture, &sample(), "one").expect("stored");
    let pack = fixture.cluster.layout().pack(header.packs[0].id).expect("key");
    fixture.cluster.store().delete(&pack).expect("deleted");
    let error = Target::new().restore(&fixture, &header).expect_err("gone");
    assert!(error.message().contains(pack.as_str()), "{error}");
}

/// Directories with files of any names, some of them with holes.
fn trees() -> impl Strategy<Value = Vec<Item>> {
    let name = prop::collection::vec(any::<u8>().prop_filter("a part", |byte| !b"/\0.".contains(byte)), 1..5);
    let content = (0usize..700_000, any::<u32>(), 0usize..3).prop_map(|(length, seed, holes)| {
        let mut content = noise(length, seed);
        if holes > 0 {
            content.chunks_mut(8192 * holes).step_by(2).for_each(|chunk| chunk.fill(0));
        }
        content
    });
    let directories =
        prop::collection::btree_map(name.clone(), prop::collection::btree_map(name, content, 0..8), 1..5);
    directories.prop_map(|directories| {
        let mut items = vec![directory(".", 0o700), directory("global", 0o700)];
        for (directory, files) in directories.into_iter().filter(|(name, _)| name != b"global") {
            let path = |path: &[u8]| MapPath::new(Default::default(), path).expect("path");
            items.push(Item { path: path(&directory), mode: 0o700, content: None });
            for (name, content) in files {
                items.push(file(path(&[&directory, &b"/"[..], &name].concat()), 0o600, content));
            }
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_tree_comes_back_as_it_was(items in trees()) {
        let fixture = Fixture::create();
        let header = store(&fixture, &items, "one")?;
        let target = Target::new();
        let summary = target.restore(&fixture, &header)?;
        prop_assert_eq!(summary.files + summary.directories, items.len() as u64 + 1);
        items.iter().for_each(|item| assert_same(&target.places().locate(&item.path), item));
    }
}
