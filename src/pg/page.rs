//! Data pages of relations: are they what the server wrote?
//!
//! The checksum is pg_checksum_page (storage/checksum_impl.h): 32 FNV-1a sums side by side, which the
//! compiler turns into vector instructions. What to make of a page while the server runs follows sendFile
//! (backup/basebackup.c); it and pg_checksums pass over every page whose pd_upper is 0, whereas the server
//! refuses such a page if it is not all zeros (PageIsVerified, bufpage.c), and so do we.
//!
//! Invariant: a `Page` is as long as a `BlockSize`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;
use crate::error::{Error, Result};

/// The size of a data page in bytes: a power of two from 1 KiB to 32 KiB (configure --with-blocksize).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BlockSize(u32);

/// The largest block size.
const MAX_BLOCK_SIZE: usize = 1 << 15;

impl BlockSize {
    pub fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = Error;

    fn try_from(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (1 << 10..=1 << 15).contains(&bytes) {
            return Ok(BlockSize(bytes));
        }
        Err(Error::corrupt(format!("{bytes} is not a block size: a power of two from 1 KiB to 32 KiB")))
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.0
    }
}

/// The number of a page within its fork, across all files of the fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockNumber(pub u32);

impl BlockNumber {
    /// The page that many pages further on.
    pub fn plus(self, pages: u32) -> BlockNumber {
        BlockNumber(self.0.wrapping_add(pages))
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a page turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// All zeros: the file was extended, and nothing written yet.
    New,
    Valid,
    /// Written since the backup started, so it may be torn; replay writes it anew. Its LSN can be compared
    /// with the end of the backup: no page is newer than that.
    Changed(Lsn),
    /// The checksum `found` on the page is not the one that belongs to its content and place.
    Bad {
        expected: u16,
        found: u16,
    },
    /// It says that it is new (pd_upper is 0), and yet is not all zeros.
    NotZero,
}

impl PageState {
    /// Whether the page is damaged. While the server runs, only after a second reading: a page that is
    /// being written can be seen half old, half new.
    pub fn is_damaged(self) -> bool {
        matches!(self, PageState::Bad { .. } | PageState::NotZero)
    }
}

/// One data page.
#[derive(Clone, Copy)]
pub struct Page<'a>(&'a [u8]);

/// The pages in a piece of a file that starts at a page's first byte. An incomplete last one is left out.
pub fn pages(bytes: &[u8], size: BlockSize) -> impl ExactSizeIterator<Item = Page<'_>> {
    bytes.chunks_exact(size.bytes()).map(Page)
}

impl<'a> Page<'a> {
    /// None when `bytes` is not exactly one page.
    pub fn new(bytes: &'a [u8], size: BlockSize) -> Option<Self> {
        (bytes.len() == size.bytes()).then_some(Page(bytes))
    }

    /// Fields of PageHeaderData, in the byte order of the machine.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        let bytes = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }

    /// pd_lsn: the end of the last WAL record that changed the page. The upper half stands first.
    pub fn lsn(&self) -> Lsn {
        let half = |offset| u64::from(u32::from_ne_bytes(self.field(offset)));
        Lsn(half(0) << 32 | half(4))
    }

    /// pd_checksum, as found on the page.
    pub fn stored_checksum(&self) -> u16 {
        u16::from_ne_bytes(self.field(8))
    }

    /// PageIsNew: pd_upper is 0.
    fn says_new(&self) -> bool {
        u16::from_ne_bytes(self.field(14)) == 0
    }

    fn is_all_zeros(&self) -> bool {
        static ZEROS: [u8; MAX_BLOCK_SIZE] = [0; MAX_BLOCK_SIZE];
        ZEROS.get(..self.0.len()) == Some(self.0)
    }

    /// The checksum that belongs on this page when it is block `number` (pg_checksum_page).
    pub fn checksum(&self, number: BlockNumber) -> u16 {
        let mixed = sum_of(self.0) ^ number.0;
        // At most 65535.
        (mixed % 65535 + 1) as u16
    }

    /// Checks a page of a cluster with checksums that no server is writing.
    pub fn verify(&self, number: BlockNumber) -> PageState {
        if self.says_new() {
            return if self.is_all_zeros() { PageState::New } else { PageState::NotZero };
        }
        let (expected, found) = (self.checksum(number), self.stored_checksum());
        if expected == found { PageState::Valid } else { PageState::Bad { expected, found } }
    }

    /// Checks a page that was read during a backup that began at `start` (its redo pointer), in a cluster
    /// with checksums. Read it again before believing `is_damaged`; if the page is gone by then, the
    /// relation was truncated, which is no damage.
    pub fn verify_in_backup(&self, number: BlockNumber, start: Lsn) -> PageState {
        let lsn = self.lsn();
        if lsn >= start { PageState::Changed(lsn) } else { self.verify(number) }
    }
}

/// N_SUMS of checksum_impl.h.
const SUMS: usize = 32;

/// Bytes in a row: one 32-bit value for each sum.
const ROW: usize = SUMS * 4;

const FNV_PRIME: u32 = 16_777_619;

