//! Which servers to try and how: host after host, with and without TLS as sslmode says, each attempt within
//! its time limit (PQconnectPoll in libpq's fe-connect.c). Alike for sessions and for replication.
//!
//! Refuses a server that is not what target_session_attrs asks for. Invariant: nothing is sent unencrypted
//! when sslmode is require or stronger, except through a Unix socket.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use postgres::config::SslMode as Encryption;

use super::failure::{Failure, Next};
use crate::error::{Error, Result};
use crate::pg::conninfo::{Address, ConnSettings, HostSettings, SslMode, TargetSession};

/// How an attempt to open a session of kind `S` ends.
pub(in crate::pg) type Attempt<S> = std::result::Result<S, Failure>;

/// What opens sessions.
pub(in crate::pg) trait Connector {
    type Session;

    /// One attempt. It keeps to the time limit itself.
    fn attempt(&self, host: &HostSettings, encryption: Encryption) -> Attempt<Self::Session>;

    /// Refuses a session that is not the wanted one.
    fn check(&self, session: Self::Session, wanted: TargetSession) -> Attempt<Self::Session>;
}

/// Connects to the first of the hosts that lets us in and is what `target_session` asks for. `purpose` is
/// what messages say that the session is for.
pub(in crate::pg) fn connect<C: Connector>(
    settings: &ConnSettings,
    connector: &C,
    purpose: &str,
) -> Result<C::Session> {
    let mut failures = Vec::new();
    for wanted in passes(settings.target_session) {
        failures.clear();
        for host in &settings.hosts {
            match connect_host(settings, connector, host)
                .and_then(|session| connector.check(session, *wanted))
            {
                Ok(session) => return Ok(session),
                Err(failure) => failures.push((place(host), failure)),
            }
            if failures.last().is_some_and(|(_, failure)| failure.next != Next::OtherHost) {
                break;
            }
        }
    }
    Err(explain(settings, &failures, purpose))
}

/// prefer-standby is "standby, else any".
fn passes(target: TargetSession) -> &'static [TargetSession] {
    match target {
        TargetSession::Any => &[TargetSession::Any],
        TargetSession::ReadWrite => &[TargetSession::ReadWrite],
        TargetSession::ReadOnly => &[TargetSession::ReadOnly],
        TargetSession::Primary => &[TargetSession::Primary],
        TargetSession::Standby => &[TargetSession::Standby],
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
    }
}

fn connect_host<C: Connector>(
    settings: &ConnSettings,
    connector: &C,
    host: &HostSettings,
) -> Attempt<C::Session> {
    let (first, second) = encryptions(settings.tls.mode, matches!(host.address, Address::Socket(_)));
    let refusal = match (connector.attempt(host, first), second) {
        (Err(refusal), Some(_)) if refusal.next == Next::OtherEncryption => refusal,
        (done, _) => return done,
    };
    let second = second.unwrap_or(first);
    connector.attempt(host, second).map_err(|other| {
        if other.cause == refusal.cause {
            return refusal;
        }
        let cause = format!("{}: {}; {}: {}", named(first), refusal.cause, named(second), other.cause);
        Failure { cause, hint: refusal.hint.or(other.hint), ..other }
    })
}

/// What to try, and what to try when the server refuses that. Sockets are never encrypted.
fn encryptions(mode: SslMode, socket: bool) -> (Encryption, Option<Encryption>) {
    match mode {
        _ if socket => (Encryption::Disable, None),
        SslMode::Disable => (Encryption::Disable, None),
        SslMode::Allow => (Encryption::Disable, Some(Encryption::Require)),
        SslMode::Prefer => (Encryption::Prefer, Some(Encryption::Disable)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Require, None),
    }
}

/// What speaks against a session with a server that is a standby or not, read-only or not.
pub(in crate::pg) fn objection(
    wanted: TargetSession,
    standby: bool,
    read_only: bool,
) -> Option<&'static str> {
    match wanted {
        TargetSession::ReadWrite if read_only => Some("the session is read-only"),
        TargetSession::ReadOnly if !read_only => Some("the session is not read-only"),
        TargetSession::Primary if standby => Some("the server is a standby"),
        TargetSession::Standby | TargetSession::PreferStandby if !standby => {
            Some("the server is not a standby")
        }
        _ => None,
    }
}

/// verify-full needs a name to verify.
pub(in crate::pg) fn check_name(settings: &ConnSettings, host: &HostSettings) -> Result<()> {
    if settings.tls.mode == SslMode::VerifyFull && matches!(host.address, Address::Tcp { name: None, .. }) {
        return Err(Error::configuration("there is no host name to compare with the server's certificate")
            .with_hint("set PGHOST besides PGHOSTADDR, or PGSSLMODE=verify-ca"));
    }
    Ok(())
}

/// A limit on the TCP connection alone is too little: a server that hangs accepts those too. A thread
/// that nobody waits for any more ends with its connection, or with the process.
pub(in crate::pg) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Attempt<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("connect".into()).spawn(move || {
        // Nobody is there to take it once the limit has passed.
        drop(sender.send(work()));
    });
    started.map_err(|cause| Failure::setup(Error::io("start a thread", &cause)))?;
    receiver.recv_timeout(limit).map_err(|_| Failure::timed_out(limit.as_secs()))
}

fn place(host: &HostSettings) -> String {
    match &host.address {
        Address::Socket(directory) => format!("socket {}/.s.PGSQL.{}", directory.display(), host.port),
        Address::Tcp { name, address } => match (name, address) {
            (Some(name), Some(address)) => format!("{name} ({address}), port {}", host.port),
            (Some(name), None) => format!("{name}, port {}", host.port),
            (None, Some(address)) => format!("{address}, port {}", host.port),
            (None, None) => format!("port {}", host.port),
        },
    }
}

fn named(encryption: Encryption) -> &'static str {
    if encryption == Encryption::Disable { "without TLS" } else { "with TLS" }
}

fn explain(settings: &ConnSettings, failures: &[(String, Failure)], purpose: &str) -> Error {
    let causes: Vec<String> =
        failures.iter().map(|(place, failure)| format!("{place}: {}", failure.cause)).collect();
    let Some((_, last)) = failures.last() else { return Error::bug("no host to connect to") };
    let who = format!("as user \"{}\", {purpose}", settings.user);
    let error =
        Error::new(last.kind, format!("could not connect to PostgreSQL {who}: {}", causes.join("; ")));
    match &last.hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
