//! The walk over synthetic WAL: what it finds, what it calls damage, what it does not.

use proptest::prelude::*;

use super::*;
use crate::pg::time::Timestamp;
use crate::pg::wal::decode::Fact;
use crate::pg::wal::synthetic::*;
use crate::pg::wal::{
    Landmark, RestorePoint, Search, Sought, TablespaceAction, WalLevel, XidRange, join_unfinished,
};

fn walk_in_chunks(segment: &[u8], name: SegmentName, extent: Extent, chunk: usize) -> SegmentFacts {
    let mut walk = Walk::new(&header_of(segment), name, extent);
    segment.chunks(chunk).for_each(|bytes| walk.feed(bytes));
    walk.finish()
}

fn walk(segment: &[u8], name: SegmentName, extent: Extent) -> SegmentFacts {
    walk_in_chunks(segment, name, extent, segment.len())
}

/// Walks all segments; none may be damaged.
fn walk_clean(wal: &Synthetic) -> Vec<SegmentFacts> {
    let segments = wal.segments();
    let facts: Vec<SegmentFacts> =
        segments.iter().enumerate().map(|(n, bytes)| walk(bytes, wal.name(n), Extent::Whole)).collect();
    facts.iter().for_each(|facts| assert!(facts.damage.is_empty(), "{:?}", facts.damage));
    facts
}

fn at(microseconds: i64) -> Timestamp {
    Timestamp::from_postgres(microseconds).expect("in range")
}

/// All that `damage` says.
fn words(facts: &SegmentFacts) -> String {
    facts.damage.first.iter().map(|damage| damage.to_string() + "\n").collect()
}

