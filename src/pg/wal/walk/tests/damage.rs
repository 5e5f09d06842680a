//! What the walk calls damage, and that it goes on behind it.

use super::*;

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
