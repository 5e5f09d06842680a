//! Opening a session for statements, with the `postgres` crate: its configuration for one host, and the
//! question whether the server is what target_session_attrs asks for.

use postgres::config::{ChannelBinding as Binding, SslMode as Encryption, SslNegotiation};
use postgres::error::Severity;
use postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Failure;
use super::hosts::{self, Attempt, Connector};
use super::{APPLICATION_NAME, tls};
use crate::error::Result;
use crate::pg::conninfo::{Address, ChannelBinding, ConnSettings, HostSettings, TargetSession};

pub(super) fn connect(settings: &ConnSettings) -> Result<postgres::Client> {
    hosts::connect(settings, &Sessions { settings }, &format!("database \"{}\"", settings.dbname))
}

struct Sessions<'a> {
    settings: &'a ConnSettings,
}

impl Connector for Sessions<'_> {
    type Session = postgres::Client;

    fn attempt(&self, host: &HostSettings, encryption: Encryption) -> Attempt<postgres::Client> {
        attempt(self.settings, host, encryption)
    }

    fn check(&self, client: postgres::Client, wanted: TargetSession) -> Attempt<postgres::Client> {
        check_session(client, wanted)
    }
}

fn attempt(
    settings: &ConnSettings,
    host: &HostSettings,
    encryption: Encryption,
) -> Attempt<postgres::Client> {
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
        Some(limit) => hosts::within(limit, connect)?,
    };
    outcome.map_err(|cause| Failure::connecting(&cause, to_socket))
}

fn connector(settings: &ConnSettings, host: &HostSettings) -> Result<MakeRustlsConnect> {
    hosts::check_name(settings, host)?;
    tls::connector(&settings.tls)
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

fn check_session(mut client: postgres::Client, wanted: TargetSession) -> Attempt<postgres::Client> {
    if wanted == TargetSession::Any {
        return Ok(client);
    }
    let question =
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let answer = client.query_one(question, &[]).and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let (standby, read_only): (bool, bool) = answer.map_err(|cause| Failure::connecting(&cause, false))?;
    match hosts::objection(wanted, standby, read_only) {
        None => Ok(client),
        Some(objection) => Err(Failure::wrong_session(objection)),
    }
}
