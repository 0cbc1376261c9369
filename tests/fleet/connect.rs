//! The identity of the server and of the node: TLS, password, client certificate, user of a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::metrics::Metrics;
use cmiot_proxy::store::fleet::Link;
use tempfile::TempDir;

use crate::harness::{Postgres, configuration, own_address};
use crate::support::{Pki, Setup, eventually, write_secret};

const PASSWORD: &str = "the-password-of-the-node";

/// Time for a statement of a server without faults.
const LONG: Duration = Duration::from_secs(20);

/// The link of a node with these settings of `[fleet]`; file names are of `folder`.
fn link(folder: &Path, host: &str, configure: impl FnOnce(Setup) -> Setup) -> Link {
    let fleet = configuration(folder, vec![host.to_owned()], configure).fleet.expect("[fleet]");
    Link::new(&Arc::new(fleet), 7, Metrics::new())
}

/// Whether the connection of a statement has TLS, or the reason for which there is no connection.
async fn is_encrypted(link: &Link) -> Result<bool, String> {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let rows = link.probe(sql, &[], LONG).await.map_err(|error| error.to_string())?;
    Ok(rows[0].get(0))
}

/// A server that a node reaches over TLS only, and a folder with the files of the node.
async fn server_with_tls(pki: &Pki, authentication: &str) -> (Postgres, String, TempDir) {
    let address = own_address().to_string();
    let server = Postgres::start_with(&[("listen_addresses", &address)]).await;
    let (.., pem, key) = pki.issue(&address);
    server.write("server.crt", &pem);
    server.write("server.key", &key);
    server.write("root.crt", &pki.root_pem());
    let rules = format!("local all postgres trust\nhostssl all cmiot_node all {authentication}\n");
    server.write("pg_hba.conf", &rules);
    server.sql(&format!("ALTER ROLE cmiot_node PASSWORD '{PASSWORD}'")).await;
    server.sql("ALTER SYSTEM SET ssl = on").await;
    server.sql("ALTER SYSTEM SET ssl_ca_file = 'root.crt'").await;
    server.reload();
    eventually("TLS", async || (server.value("SHOW ssl").await == "on").then_some(())).await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("password"), PASSWORD);
    write_secret(&folder.path().join("root.pem"), &pki.root_pem());
    (server, format!("{address}:5432"), folder)
}

#[tokio::test]
async fn a_password_is_sent_over_tls_to_a_server_that_the_roots_name() {
    let pki = Pki::new();
    let (_server, host, folder) = server_with_tls(&pki, "scram-sha-256").await;
    let with =
        |setup: Setup| setup.set("fleet.password_file", "password").set("fleet.tls.ca_file", "root.pem");
    assert_eq!(is_encrypted(&link(folder.path(), &host, with)).await, Ok(true));

    write_secret(&folder.path().join("wrong"), "another-password");
    let wrong = |setup: Setup| with(setup).set("fleet.password_file", "wrong");
    let said = is_encrypted(&link(folder.path(), &host, wrong)).await.unwrap_err();
    assert!(said.contains("password authentication failed") && !said.contains("another-password"), "{said}");

    write_secret(&folder.path().join("other.pem"), &Pki::new().root_pem());
    let other = |setup: Setup| with(setup).set("fleet.tls.ca_file", "other.pem");
    let said = is_encrypted(&link(folder.path(), &host, other)).await.unwrap_err();
    assert!(said.contains("certificate"), "{said}");

    let without = |setup: Setup| setup.set("fleet.password_file", "password");
    let said = is_encrypted(&link(folder.path(), &host, without)).await.unwrap_err();
    assert!(said.contains("no pg_hba.conf entry") && said.contains("no encryption"), "{said}");
}

#[tokio::test]
async fn a_server_may_ask_for_the_certificate_of_the_node() {
    let pki = Pki::new();
    let (_server, host, folder) = server_with_tls(&pki, "trust clientcert=verify-ca").await;
    let without = |setup: Setup| setup.set("fleet.tls.ca_file", "root.pem");
    let said = is_encrypted(&link(folder.path(), &host, without)).await.unwrap_err();
    assert!(said.contains("client certificate"), "{said}");

    let (.., pem, key) = pki.issue("node-7");
    write_secret(&folder.path().join("node.pem"), &pem);
    write_secret(&folder.path().join("node.key"), &key);
    let with = |setup: Setup| {
        without(setup).set("fleet.tls.cert_file", "node.pem").set("fleet.tls.key_file", "node.key")
    };
    assert_eq!(is_encrypted(&link(folder.path(), &host, with)).await, Ok(true));
}

#[tokio::test]
async fn the_user_of_a_socket_needs_no_password() {
    let server = Postgres::start().await;
    let folder = tempfile::tempdir().unwrap();
    let host = format!("unix:{}", server.socket_folder().display());
    server.write("pg_ident.conf", "nodes /^.+$ cmiot_node\n");
    for (rule, expected) in [("peer map=nodes", Ok(false)), ("peer", Err("Peer authentication failed"))] {
        server.write("pg_hba.conf", &format!("local all postgres trust\nlocal all cmiot_node {rule}\n"));
        server.reload();
        let loaded = format!(
            "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'peer' AND error IS NULL AND
                              coalesce(options, '{{}}') = '{}'",
            if rule == "peer" { "{}" } else { "{map=nodes}" }
        );
        assert_eq!(server.value(&loaded).await, "1");
        eventually("the rule", async || {
            let found = is_encrypted(&link(folder.path(), &host, |setup| setup)).await;
            match (&found, expected) {
                (Ok(found), Ok(expected)) => (*found == expected).then_some(()),
                (Err(found), Err(expected)) => found.contains(expected).then_some(()),
                _ => None,
            }
        })
        .await;
    }
}
