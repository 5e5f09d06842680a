//! Work on many segments at once, told in their order: each has a queue of its own with a bound, and the queues are
//! emptied one after the other. So memory is bounded by the jobs, and whoever listens sees one stream.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::{Error, Result};
use crate::threads;

/// Messages of one segment that wait to be heard.
const QUEUE: usize = 16;
/// How often somebody looks for signals while nothing is told.
const WATCH: Duration = Duration::from_millis(100);

/// Tells a message. Break: nobody listens any more.
pub type Tell<'a, M> = dyn FnMut(M) -> ControlFlow<()> + 'a;

/// What is heard of a task.
pub enum Heard<M> {
    Message(M),
    End(Result<()>),
}

/// Works on all tasks, and lets `hear` have what they tell, in the tasks' order. `watch` is asked now and then; its error,
/// or `hear`'s, ends everything.
pub fn in_order<T: Send + Sync + Copy, M: Send>(
    jobs: NonZeroUsize,
    mut tasks: impl Iterator<Item = T>,
    work: impl Fn(&T, &mut Tell<'_, M>) -> Result<()> + Sync,
    watch: &dyn Fn() -> Result<()>,
    hear: &mut dyn FnMut(&T, Heard<M>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (hand_out, handed) = bounded::<(T, Sender<Heard<M>>)>(jobs.get());
        let first: Vec<T> = tasks.by_ref().take(jobs.get()).collect();
        let mut hands = 0;
        for _ in &first {
            let (handed, work) = (handed.clone(), &work);
            match threads::start(scope, "find", move || worker(&handed, work)) {
                Ok(_) => hands += 1,
                // Fewer hands do it too.
                Err(_) if hands > 0 => break,
                Err(error) => return Err(error),
            }
        }
        drop(handed);
        let mut open: VecDeque<(T, Receiver<Heard<M>>)> = VecDeque::new();
        let mut waiting = first.into_iter().chain(tasks);
        loop {
            while open.len() < hands
                && let Some(task) = waiting.next()
            {
                let (tell, told) = bounded(QUEUE);
                hand_out.send((task, tell)).map_err(|_| ended_early())?;
                open.push_back((task, told));
            }
            let Some((task, told)) = open.pop_front() else { return Ok(()) };
            listen(&task, &told, watch, hear)?;
        }
    })
}

/// Hears one task until its end.
fn listen<T, M>(
    task: &T,
    told: &Receiver<Heard<M>>,
    watch: &dyn Fn() -> Result<()>,
    hear: &mut dyn FnMut(&T, Heard<M>) -> Result<()>,
) -> Result<()> {
    loop {
        watch()?;
        match told.recv_timeout(WATCH) {
            Ok(Heard::End(outcome)) => return hear(task, Heard::End(outcome)),
            Ok(message) => hear(task, message)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ended_early()),
        }
    }
}

fn ended_early() -> Error {
    Error::bug("a reader of segments ended early")
}

fn worker<T, M>(
    handed: &Receiver<(T, Sender<Heard<M>>)>,
    work: &impl Fn(&T, &mut Tell<'_, M>) -> Result<()>,
) {
    for (task, tell) in handed {
        let mut say = |message| match tell.send(Heard::Message(message)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let outcome = work(&task, &mut say);
        // Nobody listens any more: then nobody misses it.
        if tell.send(Heard::End(outcome)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jobs(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).expect("not 0")
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard_in_the_order_of_the_tasks(
            sizes in proptest::collection::vec(0_usize..60, 0..20),
            number in 1_usize..5,
        ) {
            let tasks: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
            let mut heard = Vec::new();
            let mut ends = Vec::new();
            in_order(
                jobs(number),
                tasks.iter().copied(),
                |(task, size), tell| {
                    (0..*size).for_each(|n| assert!(tell((*task, n)).is_continue()));
                    Ok(())
                },
                &|| Ok(()),
                &mut |task, message| {
                    match message {
                        Heard::Message(message) => heard.push(message),
                        Heard::End(outcome) => ends.push((task.0, outcome)),
                    }
                    Ok(())
                },
            )?;
            let expected: Vec<_> = tasks.iter().flat_map(|(task, size)| (0..*size).map(move |n| (*task, n))).collect();
            prop_assert_eq!(heard, expected);
            prop_assert_eq!(ends, (0..sizes.len()).map(|task| (task, Ok(()))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_failure_is_told_and_the_others_go_on() {
        let mut ends = Vec::new();
        let work = |task: &u32, _: &mut Tell<'_, ()>| match task {
            2 => Err(Error::corrupt("two")),
            _ => Ok(()),
        };
        let mut hear = |_: &u32, heard: Heard<()>| {
            if let Heard::End(outcome) = heard {
                ends.push(outcome.is_ok());
            }
            Ok(())
        };
        assert_eq!(in_order(jobs(2), [1, 2, 3].into_iter(), work, &|| Ok(()), &mut hear), Ok(()));
        assert_eq!(ends, [true, false, true]);
    }

    #[test]
    fn who_stops_listening_stops_the_work() {
        let endless = |_: &u32, tell: &mut Tell<'_, u64>| {
            while tell(7).is_continue() {}
            Ok(())
        };
        let stop = Error::transient("enough");
        let heard =
            in_order(jobs(3), [1, 2, 3, 4].into_iter(), endless, &|| Ok(()), &mut |_, _| Err(stop.clone()));
        assert_eq!(heard, Err(stop.clone()));
        let watched =
            in_order(jobs(3), [1, 2].into_iter(), endless, &|| Err(stop.clone()), &mut |_, _| Ok(()));
        assert_eq!(watched, Err(stop));
    }
}
