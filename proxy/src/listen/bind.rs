//! Listening sockets: bound to a configured address, or passed by systemd.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Socket;
use crate::config::listen::Listen;

/// The kernel's queue of connections that are not accepted yet: a whole fleet may reconnect at once. somaxconn limits it.
const BACKLOG: u32 = 4_096;

/// The sockets that systemd bound for us (sd_listen_fds(3)), by name. Taken once, at start.
pub struct ActivatedSockets {
    fds: ListenFd,
    names: HashMap<String, Vec<usize>>,
}

impl ActivatedSockets {
    /// The sockets named in the environment; none without a socket unit.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let fds = ListenFd::from_env();
        Self { names: by_name(&names, fds.len()), fds }
    }

    /// The names of the sockets that no listener has taken: connections to them would never be accepted.
    pub fn unused(&self) -> Vec<&str> {
        let left = self.names.iter().filter(|(_, sockets)| !sockets.is_empty());
        let mut names: Vec<_> = left.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn take(&mut self, name: &str) -> io::Result<Socket> {
        let index = match self.names.get_mut(name).map(|sockets| (sockets.len(), sockets.pop())) {
            None => None,
            Some((0 | 1, index)) => index,
            Some((count, _)) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "systemd handed over {count} sockets of this name, and a listener serves one: keep one \
                         ListenStream= in the socket unit (with BindIPv6Only=both, [::]:PORT takes IPv4 too)"
                    ),
                ));
            }
        };
        let Some(index) = index else {
            let known = self.unused();
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
            None => Err(io::Error::new(io::ErrorKind::AlreadyExists, "both listeners name this socket")),
        }
    }
}

/// The sockets by name: names are separated by colons, and a socket without one is `unknown`
/// (sd_listen_fds_with_names(3)).
fn by_name(names: &str, count: usize) -> HashMap<String, Vec<usize>> {
    let names = names.split(':').filter(|name| !name.is_empty()).chain(std::iter::repeat("unknown"));
    let mut sockets = HashMap::<String, Vec<usize>>::new();
    for (index, name) in names.take(count).enumerate() {
        sockets.entry(name.to_owned()).or_default().push(index);
    }
    sockets
}

/// Binds an address, or takes the inherited socket of its name.
pub(super) fn bind(address: &Listen, inherited: &mut ActivatedSockets) -> io::Result<Socket> {
    let bound = match address {
        Listen::Tcp(address) => tcp(*address),
        Listen::Unix(path) => unix(path),
        Listen::Systemd(name) => inherited.take(name),
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As tokio's own `bind` does: a restart does not wait for closed connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG).map(Socket::Tcp)
}

/// Binds a socket file. A file that a killed process left is replaced, unless a process accepts connections on it.
fn unix(path: &Path) -> io::Result<Socket> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    // The folder's permissions and this file's group decide which processes may connect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(Socket::Unix(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_inherited_sockets_of_one_name_are_refused() {
        let inherited =
            |names, count| ActivatedSockets { fds: ListenFd::empty(), names: by_name(names, count) };
        let refused = |names, count, name: &str| inherited(names, count).take(name).unwrap_err().to_string();
        let twice = refused("gateway:admin:gateway", 3, "gateway");
        assert!(twice.contains("2 sockets of this name") && twice.contains("ListenStream="), "{twice}");
        assert!(refused("", 2, "unknown").contains("2 sockets"), "without LISTEN_FDNAMES");
        assert!(refused("gateway:admin", 2, "other").contains("[admin, gateway]"));
        assert_eq!(inherited("gateway:admin", 2).unused(), ["admin", "gateway"]);
    }
}
