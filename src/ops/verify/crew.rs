//! The workers: each takes the next unit of the plan, checks it, and tells the plan. One thread watches.
//!
//! Memory: a chunk of a map, or 4 MiB of frames, or the buffers of a decompression for each of them.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::context::Context;
use super::plan::{Plan, Unit};
use super::{backups, packs, wal};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::repo::pack::PackReader;
use crate::threads;

/// How often progress is drawn and signals are looked for.
const WATCH: Duration = Duration::from_millis(100);

/// Works the plan off. After an error the plan still says how far it came.
pub fn run(
    context: &Context<'_>,
    plan: Plan,
    jobs: NonZeroUsize,
    interrupt: &Interrupt,
) -> (Plan, Result<()>) {
    let plan = Mutex::new(plan);
    let outcome = std::thread::scope(|scope| {
        let (working, ended) = bounded::<()>(0);
        let mut workers = Vec::new();
        for _ in 0..jobs.get() {
            let (plan, working) = (&plan, working.clone());
            let worker = threads::start(scope, "verify", move || {
                let outcome = work(context, plan);
                if outcome.is_err() {
                    context.stop.set();
                }
                drop(working);
                outcome
            });
            match worker {
                Ok(worker) => workers.push(worker),
                // Fewer hands do it too.
                Err(_) if !workers.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        drop(working);
        while ended.recv_timeout(WATCH) != Err(RecvTimeoutError::Disconnected) {
            context.progress.tick();
            if interrupt.is_set() {
                context.stop.set();
            }
        }
        let outcomes = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())));
        // One that was stopped because of another's error has not the news.
        let errors: Vec<Error> = outcomes.filter_map(Result::err).collect();
        let first = errors.iter().find(|error| error.message() != "interrupted").or(errors.first());
        first.map_or(Ok(()), |error| Err(error.clone()))
    });
    (plan.into_inner().unwrap_or_else(PoisonError::into_inner), outcome)
}

fn panicked() -> Error {
    Error::bug("a worker of the verification panicked")
}

fn work(context: &Context<'_>, plan: &Mutex<Plan>) -> Result<()> {
    let mut hands = PackReader::new(context.cluster)?;
    loop {
        let Some((number, unit)) = lock(plan).next(context)? else { return Ok(()) };
        match unit {
            Unit::Chunk(map, chunk) => backups::check_chunk(context, &map, chunk, &mut hands)?,
            Unit::Wal(key, object) => wal::check(context, &key, &object)?,
            Unit::Frames(pack, run) => packs::check(context, &pack, run)?,
        }
        lock(plan).done(number);
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}