/// checksumBaseOffsets of checksum_impl.h.
const INITIAL_SUMS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// CHECKSUM_COMP for a row of the page.
#[inline(always)]
fn add_row(sums: &mut [u32; SUMS], row: &[u8; ROW]) {
    for (sum, value) in sums.iter_mut().zip(row.as_chunks::<4>().0) {
        let mixed = *sum ^ u32::from_ne_bytes(*value);
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

/// pg_checksum_block, with the page's checksum field taken as zero.
fn sum_of(page: &[u8]) -> u32 {
    let mut sums = INITIAL_SUMS;
    let (rows, _) = page.as_chunks::<ROW>();
    if let Some((first, rest)) = rows.split_first() {
        let mut first = *first;
        first[8] = 0;
        first[9] = 0;
        add_row(&mut sums, &first);
        rest.iter().for_each(|row| add_row(&mut sums, row));
    }
    add_row(&mut sums, &[0; ROW]);
    add_row(&mut sums, &[0; ROW]);
    sums.iter().fold(0, |folded, sum| folded ^ sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(bytes: u32) -> BlockSize {
        BlockSize::try_from(bytes).expect("a valid size")
    }

    fn page(bytes: &[u8]) -> Page<'_> {
        Page::new(bytes, size(bytes.len() as u32)).expect("one page")
    }

    /// A page as the server leaves it: LSN, header, some content, and its checksum for block `number`.
    fn written(length: usize, lsn: Lsn, number: BlockNumber, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; length];
        bytes[0..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&(lsn.0 as u32).to_ne_bytes());
        bytes[14..16].copy_from_slice(&(length as u16 / 2).to_ne_bytes());
        let checksum = page(&bytes).checksum(number);
        bytes[8..10].copy_from_slice(&checksum.to_ne_bytes());
        bytes
    }

    /// pg_checksum_block, word by word and sum by sum.
    fn sum_slowly(page: &[u8]) -> u32 {
        let mut page = page.to_vec();
        page[8..10].fill(0);
        page.extend([0; 2 * ROW]);
        let mut sums = INITIAL_SUMS;
        for (index, word) in page.chunks(4).enumerate() {
            let sum = &mut sums[index % SUMS];
            let mixed = *sum ^ u32::from_ne_bytes(word.try_into().expect("four bytes"));
            *sum = (u64::from(mixed) * u64::from(FNV_PRIME)) as u32 ^ (mixed >> 17);
        }
        sums.into_iter().reduce(|folded, sum| folded ^ sum).expect("32 of them")
    }

    #[test]
    fn a_page_of_zeros_is_new() {
        for bytes in [1024, 8192, 32768] {
            assert_eq!(page(&vec![0; bytes]).verify(BlockNumber(0)), PageState::New);
        }
    }

    #[test]
    fn a_page_that_only_says_it_is_new_is_damaged() {
        let mut bytes = vec![0; 8192];
        bytes[8191] = 1;
        assert_eq!(page(&bytes).verify(BlockNumber(0)), PageState::NotZero);
        assert!(PageState::NotZero.is_damaged());
        assert!(!PageState::New.is_damaged());
    }

    #[test]
    fn a_page_in_another_place_is_bad() {
        let bytes = written(8192, Lsn(0x1_0000_0028), BlockNumber(7), 0x5A);
        assert_eq!(page(&bytes).verify(BlockNumber(7)), PageState::Valid);
        let moved = page(&bytes).verify(BlockNumber(8));
        let expected = page(&bytes).checksum(BlockNumber(8));
        assert_eq!(moved, PageState::Bad { expected, found: page(&bytes).stored_checksum() });
        assert!(moved.is_damaged());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_but_for_the_one_in_65535_that_16_bits_miss() {
        let number = BlockNumber(131_072);
        let is_missed = |bit: &usize| {
            let mut bytes = written(1024, Lsn(5), number, 0x5A);
            bytes[bit / 8] ^= 1 << (bit % 8);
            !page(&bytes).verify(number).is_damaged()
        };
        assert!((0..1024 * 8).filter(is_missed).count() <= 1);
    }

    #[test]
    fn a_page_written_since_the_backup_began_is_not_judged() {
        let mut bytes = written(8192, Lsn(0x1_0000_0028), BlockNumber(7), 0x5A);
        bytes[8000] ^= 1;
        let damaged = page(&bytes);
        assert_eq!(damaged.lsn(), Lsn(0x1_0000_0028));
        for start in [Lsn(1), Lsn(0x1_0000_0028)] {
            assert_eq!(
                damaged.verify_in_backup(BlockNumber(7), start),
                PageState::Changed(Lsn(0x1_0000_0028))
            );
        }
        assert!(damaged.verify_in_backup(BlockNumber(7), Lsn(0x1_0000_0029)).is_damaged());
        assert_eq!(page(&[0; 1024]).verify_in_backup(BlockNumber(0), Lsn(1)), PageState::New);
    }

    #[test]
    fn a_piece_of_a_file_is_cut_into_whole_pages() {
        let bytes = vec![0; 3 * 1024 + 1];
        assert_eq!(pages(&bytes, size(1024)).len(), 3);
        assert_eq!(pages(&[], size(1024)).len(), 0);
        assert!(Page::new(&bytes, size(1024)).is_none());
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_one_to_32_kib() {
        for bytes in [0, 512, 1000, 65536, u32::MAX] {
            assert!(BlockSize::try_from(bytes).is_err(), "{bytes}");
        }
        for shift in 10..=15 {
            assert_eq!(BlockSize::try_from(1 << shift).map(BlockSize::bytes), Ok(1 << shift));
        }
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_slow_one(seed in proptest::collection::vec(any::<u8>(), 1..600), shift in 10u32..=15) {
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(1 << shift).collect();
            prop_assert_eq!(sum_of(&bytes), sum_slowly(&bytes));
        }

        #[test]
        fn any_bytes_are_some_state(bytes in proptest::collection::vec(any::<u8>(), 1024), number: u32, start: u64) {
            let page = page(&bytes);
            let expected = page.checksum(BlockNumber(number));
            prop_assert!(expected > 0);
            let state = page.verify_in_backup(BlockNumber(number), Lsn(start));
            prop_assert_eq!(matches!(state, PageState::Changed(_)), page.lsn() >= Lsn(start));
        }
    }
}
