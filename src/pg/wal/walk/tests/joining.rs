//! Records that lie in more than one segment.

use super::*;

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
    for (n, segment) in segments.iter().enumerate().take(3).skip(1) {
        let header = header_of(segment);
        assert_eq!(unfinished.needed_of_next(&header), SEGMENT);
        let joined = join_unfinished(&unfinished, &header, wal.name(n), segment).expect("joined");
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
