//! Messages of PostgreSQL's protocol, version 3.0, one after the other out of a stream of bytes.
//!
//! Refuses messages that are longer than any that a server sends us. Invariant: the buffer holds at most one
//! message more than what was handed out, and a time limit that passes loses nothing.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::transport::Transport;

/// A backend never sends more in a message of the kinds that come here: a chunk of WAL has 128 KiB
/// (MAX_SEND_SIZE in walsender.c), a timeline history a line for each promotion.
const LONGEST: usize = 16 << 20;
/// Tag and length.
const HEAD: usize = 5;
/// The buffer to start with: some chunks of WAL.
const ROOM: usize = 256 << 10;

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub tag: u8,
    pub body: &'a [u8],
}

/// Messages over a transport, or in tests over anything that can be read and written.
pub(super) struct Wire<T = Transport> {
    stream: T,
    buffer: Vec<u8>,
    /// The message that was handed out last begins here,
    current: usize,
    /// and ends here, where what is read and not yet handed out begins,
    begin: usize,
    /// and ends.
    end: usize,
}

/// What can be given a limit for a read.
pub(super) trait Timed: Read + Write {
    fn limit_read(&self, limit: Duration) -> io::Result<()>;
}

impl Timed for Transport {
    fn limit_read(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
}

impl<T: Timed> Wire<T> {
    pub fn new(stream: T) -> Self {
        Self { stream, buffer: vec![0; ROOM], current: 0, begin: 0, end: 0 }
    }

    pub fn stream(&self) -> &T {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next message. None: none was there in whole before `until`.
    pub fn next(&mut self, until: Instant) -> io::Result<Option<Message<'_>>> {
        Ok(if self.advance(until)? { self.message() } else { None })
    }

    /// Goes on to the next message, which is then to be had as [`Wire::message`]. False: none was there in
    /// whole before `until`.
    pub fn advance(&mut self, until: Instant) -> io::Result<bool> {
        loop {
            if let Some(length) = self.whole_message()? {
                self.current = self.begin;
                self.begin = self.current.saturating_add(length);
                return Ok(true);
            }
            if !self.read_more(until)? {
                return Ok(false);
            }
        }
    }

    /// Whether a message is there in whole without reading.
    pub fn has_message(&self) -> io::Result<bool> {
        Ok(self.whole_message()?.is_some())
    }

    /// The message that [`Wire::advance`] found.
    pub fn message(&self) -> Option<Message<'_>> {
        self.buffer.get(self.current..self.begin).and_then(split)
    }

    /// The length, head and body, of the message at the front of the buffer, if all of it is there.
    fn whole_message(&self) -> io::Result<Option<usize>> {
        let unread = self.buffer.get(self.begin..self.end).unwrap_or_default();
        Ok(message_length(unread)?.filter(|length| *length <= unread.len()))
    }

    /// Reads once. False: the time is up.
    fn read_more(&mut self, until: Instant) -> io::Result<bool> {
        self.make_room()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.stream.limit_read(left)?;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(length) => {
                self.end = self.end.saturating_add(length);
                Ok(true)
            }
            Err(cause) => match cause.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(true),
                _ => Err(cause),
            },
        }
    }

    /// Moves what is unread to the front, and grows the buffer if the message needs that.
    fn make_room(&mut self) -> io::Result<()> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        let unread = self.buffer.get(self.begin..self.end).unwrap_or_default();
        let needed = message_length(unread)?.unwrap_or(HEAD);
        if self.begin.saturating_add(needed) <= self.buffer.len() && self.end < self.buffer.len() {
            return Ok(());
        }
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end.saturating_sub(self.begin));
        if needed > self.buffer.len() {
            self.buffer.resize(needed, 0);
        }
        Ok(())
    }
}

/// The length of the message that begins here, head and body. None: not even its head is there.
fn message_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(length) = bytes.get(1..HEAD).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
    // The length counts itself, not the tag.
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length @ 4..=LONGEST) => Ok(Some(length.saturating_add(1))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {} bytes is not PostgreSQL's", i32::from_be_bytes(*length)),
        )),
    }
}

fn split(message: &[u8]) -> Option<Message<'_>> {
    let (tag, rest) = message.split_first()?;
    Some(Message { tag: *tag, body: rest.get(4..)? })
}

/// Appends a message to `out`.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    let length = i32::try_from(body.len().saturating_add(4)).unwrap_or(i32::MAX);
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Gives what it holds in pieces, with time limits that pass in between.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.0.pop_front() else { return Ok(0) };
            if piece.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = piece.len().min(buffer.len());
            buffer[..length].copy_from_slice(&piece[..length]);
            let rest = piece.split_off(length);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Ok(length)
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Timed for Pieces {
        fn limit_read(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn in_pieces(bytes: &[u8], sizes: &[usize]) -> Wire<Pieces> {
        let mut pieces = VecDeque::new();
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, following) = rest.split_at((*size).min(rest.len()));
            pieces.extend([piece.to_vec(), Vec::new()]);
            rest = following;
        }
        Wire::new(Pieces(pieces))
    }

    #[test]
    fn lengths_that_no_server_sends_are_refused() {
        for length in [0, 3, -1, i32::MIN, (16 << 20) + 1, i32::MAX] {
            let mut wire = in_pieces(&[&b"d"[..], &length.to_be_bytes()].concat(), &[9]);
            let error = wire.next(later()).expect_err("refused");
            assert!(error.to_string().contains(&format!("a message of {length} bytes")), "{error}");
        }
    }

    #[test]
    fn a_closed_connection_is_an_error_and_a_passed_limit_is_not() {
        let mut wire = Wire::new(Pieces(VecDeque::new()));
        assert_eq!(wire.next(later()).expect_err("closed").kind(), io::ErrorKind::UnexpectedEof);
        let mut wire = in_pieces(b"k\0\0", &[3]);
        assert_eq!(wire.next(Instant::now()).expect("no error"), None);
    }

    proptest! {
        #[test]
        fn messages_arrive_as_they_were_sent_however_they_are_cut(
            sent in proptest::collection::vec((any::<u8>(), 0usize..400_000), 1..6),
            sizes in proptest::collection::vec(1usize..200_000, 1..8),
        ) {
            let mut bytes = Vec::new();
            for (tag, length) in &sent {
                put(&mut bytes, *tag, &vec![*tag; *length]);
            }
            let mut wire = in_pieces(&bytes, &sizes);
            for (tag, length) in sent {
                let message = wire.next(later()).expect("no error").expect("a message");
                prop_assert_eq!((message.tag, message.body.len()), (tag, length));
                prop_assert!(message.body.iter().all(|byte| *byte == tag));
            }
            prop_assert!(wire.next(later()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, size in 1usize..20) {
            let mut wire = in_pieces(&bytes, &[size]);
            while let Ok(Some(message)) = wire.next(later()) {
                prop_assert!(message.body.len() <= bytes.len());
            }
        }
    }
}
