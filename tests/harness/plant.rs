//! Files in the data directory of a cluster that look like those of relations, and that no catalog knows: any
//! number of them, in seconds. The server leaves them alone; a backup takes them all.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, fchown};
use std::path::{Path, PathBuf};

use pgark::pg::page::{BlockNumber, BlockSize, Page};

use super::cluster::Cluster;
use super::host::server_user;

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// Of so many files one has a page, the others are empty.
const EMPTY: u32 = 10;

/// That make files at a time.
const THREADS: u32 = 4;

/// Where file numbers begin that no server gives soon.
const FIRST: u32 = 1_000_000_000;

impl Cluster {
    /// Makes small files: nine of ten are empty, as are those of empty tables, the tenth holds a page.
    pub fn plant_files(&self, numbers: Range<u32>) {
        self.plant(numbers, |file, number| {
            if number.is_multiple_of(EMPTY) {
                write_page(file, 0);
            }
        });
    }

    /// Makes files of that size, with a page at the begin and one in the middle and holes elsewhere.
    pub fn plant_sparse(&self, numbers: Range<u32>, bytes: u64) {
        self.plant(numbers, |file, _| {
            file.set_len(bytes).expect("set the size");
            write_page(file, 0);
            write_page(file, middle(bytes));
        });
    }

    fn plant(&self, numbers: Range<u32>, fill: impl Fn(&File, u32) + Sync) {
        let directory = self.data_dir().join(self.planted());
        let share = (numbers.end - numbers.start).div_ceil(THREADS).max(1);
        std::thread::scope(|scope| {
            for begin in numbers.clone().step_by(share as usize) {
                let (fill, directory, end) = (&fill, &directory, (begin + share).min(numbers.end));
                scope.spawn(move || (begin..end).for_each(|number| fill(&create(directory, number), number)));
            }
        });
    }

    /// The directory of the planted files, relative to a data directory.
    pub fn planted(&self) -> PathBuf {
        let database = self.psql("select oid from pg_database where datname = current_database()");
        Path::new("base").join(database)
    }
}

/// The name of a planted file.
pub fn planted_name(number: u32) -> String {
    (FIRST + number).to_string()
}

/// Whether a file is as [`Cluster::plant_sparse`] makes it, its holes included.
pub fn is_sparse(path: &Path, bytes: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = File::open(path).expect("open");
    let metadata = file.metadata().expect("look at it");
    let holds = |block: u32| {
        let mut found = vec![0; PAGE];
        file.read_exact_at(&mut found, u64::from(block) * PAGE as u64).expect("read");
        found == page(block)
    };
    // What was written is read back in slices of a MiB at most.
    let little = 4 << 20;
    metadata.len() == bytes && metadata.blocks() * 512 <= little && holds(0) && holds(middle(bytes))
}

fn middle(bytes: u64) -> u32 {
    u32::try_from(bytes / 2 / PAGE as u64).expect("a block number")
}

fn create(directory: &Path, number: u32) -> File {
    let path = directory.join(planted_name(number));
    let file = File::options().create_new(true).read(true).write(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
    let user = server_user();
    fchown(&file, Some(user.uid), Some(user.gid)).expect("chown");
    file
}

fn write_page(file: &File, block: u32) {
    file.write_all_at(&page(block), u64::from(block) * PAGE as u64).expect("write a page");
}

/// A page with the checksum that belongs to it as this block (bufpage.h: pd_checksum at 8, pd_upper at 14).
fn page(block: u32) -> Vec<u8> {
    let mut bytes = vec![7; PAGE];
    bytes[0..8].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    let size = BlockSize::try_from(PAGE as u32).expect("a size");
    let checksum = Page::new(&bytes, size).expect("a page").checksum(BlockNumber(block));
    bytes[8..10].copy_from_slice(&checksum.to_ne_bytes());
    bytes
}
