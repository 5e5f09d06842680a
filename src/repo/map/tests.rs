//! Maps written and read back, damaged, and forged.

use proptest::prelude::*;

use super::line::ChunkLine;
use super::*;
use crate::error::{Kind, Result};
use crate::pipe::digest::Sha256Digest;
use crate::pipe::frame::{Compressor, DEFAULT_LEVEL};
use crate::repo::fixture::{Fixture, name};
use crate::repo::layout::{Id, PackId};
use crate::repo::trailer::{self, Sealed};
use crate::store::Key;

pub(super) fn attributes(path: MapPath) -> Attributes {
    let mtime = "2026-11-23T03:10:00.25Z".parse().expect("time");
    Attributes { path, mode: FileMode::from_st_mode(0o100640), mtime }
}

fn at(path: &str) -> Attributes {
    attributes(MapPath::data(path).expect("path"))
}

/// The `n`th frame of a pack, of 4 MiB.
fn frame(n: u64) -> FrameLocation {
    let backup: Id = "00112233445566778899aabbccddeeff".parse().expect("id");
    FrameLocation {
        pack: PackId { backup, number: 0 },
        offset: n * 1000,
        stored: 1000,
        raw: 4 << 20,
        sha256: Sha256Digest::of(&n.to_le_bytes()),
    }
}

fn slice(n: u64, offset: u32, length: u32) -> PlacedSlice {
    PlacedSlice::Data { frame: frame(n), offset, length, digest: SliceDigest::of(&offset.to_le_bytes()) }
}

/// A file as it goes in and comes out: one part, with its slices' frames.
type Whole = (Attributes, Option<Vec<PlacedSlice>>);

fn write(fixture: &Fixture, entries: &[Whole], last: &[Whole]) -> Result<MapSummary> {
    let mut map = MapWriter::start(&fixture.cluster)?;
    let add = |map: &mut MapWriter, (attributes, slices): &Whole| match slices {
        None => map.directory(attributes.clone()),
        Some(slices) => map.file(attributes.clone(), slices.iter().copied()),
    };
    entries.iter().try_for_each(|entry| add(&mut map, entry))?;
    map.begin_final()?;
    last.iter().try_for_each(|entry| add(&mut map, entry))?;
    map.finish(&name("one"))
}

fn read(fixture: &Fixture, summary: &MapSummary) -> Result<Vec<Chunk>> {
    MapReader::open(&fixture.cluster, &name("one"), summary)?.iter().collect()
}

/// Puts parts together again, and gives slices their frames back.
fn whole(chunks: &[Chunk]) -> Vec<Whole> {
    let mut entries: Vec<Whole> = Vec::new();
    for chunk in chunks {
        for entry in &chunk.entries {
            let Entry::File(part) = entry else {
                entries.push((entry.attributes().clone(), None));
                continue;
            };
            let placed = part.slices.iter().map(|slice| match *slice {
                Slice::Zeros { length } => PlacedSlice::Zeros { length },
                Slice::Data { length, frame, offset, digest } => {
                    PlacedSlice::Data { frame: chunk.frames[frame as usize], offset, length, digest }
                }
            });
            match entries.last_mut() {
                Some((_, Some(slices))) if part.at > 0 => slices.extend(placed),
                _ => entries.push((part.attributes.clone(), Some(placed.collect()))),
            }
        }
    }
    entries
}

fn map_key(fixture: &Fixture) -> Key {
    fixture.cluster.layout().backup_map(&name("one")).expect("key")
}

/// Entries that need several chunks: 3000 files, and one of 3 GiB in 8 KiB slices of many frames.
fn many() -> Vec<Whole> {
    let mut entries = vec![(at("."), None), (at("base"), None)];
    entries.extend((0..3000).map(|n| (at(&format!("base/{n:05}")), Some(vec![slice(n, 8192, 8192)]))));
    let pages = (0..30_000).map(|n| slice(n / 3, (n % 500) as u32 * 8192, 8192));
    entries.push((at("base/large"), Some(pages.collect())));
    entries.push((at("base/small"), Some(Vec::new())));
    entries
}

