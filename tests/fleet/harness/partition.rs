//! A socket between one proxy and the database, through which a test stalls, cuts, refuses or delays.
//!
//! [`Partition::set`] acts on open connections too, and at once: once it has returned, no byte passes that the new mode
//! forbids. Bytes that were on their way when a stall began pass after its end, as after a broken network path that
//! recovers.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use super::postgres::{Postgres, own_address};
use crate::support::eventually;

/// The treatment of connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards everything.
    Pass,
    /// Accepts connections, reads nothing, forwards nothing.
    Stall,
    /// Forwards requests to the database, and reads no response: a commit whose confirmation does not arrive.
    StallResponses,
    /// Closes all connections, and each new one when it is accepted. TCP connections end with a RST.
    Reset,
    /// Closes all connections and accepts none: connecting fails.
    Refuse,
    /// Waits this long before it forwards each read, in both directions.
    Delay(Duration),
}

/// A socket that forwards to a database. Dropping it closes all connections.
pub(crate) struct Partition {
    mode: watch::Sender<Mode>,
    /// The folder of a Unix socket.
    folder: Option<TempDir>,
    address: Option<SocketAddr>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Partition {
    /// A Unix socket `.s.PGSQL.5432` in a folder of its own, in front of a server.
    pub(crate) fn to(server: &Postgres) -> Self {
        let folder = tempfile::Builder::new().prefix("cut").tempdir().expect("a temporary folder");
        let place = Place::Unix(socket_in(folder.path()));
        Self::new(server, place, Some(folder), None)
    }

    /// A TCP port of the loopback, in front of the server's TCP port if it has one, else of its Unix socket.
    pub(crate) fn tcp_to(server: &Postgres) -> Self {
        // An address of its own keeps the port free while the mode is `Refuse`.
        let listener = std::net::TcpListener::bind((own_address(), 0)).expect("a loopback address");
        let address = listener.local_addr().expect("a bound socket");
        drop(listener);
        Self::new(server, Place::Tcp(address), None, Some(address))
    }

    fn new(server: &Postgres, place: Place, folder: Option<TempDir>, address: Option<SocketAddr>) -> Self {
        let (mode, modes) = watch::channel(Mode::Pass);
        let counts = Arc::<Counts>::default();
        let upstream = match (address, server.tcp_address()) {
            (Some(_), Some(tcp)) => Place::Tcp(tcp),
            _ => Place::Unix(socket_in(server.socket_folder())),
        };
        let first = Listener::bind(&place).expect("a free socket");
        tokio::spawn(listen(place, first, upstream, modes, counts.clone()));
        Self { mode, folder, address, counts }
    }

    /// Changes the mode, for open connections too.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes all open connections, as [`Mode::Reset`] does, and then passes everything again.
    pub(crate) async fn cut(&self) {
        self.set(Mode::Reset);
        eventually("closed connections", async || (self.open() == 0).then_some(())).await;
        self.set(Mode::Pass);
    }

    /// The address of the TCP port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a TCP port")
    }

    /// The value of a proxy's `fleet.hosts` for this socket: `unix:FOLDER` or `ADDRESS:PORT`.
    pub(crate) fn host(&self) -> String {
        match (&self.folder, self.address) {
            (Some(folder), _) => format!("unix:{}", folder.path().display()),
            (_, address) => address.expect("a Unix socket or a TCP port").to_string(),
        }
    }

    /// Number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Number of connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }
}

/// The path of the socket of a server in `folder`.
fn socket_in(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}

/// Accepts connections until the partition is dropped.
async fn listen(
    place: Place,
    first: Listener,
    upstream: Place,
    mut modes: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    let mut listener = Some(first);
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Refuse {
            listener = None;
            if modes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match &listener {
            Some(open) => open,
            None => listener.insert(Listener::bind(&place).expect("a socket of ours")),
        };
        tokio::select! {
            accepted = open.accept() => {
                let Ok(client) = accepted else { continue };
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                let connection = Connection { client, modes: modes.clone(), counts: counts.clone() };
                tokio::spawn(connection.serve(upstream.clone()));
            }
            changed = modes.changed() => if changed.is_err() { return },
        }
    }
}

