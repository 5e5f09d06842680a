//! What a server's messages say (protocol.sgml, "Message Formats" and "Streaming Replication Protocol").
//!
//! Refuses what is cut short. Nothing here trusts a length.

use super::fields::Fields;
use crate::pg::client::failure::Refusal;
use crate::pg::lsn::{Lsn, Timeline};

pub(super) const AUTHENTICATION: u8 = b'R';
pub(super) const BACKEND_KEY: u8 = b'K';
pub(super) const COMMAND_COMPLETE: u8 = b'C';
pub(super) const COPY_BOTH: u8 = b'W';
pub(super) const COPY_DATA: u8 = b'd';
pub(super) const COPY_DONE: u8 = b'c';
pub(super) const DATA_ROW: u8 = b'D';
pub(super) const ERROR: u8 = b'E';
pub(super) const NOTICE: u8 = b'N';
pub(super) const PARAMETER: u8 = b'S';
pub(super) const READY: u8 = b'Z';
pub(super) const ROW_DESCRIPTION: u8 = b'T';

/// What the server asks for before it lets us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Ok,
    ClearText,
    Md5 {
        salt: [u8; 4],
    },
    /// The mechanisms that it knows.
    Sasl(Vec<String>),
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    /// Kerberos and others, by their number.
    Other(i32),
}

pub(super) fn authentication(body: &[u8]) -> Option<Request> {
    let mut fields = Fields::of(body);
    Some(match fields.i32()? {
        0 => Request::Ok,
        3 => Request::ClearText,
        5 => Request::Md5 { salt: *fields.rest().first_chunk()? },
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match fields.string()? {
                    [] => break Request::Sasl(mechanisms),
                    name => mechanisms.push(text(name)),
                }
            }
        }
        11 => Request::SaslContinue(fields.rest().to_vec()),
        12 => Request::SaslFinal(fields.rest().to_vec()),
        other => Request::Other(other),
    })
}

/// A parameter of the session and its value.
pub(super) fn parameter(body: &[u8]) -> Option<(String, String)> {
    let mut fields = Fields::of(body);
    Some((text(fields.string()?), text(fields.string()?)))
}

/// An ErrorResponse or a NoticeResponse, which have the same fields.
pub(super) fn refusal(body: &[u8]) -> Refusal {
    let mut said = Refusal { code: String::new(), message: String::new(), detail: None, hint: None };
    let mut fields = Fields::of(body);
    while let Some(field) = fields.u8().filter(|field| *field != 0) {
        let Some(value) = fields.string().map(text) else { break };
        match field {
            b'C' => said.code = value,
            b'M' => said.message = value,
            b'D' => said.detail = Some(value),
            b'H' => said.hint = Some(value),
            _ => {}
        }
    }
    if said.message.is_empty() {
        said.message = "the server refused and did not say why".to_string();
    }
    said
}

/// The values of a DataRow; None is null.
pub(super) fn row(body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut fields = Fields::of(body);
    let columns = usize::try_from(fields.i16()?).ok()?;
    let mut values = Vec::new();
    for _ in 0..columns {
        let length = fields.i32()?;
        values.push(match length {
            -1 => None,
            length => Some(fields.bytes(usize::try_from(length).ok()?)?.to_vec()),
        });
    }
    Some(values)
}

/// What comes in the copy stream (WalSndPrepareWrite, WalSndKeepalive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streamed<'a> {
    Wal { start: Lsn, server_end: Lsn, bytes: &'a [u8] },
    Keepalive { server_end: Lsn, reply: bool },
}

pub(super) fn streamed(body: &[u8]) -> Option<Streamed<'_>> {
    let mut fields = Fields::of(body);
    match fields.u8()? {
        b'w' => {
            let (start, server_end, _sent) = (Lsn(fields.u64()?), Lsn(fields.u64()?), fields.u64()?);
            Some(Streamed::Wal { start, server_end, bytes: fields.rest() })
        }
        b'k' => {
            let (server_end, _sent) = (Lsn(fields.u64()?), fields.u64()?);
            Some(Streamed::Keepalive { server_end, reply: fields.u8()? != 0 })
        }
        _ => None,
    }
}

