//! The search for the record at which a recovery target stops.

use super::*;

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
    let at_place = |place: Place, time, xid| {
        Some(Landmark { lsn: place.lsn, end_lsn: place.end, time: Some(at(time)), xid })
    };
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
    let any = |from: Lsn| search(&wal, from, Sought::AnyRecord).map(|found| found.lsn);
    assert_eq!(any(Lsn(0)), Some(first.lsn));
    assert_eq!(any(Lsn(second.lsn.0 + 1)), Some(third.lsn));
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
    let expected = Landmark { lsn: commit.lsn, end_lsn: commit.end, time: Some(at(50)), xid: Some(100) };
    assert_eq!(found, Some(expected));
    let later = Search { from: commit.end, sought: Sought::Transaction(100) };
    assert_eq!(later.in_joined(unfinished.lsn, &joined), None);
}
