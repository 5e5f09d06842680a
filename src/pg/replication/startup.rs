//! Getting in: the startup message, the password and what the server tells of itself (PQconnectPoll in
//! fe-connect.c, pg_fe_sendauth in fe-auth.c).
//!
//! Refuses md5, whose exchange can be tried offline by whoever listens, unless it was allowed, and to send a
//! password in clear text where somebody could read it. Invariant: a server that asked for SCRAM has proved
//! to know the password before we believe that it let us in.

use std::io;
use std::time::{Duration, Instant};

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};

use super::Login;
use super::messages::{self, Request};
use super::transport::{self, Transport};
use super::wire::{Wire, put};
use crate::pg::client::failure::{Failure, Next};
use crate::pg::client::hosts::Attempt;
use crate::pg::conninfo::{ChannelBinding, ConnSettings, HostSettings, SslMode};

/// A server says a few dozen things before it is ready.
const MOST_MESSAGES: usize = 1000;
/// When there is no limit for connecting.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Protocol 3.0.
const PROTOCOL: i32 = 196_608;

/// What the server tells of itself that matters to target_session_attrs (ParameterStatus).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub standby: bool,
    pub read_only: bool,
}

/// A session that is being opened.
struct Starting<'a> {
    wire: Wire,
    settings: &'a ConnSettings,
    host: &'a HostSettings,
    login: &'a Login,
    until: Instant,
}

pub(super) fn start(
    transport: Transport,
    settings: &ConnSettings,
    host: &HostSettings,
    login: &Login,
) -> Attempt<(Wire, Told)> {
    let until = Instant::now() + settings.connect_timeout.unwrap_or(FOREVER);
    let mut starting = Starting { wire: Wire::new(transport), settings, host, login, until };
    starting.introduce()?;
    starting.authenticate()?;
    let told = starting.listen()?;
    Ok((starting.wire, told))
}

