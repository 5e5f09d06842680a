//! The directory where WAL waits on its way from the server to the repository: the segment in progress,
//! whole segments, and unfinished ones that were set aside when their connection was lost.
//!
//!     lock                              held by the receiver that uses the directory
//!     <segment>.receiving               in progress; grows
//!     <segment>                         whole
//!     <segment>.<end LSN>.partial       set aside
//!     <segment>.<time>.unreadable       left by a killed receiver, and no WAL: for a person to look at
//!
//! Refuses a directory that another receiver uses. Invariants: a file has its whole or set-aside name only
//! once its bytes are durable; what was received is removed only when the repository, or a longer file of
//! the same segment here, holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::flock;
use crate::ident::Name;
use crate::pg::lsn::{Lsn, SegmentSize};
use crate::pg::names::SegmentName;
use crate::pg::replication::SlotName;
use crate::pg::wal::{Extent, SegmentHeader, Walk};
use crate::spool::{self, refuse_others};

/// The directory of one receiver.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    _lock: File,
}

/// A file that waits for the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub name: SegmentName,
    pub path: PathBuf,
    /// None: the segment is whole.
    pub end: Option<Lsn>,
}

/// Where a receiver keeps what it received. Touches nothing.
pub(super) fn directory(root: &Path, cluster: &Name, slot: &SlotName) -> PathBuf {
    root.join(format!("wal-receive-{cluster}-{slot}"))
}

impl Spool {
    /// Makes the directory if it is missing, and takes it.
    pub fn open(directory: PathBuf) -> Result<Self> {
        durable::create_dir_all(&directory, spool::DIRECTORY_MODE)?;
        refuse_others(&directory, "name a directory of the user that runs this")?;
        let path = directory.join("lock");
        let opened =
            OpenOptions::new().write(true).create(true).truncate(false).mode(spool::FILE_MODE).open(&path);
        let lock = opened.doing(|| format!("open {}", path.display()))?;
        // Who asks for the status has the lock that long.
        if !flock::exclusive_soon(&lock).doing(|| format!("lock {}", path.display()))? {
            return Err(Error::conflict(format!("another wal-receive uses {}", directory.display()))
                .with_hint("stop it first, or give this one another slot"));
        }
        Ok(Self { directory, _lock: lock })
    }

