//! Connection strings: `keyword=value ...` (conninfo_parse in libpq's fe-connect.c) and
//! `postgresql://...` (conninfo_uri_parse_options).
//!
//! Refuses what libpq refuses. Invariant: no error shows any part of the string, because a forgotten
//! quote makes a part of the password look like something else.

use super::params::Params;
use crate::error::{Error, Result};

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// Whether libpq's programs take this for a connection string rather than for a database name
/// (recognized_connection_string).
pub(super) fn is_connection_string(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme)) || text.contains('=')
}

/// Parses a connection string of either form.
pub(super) fn parse(text: &str) -> Result<Params> {
    match SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => parse_uri(rest),
        None => parse_keywords(text),
    }
}

fn refused(cause: impl std::fmt::Display) -> Error {
    Error::configuration(format!("could not read the connection string: {cause}")).with_hint(
        "write it as \"host=... port=... user=... dbname=...\" or as postgresql://user@host:port/dbname",
    )
}

/// isspace() in the C locale.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn parse_keywords(text: &str) -> Result<Params> {
    let mut params = Params::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let position = text.len() - rest.len() + 1;
        let name_end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let Some(value) = after.trim_start_matches(is_space).strip_prefix('=') else {
            return Err(refused(format!("there is no \"=\" after the word at character {position}")));
        };
        let value = value.trim_start_matches(is_space);
        let (value, after) = match value.strip_prefix('\'') {
            Some(quoted) => take_quoted(quoted)?,
            None => take_plain(value),
        };
        if !params.set(name, value) {
            return Err(refused(format!("the word at character {position} is not a connection parameter")));
        }
        rest = after.trim_start_matches(is_space);
    }
    Ok(params)
}

/// A value up to the next blank; a backslash takes the next character as it is.
fn take_plain(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        match chars.next() {
            None => return (value, rest),
            Some(c) if is_space(c) => return (value, rest),
            Some('\\') => value.extend(chars.next()),
            Some(c) => value.push(c),
        }
    }
}

/// A value up to the closing quote.
fn take_quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            None => return Err(refused("a quoted value has no end")),
            Some('\'') => return Ok((value, chars.as_str())),
            Some('\\') => value.extend(chars.next()),
            Some(c) => value.push(c),
        }
    }
}

/// `[user[:password]@][host[:port],...][/dbname][?name=value&...]`, without the scheme.
fn parse_uri(text: &str) -> Result<Params> {
    let mut params = Params::default();
    // As libpq: credentials are whatever stands before an "@" that no "/" precedes.
    let credentials = text.split_once('@').filter(|(before, _)| !before.contains('/'));
    let (credentials, rest) = credentials.unwrap_or(("", text));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    store(&mut params, "user", user)?;
    store(&mut params, "password", password)?;
    let (hosts, ports, after) = take_hosts(rest)?;
    store(&mut params, "host", &hosts)?;
    store(&mut params, "port", &ports)?;
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    store(&mut params, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    parse_query(query, &mut params)?;
    Ok(params)
}

/// An empty part of a URI counts as not given.
fn store(params: &mut Params, name: &str, encoded: &str) -> Result<()> {
    if encoded.is_empty() || params.set(name, decode(encoded)?) {
        return Ok(());
    }
    Err(Error::bug(format!("the connection parameter {name} is not in the table")))
}

/// The comma-separated hosts and ports, and what follows them.
fn take_hosts(text: &str) -> Result<(String, String, &str)> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut rest = text;
    loop {
        let (host, after) = take_host(rest)?;
        hosts.push_str(host);
        rest = after;
        if let Some(port) = rest.strip_prefix(':') {
            let end = port.find(['/', '?', ',']).unwrap_or(port.len());
            let (port, after) = port.split_at(end);
            ports.push_str(port);
            rest = after;
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok((hosts, ports, rest)),
        }
        hosts.push(',');
        ports.push(',');
    }
}

fn take_host(text: &str) -> Result<(&str, &str)> {
    let Some(bracketed) = text.strip_prefix('[') else {
        let end = text.find([':', '/', '?', ',']).unwrap_or(text.len());
        return Ok(text.split_at(end));
    };
    let (host, after) =
        bracketed.split_once(']').ok_or_else(|| refused("an IPv6 address has no closing \"]\""))?;
    if host.is_empty() {
        return Err(refused("an IPv6 address between \"[\" and \"]\" is empty"));
    }
    if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
        return Err(refused("after an IPv6 address in \"[...]\" comes neither a port nor a \"/\""));
    }
    Ok((host, after))
}

fn parse_query(query: &str, params: &mut Params) -> Result<()> {
    let query = query.strip_suffix('&').unwrap_or(query);
    for (nth, pair) in (1..).zip(query.split('&').filter(|_| !query.is_empty())) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| refused(format!("query parameter {nth} has no \"=\"")))?;
        if value.contains('=') {
            return Err(refused(format!("query parameter {nth} has a second \"=\"; write it as %3D")));
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // Accepted by libpq for the sake of JDBC's URIs.
        let (name, value) = if (name.as_str(), value.as_str()) == ("ssl", "true") {
            ("sslmode".into(), "require".into())
        } else {
            (name, value)
        };
        if !params.set(&name, value) {
            return Err(refused(format!("query parameter {nth} is not a connection parameter")));
        }
    }
    Ok(())
}

