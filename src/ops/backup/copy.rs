//! Copying: a walker plans units, workers read them, and this thread writes what they read, in order.
//!
//! Every unit carries the memory for its frame, and there are only so many of those: that bounds how far
//! walker and workers get ahead, and so the memory. There is no lock between them but the channels', taken
//! twice for 4 MiB. Whoever fails ends all: channels close, and a flag wakes those who wait for
//! something else.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::read::{ReadUnit, Reading, UnitReader};
use super::sink::Sink;
use super::units::{Planner, Unit};
use crate::error::{Error, Result};
use crate::pg::control::ControlFile;
use crate::pg::datadir::{DataDir, Found, FoundKind};
use crate::repo::map::{Attributes, FileMode, MapPath};

/// How often the thread that writes looks whether it shall go on.
const WATCH: Duration = Duration::from_millis(200);

/// Frames that may wait for an earlier one, beside one for each worker.
const AHEAD: usize = 2;

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

struct Job {
    unit: Unit,
    recycled: Vec<u8>,
}

/// Copies everything but pg_control into `sink`. `watch` is called several times a second; its error ends
/// the copy.
pub fn copy(
    source: &Source<'_>,
    sink: &mut Sink,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Skipped>> {
    let jobs = source.jobs.get();
    thread::scope(|scope| {
        let (recycle, recycled) = bounded(jobs + AHEAD);
        for _ in 0..jobs + AHEAD {
            send(&recycle, Vec::new())?;
        }
        let (plan, planned) = bounded(jobs);
        let (report, results) = bounded(jobs + AHEAD);
        let walker = spawn(scope, "walk", move || walk(source, &recycled, &plan))?;
        spawn(scope, "measure", || measure(source))?;
        for _ in 0..jobs {
            let (planned, report) = (planned.clone(), report.clone());
            spawn(scope, "copy", move || work(source.reading, &planned, &report))?;
        }
        drop((planned, report));
        let written = write(&results, &recycle, sink, watch);
        // Wakes those who wait for the throttle or measure; closing the channels wakes the others.
        source.reading.stop.set();
        drop((results, recycle));
        let walked = walker.join().map_err(|_| Error::bug("the walk panicked"))?;
        // When writing failed, the walk failed too, for lack of a receiver.
        written.and(walked)
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new()
        .name(name.into())
        .spawn_scoped(scope, run)
        .map_err(|cause| Error::io("start a thread", &cause))
}

fn send<T>(to: &Sender<T>, item: T) -> Result<()> {
    to.send(item).map_err(|_| Error::transient("the copy was given up"))
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

/// Plans units, each as soon as there is memory for its frame.
fn walk(source: &Source<'_>, recycled: &Receiver<Vec<u8>>, plan: &Sender<Job>) -> Result<Vec<Skipped>> {
    let mut skipped = Vec::new();
    let mut planner = Planner::new(|unit| {
        let recycled = recycled.recv().map_err(|_| Error::transient("the copy was given up"))?;
        send(plan, Job { unit, recycled })
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

/// One worker: ends when there is nothing left to read, or nobody to read it for.
fn work(reading: &Reading<'_>, planned: &Receiver<Job>, report: &Sender<Result<ReadUnit>>) {
    let mut reader = match UnitReader::new(reading) {
        Ok(reader) => reader,
        Err(error) => {
            // Nobody is left to tell if this fails.
            drop(report.send(Err(error)));
            return;
        }
    };
    for job in planned {
        let read = reader.read(job.unit, job.recycled);
        let failed = read.is_err();
        if report.send(read).is_err() || failed {
            return;
        }
    }
}

/// Writes the results as they come, until all workers have ended.
fn write(
    results: &Receiver<Result<ReadUnit>>,
    recycle: &Sender<Vec<u8>>,
    sink: &mut Sink,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut looked = Instant::now();
    loop {
        match results.recv_timeout(WATCH) {
            Ok(unit) => {
                for buffer in sink.accept(unit?)? {
                    // The walker is gone once it has planned everything.
                    drop(recycle.send(buffer));
                }
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
