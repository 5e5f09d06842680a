//! What a server says, for a fuzzer (`crate::fuzz`): messages cut out of a stream and understood as each of their
//! kinds.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::messages;
use super::wire::{Timed, Wire};

/// A server that says these bytes, a few at a time, and closes the connection.
struct Said<'a>(&'a [u8]);

impl Read for Said<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(31);
        self.0.read(into.get_mut(..length).unwrap_or_default())
    }
}

impl Write for Said<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Timed for Said<'_> {
    fn limit_read(&self, _limit: Duration) -> io::Result<()> {
        Ok(())
    }
}

pub fn stream(data: &[u8]) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut wire = Wire::new(Said(data));
    let mut length = 0;
    while let Ok(Some(message)) = wire.next(until) {
        length += message.body.len() + 5;
        let body = message.body;
        black_box((messages::authentication(body), messages::parameter(body), messages::refusal(body)));
        if let Some(row) = messages::row(body) {
            black_box(messages::end_of_timeline(&row));
        }
        if let Some(messages::Streamed::Wal { bytes, .. }) = messages::streamed(body) {
            assert!(bytes.len() < body.len());
        }
    }
    assert!(length <= data.len(), "more messages than were sent");
}