#[test]
fn transactions_restore_points_settings_and_tablespaces_are_found() {
    let mut wal = Synthetic::v15();
    let first = wal.filler(10);
    wal.insert(XACT, 0x00, 100, &50_i64.to_le_bytes());
    wal.insert(XACT, 0x20, 90, &20_i64.to_le_bytes());
    wal.insert(XACT, 0x80, 95, &End::at(30).main_data(12));
    let prepared = End { twophase_xid: Some(80), subxacts: 3, ..End::at(60) };
    wal.insert(XACT, 0xB0, 0, &prepared.main_data(12));
    let aborted = End { twophase_xid: Some(120), relations: 1, ..End::at(40) };
    wal.insert(XACT, 0xC0, 0, &aborted.main_data(12));
    let mut prepare = vec![0; 16];
    prepare.extend(99_i64.to_le_bytes());
    prepare.extend([0; 40]);
    wal.insert(XACT, 0x10, 130, &prepare);
    wal.insert(XACT, 0x50, 1000, &[0; 12]);
    let mut point = 70_i64.to_le_bytes().to_vec();
    point.extend(b"before the move\0");
    point.resize(72, 0);
    let point = wal.insert(XLOG, 0x70, 0, &point);
    let mut settings: Vec<u8> = [100_i32, 8, 10, 2, 64, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    settings.extend([0, 1, 0, 0]);
    let settings = wal.insert(XLOG, 0x60, 0, &settings);
    wal.insert(TBLSPC, 0x00, 0, b"\x01\x40\0\0/srv/fast\0");
    wal.insert(TBLSPC, 0x10, 0, b"\x01\x40\0\0");
    let mut end_of_recovery = vec![0; 8];
    end_of_recovery.extend([5, 0, 0, 0, 4, 0, 0, 0]);
    wal.insert(XLOG, 0x90, 0, &end_of_recovery);
    let mut checkpoint = vec![0; 8];
    checkpoint.extend([5, 0, 0, 0, 5, 0, 0, 0]);
    checkpoint.extend([0; 64]);
    wal.insert(XLOG, 0x00, 0, &checkpoint);
    let switch = wal.switch();

    let facts = walk_clean(&wal).remove(0);
    assert_eq!(facts.first_lsn, Some(first.lsn));
    assert_eq!(facts.end_lsn, Some(Lsn(4 * SEGMENT)));
    assert_eq!(facts.records, 15);
    assert_eq!((facts.earliest_time, facts.latest_time), (Some(at(20)), Some(at(60))));
    assert_eq!((facts.earliest_prepare, facts.latest_prepare), (Some(at(99)), Some(at(99))));
    assert_eq!(facts.xids, Some(XidRange { lowest: 80, highest: 120 }));
    let expected =
        RestorePoint { name: "before the move".into(), lsn: point.lsn, end_lsn: point.end, time: at(70) };
    assert_eq!(facts.restore_points.first, [expected]);
    let [change] = facts.settings.first.as_slice() else { panic!("{:?}", facts.settings) };
    assert_eq!(change.lsn, settings.lsn);
    assert_eq!(change.settings.max_connections, 100);
    assert_eq!(change.settings.max_locks_per_transaction, 64);
    assert_eq!(change.settings.wal_level, WalLevel::Replica);
    assert!(change.settings.track_commit_timestamp && !change.settings.wal_log_hints);
    let actions: Vec<_> = facts.tablespaces.first.iter().map(|it| (it.oid, it.change.clone())).collect();
    let created = TablespaceAction::Created("/srv/fast".into());
    assert_eq!(actions, [(0x4001, created), (0x4001, TablespaceAction::Dropped)]);
    assert_eq!(facts.timelines.count, 1);
    assert_eq!(facts.timelines.first[0].parent, Timeline(4));
    assert!(facts.switch && switch.end < Lsn(4 * SEGMENT));
    assert_eq!(facts.unfinished, None);
}

#[test]
fn the_xid_of_a_prepared_transaction_is_found_behind_lists_of_any_length_in_every_version() {
    for format in [WalFormat::V14, WalFormat::V15, WalFormat::V17, WalFormat::V18] {
        let stats_item = if format == WalFormat::V18 { 16 } else { 12 };
        let stats = if format == WalFormat::V14 { 0 } else { 3000 };
        let mut wal = Synthetic::new(format, 8192);
        let end = End {
            subxacts: 5000,
            relations: 700,
            stats,
            invals: 9000,
            twophase_xid: Some(4242),
            ..End::at(5)
        };
        let place = wal.insert(XACT, 0xB0, 0, &end.main_data(stats_item));
        assert!(place.end.0 - place.lsn.0 > 170_000);
        wal.filler(8);
        wal.switch();
        let facts = walk_clean(&wal).remove(0);
        assert_eq!(facts.xids, Some(XidRange { lowest: 4242, highest: 4242 }), "{format:?}");
    }
}

#[test]
fn a_record_is_joined_wherever_the_segment_boundary_cuts_it() {
    let end = End { subxacts: 40, relations: 5, invals: 60, twophase_xid: Some(77), ..End::at(123) };
    let length = 24 + 5 + end.main_data(12).len();
    for left in (8..length).step_by(8) {
        let mut wal = Synthetic::v15();
        wal.fill_until(left);
        let place = wal.insert(XACT, 0xB0, 0, &end.main_data(12));
        wal.filler(8);
        wal.switch();
        let facts = walk_clean(&wal);
        assert_eq!(facts[0].latest_time, None, "the record ends in the next segment");
        let unfinished = facts[0].unfinished.as_ref().expect("unfinished");
        assert_eq!((unfinished.lsn, unfinished.here), (place.lsn, left as u32));
        assert!(unfinished.may_matter());
        let kept: usize = unfinished.pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert!(kept <= 600, "{kept} bytes are kept");
        let json = serde_json::to_string(unfinished).expect("JSON");
        let unfinished = serde_json::from_str(&json).expect("read again");

        let segments = wal.segments();
        let joined =
            join_unfinished(&unfinished, &header_of(&segments[1]), wal.name(1), &segments[1][..8192])
                .expect("joined");
        assert!(joined.damage.is_empty(), "{left}: {:?}", joined.damage);
        assert_eq!((joined.records, joined.latest_time), (1, Some(at(123))), "{left}");
        assert_eq!(joined.xids, Some(XidRange { lowest: 77, highest: 77 }));
        assert_eq!((joined.first_lsn, joined.end_lsn), (Some(place.lsn), Some(place.end)));
    }
}

#[test]
fn a_damaged_rest_shows_when_the_record_is_joined() {
    let mut wal = Synthetic::v15();
    wal.fill_until(64);
    let place = wal.insert(XACT, 0x00, 9, &End::at(5).main_data(12).repeat(9));
    wal.switch();
    let unfinished = walk_clean(&wal)[0].unfinished.clone().expect("unfinished");
    let segments = wal.segments();
    let mut next = segments[1].clone();
    next[50] ^= 1;
    let joined = join_unfinished(&unfinished, &header_of(&next), wal.name(1), &next).expect("joined");
    assert_eq!((joined.records, joined.latest_time), (0, None));
    assert_eq!(words(&joined), format!("at {}: the record's checksum is wrong\n", place.lsn));

    let other = join_unfinished(&unfinished, &header_of(&segments[0]), wal.name(0), &segments[0]);
    assert!(other.is_err_and(|error| error.message().contains("it goes on at 0/400000")));
    let short = join_unfinished(&unfinished, &header_of(&segments[1]), wal.name(1), &segments[1][..8191]);
    assert!(short.is_err_and(|error| error.message().contains("8191 bytes of segment")));
}

#[test]
fn a_record_longer_than_two_segments_is_joined_step_by_step() {
    let mut wal = Synthetic::v15();
    wal.fill_until(4096);
    let end = End { invals: 150_000, twophase_xid: Some(31), ..End::at(8) };
    let place = wal.insert(XACT, 0xB0, 0, &end.main_data(12));
    wal.switch();
    let (facts, segments) = (walk_clean(&wal), wal.segments());
    assert_eq!(facts.len(), 4);
    assert_eq!((facts[1].first_lsn, facts[1].end_lsn, facts[1].records), (None, None, 0));
    let mut unfinished = facts[0].unfinished.clone().expect("unfinished");
    assert!(facts[1..].iter().all(|facts| facts.unfinished.is_none()));
    for n in 1..=2 {
        let header = header_of(&segments[n]);
        assert_eq!(unfinished.needed_of_next(&header), if n < 3 { SEGMENT } else { 1 << 19 });
        let joined = join_unfinished(&unfinished, &header, wal.name(n), &segments[n]).expect("joined");
        assert_eq!((joined.records, &joined.damage.first[..]), (0, &[][..]));
        unfinished = joined.unfinished.expect("still unfinished");
    }
    let header = header_of(&segments[3]);
    let needed = unfinished.needed_of_next(&header) as usize;
    let joined = join_unfinished(&unfinished, &header, wal.name(3), &segments[3][..needed]).expect("joined");
    assert_eq!(joined.xids.map(|xids| xids.lowest), Some(31));
    assert_eq!((joined.first_lsn, joined.end_lsn), (Some(place.lsn), Some(place.end)));
}

#[test]
fn a_record_of_no_interest_says_that_it_need_not_be_joined() {
    let mut wal = Synthetic::v15();
    wal.fill_until(4096);
    wal.filler(10_000);
    wal.switch();
    let unfinished = walk_clean(&wal)[0].unfinished.clone().expect("unfinished");
    assert!(!unfinished.may_matter());
}

#[test]
fn every_block_size_is_walked() {
    for block in (10..=16).map(|shift| 1 << shift) {
        let mut wal = Synthetic::new(WalFormat::V16, block);
        for n in 0..4000 {
            wal.filler(n % 700);
            wal.insert(XACT, 0, n as u32 + 3, &(n as i64).to_le_bytes());
        }
        wal.switch();
        let facts = walk_clean(&wal);
        assert_eq!(facts.first().and_then(|facts| facts.earliest_time), Some(at(0)), "{block}");
        assert_eq!(facts.last().and_then(|facts| facts.latest_time), Some(at(3999)), "{block}");
    }
}

#[test]
fn a_switch_whose_record_crosses_the_segments_end_leaves_the_next_one_empty() {
    for left in [8, 16, 24] {
        let mut wal = Synthetic::v15();
        wal.fill_until(left);
        wal.switch();
        let last = wal.insert(XACT, 0, 5, &9_i64.to_le_bytes());
        wal.switch();
        let facts = walk_clean(&wal);
        let spilt = left < 24;
        assert_eq!(facts.len(), if spilt { 3 } else { 2 });
        assert_eq!(facts[0].switch, !spilt);
        if spilt {
            assert!(facts[1].switch);
            assert_eq!((facts[1].first_lsn, facts[1].records), (None, 0));
            assert_eq!(facts[1].end_lsn, Some(Lsn(5 * SEGMENT)));
        }
        assert_eq!(facts.last().and_then(|facts| facts.first_lsn), Some(last.lsn));
    }
}

#[test]
fn a_partial_segment_ends_at_its_last_good_record_whatever_follows() {
    let mut wal = Synthetic::v15();
    (0..300).for_each(|n| {
        wal.filler(n);
    });
    let last = wal.insert(XACT, 0, 5, &9_i64.to_le_bytes());
    let used = wal.bytes.len();
    let mut old = Synthetic::new(WalFormat::V15, 8192);
    old.previous = 12;
    old.fill_until(8);
    let zeros = wal.segments().remove(0);
    let mut recycled = old.segments().remove(0);
    recycled[..used].copy_from_slice(&wal.bytes);
    let mut noise = zeros.clone();
    noise[used..].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n * 167 >> 3) as u8);
    for (what, segment) in [("zeros", zeros), ("recycled", recycled), ("noise", noise)] {
        let facts = walk(&segment, wal.name(0), Extent::Partial);
        assert!(facts.damage.is_empty(), "{what}: {:?}", facts.damage);
        assert_eq!((facts.records, facts.end_lsn), (301, Some(last.end)), "{what}");
        assert_eq!((facts.unfinished, facts.switch), (None, false), "{what}");
        let whole = walk(&segment, wal.name(0), Extent::Whole);
        assert!(whole.damage.count > 0, "{what} is damage in a whole segment");
    }
}

