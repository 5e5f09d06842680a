//! What went wrong between us and a server, in one sentence with a hint which setting to change.
//!
//! Invariant: no password is in any of it. The crate below never puts one into an error, and parameters
//! of statements are not shown.

use std::error::Error as _;
use std::io;

use postgres::error::{DbError, SqlState};
use rustls::CertificateError;

use crate::error::{Error, Kind};

/// What a failed attempt to connect leaves to try (PQconnectPoll in libpq's fe-connect.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pg) enum Next {
    /// The server is not there or not ready: another host may be.
    OtherHost,
    /// The server or its TLS refused us: with or without encryption it may not.
    OtherEncryption,
    Nothing,
}

/// What the server said when it refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pg) struct Refusal {
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl From<&DbError> for Refusal {
    fn from(error: &DbError) -> Self {
        Self {
            code: error.code().code().to_string(),
            message: error.message().to_string(),
            detail: error.detail().map(String::from),
            hint: error.hint().map(String::from),
        }
    }
}

impl Refusal {
    /// The message with its detail.
    pub fn sentence(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({detail})", self.message),
            None => self.message.clone(),
        }
    }

    pub fn kind(&self) -> Kind {
        if is_transient(&self.code) { Kind::Transient } else { Kind::Postgres }
    }

    /// What a failed statement or command is reported as: "<what>: <message>".
    pub fn error(&self, what: &str) -> Error {
        let failed = Error::new(self.kind(), format!("{what}: {}", self.sentence()));
        match self.advice() {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }

    /// The server's hint, else ours.
    fn advice(&self) -> Option<String> {
        self.hint.clone().or_else(|| refusal_hint(&self.code).map(String::from))
    }
}

/// A failed attempt to connect.
#[derive(Clone, Debug)]
pub(in crate::pg) struct Failure {
    pub kind: Kind,
    pub cause: String,
    pub hint: Option<String>,
    pub next: Next,
}

impl Failure {
    pub fn new(next: Next, cause: impl Into<String>, hint: &str) -> Self {
        Self { kind: Kind::Postgres, cause: cause.into(), hint: Some(hint.into()), next }
    }

    pub fn timed_out(seconds: u64) -> Self {
        Self::new(
            Next::OtherHost,
            format!("no answer within {seconds} s"),
            "check PGHOST and PGPORT, or raise PGCONNECT_TIMEOUT",
        )
    }

    pub fn wrong_session(cause: &str) -> Self {
        Self::new(Next::OtherHost, cause, "name the right server, or change PGTARGETSESSIONATTRS")
    }

    /// Before anything was sent: files that could not be read, a missing host name.
    pub fn setup(error: Error) -> Self {
        let hint = error.hint().map(String::from);
        Self { kind: error.kind(), cause: error.message().to_string(), hint, next: Next::Nothing }
    }

    pub fn connecting(error: &postgres::Error, to_socket: bool) -> Self {
        if let Some(refusal) = error.as_db_error() {
            return Self::refused(&refusal.into());
        }
        if let Some(cause) = find_source::<rustls::Error>(error) {
            return Self::tls(cause);
        }
        if let Some(cause) = find_source::<io::Error>(error) {
            return Self::io(cause, to_socket);
        }
        let cause = deepest(error);
        match cause.as_str() {
            "password missing" => Self::no_password(),
            "server does not support TLS" => Self::no_tls(),
            _ => Self { kind: Kind::Postgres, cause, hint: None, next: Next::OtherEncryption },
        }
    }

    pub fn no_password() -> Self {
        Self::new(
            Next::OtherEncryption,
            "the server wants a password and none is known",
            "set PGPASSWORD or PGPASSFILE, or add a line to ~/.pgpass",
        )
    }

    pub fn no_tls() -> Self {
        Self::new(
            Next::OtherEncryption,
            "the server does not offer TLS",
            "set ssl = on in the server's postgresql.conf, or change PGSSLMODE",
        )
    }

    pub fn refused(refusal: &Refusal) -> Self {
        let starting = refusal.code == SqlState::CANNOT_CONNECT_NOW.code();
        Self {
            kind: refusal.kind(),
            cause: refusal.sentence(),
            hint: refusal.advice(),
            next: if starting { Next::OtherHost } else { Next::OtherEncryption },
        }
    }

