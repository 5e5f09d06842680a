//! The account of a small repository without a server.

use jiff::Timestamp;

use super::incarnation::look;
use super::summary::{Incarnation, What};
use crate::error::Kind;
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::SegmentName;
use crate::pipe::frame::Compressor;
use crate::repo::ClusterHeader;
use crate::repo::fixture::{Fixture, name};
use crate::repo::gap::{self, Gap};
use crate::repo::layout::Id;
use crate::repo::pack::{PackSummary, PackWriter};
use crate::repo::pin::{self, Pin};

const MIB: u64 = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::try_from(16 * MIB).expect("a size")
}

fn segment(number: u64) -> SegmentName {
    SegmentName::from_number(Timeline(1), number, size())
}

fn store(fixture: &Fixture, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let key = fixture.cluster.layout().segment(segment(number)).expect("key");
        fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
    }
}

fn incarnation(fixture: &Fixture) -> Incarnation {
    let header = ClusterHeader {
        version: 1,
        system_id: SystemId(7_650_000_000_000_000_001),
        postgres_major: 15,
        segment_size: size(),
        wal_block_size: 8192,
    };
    look(&fixture.cluster, &header, Timestamp::now()).expect("looked")
}

fn pack(fixture: &Fixture, run: Id) -> PackSummary {
    let mut writer = PackWriter::new(&fixture.cluster, run);
    let frame = Compressor::new(1).and_then(|mut compressor| compressor.compress(b"x", Vec::new()));
    writer.append(&frame.expect("frame")).expect("appended");
    writer.finish().expect("finished")[0]
}

#[test]
fn a_pack_counts_for_the_backup_that_has_it_alone_and_for_nobody_when_no_backup_does() {
    let fixture = Fixture::create();
    let runs = [(); 3].map(|()| Id::random().expect("id"));
    let packs = runs.map(|run| pack(&fixture, run));
    fixture.backup("a", runs[0], &packs[..1]);
    fixture.backup("b", runs[1], &packs[..2]);
    let found = incarnation(&fixture);
    let [a, b] = found.backups.as_slice() else { panic!("{:?}", found.backups) };
    let map = a.alone_bytes;
    assert!(map > 0, "its map is its own");
    assert_eq!(b.alone_bytes, map + packs[1].size, "the first pack is shared");
    assert_eq!(found.stored.unreferenced_packs_bytes, Some(packs[2].size));
    assert_eq!((a.missing_packs, b.missing_packs), (0, 0));
    // The WAL that the fixture's header speaks of is not there.
    assert_eq!(a.missing_wal, Some(segment(2)));
    fixture
        .cluster
        .store()
        .delete(&fixture.cluster.layout().pack(packs[0].id).expect("key"))
        .expect("deleted");
    let found = incarnation(&fixture);
    assert_eq!(found.backups.iter().map(|backup| backup.missing_packs).collect::<Vec<_>>(), [1, 1]);
    let key = fixture.cluster.layout().backup_header(&name("a")).expect("key");
    fixture.damage(&key, |bytes| bytes.truncate(9));
    let found = incarnation(&fixture);
    assert_eq!(found.stored.unreferenced_packs_bytes, None, "nobody knows what backup a refers to");
    let [unreadable] = found.unreadable.as_slice() else { panic!("{:?}", found.unreadable) };
    let told = (unreadable.what, unreadable.name.as_deref(), unreadable.kind);
    assert_eq!(told, (What::Backup, Some("a"), Kind::Corrupt));
}

#[test]
fn a_window_that_ends_in_a_hole_says_at_which_segment_and_why() {
    let fixture = Fixture::create();
    fixture.backup("a", Id::random().expect("id"), &[]);
    store(&fixture, [2, 3, 6]);
    let mut dropped = Gap::of(segment(4), fixture.cluster.system_id(), size(), "db1".into()).expect("gap");
    assert!(dropped.extend(segment(5), fixture.cluster.system_id()).expect("extended"));
    gap::put(&fixture.cluster, &dropped).expect("recorded");
    let found = incarnation(&fixture);
    let [hole] = found.holes.as_slice() else { panic!("{:?}", found.holes) };
    assert_eq!((hole.first_segment, hole.last_segment, hole.segments), (segment(4), segment(5), 2));
    assert!(hole.stories[0].contains("were dropped by db1"), "{:?}", hole.stories);
    assert!(found.gaps[0].missing);
    let [window] = found.paths[0].windows.as_slice() else { panic!("{:?}", found.paths) };
    assert_eq!((window.missing, window.to_lsn), (Some(segment(4)), Lsn(4 * 16 * MIB)));
    assert_eq!(window.to_time, None, "those segments' headers tell nothing");
    assert_eq!(found.paths[0].newest_segment, Some(segment(6)));
    // What came from another server all the same is no hole.
    store(&fixture, [4, 5]);
    let found = incarnation(&fixture);
    assert_eq!((found.holes.len(), found.gaps[0].missing), (0, false));
    assert_eq!(found.paths[0].windows[0].missing, None);
}

#[test]
fn only_pins_that_hold_are_told() {
    let fixture = Fixture::create();
    fixture.backup("a", Id::random().expect("id"), &[]);
    let created = "2026-11-23T03:10:00Z".parse().expect("time");
    for (until, note) in [(Some(created), "has run out"), (None, "holds")] {
        let (label, note) = (name("a"), Some(note.to_string()));
        pin::put(&fixture.cluster, &Pin { label, until, note, created, host: "db1".into() }).expect("pinned");
    }
    let found = incarnation(&fixture);
    let notes: Vec<_> = found.backups[0].pins.iter().map(|pin| pin.note.as_deref()).collect();
    assert_eq!(notes, [Some("holds")]);
}

#[test]
fn what_was_streamed_behind_the_last_segment_is_told_and_prolongs_the_window() {
    let fixture = Fixture::create();
    fixture.backup("a", Id::random().expect("id"), &[]);
    store(&fixture, [2]);
    let stream = |number: u64| {
        let end = Lsn(number * 16 * MIB + 99);
        let key = fixture.cluster.layout().streamed(segment(number), end).expect("key");
        fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        end
    };
    let end = stream(3);
    let found = incarnation(&fixture);
    let streamed = found.timelines[0].streamed.clone().expect("streamed");
    assert_eq!((streamed.segment, streamed.end_lsn, streamed.refused), (segment(3), end, None));
    assert_eq!((found.paths[0].windows[0].to_lsn, found.paths[0].windows[0].missing), (end, None));
    store(&fixture, [3]);
    assert_eq!(incarnation(&fixture).timelines[0].streamed, None, "the whole segment has come");
}