#[test]
fn a_record_that_a_crash_cut_off_is_not_damage_if_its_successor_says_so() {
    let mut wal = Synthetic::v15();
    wal.filler(100);
    let record = wal.record(HEAP, 0, 0, &with_data_header(&[1; 40_000]));
    let cut = wal.cut_off(&record, 3);
    wal.overwrite(cut.lsn);
    wal.insert(XACT, 0, 5, &9_i64.to_le_bytes());
    wal.switch();
    let facts = walk_clean(&wal).remove(0);
    assert_eq!((facts.records, facts.latest_time), (4, Some(at(9))));
}

#[test]
fn a_record_cut_off_at_the_segments_end_never_was() {
    let mut wal = Synthetic::v15();
    wal.fill_until(256);
    let record = wal.record(XACT, 0, 7, &with_data_header(&[1; 40_000]));
    let cut = wal.cut_off(&record, 1);
    wal.overwrite(cut.lsn);
    wal.switch();
    let facts = walk_clean(&wal);
    let unfinished = facts[0].unfinished.as_ref().expect("unfinished");
    let segments = wal.segments();
    let next = header_of(&segments[1]);
    let joined = join_unfinished(unfinished, &next, wal.name(1), &segments[1]).expect("joined");
    assert_eq!(joined, SegmentFacts::default());
    assert_eq!((facts[1].records, facts[1].first_lsn), (2, Some(Lsn(4 * SEGMENT + 40))));
}