    /// Whether a receiver uses the directory now.
    pub fn is_in_use(directory: &Path) -> Result<bool> {
        let path = directory.join("lock");
        match OpenOptions::new().write(true).open(&path) {
            Ok(lock) => flock::try_exclusive(&lock)
                .map(|free| !free)
                .doing(|| format!("try the lock {}", path.display())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::io(format!("open {}", path.display()), &cause)),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file for the segment `name`, whose first byte is at `start`.
    pub fn begin(&self, name: SegmentName, start: Lsn, size: SegmentSize) -> Result<Receiving> {
        let path = self.directory.join(format!("{name}.receiving"));
        let created = OpenOptions::new().write(true).create_new(true).mode(spool::FILE_MODE).open(&path);
        let file = created.doing(|| format!("create {}", path.display()))?;
        durable::sync_dir(&self.directory)?;
        Ok(Receiving { name, start, size, path, file, written: 0, synced: 0 })
    }

    /// What waits here: all that an earlier receiver left, the segment that it was killed in set aside.
    pub fn take_stock(&self) -> Result<Vec<Waiting>> {
        for (name, path) in self.files()? {
            if path.extension().is_some_and(|extension| extension == "receiving") {
                self.set_aside_leftover(name, &path)?;
            }
        }
        let waiting = self.files()?.into_iter().filter_map(|(name, path)| waiting(name, path));
        let mut waiting: Vec<Waiting> = waiting.collect();
        waiting.sort_by_key(|file| (file.name, file.end));
        Ok(waiting)
    }

    /// Segments and their files. What has another name is not ours.
    fn files(&self) -> Result<Vec<(SegmentName, PathBuf)>> {
        let listing = || format!("list {}", self.directory.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory).doing(listing)? {
            let path = entry.doing(listing)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(segment) = name.split('.').next().unwrap_or_default().parse() {
                files.push((segment, path));
            }
        }
        Ok(files)
    }

    /// After a crash a file may end in something that was never received: it counts up to its last whole
    /// record.
    fn set_aside_leftover(&self, name: SegmentName, path: &Path) -> Result<()> {
        let end = valid_end(name, path)?;
        File::open(path)
            .and_then(|file| file.sync_all())
            .doing(|| format!("make {} durable", path.display()))?;
        match end {
            Some(end) => self.set_aside(name, path, end).map(drop),
            // Space that was never written: nothing of it was ever reported.
            None if is_blank(path)? => remove(path),
            None => self.keep_unreadable(name, path),
        }
    }

    /// It may be damaged, and the only copy: not ours to remove.
    fn keep_unreadable(&self, name: SegmentName, path: &Path) -> Result<()> {
        let now = jiff::Timestamp::now().as_nanosecond();
        let target = self.directory.join(format!("{name}.{now}.unreadable"));
        rename(path, &target)?;
        tracing::error!(
            "what was received of {name} is no WAL that can be read; it is kept as {} and not stored",
            target.display()
        );
        Ok(())
    }

    /// Gives a durable file its set-aside name, unless a longer one is there already.
    fn set_aside(&self, name: SegmentName, path: &Path, end: Lsn) -> Result<Option<Waiting>> {
        let others = self.files()?.into_iter().filter_map(|(name, path)| waiting(name, path));
        let others: Vec<Waiting> = others.filter(|other| other.name == name && other.end.is_some()).collect();
        if others.iter().any(|other| other.end > Some(end)) {
            remove(path)?;
            return Ok(None);
        }
        let target = self.directory.join(format!("{name}.{:016X}.partial", end.0));
        rename(path, &target)?;
        for shorter in others.iter().filter(|other| other.end < Some(end)) {
            remove(&shorter.path)?;
        }
        Ok(Some(Waiting { name, path: target, end: Some(end) }))
    }

    /// The segment in progress is not gone on with: it waits as it is. None: nothing of it has to.
    pub fn abandon(&self, mut receiving: Receiving) -> Result<Option<Waiting>> {
        if receiving.written < SegmentHeader::LENGTH as u64 {
            remove(&receiving.path)?;
            return Ok(None);
        }
        receiving.sync()?;
        self.set_aside(receiving.name, &receiving.path, receiving.received())
    }
}

/// None: it is in progress, or not ours.
fn waiting(name: SegmentName, path: PathBuf) -> Option<Waiting> {
    let file = path.file_name()?.to_str()?;
    match file.split_once('.') {
        None => Some(Waiting { name, path, end: None }),
        Some((_, rest)) => {
            let end = rest.strip_suffix(".partial").filter(|end| end.len() == 16)?;
            let end = Lsn(u64::from_str_radix(end, 16).ok()?);
            Some(Waiting { name, path, end: Some(end) })
        }
    }
}

/// Whether a file is shorter than a segment's header, or holds only zeros.
fn is_blank(path: &Path) -> Result<bool> {
    let reading = || format!("read {}", path.display());
    let mut file = File::open(path).doing(reading)?;
    if file.metadata().doing(reading)?.len() < SegmentHeader::LENGTH as u64 {
        return Ok(true);
    }
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).doing(reading)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(true),
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => return Ok(false),
            Some(_) => {}
        }
    }
}

/// Where the last whole record in an unfinished segment ends, or, if it holds only the rest of one that began
/// earlier, where the file ends. None: it holds no WAL.
fn valid_end(name: SegmentName, path: &Path) -> Result<Option<Lsn>> {
    let reading = || format!("read {}", path.display());
    let mut file = File::open(path).doing(reading)?;
    let mut first = Vec::new();
    (&mut file).take(SegmentHeader::LENGTH as u64).read_to_end(&mut first).doing(reading)?;
    let Ok(header) = SegmentHeader::parse(&first) else { return Ok(None) };
    if header.check(name, header.segment_size.bytes()).is_err() {
        return Ok(None);
    }
    let mut walk = Walk::new(&header, name, Extent::Partial);
    walk.feed(&first);
    let mut length = first.len();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).doing(reading)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        walk.feed(bytes);
        length = length.saturating_add(read);
    }
    // The walk looks at whole pages.
    let page = header.block_size as usize;
    walk.feed(&vec![0; length.next_multiple_of(page).saturating_sub(length)]);
    let file_end = Lsn(header.page_address.0.saturating_add(length as u64));
    Ok(Some(walk.finish().end_lsn.map_or(file_end, |end| end.min(file_end))))
}

/// The segment in progress.
#[derive(Debug)]
pub(super) struct Receiving {
    name: SegmentName,
    start: Lsn,
    size: SegmentSize,
    path: PathBuf,
    file: File,
    /// Bytes from the segment's start, in the file
    written: u64,
    /// and durable.
    synced: u64,
}

impl Receiving {
    pub fn name(&self) -> SegmentName {
        self.name
    }

    pub fn received(&self) -> Lsn {
        Lsn(self.start.0.saturating_add(self.written))
    }

    pub fn synced(&self) -> Lsn {
        Lsn(self.start.0.saturating_add(self.synced))
    }

