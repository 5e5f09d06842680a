//! What holds for any WAL, any chunks, any harm.

use super::*;

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