#[test]
fn a_page_that_replaces_a_record_must_say_which() {
    let mut wal = Synthetic::v15();
    let record = wal.record(HEAP, 0, 0, &with_data_header(&[1; 40_000]));
    wal.cut_off(&record, 1);
    wal.next_flags = 8;
    wal.filler(40);
    wal.fill_until(8);
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    assert!(words(&facts).contains("its page replaces a record, but it does not say which"), "{facts:?}");

    let mut wal = Synthetic::v15();
    let record = wal.record(HEAP, 0, 0, &with_data_header(&[1; 40_000]));
    wal.cut_off(&record, 1);
    wal.overwrite(Lsn(12));
    wal.switch();
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    assert!(words(&facts).contains("it replaces the record at 0/C, but the one at 0/300028 was cut off"));
}

#[test]
fn the_first_segment_of_a_timeline_starts_with_pages_of_the_old_one() {
    let mut wal = Synthetic::v15();
    (0..100).for_each(|_| drop(wal.filler(400)));
    wal.timeline = 6;
    (0..100).for_each(|_| drop(wal.filler(400)));
    wal.switch();
    let facts = walk_clean(&wal).remove(0);
    assert_eq!(facts.records, 201);
    let name = SegmentName { timeline: Timeline(5), ..wal.name(0) };
    let facts = walk(&wal.segments()[0], name, Extent::Whole);
    assert!(words(&facts).contains("page timeline is 6, outside of 5 to 5"));
}

/// A segment full of small records with one commit near its end.
fn full_segment() -> (Synthetic, Place) {
    let mut wal = Synthetic::v15();
    while wal.left_in_segment() > 60_000 || wal.bytes.is_empty() {
        wal.filler(300);
    }
    let commit = wal.insert(XACT, 0, 5, &9_i64.to_le_bytes());
    wal.fill_until(0x6000);
    wal.switch();
    (wal, commit)
}