    pub fn is_whole(&self) -> bool {
        self.written >= self.size.bytes()
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).doing(|| format!("write {}", self.path.display()))?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Makes what was written durable. After an error nobody knows what is durable: whoever gets one ends.
    pub fn sync(&mut self) -> Result<()> {
        if self.synced < self.written {
            self.file.sync_data().doing(|| format!("make {} durable", self.path.display()))?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Another view of the file, for who copies it while it grows.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).doing(|| format!("open {}", self.path.display()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The segment is whole: it gets its name.
    pub fn complete(mut self) -> Result<Waiting> {
        self.sync()?;
        let target = self.path.with_file_name(self.name.to_string());
        rename(&self.path, &target)?;
        Ok(Waiting { name: self.name, path: target, end: None })
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).doing(|| format!("rename {} to {}", from.display(), to.display()))?;
    durable::sync_dir(durable::parent(to))
}

/// Removes a file; one that is gone already is fine. Lost with a power cut, the removal only costs a second one.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), &cause))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Timeline;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    const SIZE: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(SIZE).expect("a size")
    }

    fn name(number: u64) -> SegmentName {
        SegmentName::from_number(Timeline(1), number, size())
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = Spool::open(dir.path().join("spool")).expect("opened");
        (dir, spool)
    }

    fn received(spool: &Spool, number: u64, length: usize) -> Receiving {
        let mut receiving = spool.begin(name(number), size().start_of(number), size()).expect("begun");
        receiving.append(&vec![7; length]).expect("written");
        receiving
    }

    #[test]
    fn a_directory_is_used_by_one_receiver_at_a_time() {
        let (_dir, spool) = spool();
        let error = Spool::open(spool.directory().to_path_buf()).expect_err("taken");
        assert!(error.message().contains("another wal-receive uses"), "{error}");
        assert_eq!(Spool::is_in_use(spool.directory()), Ok(true));
        let directory = spool.directory().to_path_buf();
        drop(spool);
        // A process that another test starts just now has the lock until it runs its program.
        let is_free = || Spool::is_in_use(&directory) == Ok(false);
        let waited = (0..200).any(|_| {
            is_free() || {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        });
        assert!(waited, "the lock is free again");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(
            Spool::open(directory).is_err_and(|error| error.message().contains("others can write there"))
        );
    }

    #[test]
    fn a_whole_segment_waits_under_its_name() {
        let (_dir, spool) = spool();
        let mut receiving = received(&spool, 3, 100);
        assert_eq!((receiving.received(), receiving.synced()), (Lsn(3 * SIZE + 100), Lsn(3 * SIZE)));
        receiving.sync().expect("durable");
        assert_eq!(receiving.synced(), Lsn(3 * SIZE + 100));
        receiving.append(&vec![7; (SIZE - 100) as usize]).expect("written");
        assert!(receiving.is_whole());
        let whole = receiving.complete().expect("renamed");
        assert_eq!(spool.take_stock(), Ok(vec![whole.clone()]));
        assert_eq!(whole.path, spool.directory().join("000000010000000000000003"));
    }

    #[test]
    fn of_several_unfinished_files_of_a_segment_the_longest_waits() {
        let (_dir, spool) = spool();
        let longest = || {
            vec![Waiting {
                name: name(3),
                path: spool.directory().join("000000010000000000000003.00000000003000C8.partial"),
                end: Some(Lsn(3 * SIZE + 200)),
            }]
        };
        spool.abandon(received(&spool, 3, 100)).expect("set aside");
        assert_eq!(
            spool.abandon(received(&spool, 3, 200)).expect("set aside").into_iter().collect::<Vec<_>>(),
            longest()
        );
        assert_eq!(spool.abandon(received(&spool, 3, 150)), Ok(None));
        assert_eq!(spool.take_stock(), Ok(longest()));
        assert_eq!(spool.abandon(received(&spool, 4, 39)), Ok(None), "not even a header");
        assert_eq!(spool.take_stock(), Ok(longest()));
    }

    #[test]
    fn what_a_killed_receiver_left_and_is_no_wal_is_not_stored() {
        let (_dir, spool) = spool();
        let list = || {
            let names = fs::read_dir(spool.directory()).expect("listed").map(|entry| entry.expect("entry"));
            let mut names: Vec<String> =
                names.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            names
        };
        fs::write(spool.directory().join("status.json"), "{}").expect("written");
        // Blank, too short, and something that nobody knows.
        for (number, content) in [(3, vec![0; 9000]), (4, vec![7; 39]), (5, vec![7; 9000])] {
            let path = spool.directory().join(format!("{}.receiving", name(number)));
            fs::write(path, content).expect("written");
        }
        for _ in 0..2 {
            assert_eq!(spool.take_stock(), Ok(vec![]));
            let left = list();
            let [kept, lock, status] = left.as_slice() else { panic!("{left:?}") };
            assert!(kept.starts_with("000000010000000000000005.") && kept.ends_with(".unreadable"), "{kept}");
            assert_eq!((lock.as_str(), status.as_str()), ("lock", "status.json"));
            assert_eq!(fs::read(spool.directory().join(kept)).expect("kept"), vec![7; 9000]);
        }
    }
}
