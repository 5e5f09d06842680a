//! Where PostgreSQL is and how to get in, found out as libpq does: what was asked for, then the service
//! file, then the environment, then the defaults (conninfo_add_defaults and connectOptions2 in
//! fe-connect.c), with three differences: the default database is `postgres`, the default socket is looked
//! for in Debian's directory and in PostgreSQL's own, and a connection attempt ends after 30 seconds.
//!
//! Refuses settings that contradict each other and settings for safety that are not implemented.
//! Invariant: the same request and `Environment` give the same settings; no error or warning shows a secret.

mod environment;
mod numbers;
mod params;
mod passfile;
mod service;
mod string;
mod tls_settings;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use environment::Environment;
pub use numbers::Keepalive;
pub use passfile::Password;
pub use tls_settings::{ClientCertificate, Roots, SslMode, TlsSettings, TlsVersion};

use crate::error::{Error, Result};
use params::Params;
pub use params::libpq_variables;
use passfile::Login;

/// Debian's socket directory, then PostgreSQL's own default.
pub const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
pub const DEFAULT_PORT: u16 = 5432;
const DEFAULT_DATABASE: &str = "postgres";

/// What was asked for on the command line or in the configuration file. Everything is optional; what
/// `conninfo` says is overridden by the other fields.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnRequest {
    /// A connection string, a URI, or the name of a database (psql's `--dbname`).
    pub conninfo: Option<String>,
    /// A host name, an address, or a directory of Unix sockets; or several of them with commas.
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub dbname: Option<String>,
}

/// Everything that is needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnSettings {
    /// Tried in this order.
    pub hosts: Vec<HostSettings>,
    pub user: String,
    pub dbname: String,
    pub application_name: Option<String>,
    /// Command-line options for the server process.
    pub options: Option<String>,
    /// The limit for one connection attempt, from the first packet to the answer that we are in.
    pub connect_timeout: Option<Duration>,
    pub keepalive: Keepalive,
    pub tls: TlsSettings,
    pub channel_binding: ChannelBinding,
    pub target_session: TargetSession,
    /// What the user should know, such as a password file that is ignored.
    pub warnings: Vec<String>,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    pub address: Address,
    pub port: u16,
    pub password: Option<Password>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The directory of the Unix socket.
    Socket(PathBuf),
    /// With `address` given, `name` serves only to check the certificate and to find the password.
    Tcp { name: Option<String>, address: Option<IpAddr> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// target_session_attrs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl ConnSettings {
    /// Works out the settings. Reads the service file and the password file, if any; connects to nothing.
    pub fn resolve(request: &ConnRequest, environment: &Environment) -> Result<Self> {
        let mut params = request.params()?;
        let given = |params: &Params, name: &str, variable: &str| {
            params.get(name).or_else(|| environment.variable(variable)).map(String::from)
        };
        if let Some(service) = given(&params, "service", "PGSERVICE") {
            let file = given(&params, "servicefile", "PGSERVICEFILE");
            params.fill_from(service::look_up(&service, file.as_deref(), environment)?);
        }
        params.fill_from(environment.params());
        params.check_supported()?;
        Self::from_params(&params, environment)
    }

    /// The settings for a server on this machine whose socket is known. What the environment says about
    /// other places is left alone; its user, password and password file (as for localhost) count.
    pub fn local(socket_directory: impl Into<PathBuf>, port: u16, environment: &Environment) -> Result<Self> {
        let request = ConnRequest { conninfo: Some("sslmode=disable".into()), ..ConnRequest::default() };
        let mut settings = Self::resolve(&request, &environment.clone().without_address())?;
        let mut host =
            settings.hosts.pop().ok_or_else(|| Error::bug("connection settings without a host"))?;
        host.address = Address::Socket(socket_directory.into());
        host.port = port;
        settings.hosts = vec![host];
        Ok(settings)
    }

    fn from_params(params: &Params, environment: &Environment) -> Result<Self> {
        let user = params.get("user").or(environment.user()).map(String::from).ok_or_else(|| {
            Error::configuration(
                "could not find out the database user: this operating system user has no name",
            )
            .with_hint("set PGUSER or --user")
        })?;
        let dbname = params.get("dbname").unwrap_or(DEFAULT_DATABASE).to_string();
        let mut settings = Self {
            hosts: hosts(params)?,
            user,
            dbname,
            application_name: params.get("application_name").map(String::from),
            options: params.get("options").map(String::from),
            connect_timeout: numbers::connect_timeout(params)?,
            keepalive: Keepalive::from_params(params)?,
            tls: TlsSettings::from_params(params, environment)?,
            channel_binding: channel_binding(params)?,
            target_session: target_session(params)?,
            warnings: Vec::new(),
        };
        settings.add_passwords(params, environment);
        Ok(settings)
    }

    /// The given password, else that of the password file, which may differ for each host.
    fn add_passwords(&mut self, params: &Params, environment: &Environment) {
        if let Some(password) = params.get("password") {
            self.hosts.iter_mut().for_each(|host| host.password = Some(Password::new(password)));
            return;
        }
        let default = || environment.home().map(|home| home.join(".pgpass"));
        let Some(path) = params.get("passfile").map(PathBuf::from).or_else(default) else { return };
        let (contents, warning) = passfile::read(&path);
        self.warnings.extend(warning);
        for host in &mut self.hosts {
            let name = host.address.password_name();
            let login = Login { host: &name, port: host.port, dbname: &self.dbname, user: &self.user };
            host.password = contents.as_deref().and_then(|contents| passfile::find(contents, login));
        }
    }
}