#[test]
fn damage_is_named_and_what_lies_behind_it_is_still_found() {
    const PAGE: usize = 10 * 8192;
    type Harm = fn(&mut Vec<u8>);
    let table: &[(&str, Harm, &str)] = &[
        ("magic", |s| s[PAGE] = 0, "at 0/314000: page magic is 0xD100 instead of 0xD110"),
        ("flags", |s| s[PAGE + 3] = 0x40, "at 0/314000: page flags 0x4000 are unknown"),
        ("timeline", |s| s[PAGE + 4] = 9, "at 0/314000: page timeline is 9, outside of 5 to 5"),
        ("older timeline", |s| s[PAGE + 4] = 4, "at 0/314000: page timeline is 4, outside of 5 to 5"),
        ("address", |s| s[PAGE + 8] = 0xFF, "at 0/314000: page address is 0/3140FF"),
        ("remaining", |s| s[PAGE + 16] ^= 4, "at 0/314000: the page continues a record with"),
        ("not continued", |s| s[PAGE + 2] = 0, "at 0/314000: the page continues a record with 0 bytes"),
        ("replaced", |s| s[PAGE + 2] |= 8, "at 0/314000: the page both continues and replaces a record"),
        ("long header", |s| s[PAGE + 2] |= 2, "at 0/314000: system identifier is"),
        ("a lost page", |s| s[PAGE..PAGE + 8192].fill(0), "at 0/314000: page magic is 0x0000"),
        ("a lost block", |s| s[PAGE + 4096..PAGE + 4608].fill(0), "the record's checksum is wrong"),
        (
            "cut short",
            |s| s.truncate(1_048_500),
            "at 0/3FFFB4: the file has 1048500 bytes instead of 1048576",
        ),
        ("too long", |s| s.push(0), "the file has 1048577 bytes instead of 1048576"),
    ];
    let (wal, _) = full_segment();
    let segment = wal.segments().remove(0);
    for (case, harm, expected) in table {
        let mut harmed = segment.clone();
        harm(&mut harmed);
        let facts = walk(&harmed, wal.name(0), Extent::Whole);
        assert!(words(&facts).contains(expected), "{case}: {}", words(&facts));
        assert!((1..=3).contains(&facts.damage.count), "{case}: {}", words(&facts));
        assert_eq!(facts.latest_time, Some(at(9)), "{case}: the commit behind it");
        assert!(facts.switch, "{case}: the switch behind it");
    }
}

#[test]
fn one_flipped_byte_of_a_record_is_one_damage() {
    let (wal, commit) = full_segment();
    let segment = wal.segments().remove(0);
    let good = walk(&segment, wal.name(0), Extent::Whole);
    let start = (commit.lsn.0 % SEGMENT) as usize;
    for offset in 0..34 {
        let mut harmed = segment.clone();
        harmed[start + offset] ^= 0x10;
        let facts = walk(&harmed, wal.name(0), Extent::Whole);
        if [18, 19].contains(&offset) {
            assert_eq!(facts.damage.count, 1, "padding is checksummed too");
        }
        assert_eq!(facts.damage.count, 1, "byte {offset}: {}", words(&facts));
        assert!(facts.records < good.records, "byte {offset}");
        assert_eq!(facts.latest_time, None, "byte {offset}: a damaged record says nothing");
        assert!(facts.switch, "byte {offset}: the walk went on");
    }
}

#[test]
fn a_good_record_out_of_its_chain_is_damage() {
    let mut wal = Synthetic::v15();
    wal.filler(30);
    wal.filler(30);
    wal.previous = 0x30_0028;
    let stray = wal.filler(30);
    wal.filler(30);
    wal.switch();
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    let expected = format!(
        "at {}: the record says that the one before it is at 0/300028, but that is at 0/300060\n",
        stray.lsn
    );
    assert_eq!(words(&facts), expected);
    assert_eq!(facts.records, 4);

    let mut wal = Synthetic::v15();
    wal.previous = 1 << 40;
    wal.filler(30);
    wal.switch();
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    assert_eq!(words(&facts), "at 0/300028: the record says that the one before it is at 100/0\n");
}

