//! What is remembered, durably in the spool, while the repository can't be reached: how many pushes have failed
//! in a row, which WAL was dropped, which small files are owed. With the next success all of it goes into the
//! repository and is forgotten here.
//!
//! Refuses to go on over a record that it can't read: it may say which WAL is missing from the archive.
//! Invariant: nothing is dropped, and nothing deferred, that is not in a durable record.

use serde::{Deserialize, Serialize};

use super::Push;
use crate::error::{Error, IoContext, Result};
use crate::host;
use crate::pg::control::ControlFile;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::SystemId;
use crate::pg::names::WalFile;
use crate::repo::gap::{self, Gap};
use crate::repo::segment;
use crate::spool::{Hold, Spool};

const RECORD: &str = "outage.json";
const LOCK: &str = "outage.lock";
const FORMAT: &str = "pgark outage 1";

/// History files have a line per promotion, backup history files a dozen.
const MOST_DEFERRED: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outage {
    format: String,
    /// Pushes that failed in a row because the repository could not be reached.
    pub(super) failures: u32,
    gaps: Vec<Gap>,
    deferred: Vec<Deferred>,
}

/// A small file that PostgreSQL was told is archived, and that is still to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deferred {
    file: String,
    system_id: SystemId,
    content: Vec<u8>,
}

impl Default for Outage {
    fn default() -> Self {
        Self { format: FORMAT.to_string(), failures: 0, gaps: Vec::new(), deferred: Vec::new() }
    }
}

impl Outage {
    /// Unlike other records of the spool, this one must not be taken for missing when it can't be read.
    fn read(spool: &Spool) -> Result<Option<Self>> {
        let path = spool.directory().join(RECORD);
        if !path.try_exists().doing(|| format!("look for {}", path.display()))? {
            return Ok(None);
        }
        let record = spool.read(RECORD).filter(|outage: &Self| outage.format == FORMAT);
        record.map(Some).ok_or_else(|| {
            Error::corrupt(format!("could not read the record of dropped WAL in {}", path.display()))
                .with_hint("keep it: it says which WAL is missing from the archive; move it away to go on")
        })
    }

    /// Takes the asked file into the record, which is still to be written.
    pub(super) fn take(&mut self, push: &Push, control: &ControlFile) -> Result<()> {
        match push.file {
            WalFile::Segment(name) | WalFile::Partial(name) => {
                for gap in &mut self.gaps {
                    if gap.extend(name, control.system_id)? {
                        return Ok(());
                    }
                }
                self.gaps.push(Gap::of(name, control.system_id, control.segment_size, host::name())?);
                Ok(())
            }
            WalFile::History(_) | WalFile::BackupHistory(..) => self.defer(push, control.system_id),
        }
    }

    fn defer(&mut self, push: &Push, system_id: SystemId) -> Result<()> {
        let content = super::read_plain(push.open()?, push.path)?;
        if content.len() > MOST_DEFERRED {
            return Err(Error::transient(format!("{} is too large to be deferred", push.path.display())));
        }
        let new = Deferred { file: push.file.to_string(), system_id, content };
        if !self.deferred.contains(&new) {
            self.deferred.push(new);
        }
        Ok(())
    }

    fn owes_nothing(&self) -> bool {
        self.failures == 0 && self.gaps.is_empty() && self.deferred.is_empty()
    }
}

/// The record, while nobody else has it.
pub(super) struct Held {
    spool: Spool,
    pub(super) outage: Outage,
    _lock: Hold,
}

impl Held {
    /// Takes the record, or begins one.
    pub(super) fn open(spool: Spool) -> Result<Self> {
        spool.prepare_durable()?;
        let lock = spool.hold_soon(LOCK)?;
        let lock = lock.ok_or_else(|| Error::transient("another wal-push has the record of the outage"))?;
        let outage = Outage::read(&spool)?.unwrap_or_default();
        Ok(Self { spool, outage, _lock: lock })
    }

    /// Durable when it returns.
    pub(super) fn write(&self) -> Result<()> {
        self.spool.write(RECORD, &self.outage)
    }

    /// The same, but there is no record of nothing.
    fn keep(&self) -> Result<()> {
        if self.outage.owes_nothing() { self.spool.remove(RECORD) } else { self.write() }
    }
}

/// What a record of the spool says, for those who only look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ops) struct Owed {
    /// Pushes that failed in a row because the repository could not be reached.
    pub failures: u32,
    /// WAL that was dropped, and is not recorded in the repository yet.
    pub gaps: Vec<Gap>,
}

/// Nothing is owed where there is no record.
pub(in crate::ops) fn look(spool: &Spool) -> Result<Owed> {
    let outage = Outage::read(spool)?.unwrap_or_default();
    Ok(Owed { failures: outage.failures, gaps: outage.gaps })
}

/// Whether there is a record: one stat.
fn is_remembered(spool: &Spool) -> bool {
    spool.directory().join(RECORD).exists()
}

/// The repository answered, though not with success: the failures are no longer in a row.
pub(super) fn answered(spool: Spool) -> Result<()> {
    if !is_remembered(&spool) {
        return Ok(());
    }
    let mut held = Held::open(spool)?;
    held.outage.failures = 0;
    held.keep()
}

