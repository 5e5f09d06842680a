//! Whether a connection is encrypted, and whom it trusts: the ssl parameters of libpq (connectOptions2 in
//! fe-connect.c, initialize_SSL in fe-secure-openssl.c).
//!
//! Refuses TLS before 1.2, a verifying mode without anything to verify against, and a certificate without
//! its key. Files are named here and read when they are needed.

use std::path::PathBuf;

use super::environment::Environment;
use super::not_one_of;
use super::params::Params;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, and verified only if there is a root certificate file.
    Require,
    /// Always, to a server whose certificate comes from a trusted authority.
    VerifyCa,
    /// Always, to a server whose certificate comes from a trusted authority and bears its name.
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Whom a server's certificate has to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Anybody.
    Unverified,
    File(PathBuf),
    /// What the operating system trusts.
    System,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    pub mode: SslMode,
    /// Starts with TLS instead of asking for it (sslnegotiation=direct, PostgreSQL 17).
    pub direct: bool,
    pub roots: Roots,
    pub client: Option<ClientCertificate>,
    pub send_server_name: bool,
    pub oldest: TlsVersion,
    pub newest: TlsVersion,
}

impl TlsSettings {
    pub(super) fn from_params(params: &Params, environment: &Environment) -> Result<Self> {
        let mode = mode(params)?;
        let settings = Self {
            mode,
            direct: direct(params, mode)?,
            roots: roots(params, mode, environment)?,
            client: client(params, environment),
            send_server_name: params.get("sslsni") != Some("0"),
            oldest: version(params, "ssl_min_protocol_version")?.unwrap_or(TlsVersion::V1_2),
            newest: version(params, "ssl_max_protocol_version")?.unwrap_or(TlsVersion::V1_3),
        };
        if settings.oldest > settings.newest {
            return Err(Error::configuration(
                "could not use ssl_min_protocol_version: it is above ssl_max_protocol_version",
            ));
        }
        Ok(settings)
    }
}

fn mode(params: &Params) -> Result<SslMode> {
    let system = params.get("sslrootcert") == Some("system");
    match params.get("sslmode") {
        // libpq from 16 on: with the public authorities, anything less is nothing.
        None if system => Ok(SslMode::VerifyFull),
        Some(weak) if system && weak != "verify-full" => Err(Error::configuration(format!(
            "could not use sslmode = \"{weak}\" with sslrootcert = \"system\": anybody can get a certificate"
        ))
        .with_hint("set PGSSLMODE=verify-full, or PGSSLROOTCERT to a file")),
        None | Some("prefer") => Ok(SslMode::Prefer),
        Some("disable") => Ok(SslMode::Disable),
        Some("allow") => Ok(SslMode::Allow),
        Some("require") => Ok(SslMode::Require),
        Some("verify-ca") => Ok(SslMode::VerifyCa),
        Some("verify-full") => Ok(SslMode::VerifyFull),
        Some(other) => {
            let values = "disable, allow, prefer, require, verify-ca, verify-full";
            Err(not_one_of("sslmode (PGSSLMODE)", other, values))
        }
    }
}

fn direct(params: &Params, mode: SslMode) -> Result<bool> {
    match params.get("sslnegotiation") {
        None | Some("postgres") => Ok(false),
        Some("direct") if mode >= SslMode::Require => Ok(true),
        Some("direct") => {
            Err(Error::configuration("could not use sslnegotiation = \"direct\": sslmode is too weak")
                .with_hint("set PGSSLMODE to require, verify-ca or verify-full"))
        }
        Some(other) => Err(not_one_of("sslnegotiation (PGSSLNEGOTIATION)", other, "postgres, direct")),
    }
}

fn roots(params: &Params, mode: SslMode, environment: &Environment) -> Result<Roots> {
    if params.get("sslrootcert") == Some("system") {
        return Ok(Roots::System);
    }
    let file = params.get("sslrootcert").map(PathBuf::from).or_else(|| default_file(environment, "root.crt"));
    match file {
        Some(file) if file.exists() => Ok(Roots::File(file)),
        _ if mode < SslMode::VerifyCa => Ok(Roots::Unverified),
        file => {
            let name = file.unwrap_or_else(|| PathBuf::from("~/.postgresql/root.crt"));
            Err(Error::configuration(format!(
                "could not verify the server's certificate: the root certificate file {} does not exist",
                name.display()
            ))
            .with_hint(
                "set PGSSLROOTCERT to the authority's certificate or to \"system\", or PGSSLMODE=require",
            ))
        }
    }
}

/// A certificate that was not asked for is used only if it is there, and so is one that was: libpq leaves
/// it to the server to miss it.
fn client(params: &Params, environment: &Environment) -> Option<ClientCertificate> {
    if params.get("sslcertmode") == Some("disable") {
        return None;
    }
    let path = |name, file| params.get(name).map(PathBuf::from).or_else(|| default_file(environment, file));
    let certificate = path("sslcert", "postgresql.crt").filter(|file| file.exists())?;
    Some(ClientCertificate { certificate, key: path("sslkey", "postgresql.key")? })
}

fn default_file(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.home().map(|home| home.join(".postgresql").join(name))
}

/// libpq's default and everything below it come to 1.2: older versions are not spoken here.
fn version(params: &Params, name: &str) -> Result<Option<TlsVersion>> {
    let minimum = name.contains("min");
    match params.get(name).map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("tlsv1.3") => Ok(Some(TlsVersion::V1_3)),
        Some("tlsv1.2") => Ok(Some(TlsVersion::V1_2)),
        Some("tlsv1" | "tlsv1.1") if minimum => Ok(Some(TlsVersion::V1_2)),
        Some(other) => Err(not_one_of(name, other, "TLSv1.2, TLSv1.3")),
    }
}
