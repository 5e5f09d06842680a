//! The text of a PostgreSQL configuration file: read as guc-file.l reads it, written so that it reads back.
//!
//! Works line by line, because no token of that grammar spans lines. Refuses to write a name or a value
//! that would read back as something else. Invariant: rewriting keeps every byte of every line that it does
//! not comment out, whatever its encoding.

use crate::error::{Error, Result};

/// Starts every comment that pgark writes into a configuration file.
pub const MARKER: &str = "# pgark: ";

/// A setting to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

impl Setting {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// The line for a configuration file, without its newline.
    pub fn line(&self) -> Result<String> {
        if !is_name(&self.name) {
            return Err(Error::configuration(format!(
                "could not write the setting \"{}\": that is no name",
                self.name
            ))
            .with_hint("a name has letters, digits and underscores, and a dot after an extension's"));
        }
        Ok(format!(
            "{} = {}",
            self.name,
            quote_value(&self.value).map_err(|error| error.context(&self.name))?
        ))
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing but blanks and a comment.
    Blank,
    /// The name in lower case, as names are compared (guc_name_compare). Bytes that are no UTF-8 are
    /// replaced, which does not matter: text is copied, values are only looked at.
    Setting { name: String, value: String },
    /// A syntax error.
    Bad,
}

/// Reads one line, without its newline.
pub fn parse_line(line: &[u8]) -> Line {
    let Some((token, name, rest)) = next_token(line) else { return Line::Blank };
    if !matches!(token, Token::Id | Token::QualifiedId) {
        return Line::Bad;
    }
    let value = match next_token(rest) {
        Some((Token::Equals, _, rest)) => next_token(rest),
        other => other,
    };
    match value {
        // Yes: a name with one dot in it needs quotes, and one with two does not.
        None | Some((Token::QualifiedId | Token::Equals | Token::Error, ..)) => Line::Bad,
        Some((_, _, rest)) if next_token(rest).is_some() => Line::Bad,
        Some((token, text, _)) => {
            let text = if token == Token::String { unescape(text) } else { text.to_vec() };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            Line::Setting { name, value: String::from_utf8_lossy(&text).into_owned() }
        }
    }
}

/// Quotes a value (escape_single_quotes_ascii in src/port/quotes.c). Refuses line breaks, which no value in
/// a configuration file can have, and NUL.
pub fn quote_value(value: &str) -> Result<String> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(Error::configuration("could not write the value: it has a line break or a NUL in it")
            .with_hint("choose a path or name without line breaks"));
    }
    Ok(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
}

/// Of these only the name is left in a comment: a copy is often for people who may not have the source's passwords.
const MAY_HOLD_PASSWORDS: [&str; 2] = ["primary_conninfo", "ssl_passphrase_command"];

/// Comments out each line whose name `remove` gives a reason for, and appends `add` as a block with `title`.
pub fn rewrite(
    text: &[u8],
    title: &str,
    remove: impl Fn(&str) -> Option<String>,
    add: &[Setting],
) -> Result<Vec<u8>> {
    let mut written = Vec::with_capacity(text.len());
    for line in lines(text) {
        let removed = match parse_line(line) {
            Line::Setting { name, .. } => remove(&name).map(|reason| (name, reason)),
            Line::Blank | Line::Bad => None,
        };
        if let Some((_, reason)) = &removed {
            written.extend_from_slice(format!("{MARKER}{}: ", one_line(reason)).as_bytes());
        }
        match removed.filter(|(name, _)| MAY_HOLD_PASSWORDS.contains(&name.as_str())) {
            Some((name, _)) => written.extend_from_slice(name.as_bytes()),
            None => written.extend_from_slice(line),
        }
        written.push(b'\n');
    }
    if !add.is_empty() {
        written.extend_from_slice(block(title, add)?.as_bytes());
    }
    Ok(written)
}

fn block(title: &str, settings: &[Setting]) -> Result<String> {
    let mut block = format!("\n{MARKER}{}\n", one_line(title));
    for setting in settings {
        block.push_str(&setting.line()?);
        block.push('\n');
    }
    Ok(block + MARKER + "end\n")
}

/// The lines of a text, without their newlines. A last line without one is a line too.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).collect::<Vec<_>>().join(" ")
}

/// One or two identifiers (ID and QUALIFIED_ID) of ASCII.
fn is_name(text: &str) -> bool {
    text.is_ascii()
        && matches!(next_token(text.as_bytes()), Some((Token::Id | Token::QualifiedId, name, [])) if name.len() == text.len())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Id,
    QualifiedId,
    String,
    Unquoted,
    Integer,
    Real,
    Equals,
    Error,
}