/// A push has succeeded: what is owed to the repository goes there. Nearly always there is nothing to do.
pub(super) fn end(push: &Push) {
    let Some(data_directory) = push.data_directory else { return };
    let spool = Spool::of(push.config.spool.as_deref(), data_directory);
    if !is_remembered(&spool) {
        return;
    }
    let directory = spool.directory().to_path_buf();
    if let Err(error) = settle(push, spool) {
        tracing::error!(
            hint = error.hint(),
            "{error}; what was dropped is not recorded in the repository yet, but in {}",
            directory.display()
        );
    }
}

fn settle(push: &Push, spool: Spool) -> Result<()> {
    let mut held = Held::open(spool)?;
    let (kept, trouble) = bring_deferred(push, &held.outage.deferred);
    let mut gaps = Vec::new();
    for gap in &held.outage.gaps {
        gaps.extend(gap::missing(&push.cluster(gap.system_id)?, gap)?);
    }
    // On a disk that was unmounted meanwhile there is no repository, and all of that was in vain.
    push.repository()?.confirm()?;
    // What is cut short from here on is done again with the same ids.
    held.outage = Outage { gaps: gaps.clone(), deferred: kept, ..Outage::default() };
    held.keep()?;
    for gap in &gaps {
        gap::put(&push.cluster(gap.system_id)?, gap)?;
    }
    push.repository()?.confirm()?;
    held.outage.gaps.clear();
    held.keep()?;
    gaps.iter().for_each(tell);
    trouble.map_or(Ok(()), Err)
}

/// Those that could not be brought, and why the first of them.
fn bring_deferred(push: &Push, deferred: &[Deferred]) -> (Vec<Deferred>, Option<Error>) {
    let (mut kept, mut trouble) = (Vec::new(), None);
    for deferred in deferred {
        if let Err(error) = bring(push, deferred) {
            kept.push(deferred.clone());
            trouble.get_or_insert(error);
        }
    }
    (kept, trouble)
}

fn tell(gap: &Gap) {
    tracing::error!(
        hint = "take a backup now: it closes the gap; no earlier one can be restored beyond it",
        "WAL is missing from the archive: {}",
        gap.story()
    );
}

fn bring(push: &Push, deferred: &Deferred) -> Result<()> {
    let file: WalFile = deferred.file.parse()?;
    let cluster = push.cluster(deferred.system_id)?;
    segment::put_plain(&cluster, file, &deferred.content)?;
    if let WalFile::History(timeline) = file {
        push.bring_ancestors(&cluster, &TimelineHistory::parse(timeline, &deferred.content)?)?;
    }
    tracing::info!("{file} is archived, which it could not be while the repository was away");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::fs;
    use std::path::Path;

    fn spool(dir: &Path) -> Spool {
        Spool::of(Some(dir), Path::new("/x"))
    }

    #[test]
    fn failures_are_counted_from_call_to_call_until_the_repository_answers() {
        let dir = tempfile::tempdir().expect("tempdir");
        answered(spool(dir.path())).expect("nothing to forget");
        assert!(!spool(dir.path()).directory().exists());
        for expected in 0..3 {
            let mut held = Held::open(spool(dir.path())).expect("ours");
            assert_eq!(held.outage.failures, expected);
            held.outage.failures += 1;
            held.write().expect("written");
        }
        answered(spool(dir.path())).expect("forgotten");
        assert!(!is_remembered(&spool(dir.path())));
    }

    #[test]
    fn what_is_owed_survives_an_answer() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut held = Held::open(spool(dir.path())).expect("ours");
        held.outage.failures = 5;
        let content = b"1\t0/600028\t\xFF\n".to_vec();
        held.outage.deferred.push(Deferred {
            file: "00000002.history".into(),
            system_id: SystemId(7),
            content,
        });
        held.write().expect("written");
        let written = held.outage.clone();
        drop(held);
        assert_eq!(look(&spool(dir.path())), Ok(Owed { failures: 5, gaps: vec![] }));
        answered(spool(dir.path())).expect("forgotten");
        let held = Held::open(spool(dir.path())).expect("ours");
        assert_eq!(held.outage, Outage { failures: 0, ..written });
    }

    #[test]
    fn one_process_at_a_time_has_the_record() {
        let dir = tempfile::tempdir().expect("tempdir");
        let held = Held::open(spool(dir.path())).expect("ours");
        let error = Held::open(spool(dir.path())).map(drop).expect_err("taken");
        assert!(error.message().contains("another wal-push"), "{error}");
        drop(held);
        Held::open(spool(dir.path())).map(drop).expect("free");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_begun_anew() {
        let dir = tempfile::tempdir().expect("tempdir");
        let held = Held::open(spool(dir.path())).expect("ours");
        held.write().expect("written");
        drop(held);
        let path = spool(dir.path()).directory().join(RECORD);
        let whole = fs::read_to_string(&path).expect("read");
        for damaged in [&whole[..10], "", &whole.replace("outage 1", "outage 2")] {
            fs::write(&path, damaged).expect("written");
            let error = Held::open(spool(dir.path())).map(drop).expect_err("damaged");
            assert_eq!(error.kind(), Kind::Corrupt);
            assert_eq!(fs::read_to_string(&path).expect("read"), damaged);
        }
    }
}
