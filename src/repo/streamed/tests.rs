//! Parts of a segment that PostgreSQL 15 wrote, stored, read and swept.

use std::path::Path;

use super::*;
use crate::error::Kind;
use crate::pipe::digest::RawDigest;
use crate::repo::fixture::{Fixture, name};
use crate::repo::intake::Incoming;
use proptest::prelude::*;

const SEGMENT: &str = "000000010000000000000007";

/// A repository and a segment of which parts are stored.
struct Scene {
    fixture: Fixture,
    cluster: Cluster,
    raw: Vec<u8>,
    header: SegmentHeader,
}

impl Scene {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wal/15-{SEGMENT}.zst"));
        let raw = zstd::decode_all(&std::fs::read(path).expect("read")[..]).expect("zstd");
        let header = SegmentHeader::parse(&raw).expect("a header");
        let fixture = Fixture::create();
        let cluster = fixture.cluster.repository().cluster(&name("main"), header.system_id);
        Self { fixture, cluster, raw, header }
    }

    /// The part of so many bytes.
    fn part(&self, bytes: u64) -> StreamedPart {
        let start = self.segment().start(self.header.segment_size).expect("a start");
        StreamedPart { segment: self.segment(), end: Lsn(start.0 + bytes) }
    }

    fn segment(&self) -> SegmentName {
        SEGMENT.parse().expect("a name")
    }

    fn store(&self, bytes: u64) -> Result<Stored> {
        self.store_of(bytes, &self.raw)
    }

    fn store_of(&self, bytes: u64, raw: &[u8]) -> Result<Stored> {
        store(&self.cluster, self.part(bytes), &self.header, &mut &raw[..], "the spool", &options())
    }

    fn store_whole(&self) -> Stored {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &self.raw).expect("written");
        let incoming = Incoming {
            cluster: &self.cluster,
            name: self.segment(),
            extent: Extent::Whole,
            header: self.header,
            place: "x".into(),
        };
        let source = file.reopen().expect("opened");
        incoming.store(source, &options(), std::time::Duration::from_secs(9)).expect("stored")
    }

    fn read(&self, bytes: u64) -> Result<(Vec<u8>, StoredSegment)> {
        let mut sink = Vec::new();
        let header = read(&self.cluster, self.part(bytes), &mut sink)?;
        Ok((sink, header))
    }

    /// How long the parts are.
    fn lengths(&self) -> Vec<u64> {
        let parts = parts(&self.cluster, self.segment()).expect("listed");
        parts.iter().map(|part| part.bytes(self.header.segment_size).expect("within")).collect()
    }

    fn damage(&self, bytes: u64, change: impl FnOnce(&mut Vec<u8>)) {
        self.fixture.damage(&self.part(bytes).key(&self.cluster).expect("key"), change);
    }
}

fn options() -> Options {
    Options { level: 1, workers: 2, spool: std::env::temp_dir() }
}

#[test]
fn a_part_comes_back_with_zeros_behind_it() {
    let scene = Scene::new();
    assert_eq!(scene.store(700_001), Ok(Stored::New));
    let (back, header) = scene.read(700_001).expect("read");
    assert_eq!(back.len(), scene.raw.len());
    assert!(back[..700_001] == scene.raw[..700_001] && back[700_001..].iter().all(|byte| *byte == 0));
    assert_eq!(header.blake3, RawDigest::of(&scene.raw[..700_001]));
    assert_eq!(header.streamed_to, Some(scene.part(700_001).end));
    let key = scene.part(700_001).key(&scene.cluster).expect("key");
    let object = std::fs::read(scene.fixture.file(&key)).expect("read");
    assert!(zstd::decode_all(&object[..]).expect("zstd") == scene.raw[..700_001], "only the part is stored");
}

#[test]
fn the_facts_of_a_part_end_with_its_last_whole_record() {
    let scene = Scene::new();
    for bytes in [100, 8192, 8193, 30_000, 49_001] {
        scene.store(bytes).expect("stored");
        let part = scene.part(bytes);
        let facts = read_header(&scene.cluster, part).expect("read").facts;
        let mut walk = Walk::new(&scene.header, part.segment, Extent::Partial);
        walk.feed(&scene.read(bytes).expect("read").0);
        assert_eq!(facts, SegmentFacts { unfinished: None, ..walk.finish() }, "{bytes}");
        assert!(
            facts.end_lsn.is_none_or(|end| end.0 <= part.end.0.next_multiple_of(8)),
            "{bytes}: {facts:?}"
        );
        assert!(facts.damage.is_empty() && facts.unfinished.is_none());
    }
    assert!(read_header(&scene.cluster, scene.part(30_000)).expect("read").facts.records > 10);
    // The WAL of this segment ends with a switch, behind which nothing counts.
    scene.store(900_000).expect("stored");
    assert!(read_header(&scene.cluster, scene.part(900_000)).expect("read").facts.switch);
}

