//! What a walk tells of records that are watched for, whole and cut.

use super::*;
use crate::pg::oid::Oid;
use crate::pg::relfile::RelFileLocator;
use crate::pg::wal::{Ended, Event, Interest, RowChange};

const DBASE: u8 = 4;
const SMGR: u8 = 2;
const CATALOG: [u32; 3] = [1663, 5, 1259];

fn watching(interest: Interest) -> Watching {
    Watching::new(interest, WalFormat::V15, vec![Oid(1259)])
}

/// What is seen in all segments, records that lie across a boundary joined.
fn seen(wal: &Synthetic, interest: Interest) -> Vec<Seen> {
    let segments = wal.segments();
    let mut seen = Vec::new();
    for (n, bytes) in segments.iter().enumerate() {
        let mut walk = Walk::new(&header_of(bytes), wal.name(n), Extent::Whole).watching(watching(interest));
        bytes.chunks(5000).for_each(|chunk| walk.feed(chunk));
        seen.extend(walk.seen());
        let (facts, mut begun) = walk.finish_watching();
        assert!(facts.damage.is_empty(), "{:?}", facts.damage);
        for (later, bytes) in segments.iter().enumerate().skip(n + 1) {
            let Some(from) = begun.take() else { break };
            let (header, name) = (header_of(bytes), wal.name(later));
            let mut rest = Walk::watching_rest(from, &header, name, Extent::Whole, watching(interest))
                .expect("it goes on");
            rest.feed(bytes);
            seen.extend(rest.seen());
            begun = rest.finish_watching().1;
        }
    }
    seen
}

fn only_end(seen: &[Seen]) -> (Lsn, Lsn, Ended) {
    let ends: Vec<_> = seen
        .iter()
        .filter_map(|seen| match &seen.event {
            Event::Ended(ended) => Some((seen.lsn, seen.end, ended.clone())),
            _ => None,
        })
        .collect();
    let [end] = <[_; 1]>::try_from(ends).expect("one end");
    end
}

#[test]
fn the_end_of_a_transaction_is_told_with_all_that_it_removes_wherever_it_is_cut() {
    let end = End { subxacts: 40, relations: 50, invals: 60, twophase_xid: Some(77), ..End::at(123) };
    let length = 24 + 5 + end.main_data(12).len();
    for left in (8..length).step_by(40).chain([4096]) {
        let mut wal = Synthetic::v15();
        wal.fill_until(left);
        let place = wal.insert(XACT, 0xB0, 0, &end.main_data(12));
        wal.filler(8);
        wal.switch();
        let (lsn, behind, ended) = only_end(&seen(&wal, Interest::Ends));
        assert_eq!((lsn, behind), (place.lsn, place.end), "{left}");
        assert_eq!((ended.xid, ended.committed, ended.prepared), (77, true, true));
        assert_eq!((ended.time, ended.database), (at(123), Some(Oid(0x0707_0707))));
        assert_eq!((ended.subxacts.len(), ended.removed.len()), (40, 50));
        // The bytes count from 0 to 6 over and over (`End::main_data`).
        assert_eq!(ended.subxacts[0], 0x0302_0100);
        assert_eq!(ended.removed[0].tablespace, Oid(0x0302_0100));
    }
}

#[test]
fn a_record_that_is_too_long_is_told_as_unread() {
    let mut wal = Synthetic::v15();
    wal.fill_until(4096);
    let end = End { invals: 300_000, ..End::at(8) };
    let place = wal.insert(XACT, 0x80, 9, &end.main_data(12));
    wal.switch();
    let seen = seen(&wal, Interest::Ends);
    assert_eq!(seen.len(), 1);
    assert!(matches!(seen[0], Seen { lsn, event: Event::Unread(_), .. } if lsn == place.lsn), "{seen:?}");
}