impl ConnRequest {
    fn params(&self) -> Result<Params> {
        let mut params = match self.conninfo.as_deref() {
            Some(text) if string::is_connection_string(text) => string::parse(text)?,
            Some(name) => one("dbname", name),
            None => Params::default(),
        };
        let port = self.port.map(|port| port.to_string());
        let flags = [("host", &self.host), ("port", &port), ("user", &self.user), ("dbname", &self.dbname)];
        for (name, value) in flags {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                params.override_with(one(name, value));
            }
        }
        Ok(params)
    }
}

impl fmt::Debug for ConnRequest {
    /// A connection string may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnRequest")
            .field("conninfo", &self.conninfo.as_ref().map(|_| "***"))
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("dbname", &self.dbname)
            .finish()
    }
}

fn one(name: &str, value: &str) -> Params {
    let mut params = Params::default();
    let known = params.set(name, value);
    debug_assert!(known, "{name} is in the table");
    params
}

impl Address {
    fn from_host(host: &str) -> Result<Self> {
        if host.starts_with('@') {
            return Err(Error::configuration(format!(
                "could not use the host \"{host}\": abstract sockets are not supported"
            ))
            .with_hint("name a directory that is among the server's unix_socket_directories"));
        }
        if host.starts_with('/') {
            return Ok(Address::Socket(PathBuf::from(host)));
        }
        Ok(Address::Tcp { name: Some(host.to_string()), address: None })
    }

    /// What the password file calls this server.
    fn password_name(&self) -> String {
        match self {
            Address::Socket(directory) => {
                let directory = directory.to_string_lossy();
                let default = DEFAULT_SOCKET_DIRECTORIES.contains(&directory.as_ref());
                if default { "localhost".into() } else { directory.into_owned() }
            }
            Address::Tcp { name: Some(name), .. } => name.clone(),
            Address::Tcp { name: None, address } => {
                address.map(|address| address.to_string()).unwrap_or_default()
            }
        }
    }
}

