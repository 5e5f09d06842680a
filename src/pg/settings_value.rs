//! What the value of a setting means: amounts of memory, integers, booleans, lists (parse_int and
//! parse_bool in guc.c and bool.c, SplitDirectoriesString in varlena.c).
//!
//! Refuses what the server would refuse.

use crate::error::{Error, Result};

/// The unit of a number that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUnit {
    Bytes,
    Kilobytes,
    Megabytes,
    /// Blocks of that many bytes: shared_buffers and its like in blocks, wal_buffers in WAL blocks.
    Blocks(u32),
}

impl MemoryUnit {
    fn bytes(self) -> f64 {
        match self {
            MemoryUnit::Bytes => 1.0,
            MemoryUnit::Kilobytes => 1024.0,
            MemoryUnit::Megabytes => 1_048_576.0,
            MemoryUnit::Blocks(size) => f64::from(size),
        }
    }
}

/// An amount of memory in bytes: "128MB", "1.5 GB", "16384". Not negative.
pub fn parse_memory(value: &str, default: MemoryUnit) -> Result<u64> {
    let refused = || not_a("an amount of memory", value, "the units are B, kB, MB, GB and TB, in this case");
    let (number, unit) = split_number(value).ok_or_else(refused)?;
    let unit = match unit {
        "" => default.bytes(),
        "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1_048_576.0,
        "GB" => 1_073_741_824.0,
        "TB" => 1_099_511_627_776.0,
        _ => return Err(refused()),
    };
    let bytes = (number * unit).round();
    // Up to 2^53 a double is exact; no setting gets near.
    if (0.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(refused()) }
}

/// An integer without a unit.
pub fn parse_integer(value: &str) -> Result<i64> {
    let refused = || not_a("an integer", value, "write decimal digits");
    match split_number(value) {
        Some((number, "")) if number.abs() < 9e15 => Ok(number.round_ties_even() as i64),
        _ => Err(refused()),
    }
}

/// A number and the text that follows it without the blanks around. As strtol with base 0: "0x" starts
/// hexadecimal, "0" octal digits; with a point or an exponent as strtod.
fn split_number(value: &str) -> Option<(f64, &str)> {
    let value = value.trim();
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let sign = if value.starts_with('-') { -1.0 } else { 1.0 };
    let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    if let Some(digits) = hex {
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(end);
        return Some((sign * i64::from_str_radix(digits, 16).ok()? as f64, rest.trim_start()));
    }
    let end = number_end(unsigned);
    let (digits, rest) = unsigned.split_at(end);
    let octal =
        digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if octal { i64::from_str_radix(digits, 8).ok()? as f64 } else { digits.parse().ok()? };
    Some((sign * number, rest.trim_start()))
}

/// Where digits, a point and an exponent end.
fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes.get(from..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
    };
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        match digits(end + 1 + sign) {
            0 => {}
            more => end += 1 + sign + more,
        }
    }
    end
}

/// Any unambiguous beginning of true, false, yes, no, on, off, or 1 or 0.
pub fn parse_bool(value: &str) -> Result<bool> {
    let text = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        return Ok(true);
    }
    if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        return Ok(false);
    }
    Err(not_a("a boolean", value, "write on or off"))
}

/// The elements of a list such as shared_preload_libraries or unix_socket_directories: separated by commas,
/// blanks around them dropped, double quotes keep them as they are.
pub fn parse_list(value: &str) -> Result<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (element, after) = match rest.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted, value)?,
            None => {
                let (element, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (element.trim_end().to_string(), after)
            }
        };
        elements.push(element);
        let after = after.trim_start();
        if after.is_empty() {
            return Ok(elements);
        }
        rest = after.strip_prefix(',').ok_or_else(|| not_a_list(value))?.trim_start();
        if rest.is_empty() {
            return Err(not_a_list(value));
        }
    }
    Ok(elements)
}

/// What stands before the closing quote, with doubled quotes as one, and what follows it.
fn take_quoted<'a>(text: &'a str, value: &str) -> Result<(String, &'a str)> {
    let mut element = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or_else(|| not_a_list(value))?;
        element.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                element.push('"');
                rest = after;
            }
            None => return Ok((element, after)),
        }
    }
}

fn not_a_list(value: &str) -> Error {
    not_a("a list", value, "separate the elements with commas")
}

fn not_a(what: &str, value: &str, hint: &str) -> Error {
    Error::configuration(format!("\"{value}\" is not {what}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_has_the_servers_units() {
        let blocks = MemoryUnit::Blocks(8192);
        for (text, unit, bytes) in [
            ("128MB", blocks, 128 << 20),
            ("16384", blocks, 128 << 20),
            (" 1.5 GB ", blocks, 3 << 29),
            ("1TB", MemoryUnit::Kilobytes, 1 << 40),
            ("4096", MemoryUnit::Kilobytes, 4 << 20),
            ("64", MemoryUnit::Megabytes, 64 << 20),
            ("512B", MemoryUnit::Bytes, 512),
            ("0x10kB", MemoryUnit::Bytes, 16 << 10),
            ("010kB", MemoryUnit::Bytes, 8 << 10),
            ("1e3", MemoryUnit::Bytes, 1000),
            ("0", blocks, 0),
        ] {
            assert_eq!(parse_memory(text, unit), Ok(bytes), "{text:?}");
        }
        for bad in ["", "MB", "1mb", "1 KB", "-1", "1MB x", "1..2", "0x", "089", "1e400", "x"] {
            assert!(parse_memory(bad, blocks).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn integers_have_no_unit() {
        assert_eq!(parse_integer(" 100 "), Ok(100));
        assert_eq!(parse_integer("-0x10"), Ok(-16));
        assert_eq!(parse_integer("99.6"), Ok(100));
        for bad in ["", "10s", "ten"] {
            assert!(parse_integer(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn booleans_may_be_shortened_while_they_are_unambiguous() {
        for (text, expected) in [
            ("on", true),
            ("T", true),
            ("ye", true),
            ("1", true),
            ("of", false),
            ("FALSE", false),
            ("n", false),
            ("0", false),
        ] {
            assert_eq!(parse_bool(text), Ok(expected), "{text:?}");
        }
        for bad in ["", "o", "2", "onn", "truth"] {
            assert!(parse_bool(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lists_are_split_at_commas_and_keep_what_is_quoted() {
        for (text, expected) in [
            ("", vec![]),
            ("a", vec!["a"]),
            (" a , b c,d ", vec!["a", "b c", "d"]),
            ("\"a, b\",\"c\"\"d\" , e", vec!["a, b", "c\"d", "e"]),
            ("$libdir/x", vec!["$libdir/x"]),
        ] {
            assert_eq!(parse_list(text), Ok(expected.into_iter().map(String::from).collect()), "{text:?}");
        }
        for bad in ["a,", "\"a", "\"a\"b", "a,,"] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (parse_memory(&text, MemoryUnit::Bytes), parse_integer(&text), parse_bool(&text), parse_list(&text));
        }

        #[test]
        fn numbers_never_panic(text in "[-+0-9.xXeE kMB]{0,12}") {
            let _ = (parse_memory(&text, MemoryUnit::Blocks(8192)), parse_integer(&text));
        }

        #[test]
        fn every_list_can_be_quoted(elements in proptest::collection::vec("[a\", ]{0,5}", 1..5)) {
            let quoted: Vec<String> = elements.iter().map(|e| format!("\"{}\"", e.replace('"', "\"\""))).collect();
            prop_assert_eq!(parse_list(&quoted.join(",")), Ok(elements));
        }
    }
}