fn locator(numbers: [u32; 3]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn each_interest_sees_its_own_records() {
    let mut wal = Synthetic::v15();
    wal.insert(SMGR, 0x10, 9, &[locator([1663, 5, 777]), vec![0; 4]].concat());
    wal.insert(DBASE, 0x20, 9, &[5_u32.to_le_bytes(), 1_u32.to_le_bytes(), 1663_u32.to_le_bytes()].concat());
    wal.insert(
        HEAP,
        0x30,
        9,
        &locator([5, 1, 0]).into_iter().chain(locator([42, 0, 0])).take(16).collect::<Vec<_>>(),
    );
    wal.insert(XACT, 0x00, 9, &End::at(1).main_data(12)[..8]);
    let mut checkpoint = 0x30_0028_u64.to_le_bytes().to_vec();
    checkpoint.extend([vec![0; 16], (7 << 32 | 10_u64).to_le_bytes().to_vec(), vec![0; 56]].concat());
    wal.insert(XLOG, 0x10, 0, &checkpoint);
    wal.switch();
    let storage = RelFileLocator { tablespace: Oid(1663), database: Oid(5), number: Oid(777) };
    let events: Vec<Event> = seen(&wal, Interest::Relations).into_iter().map(|seen| seen.event).collect();
    let checkpoint = Event::Checkpoint { redo: Lsn(0x30_0028), next_xid: 7 << 32 | 10 };
    assert_eq!(events[..2], [Event::StorageCreated(storage), Event::DatabaseRemoved(Oid(5))]);
    assert_eq!(events[2], Event::Truncated { database: Oid(5), tables: vec![Oid(42)] });
    assert!(matches!(events[3], Event::Ended(_)));
    assert_eq!(events[4..], [checkpoint]);
    let told = |interest| seen(&wal, interest).len();
    assert_eq!([told(Interest::Ends), told(Interest::Checkpoints)], [2, 1]);
}

/// A record of the heap with one block reference, its data, and main data.
fn heap(wal: &mut Synthetic, info: u8, data: &[u8], main: &[u8]) {
    let mut rest = vec![0, 0x20];
    rest.extend((data.len() as u16).to_le_bytes());
    rest.extend(locator(CATALOG));
    rest.extend(3_u32.to_le_bytes());
    rest.extend([255, main.len() as u8]);
    rest.extend(data);
    rest.extend(main);
    let record = wal.record(HEAP, info, 9, &rest);
    wal.put(&record);
}

#[test]
fn damage_is_told_to_who_watches() {
    let mut wal = Synthetic::v15();
    heap(&mut wal, 0x10, &[], &[0, 0, 0, 0, 7, 0, 0, 0]);
    let harmed = wal.insert(XACT, 0x00, 9, &End::at(1).main_data(12)[..8]);
    heap(&mut wal, 0x10, &[], &[0, 0, 0, 0, 8, 0, 0, 0]);
    wal.switch();
    let mut segment = wal.segments().remove(0);
    segment[(harmed.lsn.0 % SEGMENT) as usize + 30] ^= 1;
    let mut walk =
        Walk::new(&header_of(&segment), wal.name(0), Extent::Whole).watching(watching(Interest::Relations));
    walk.feed(&segment);
    let seen = walk.seen();
    let kinds: Vec<&str> = seen
        .iter()
        .map(|seen| match &seen.event {
            Event::Row { change: RowChange::Deleted { .. }, .. } => "deleted",
            Event::Lost => "lost",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["deleted", "lost", "deleted"]);
    assert_eq!(walk.finish_watching().0.damage.count, 1);
}

proptest! {
    #[test]
    fn records_of_any_content_never_panic(
        rmgr in 0_u8..12,
        info: u8,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        main in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut wal = Synthetic::v15();
        let record = wal.record(rmgr, info, 9, &rest);
        wal.put(&record);
        let inserted = wal.record(rmgr, info, 9, &with_data_header(&main));
        wal.put(&inserted);
        let mut row = |info| heap(&mut wal, info, &rest, &main);
        row(info & 0xF0);
        row(0x20);
        let segment = wal.segments().remove(0);
        for interest in [Interest::Ends, Interest::Relations, Interest::Checkpoints] {
            let mut walk = Walk::new(&header_of(&segment), wal.name(0), Extent::Whole)
                .watching(watching(interest));
            walk.feed(&segment);
            prop_assert!(walk.seen().len() < 100);
        }
    }
}