#[test]
fn a_map_of_several_chunks_comes_back_whole() {
    let fixture = Fixture::create();
    let last = vec![(at("global/pg_control"), Some(vec![slice(7, 0, 8192)]))];
    let summary = write(&fixture, &many(), &last).expect("written");
    assert_eq!((summary.files, summary.directories), (3003, 2));
    assert_eq!(summary.raw_bytes, 3000 * 8192 + 30_000 * 8192 + 8192);
    let chunks = read(&fixture, &summary).expect("read");
    assert_eq!(chunks.len() as u32, summary.chunks);
    assert!(chunks.len() > 3, "{}", chunks.len());
    let (last_chunk, others) = chunks.split_last().expect("chunks");
    assert!(last_chunk.is_final && others.iter().all(|chunk| !chunk.is_final));
    assert_eq!(whole(others), many());
    assert_eq!(whole(std::slice::from_ref(last_chunk)), last);
}

#[test]
fn a_chunk_can_be_read_alone_and_is_bounded() {
    let fixture = Fixture::create();
    let summary = write(&fixture, &many(), &[]).expect("written");
    let reader = MapReader::open(&fixture.cluster, &name("one"), &summary).expect("opened");
    let backwards: Vec<Chunk> =
        (0..reader.chunks()).rev().map(|index| reader.read_chunk(index).expect("chunk")).collect();
    let forwards = read(&fixture, &summary).expect("read");
    assert!(backwards.iter().rev().eq(&forwards));
    for chunk in &forwards {
        let slices = |entry: &Entry| if let Entry::File(part) = entry { part.slices.len() } else { 0 };
        assert!(chunk.entries.iter().all(|entry| slices(entry) <= SLICES_IN_LINE));
        let json = serde_json::to_vec(&chunk.frames).expect("json").len();
        assert!(json < 2 << 20, "{json}");
    }
    assert!(reader.read_chunk(reader.chunks()).is_err());
}

#[test]
fn ordinary_tools_read_a_map_as_json_lines() {
    let fixture = Fixture::create();
    let summary = write(&fixture, &many(), &[]).expect("written");
    let file = std::fs::read(fixture.file(&map_key(&fixture))).expect("read");
    assert_eq!((file.len() as u64, Sha256Digest::of(&file)), (summary.size, summary.sha256));
    let lines = zstd::decode_all(file.as_slice()).expect("zstd");
    let mut sizes = 0;
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).expect("json");
        sizes += line["size"].as_u64().unwrap_or(0);
    }
    assert_eq!(sizes, summary.raw_bytes);
}

#[test]
fn zeros_are_joined_and_take_no_room() {
    let fixture = Fixture::create();
    let zeros = |length| PlacedSlice::Zeros { length };
    let given = vec![zeros(0), zeros(8192), zeros(1 << 40), slice(1, 0, 100), zeros(5), zeros(0)];
    let summary = write(&fixture, &[(at("a"), Some(given))], &[]).expect("written");
    assert_eq!(summary.raw_bytes, 8192 + (1 << 40) + 105);
    let kept = vec![zeros(8192 + (1 << 40)), slice(1, 0, 100), zeros(5)];
    assert_eq!(whole(&read(&fixture, &summary).expect("read")), [(at("a"), Some(kept))]);
}

#[test]
fn a_writer_refuses_disorder_and_slices_that_can_not_be() {
    let fixture = Fixture::create();
    let refused = |entries: &[Whole]| write(&fixture, entries, &[]).expect_err("refused").kind() == Kind::Bug;
    assert!(refused(&[(at("b"), None), (at("a"), None)]));
    assert!(refused(&[(at("a"), None), (at("a"), Some(Vec::new()))]));
    assert!(
        refused(&[(at("a.b"), None), (at("a/b"), None)]),
        "a directory's content comes before its neighbours"
    );
    assert!(refused(&[(at("a"), Some(vec![slice(1, (4 << 20) - 1, 2)]))]));
    assert!(refused(&[(at("a"), Some(vec![slice(1, u32::MAX, 2)]))]));
    assert!(refused(&[(at("a"), Some(vec![slice(1, 0, SLICE_SIZE + 1)]))]));
    assert!(refused(&[(at("a"), Some(vec![slice(1, 0, 0)]))]));
    assert_eq!(fixture.objects(), Vec::<String>::new(), "what was begun is gone");
}

