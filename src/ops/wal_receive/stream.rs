//! One connection after the other: from choosing where to begin to the moment at which it is lost, and what
//! happens with each piece of WAL in between.
//!
//! Invariant: a position is reported as flushed only when it is durable: in the repository, or with
//! `--synchronous` in the spool. An error of the spool ends the program.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{self, Known, Next, Pings, Reached};
use super::server;
use super::spool::Receiving;
use super::status::Status;
use super::{Ended, Receiver, Step};
use crate::error::{Error, IoContext, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::replication::{Event, Replication, Streaming};
use crate::repo::Cluster;
use crate::repo::catalog::Catalog;

/// What was written is durable after this at the latest.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The server is told where we are at least this often (wal_receiver_status_interval).
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long a signal, or news of the repository, may go unnoticed.
const TICK: Duration = Duration::from_millis(100);

/// The progress of one receiver, over all its connections.
#[derive(Default)]
pub(super) struct Progress {
    /// What comes next; None: that is still to be found out.
    pub next: Option<Next>,
    pub connected: bool,
    /// Where the server's WAL ends, as it said last.
    server_end: Lsn,
    /// Where the next byte belongs.
    position: Lsn,
    /// Where the segment in progress begins: all before was handed over to be stored, or is stored.
    segment_start: Lsn,
    /// What the server was told.
    flushed: Lsn,
    open: Option<Receiving>,
    synced: Option<Instant>,
    reported: Option<Instant>,
    /// When the last segment, or part of one, was handed over to be stored.
    handed_over: Option<Instant>,
    /// The end of the last part.
    part: Lsn,
    pings: Pings,
}

impl Receiver<'_> {
    /// Receives until the connection ends.
    pub(super) fn session(&mut self) -> Step<()> {
        let mut connection = self.connect()?;
        let identity = connection.identify().map_err(Ended::Lost)?;
        let expected = self.system_id.or(self.request.system_id);
        server::check_cluster(&self.repository, self.config, identity.system_id, expected)
            .map_err(Ended::of_repository)?;
        self.system_id = Some(identity.system_id);
        self.progress.server_end = identity.flushed;
        let size = connection.segment_size().map_err(Ended::Lost)?;
        let cluster = self.repository.cluster(&self.config.cluster, identity.system_id);
        let catalog = Catalog::new(&cluster, size);
        let reserved = self.access.reserve(&mut connection, &self.slot).map_err(Ended::Lost)?;
        let mut path = server::bring_history(&mut connection, &cluster, &catalog, identity.timeline)
            .map_err(Ended::of_repository)?;
        let mut next = match self.progress.next {
            Some(next) => plan::go_on(&path, next, size).map_err(Ended::Lost)?,
            None => self.find_start(&catalog, &path, reserved, size).map_err(Ended::of_repository)?,
        };
        loop {
            let (timeline, switch) = self.follow(&mut connection, &cluster, next, size)?;
            tracing::info!("timeline {} ends at {switch}; timeline {timeline} goes on", next.timeline);
            self.abandon().map_err(Ended::Fatal)?;
            path = server::bring_history(&mut connection, &cluster, &catalog, timeline)
                .map_err(Ended::of_repository)?;
            next = plan::on_path(&path, size.segment_of(switch), size);
        }
    }

    /// In a thread of its own, so that a signal does not wait for a host that does not answer. A thread that
    /// nobody waits for any more ends with its attempt, or with the process.
    fn connect(&mut self) -> Step<Replication> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let access = self.access.clone();
        let started = thread::Builder::new().name("connect".into()).spawn(move || {
            drop(sender.send(access.connect()));
        });
        started.doing(|| "start a thread").map_err(Ended::Lost)?;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(connected) => return connected.map_err(Ended::of_connecting),
                Err(RecvTimeoutError::Timeout) => self.keep_going()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Ended::Fatal(Error::bug("the thread that connects ended without a word")));
                }
            }
        }
    }

    /// Where the archive ends.
    fn find_start(
        &self,
        catalog: &Catalog<'_>,
        path: &TimelineHistory,
        reserved: Option<Lsn>,
        size: SegmentSize,
    ) -> Result<Next> {
        let reserved = reserved.map(|lsn| size.segment_of(lsn));
        // Most often the newest is the one before the slot's: only then the whole archive is not listed.
        let recent = match reserved {
            Some(reserved) => catalog.newest_on(path, reserved.saturating_sub(1))?,
            None => None,
        };
        let newest = match recent {
            Some(newest) => Some(newest),
            None => catalog.newest_on(path, 0)?,
        };
        let missing = match (reserved, newest) {
            (Some(reserved), Some(newest)) => {
                catalog.first_missing(path, reserved, newest.saturating_add(1))?
            }
            _ => None,
        };
        // An empty listing may also mean that the repository's disk went away.
        catalog.cluster().repository().confirm()?;
        let current = size.segment_of(self.progress.server_end);
        let accept_gap = self.request.accept_gap;
        let number = plan::first_segment(Known { reserved, newest, missing, current, accept_gap });
        if let Some(newest) = newest.filter(|newest| newest.saturating_add(1) < number && accept_gap) {
            let name = |number| plan::on_path(path, number, size).name(size);
            let (newest, next) = (name(newest), name(number));
            tracing::error!("a gap is accepted: the archive has nothing between {newest} and {next}");
        }
        Ok(plan::on_path(path, number, size))
    }

    /// Streams one timeline from the segment `next` on. Its successor, and where that begins.
    fn follow(
        &mut self,
        connection: &mut Replication,
        cluster: &Cluster,
        next: Next,
        size: SegmentSize,
    ) -> Step<(Timeline, Lsn)> {
        let gap = |error: Error, receiver: &Self| {
            let next = receiver.progress.next.unwrap_or(next).name(size);
            Ended::of_stream(server::explain(error, next, &receiver.slot))
        };
        self.begin(next, size);
        let (slot, timeout) = (self.slot.clone(), self.config.receive.timeout);
        let start = self.progress.position;
        let mut streaming =
            connection.start(Some(&slot), start, next.timeline, timeout).map_err(|error| gap(error, self))?;
        tracing::info!("streaming timeline {} of cluster {} from {start}", next.timeline, cluster.name());
        self.progress.connected = true;
        self.pulse.notifier.ready();
        let status = self.status();
        self.pulse.tell(self.spool.directory(), &status);
        loop {
            self.keep_going()?;
            if self.archiver.waiting().0 >= self.config.receive.backlog {
                self.wait_for_room(&mut streaming)?;
                continue;
            }
            let (mut asked, mut end) = (false, None);
            match streaming.next(Instant::now() + TICK).map_err(|error| gap(error, self))? {
                Event::Wal { start, server_end, bytes } => {
                    self.progress.server_end = server_end.max(self.progress.server_end);
                    self.progress.pings = Pings::default();
                    self.write(start, bytes, size)?;
                }
                Event::Keepalive { server_end, reply } => {
                    self.progress.server_end = server_end.max(self.progress.server_end);
                    asked = reply;
                }
                Event::EndOfTimeline { next, switch_lsn } => end = Some((next, switch_lsn)),
                Event::Nothing => {}
            }
            let drained = !streaming.has_message();
            self.sync(drained).map_err(Ended::Fatal)?;
            self.report(&mut streaming, asked, drained)?;
            if asked {
                self.let_go()?;
            }
            self.hand_over_part().map_err(Ended::Fatal)?;
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn begin(&mut self, next: Next, size: SegmentSize) {
        let progress = &mut self.progress;
        progress.position = next.start(size);
        progress.segment_start = progress.position;
        progress.next = Some(next);
        (progress.reported, progress.flushed, progress.part) = (None, Lsn::INVALID, Lsn::INVALID);
        progress.handed_over = Some(Instant::now());
        progress.pings = Pings::default();
    }

    /// Signals, failures of the repository, and signs of life.
    pub(super) fn keep_going(&mut self) -> Step<()> {
        if self.interrupt.is_set() {
            return Err(Ended::Asked);
        }
        self.archiver.check().map_err(Ended::Fatal)?;
        if self.pulse.beat() {
            let status = self.status();
            self.pulse.tell(self.spool.directory(), &status);
        }
        Ok(())
    }

    /// The repository does not keep up. The server keeps the WAL meanwhile, and us, as long as it hears of us.
    fn wait_for_room(&mut self, streaming: &mut Streaming<'_>) -> Step<()> {
        tracing::warn!(
            "the spool is full of segments that wait for the repository; nothing is read meanwhile"
        );
        let backlog = self.config.receive.backlog;
        while self.archiver.waiting().0 > backlog / 2 {
            self.keep_going()?;
            self.sync(true).map_err(Ended::Fatal)?;
            self.report(streaming, false, false)?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Takes WAL that begins at `start`.
    fn write(&mut self, start: Lsn, mut bytes: &[u8], size: SegmentSize) -> Step<()> {
        if start != self.progress.position {
            return Err(Ended::Lost(Error::transient(format!(
                "the server sent WAL from {start} on, but {} was next",
                self.progress.position
            ))));
        }
        while !bytes.is_empty() {
            let length = plan::within_segment(self.progress.position, bytes.len(), size);
            let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            self.append(part, size).map_err(Ended::Fatal)?;
            bytes = rest;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], size: SegmentSize) -> Result<()> {
        let Some(next) = self.progress.next else { return Err(Error::bug("no segment was chosen")) };
        let mut open = match self.progress.open.take() {
            Some(open) => open,
            None => self.spool.begin(next.name(size), next.start(size), size)?,
        };
        open.append(bytes)?;
        self.progress.position = open.received();
        if !open.is_whole() {
            self.progress.open = Some(open);
            return Ok(());
        }
        self.archiver.take(open.complete()?)?;
        self.progress.segment_start = self.progress.position;
        self.progress.next = Some(Next { number: next.number.saturating_add(1), ..next });
        self.progress.handed_over = Some(Instant::now());
        Ok(())
    }

    /// Makes what was written durable: once a second, or as soon as nothing more is there to be written.
    fn sync(&mut self, drained: bool) -> Result<()> {
        let due = self.progress.synced.is_none_or(|synced| synced.elapsed() >= SYNC_EVERY);
        if due || (self.config.receive.synchronous && drained) {
            if let Some(open) = &mut self.progress.open {
                open.sync()?;
            }
            self.progress.synced = Some(Instant::now());
        }
        Ok(())
    }

    fn reached(&self) -> Reached {
        let progress = &self.progress;
        Reached {
            received: progress.position,
            synced: progress.open.as_ref().map_or(progress.position, Receiving::synced),
            archived: self.archived(),
        }
    }

    /// On this path all before is in the repository. What waits from behind a fork does not count.
    fn archived(&self) -> Lsn {
        let begun = self.progress.segment_start;
        self.archiver.first_waiting().map_or(begun, |waiting| waiting.min(begun))
    }

    /// Tells the server where we are: when it asks, when more is durable, and every few seconds.
    fn report(&mut self, streaming: &mut Streaming<'_>, asked: bool, drained: bool) -> Step<()> {
        let positions = plan::positions(self.reached(), self.config.receive.synchronous);
        let due = self.progress.reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY);
        let news = positions.flushed > self.progress.flushed && drained;
        if asked || due || news {
            streaming.report(positions).map_err(Ended::Lost)?;
            self.progress.reported = Some(Instant::now());
            self.progress.flushed = positions.flushed;
        }
        Ok(())
    }

    /// A server that shuts down waits until we report all of its WAL as flushed. We can't while the repository lacks
    /// some, and that may take long: we hold all of it, so we leave, the server ends, and the slot keeps the rest.
    fn let_go(&mut self) -> Step<()> {
        let shuts_down = self.progress.pings.count(Instant::now());
        if !shuts_down || self.progress.position < self.progress.server_end {
            return Ok(());
        }
        Err(Ended::Lost(Error::transient(format!(
            "the server shuts down; all of its WAL was received, up to {}, and what the repository lacks of it is in the spool",
            self.progress.position
        ))))
    }

    /// A segment that takes long to fill is stored as far as it is.
    fn hand_over_part(&mut self) -> Result<()> {
        let due = |since: Instant| since.elapsed() >= self.config.receive.partial_every;
        if !self.progress.handed_over.is_none_or(due) || self.archiver.waiting().1 > 0 {
            return Ok(());
        }
        self.progress.handed_over = Some(Instant::now());
        if let Some(open) = &mut self.progress.open
            && open.received() > self.progress.part
        {
            open.sync()?;
            self.progress.part = open.received();
            self.archiver.copy(open.name(), open.received(), open.path(), open.reader()?);
        }
        Ok(())
    }

    /// The segment in progress will not be gone on with on this connection: it is stored as far as it is.
    pub(super) fn abandon(&mut self) -> Result<()> {
        self.progress.connected = false;
        if let Some(open) = self.progress.open.take()
            && let Some(waiting) = self.spool.abandon(open)?
        {
            self.archiver.take(waiting)?;
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Status {
        let (waiting_bytes, waiting_files) = self.archiver.waiting();
        Status {
            pid: std::process::id(),
            slot: self.slot.to_string(),
            system_id: self.system_id,
            timeline: self.progress.next.map(|next| next.timeline),
            connected: self.progress.connected,
            server: self.progress.server_end.max(self.progress.position),
            received: self.progress.position,
            flushed: plan::positions(self.reached(), self.config.receive.synchronous).flushed,
            archived: self.archived(),
            waiting_files,
            waiting_bytes,
            updated: jiff::Timestamp::now(),
        }
    }
}

impl Ended {
    /// Only a configuration that can't work is worth ending for: the server may come back, or let us in.
    fn of_connecting(error: Error) -> Self {
        if error.kind() == Kind::Configuration { Ended::Fatal(error) } else { Ended::Lost(error) }
    }

    /// What the repository says, or what was found in it.
    fn of_repository(error: Error) -> Self {
        match error.kind() {
            Kind::Conflict | Kind::Corrupt | Kind::Configuration | Kind::Bug => Ended::Fatal(error),
            Kind::NotFound | Kind::Transient | Kind::Postgres => Ended::Lost(error),
        }
    }

    /// What ends a stream. WAL that is gone does not come back, nor does a slot.
    fn of_stream(error: Error) -> Self {
        match error.kind() {
            Kind::NotFound | Kind::Configuration => Ended::Fatal(error),
            _ => Ended::Lost(error),
        }
    }
}
