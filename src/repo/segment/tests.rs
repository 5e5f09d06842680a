use super::sealed::{FRAME_HEAD, ROOM, skippable};
use super::*;
use crate::pg::lsn::Lsn;
use crate::pg::time::Timestamp;
use crate::pg::wal::{Damage, Listed, RestorePoint, XidRange};
use crate::pipe::compress::{Options, compress};
use crate::repo::fixture::Fixture;
use proptest::prelude::*;

const NAME: &str = "000000010000000000000009";

fn segment_name() -> SegmentName {
    NAME.parse().expect("a name")
}

fn size() -> SegmentSize {
    SegmentSize::try_from(1 << 20).expect("a size")
}

/// A MiB that compresses well.
fn raw() -> Vec<u8> {
    (0..1 << 20).map(|n: u32| (n >> 12) as u8).collect()
}

fn compressed(raw: &[u8]) -> Compressed {
    let options = Options { level: 1, workers: 2, spool: std::env::temp_dir() };
    compress(&mut &raw[..], "x", &options, &mut |_| ()).expect("compressed")
}

fn description(facts: SegmentFacts) -> Description {
    Description {
        file: WalFile::Segment(segment_name()),
        postgres_major: 15,
        segment_size: size(),
        wal_block_size: 8192,
        host: "db1".to_string(),
        facts,
    }
}

fn time() -> Timestamp {
    Timestamp::from_postgres(848_000_000_000_001).expect("in range")
}

fn restore_points(count: u64) -> SegmentFacts {
    let point = |n: u64| RestorePoint {
        name: format!("restore point {n} ").repeat(3).as_str().into(),
        lsn: Lsn(n),
        end_lsn: Lsn(n + 104),
        time: time(),
    };
    let restore_points = Listed { count, first: (0..count).map(point).collect() };
    SegmentFacts { first_lsn: Some(Lsn(40)), records: count, restore_points, ..SegmentFacts::default() }
}

fn put_segment(fixture: &Fixture, facts: SegmentFacts) -> Result<Stored> {
    put(&fixture.cluster, description(facts), compressed(&raw()))
}

fn key(fixture: &Fixture) -> Key {
    fixture.cluster.layout().segment(segment_name()).expect("key")
}

fn sealed() -> Vec<u8> {
    let fixture = Fixture::create();
    let header = StoredSegment::of(&fixture.cluster, description(restore_points(3)), &compressed(&raw()));
    let (header, more) = header.fit().expect("described");
    assert!(more.is_empty());
    seal(&header).expect("sealed")
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let sealed = sealed();
    assert_eq!(sealed.len(), HEADER_SIZE);
    assert!(unseal(&sealed, "x").is_ok());
    for bit in 0..HEADER_SIZE * 8 {
        let mut damaged = sealed.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = unseal(&damaged, "x").expect_err("damaged");
        assert_eq!(error.kind(), Kind::Corrupt, "bit {bit}");
    }
}

#[test]
fn every_shortened_or_lengthened_header_is_found() {
    let mut sealed = sealed();
    for length in 0..HEADER_SIZE {
        assert!(unseal(&sealed[..length], "x").is_err(), "{length} bytes");
    }
    sealed.push(0);
    assert!(unseal(&sealed, "x").is_err());
}

/// A header that is sealed well, whatever it says.
fn seal_text(text: &str) -> Vec<u8> {
    let mut content = text.as_bytes().to_vec();
    content.resize(ROOM, b' ');
    let checksum = crc32c::crc32c(&content);
    content.extend_from_slice(format!("{{\"crc32c\":\"{checksum:08x}\"}}\n").as_bytes());
    skippable(&content).expect("a frame")
}