/// conninfo_uri_decode: %XX, never %00. The result has to be UTF-8, which libpq does not ask for.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) =
            rest.split_at_checked(2).ok_or_else(|| refused("a \"%\" lacks its two hex digits"))?;
        let mut decoded = [0u8];
        hex::decode_to_slice(digits, &mut decoded)
            .map_err(|_| refused("a \"%\" lacks its two hex digits"))?;
        if decoded == [0] {
            return Err(refused("%00 is not allowed"));
        }
        bytes.extend_from_slice(&decoded);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| refused("a percent-encoded value is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        for (name, value) in pairs {
            assert!(params.set(name, *value), "{name}");
        }
        params
    }

    #[test]
    fn keyword_strings_are_read_as_libpq_reads_them() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("  \t ", &[]),
            ("host=a port=1", &[("host", "a"), ("port", "1")]),
            ("host = a\n port\t=\t1 ", &[("host", "a"), ("port", "1")]),
            ("user='a b' dbname='it\\'s'", &[("user", "a b"), ("dbname", "it's")]),
            ("user=a\\ b", &[("user", "a b")]),
            ("user='a\\\\b'", &[("user", "a\\b")]),
            ("user='' host=x", &[("user", ""), ("host", "x")]),
            ("user='a'host=x", &[("user", "a"), ("host", "x")]),
            ("user=a user=b", &[("user", "b")]),
            ("user=a\\", &[("user", "a")]),
            ("user= host=x", &[("user", "host=x")]),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), Ok(params(expected)), "{text:?}");
        }
    }

    #[test]
    fn damaged_keyword_strings_are_refused() {
        for text in ["host", "host a", "host='a", "host='a\\", "host a=b", "hots=a", "=a", "postgre://"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("postgresql://", &[]),
            ("postgres:///", &[]),
            (
                "postgresql://u:secret@host:12345/db",
                &[
                    ("user", "u"),
                    ("password", "secret"),
                    ("host", "host"),
                    ("port", "12345"),
                    ("dbname", "db"),
                ],
            ),
            ("postgresql://u@", &[("user", "u")]),
            ("postgresql://@host", &[("host", "host")]),
            ("postgresql://host:/", &[("host", "host")]),
            ("postgresql://%68ost/", &[("host", "host")]),
            ("postgresql://?hostaddr=127.0.0.1", &[("hostaddr", "127.0.0.1")]),
            (
                "postgresql://host/db?u%73er=u&port=12",
                &[("host", "host"), ("dbname", "db"), ("user", "u"), ("port", "12")],
            ),
            ("postgresql://host?", &[("host", "host")]),
            ("postgresql://host?user=a&", &[("host", "host"), ("user", "a")]),
            ("postgresql://[::1]:12345/db", &[("host", "::1"), ("port", "12345"), ("dbname", "db")]),
            ("postgresql://[200z:db8::1234]/", &[("host", "200z:db8::1234")]),
            ("postgres://:12345?host=/path", &[("host", "/path"), ("port", "12345")]),
            ("postgres://%2Fvar%2Flib/db", &[("host", "/var/lib"), ("dbname", "db")]),
            ("postgres://a:1,b,[::2]:3/db", &[("host", "a,b,::2"), ("port", "1,,3"), ("dbname", "db")]),
            ("postgres://h?ssl=true", &[("host", "h"), ("sslmode", "require")]),
            ("postgres://u:p%40ss%2F@h", &[("user", "u"), ("password", "p@ss/"), ("host", "h")]),
            ("postgres://h/a%20b", &[("host", "h"), ("dbname", "a b")]),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), Ok(params(expected)), "{text:?}");
        }
    }

    #[test]
    fn damaged_uris_are_refused() {
        for text in [
            "postgresql://host/db?u%7aer=x",
            "postgresql://host?uzer=",
            "postgres://[::1",
            "postgres://[]",
            "postgres://[::1]z",
            "postgresql://host?zzz",
            "postgresql://host?value1&value2",
            "postgresql://host?user=key=value",
            "postgres://host?dbname=%XXfoo",
            "postgresql://a%00b",
            "postgresql://%zz",
            "postgresql://%1",
            "postgresql://%",
            "postgresql://%ff",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_error_shows_a_piece_of_a_password() {
        for text in [
            "password=one hush=x",
            "password=one hush",
            "password='one hush",
            "postgresql://u:hush%zz@host",
            "postgresql://u:hush@host?hush=1",
            "postgresql://u:hush@host?hush",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgres://{text}"));
        }

        #[test]
        fn uri_punctuation_never_panics(text in "[a%:/@?&=,\\[\\]0é]{0,24}") {
            let _ = parse(&format!("postgresql://{text}"));
        }

        #[test]
        fn every_quoted_value_survives(value in "\\PC{0,30}") {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            prop_assert_eq!(parse(&format!("host=h user='{quoted}' port=1")),
                Ok(params(&[("host", "h"), ("user", &value), ("port", "1")])));
        }
    }
}