#[test]
fn a_label_has_one_map() {
    let fixture = Fixture::create();
    let first = write(&fixture, &[(at("a"), None)], &[]).expect("written");
    let second = write(&fixture, &[(at("b"), None)], &[]);
    assert!(second.is_err_and(|error| error.kind() == Kind::Conflict && error.hint().is_some()));
    assert_eq!(whole(&read(&fixture, &first).expect("read")), [(at("a"), None)]);
    assert_eq!(fixture.objects(), ["backup/one/files.jsonl.zst"]);
}

#[test]
fn every_byte_of_a_map_counts() {
    let fixture = Fixture::create();
    let entries = [(at("a"), Some(vec![slice(1, 0, 8192)])), (at("b"), None)];
    let summary = write(&fixture, &entries, &[(at("a"), Some(Vec::new()))]).expect("written");
    let key = map_key(&fixture);
    for byte in 0..summary.size as usize {
        fixture.damage(&key, |bytes| bytes[byte] ^= 1 << (byte % 8));
        let error = read(&fixture, &summary).expect_err("damaged");
        assert_eq!(error.kind(), Kind::Corrupt, "byte {byte}: {error}");
        assert!(error.message().contains(&fixture.cluster.store().name(&key)), "{error}");
        fixture.damage(&key, |bytes| bytes[byte] ^= 1 << (byte % 8));
    }
    fixture.damage(&key, |bytes| bytes.truncate(bytes.len() - 1));
    assert!(read(&fixture, &summary).is_err_and(|error| error.message().contains("expected")));
}

#[test]
fn the_map_of_another_backup_is_refused() {
    let fixture = Fixture::create();
    let ours = write(&fixture, &[(at("a"), None)], &[]).expect("written");
    let other = Fixture::create();
    write(&other, &[(at("b"), None)], &[]).expect("written");
    std::fs::copy(other.file(&map_key(&other)), fixture.file(&map_key(&fixture))).expect("copied");
    assert!(read(&fixture, &ours).is_err_and(|error| error.kind() == Kind::Corrupt));
}

/// A map with these lines in its chunks, sealed as if a writer had written them. Each chunk has the path with
/// which it begins, and the offset in that file.
fn forge(fixture: &Fixture, chunks: &[(&str, u64, &str)]) -> MapSummary {
    let mut compressor = Compressor::new(DEFAULT_LEVEL).expect("zstd");
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (path, at, lines) in chunks {
        let frame = compressor.compress(lines.as_bytes(), Vec::new()).expect("compressed");
        list.push(ChunkLine {
            offset: file.len() as u64,
            stored: frame.stored.len() as u32,
            raw: frame.raw_size,
            sha256: frame.sha256,
            root: Root::Data,
            path: path.to_string(),
            at: *at,
            is_final: false,
        });
        file.extend_from_slice(&frame.stored);
    }
    let list = compressor.compress(&trailer::lines(&list).expect("lines"), Vec::new()).expect("compressed");
    file.extend(trailer::seal(Sealed::Map, &list, file.len() as u64).expect("sealed"));
    let key = map_key(fixture);
    fixture.cluster.store().delete(&key).expect("deleted");
    fixture.cluster.store().create(&key, file.clone()).expect("created");
    MapSummary {
        size: file.len() as u64,
        sha256: Sha256Digest::of(&file),
        list_sha256: list.sha256,
        chunks: chunks.len() as u32,
        files: 0,
        directories: 0,
        raw_bytes: 0,
    }
}

const FRAMES: &str = concat!(
    r#"{"frames":[{"pack":"00112233445566778899aabbccddeeff-00000000","offset":0,"stored":9,"raw":4096,"sha256":""#,
    r#"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]}"#,
    "\n"
);

