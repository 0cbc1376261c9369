//! A PostgreSQL server of one test: its own data folder and Unix socket, ended and removed on drop.

use std::fs::{self, File};
use std::future::poll_fn;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

use super::process::{Guard, Process, blocking};
use super::template::Programs;
use crate::support::within;

/// The database of the tests. `cmiot_owner` owns it; `cmiot_node` may connect.
pub(crate) const DATABASE: &str = "cmiot";

/// A row as text; NULL is `None`.
pub(crate) type Row = Vec<Option<String>>;

/// A parameter of the server and its value.
pub(crate) type Setting<'a> = (&'a str, &'a str);

/// A running server. All methods but [`Postgres::kill`] and [`Postgres::start_again`] need it to run.
pub(crate) struct Postgres {
    programs: Programs,
    folder: TempDir,
    settings: Vec<String>,
    /// The address of `listen_addresses`, with the default port.
    tcp: Option<SocketAddr>,
    postmaster: Option<Child>,
    guard: Option<Guard>,
}

impl Postgres {
    /// Starts a server over a new data folder.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further parameters. A `listen_addresses` must be an [`own_address`].
    pub(crate) async fn start_with(settings: &[Setting<'_>]) -> Self {
        let programs = Programs::find();
        let folder = programs.folder();
        programs.create(&folder.path().join("data"));
        // Nothing is lost with the machine in a test, and many servers run at once.
        let usual = [
            ("listen_addresses", ""),
            ("fsync", "off"),
            ("shared_buffers", "16MB"),
            ("jit", "off"),
            ("max_connections", "100"),
            ("max_wal_size", "512MB"),
        ];
        let listens = settings.iter().find(|(name, _)| *name == "listen_addresses");
        let tcp = listens.map(|(_, address)| SocketAddr::new(address.parse().expect("one address"), 5432));
        let settings = usual.iter().chain(settings).map(|(name, value)| format!("{name}={value}")).collect();
        let mut server = Self { programs, folder, settings, tcp, postmaster: None, guard: None };
        server.start_again().await;
        server
    }

    /// Starts the server again over the same data folder, after [`Postgres::kill`] or [`Postgres::stop`].
    pub(crate) async fn start_again(&mut self) {
        assert!(self.postmaster.is_none(), "the server runs");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a folder of ours");
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.socket_folder());
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        command.stdout(Stdio::null()).stderr(log);
        let postmaster = command.spawn().expect("the server program");
        self.guard = Some(Guard::new(postmaster.id(), self.folder.path()));
        self.postmaster = Some(postmaster);
        self.ready().await;
    }

    /// Waits until the server accepts connections, such as after the recovery that follows a killed backend.
    pub(crate) async fn ready(&mut self) {
        within("a server that accepts connections", async {
            while self.try_client("postgres").await.is_err() {
                let postmaster = self.postmaster.as_mut().expect("a server that was started");
                let ended = postmaster.try_wait().expect("a process of ours");
                assert!(ended.is_none(), "the server did not start:\n{}", self.log());
                // To yield the processor; no test depends on this duration.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The folder of its socket `.s.PGSQL.5432`, for `host=FOLDER`.
    pub(crate) fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of its TCP port, if its settings have one.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs statements as superuser in the database; the rows of all of them.
    ///
    /// While the server is paused, this does not return.
    pub(crate) async fn sql(&self, text: &str) -> Vec<Row> {
        let client = self.client().await;
        let messages = client.simple_query(text).await.unwrap_or_else(|error| panic!("{error:?}: {text}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()).collect()
    }

    /// The first column of the only row of a statement; panics on another number of rows, and on NULL.
    pub(crate) async fn value(&self, text: &str) -> String {
        let rows = self.sql(text).await;
        let [row] = rows.as_slice() else { panic!("{text}: {rows:?}") };
        row.first().cloned().flatten().unwrap_or_else(|| panic!("{text}: {rows:?}"))
    }

    /// A connection to the database as superuser, for what [`Postgres::sql`] cannot do.
    pub(crate) async fn client(&self) -> Client {
        self.try_client("postgres").await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    /// A connection to the database as another role.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub(crate) async fn try_client(&self, role: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(self.socket_folder()).user(role).dbname(DATABASE);
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Listens on a channel of the database from now on.
    pub(crate) async fn listen(&self, channel: &str) -> Heard {
        let mut config = Config::new();
        config.host_path(self.socket_folder()).user("postgres").dbname(DATABASE);
        let (client, mut connection) = config.connect(NoTls).await.expect("a server that runs");
        let payloads = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&payloads);
        // It ends with the client.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    collected.lock().expect("no panic").push(notification.payload().to_owned());
                }
            }
        });
        client.batch_execute(&format!("LISTEN {channel}")).await.expect("a name of a channel");
        Heard { payloads, _client: client }
    }

    /// Writes a file into the data folder, such as `pg_hba.conf` or a certificate, readable by the server alone.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        let file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a folder of ours");
        self.programs.own(&path);
    }

    /// Makes the server read its configuration files again.
    pub(crate) fn reload(&self) {
        self.process().signal(Signal::HUP);
    }

    /// Ends all processes of the server by SIGKILL, and waits for their end.
    pub(crate) fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        self.guard = None; // before another process can get the id
        let Some(process) = Process::with_id(postmaster.id()) else { return };
        // A stopped postmaster starts no further child.
        process.stop();
        let children = process.children();
        postmaster.kill().and_then(|()| postmaster.wait()).expect("a process of ours");
        for child in &children {
            child.signal(Signal::KILL);
        }
        children.iter().for_each(Process::wait_for_end);
    }

