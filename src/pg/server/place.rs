//! A place for a server on this host: a free port, and a directory that can hold its socket.
//!
//! Refuses a socket directory whose path would be cut off, isn't there, or is no directory. A port that is
//! free now can be taken a moment later; the server's own message says so then.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;

use crate::error::{Error, IoContext, Result};

/// PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;

/// What fits into sun_path of a sockaddr_un, without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A TCP port that is free for IPv4 and IPv6, and has no socket in the directory.
pub fn free_port(socket_directory: &Path) -> Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).doing(|| "find a free port")?;
        let port = listener.local_addr().doing(|| "find a free port")?.port();
        if is_free_for_ipv6(port)? && !socket_directory.join(socket_name(port)).exists() {
            return Ok(port);
        }
    }
    Err(Error::transient("could not find a free port").with_hint("choose one with --port"))
}

/// The first port from PostgreSQL's own on that is free and not among those that are `taken`, for servers that are
/// down now, as postgresql-common gives them out (PgCommon.pm, next_free_port).
pub fn first_free_port(socket_directory: &Path, taken: &BTreeSet<u16>) -> Result<u16> {
    for port in (DEFAULT_PORT..=u16::MAX).filter(|port| !taken.contains(port)) {
        if is_free_for_ipv4(port)?
            && is_free_for_ipv6(port)?
            && !socket_directory.join(socket_name(port)).exists()
        {
            return Ok(port);
        }
    }
    Err(Error::conflict("could not find a free port").with_hint("choose one with --port"))
}

fn is_free_for_ipv4(port: u16) -> Result<bool> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(cause) => Err(cause).doing(|| format!("try port {port}")),
    }
}

fn is_free_for_ipv6(port: u16) -> Result<bool> {
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(_) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => Ok(false),
        // This host has no IPv6.
        Err(cause) if cause.kind() == io::ErrorKind::AddrNotAvailable || cause.raw_os_error() == Some(97) => {
            Ok(true)
        }
        Err(cause) => Err(cause).doing(|| format!("try port {port}")),
    }
}

/// Whether a server can put its socket there, before it tries.
pub fn check_socket_directory(directory: &Path, port: u16) -> Result<()> {
    let name = directory.display();
    let refused = |cause: String| {
        Error::configuration(format!("could not use the socket directory {name}: {cause}"))
            .with_hint("choose another with --socket-dir, for example /tmp")
    };
    if !directory.is_absolute() {
        return Err(refused("it is not an absolute path".into()));
    }
    let length = directory.join(socket_name(port)).as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(refused(format!(
            "the socket's path would have {length} bytes, and {MAX_SOCKET_PATH} are possible"
        )));
    }
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(refused("it is not a directory".into())),
        Err(cause) => Err(refused(cause.to_string())),
    }
}

/// The value of unix_socket_directories for one directory: the setting is a list, so a comma needs quotes.
pub fn socket_directory_value(directory: &str) -> String {
    if !directory.contains([',', '"', ' ']) {
        return directory.to_string();
    }
    format!("\"{}\"", directory.replace('"', "\"\""))
}

fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::settings_value::parse_list;

    #[test]
    fn a_free_port_can_be_listened_on() {
        let port = free_port(Path::new("/nonexistent")).expect("a port");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free");
    }

    #[test]
    fn ports_are_given_out_in_order_and_none_twice() {
        let none = Path::new("/nonexistent");
        let first = first_free_port(none, &BTreeSet::new()).expect("a port");
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, first)).expect("free");
        let second = first_free_port(none, &BTreeSet::new()).expect("a port");
        assert!(first >= DEFAULT_PORT && second > first, "{first} {second}");
        let third = first_free_port(none, &BTreeSet::from([second])).expect("a port");
        assert!(third > second, "{second} {third}");
    }

    #[test]
    fn a_port_with_a_socket_or_a_listener_is_not_free() {
        let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).map(|listener| {
            let port = listener.local_addr().expect("an address").port();
            (listener, port)
        });
        if let Ok((_listener, port)) = taken {
            assert_eq!(is_free_for_ipv6(port), Ok(false));
        }
    }

    #[test]
    fn a_socket_directory_has_to_be_short_absolute_and_there() {
        let directory = tempfile::tempdir_in("/tmp").expect("a directory");
        assert_eq!(check_socket_directory(directory.path(), 5432), Ok(()));
        let long = format!("/{}", "x".repeat(93));
        let fits = format!("/{}", "x".repeat(92));
        for (path, cause) in [
            ("relative", "not an absolute path"),
            (long.as_str(), "would have 108 bytes"),
            (fits.as_str(), "No such file"),
            ("/etc/passwd", "not a directory"),
        ] {
            let error = check_socket_directory(Path::new(path), 5432).expect_err(path);
            assert!(error.message().contains(cause), "{error}");
        }
    }

    #[test]
    fn any_directory_is_one_element_of_the_list() {
        for directory in ["/run/pg", "/a,b", "/a \"b\"", "/a b "] {
            assert_eq!(parse_list(&socket_directory_value(directory)), Ok(vec![directory.to_string()]));
        }
    }
}
