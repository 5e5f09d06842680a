//! The connection parameters that libpq knows (PQconninfoOptions in fe-connect.c, PostgreSQL 14 to 18)
//! and a set of values for them.
//!
//! A parameter that would make a connection safer and that pgark does not implement is refused when it
//! is set, never ignored. Invariant: the `Debug` form of a set shows no secret.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};

/// What pgark does with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    Used,
    /// Makes no difference to a pgark session.
    Ignored,
    /// Only these values describe what pgark does anyway.
    Only(&'static [&'static str]),
}

use Support::{Ignored, Only, Used};

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Used => Ok(()),
            Ignored => f.write_str("makes no difference here"),
            Only([]) => f.write_str("not implemented: refused where it is set"),
            Only(values) => write!(f, "{} only; any other value is refused", values.join(" or ")),
        }
    }
}

struct Keyword {
    name: &'static str,
    variable: Option<&'static str>,
    support: Support,
}

const fn keyword(name: &'static str, variable: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: Some(variable), support }
}

const fn unnamed(name: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: None, support }
}

const KEYWORDS: &[Keyword] = &[
    keyword("service", "PGSERVICE", Used),
    keyword("servicefile", "PGSERVICEFILE", Used),
    keyword("user", "PGUSER", Used),
    keyword("password", "PGPASSWORD", Used),
    keyword("passfile", "PGPASSFILE", Used),
    keyword("channel_binding", "PGCHANNELBINDING", Used),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    keyword("dbname", "PGDATABASE", Used),
    keyword("host", "PGHOST", Used),
    keyword("hostaddr", "PGHOSTADDR", Used),
    keyword("port", "PGPORT", Used),
    keyword("client_encoding", "PGCLIENTENCODING", Ignored),
    keyword("options", "PGOPTIONS", Used),
    keyword("application_name", "PGAPPNAME", Used),
    unnamed("fallback_application_name", Ignored),
    unnamed("keepalives", Used),
    unnamed("keepalives_idle", Used),
    unnamed("keepalives_interval", Used),
    unnamed("keepalives_count", Used),
    unnamed("tcp_user_timeout", Used),
    keyword("sslmode", "PGSSLMODE", Used),
    keyword("sslnegotiation", "PGSSLNEGOTIATION", Used),
    keyword("sslcompression", "PGSSLCOMPRESSION", Ignored),
    keyword("sslcert", "PGSSLCERT", Used),
    keyword("sslkey", "PGSSLKEY", Used),
    keyword("sslcertmode", "PGSSLCERTMODE", Only(&["allow", "disable"])),
    unnamed("sslpassword", Only(&[])),
    keyword("sslrootcert", "PGSSLROOTCERT", Used),
    keyword("sslcrl", "PGSSLCRL", Only(&[])),
    keyword("sslcrldir", "PGSSLCRLDIR", Only(&[])),
    keyword("sslsni", "PGSSLSNI", Used),
    unnamed("sslkeylogfile", Ignored),
    keyword("requirepeer", "PGREQUIREPEER", Only(&[])),
    keyword("require_auth", "PGREQUIREAUTH", Only(&[])),
    keyword("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Used),
    keyword("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Used),
    keyword("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"])),
    keyword("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    keyword("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"])),
    keyword("krbsrvname", "PGKRBSRVNAME", Ignored),
    keyword("gsslib", "PGGSSLIB", Ignored),
    keyword("gssdelegation", "PGGSSDELEGATION", Ignored),
    unnamed("replication", Only(&["false", "off", "no", "0"])),
    keyword("target_session_attrs", "PGTARGETSESSIONATTRS", Used),
    keyword("load_balance_hosts", "PGLOADBALANCEHOSTS", Ignored),
    unnamed("scram_client_key", Only(&[])),
    unnamed("scram_server_key", Only(&[])),
    unnamed("oauth_issuer", Ignored),
    unnamed("oauth_client_id", Ignored),
    unnamed("oauth_client_secret", Ignored),
    unnamed("oauth_scope", Ignored),
];

/// The environment variables that name a parameter's value, with the parameter.
pub(super) fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYWORDS.iter().filter_map(|keyword| Some((keyword.variable?, keyword.name)))
}

/// The same for people, with what pgark does with it where that is not what libpq does.
pub fn libpq_variables() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    KEYWORDS.iter().filter_map(|keyword| Some((keyword.variable?, keyword.name, keyword.support.to_string())))
}

/// Values by parameter name. An empty value counts as given: it hides what the environment says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<&'static str, String>);

impl Params {
    /// Sets a value; the last one counts. False if libpq has no such parameter.
    #[must_use]
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) -> bool {
        let known = KEYWORDS.iter().find(|keyword| keyword.name == name);
        if let Some(keyword) = known {
            self.0.insert(keyword.name, value.into());
        }
        known.is_some()
    }

    /// Sets what is not set yet.
    pub(super) fn fill_from(&mut self, other: Params) {
        for (name, value) in other.0 {
            self.0.entry(name).or_insert(value);
        }
    }

    /// Sets everything that `other` has.
    pub(super) fn override_with(&mut self, other: Params) {
        self.0.extend(other.0);
    }

    /// The value, if it was given and is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether anything was given, an empty value too.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses what is set but not implemented.
    pub(super) fn check_supported(&self) -> Result<()> {
        for keyword in KEYWORDS {
            let (Only(allowed), Some(value)) = (keyword.support, self.get(keyword.name)) else { continue };
            if !allowed.contains(&value) {
                return Err(unsupported(keyword, allowed));
            }
        }
        Ok(())
    }
}

fn unsupported(keyword: &Keyword, allowed: &[&str]) -> Error {
    let name = keyword.name;
    let place = keyword.variable.map(|variable| format!(" (or {variable})")).unwrap_or_default();
    let values =
        if allowed.is_empty() { String::new() } else { format!(", or set it to {}", allowed.join(" or ")) };
    Error::configuration(format!(
        "could not use the connection parameter {name}: pgark does not implement it"
    ))
    .with_hint(format!("remove {name}{place}{values}"))
}

fn is_secret(name: &str) -> bool {
    name.contains("password") || name.contains("secret") || name.starts_with("scram")
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&&'static str, &String)| {
            (*name, if is_secret(name) { "***".to_string() } else { value.clone() })
        };
        f.debug_map().entries(self.0.iter().map(shown)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut params = Params::default();
        for name in ["password", "sslpassword", "oauth_client_secret", "scram_client_key", "user"] {
            assert!(params.set(name, "hush"), "{name}");
        }
        assert_eq!(format!("{params:?}").matches("hush").count(), 1);
    }

    #[test]
    fn a_parameter_for_safety_that_is_not_implemented_is_refused() {
        for (name, value) in [("requirepeer", "postgres"), ("gssencmode", "require"), ("sslcrl", "/x")] {
            let mut params = Params::default();
            assert!(params.set(name, value));
            let error = params.check_supported().expect_err(name);
            assert!(error.message().contains(name));
            assert!(error.hint().is_some_and(|hint| hint.starts_with("remove ")));
        }
        let mut params = Params::default();
        assert!(params.set("gssencmode", "prefer") && params.set("requirepeer", ""));
        assert_eq!(params.check_supported(), Ok(()));
    }

    #[test]
    fn every_parameter_has_one_entry() {
        let mut names: Vec<&str> = KEYWORDS.iter().map(|keyword| keyword.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYWORDS.len());
    }
}
