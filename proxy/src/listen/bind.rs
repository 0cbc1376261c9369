//! From an address in the configuration to a listening socket.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Socket;
use crate::config::listen::Listen;

/// Connections that the kernel holds until we accept them: a fleet that comes back at once, bounded by somaxconn.
const BACKLOG: u32 = 4_096;

/// The sockets that systemd bound for us (sd_listen_fds(3)), by name. Taken once, at start.
pub struct Inherited {
    fds: ListenFd,
    names: HashMap<String, usize>,
}

impl Inherited {
    /// What the environment says; nothing when we were not started by a socket unit.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let fds = ListenFd::from_env();
        let names = names.split(':').take(fds.len()).enumerate();
        Self { names: names.map(|(index, name)| (name.to_owned(), index)).collect(), fds }
    }

    fn take(&mut self, name: &str) -> io::Result<Socket> {
        let Some(&index) = self.names.get(name) else {
            let known: Vec<_> = self.names.keys().map(String::as_str).collect();
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "systemd handed over no socket of this name (FileDescriptorName=), but these: [{}]",
                    known.join(", ")
                ),
            ));
        };
        if let Ok(Some(socket)) = self.fds.take_tcp_listener(index) {
            socket.set_nonblocking(true)?;
            return TcpListener::from_std(socket).map(Socket::Tcp);
        }
        match self.fds.take_unix_listener(index)? {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                UnixListener::from_std(socket).map(Socket::Unix)
            }
            None => Err(io::Error::new(io::ErrorKind::AlreadyExists, "both listeners want this socket")),
        }
    }
}

/// Binds an address, or takes the inherited socket of its name.
pub(super) fn bind(address: &Listen, inherited: &mut Inherited) -> io::Result<Socket> {
    let bound = match address {
        Listen::Tcp(address) => tcp(*address),
        Listen::Unix(path) => unix(path),
        Listen::Systemd(name) => inherited.take(name),
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As tokio's own bind does: a restart does not wait for the last process's closed connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG).map(Socket::Tcp)
}

/// A socket file that a killed process left is replaced; one that somebody answers on is not.
fn unix(path: &Path) -> io::Result<Socket> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    // Who may connect is for the folder's permissions to say, and for this file's group.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(Socket::Unix(socket))
}
