//! What the walk finds in good WAL.

use super::*;

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
    let actions: Vec<_> = facts.tablespaces.first.iter().map(|it| (it.oid.0, it.change.clone())).collect();
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
    noise[used..].iter_mut().enumerate().for_each(|(n, byte)| *byte = ((n * 167) >> 3) as u8);
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
fn the_first_segment_of_a_timeline_starts_with_pages_of_the_old_one() {
    let mut wal = Synthetic::v15();
    for _ in 0..100 {
        wal.filler(400);
    }
    wal.timeline = 6;
    for _ in 0..100 {
        wal.filler(400);
    }
    wal.switch();
    let facts = walk_clean(&wal).remove(0);
    assert_eq!(facts.records, 201);
    let name = SegmentName { timeline: Timeline(5), ..wal.name(0) };
    let facts = walk(&wal.segments()[0], name, Extent::Whole);
    assert!(words(&facts).contains("page timeline is 6, outside of 5 to 5"));
}

#[test]
fn records_without_a_meaning_add_nothing() {
    let mut facts = SegmentFacts::default();
    facts.note(Fact::Nothing, Lsn(1), Lsn(2));
    facts.note(Fact::Overwrites(Lsn(1)), Lsn(1), Lsn(2));
    assert_eq!(facts, SegmentFacts::default());
}