/// connectOptions2: hosts, addresses and ports are lists that have to fit each other.
fn hosts(params: &Params) -> Result<Vec<HostSettings>> {
    let list = |name| params.get(name).map(|value| value.split(',').collect::<Vec<_>>());
    let addresses = addresses(list("host"), list("hostaddr"))?;
    let ports = ports(list("port"), addresses.len())?;
    let mut hosts = Vec::new();
    for (alternatives, port) in addresses.into_iter().zip(ports) {
        hosts.extend(alternatives.into_iter().map(|address| HostSettings { address, port, password: None }));
    }
    Ok(hosts)
}

/// For each host of the lists the addresses that stand for it.
fn addresses(names: Option<Vec<&str>>, numeric: Option<Vec<&str>>) -> Result<Vec<Vec<Address>>> {
    let count = numeric.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    let names = names.unwrap_or_else(|| vec![""; count]);
    let numeric = numeric.unwrap_or_else(|| vec![""; count]);
    if names.len() != numeric.len() {
        return Err(Error::configuration(format!(
            "could not match {} host names to {} host addresses",
            names.len(),
            numeric.len()
        ))
        .with_hint("set PGHOST and PGHOSTADDR to lists of the same length, or only one of them"));
    }
    names.into_iter().zip(numeric).map(|(name, numeric)| alternatives(name, numeric)).collect()
}

fn alternatives(name: &str, numeric: &str) -> Result<Vec<Address>> {
    if !numeric.is_empty() {
        let address = numeric.parse().map_err(|_| {
            Error::configuration(format!(
                "could not use the host address \"{numeric}\": it is not an IP address"
            ))
            .with_hint("set PGHOST or --host for a name; PGHOSTADDR takes numbers only")
        })?;
        let name = Some(name).filter(|name| !name.is_empty()).map(String::from);
        return Ok(vec![Address::Tcp { name, address: Some(address) }]);
    }
    if name.is_empty() {
        return Ok(DEFAULT_SOCKET_DIRECTORIES.map(|directory| Address::Socket(directory.into())).to_vec());
    }
    Ok(vec![Address::from_host(name)?])
}

fn ports(list: Option<Vec<&str>>, hosts: usize) -> Result<Vec<u16>> {
    let parse = |text: &str| match text.trim() {
        "" => Ok(DEFAULT_PORT),
        digits => digits.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            Error::configuration(format!(
                "could not use the port \"{text}\": it is not a number from 1 to 65535"
            ))
            .with_hint("set PGPORT or --port")
        }),
    };
    match list.as_deref().unwrap_or(&[""]) {
        [port] => Ok(vec![parse(port)?; hosts]),
        ports if ports.len() == hosts => ports.iter().map(|port| parse(port)).collect(),
        ports => Err(Error::configuration(format!("could not match {} ports to {hosts} hosts", ports.len()))
            .with_hint("set PGPORT to one port, or to as many as there are hosts")),
    }
}

fn channel_binding(params: &Params) -> Result<ChannelBinding> {
    match params.get("channel_binding") {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(other) => {
            Err(not_one_of("channel_binding (PGCHANNELBINDING)", other, "disable, prefer, require"))
        }
    }
}

fn target_session(params: &Params) -> Result<TargetSession> {
    let values = "any, read-write, read-only, primary, standby, prefer-standby";
    match params.get("target_session_attrs") {
        None | Some("any") => Ok(TargetSession::Any),
        Some("read-write") => Ok(TargetSession::ReadWrite),
        Some("read-only") => Ok(TargetSession::ReadOnly),
        Some("primary") => Ok(TargetSession::Primary),
        Some("standby") => Ok(TargetSession::Standby),
        Some("prefer-standby") => Ok(TargetSession::PreferStandby),
        Some(other) => Err(not_one_of("target_session_attrs (PGTARGETSESSIONATTRS)", other, values)),
    }
}

fn not_one_of(name: &str, value: &str, values: &str) -> Error {
    Error::configuration(format!("could not use {name} = \"{value}\""))
        .with_hint(format!("the values are {values}"))
}

#[cfg(test)]
mod tests;