#[test]
fn a_header_of_another_kind_or_a_newer_version_is_refused() {
    let sealed = sealed();
    let text = std::str::from_utf8(&sealed[FRAME_HEAD..FRAME_HEAD + ROOM]).expect("UTF-8").trim_end();
    assert_eq!(unseal(&seal_text(text), "x"), unseal(&sealed, "x"));
    for (from, to, kind, expected) in [
        ("\"version\":1", "\"version\":2", Kind::Configuration, "reads \"pgark segment\" up to version 1"),
        ("\"version\":1", "\"version\":0", Kind::Configuration, "version 0"),
        ("pgark segment", "pgark pack", Kind::Configuration, "says \"pgark pack\" version 1"),
        ("\"segment_size\":1048576", "\"segment_size\":7", Kind::Corrupt, "7 is not a WAL segment size"),
        ("\"records\":3", "\"records\":-3", Kind::Corrupt, "could not read x"),
        ("\"host\":\"db1\",", "", Kind::Corrupt, "missing field `host`"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = unseal(&seal_text(&text.replace(from, to)), "x").expect_err(to);
        assert_eq!(error.kind(), kind, "{to}");
        assert!(error.message().contains(expected), "{to}: {error}");
    }
    // What a later writer of the same version may add.
    assert!(unseal(&seal_text(&text.replacen('{', "{\"new\":1,", 1)), "x").is_ok());
}

#[test]
fn a_segment_comes_back_with_its_facts() {
    let fixture = Fixture::create();
    let facts = restore_points(3);
    assert_eq!(put_segment(&fixture, facts.clone()), Ok(Stored::New));
    let mut back = Vec::new();
    let header = read(&fixture.cluster, segment_name(), &mut back).expect("read");
    assert!(back == raw());
    assert_eq!((header.facts, header.more), (facts, None));
}

#[test]
fn facts_that_do_not_fit_go_behind_the_data() {
    let fixture = Fixture::create();
    let facts = restore_points(900);
    assert_eq!(put_segment(&fixture, facts.clone()), Ok(Stored::New));
    let mut back = Vec::new();
    let header = read(&fixture.cluster, segment_name(), &mut back).expect("read");
    assert!(back == raw());
    assert_eq!((header.facts.restore_points.count, header.facts.restore_points.first.len()), (900, 0));
    let bytes = std::fs::read(fixture.file(&key(&fixture))).expect("read");
    assert!(zstd::decode_all(&bytes[..]).expect("zstd skips what it does not know") == raw());
    assert_eq!(read_header(&fixture.cluster, segment_name()).map(|header| header.facts), Ok(facts));

    fixture.damage(&key(&fixture), |bytes| *bytes.last_mut().expect("a byte") ^= 1);
    let error = read_header(&fixture.cluster, segment_name()).expect_err("damaged");
    assert!(error.message().contains("the facts behind the data"), "{error}");
    assert!(read(&fixture.cluster, segment_name(), &mut std::io::sink()).is_ok(), "the segment is whole");
    fixture.damage(&key(&fixture), |bytes| bytes.truncate(bytes.len() - 10));
    let error = read_header(&fixture.cluster, segment_name()).expect_err("cut off");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn the_same_again_is_success_and_anything_else_a_conflict() {
    let fixture = Fixture::create();
    assert_eq!(put_segment(&fixture, restore_points(1)), Ok(Stored::New));
    let before = std::fs::read(fixture.file(&key(&fixture))).expect("read");
    // Compressed differently, on another host: the raw bytes decide.
    let again = compress(
        &mut &raw()[..],
        "x",
        &Options { level: 3, workers: 1, spool: std::env::temp_dir() },
        &mut |_| (),
    );
    let again = again.expect("compressed");
    assert_eq!(put(&fixture.cluster, description(restore_points(2)), again), Ok(Stored::Same));
    let mut other = raw();
    other[77] ^= 1;
    let error =
        put(&fixture.cluster, description(restore_points(1)), compressed(&other)).expect_err("conflict");
    assert_eq!(error.kind(), Kind::Conflict);
    for raw in [raw(), other] {
        assert!(error.message().contains(&RawDigest::of(&raw).to_string()), "{error}");
    }
    assert!(std::fs::read(fixture.file(&key(&fixture))).expect("read") == before);
}

/// Facts with as much in every list as can be.
fn crowded(text: &str, number: u64) -> SegmentFacts {
    let mut facts = restore_points(1000);
    facts.damage = Listed {
        count: u64::MAX,
        first: (0..16).map(|_| Damage { lsn: Lsn(u64::MAX), what: text.repeat(20) }).collect(),
    };
    facts.first_lsn = Some(Lsn(number));
    facts.end_lsn = Some(Lsn(u64::MAX));
    facts.records = u64::MAX;
    facts.xids = Some(XidRange { lowest: u32::MAX, highest: u32::MAX });
    facts.earliest_time = Some(time());
    facts.latest_time = Some(time());
    facts.earliest_prepare = Some(time());
    facts.latest_prepare = Some(time());
    facts.restore_points.count = u64::MAX;
    facts
}

proptest! {
    #[test]
    fn unsealing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
        prop_assert!(unseal(&bytes, "x").is_err());
        let mut padded = seal_text("{}");
        padded.splice(..bytes.len(), bytes);
        prop_assert!(unseal(&padded, "x").is_err());
        prop_assert!(unseal(&seal_text(&text), "x").is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn whatever_the_facts_are_a_header_fits(text in "\\PC{0,60}", number: u64) {
        let fixture = Fixture::create();
        let described = Description { host: "h".repeat(64), ..description(crowded(&text, number)) };
        let body = Compressed {
            body: Body::Memory(vec![1; 10]),
            sha256: Sha256Digest::of(b"x"),
            raw: RawDigest::of(b"x"),
            raw_size: 1 << 30,
        };
        let (header, more) = StoredSegment::of(&fixture.cluster, described, &body).fit()?;
        let sealed = seal(&header)?;
        prop_assert_eq!(unseal(&sealed, "x"), Ok(header));
        prop_assert!((more.len() as u64) < MAX_MORE);
    }
}