impl Starting<'_> {
    fn send(&mut self, bytes: &[u8]) -> Attempt<()> {
        self.wire.send(bytes).map_err(|cause| transport::failed(&cause))
    }

    /// StartupMessage. A walsender of physical replication needs no database and gets none.
    fn introduce(&mut self) -> Attempt<()> {
        let name = self.settings.application_name.as_deref().unwrap_or(&self.login.application_name);
        let mut parameters = vec![
            ("user", self.settings.user.as_str()),
            ("replication", "true"),
            ("application_name", name),
            ("client_encoding", "UTF8"),
        ];
        parameters.extend(self.settings.options.as_deref().map(|options| ("options", options)));
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for (name, value) in parameters {
            for text in [name, value] {
                if text.contains('\0') {
                    return Err(refused(format!("{name} holds a NUL character")));
                }
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        let length = i32::try_from(body.len().saturating_add(4)).unwrap_or(i32::MAX);
        self.send(&[&length.to_be_bytes()[..], &body].concat())
    }

    fn next_request(&mut self) -> Attempt<Request> {
        for _ in 0..MOST_MESSAGES {
            let read = self.wire.next(self.until).map_err(|cause| transport::failed(&cause))?;
            let Some(message) = read else {
                let limit = self.settings.connect_timeout.unwrap_or_default();
                return Err(Failure::timed_out(limit.as_secs()));
            };
            match message.tag {
                messages::AUTHENTICATION => {
                    return messages::authentication(message.body).ok_or_else(not_postgresql);
                }
                messages::ERROR => return Err(Failure::refused(&messages::refusal(message.body))),
                messages::NOTICE => super::tell(message.body),
                _ => return Err(not_postgresql()),
            }
        }
        Err(not_postgresql())
    }

    fn authenticate(&mut self) -> Attempt<()> {
        match self.next_request()? {
            Request::Sasl(mechanisms) => self.scram(&mechanisms)?,
            _ if self.settings.channel_binding == ChannelBinding::Require => {
                return Err(no_channel_binding());
            }
            Request::Ok => return Ok(()),
            Request::ClearText => {
                self.refuse_clear_text()?;
                let password = self.password()?.to_vec();
                self.send_password(&password)?;
            }
            Request::Md5 { salt } => {
                self.refuse_md5()?;
                let hashed = md5_hash(self.settings.user.as_bytes(), self.password()?, salt);
                self.send_password(hashed.as_bytes())?;
            }
            other => return Err(refused(format!("the server asks for {other:?}, which is not supported"))),
        }
        match self.next_request()? {
            Request::Ok => Ok(()),
            _ => Err(not_postgresql()),
        }
    }

    fn password(&self) -> Attempt<&[u8]> {
        self.host.password.as_ref().map(|password| password.reveal()).ok_or_else(Failure::no_password)
    }

    fn send_password(&mut self, password: &[u8]) -> Attempt<()> {
        let mut message = Vec::new();
        put(&mut message, b'p', &[password, &[0]].concat());
        self.send(&message)
    }

    fn refuse_md5(&self) -> Attempt<()> {
        if self.login.allow_md5 {
            return Ok(());
        }
        let hint = "set password_encryption = 'scram-sha-256' on the server and give the role its password again, or allow md5 with --allow-md5";
        Err(Failure::new(Next::Nothing, "the server asks for an md5 password, which is not safe", hint))
    }

    fn refuse_clear_text(&self) -> Attempt<()> {
        let stream = self.wire.stream();
        let verified = stream.is_encrypted() && self.settings.tls.mode >= SslMode::VerifyCa;
        if verified || stream.is_local() {
            return Ok(());
        }
        let hint = "set PGSSLMODE=verify-full, or use scram-sha-256 in the server's pg_hba.conf";
        Err(Failure::new(
            Next::Nothing,
            "the server asks for the password in clear text over a connection that is not verified",
            hint,
        ))
    }

    fn scram(&mut self, offered: &[String]) -> Attempt<()> {
        let bound = self.wire.stream().channel_binding();
        let (binding, mechanism) = choose(offered, bound, self.settings.channel_binding)?;
        let mut scram = ScramSha256::new(self.password()?, binding);
        let mut first = mechanism.as_bytes().to_vec();
        first.push(0);
        let length = i32::try_from(scram.message().len()).unwrap_or(i32::MAX);
        first.extend_from_slice(&length.to_be_bytes());
        first.extend_from_slice(scram.message());
        self.send_sasl(&first)?;
        let Request::SaslContinue(challenge) = self.next_request()? else { return Err(not_postgresql()) };
        scram.update(&challenge).map_err(|cause| unproven(&cause))?;
        let answer = scram.message().to_vec();
        self.send_sasl(&answer)?;
        let Request::SaslFinal(proof) = self.next_request()? else { return Err(not_postgresql()) };
        scram.finish(&proof).map_err(|cause| unproven(&cause))
    }

    fn send_sasl(&mut self, body: &[u8]) -> Attempt<()> {
        let mut message = Vec::new();
        put(&mut message, b'p', body);
        self.send(&message)
    }

    /// What the server says between letting us in and being ready.
    fn listen(&mut self) -> Attempt<Told> {
        let mut told = Told::default();
        for _ in 0..MOST_MESSAGES {
            let read = self.wire.next(self.until).map_err(|cause| transport::failed(&cause))?;
            let Some(message) = read else {
                return Err(Failure::timed_out(self.settings.connect_timeout.unwrap_or_default().as_secs()));
            };
            match message.tag {
                messages::READY => return Ok(told),
                messages::PARAMETER => match messages::parameter(message.body) {
                    Some((name, value)) => told.note(&name, &value),
                    None => return Err(not_postgresql()),
                },
                messages::BACKEND_KEY => {}
                messages::NOTICE => super::tell(message.body),
                messages::ERROR => return Err(Failure::refused(&messages::refusal(message.body))),
                _ => return Err(not_postgresql()),
            }
        }
        Err(not_postgresql())
    }
}

impl Told {
    fn note(&mut self, name: &str, value: &str) {
        match name {
            "in_hot_standby" => self.standby = value == "on",
            "default_transaction_read_only" => self.read_only = value == "on",
            _ => {}
        }
    }
}

/// With a certificate that can be bound to, the server's offer to bind is taken; that it offers none although
/// it could is said to it, so that it notices who cut the offer out (RFC 5802, section 6).
fn choose(
    offered: &[String],
    bound: Option<Vec<u8>>,
    wanted: ChannelBinding,
) -> Attempt<(sasl::ChannelBinding, &'static str)> {
    let offers = |name: &str| offered.iter().any(|offer| offer == name);
    let bound = bound.filter(|_| wanted != ChannelBinding::Disable);
    if let Some(hash) = bound.clone().filter(|_| offers(sasl::SCRAM_SHA_256_PLUS)) {
        return Ok((sasl::ChannelBinding::tls_server_end_point(hash), sasl::SCRAM_SHA_256_PLUS));
    }
    if wanted == ChannelBinding::Require {
        return Err(no_channel_binding());
    }
    if !offers(sasl::SCRAM_SHA_256) {
        return Err(refused(format!("the server knows none but {}", offered.join(", "))));
    }
    let binding = match bound {
        Some(_) => sasl::ChannelBinding::unrequested(),
        None => sasl::ChannelBinding::unsupported(),
    };
    Ok((binding, sasl::SCRAM_SHA_256))
}

fn refused(cause: String) -> Failure {
    Failure::new(Next::Nothing, cause, "use scram-sha-256, cert or peer in the server's pg_hba.conf")
}

fn no_channel_binding() -> Failure {
    let hint = "use TLS and scram-sha-256 in the server's pg_hba.conf, or change PGCHANNELBINDING";
    Failure::new(Next::Nothing, "the server did not bind the password to the channel", hint)
}

fn unproven(cause: &io::Error) -> Failure {
    let hint = "is this the right server? it does not know the role's password";
    Failure::new(Next::Nothing, format!("the password exchange failed: {cause}"), hint)
}

fn not_postgresql() -> Failure {
    Failure::new(
        Next::OtherHost,
        "what answers does not speak PostgreSQL's protocol",
        "check PGHOST and PGPORT",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offered: &[&str], bound: bool, wanted: ChannelBinding) -> Option<&'static str> {
        let offered: Vec<String> = offered.iter().map(|name| name.to_string()).collect();
        choose(&offered, bound.then(|| vec![1]), wanted).ok().map(|(_, mechanism)| mechanism)
    }

    #[test]
    fn the_channel_is_bound_where_it_can_be() {
        let both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
        assert_eq!(chosen(&both, true, ChannelBinding::Prefer), Some("SCRAM-SHA-256-PLUS"));
        assert_eq!(chosen(&both, false, ChannelBinding::Prefer), Some("SCRAM-SHA-256"));
        assert_eq!(chosen(&both, true, ChannelBinding::Disable), Some("SCRAM-SHA-256"));
        assert_eq!(chosen(&both, true, ChannelBinding::Require), Some("SCRAM-SHA-256-PLUS"));
        assert_eq!(chosen(&both, false, ChannelBinding::Require), None);
        assert_eq!(chosen(&["SCRAM-SHA-256"], true, ChannelBinding::Require), None);
        assert_eq!(chosen(&["OAUTHBEARER"], true, ChannelBinding::Prefer), None);
    }
}