    pub fn tls(cause: &rustls::Error) -> Self {
        let hint = match cause {
            rustls::Error::InvalidCertificate(certificate) => certificate_hint(certificate),
            _ => "check the server's ssl settings, PGSSLMODE, PGSSLCERT and PGSSLKEY",
        };
        Self::new(Next::OtherEncryption, format!("TLS failed: {cause}"), hint)
    }

    pub fn io(cause: &io::Error, to_socket: bool) -> Self {
        let hint = match cause.kind() {
            io::ErrorKind::PermissionDenied => "run this as a user that may use the server's socket",
            _ if to_socket => {
                "is the server running? Set PGHOST to one of its unix_socket_directories and PGPORT to its port"
            }
            io::ErrorKind::ConnectionRefused => {
                "is the server running there, and do its listen_addresses and port match PGHOST and PGPORT?"
            }
            _ => "check PGHOST and PGPORT, and that the server can be reached",
        };
        Self::new(Next::OtherHost, cause.to_string(), hint)
    }
}

/// A statement or a session failed.
pub(super) fn statement(sql: &str, error: &postgres::Error) -> Error {
    let what = format!("could not run \"{}\"", first_words(sql));
    if let Some(refusal) = error.as_db_error() {
        return Refusal::from(refusal).error(&what);
    }
    let cause = deepest(error);
    if error.is_closed() || find_source::<io::Error>(error).is_some() {
        return Error::transient(format!("{what}: the connection to PostgreSQL was lost: {cause}"))
            .with_hint("look into the server's log, and run this again");
    }
    Error::postgres(format!("{what}: {cause}"))
}

/// Statements are written over several lines; parameters are not part of them.
fn first_words(sql: &str) -> String {
    const LIMIT: usize = 80;
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LIMIT {
        return line;
    }
    line.chars().take(LIMIT).chain("...".chars()).collect()
}

/// Starting, stopping, recovering, or out of connections or memory: later it may work.
fn is_transient(code: &str) -> bool {
    code.starts_with("53") || code.starts_with("57P0") || code.starts_with("08")
}

fn refusal_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => "set PGPASSWORD, or correct the line in ~/.pgpass (PGPASSFILE)",
        "28000" => "choose the user with PGUSER or --user, or allow it in the server's pg_hba.conf",
        "3D000" => "choose the database with PGDATABASE or --dbname",
        "53300" => "raise max_connections, or connect as a superuser, for whom some are reserved",
        "42501" => "grant the role what is missing, or connect as a superuser with PGUSER",
        "57P03" => "wait until the server accepts connections",
        _ => return None,
    })
}

fn certificate_hint(cause: &CertificateError) -> &'static str {
    use CertificateError as C;
    match cause {
        C::UnknownIssuer => "set PGSSLROOTCERT to the certificate of the authority that issued the server's",
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "set PGHOST to a name that the certificate bears, or PGSSLMODE=verify-ca"
        }
        C::Expired | C::ExpiredContext { .. } => "renew the server's certificate",
        C::NotValidYet | C::NotValidYetContext { .. } => "check the clocks of both machines",
        C::Other(_) => {
            "it has to be an X.509 version 3 certificate: issue it again with a subjectAltName extension"
        }
        _ => "issue the server's certificate again, or set PGSSLMODE=require, which does not verify it",
    }
}

/// The first cause of that type below an error.
fn find_source<T: std::error::Error + 'static>(error: &postgres::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        // An io::Error hides what it wraps from source() by one level.
        if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = (inner as &(dyn std::error::Error + 'static)).downcast_ref::<T>()
        {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

fn deepest(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_shown_in_one_short_line() {
        assert_eq!(first_words("select\n   1"), "select 1");
        assert_eq!(first_words(&"é".repeat(100)).chars().count(), 83);
    }

    #[test]
    fn what_may_pass_is_transient() {
        for code in ["57P03", "57P01", "53300", "08006"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["28P01", "42501", "57014", "XX000"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
