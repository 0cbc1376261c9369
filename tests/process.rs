//! The process: sockets from systemd, core dumps, passwords in memory, a single processor.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use cmiot_proxy::clock::Clock;
use cmiot_simulator::{Gate, Rule};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::{
    Connection, Gateway, GatewayClient, MSISDN, NORMAL, Proxy, STATUS_PATH, Setup, carrier, command,
    eventually, memory, run, secrets, within, write_config, write_secret,
};

/// A folder with this configuration in it.
fn folder(setup: &Setup) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_config(&folder.path().join("proxy.toml"), &setup.text());
    folder
}

/// Its output so far; asserts that no secret is in it.
fn output(folder: &Path) -> String {
    let output = std::fs::read_to_string(folder.join("output")).unwrap_or_default();
    secrets::assert_no_secret("a proxy", &output);
    output
}

/// Starts the executable as systemd does: with a socket as descriptor 3, and LISTEN_PID of this process (sd_listen_fds(3)).
fn activate(folder: &Path, socket: OwnedFd, name: &str) -> Child {
    let start =
        "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config proxy.toml 3<&0 </dev/null >>output 2>&1";
    Command::new("sh")
        .args(["-c", start])
        .arg(command(folder).as_std().get_program())
        .env("LISTEN_FDNAMES", name)
        .current_dir(folder)
        .stdin(Stdio::from(socket))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_machine_without_room_for_threads_is_an_error_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::calling("http://127.0.0.1:9").set("admin.listen", "127.0.0.1:9");
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    // No address space has room for such a stack.
    let stack = [("RUST_MIN_STACK", "1000000000000000")];
    for words in [&["serve"][..], &["health"]] {
        let words = [words, &["--config", "cmiot-proxy.toml"]].concat();
        let ended = run(folder.path(), &words, &stack).await;
        let err = &ended.failed(1, ["cannot start", "threads", "ulimit -v", "LimitAS="]).err;
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[tokio::test]
async fn a_socket_of_systemds_is_served_and_holds_connections_through_a_restart() {
    let carrier = carrier().await;
    let folder = folder(&Setup::with_carrier(&carrier).set("gateway.listen", "systemd:gateway"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let client = GatewayClient { address, gateway: Gateway::new(Clock::system()) };
    let mut proxy = activate(folder.path(), socket.try_clone().unwrap().into(), "gateway");
    client.look_up(&MSISDN).await.assert_normal();
    proxy.kill().await.unwrap();

    // Between the processes, the socket accepts connections.
    let mut connection = Connection::to(address).await;
    connection
        .send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", client.sign(&MSISDN).text()))
        .await;
    let mut proxy = activate(folder.path(), socket.into(), "gateway");
    connection.response().await.assert_normal();
    proxy.kill().await.unwrap();
    assert!(output(folder.path()).contains(&format!("gateway http://{address}")));
}

#[tokio::test]
async fn a_unix_socket_of_systemds_is_served() {
    let carrier = carrier().await;
    let folder = folder(&Setup::with_carrier(&carrier).set("gateway.listen", "systemd:gateway"));
    let path = folder.path().join("gateway.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut proxy = activate(folder.path(), socket.into(), "gateway");
    let query = Gateway::new(Clock::system()).sign(&MSISDN);
    let request =
        format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", query.text());
    let mut stream = within("connecting", UnixStream::connect(&path)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within("a response", stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.ends_with(NORMAL), "{response}");
    proxy.kill().await.unwrap();
    output(folder.path());
}

#[tokio::test]
async fn a_socket_of_another_name_is_none() {
    let carrier = carrier().await;
    let folder = folder(&Setup::with_carrier(&carrier).set("gateway.listen", "systemd:gateway"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = activate(folder.path(), socket.into(), "gatway");
    assert_eq!(within("the end of the process", proxy.wait()).await.unwrap().code(), Some(1));
    let output = output(folder.path());
    assert!(output.contains("FileDescriptorName=") && output.contains("[gatway]"), "{output}");
}

/// The owner of a proxy's memory, and the user who runs it. The kernel reports root as the owner of a process that is not
/// dumpable (proc(5)).
async fn owner_of_memory(setup: Setup) -> (u32, u32) {
    let folder = folder(&setup);
    // The memory of root's process belongs to root in any case, so root runs it as another user.
    let own = std::fs::metadata(folder.path()).unwrap().uid();
    let nobody = if own == 0 { 65_534 } else { own };
    let program = folder.path().join("cmiot-proxy");
    std::fs::copy(command(folder.path()).as_std().get_program(), &program).unwrap();
    for path in [folder.path(), &program, &folder.path().join("proxy.toml")] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
        chown(path, Some(nobody), Some(nobody)).unwrap();
    }
    let mut start = if own == 0 {
        let mut start = Command::new("setpriv");
        start.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        start
    } else {
        Command::new(&program)
    };
    let output_file = std::fs::File::create(folder.path().join("output")).unwrap();
    let mut proxy = start
        .args(["serve", "--config", "proxy.toml"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output_file.try_clone().unwrap())
        .stderr(output_file)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("the start", async || output(folder.path()).contains("admin http://").then_some(())).await;
    let memory = std::fs::metadata(format!("/proc/{}/maps", proxy.id().unwrap())).unwrap();
    proxy.kill().await.unwrap();
    (memory.uid(), nobody)
}

#[tokio::test]
async fn no_core_dump_or_debugger_shows_its_secrets_unless_allowed() {
    let carrier = carrier().await;
    let (owner, _) = owner_of_memory(Setup::with_carrier(&carrier)).await;
    assert_eq!(owner, 0);
    let (owner, runs_it) =
        owner_of_memory(Setup::with_carrier(&carrier).set("process.allow_core_dumps", true)).await;
    assert_eq!(owner, runs_it);
}

#[tokio::test]
async fn one_processor_does_for_all_of_it() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let mut proxy = Setup::with_carrier(&carrier).start_on_one_processor().await;
    let lookups: Vec<_> = (0..20)
        .map(|_| {
            let (client, query) = (proxy.clone(), proxy.sign(&MSISDN));
            tokio::spawn(async move { client.get(&query).await })
        })
        .collect();
    carrier.wait_for_calls(1).await;
    // The admin listener responds while all of these wait.
    assert_eq!(proxy.admin("/ready", "").await.status, 200);
    gate.open();
    for lookup in lookups {
        lookup.await.unwrap().assert_normal();
    }
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.count(), 1);
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
    assert_eq!(proxy.audit().len(), 21);
}

#[tokio::test]
async fn a_file_size_limit_counts_as_a_full_disk() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let limit = async |soft: &str| {
        let arguments = [format!("--pid={}", proxy.pid()), format!("--fsize={soft}:")];
        assert!(Command::new("prlimit").args(arguments).status().await.unwrap().success());
    };
    limit("4096").await;
    eventually("a refusal", async || (proxy.look_up(&MSISDN).await.code() != "0").then_some(())).await;
    limit("unlimited").await;
    eventually("an answer", async || (proxy.look_up(&MSISDN).await.code() == "0").then_some(())).await;
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn a_retired_password_leaves_the_memory() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let password = |n: u32| format!("retired-{n}-9f3a7c51e2d4");
    write_secret(&folder.path().join("gw.password"), &password(0));
    // So that the test may read its memory.
    let setup =
        Setup::with_carrier(&carrier).set("process.allow_core_dumps", true).set("admin.token", "none");
    let setup = setup.unset("client.0.password").set("client.0.password_file", "gw.password");
    let proxy = Proxy::start_in(folder, setup).await;
    let file = proxy.config().with_file_name("gw.password");
    assert!(memory::count(proxy.pid(), &password(0)) > 0, "the current password");
    for n in 1..4 {
        write_secret(&file, &password(n));
        let json = "Content-Type: application/json\r\n";
        assert_eq!(proxy.admin_post("/config/reload", json, "").await.status, 200);
        proxy.get(&proxy.gateway.named("GW0001", &password(n)).sign(&MSISDN)).await.assert_normal();
    }
    for n in 0..3 {
        assert_eq!(memory::count(proxy.pid(), &password(n)), 0, "{n}");
    }
}
