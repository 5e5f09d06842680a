//! The threads of a restore: one reads the map and hands out tasks, the workers read frames and write files,
//! and one keeps the disk busy.
//!
//! Invariants: at most a few tasks per worker wait, so memory holds a few chunks of the map and a frame per
//! worker; the first error stops everybody.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::durability::{Counter, Durability, flush_when_due};
use super::files::FilesJob;
use super::scatter::{ChunkPlan, Scatterer};
use super::tree;
use crate::error::{Error, Result};
use crate::repo::map::{MapReader, Totals};
use crate::repo::pack::PackReader;
use crate::threads;

/// Files that one task shapes, at most.
const FILES_IN_TASK: usize = 64;

/// How often progress is shown, and a signal noticed.
const TICK: Duration = Duration::from_millis(200);

/// What the crew did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// What the map holds.
    pub totals: Totals,
    /// Bytes.
    pub written: u64,
    pub frames: u64,
    /// Whether some modes must still be set, since they would have kept us out.
    pub locked_modes: bool,
}

enum Task {
    Frame(Arc<ChunkPlan>, usize),
    Files(Arc<ChunkPlan>, Range<usize>),
}

/// Copies everything but what comes last.
pub fn copy(job: &FilesJob<'_>, map: &MapReader, durability: &Durability) -> Result<Copied> {
    let (counter, due) = Counter::new();
    let counter = Arc::new(counter);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flusher = threads::start(scope, "flush", || stopping(&stop, flush_when_due(durability, due)))?;
        let (tasks, queue) = bounded(2 * job.jobs.get());
        let (alive, ended) = bounded::<()>(0);
        let hire = |_| {
            let worker = Worker {
                scatterer: Scatterer::new(PackReader::new(job.cluster)?, durability.each_file()),
                counter: counter.clone(),
                job,
                copied: Copied::default(),
            };
            let (queue, alive, stop) = (queue.clone(), alive.clone(), &stop);
            threads::start(scope, "restore", move || {
                let copied = stopping(stop, worker.run(&queue, stop));
                drop(alive);
                copied
            })
        };
        let workers: Vec<ScopedJoinHandle<'_, Result<Copied>>> =
            (0..job.jobs.get()).map(hire).collect::<Result<_>>()?;
        drop((queue, alive));
        let fed = stopping(&stop, Feeder { job, tasks, stop: &stop }.run(map));
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            job.progress.tick();
        }
        drop(counter);
        let mut copied = Copied::default();
        for worker in workers {
            let part = join(worker)?;
            copied.written += part.written;
            copied.frames += part.frames;
        }
        join(flusher)?;
        let Copied { totals, locked_modes, .. } = fed?;
        Ok(Copied { totals, locked_modes, ..copied })
    })
}

/// Stops everybody if this is an error.
fn stopping<T>(stop: &AtomicBool, outcome: Result<T>) -> Result<T> {
    if outcome.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    outcome
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::bug("a thread of the restore panicked")))
}

/// Reads the map and hands out tasks. Dropping it tells the workers that no more come.
struct Feeder<'a> {
    job: &'a FilesJob<'a>,
    tasks: Sender<Task>,
    stop: &'a AtomicBool,
}

impl Feeder<'_> {
    fn run(self, map: &MapReader) -> Result<Copied> {
        let mut copied = Copied::default();
        for chunk in map.iter() {
            let chunk = chunk?;
            self.job.check(&chunk)?;
            copied.totals.add(&chunk);
            if chunk.is_final {
                continue;
            }
            tree::make_directories(&self.job.places, &chunk)?;
            copied.locked_modes |= tree::has_locked_modes(&chunk);
            let plan = Arc::new(ChunkPlan::new(&chunk, |path| self.job.places.locate(path)));
            for frame in spread(plan.frames.len(), self.job.jobs.get()) {
                self.send(Task::Frame(plan.clone(), frame))?;
            }
            for first in (0..plan.files.len()).step_by(FILES_IN_TASK) {
                let end = plan.files.len().min(first + FILES_IN_TASK);
                self.send(Task::Files(plan.clone(), first..end))?;
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(copied)
    }

    /// Waits for a place in the queue. When everybody stops, the task is dropped: that error counts.
    fn send(&self, mut task: Task) -> Result<()> {
        loop {
            self.job.interrupt.check()?;
            match self.tasks.send_timeout(task, TICK) {
                Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => task = back,
            }
            self.job.progress.tick();
        }
    }
}

/// The numbers below `count`, so that neighbours in time are far apart: workers that write into one file wait
/// for each other in the kernel, which locks a file for each write.
fn spread(count: usize, ways: usize) -> impl Iterator<Item = usize> {
    let share = count.div_ceil(ways).max(1);
    (0..share).flat_map(move |within| (within..count).step_by(share))
}

struct Worker<'a> {
    scatterer: Scatterer,
    counter: Arc<Counter>,
    job: &'a FilesJob<'a>,
    copied: Copied,
}

impl Worker<'_> {
    fn run(mut self, queue: &Receiver<Task>, stop: &AtomicBool) -> Result<Copied> {
        for task in queue {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match task {
                Task::Frame(plan, frame) => self.scatter(&plan, frame)?,
                Task::Files(plan, files) => self.shape(&plan, files)?,
            }
        }
        Ok(self.copied)
    }

    fn scatter(&mut self, plan: &ChunkPlan, frame: usize) -> Result<()> {
        let frame = plan.frames.get(frame).ok_or_else(|| Error::bug("a task without a frame"))?;
        let written = self.scatterer.scatter(plan, frame)?;
        self.copied.written += written.all;
        self.copied.frames += 1;
        self.counter.add(written.cached);
        self.job.progress.add(written.all);
        Ok(())
    }

    fn shape(&mut self, plan: &ChunkPlan, files: Range<usize>) -> Result<()> {
        for file in plan.files.get(files).unwrap_or_default() {
            self.scatterer.shape(file)?;
            self.job.progress.add(file.zeros);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spreading_leaves_nothing_out_and_keeps_neighbours_apart(count in 0usize..200, ways in 1usize..9) {
            let order: Vec<usize> = spread(count, ways).collect();
            let mut sorted = order.clone();
            sorted.sort();
            prop_assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            let share = count.div_ceil(ways).max(1);
            prop_assert!((0..count).step_by(share).eq(order.into_iter().take(count.div_ceil(share))));
        }
    }
}
