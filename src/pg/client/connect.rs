//! Connecting: host after host, with and without TLS as sslmode says, each attempt within its time limit
//! (PQconnectPoll in libpq's fe-connect.c).
//!
//! Refuses a server that is not what target_session_attrs asks for. Invariant: nothing is sent unencrypted
//! when sslmode is require or stronger, except through a Unix socket.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use postgres::config::{ChannelBinding as Binding, SslMode as Encryption, SslNegotiation};
use postgres::error::Severity;
use postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::{Failure, Next};
use super::{APPLICATION_NAME, tls};
use crate::error::{Error, Result};
use crate::pg::conninfo::{Address, ChannelBinding, ConnSettings, HostSettings, SslMode, TargetSession};

type Attempt = std::result::Result<postgres::Client, Failure>;

pub(super) fn connect(settings: &ConnSettings) -> Result<postgres::Client> {
    let mut failures = Vec::new();
    for wanted in passes(settings.target_session) {
        failures.clear();
        for host in &settings.hosts {
            match connect_host(settings, host).and_then(|client| check_session(client, *wanted)) {
                Ok(client) => return Ok(client),
                Err(failure) => failures.push((place(host), failure)),
            }
            if failures.last().is_some_and(|(_, failure)| failure.next != Next::OtherHost) {
                break;
            }
        }
    }
    Err(explain(settings, &failures))
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

fn connect_host(settings: &ConnSettings, host: &HostSettings) -> Attempt {
    let (first, second) = encryptions(settings.tls.mode, matches!(host.address, Address::Socket(_)));
    let refusal = match (attempt(settings, host, first), second) {
        (Err(refusal), Some(_)) if refusal.next == Next::OtherEncryption => refusal,
        (done, _) => return done,
    };
    let second = second.unwrap_or(first);
    attempt(settings, host, second).map_err(|other| {
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

fn attempt(settings: &ConnSettings, host: &HostSettings, encryption: Encryption) -> Attempt {
    let config = config(settings, host, encryption);
    let connector = match encryption {
        Encryption::Disable => None,
        _ => Some(connector(settings, host).map_err(Failure::setup)?),
    };
    let connect = move || match connector {
        None => config.connect(NoTls),
        Some(connector) => config.connect(connector),
    };
    let to_socket = matches!(host.address, Address::Socket(_));
    let outcome = match settings.connect_timeout {
        None => connect(),
        Some(limit) => within(limit, connect)?,
    };
    outcome.map_err(|cause| Failure::connecting(&cause, to_socket))
}

fn connector(settings: &ConnSettings, host: &HostSettings) -> Result<MakeRustlsConnect> {
    if settings.tls.mode == SslMode::VerifyFull && matches!(host.address, Address::Tcp { name: None, .. }) {
        return Err(Error::configuration("there is no host name to compare with the server's certificate")
            .with_hint("set PGHOST besides PGHOSTADDR, or PGSSLMODE=verify-ca"));
    }
    tls::connector(&settings.tls)
}

/// The crate's own limit ends with the TCP connection, and a server that hangs accepts those too. A thread
/// that nobody waits for any more ends with its connection, or with the process.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, Failure> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("connect".into()).spawn(move || {
        // Nobody is there to take it once the limit has passed.
        drop(sender.send(work()));
    });
    started.map_err(|cause| Failure::setup(Error::io("start a thread", &cause)))?;
    receiver.recv_timeout(limit).map_err(|_| Failure::timed_out(limit.as_secs()))
}

fn config(settings: &ConnSettings, host: &HostSettings, encryption: Encryption) -> Config {
    let mut config = Config::new();
    match &host.address {
        Address::Socket(directory) => config.host_path(directory),
        Address::Tcp { name, address } => {
            let name = name.clone().or_else(|| address.map(|address| address.to_string()));
            address.iter().for_each(|address| {
                config.hostaddr(*address);
            });
            config.host(name.as_deref().unwrap_or_default())
        }
    };
    config.port(host.port).user(&settings.user).dbname(&settings.dbname).ssl_mode(encryption);
    config.application_name(settings.application_name.as_deref().unwrap_or(APPLICATION_NAME));
    if let Some(password) = &host.password {
        config.password(password.reveal());
    }
    if let Some(options) = &settings.options {
        config.options(options);
    }
    if settings.tls.direct && encryption == Encryption::Require {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    config.channel_binding(match settings.channel_binding {
        ChannelBinding::Disable => Binding::Disable,
        ChannelBinding::Prefer => Binding::Prefer,
        ChannelBinding::Require => Binding::Require,
    });
    let keepalive = &settings.keepalive;
    config.keepalives(keepalive.enabled).keepalives_idle(keepalive.idle);
    config.keepalives_interval(keepalive.interval).keepalives_retries(keepalive.count);
    keepalive.user_timeout.iter().for_each(|limit| {
        config.tcp_user_timeout(*limit);
    });
    settings.connect_timeout.iter().for_each(|limit| {
        config.connect_timeout(*limit);
    });
    config.notice_callback(|notice| match notice.parsed_severity() {
        Some(Severity::Warning) => tracing::warn!("PostgreSQL warns: {}", notice.message()),
        _ => tracing::info!("PostgreSQL says: {}", notice.message()),
    });
    config
}

fn check_session(mut client: postgres::Client, wanted: TargetSession) -> Attempt {
    if wanted == TargetSession::Any {
        return Ok(client);
    }
    let question =
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let answer = client.query_one(question, &[]).and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let (standby, read_only): (bool, bool) = answer.map_err(|cause| Failure::connecting(&cause, false))?;
    let objection = match wanted {
        TargetSession::ReadWrite if read_only => "the session is read-only",
        TargetSession::ReadOnly if !read_only => "the session is not read-only",
        TargetSession::Primary if standby => "the server is a standby",
        TargetSession::Standby | TargetSession::PreferStandby if !standby => "the server is not a standby",
        _ => return Ok(client),
    };
    Err(Failure::wrong_session(objection))
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

fn explain(settings: &ConnSettings, failures: &[(String, Failure)]) -> Error {
    let causes: Vec<String> =
        failures.iter().map(|(place, failure)| format!("{place}: {}", failure.cause)).collect();
    let Some((_, last)) = failures.last() else { return Error::bug("no host to connect to") };
    let who = format!("as user \"{}\", database \"{}\"", settings.user, settings.dbname);
    let error =
        Error::new(last.kind, format!("could not connect to PostgreSQL {who}: {}", causes.join("; ")));
    match &last.hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