/// A line of a file.
fn line(path: &str, rest: &str) -> String {
    format!(
        r#"{{"kind":"file","path":"{path}","mode":"0600","mtime":"2026-11-23T03:10:00Z",{rest}}}{}"#,
        "\n"
    )
}

const DIGEST: &str = r#""00000000000000000000000000000000""#;

#[test]
fn what_a_forged_map_may_say_is_limited_to_what_makes_sense() {
    let fixture = Fixture::create();
    let good = line("a", &format!(r#""size":4104,"slices":[[8],[4096,0,0,{DIGEST}]]"#));
    let summary = forge(&fixture, &[("a", 0, &format!("{FRAMES}{good}"))]);
    assert_eq!(read(&fixture, &summary).expect("sense").len(), 1);
    let empty = r#""size":0,"slices":[]"#;
    let many = "[1],".repeat(SLICES_IN_LINE);
    let cases = [
        ("no such frame", line("a", &format!(r#""size":1,"slices":[[1,1,0,{DIGEST}]]"#))),
        ("beyond its frame", line("a", &format!(r#""size":2,"slices":[[2,0,4095,{DIGEST}]]"#))),
        ("overflowing its frame", line("a", &format!(r#""size":2,"slices":[[2,0,4294967295,{DIGEST}]]"#))),
        ("no bytes", line("a", &format!(r#""size":0,"slices":[[0,0,0,{DIGEST}]]"#))),
        ("no zeros", line("a", r#""size":0,"slices":[[0]]"#)),
        ("without a digest", line("a", r#""size":1,"slices":[[1,0,0]]"#)),
        ("with too much", line("a", &format!(r#""size":1,"slices":[[1,0,0,{DIGEST},1]]"#))),
        ("too many slices", line("a", &format!(r#""size":1025,"slices":[{many}[1]]"#))),
        ("another size", line("a", r#""size":2,"slices":[[1]]"#)),
        ("too large", line("a", r#""size":1,"slices":[[18446744073709551615],[2]]"#)),
        ("no size", line("a", r#""slices":[[1]]"#)),
        ("size and more", line("a", r#""size":1,"more":true,"slices":[[1]]"#)),
        ("more of nothing", line("a", r#""more":true,"slices":[]"#)),
        ("never continued", line("a", r#""more":true,"slices":[[1]]"#)),
        (
            "continued as another",
            line("a", r#""more":true,"slices":[[1]]"#) + &line("b", r#""at":1,"size":1,"slices":[]"#),
        ),
        (
            "continued elsewhere",
            line("a", r#""more":true,"slices":[[1]]"#) + &line("a", r#""at":2,"size":2,"slices":[]"#),
        ),
        ("begins late", line("a", empty) + &line("b", r#""at":1,"size":1,"slices":[]"#)),
        ("twice", line("a", empty) + &line("a", empty)),
        ("out of order", line("a", empty) + &line("B", empty)),
        ("frames behind entries", line("a", empty) + FRAMES),
        ("another beginning", line("b", empty)),
        ("no entry", String::new()),
        ("no JSON", "a\n".to_string()),
        ("no kind", "{\"path\":\"a\",\"mode\":\"0600\",\"mtime\":\"2026-11-23T03:10:00Z\"}\n".to_string()),
        ("unknown kind", line("a", empty).replace("file", "socket")),
        ("no mode", line("a", empty).replace("0600", "600")),
        ("no time", line("a", empty).replace("2026", "x")),
        ("no file name", line("a", empty) + &line("b/../c", empty)),
        ("absolute", line("a", empty) + &line("/etc/passwd", empty)),
    ];
    for (name, lines) in &cases {
        let summary = forge(&fixture, &[("a", 0, &format!("{FRAMES}{lines}"))]);
        let outcome = read(&fixture, &summary);
        assert!(outcome.as_ref().is_err_and(|error| error.kind() == Kind::Corrupt), "{name}: {outcome:?}");
    }
}

#[test]
fn chunks_must_follow_each_other() {
    let fixture = Fixture::create();
    let empty = r#""size":0,"slices":[]"#;
    let (a, b) = (line("a", empty), line("b", empty));
    let begun = line("a", r#""more":true,"slices":[[1]]"#);
    let rest = line("a", r#""at":1,"size":2,"slices":[[1]]"#);
    let good: [&[(&str, u64, &str)]; 3] = [
        &[("a", 0, &a), ("b", 0, &b)],
        &[("a", 0, &begun), ("a", 1, &rest)],
        &[("a", 0, &begun), ("a", 1, &(rest.clone() + &b))],
    ];
    for chunks in good {
        assert!(read(&fixture, &forge(&fixture, chunks)).is_ok(), "{chunks:?}");
    }
    let bad: [&[(&str, u64, &str)]; 6] = [
        &[("b", 0, &b), ("a", 0, &a)],
        &[("a", 0, &a), ("a", 0, &a)],
        &[("a", 0, &(a.clone() + &b)), ("b", 0, &b)],
        &[("a", 0, &begun), ("b", 0, &b)],
        &[("a", 1, &rest)],
        &[("a", 0, &a), ("a", 1, &rest)],
    ];
    for chunks in bad {
        let outcome = read(&fixture, &forge(&fixture, chunks));
        assert!(outcome.is_err_and(|error| error.kind() == Kind::Corrupt), "{chunks:?}");
    }
}

/// Files with any names and any slices, sorted as a map wants them.
fn trees() -> impl Strategy<Value = Vec<Whole>> {
    let slices = prop_oneof![
        (0u64..9, 0u32..1 << 20, 1u32..=SLICE_SIZE).prop_map(|(n, offset, length)| slice(n, offset, length)),
        (1u64..1 << 40).prop_map(|length| PlacedSlice::Zeros { length }),
    ];
    let content = prop::option::of(prop::collection::vec(slices, 0..6));
    let entries = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), content, 0..40);
    (entries, any::<bool>()).prop_map(|(entries, config)| {
        let root =
            |path: &[u8]| if config && path.len().is_multiple_of(2) { Root::Config } else { Root::Data };
        let named = entries.into_iter().filter_map(|(path, content)| {
            Some((attributes(MapPath::new(root(&path), &path).ok()?), content))
        });
        let mut entries: Vec<Whole> = named.collect();
        entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        entries.dedup_by(|a, b| a.0.path == b.0.path);
        entries
    })
}

/// As the writer keeps them: neighbouring zeros are one slice.
fn joined(mut entries: Vec<Whole>) -> Vec<Whole> {
    for slices in entries.iter_mut().filter_map(|(_, slices)| slices.as_mut()) {
        let mut kept: Vec<PlacedSlice> = Vec::new();
        for slice in slices.drain(..) {
            match (kept.last_mut(), slice) {
                (Some(PlacedSlice::Zeros { length }), PlacedSlice::Zeros { length: more }) => *length += more,
                _ => kept.push(slice),
            }
        }
        *slices = kept;
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_survives_its_map(entries in trees()) {
        let fixture = Fixture::create();
        let summary = write(&fixture, &entries, &[])?;
        prop_assert_eq!(whole(&read(&fixture, &summary)?), joined(entries));
    }

    #[test]
    fn a_forged_map_never_panics(
        change in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let fixture = Fixture::create();
        let good = line("a", &format!(r#""size":4104,"slices":[[8],[4096,0,0,{DIGEST}]]"#));
        let mut lines = format!("{FRAMES}{good}").into_bytes();
        for (at, byte) in change {
            let at = at.index(lines.len());
            lines[at] = byte;
        }
        let lines = String::from_utf8_lossy(&lines).into_owned();
        match read(&fixture, &forge(&fixture, &[("a", 0, &lines)])) {
            Ok(chunks) => prop_assert_eq!(chunks.len(), 1),
            Err(error) => prop_assert_eq!(error.kind(), Kind::Corrupt),
        }
    }
}