#[test]
fn the_same_part_again_is_success_and_other_bytes_under_its_end_a_conflict() {
    let scene = Scene::new();
    assert_eq!(scene.store(500_000), Ok(Stored::New));
    assert_eq!(scene.store(500_000), Ok(Stored::Same));
    let mut other = scene.raw.clone();
    other[499_999] ^= 1;
    let error = scene.store_of(500_000, &other).expect_err("conflict");
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(scene.read(500_000).is_ok_and(|(back, _)| back[..500_000] == scene.raw[..500_000]));
    // What differs behind the part is not part of it.
    assert_eq!(scene.store_of(499_999, &other), Ok(Stored::New));
}

#[test]
fn what_is_no_part_of_the_segment_is_refused() {
    let scene = Scene::new();
    for bytes in [0, 1 << 20, 3 << 20] {
        assert!(scene.store(bytes).is_err_and(|error| error.message().contains("does not lie within")));
    }
    let error = scene.store_of(500_000, &scene.raw[..499_999]).expect_err("too short");
    assert!(error.message().contains("the spool has 499999 bytes of 500000"), "{error}");
    let foreign = store(
        &scene.fixture.cluster,
        scene.part(500_000),
        &scene.header,
        &mut &scene.raw[..],
        "the spool",
        &options(),
    );
    assert_eq!(foreign.map_err(|error| error.kind()), Err(Kind::Conflict));
    assert_eq!(scene.fixture.objects().len(), 0);
    assert!(scene.lengths().is_empty());
}