/// The next token, its text and what follows; None at the end of the line or at a comment. As flex: the
/// longest match, and of equally long ones the first rule.
fn next_token(line: &[u8]) -> Option<(Token, &[u8], &[u8])> {
    let line = skip(line, |byte| matches!(byte, b' ' | b'\t' | b'\r'));
    if matches!(line.first(), None | Some(b'#')) {
        return None;
    }
    let rules = [
        (Token::Id, id(line)),
        (Token::QualifiedId, qualified_id(line)),
        (Token::String, string(line)),
        (Token::Unquoted, unquoted(line)),
        (Token::Integer, integer(line)),
        (Token::Real, real(line)),
        (Token::Equals, usize::from(line.starts_with(b"="))),
    ];
    let best = rules.into_iter().rev().max_by_key(|(_, length)| *length).filter(|(_, length)| *length > 0);
    let (token, length) = best.unwrap_or((Token::Error, 1));
    line.split_at_checked(length).map(|(text, rest)| (token, text, rest))
}

fn skip(text: &[u8], wanted: impl Fn(u8) -> bool) -> &[u8] {
    text.get(run(text, wanted)..).unwrap_or_default()
}

/// How many of the first bytes are wanted.
fn run(text: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| wanted(**byte)).count()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// The length of {ID}, or 0; so for the other rules.
fn id(text: &[u8]) -> usize {
    if text.first().is_some_and(|byte| is_letter(*byte)) {
        run(text, |byte| is_letter(byte) || byte.is_ascii_digit())
    } else {
        0
    }
}

fn qualified_id(text: &[u8]) -> usize {
    let first = id(text);
    let second = text.get(first..).and_then(|rest| rest.strip_prefix(b".")).map_or(0, id);
    if first > 0 && second > 0 { first + 1 + second } else { 0 }
}

fn unquoted(text: &[u8]) -> usize {
    if text.first().is_some_and(|byte| is_letter(*byte)) {
        run(text, |byte| is_letter(byte) || byte.is_ascii_digit() || b"-._:/".contains(&byte))
    } else {
        0
    }
}

fn sign(text: &[u8]) -> usize {
    usize::from(text.starts_with(b"+") || text.starts_with(b"-"))
}

fn integer(text: &[u8]) -> usize {
    let start = sign(text);
    let rest = text.get(start..).unwrap_or_default();
    let units = |from: usize| {
        let rest = rest.get(from..).unwrap_or_default();
        start + from + run(rest, |byte| byte.is_ascii_alphabetic())
    };
    let decimal = run(rest, |byte| byte.is_ascii_digit());
    let hex = rest.strip_prefix(b"0x").map_or(0, |rest| run(rest, |byte| byte.is_ascii_hexdigit()));
    match (decimal, hex) {
        (0, _) => 0,
        (decimal, 0) => units(decimal),
        (decimal, hex) => units(decimal).max(units(2 + hex)),
    }
}

fn real(text: &[u8]) -> usize {
    let digits =
        |text: &[u8], from: usize| run(text.get(from..).unwrap_or_default(), |byte| byte.is_ascii_digit());
    let start = sign(text);
    let whole = start + digits(text, start);
    if text.get(whole) != Some(&b'.') {
        return 0;
    }
    let end = whole + 1 + digits(text, whole + 1);
    if !matches!(text.get(end), Some(b'e' | b'E')) {
        return end;
    }
    let power = end + 1 + sign(text.get(end + 1..).unwrap_or_default());
    match digits(text, power) {
        0 => end,
        more => power + more,
    }
}

/// From quote to quote; a doubled quote and a backslash with its byte lie within.
fn string(text: &[u8]) -> usize {
    if !text.starts_with(b"'") {
        return 0;
    }
    let mut at = 1;
    loop {
        match (text.get(at), text.get(at + 1)) {
            (Some(b'\''), Some(b'\'')) | (Some(b'\\'), Some(_)) => at += 2,
            (Some(b'\''), _) => return at + 1,
            (None, _) | (Some(b'\\'), None) => return 0,
            (Some(_), _) => at += 1,
        }
    }
}