#[test]
fn zeros_without_a_switch_are_damage() {
    let mut wal = Synthetic::v15();
    wal.filler(30);
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    assert!(words(&facts).starts_with("at 0/300060: a record of 0 bytes cannot be\n"));
    assert_eq!(facts.damage.count, 128, "one for the record, one for each page behind");
    assert_eq!(facts.damage.first.len(), 16);
}

#[test]
fn a_wrong_length_in_the_last_page_shows_though_no_page_follows() {
    let mut wal = Synthetic::v15();
    wal.fill_until(4096);
    let place = wal.insert(XACT, 0, 5, &9_i64.to_le_bytes());
    wal.fill_until(0);
    let mut segment = wal.segments().remove(0);
    segment[(place.lsn.0 % SEGMENT) as usize + 2] = 7;
    let facts = walk(&segment, wal.name(0), Extent::Whole);
    assert_eq!(words(&facts), format!("at {}: its length is not that of its parts\n", place.lsn));
    assert_eq!(facts.unfinished, None);
}

#[test]
fn a_record_that_cannot_be_decoded_is_damage_though_its_checksum_is_right() {
    for (rmgr, info, main) in
        [(XACT, 0x00, &b"short"[..]), (XLOG, 0x70, &[0; 20]), (XLOG, 0x60, &[0; 8]), (TBLSPC, 0, &[1])]
    {
        let mut wal = Synthetic::v15();
        let place = wal.insert(rmgr, info, 5, main);
        wal.switch();
        let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
        assert_eq!(words(&facts), format!("at {}: it is shorter than what it should hold\n", place.lsn));
        assert_eq!(facts.records, 2);
    }
    let mut wal = Synthetic::v15();
    wal.insert(XACT, 0, 5, &i64::MAX.to_le_bytes());
    wal.switch();
    let facts = walk(&wal.segments()[0], wal.name(0), Extent::Whole);
    assert!(words(&facts).contains("its time is beyond the year 9999"));
}

#[test]
fn an_unfinished_record_that_was_tampered_with_is_refused_or_damage() {
    let mut wal = Synthetic::v15();
    wal.fill_until(64);
    wal.insert(XACT, 0x00, 9, &[3; 900]);
    wal.switch();
    let good = walk_clean(&wal)[0].unfinished.clone().expect("unfinished");
    let next = wal.segments().remove(1);
    let header = header_of(&next);
    let mut cases = vec![good.clone(); 6];
    cases[0].pieces.clear();
    cases[1].pieces[0].at = 1;
    cases[2].length = 10;
    cases[3].here = good.length;
    cases[4].crc ^= 1;
    cases[5].here -= 8;
    for case in cases {
        match join_unfinished(&case, &header, wal.name(1), &next) {
            Ok(facts) => assert!(facts.damage.count == 1 && facts.records == 0, "{case:?}: {facts:?}"),
            Err(error) => assert_eq!(error.kind(), crate::error::Kind::Corrupt, "{error}"),
        }
    }
}

#[test]
fn a_join_that_was_fed_too_little_says_so() {
    let mut wal = Synthetic::v15();
    wal.fill_until(64);
    wal.insert(XACT, 0x00, 9, &[3; 20_000]);
    wal.switch();
    let unfinished = walk_clean(&wal)[0].unfinished.clone().expect("unfinished");
    let next = wal.segments().remove(1);
    let mut walk = Walk::join(&unfinished, &header_of(&next), wal.name(1), Extent::Whole).expect("a walk");
    walk.feed(&next[..8192]);
    assert!(!walk.is_done());
    assert!(words(&walk.finish()).contains("bytes of the record were not looked for"));
}

#[test]
fn nothing_is_a_fact_for_no_kind_of_record_without_meaning() {
    let mut facts = SegmentFacts::default();
    facts.note(Fact::Nothing, Lsn(1), Lsn(2));
    facts.note(Fact::Overwrites(Lsn(1)), Lsn(1), Lsn(2));
    assert_eq!(facts, SegmentFacts::default());
}

