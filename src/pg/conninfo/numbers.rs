//! The connection parameters that are numbers: time limits and TCP keepalives.
//!
//! Refuses what is no integer. A pgark session stays open for as long as a backup takes, so a peer that
//! vanished is noticed after about a minute, where libpq leaves it to the kernel's two hours.

use std::time::Duration;

use super::params::Params;
use crate::error::{Error, Result};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// When TCP notices that the other side is gone. Has no meaning for a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub enabled: bool,
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer that end the connection.
    pub count: u32,
    /// How long sent data may stay without acknowledgement. None: as the kernel does.
    pub user_timeout: Option<Duration>,
}

impl Keepalive {
    pub(super) fn from_params(params: &Params) -> Result<Self> {
        let or = |name, default| Ok(integer(params, name)?.filter(|value| *value > 0).unwrap_or(default));
        let user_timeout = integer(params, "tcp_user_timeout")?.unwrap_or(60_000);
        Ok(Self {
            enabled: integer(params, "keepalives")? != Some(0),
            idle: seconds(or("keepalives_idle", 30)?),
            interval: seconds(or("keepalives_interval", 10)?),
            count: u32::try_from(or("keepalives_count", 3)?).unwrap_or(3),
            user_timeout: u64::try_from(user_timeout)
                .ok()
                .filter(|value| *value > 0)
                .map(Duration::from_millis),
        })
    }
}

/// connectDBComplete: at least two seconds; zero or less means no limit.
pub(super) fn connect_timeout(params: &Params) -> Result<Option<Duration>> {
    Ok(match integer(params, "connect_timeout")? {
        None => Some(DEFAULT_CONNECT_TIMEOUT),
        Some(limit) if limit <= 0 => None,
        Some(limit) => Some(seconds(limit.max(2))),
    })
}

fn seconds(value: i32) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

/// parse_int_param: an int with blanks around it.
fn integer(params: &Params, name: &str) -> Result<Option<i32>> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let value = text.trim().parse().map_err(|_| {
        Error::configuration(format!(
            "could not use the connection parameter {name} = \"{text}\": it is not an integer"
        ))
    })?;
    Ok(Some(value))
}