/// An accepted connection.
struct Connection {
    client: Stream,
    modes: watch::Receiver<Mode>,
    counts: Arc<Counts>,
}

impl Connection {
    async fn serve(mut self, upstream: Place) {
        self.forward(&upstream).await;
        if *self.modes.borrow() == Mode::Reset {
            self.client.reset();
        }
        drop(self.client);
        self.counts.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn forward(&mut self, upstream: &Place) {
        let is_passed = |mode: &Mode| *mode != Mode::Stall;
        // An error when the partition was dropped.
        let Ok(mode) = self.modes.wait_for(is_passed).await.map(|mode| *mode) else { return };
        if matches!(mode, Mode::Reset | Mode::Refuse) {
            return;
        }
        let Ok(server) = Stream::connect(upstream).await else { return };
        let mut cut = self.modes.clone();
        let is_cut = |mode: &Mode| matches!(mode, Mode::Reset | Mode::Refuse);
        tokio::select! {
            () = pump(&self.client, &server, self.modes.clone(), Direction::Request) => {}
            () = pump(&server, &self.client, self.modes.clone(), Direction::Response) => {}
            _ = cut.wait_for(is_cut) => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl Direction {
    /// Whether bytes in this direction pass.
    fn passes(self, mode: Mode) -> bool {
        match mode {
            Mode::Pass | Mode::Delay(_) => true,
            Mode::StallResponses => self == Self::Request,
            Mode::Stall | Mode::Reset | Mode::Refuse => false,
        }
    }
}

/// Forwards in one direction until either side closes.
async fn pump(from: &Stream, to: &Stream, mut modes: watch::Receiver<Mode>, direction: Direction) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        if wait_to_pass(&mut modes, direction).await.is_err() || from.ready(Interest::READABLE).await.is_err()
        {
            return;
        }
        let (read, mode) = {
            // While this is borrowed, `set` waits: the mode cannot change between the look and the read.
            let mode = modes.borrow_and_update();
            if !direction.passes(*mode) {
                continue;
            }
            (from.try_read(&mut bytes), *mode)
        };
        let length = match read {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if write(to, &bytes[..length], &mut modes, direction).await.is_err() {
            return;
        }
    }
}

/// Writes all bytes, at moments when the mode lets them pass.
async fn write(
    to: &Stream,
    mut bytes: &[u8],
    modes: &mut watch::Receiver<Mode>,
    direction: Direction,
) -> io::Result<()> {
    while !bytes.is_empty() {
        wait_to_pass(modes, direction).await?;
        to.ready(Interest::WRITABLE).await?;
        let mode = modes.borrow_and_update();
        if !direction.passes(*mode) {
            continue;
        }
        match to.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for a mode that lets bytes in this direction pass; an error when the partition was dropped.
async fn wait_to_pass(modes: &mut watch::Receiver<Mode>, direction: Direction) -> io::Result<()> {
    let passes = modes.wait_for(|mode| direction.passes(*mode)).await;
    passes.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// The address of a socket.
#[derive(Clone)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path); // an error the first time
                UnixListener::bind(path).map(Self::Unix)
            }
            Place::Tcp(address) => {
                let socket = tokio::net::TcpSocket::new_v4()?;
                // Connections that it closed hold the port for a minute otherwise.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                socket.listen(128).map(Self::Tcp)
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => Stream::tcp(listener.accept().await?.0),
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    async fn connect(place: &Place) -> io::Result<Self> {
        match place {
            Place::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Place::Tcp(address) => Self::tcp(TcpStream::connect(address).await?),
        }
    }

    /// Without Nagle's algorithm, which would delay what it forwards.
    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.ready(interest).await.map(drop),
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read(bytes),
            Self::Tcp(stream) => stream.try_read(bytes),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }

    /// Makes its close a RST; of a Unix socket, the peer sees an end or a reset by itself.
    fn reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger(); // an error when the peer has closed it
        }
    }
}