/// Where a timeline ended: the one that follows and its first byte (the result set of StartReplication).
pub(super) fn end_of_timeline(row: &[Option<Vec<u8>>]) -> Option<(Timeline, Lsn)> {
    let [next, switch] = row else { return None };
    let value = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(text);
    let next = value(next)?.parse().ok().filter(|timeline| *timeline > 0)?;
    Some((Timeline(next), value(switch)?.parse().ok()?))
}

/// Servers talk in UTF-8 to us, but for errors before they know what we want.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_server_asks_for_is_understood() {
        let sasl = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let mechanisms = vec!["SCRAM-SHA-256-PLUS".to_string(), "SCRAM-SHA-256".to_string()];
        assert_eq!(authentication(sasl), Some(Request::Sasl(mechanisms)));
        assert_eq!(authentication(b"\0\0\0\0"), Some(Request::Ok));
        assert_eq!(authentication(b"\0\0\0\x05abcd"), Some(Request::Md5 { salt: *b"abcd" }));
        assert_eq!(authentication(b"\0\0\0\x07"), Some(Request::Other(7)));
        for short in [&b""[..], b"\0\0\0", b"\0\0\0\x05abc", b"\0\0\0\x0aSCRAM\0", b"\0\0\0\x0aSCRAM"] {
            assert_eq!(authentication(short), None, "{short:?}");
        }
    }

    #[test]
    fn an_error_is_its_code_message_detail_and_hint() {
        let said = refusal(b"SERROR\0C58P01\0Mgone\0Dlong ago\0Hlook\0Fwalsender.c\0\0");
        assert_eq!((said.code.as_str(), said.message.as_str()), ("58P01", "gone"));
        assert_eq!((said.detail.as_deref(), said.hint.as_deref()), (Some("long ago"), Some("look")));
        assert!(refusal(b"").message.contains("did not say why"));
    }

    #[test]
    fn rows_have_values_and_nulls() {
        let body = b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(body), Some(vec![Some(b"a".to_vec()), None, Some(Vec::new())]));
        for short in [&b"\0"[..], b"\0\x01", b"\0\x01\0\0\0\x02a", b"\0\x01\xff\xff\xff\xfe", b"\xff\xff"] {
            assert_eq!(row(short), None, "{short:?}");
        }
    }

    #[test]
    fn the_end_of_a_timeline_names_the_next_and_where_it_begins() {
        let row = |values: &[&str]| -> Vec<Option<Vec<u8>>> {
            values.iter().map(|value| Some(value.as_bytes().to_vec())).collect()
        };
        assert_eq!(end_of_timeline(&row(&["2", "0/3000148"])), Some((Timeline(2), Lsn(0x300_0148))));
        for bad in [row(&["0", "0/1"]), row(&["2"]), row(&["2", "x"]), vec![None, None]] {
            assert_eq!(end_of_timeline(&bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            authentication(&body);
            parameter(&body);
            refusal(&body);
            if let Some(values) = row(&body) {
                end_of_timeline(&values);
            }
            if let Some(Streamed::Wal { bytes, .. }) = streamed(&body) {
                prop_assert_eq!(bytes.len(), body.len() - 25);
            }
        }

        #[test]
        fn wal_and_keepalives_come_as_a_walsender_writes_them(
            start: u64, end: u64, clock: u64, reply: bool, wal: Vec<u8>,
        ) {
            let numbers = [start.to_be_bytes(), end.to_be_bytes(), clock.to_be_bytes()].concat();
            let message = [&b"w"[..], &numbers, &wal].concat();
            let (start, server_end) = (Lsn(start), Lsn(end));
            prop_assert_eq!(streamed(&message), Some(Streamed::Wal { start, server_end, bytes: &wal }));
            let message = [&b"k"[..], &numbers[8..], &[u8::from(reply)]].concat();
            prop_assert_eq!(streamed(&message), Some(Streamed::Keepalive { server_end, reply }));
        }
    }
}
