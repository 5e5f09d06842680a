//! Starting threads: a host that has none to spare is an error, not a panic.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{IoContext, Result};

/// Starts a thread in `scope`. `name` is what a process list shows.
pub fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, run).doing(|| "start a thread")
}
