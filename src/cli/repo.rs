//! The flags of `pgark repo ls|cat|get`, and what they print.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::Output;
use super::present::{age, bytes};
use crate::config::Config;
use crate::error::{Error, IoContext, Result};
use crate::ops::look::list::{self, Entry, Request};
use crate::ops::look::{self, Decoding};

#[derive(Args)]
pub struct RepoArgs {
    #[command(subcommand)]
    verb: RepoVerb,
}

#[derive(Subcommand)]
enum RepoVerb {
    /// List objects: size, age, key
    Ls(LsArgs),
    /// Write an object to standard output
    Cat(CatArgs),
    /// Write an object into a new file
    Get(GetArgs),
}

#[derive(Args)]
struct LsArgs {
    /// Where to look, such as main; without, at the top
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,

    /// Exact sizes in bytes, and times
    #[arg(short, long)]
    long: bool,

    /// Everything below, not only the next level
    #[arg(short = 'R', long)]
    recursive: bool,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Args)]
struct Object {
    /// As `pgark repo ls` shows it
    #[arg(value_name = "KEY")]
    key: String,

    /// What it holds: WAL as the server wrote it, maps and packs as JSON lines; =header: what a segment's header says
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "content")]
    decode: Option<Decode>,
}

#[derive(Args)]
struct CatArgs {
    #[command(flatten)]
    object: Object,
}

#[derive(Args)]
struct GetArgs {
    #[command(flatten)]
    object: Object,

    /// A file that does not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Decode {
    Content,
    Header,
}

impl Object {
    fn decoding(&self) -> Decoding {
        match self.decode {
            None => Decoding::Stored,
            Some(Decode::Content) => Decoding::Content,
            Some(Decode::Header) => Decoding::Header,
        }
    }
}

impl RepoArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        match self.verb {
            RepoVerb::Ls(ls) => ls.run(config)?,
            RepoVerb::Cat(cat) => cat.run(config)?,
            RepoVerb::Get(get) => look::get(config, &get.object.key, get.object.decoding(), &get.file)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl LsArgs {
    fn run(self, config: &Config) -> Result<()> {
        let mut out = BufWriter::new(Standard::new());
        let outcome = self.write(config, &mut out).and_then(|()| out.flush().doing(|| WRITING));
        out.into_parts().0.finish(outcome)
    }

    /// Not gathered in memory: there may be millions.
    fn write(self, config: &Config, out: &mut impl Write) -> Result<()> {
        let request = Request { prefix: self.prefix, recursive: self.recursive };
        let now = Timestamp::now();
        let mut first = true;
        list::list(config, &request, &mut |entry| {
            let line = match (self.output, self.long) {
                (Output::Json, _) => json_entry(&entry, std::mem::take(&mut first))?,
                (Output::Text, true) => long_line(&entry),
                (Output::Text, false) => line(&entry, now),
            };
            writeln!(out, "{line}").doing(|| WRITING)
        })?;
        if self.output == Output::Json {
            let opening = if first { JSON_OPENS } else { "" };
            writeln!(out, "{opening}]}}").doing(|| WRITING)?;
        }
        Ok(())
    }
}

const WRITING: &str = "write to standard output";

const JSON_OPENS: &str = "{\"format\":\"pgark repo-ls\",\"version\":1,\"entries\":[";

fn json_entry(entry: &Entry, first: bool) -> Result<String> {
    let entry =
        serde_json::to_string(entry).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
    Ok(if first { format!("{JSON_OPENS}{entry}") } else { format!(",{entry}") })
}

fn line(entry: &Entry, now: Timestamp) -> String {
    let size = entry.size_bytes.map_or(String::new(), bytes);
    let age = entry.modified.map_or(String::new(), |modified| age(modified, now));
    format!("{size:>12}  {age:>18}  {}", entry.key)
}

fn long_line(entry: &Entry) -> String {
    let size = entry.size_bytes.map_or(String::new(), |size| size.to_string());
    let modified = entry.modified.map_or(String::new(), |modified| format!("{modified:.0}"));
    format!("{size:>16}  {modified:>20}  {}", entry.key)
}

impl CatArgs {
    fn run(self, config: &Config) -> Result<()> {
        let mut out = Standard::new();
        let outcome = look::cat(config, &self.object.key, self.object.decoding(), &mut out);
        out.finish(outcome)
    }
}

/// Standard output, which takes nothing that would upset a terminal.
struct Standard {
    out: std::io::Stdout,
    is_terminal: bool,
    refused: bool,
    /// Whoever reads has seen enough: `pgark repo cat … | head`.
    closed: bool,
}

impl Standard {
    fn new() -> Self {
        let out = std::io::stdout();
        Self { is_terminal: out.is_terminal(), out, refused: false, closed: false }
    }

    fn finish(mut self, outcome: Result<()>) -> Result<()> {
        if self.refused {
            return Err(Error::configuration("this is not text, and standard output is a terminal")
                .with_hint("redirect it, or add --decode"));
        }
        if self.closed {
            return Ok(());
        }
        outcome.and_then(|()| self.out.flush().doing(|| WRITING))
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.is_terminal && !is_text(bytes) {
            self.refused = true;
            return Err(std::io::Error::other("not text"));
        }
        let written = self.out.write(bytes);
        self.closed |= matches!(&written, Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Whether a terminal can show it. A character may be cut off at the end of a piece.
fn is_text(bytes: &[u8]) -> bool {
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\n' | b'\t' | b'\r');
    let utf8 = std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
    utf8 && !bytes.iter().any(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_spared_what_is_not_text() {
        for text in ["", "{\"a\": 1}\n", "1\t0/3000148\tn\u{e4}her\r\n"] {
            assert!(is_text(text.as_bytes()), "{text}");
        }
        assert!(is_text(&"\u{e4}".as_bytes()[..1]), "the rest comes with the next piece");
        for bytes in [&b"\x1b[2J"[..], b"a\0b", b"\x28\xb5\x2f\xfd\x24", b"a\xffb"] {
            assert!(!is_text(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn lines_have_columns() {
        let modified: Timestamp = "2026-11-23T03:10:00Z".parse().expect("a time");
        let now: Timestamp = "2026-11-23T05:10:00Z".parse().expect("a time");
        let entry = Entry { key: "main/x".into(), size_bytes: Some(2048), modified: Some(modified) };
        assert_eq!(line(&entry, now), "    2.00 KiB             2 h ago  main/x");
        assert_eq!(long_line(&entry), "            2048  2026-11-23T03:10:00Z  main/x");
        let level = Entry { key: "main/".into(), size_bytes: None, modified: None };
        assert_eq!(line(&level, now), format!("{:34}main/", ""));
    }
}
