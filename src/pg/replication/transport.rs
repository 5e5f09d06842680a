//! The bytes between us and a server: a Unix or TCP socket, encrypted or not, blocking with time limits.
//!
//! Refuses to go on without TLS where it is required. Invariant: what the server sent before the TLS
//! handshake is never taken for something that came after it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::SslMode as Encryption;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::error::{Error, IoContext, Result};
use crate::pg::client::failure::{Failure, Next};
use crate::pg::client::hosts::{self, Attempt};
use crate::pg::client::{certificate, tls};
use crate::pg::conninfo::{Address, ConnSettings, HostSettings, Keepalive};

/// SSLRequest: its length and its code (pqcomm.h, NEGOTIATE_SSL_CODE).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
/// How long the server may leave what we send in the socket's buffer.
const LONGEST_WRITE: Duration = Duration::from_secs(60);

pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

pub(super) enum Transport {
    Plain(Socket),
    Encrypted(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Transport {
    /// Connects and, if it shall be, encrypts.
    pub fn open(settings: &ConnSettings, host: &HostSettings, encryption: Encryption) -> Attempt<Self> {
        let to_socket = matches!(host.address, Address::Socket(_));
        let mut socket = Socket::connect(settings, host)?;
        if encryption == Encryption::Disable {
            return Ok(Self::Plain(socket));
        }
        hosts::check_name(settings, host).map_err(Failure::setup)?;
        let direct = settings.tls.direct && encryption == Encryption::Require;
        if !direct {
            let offered = ask_for_tls(&mut socket).map_err(|cause| Failure::io(&cause, to_socket))?;
            match (offered, encryption) {
                (true, _) => {}
                (false, Encryption::Require) => return Err(Failure::no_tls()),
                (false, _) => return Ok(Self::Plain(socket)),
            }
        }
        Self::encrypt(settings, host, socket)
    }

    fn encrypt(settings: &ConnSettings, host: &HostSettings, socket: Socket) -> Attempt<Self> {
        let config = tls::config(&settings.tls).map_err(Failure::setup)?;
        let name = server_name(host).map_err(Failure::setup)?;
        let connection =
            ClientConnection::new(Arc::new(config), name).map_err(|cause| Failure::tls(&cause))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            let done = stream.conn.complete_io(&mut stream.sock).map_err(|cause| failed(&cause))?;
            if done == (0, 0) {
                return Err(failed(&io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(Self::Encrypted(Box::new(stream)))
    }

    /// tls-server-end-point: what ties a password exchange to this server's certificate. None: there is none.
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Encrypted(stream) => {
                certificate::channel_binding(stream.conn.peer_certificates()?.first()?)
            }
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Encrypted(_))
    }

    pub fn is_local(&self) -> bool {
        matches!(self, Self::Plain(Socket::Unix(_)))
    }

    /// A read that takes longer fails with `WouldBlock`, and can be tried again. Zero is no time limit.
    pub fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        let limit = Some(limit.max(Duration::from_millis(1)));
        match self.socket() {
            Socket::Unix(stream) => stream.set_read_timeout(limit),
            Socket::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(stream) => &stream.sock,
        }
    }
}

/// What went wrong during or after the handshake.
pub(super) fn failed(cause: &io::Error) -> Failure {
    match cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(cause) => Failure::tls(cause),
        None => Failure::new(
            Next::OtherEncryption,
            format!("the connection was lost while it was set up: {cause}"),
            "look into the server's log",
        ),
    }
}

/// Reads the one byte and not more: what an attacker sent along must not count as part of the encrypted session.
fn ask_for_tls(socket: &mut Socket) -> io::Result<bool> {
    socket.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        _ => Err(io::Error::other("the answer is not PostgreSQL's")),
    }
}

fn server_name(host: &HostSettings) -> Result<ServerName<'static>> {
    let Address::Tcp { name, address } = &host.address else {
        return Err(Error::bug("a Unix socket is never encrypted"));
    };
    let name = name.clone().or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
    ServerName::try_from(name.clone()).map_err(|cause| {
        Error::configuration(format!("could not use the host \"{name}\" for TLS: {cause}"))
            .with_hint("set PGHOST to a host name or an address")
    })
}

impl Socket {
    fn connect(settings: &ConnSettings, host: &HostSettings) -> Attempt<Self> {
        let to_socket = matches!(host.address, Address::Socket(_));
        let opened = match &host.address {
            Address::Socket(directory) => {
                UnixStream::connect(directory.join(format!(".s.PGSQL.{}", host.port))).map(Socket::Unix)
            }
            Address::Tcp { address: Some(address), .. } => {
                connect_address(settings, SocketAddr::new(*address, host.port))
            }
            Address::Tcp { name, .. } => connect_name(settings, name.as_deref().unwrap_or(""), host.port),
        };
        let socket = opened.map_err(|cause| Failure::io(&cause, to_socket))?;
        socket.set_limits(&settings.keepalive).map_err(Failure::setup)?;
        Ok(socket)
    }

    fn set_limits(&self, keepalive: &Keepalive) -> Result<()> {
        let limit = Some(LONGEST_WRITE);
        match self {
            Socket::Unix(stream) => stream.set_write_timeout(limit),
            Socket::Tcp(stream) => stream
                .set_write_timeout(limit)
                .and_then(|()| stream.set_nodelay(true))
                .and_then(|()| set_keepalive(stream, keepalive)),
        }
        .doing(|| "set the time limits of a connection")
    }
}

/// A name may stand for several addresses: the first that answers.
fn connect_name(settings: &ConnSettings, name: &str, port: u16) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (name, port).to_socket_addrs()? {
        match connect_address(settings, address) {
            Ok(socket) => return Ok(socket),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

fn connect_address(settings: &ConnSettings, address: SocketAddr) -> io::Result<Socket> {
    match settings.connect_timeout {
        Some(limit) => TcpStream::connect_timeout(&address, limit),
        None => TcpStream::connect(address),
    }
    .map(Socket::Tcp)
}

fn set_keepalive(stream: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, keepalive.enabled)?;
    if keepalive.enabled {
        sockopt::set_tcp_keepidle(stream, keepalive.idle)?;
        sockopt::set_tcp_keepintvl(stream, keepalive.interval)?;
        sockopt::set_tcp_keepcnt(stream, keepalive.count)?;
    }
    if let Some(limit) = keepalive.user_timeout {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Encrypted(stream) => stream.flush(),
        }
    }
}
