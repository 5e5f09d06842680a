//! The one error type of pgark. Its job: say what went wrong, where, and what to do about it, and
//! map each kind that somebody acts on to one exit code.
//!
//! Messages read "could not <verb> <object>: <cause>", lower case, and name the path, key or LSN with
//! what was expected and what was found. A hint is one sentence that tells what to do.

use std::fmt;

/// What somebody does about an error. One kind, one exit code (the table in the README).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrong flags, environment, configuration file, or a host that is not prepared.
    Configuration,
    /// The repository was really read and does not have it.
    NotFound,
    /// Something else already stands under that name, or somebody else holds the lease.
    Conflict,
    /// Bytes are not what they were when they were written.
    Corrupt,
    /// Input or output failed; trying again may help.
    Transient,
    /// PostgreSQL refused, failed, or is not what the request needs.
    Postgres,
    /// pgark contradicts itself.
    Bug,
}

impl Kind {
    /// The exit code of every program but `wal-fetch`, which adds 200 (see `ops::wal_fetch`).
    /// All are ≤ 125, which PostgreSQL's archiver needs in order to retry, and none is 1.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Configuration => 2,
            Kind::NotFound => 3,
            Kind::Conflict => 4,
            Kind::Corrupt => 5,
            Kind::Transient => 6,
            Kind::Postgres => 7,
            Kind::Bug => 70,
        }
    }

    /// The word for logs and `--log-format json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Configuration => "configuration",
            Kind::NotFound => "not found",
            Kind::Conflict => "conflict",
            Kind::Corrupt => "corrupt",
            Kind::Transient => "transient",
            Kind::Postgres => "postgres",
            Kind::Bug => "bug",
        }
    }
}

/// An error: a kind, a sentence, and sometimes a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    unreachable: bool,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, unreachable: false }
    }

    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Kind::Transient, message)
    }

    pub fn postgres(message: impl Into<String>) -> Self {
        Self::new(Kind::Postgres, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// "could not <what>: <cause>" for a failed system call, with a hint where the cause has a usual cure.
    pub fn io(what: impl fmt::Display, cause: &std::io::Error) -> Self {
        let error = Self::transient(format!("could not {what}: {cause}"));
        match cause.kind() {
            std::io::ErrorKind::StorageFull => error.with_hint("free some space on that file system"),
            std::io::ErrorKind::PermissionDenied => {
                error.with_hint("run this as the operating system user that owns it, usually the server's")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => error.with_hint("mount that file system read-write"),
            _ => error,
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that it is the repository that failed: see [`Error::is_unreachable`].
    pub fn as_unreachable(mut self) -> Self {
        self.unreachable = true;
        self
    }

    /// Whether a repository could not be reached or written to: not there, full, read-only, forbidden, an
    /// input or output error. Never for what the repository or we refused, nor for what failed on our side.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// Puts what was being done in front of the sentence: "<context>: <message>".
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// `result.doing("open /x")` turns a failed system call into "could not open /x: <cause>".
pub trait IoContext<T> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::io(what(), &cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_code_that_the_archiver_retries() {
        let kinds = [
            Kind::Configuration,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Corrupt,
            Kind::Transient,
            Kind::Postgres,
            Kind::Bug,
        ];
        let mut codes: Vec<u8> = kinds.iter().map(|kind| kind.exit_code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), kinds.len());
        assert!(codes.iter().all(|code| (2..=54).contains(code) || *code == 70));
    }

    #[test]
    fn a_full_disk_comes_with_a_hint() {
        let error = Error::io("write /r/x", &std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), Kind::Transient);
        assert!(error.hint().is_some_and(|hint| hint.contains("free some space")));
        assert!(error.message().starts_with("could not write /r/x: "));
    }
}
