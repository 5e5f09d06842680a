//! WAL as the server sends it, until the timeline ends or the connection does.
//!
//! Refuses a server that is silent for too long, as walreceiver does (wal_receiver_timeout): after half of
//! the time it is asked for an answer, so that an idle server is not taken for a dead one.

use std::time::{Duration, Instant};

use super::messages::{self, Streamed};
use super::wire::put;
use super::{Failed, Replication, lost, protocol_error, refused, tell};
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::time::Timestamp;

/// A look that takes less may miss what has arrived.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What comes from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// WAL from `start` on. The server has flushed WAL up to `server_end`.
    Wal { start: Lsn, server_end: Lsn, bytes: &'a [u8] },
    /// Nothing new. With `reply`, [`Streaming::report`] at once.
    Keepalive { server_end: Lsn, reply: bool },
    /// The timeline ends here: its successor's first byte is at `switch_lsn`. The connection takes commands
    /// again.
    EndOfTimeline { next: Timeline, switch_lsn: Lsn },
    /// The time is up.
    Nothing,
}

/// Up to where we have what: the byte behind the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    pub written: Lsn,
    /// What the server need not keep for us, and what a synchronous commit waits for.
    pub flushed: Lsn,
}

/// A connection that streams.
pub struct Streaming<'c> {
    connection: &'c mut Replication,
    /// Silence that ends it.
    timeout: Duration,
    heard: Instant,
    /// The server was asked for an answer since it was heard.
    asked: bool,
    positions: Positions,
    /// There was nothing to stream.
    ended: Option<(Timeline, Lsn)>,
}

impl<'c> Streaming<'c> {
    pub(super) fn new(
        connection: &'c mut Replication,
        timeout: Duration,
        ended: Option<(Timeline, Lsn)>,
    ) -> Self {
        let (heard, positions) = (Instant::now(), Positions::default());
        Self { connection, timeout, heard, asked: false, positions, ended }
    }

    /// What comes next, if it comes before `until`.
    pub fn next(&mut self, until: Instant) -> Result<Event<'_>> {
        if let Some((next, switch_lsn)) = self.ended {
            return Ok(Event::EndOfTimeline { next, switch_lsn });
        }
        // However long nobody looked: what is there already is taken before the silence is judged.
        let limit = if self.asked { self.timeout } else { self.timeout / 2 };
        let until = until.min(self.heard + limit).max(Instant::now() + SHORTEST_LOOK);
        if !self.connection.wire.advance(until).map_err(|cause| lost(&cause))? {
            self.check_silence()?;
            return Ok(Event::Nothing);
        }
        (self.heard, self.asked) = (Instant::now(), false);
        match self.connection.wire.message().map(|message| message.tag) {
            Some(messages::COPY_DATA) => self.streamed(),
            Some(messages::COPY_DONE) => self.end_of_timeline(),
            _ => self.interrupted(),
        }
    }

    /// Whether the next message is here already, so that [`Streaming::next`] does not wait.
    pub fn has_message(&self) -> bool {
        // What is wrong with it is for `next` to say.
        self.ended.is_none() && self.connection.wire.has_message().unwrap_or(true)
    }

    /// Asks after half of the time, gives up after all of it.
    fn check_silence(&mut self) -> Result<()> {
        let silence = self.heard.elapsed();
        if silence >= self.timeout {
            return Err(Error::transient(format!(
                "the server has sent nothing for {} s; the connection is given up",
                self.timeout.as_secs()
            ))
            .with_hint("is the server's host, or the network to it, down?"));
        }
        if silence >= self.timeout / 2 && !self.asked {
            self.asked = true;
            self.send(true)?;
        }
        Ok(())
    }

    fn streamed(&self) -> Result<Event<'_>> {
        let message = self.connection.wire.message();
        match message.and_then(|message| messages::streamed(message.body)) {
            Some(Streamed::Wal { start, server_end, bytes }) => Ok(Event::Wal { start, server_end, bytes }),
            Some(Streamed::Keepalive { server_end, reply }) => Ok(Event::Keepalive { server_end, reply }),
            None => Err(protocol_error("in the stream of WAL")),
        }
    }

    /// Both sides say that they are done, then comes the result set (ReceiveXlogStream in receivelog.c).
    fn end_of_timeline(&mut self) -> Result<Event<'_>> {
        let mut done = Vec::new();
        put(&mut done, messages::COPY_DONE, &[]);
        self.connection.wire.send(&done).map_err(|cause| lost(&cause))?;
        let rows = self.connection.results().map_err(Failed::into_error("end the stream of WAL"))?;
        match rows.first().and_then(|row| messages::end_of_timeline(row)) {
            Some((next, switch_lsn)) => {
                self.ended = Some((next, switch_lsn));
                Ok(Event::EndOfTimeline { next, switch_lsn })
            }
            None => Err(protocol_error("at the end of a timeline")),
        }
    }

    /// Something else than WAL: an error, a notice, or the end of a server that shuts down.
    fn interrupted(&mut self) -> Result<Event<'_>> {
        let Some(message) = self.connection.wire.message() else {
            return Err(protocol_error("in the stream of WAL"));
        };
        match message.tag {
            messages::ERROR => Err(refused("stream WAL", &messages::refusal(message.body))),
            messages::NOTICE => {
                tell(message.body);
                Ok(Event::Nothing)
            }
            messages::PARAMETER => Ok(Event::Nothing),
            // WalSndDone: all is sent, the server is going.
            messages::COMMAND_COMPLETE => {
                Err(Error::transient("the server ended the stream of WAL: it shuts down"))
            }
            _ => Err(protocol_error("in the stream of WAL")),
        }
    }

    /// Tells the server what we have.
    pub fn report(&mut self, positions: Positions) -> Result<()> {
        self.positions = positions;
        self.send(false)
    }

    /// Standby status update (XLogWalRcvSendReply). Nothing is applied here: with
    /// synchronous_commit = remote_apply a commit would wait for ever.
    fn send(&mut self, ask: bool) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let now =
            Timestamp::from_unix(jiff::Timestamp::now().as_microsecond()).map_or(0, Timestamp::as_postgres);
        let mut body = vec![b'r'];
        for position in [self.positions.written, self.positions.flushed, Lsn::INVALID] {
            body.extend_from_slice(&position.0.to_be_bytes());
        }
        body.extend_from_slice(&now.to_be_bytes());
        body.push(u8::from(ask));
        let mut message = Vec::new();
        put(&mut message, messages::COPY_DATA, &body);
        self.connection.wire.send(&message).map_err(|cause| lost(&cause))
    }
}
