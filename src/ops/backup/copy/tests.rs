//! Copying a directory that looks like a cluster into a repository, and reading it back.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};

use super::*;
use crate::interrupt::Interrupt;
use crate::pg::version::PgMajor;
use crate::pipe::digest::SliceDigest;
use crate::progress::{Display, Progress};
use crate::repo::fixture;
use crate::repo::layout::Id;
use crate::repo::map::{Entry, MapReader, Slice};
use crate::repo::pack::PackReader;
use crate::throttle::Throttle;

struct Fixture {
    repo: fixture::Fixture,
    data: tempfile::TempDir,
    progress: Progress,
}

impl Fixture {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("tempdir");
        for directory in ["base/5", "global", "pg_tblspc", "pg_wal/archive_status"] {
            std::fs::create_dir_all(data.path().join(directory)).expect("made");
        }
        let progress = Progress::start(Display::Silent, "copying");
        let fixture = Self { repo: fixture::Fixture::create(), data, progress };
        fixture.write("global/pg_control", b"is copied last");
        fixture
    }

    fn write(&self, path: &str, content: &[u8]) {
        std::fs::write(self.data.path().join(path), content).expect("written");
    }

    fn reading(&self, limit: Option<u64>) -> Reading<'_> {
        Reading {
            data_directory: self.data.path().to_path_buf(),
            level: 1,
            checks: None,
            throttle: Throttle::new(limit.and_then(NonZeroU64::new)),
            progress: &self.progress,
            stop: Interrupt::default(),
        }
    }

    fn copy(
        &self,
        config: &[ConfigFile],
        reading: &Reading<'_>,
        watch: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(Sink, CopiedFiles)> {
        let data_dir = DataDir::open(self.data.path(), PgMajor::try_from(15)?)?;
        let jobs = NonZeroUsize::new(3).expect("not 0");
        let source = Source { data_dir: &data_dir, config, reading, jobs };
        let mut sink = Sink::start(&self.repo.cluster)?;
        let packs = PackWriter::new(&self.repo.cluster, Id::random()?);
        let copied = copy(&source, &packs, &mut sink, watch)?;
        Ok((sink, copied))
    }

    /// Every file of the backup with its content, read back from the repository and checked.
    fn stored(&self, sink: Sink, copied: CopiedFiles) -> BTreeMap<String, Vec<u8>> {
        let label = "x".parse().expect("name");
        copied.packs.into_iter().for_each(|packs| drop(packs.finish().expect("durable")));
        let summary = sink.into_map().and_then(|map| map.finish(&label)).expect("durable");
        let map = MapReader::open(&self.repo.cluster, &label, &summary).expect("opened");
        let mut packs = PackReader::new(&self.repo.cluster).expect("reader");
        let mut files = BTreeMap::new();
        for chunk in map.iter() {
            let chunk = chunk.expect("whole");
            for entry in chunk.entries {
                let Entry::File(part) = entry else { continue };
                let content: &mut Vec<u8> = files.entry(part.attributes.path.to_string()).or_default();
                for slice in &part.slices {
                    match *slice {
                        Slice::Zeros { length } => content.resize(content.len() + length as usize, 0),
                        Slice::Data { length, frame, offset, digest } => {
                            let raw = packs.read_frame(&chunk.frames[frame as usize]).expect("whole");
                            let bytes = &raw[offset as usize..(offset + length) as usize];
                            assert_eq!(SliceDigest::of(bytes), digest);
                            content.extend_from_slice(bytes);
                        }
                    }
                }
            }
        }
        files
    }
}

/// Bytes that do not compress to nothing, and differ by `seed`.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

const MIB: usize = 1 << 20;

#[test]
fn every_file_is_copied_whatever_its_size() {
    let fixture = Fixture::new();
    let mut expected = BTreeMap::new();
    let mut add = |path: &str, content: Vec<u8>| {
        fixture.write(path, &content);
        expected.insert(path.to_string(), content);
    };
    for (number, length) in [0, 1, 8191, MIB, MIB + 1, 4 * MIB, 9 * MIB + 77].into_iter().enumerate() {
        add(&format!("base/5/{}", 16384 + number), noise(number as u64, length));
    }
    add("base/5/20000", [noise(9, MIB), vec![0; 6 * MIB], noise(10, 10)].concat());
    add("base/5/20001", vec![0; 3 * MIB]);
    (0..3000)
        .for_each(|number| add(&format!("base/5/3{number:04}_fsm"), noise(number, number as usize % 90)));
    let (sink, copied) = fixture.copy(&[], &fixture.reading(None), &mut || Ok(())).expect("copied");
    assert_eq!((sink.vanished, &copied.skipped), (0, &vec![]));
    let stored = fixture.stored(sink, copied);
    assert!(stored == expected, "{:?}", stored.keys().collect::<Vec<_>>());
}

#[test]
fn configuration_outside_comes_under_its_own_root_and_links_are_reported() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().expect("tempdir");
    let path = outside.path().join("postgresql.conf");
    std::fs::write(&path, "port = 1\n").expect("written");
    std::os::unix::fs::symlink(&path, fixture.data.path().join("postgresql.conf")).expect("linked");
    let attributes = Attributes {
        path: MapPath::config(&path).expect("a path"),
        mode: FileMode::from_st_mode(0o644),
        mtime: jiff::Timestamp::UNIX_EPOCH,
    };
    let config = [ConfigFile { attributes, size: 9 }];
    let (sink, copied) = fixture.copy(&config, &fixture.reading(None), &mut || Ok(())).expect("copied");
    assert_eq!(copied.skipped, [Skipped { path: "postgresql.conf".into(), reason: "it is a symbolic link" }]);
    let expected = BTreeMap::from([(path.display().to_string(), b"port = 1\n".to_vec())]);
    assert_eq!(fixture.stored(sink, copied), expected);
}

#[test]
fn a_file_that_cannot_be_read_ends_the_copy_by_name() {
    let fixture = Fixture::new();
    (0..50).for_each(|number| fixture.write(&format!("base/5/{}", 16384 + number), &noise(number, MIB)));
    let attributes = Attributes {
        path: MapPath::config(fixture.data.path().join("base")).expect("a path"),
        mode: FileMode::from_st_mode(0o644),
        mtime: jiff::Timestamp::UNIX_EPOCH,
    };
    // A directory can be opened, but not read.
    let config = [ConfigFile { attributes, size: 10 }];
    let error = fixture.copy(&config, &fixture.reading(None), &mut || Ok(())).err().expect("an error");
    assert!(error.message().contains("/base: could not read 10 bytes at byte 0"), "{error}");
}

#[test]
fn whoever_watches_can_end_the_copy_and_nothing_stays() {
    let fixture = Fixture::new();
    (0..50).for_each(|number| fixture.write(&format!("base/5/{}", 16384 + number), &noise(number, MIB)));
    // So slow that it would take days: the watch is what ends it, also for those who wait for the throttle.
    let error = fixture.copy(&[], &fixture.reading(Some(100)), &mut || Err(Error::transient("enough")));
    assert_eq!(error.err().map(|error| error.message().to_string()), Some("enough".to_string()));
    assert_eq!(fixture.repo.objects(), Vec::<String>::new());
}
