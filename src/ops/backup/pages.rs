//! Checking the pages of relations while they are copied.
//!
//! As sendFile (basebackup.c): a page that looks damaged is read again, since the server may have been
//! writing it, and one that the server wrote since the backup started is no concern, since replay writes it
//! anew. But such a page must not be newer than the end of the backup either: garbage has any LSN. So
//! pages are checked whatever their LSN, and who knows the end decides about those beyond the start.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::error::{IoContext, Result};
use crate::pg::lsn::Lsn;
use crate::pg::page::{BlockNumber, BlockSize, Page, pages};
use crate::pg::relfile::RelationFile;
use crate::pg::version::PgMajor;
use crate::repo::map::MapPath;

/// How often a page is read again before it counts as damaged, and how long to wait before: writing a page
/// takes the server microseconds, unless it is stopped in the middle.
const REREADS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// What is needed to check the pages of a cluster that has checksums.
#[derive(Clone, Copy, Debug)]
pub struct PageChecks {
    pub major: PgMajor,
    pub block_size: BlockSize,
    pub blocks_per_file: u32,
}

/// A page whose checksum was wrong each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPage {
    pub block: BlockNumber,
    /// Damaged if it is before the start of the backup or beyond its end.
    pub lsn: Lsn,
}

impl BadPage {
    /// Replay does not write it anew.
    pub fn is_damaged(&self, start: Lsn, stop: Lsn) -> bool {
        self.lsn < start || self.lsn > stop
    }
}

impl PageChecks {
    /// The number of the page at byte `at` of a file; None for a file that has no pages.
    pub fn first_block(&self, path: &MapPath, at: u64) -> Option<BlockNumber> {
        let file = RelationFile::parse(path.as_path(), self.major)?;
        let pages = u32::try_from(at / self.block_size.bytes() as u64).ok()?;
        Some(file.name.first_block(self.blocks_per_file).plus(pages))
    }

    /// Checks the pages in `bytes`, which were read at `offset` of `file` and begin with page `first`. What
    /// another reading gives takes the place of what looked damaged.
    pub fn check(
        &self,
        file: &File,
        offset: u64,
        bytes: &mut [u8],
        first: BlockNumber,
    ) -> Result<Vec<BadPage>> {
        let mut bad: Vec<u32> = (0..)
            .zip(pages(bytes, self.block_size))
            .filter(|(index, page)| page.verify(first.plus(*index)).is_damaged())
            .map(|(index, _)| index)
            .collect();
        for _ in 0..REREADS {
            if bad.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
            bad = self.read_again(file, offset, bytes, first, &bad)?;
        }
        let page = |index: &u32| self.page(bytes, *index).map(|page| (first.plus(*index), page.lsn()));
        Ok(bad.iter().filter_map(page).map(|(block, lsn)| BadPage { block, lsn }).collect())
    }

    /// Those of the pages `suspects` that still look damaged. A page that is gone by now is not: the
    /// relation was truncated, which replay repeats.
    fn read_again(
        &self,
        file: &File,
        offset: u64,
        bytes: &mut [u8],
        first: BlockNumber,
        suspects: &[u32],
    ) -> Result<Vec<u32>> {
        let size = self.block_size.bytes();
        let mut again = vec![0; size];
        let mut bad = Vec::new();
        for index in suspects {
            let start = *index as usize * size;
            let read = file.read_at(&mut again, offset + start as u64).doing(|| "read a page again")?;
            let target = bytes.get_mut(start..start + size).filter(|_| read == size);
            let Some(target) = target else { continue };
            target.copy_from_slice(&again);
            let page = Page::new(&again, self.block_size);
            if page.is_some_and(|page| page.verify(first.plus(*index)).is_damaged()) {
                bad.push(*index);
            }
        }
        Ok(bad)
    }

    fn page<'a>(&self, bytes: &'a [u8], index: u32) -> Option<Page<'a>> {
        pages(bytes, self.block_size).nth(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SIZE: usize = 8192;

    fn checks() -> PageChecks {
        PageChecks {
            major: PgMajor::try_from(15).expect("supported"),
            block_size: BlockSize::try_from(SIZE as u32).expect("a size"),
            blocks_per_file: 131_072,
        }
    }

    /// A page with this LSN and the checksum that belongs to it as this block.
    fn page(block: u32, lsn: u64) -> Vec<u8> {
        let mut bytes = vec![7; SIZE];
        bytes[0..4].copy_from_slice(&((lsn >> 32) as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&(lsn as u32).to_ne_bytes());
        bytes[14..16].copy_from_slice(&(SIZE as u16).to_ne_bytes());
        let size = checks().block_size;
        let sum = Page::new(&bytes, size).expect("a page").checksum(BlockNumber(block));
        bytes[8..10].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    fn damaged(block: u32, lsn: u64) -> Vec<u8> {
        let mut bytes = page(block, lsn);
        bytes[4000] ^= 1;
        bytes
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("tempfile");
        file.write_all(content).expect("written");
        file
    }

    fn check(on_disk: &[u8], read: &mut [u8], first: u32) -> Vec<BadPage> {
        checks().check(&file(on_disk), 0, read, BlockNumber(first)).expect("readable")
    }

    #[test]
    fn good_pages_new_pages_and_an_incomplete_last_page_are_fine() {
        let content = [page(5, 100), vec![0; SIZE], page(7, 100), vec![9; 100]].concat();
        assert_eq!(check(&content, &mut content.clone(), 5), []);
    }

    #[test]
    fn a_page_that_stays_damaged_is_named_by_its_block() {
        let content = [page(5, 100), damaged(6, 77), page(7, 100)].concat();
        let bad = check(&content, &mut content.clone(), 5);
        assert_eq!(bad, [BadPage { block: BlockNumber(6), lsn: Lsn(77) }]);
    }

    #[test]
    fn a_page_that_was_torn_is_replaced_by_the_whole_one() {
        let whole = [page(0, 100), page(1, 200)].concat();
        let mut read = [page(0, 100), damaged(1, 100)].concat();
        assert_eq!(check(&whole, &mut read, 0), []);
        assert_eq!(read, whole);
    }

    #[test]
    fn a_page_that_was_truncated_away_is_no_damage() {
        let mut read = [page(0, 100), damaged(1, 100)].concat();
        assert_eq!(check(&page(0, 100), &mut read, 0), []);
    }

    #[test]
    fn damage_is_what_replay_does_not_write_anew() {
        let bad = |lsn| BadPage { block: BlockNumber(0), lsn: Lsn(lsn) }.is_damaged(Lsn(100), Lsn(200));
        assert_eq!([bad(99), bad(100), bad(200), bad(201)], [true, false, false, true]);
    }

    #[test]
    fn blocks_are_counted_across_the_files_of_a_relation() {
        let first = |path: &str, at| checks().first_block(&MapPath::data(path).expect("path"), at);
        assert_eq!(first("base/5/16384", 0), Some(BlockNumber(0)));
        assert_eq!(first("base/5/16384_vm.2", 3 << 20), Some(BlockNumber(2 * 131_072 + 384)));
        assert_eq!(first("base/5/PG_VERSION", 0), None);
        assert_eq!(first("pg_xact/0000", 0), None);
    }
}
