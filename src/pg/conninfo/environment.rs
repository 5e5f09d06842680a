//! What the resolver of connection settings may know about the process that runs it, as a value: the
//! variables that libpq reads, the home directory, the operating system user.
//!
//! Invariant: nothing below this module reads the process environment, so the same value always gives
//! the same settings.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::params::{self, Params};
use crate::error::{Error, Result};

/// Variables that are read besides those of the parameter table.
const EXTRA_VARIABLES: [&str; 2] = ["PGSYSCONFDIR", "PGREQUIRESSL"];

/// What says where a server is. A connection to a server that pgark itself started must not follow these.
const WHERE_VARIABLES: [&str; 8] = [
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGTARGETSESSIONATTRS",
    "PGOPTIONS",
];

/// The variables, home directory and user name that connection settings are resolved with.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Environment {
    pub fn new<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, home: None, user: None }
    }

    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// The operating system user, which is the default database user.
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The environment of this process. A variable that is not UTF-8 is refused by name.
    pub fn from_process() -> Result<Self> {
        let wanted = params::variables().map(|(variable, _)| variable).chain(EXTRA_VARIABLES);
        let found = wanted.filter_map(|name| Some((name, env::var_os(name)?)));
        let mut environment = Self::from_os(found)?;
        // Like pqGetHomeDirectory: HOME, else what the user database says.
        environment.home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        // Like pg_fe_getauthname: the effective user. Unknown is no error until the name is needed.
        environment.user = whoami::username().ok();
        Ok(environment)
    }

    fn from_os(found: impl Iterator<Item = (&'static str, OsString)>) -> Result<Self> {
        let mut variables = Vec::new();
        for (name, value) in found {
            let value = value.into_string().map_err(|_| {
                Error::configuration(format!(
                    "could not read the environment variable {name}: it is not UTF-8"
                ))
            })?;
            variables.push((name, value));
        }
        Ok(Self::new(variables))
    }

    /// The same without what says where a server is: who connects, with which secret and certificate, stays.
    pub fn without_address(mut self) -> Self {
        self.variables.retain(|name, _| !WHERE_VARIABLES.contains(&name.as_str()));
        self
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The parameters that the variables name.
    pub(super) fn params(&self) -> Params {
        let mut params = Params::default();
        // Deprecated, and still read by libpq: conninfo_add_defaults.
        let require_ssl = self.variable("PGREQUIRESSL").filter(|value| value.starts_with('1'));
        let deprecated = require_ssl.map(|_| ("sslmode", "require")).into_iter();
        let named = params::variables().filter_map(|(variable, name)| Some((name, self.variable(variable)?)));
        for (name, value) in deprecated.chain(named) {
            let known = params.set(name, value);
            debug_assert!(known, "{name} is in the table");
        }
        params
    }
}

impl fmt::Debug for Environment {
    /// Names only: PGPASSWORD is among the variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .field("user", &self.user)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_variable_that_is_no_text_is_refused_by_name() {
        let found = [("PGHOST", OsString::from("h")), ("PGUSER", OsString::from_vec(vec![0xFF]))];
        let error = Environment::from_os(found.into_iter()).expect_err("not UTF-8");
        assert!(error.message().contains("PGUSER"), "{error}");
    }

    #[test]
    fn what_says_where_a_server_is_can_be_left_out() {
        let environment =
            Environment::new([("PGHOST", "h"), ("PGSERVICE", "s"), ("PGUSER", "u")]).without_address();
        assert_eq!(environment.params().get("user"), Some("u"));
        assert_eq!((environment.variable("PGHOST"), environment.variable("PGSERVICE")), (None, None));
    }

    #[test]
    fn this_process_has_a_user() {
        assert!(Environment::from_process().is_ok_and(|environment| environment.user().is_some()));
    }
}