    /// Ends the server by SIGINT, as an operator does: connections are closed and everything is written.
    pub(crate) fn stop(&mut self) {
        let mut postmaster = self.postmaster.take().expect("a server that runs");
        self.guard = None;
        let process = Process::with_id(postmaster.id()).expect("a server that runs");
        process.signal(Signal::INT);
        process.wait_for_end();
        assert!(postmaster.wait().expect("a process of ours").success(), "{}", self.log());
    }

    /// Ends one server process by SIGKILL, by its id in `pg_stat_activity`.
    ///
    /// The server then ends all others, which this waits for, recovers, and empties UNLOGGED tables: see [`Postgres::ready`].
    pub(crate) fn kill_backend(&self, id: u32) {
        let children = self.process().children();
        let backend = children.iter().find(|child| child.id == id).expect("a process of this server");
        backend.signal(Signal::KILL);
        children.iter().for_each(Process::wait_for_end);
    }

    /// Stops all processes of the server by SIGSTOP: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        // First the postmaster, which would start a process for each further connection.
        self.process().stop();
        self.process().children().iter().for_each(Process::stop);
    }

    /// Continues all processes after [`Postgres::pause`].
    pub(crate) fn resume(&self) {
        let postmaster = self.process();
        for process in postmaster.children().iter().chain([&postmaster]) {
            process.signal(Signal::CONT);
        }
        blocking("a server that continues", || !postmaster.is_stopped());
    }

    /// Leaves the server to its guard, as a test that is killed does, and waits for its end.
    pub(crate) fn abandon(mut self) {
        let mut postmaster = self.postmaster.take().expect("a server that runs");
        self.guard.as_mut().expect("a server that runs").release();
        // The guard waits for a process that its parent has waited for.
        postmaster.wait().expect("a process of ours");
        blocking("the removal of the folder", || !self.folder.path().exists());
    }

    /// The ids of all its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let postmaster = self.process();
        let children = postmaster.children();
        children.iter().chain([&postmaster]).map(|process| process.id).collect()
    }

    fn process(&self) -> Process {
        let postmaster = self.postmaster.as_ref().expect("a server that runs");
        Process::with_id(postmaster.id()).unwrap_or_else(|| panic!("the server ended:\n{}", self.log()))
    }

    /// Removes the System V shared memory that a killed server leaves until its next start.
    fn remove_shared_memory(&self) {
        // Its seventh line has the key and the id.
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        if let Some(id) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// The notifications of a channel.
pub(crate) struct Heard {
    payloads: Arc<Mutex<Vec<String>>>,
    _client: Client,
}

impl Heard {
    /// The payloads so far.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.payloads.lock().expect("no panic").clone()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.guard = None;
        if let Some(mut postmaster) = self.postmaster.take() {
            if let Some(process) = Process::with_id(postmaster.id()) {
                end_at_once(&process);
            }
            let _ = postmaster.wait(); // an error if it was waited for
        }
        self.remove_shared_memory();
        // The folder is removed after that.
    }
}

/// Ends a server without a checkpoint, paused or not.
fn end_at_once(postmaster: &Process) {
    let children = postmaster.children();
    for process in children.iter().chain([postmaster]) {
        process.signal(Signal::CONT);
    }
    postmaster.signal(Signal::QUIT);
    // The server itself ends children that do not end within five seconds.
    postmaster.wait_for_end();
    children.iter().for_each(Process::wait_for_end);
}

/// A loopback address that no other process of the test run uses, so that a port of it stays free.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low)
}