#[test]
fn the_longest_part_is_found_and_stands_in_for_one_that_was_swept() {
    let scene = Scene::new();
    assert_eq!(longest(&scene.cluster, scene.segment()), Ok(None));
    assert_eq!(newest(&scene.cluster, Timeline(1)), Ok(None));
    for bytes in [300_000, 100_000, 200_000] {
        scene.store(bytes).expect("stored");
    }
    assert_eq!(longest(&scene.cluster, scene.segment()), Ok(Some(scene.part(300_000))));
    assert_eq!(newest(&scene.cluster, Timeline(1)), Ok(Some(scene.part(300_000))));
    assert_eq!(newest(&scene.cluster, Timeline(2)), Ok(None));
    assert_eq!(covering(&scene.cluster, scene.part(200_000)), Ok(scene.part(200_000)));
    assert_eq!(covering(&scene.cluster, scene.part(200_001)), Ok(scene.part(300_000)));
    let error = covering(&scene.cluster, scene.part(300_001)).expect_err("longer than all");
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_sweep_leaves_the_longest_part_until_the_whole_segment_is_there() {
    let scene = Scene::new();
    assert_eq!(sweep(&scene.cluster, scene.segment()), Ok(vec![]));
    for bytes in [100_000, 200_000, 300_000] {
        scene.store(bytes).expect("stored");
    }
    let removed = vec![scene.part(100_000), scene.part(200_000)];
    assert_eq!(sweep(&scene.cluster, scene.segment()), Ok(removed));
    assert_eq!(scene.lengths(), [300_000]);
    assert_eq!(sweep(&scene.cluster, scene.segment()), Ok(vec![]));
    scene.store(1_000_000).expect("stored");
    assert_eq!(scene.store_whole(), Stored::New);
    assert_eq!(sweep(&scene.cluster, scene.segment()).map(|removed| removed.len()), Ok(2));
    assert!(scene.lengths().is_empty());
    assert_eq!(segment::exists(&scene.cluster, scene.segment()), Ok(true));
}

#[test]
fn parts_that_contradict_what_is_kept_are_left_with_an_error() {
    for whole in [false, true] {
        let scene = Scene::new();
        let mut other = scene.raw.clone();
        other[99_000] ^= 1;
        scene.store_of(100_000, &other).expect("stored");
        scene.store(200_000).expect("stored");
        if whole {
            scene.store_whole();
        }
        let error = sweep(&scene.cluster, scene.segment()).expect_err("contradiction");
        assert_eq!(error.kind(), Kind::Conflict);
        for digest in [&other[..100_000], &scene.raw[..100_000]].map(RawDigest::of) {
            assert!(error.message().contains(&digest.to_string()), "{error}");
        }
        assert_eq!(scene.lengths(), [100_000, 200_000]);
    }
}

#[test]
fn nothing_is_swept_when_what_would_be_kept_is_damaged_and_damage_in_the_rest_does_not_matter() {
    let scene = Scene::new();
    for bytes in [100_000, 200_000] {
        scene.store(bytes).expect("stored");
    }
    scene.damage(100_000, |object| object.truncate(3000));
    scene.damage(200_000, |object| object[5000] ^= 1);
    let error = sweep(&scene.cluster, scene.segment()).expect_err("damaged");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(scene.lengths(), [100_000, 200_000]);
    scene.damage(200_000, |object| object[5000] ^= 1);
    assert_eq!(sweep(&scene.cluster, scene.segment()), Ok(vec![scene.part(100_000)]));
}

#[test]
fn a_part_under_the_key_of_another_or_of_the_segment_is_refused() {
    let scene = Scene::new();
    scene.store(200_000).expect("stored");
    let of = |part: StreamedPart| scene.fixture.file(&part.key(&scene.cluster).expect("key"));
    std::fs::copy(of(scene.part(200_000)), of(scene.part(300_000))).expect("copied");
    let error = scene.read(300_000).expect_err("it ends elsewhere");
    assert!(error.kind() == Kind::Corrupt && error.message().contains("says that it holds up to"), "{error}");
    let key = scene.cluster.layout().segment(scene.segment()).expect("key");
    std::fs::copy(of(scene.part(200_000)), scene.fixture.file(&key)).expect("copied");
    let error = segment::read(&scene.cluster, scene.segment(), &mut Vec::new()).expect_err("a part");
    assert!(error.message().contains(&format!("but holds {SEGMENT}.streamed")), "{error}");
}

#[test]
fn every_damaged_byte_of_a_part_is_found() {
    let scene = Scene::new();
    scene.store(9_000).expect("stored");
    let key = scene.part(9_000).key(&scene.cluster).expect("key");
    let length = std::fs::read(scene.fixture.file(&key)).expect("read").len();
    for at in (0..length).step_by(7) {
        scene.damage(9_000, |object| object[at] ^= 0x10);
        assert!(scene.read(9_000).is_err_and(|error| error.kind() == Kind::Corrupt), "byte {at}");
        scene.damage(9_000, |object| object[at] ^= 0x10);
    }
    scene.damage(9_000, |object| object.truncate(length - 1));
    assert!(scene.read(9_000).is_err_and(|error| error.kind() == Kind::Corrupt));
}

proptest! {
    #[test]
    fn a_part_survives_its_text(timeline in 1_u32.., log: u32, segment: u32, end: u64) {
        let segment = SegmentName { timeline: Timeline(timeline), log, segment };
        let part = StreamedPart { segment, end: Lsn(end) };
        prop_assert_eq!(part.to_string().parse::<StreamedPart>(), Ok(part));
    }

    #[test]
    fn parsing_a_part_never_panics(text in "\\PC{0,50}|[0-9A-F@/]{0,50}") {
        if let Ok(part) = text.parse::<StreamedPart>() {
            prop_assert_eq!(part.to_string().parse::<StreamedPart>(), Ok(part));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn parts_of_any_lengths_are_swept_down_to_the_longest(
        lengths in prop::collection::btree_set(1_u64..1_048_576, 1..6)
    ) {
        let scene = Scene::new();
        for bytes in &lengths {
            prop_assert_eq!(scene.store(*bytes), Ok(Stored::New));
        }
        let longest = lengths.last().copied();
        prop_assert_eq!(sweep(&scene.cluster, scene.segment())?.len(), lengths.len() - 1);
        prop_assert_eq!(scene.lengths().pop(), longest);
        let (back, _) = scene.read(longest.unwrap_or(1))?;
        prop_assert!(back.iter().zip(&scene.raw).take(longest.unwrap_or(1) as usize).all(|(a, b)| a == b));
    }
}