/// DeescapeQuotedString.
fn unescape(quoted: &[u8]) -> Vec<u8> {
    let inner = quoted.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")).unwrap_or_default();
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.first().copied();
        match (byte, escaped) {
            (b'\'', Some(b'\'')) => value.push(b'\''),
            (b'\\', Some(b'0'..=b'7')) => {
                let digits = run(after, |byte| matches!(byte, b'0'..=b'7')).min(3);
                let (octal, after) = after.split_at_checked(digits).unwrap_or((after, &[]));
                let number = octal.iter().fold(0_u32, |number, digit| number * 8 + u32::from(digit - b'0'));
                // As the C code, which assigns the number to a char.
                value.push((number & 0xFF) as u8);
                rest = after;
                continue;
            }
            (b'\\', Some(letter)) => value.push(match letter {
                b'b' => 0x08,
                b'f' => 0x0C,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            }),
            (other, _) => {
                value.push(other);
                continue;
            }
        }
        rest = rest.split_first().map_or(&[], |(_, after)| after);
    }
    // To the C code a NUL is the end.
    value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(line: &str) -> Option<String> {
        match parse_line(line.as_bytes()) {
            Line::Setting { value, .. } => Some(value),
            Line::Blank | Line::Bad => None,
        }
    }

    #[test]
    fn of_a_setting_that_may_hold_a_password_only_the_name_is_left() {
        let text = b"Primary_Conninfo = 'host=a password=hush'\nport = 1\n";
        let rewritten = rewrite(text, "", |_| Some("gone".into()), &[]).expect("rewritten");
        assert_eq!(
            String::from_utf8_lossy(&rewritten),
            "# pgark: gone: primary_conninfo\n# pgark: gone: port = 1\n"
        );
    }

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        for (line, expected) in [
            ("a = b", "b"),
            ("a=b", "b"),
            ("a b", "b"),
            ("  a\t=\t'b'  # comment", "b"),
            ("a=b#comment", "b"),
            ("a = 128MB", "128MB"),
            ("a = -0x1F", "-0x1F"),
            ("a = 0x1FkB", "0x1FkB"),
            ("a = 0xZZ", "0xZZ"),
            ("a = 1.5", "1.5"),
            ("a = .5e-3", ".5e-3"),
            ("a = .", "."),
            ("a = x.y.z-1:/2", "x.y.z-1:/2"),
            ("a 'it''s'", "it's"),
            (r"a 'it\'s'", "it's"),
            (r"a '\\x\t\101\1'", "\\x\tA\u{1}"),
            (r"a '\q\8'", "q8"),
            (r"a 'x\0y'", "x"),
            ("a ''", ""),
            ("a ''''", "'"),
            ("a = 'x'\r", "x"),
            ("ext.a = on", "on"),
            ("é = ü", "ü"),
        ] {
            assert_eq!(value(line).as_deref(), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn what_the_server_refuses_is_bad() {
        for line in [
            "a",
            "a =",
            "= b",
            "a == b",
            "a = b c",
            "a = b.c",
            "a = 'b",
            "a = 'b\\'",
            "a = 'b' 'c'",
            "1 = a",
            "a.b.c = 1",
            "a = 1.5GB",
            "a = 1e5",
            "a = 12abc3",
            "a = $x",
            "a = \"b\"",
            "'a' = b",
            "a = /x",
            "a : b",
            "a = 1_000",
            "a-b = c",
        ] {
            assert_eq!(parse_line(line.as_bytes()), Line::Bad, "{line:?}");
        }
        for line in ["", "   ", "# a = b", "\t#", "\r"] {
            assert_eq!(parse_line(line.as_bytes()), Line::Blank, "{line:?}");
        }
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        let line = parse_line(b"Shared_Buffers = 1MB");
        assert_eq!(line, Line::Setting { name: "shared_buffers".into(), value: "1MB".into() });
    }

    #[test]
    fn rewriting_comments_out_and_appends_and_keeps_the_rest() {
        let text = b"a = 1\r\n#a = 2\nB = 'x' # \xff\xfe\n  b 2\nsyntax error here\nc = 3";
        let remove = |name: &str| (name == "b").then(|| "points at\nthe source".to_string());
        let add = [Setting::new("a", "it's \\ here"), Setting::new("ext.b", "")];
        let written = rewrite(text, "restored", remove, &add).expect("written");
        let expected = b"a = 1\r\n#a = 2\n# pgark: points at the source: B = 'x' # \xff\xfe\n\
            # pgark: points at the source:   b 2\nsyntax error here\nc = 3\n\
            \n# pgark: restored\na = 'it''s \\\\ here'\next.b = ''\n# pgark: end\n";
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(expected));
        assert_eq!(rewrite(b"a = 1\n", "t", |_| None, &[]), Ok(b"a = 1\n".to_vec()));
    }

    #[test]
    fn names_and_values_that_would_read_back_differently_are_refused() {
        for name in ["", "a b", "a=b", "a.b.c", "1a", "a\n", "a#", "'a'", "é", "a-b"] {
            assert!(Setting::new(name, "x").line().is_err(), "{name:?}");
        }
        for bad in ["a\nb", "a\rb", "a\0b"] {
            assert!(quote_value(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_reads_back(written in "[^\n\r\0]{0,40}") {
            let line = Setting::new("some_name", written.as_str()).line().expect("a line");
            prop_assert_eq!(parse_line(line.as_bytes()),
                Line::Setting { name: "some_name".into(), value: written });
        }

        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            parse_line(&line);
            rewrite(&line, "t", |_| Some("r".into()), &[]).expect("written");
        }

        #[test]
        fn punctuation_never_panics(line in "[a1'\\\\.=#eEx+ -]{0,16}") {
            parse_line(line.as_bytes());
        }

        #[test]
        fn removing_everything_leaves_no_setting(text in "([ab]{1,2} ?=? ?'?[x1]'? ?#?\n){0,6}") {
            let written = rewrite(text.as_bytes(), "t", |_| Some("r".into()), &[]).expect("written");
            let left = lines(&written).any(|line| matches!(parse_line(line), Line::Setting { .. }));
            prop_assert!(!left);
        }
    }
}
