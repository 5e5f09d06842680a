//! Telling a service manager how we are (sd_notify(3)): ready, alive, leaving, and a line of status. A
//! datagram each to the socket that it named; without one, nothing is told.
//!
//! What can't be told is logged once and changes nothing else: the manager acts on silence itself.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// What the service manager put into our environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceManager {
    /// NOTIFY_SOCKET.
    pub socket: Option<OsString>,
    /// WATCHDOG_USEC: the silence after which we count as hung.
    pub watchdog: Option<Duration>,
}

/// The line to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    alive: Instant,
    ready: bool,
}

impl Notifier {
    pub fn new(manager: &ServiceManager) -> Self {
        let to = manager.socket.as_ref().and_then(|socket| match open(socket.as_bytes()) {
            Ok(to) => Some(to),
            Err(cause) => {
                tracing::warn!("could not reach the service manager at {}: {cause}", socket.display());
                None
            }
        });
        Self { to, watchdog: manager.watchdog, alive: Instant::now(), ready: false }
    }

    /// The first time: we do what we are for.
    pub fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.send("READY=1\n");
        }
    }

    /// Often enough for the watchdog, if it is called often enough.
    pub fn alive(&mut self) {
        if self.watchdog.is_some_and(|limit| self.alive.elapsed() >= limit / 3) {
            self.alive = Instant::now();
            self.send("WATCHDOG=1\n");
        }
    }

    pub fn status(&mut self, line: &str) {
        self.send(&format!("STATUS={line}\n"));
    }

    pub fn leaving(&mut self) {
        self.send("STOPPING=1\n");
    }

    fn send(&mut self, message: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(cause) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!("could not tell the service manager how we are: {cause}");
            self.to = None;
        }
    }
}

/// A path, or a name in the abstract namespace if it begins with `@`.
fn open(name: &[u8]) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_service_manager_hears_that_we_are_ready_once_and_that_we_live() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_nonblocking(true).expect("set");
        let manager = ServiceManager { socket: Some(path.into_os_string()), watchdog: Some(Duration::ZERO) };
        let mut notifier = Notifier::new(&manager);
        notifier.ready();
        notifier.ready();
        notifier.alive();
        notifier.status("well");
        notifier.leaving();
        let all: Vec<String> = (0..4).map(|_| heard(&socket)).collect();
        assert_eq!(all, ["READY=1\n", "WATCHDOG=1\n", "STATUS=well\n", "STOPPING=1\n"]);
        assert!(socket.recv(&mut [0; 9]).is_err(), "nothing more");
    }

    #[test]
    fn a_service_manager_that_is_not_there_does_no_harm() {
        for socket in ["/nonexistent/socket", "@nobody-listens-here", ""] {
            let manager = ServiceManager { socket: Some(socket.into()), watchdog: Some(Duration::ZERO) };
            let mut notifier = Notifier::new(&manager);
            notifier.ready();
            notifier.alive();
        }
        Notifier::new(&ServiceManager::default()).ready();
    }
}
