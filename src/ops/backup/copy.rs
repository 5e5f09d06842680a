//! Copying: a walker plans units, workers read them into packs of their own, and this thread writes the map
//! of what they read, in order.
//!
//! A unit needs a permit, and there are only so many: that bounds how far walker and workers get ahead of the
//! map, and so the memory. There is no lock between them but the channels', taken a few times for each
//! unit. Whoever fails ends all: channels close, and a flag wakes those who wait for something else.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::read::{ReadUnit, Reading, UnitReader};
use super::sink::Sink;
use super::units::{Planner, Unit};
use crate::error::{Error, Result};
use crate::pg::control::ControlFile;
use crate::pg::datadir::{DataDir, Found, FoundKind};
use crate::repo::map::{Attributes, FileMode, MapPath};
use crate::repo::pack::PackWriter;
use crate::threads;

/// How often the thread that writes looks whether it shall go on.
const WATCH: Duration = Duration::from_millis(200);

/// Units on their way, for each worker. A few more than one, so that nobody waits for a slow one; they hold
/// paths and slices only, no bytes.
const PERMITS: usize = 4;

/// What is copied.
pub struct Source<'a> {
    pub data_dir: &'a DataDir,
    /// Configuration outside the data directory, sorted.
    pub config: &'a [ConfigFile],
    pub reading: &'a Reading<'a>,
    pub jobs: NonZeroUsize,
}

/// A file outside the data directory that belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    pub attributes: Attributes,
    /// In bytes.
    pub size: u64,
}

/// What the walk saw and did not copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Relative to the data directory.
    pub path: PathBuf,
    pub reason: &'static str,
}

/// Skipped entries that are named, at most.
const SKIPPED_NAMED: usize = 100;

/// What came of a copy.
pub struct CopiedFiles {
    /// At least one, none of them finished.
    pub packs: Vec<PackWriter>,
    pub skipped: Vec<Skipped>,
}

/// Copies everything but pg_control; `sink` writes the map. `watch` is called several times a second; its
/// error ends the copy.
pub fn copy(
    source: &Source<'_>,
    packs: &PackWriter,
    sink: &mut Sink,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<CopiedFiles> {
    let jobs = source.jobs.get();
    thread::scope(|scope| {
        let (permit, permits) = bounded(PERMITS * jobs);
        (0..PERMITS * jobs).try_for_each(|_| send(&permit, ()))?;
        let (plan, planned) = bounded(jobs);
        let (report, results) = bounded(jobs);
        let walker = threads::start(scope, "walk", move || walk(source, &permits, &plan))?;
        threads::start(scope, "measure", || measure(source))?;
        let mut workers = Vec::with_capacity(jobs);
        for _ in 0..jobs {
            let (planned, report, packs) = (planned.clone(), report.clone(), packs.sibling());
            workers
                .push(threads::start(scope, "copy", move || work(source.reading, packs, &planned, &report))?);
        }
        drop((planned, report));
        let written = write(&results, &permit, sink, watch);
        // Wakes those who wait for the throttle or measure; closing the channels wakes the others.
        source.reading.stop.set();
        drop((results, permit));
        let panicked = |_| Error::bug("a thread of the copy panicked");
        let walked = walker.join().map_err(panicked)?;
        let packs =
            workers.into_iter().map(|worker| worker.join().map_err(panicked)).collect::<Result<_>>()?;
        // When writing failed, the walk failed too, for lack of a receiver: the cause counts.
        written?;
        Ok(CopiedFiles { packs, skipped: walked? })
    })
}

fn send<T>(to: &Sender<T>, item: T) -> Result<()> {
    to.send(item).map_err(|_| given_up())
}

/// Somebody else failed, and says why.
fn given_up() -> Error {
    Error::transient("the copy was given up")
}

/// Adds up the sizes of all files, so that progress can tell a share. Whoever copies does not wait for it.
fn measure(source: &Source<'_>) {
    let mut total = 0;
    let measured = source.data_dir.walk(&mut |found| {
        if let FoundKind::File { size } = found.kind {
            total += size;
        }
        source.reading.stop.check()
    });
    // What goes wrong here goes wrong in the walk that counts, too.
    if measured.is_ok() {
        source.reading.progress.set_total(total);
    }
}

/// Plans units, each as soon as there is a permit for it.
fn walk(source: &Source<'_>, permits: &Receiver<()>, plan: &Sender<Unit>) -> Result<Vec<Skipped>> {
    let mut skipped = Vec::new();
    let mut planner = Planner::new(|unit| {
        permits.recv().map_err(|_| given_up())?;
        send(plan, unit)
    });
    let pg_control = ControlFile::path(Path::new(""));
    source.data_dir.walk(&mut |found| match found.kind {
        // Copied last.
        _ if found.path == pg_control => Ok(()),
        FoundKind::Directory => planner.directory(attributes(&found)?),
        FoundKind::File { size } => planner.file(attributes(&found)?, size),
        FoundKind::Skipped { reason } => {
            if skipped.len() < SKIPPED_NAMED {
                skipped.push(Skipped { path: found.path, reason });
            }
            Ok(())
        }
    })?;
    for file in source.config {
        planner.file(file.attributes.clone(), file.size)?;
    }
    planner.finish()?;
    Ok(skipped)
}

fn attributes(found: &Found) -> Result<Attributes> {
    let mode = FileMode::from_st_mode(found.mode);
    Ok(Attributes { path: MapPath::data(&found.path)?, mode, mtime: found.modified })
}

/// One worker: ends when there is nothing left to read, or nobody to read it for. Its packs are worth
/// something only when nobody failed.
fn work(
    reading: &Reading<'_>,
    mut packs: PackWriter,
    planned: &Receiver<Unit>,
    report: &Sender<Result<ReadUnit>>,
) -> PackWriter {
    let failed = UnitReader::new(reading).and_then(|mut reader| {
        for unit in planned {
            send(report, Ok(reader.read(unit, &mut packs)?))?;
            // Now that nobody waits for this worker.
            packs.rotate()?;
        }
        Ok(())
    });
    if let Err(error) = failed {
        // If nobody is left to hear it, somebody else's failure was first.
        drop(report.send(Err(error)));
    }
    packs
}

/// Writes the results as they come, until all workers have ended.
fn write(
    results: &Receiver<Result<ReadUnit>>,
    permit: &Sender<()>,
    sink: &mut Sink,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut looked = Instant::now();
    loop {
        match results.recv_timeout(WATCH) {
            Ok(unit) => {
                let written = sink.accept(unit?)?;
                // A walker that has planned everything is gone, and needs no permits.
                (0..written).all(|_| permit.try_send(()).is_ok());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if looked.elapsed() >= WATCH {
            watch()?;
            looked = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests;
