//! A repository in a temporary directory, for the tests of this layer and of those above.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::backup::{self, *};
use super::layout::{Id, Name};
use super::map::{MapSummary, MapWriter};
use super::pack::PackSummary;
use super::trailer::{self, Sealed};
use super::{Cluster, Repository, init};
use crate::location::Location;
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::page::BlockSize;
use crate::pg::version::PgMajor;
use crate::pipe::digest::Sha256Digest;
use crate::pipe::frame::Compressor;
use crate::store::Key;

/// A repository with one cluster, gone when dropped.
pub struct Fixture {
    pub dir: TempDir,
    pub cluster: Cluster,
}

impl Fixture {
    pub fn create() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let location = Location::parse(&dir.path().display().to_string()).expect("location");
        init(&location).expect("initialised");
        let repository = Repository::open(&location, None).expect("opened");
        let cluster = repository.cluster(&name("main"), SystemId(7_650_000_000_000_000_001));
        Self { dir, cluster }
    }

    /// The file of an object.
    pub fn file(&self, key: &Key) -> PathBuf {
        self.dir.path().join(key.as_str())
    }

    /// Changes an object behind the store's back.
    pub fn damage(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(key)).expect("read");
        change(&mut bytes);
        fs::write(self.file(key), bytes).expect("written");
    }

    /// Every file in the repository below the cluster, sorted, relative to it.
    pub fn objects(&self) -> Vec<String> {
        let root = self.file(&self.cluster.layout().root().expect("key"));
        let files = walkdir::WalkDir::new(&root).into_iter().filter_map(|entry| {
            let entry = entry.ok().filter(|entry| entry.file_type().is_file())?;
            Some(entry.path().strip_prefix(&root).ok()?.to_str()?.to_string())
        });
        let mut files: Vec<String> = files.collect();
        files.sort();
        files
    }

    /// A map of one chunk with these lines, whatever they say. `first` is the path with which it begins.
    pub fn raw_map(&self, label: &str, first: &str, lines: &str) -> MapSummary {
        let frame =
            |raw: &[u8]| Compressor::new(1).and_then(|mut c| c.compress(raw, Vec::new())).expect("a frame");
        let chunk = frame(lines.as_bytes());
        let (stored, raw, sha256) = (chunk.stored.len(), chunk.raw_size, chunk.sha256);
        let line =
            serde_json::json!({ "offset": 0, "stored": stored, "raw": raw, "sha256": sha256, "path": first });
        let list = frame(format!("{line}\n").as_bytes());
        let end = trailer::seal(Sealed::Map, &list, stored as u64).expect("sealed");
        let object = [chunk.stored, end].concat();
        let key = self.cluster.layout().backup_map(&name(label)).expect("key");
        let summary = MapSummary {
            size: object.len() as u64,
            sha256: Sha256Digest::of(&object),
            list_sha256: list.sha256,
            chunks: 1,
            files: 1,
            directories: 0,
            raw_bytes: 0,
        };
        self.cluster.store().create(&key, object).expect("created");
        summary
    }

    /// A backup of nothing that lists these packs, complete with its map.
    pub fn backup(&self, label: &str, run: Id, packs: &[PackSummary]) {
        let map = MapWriter::start(&self.cluster).and_then(|map| map.finish(&name(label))).expect("map");
        let header = header(label, run, map, packs);
        backup::write(&self.cluster, &header, || Ok(())).expect("written");
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub fn header(label: &str, run: Id, map: MapSummary, packs: &[PackSummary]) -> BackupHeader {
    let time = "2026-11-23T03:10:00Z".parse().expect("time");
    let segment_size = SegmentSize::try_from(16 << 20).expect("size");
    let (lsn, timeline) = (Lsn(0x2000028), Timeline(1));
    BackupHeader {
        format: FORMAT.to_string(),
        version: VERSION,
        label: name(label),
        run,
        system_id: SystemId(7_650_000_000_000_000_001),
        server: Server {
            version: "PostgreSQL 15.18 on x86_64-pc-linux-gnu".into(),
            version_num: 150_018,
            major: PgMajor::try_from(15).expect("supported"),
        },
        start: Start {
            lsn,
            timeline,
            time,
            redo_segment: SegmentName::containing(timeline, lsn, segment_size),
        },
        stop: Stop { lsn: Lsn(0x2000100), timeline, time },
        consistent_lsn: Lsn(0x2000100),
        from_standby: false,
        checkpoint: CheckpointMode::Fast,
        tablespaces: Vec::new(),
        segment_size,
        block_size: BlockSize::try_from(8192).expect("size"),
        blocks_per_file: 131_072,
        data_checksums: true,
        damaged_pages: DamagedPages::default(),
        backup_label: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n".into(),
        tablespace_map: String::new(),
        map,
        packs: packs.to_vec(),
        predecessor: None,
        settings: BTreeMap::from([("port".into(), "5432".into())]),
        locale: Locale::default(),
        host: "db1".into(),
        pgark: "0.1.0".into(),
        totals: Totals::default(),
        warnings: Vec::new(),
    }
}