/// Segments of random records, all of which carry data.
fn random_wal() -> impl Strategy<Value = Synthetic> {
    let format = prop_oneof![Just(WalFormat::V14), Just(WalFormat::V15), Just(WalFormat::V18)];
    let record = (0_usize..6, prop_oneof![9 => 1_usize..300, 1 => 1_usize..30_000]);
    (format, 10_u32..=16, proptest::collection::vec(record, 1..120), any::<bool>()).prop_map(
        |(format, shift, records, full)| {
            let mut wal = Synthetic::new(format, 1 << shift);
            for (n, (kind, length)) in records.into_iter().cycle().take(4000).enumerate() {
                let end = End {
                    twophase_xid: Some(n as u32 + 3),
                    subxacts: length as u32 % 50,
                    ..End::at(n as i64)
                };
                match kind {
                    0 => wal.insert(XACT, 0, n as u32 + 3, &(n as i64).to_le_bytes()),
                    1 => wal.insert(XACT, 0xB0, 0, &end.main_data(12)),
                    2 => wal.insert(XLOG, 0x70, 0, &[[0; 8].as_slice(), &[b'x'; 64]].concat()),
                    3 => wal.insert(TBLSPC, 0, 0, &vec![b'/'; 5 + length % 900]),
                    _ => wal.filler(length),
                };
                if !full && n == 800 || wal.bytes.len() > SEGMENT as usize {
                    break;
                }
            }
            wal.switch();
            wal
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_chunks_in_which_a_segment_is_fed_do_not_matter(wal in random_wal(), chunk in 1_usize..20_000) {
        for (n, segment) in wal.segments().iter().enumerate() {
            let facts = walk(segment, wal.name(n), Extent::Whole);
            prop_assert!(facts.damage.is_empty(), "{:?}", facts.damage);
            prop_assert_eq!(&facts, &walk_in_chunks(segment, wal.name(n), Extent::Whole, chunk));
            let json = serde_json::to_string(&facts).expect("JSON");
            prop_assert_eq!(&facts, &serde_json::from_str::<SegmentFacts>(&json).expect("read again"));
        }
    }

    #[test]
    fn every_flipped_bit_inside_a_whole_record_is_damage(
        wal in random_wal(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 40),
    ) {
        let segment = wal.segments().remove(0);
        let good = walk(&segment, wal.name(0), Extent::Whole);
        let end = (good.end_lsn.expect("records").0 - 3 * SEGMENT) as usize;
        for (place, bit) in places {
            let at = place.index(end);
            let mut harmed = segment.clone();
            harmed[at] ^= 1 << bit;
            let Ok(header) = SegmentHeader::parse(&harmed) else { continue };
            let mut walk = Walk::new(&header, wal.name(0), Extent::Whole);
            walk.feed(&harmed);
            let facts = walk.finish();
            if facts.damage.is_empty() {
                // Padding, or unused space: then nothing else may have changed either.
                prop_assert_eq!(&facts, &good, "byte {} bit {}", at, bit);
                let lsn = 3 * SEGMENT + at as u64;
                prop_assert!(!inside_a_record(&segment, &header, lsn), "byte {} bit {}", at, bit);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..60_000),
        chunk in 1_usize..9000,
        joins: bool,
    ) {
        let mut wal = Synthetic::v15();
        wal.fill_until(64);
        wal.insert(XACT, 0xB0, 9, &End { invals: 9000, ..End::at(4) }.main_data(12));
        wal.switch();
        let segments = wal.segments();
        let header = header_of(&segments[1]);
        let unfinished = walk(&segments[0], wal.name(0), Extent::Whole).unfinished.expect("unfinished");
        for extent in [Extent::Whole, Extent::Partial] {
            let mut walk = if joins {
                Walk::join(&unfinished, &header, wal.name(1), extent).expect("a walk")
            } else {
                Walk::new(&header, wal.name(1), extent)
            };
            walk.feed(&segments[1][..1 << 14]);
            bytes.chunks(chunk).for_each(|chunk| walk.feed(chunk));
            walk.finish();
        }
    }

    #[test]
    fn truncated_and_scribbled_segments_never_panic(
        wal in random_wal(),
        cut in 0_usize..1 << 20,
        scribbles in proptest::collection::vec((40_usize..1 << 20, any::<u8>()), 0..200),
    ) {
        let mut segment = wal.segments().remove(0);
        scribbles.iter().for_each(|(at, byte)| segment[*at] = *byte);
        let header = header_of(&segment);
        for extent in [Extent::Whole, Extent::Partial] {
            let mut walk = Walk::new(&header, wal.name(0), extent);
            walk.feed(&segment[..cut]);
            let facts = walk.finish();
            prop_assert!(extent == Extent::Whole || facts.damage.is_empty(), "{:?}", facts.damage);
        }
    }
}

/// Does this byte belong to a record, as opposed to a page header, padding or unused space? Told by a walk
/// of its own, so that the one under test is not its own judge.
fn inside_a_record(segment: &[u8], header: &SegmentHeader, lsn: u64) -> bool {
    let block = header.block_size as usize;
    let payload: Vec<usize> =
        (0..segment.len()).filter(|at| at % block >= if *at < block { 40 } else { 24 }).collect();
    let target = (lsn % SEGMENT) as usize;
    let mut next = 0;
    while let Some(start) = payload.get(next).copied() {
        let length: Vec<u8> = (0..4).map(|n| segment[start + n]).collect();
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length == 0 {
            return false;
        }
        let record = &payload[next..(next + length).min(payload.len())];
        if record.contains(&target) {
            return true;
        }
        next += length.next_multiple_of(8);
    }
    false
}

/// The first record that a walk through one segment of `wal` finds.
fn search(wal: &Synthetic, from: Lsn, sought: Sought) -> Option<Landmark> {
    let segment = wal.segments().remove(0);
    let mut walk =
        Walk::new(&header_of(&segment), wal.name(0), Extent::Whole).searching(Search { from, sought });
    walk.feed(&segment);
    walk.found().cloned()
}

#[test]
fn a_search_stops_where_recovery_would() {
    let mut wal = Synthetic::v15();
    let commit = |wal: &mut Synthetic, xid, time: i64| wal.insert(XACT, 0x00, xid, &time.to_le_bytes());
    let first = commit(&mut wal, 100, 50);
    let second = commit(&mut wal, 102, 70);
    let third = commit(&mut wal, 101, 60);
    let mut point = 65_i64.to_le_bytes().to_vec();
    point.extend(b"here\0");
    point.resize(72, 0);
    let point = wal.insert(XLOG, 0x70, 0, &point);
    let again = commit(&mut wal, 100, 80);
    wal.switch();
    let at_place =
        |place: Place, time, xid| Some(Landmark { lsn: place.lsn, end_lsn: place.end, time: at(time), xid });
    let after = |time, or_at| Sought::EndedAfter { time: at(time), or_at };
    assert_eq!(search(&wal, Lsn(0), after(50, false)), at_place(second, 70, Some(102)));
    assert_eq!(search(&wal, Lsn(0), after(50, true)), at_place(first, 50, Some(100)));
    assert_eq!(search(&wal, third.lsn, after(50, false)), at_place(third, 60, Some(101)));
    assert_eq!(search(&wal, Lsn(0), after(80, false)), None);
    assert_eq!(search(&wal, Lsn(0), Sought::Transaction(100)), at_place(first, 50, Some(100)));
    assert_eq!(search(&wal, second.lsn, Sought::Transaction(100)), at_place(again, 80, Some(100)));
    assert_eq!(search(&wal, Lsn(0), Sought::Transaction(99)), None);
    assert_eq!(search(&wal, Lsn(0), Sought::RestorePoint("here".into())), at_place(point, 65, None));
    assert_eq!(search(&wal, Lsn(0), Sought::RestorePoint("her".into())), None);
}

#[test]
fn a_record_that_two_segments_share_is_found_when_they_are_joined() {
    let mut wal = Synthetic::v15();
    wal.fill_until(32);
    let commit = wal.insert(XACT, 0x00, 100, &50_i64.to_le_bytes());
    wal.switch();
    let segments = wal.segments();
    let facts = walk_clean(&wal);
    let sought = Sought::Transaction(100);
    assert!(!sought.may_be_in(&facts[0]) && !sought.may_be_in(&facts[1]));
    let unfinished = facts[0].unfinished.as_ref().expect("the commit");
    let joined =
        join_unfinished(unfinished, &header_of(&segments[1]), wal.name(1), &segments[1]).expect("joined");
    let found = Search { from: Lsn(0), sought }.in_joined(unfinished.lsn, &joined);
    let expected = Landmark { lsn: commit.lsn, end_lsn: commit.end, time: at(50), xid: Some(100) };
    assert_eq!(found, Some(expected));
    let later = Search { from: commit.end, sought: Sought::Transaction(100) };
    assert_eq!(later.in_joined(unfinished.lsn, &joined), None);
}
