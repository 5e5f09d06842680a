//! Today's reader reads the WAL that format version 1 stored: `wal/` in `tests/format/v1`, written by
//! PostgreSQL 15 with segments of 1 MiB. Its files are never edited once released.

mod golden;

use std::fs;

use pgark::pg::lsn::Timeline;
use pgark::pg::names::{SegmentName, WalFile};
use pgark::pipe::digest::Sha256Digest;
use pgark::repo::segment::{self, StoredSegment};
use pgark::repo::streamed::{self, StreamedPart};

use golden::{cluster, golden};

/// The segments, and the SHA-256 of what PostgreSQL had written.
const SEGMENTS: [(&str, &str); 6] = [
    ("000000010000000000000009", "ccc5d064cc050867122118bff05ca96b237f9c5b9b12bf90d489ef91228af185"),
    ("00000001000000000000000A", "876f0f3a94cd192b1950d67da5598ee6d663fdadfb3f8255fa00230dcc8ecc19"),
    ("00000001000000000000000B", "40426bcf375bd778645ac2c1b18ca94e30e93ffdb5c960191fbcc35635e117a8"),
    ("00000001000000000000000C", "140b79f013a25980869ef59bf9dfee56a66cbbfe4c4efc9f5edca075bc6e0bb4"),
    ("000000010000000000000010", "a379220dde15d8d0c979bf3b91832c3fee770ad07f1b010a674314232d707455"),
    ("000000020000000000000011", "9f1ca239113883cf11b609cd044847edeb7ad370d8a0df34924f3771ab82a5b5"),
];

fn name(text: &str) -> SegmentName {
    text.parse().expect("a segment's name")
}

fn header(text: &str) -> StoredSegment {
    segment::read_header(&cluster(), name(text)).expect("a header")
}

/// The JSON as it is stored: between the frame's head and its own checksum.
fn stored_json(text: &str) -> serde_json::Value {
    let key = cluster().layout().segment(name(text)).expect("key");
    let bytes = fs::read(golden().join(key.as_str())).expect("read");
    serde_json::from_slice(&bytes[8..4096 - 22]).expect("json")
}

#[test]
fn segments_of_version_1_come_back_as_postgresql_wrote_them() {
    for (text, sha256) in SEGMENTS {
        let mut raw = Vec::new();
        let header = segment::read(&cluster(), name(text), &mut raw).expect("readable");
        assert_eq!(Sha256Digest::of(&raw).to_string(), sha256, "{text}");
        assert_eq!(blake3::hash(&raw).to_string(), header.blake3.to_string(), "{text}");
        assert_eq!(raw.len() as u64, header.segment_size.bytes());
    }
}

#[test]
fn headers_of_version_1_say_the_same_as_when_they_were_written() {
    for (text, _) in SEGMENTS {
        let header = header(text);
        assert_eq!(header.name, text);
        if header.more.is_none() {
            let value = serde_json::to_value(&header).expect("json");
            assert_eq!(value, stored_json(text), "nothing is lost in reading");
        }
    }
    let facts = header("000000010000000000000009").facts;
    let point = &facts.restore_points.first[0];
    assert_eq!(
        (point.name.to_string().as_str(), point.end_lsn.to_string().as_str()),
        ("before the fall", "0/901598")
    );
    assert_eq!(facts.tablespaces.count, 2);
    assert!(facts.earliest_prepare.is_some() && facts.latest_time.is_some() && facts.switch);
    let settings = &header("00000001000000000000000A").facts.settings.first[0].settings;
    assert_eq!(settings.max_connections, 41);
    let unfinished = header("00000001000000000000000B").facts.unfinished.expect("a record that goes on");
    assert_eq!((unfinished.length, unfinished.next.to_string().as_str()), (1_400_060, "0/C00000"));
    assert_eq!(header("000000020000000000000011").facts.timelines.first[0].timeline, Timeline(2));
}

#[test]
fn facts_of_version_1_that_did_not_fit_are_found_behind_the_data() {
    let text = "000000010000000000000010";
    assert_eq!(stored_json(text)["facts"]["restore_points"]["first"].as_array().map(Vec::len), Some(0));
    let points = header(text).facts.restore_points;
    assert_eq!((points.count, points.first.len()), (60, 60));
    assert_eq!(points.first[59].name.to_string(), "restore point number 59 of very many");
}

#[test]
fn other_files_of_version_1_come_back_too() {
    let cluster = cluster();
    let mut raw = Vec::new();
    let partial =
        segment::read_partial(&cluster, name("000000010000000000000011"), &mut raw).expect("readable");
    assert_eq!(partial.name, "000000010000000000000011.partial");
    let sha256 = "ff11db9ea57cf99fb84690991f99c941d92058faf75ef620052f9275af447b14";
    assert_eq!(Sha256Digest::of(&raw).to_string(), sha256);
    let history = segment::read_plain(&cluster, WalFile::History(Timeline(2))).expect("readable");
    assert_eq!(&history[..], b"1\t0/1100090\tno recovery target specified\n");
    let backup = WalFile::BackupHistory(name("00000001000000000000000E"), 0x28);
    let backup = segment::read_plain(&cluster, backup).expect("readable");
    assert!(backup.starts_with(b"START WAL LOCATION: 0/E00028 "));
    let known = cluster.header().expect("cluster.json");
    assert_eq!((known.postgres_major, known.segment_size.bytes()), (15, 1 << 20));
}

#[test]
fn a_streamed_part_of_version_1_is_the_beginning_of_its_segment() {
    let cluster = cluster();
    let segment = name("000000020000000000000011");
    let part = streamed::longest(&cluster, segment).expect("listed").expect("a part");
    assert_eq!(part, StreamedPart { segment, end: "0/11001B0".parse().expect("an LSN") });
    let (mut raw, mut whole) = (Vec::new(), Vec::new());
    let header = streamed::read(&cluster, part, &mut raw).expect("readable");
    segment::read(&cluster, segment, &mut whole).expect("readable");
    assert_eq!((raw.len(), &raw[..0x1B0]), (1 << 20, &whole[..0x1B0]));
    assert!(raw[0x1B0..].iter().all(|byte| *byte == 0));
    assert_eq!(header.name, "000000020000000000000011.streamed");
    assert_eq!(header.facts.end_lsn, Some(part.end), "it ends with a whole record");
    assert!(header.facts.xids.is_some() && !header.facts.switch);
    let key = cluster.layout().streamed(segment, part.end).expect("key");
    let stored = fs::read(golden().join(key.as_str())).expect("read");
    let json: serde_json::Value = serde_json::from_slice(&stored[8..4096 - 22]).expect("json");
    assert_eq!(serde_json::to_value(&header).expect("json"), json, "nothing is lost in reading");
}
