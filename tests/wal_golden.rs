//! Segments that each major version of PostgreSQL really wrote (`tests/wal/`), and the facts that they
//! hold, which pg_waldump of that version confirmed. CI has PostgreSQL 15 only; these keep 14 to 18 covered.
//!
//! Each segment holds commits, aborts, prepared transactions that create and drop tables, a restore point, a
//! tablespace that comes and goes, a record over several pages, a change of settings, and an XLOG_SWITCH.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pgark::pg::names::SegmentName;
use pgark::pg::wal::{Extent, SegmentFacts, SegmentHeader, TimelineMatch, Walk};
use proptest::prelude::*;

struct Golden {
    major: u32,
    name: SegmentName,
    bytes: Vec<u8>,
    facts: SegmentFacts,
}

fn read(path: &Path) -> Golden {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let (major, name) = stem.split_once('-').expect("<major>-<segment>");
    let bytes = zstd::decode_all(File::open(path).expect("open a golden file")).expect("zstd");
    let facts = fs::read(path.with_extension("json")).expect("the facts beside it");
    Golden {
        major: major.parse().expect("a major version"),
        name: name.parse().expect("a segment"),
        bytes,
        facts: serde_json::from_slice(&facts).expect("facts"),
    }
}

fn all() -> Vec<Golden> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wal");
    let entries = fs::read_dir(dir).expect("read tests/wal").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "zst")).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn walk(golden: &Golden, bytes: &[u8], extent: Extent, chunk: usize) -> SegmentFacts {
    let header = SegmentHeader::parse(bytes).expect("a header");
    let mut walk = Walk::new(&header, golden.name, extent);
    bytes.chunks(chunk).for_each(|chunk| walk.feed(chunk));
    walk.finish()
}

#[test]
fn each_major_versions_segment_holds_the_known_facts() {
    let goldens = all();
    assert_eq!(goldens.iter().map(|golden| golden.major).collect::<Vec<_>>(), [14, 15, 16, 17, 18]);
    for golden in &goldens {
        let header = SegmentHeader::parse(&golden.bytes).expect("a header");
        assert_eq!(header.format.major(), golden.major);
        let size = golden.bytes.len() as u64;
        assert_eq!(header.check(golden.name, size), Ok(TimelineMatch::Same));
        for (extent, chunk) in [(Extent::Whole, 1 << 20), (Extent::Whole, 777), (Extent::Partial, 8192)] {
            assert_eq!(walk(golden, &golden.bytes, extent, chunk), golden.facts, "{}", golden.major);
        }
    }
}

#[test]
fn the_facts_are_written_as_they_were() {
    for golden in all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/wal/{}-{}.json", golden.major, golden.name));
        let json = serde_json::to_string_pretty(&golden.facts).expect("JSON");
        assert_eq!(fs::read_to_string(path).expect("the facts"), json + "\n");
    }
}

/// The offsets of the bytes of a segment that belong to records, told from the records' lengths alone.
fn record_bytes(segment: &[u8]) -> Vec<usize> {
    let is_payload = |at: &usize| at % 8192 >= if *at < 8192 { 40 } else { 24 };
    let payload: Vec<usize> = (0..segment.len()).filter(is_payload).collect();
    let mut inside = Vec::new();
    let mut next = 0;
    loop {
        let length: [u8; 4] = [0, 1, 2, 3].map(|n| segment[payload[next + n]]);
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return inside;
        }
        inside.extend(&payload[next..next + length]);
        next += length.next_multiple_of(8);
    }
}

#[test]
fn every_harmed_byte_of_a_real_record_is_damage() {
    for golden in all() {
        // A prime stride: all kinds of bytes of all kinds of records come up.
        for (n, at) in record_bytes(&golden.bytes).into_iter().step_by(101).enumerate() {
            let mut harmed = golden.bytes.clone();
            harmed[at] ^= 1 << (n % 8);
            let facts = walk(&golden, &harmed, Extent::Whole, harmed.len());
            assert!(facts.damage.count > 0, "{} {at}: {:?}", golden.major, facts.damage);
            assert!(facts.records < golden.facts.records);
            let partial = walk(&golden, &harmed, Extent::Partial, harmed.len());
            assert!(partial.damage.is_empty());
            assert!(partial.records < golden.facts.records && !partial.switch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn harmed_real_segments_never_panic(
        which in 0_usize..5,
        flips in proptest::collection::vec((40_usize..53_000, 0_u8..8), 1..60),
        cut in 40_usize..1 << 20,
        chunk in 1_usize..100_000,
    ) {
        let golden = all().swap_remove(which);
        let mut harmed = golden.bytes.clone();
        flips.iter().for_each(|(at, bit)| harmed[*at] ^= 1 << bit);
        for extent in [Extent::Whole, Extent::Partial] {
            let facts = walk(&golden, &harmed[..cut], extent, chunk);
            prop_assert!(facts.records <= golden.facts.records);
            prop_assert!(extent == Extent::Whole || facts.damage.is_empty());
        }
    }
}
