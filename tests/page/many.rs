//! Ten thousand clients.

use std::fmt::Write;

use cmiot_proxy::clock::Clock;

use crate::browser::{Browser, Settings};
use crate::pages::{cells, log_in_to};
use crate::support::{MSISDN, Proxy, Setup, carrier, write_config};

const CLIENTS: usize = 10_000;

#[tokio::test]
async fn ten_thousand_clients_are_listed_and_one_is_found() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let mut clients = String::from("appid,group,password\n");
    for number in 0..CLIENTS {
        writeln!(clients, "MT{number:05},fleet,the-meters-side-{number:05}").unwrap();
    }
    write_config(&folder.path().join("clients.csv"), &clients);
    let setup = Setup::with_carrier(&carrier).set("gateway.clients_file", "clients.csv").without("client");
    let proxy = Proxy::start_in(folder, setup).await;
    let meter = proxy.gateway.named("MT07311", "the-meters-side-07311");
    proxy.get(&meter.sign(&MSISDN)).await.assert_normal();
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;

    let clock = Clock::system();
    let start = clock.monotonic();
    browser.open_unchecked("/page/clients?sort=name").await;
    println!("{CLIENTS} clients: the first page after {:?}", clock.monotonic() - start);
    assert!(browser.text("main").await.contains(&CLIENTS.to_string()));
    let (mut listed, mut pages) = (0, 0);
    loop {
        listed += browser.count("main tbody tr").await;
        pages += 1;
        let next = browser.attributes("a[rel=next]", "href").await;
        let Some(next) = next.first() else { break };
        browser.open_unchecked(next).await;
    }
    println!("{listed} clients on {pages} pages after {:?}", clock.monotonic() - start);
    assert_eq!(listed, CLIENTS);

    browser.fill("#q", "MT07311").await;
    browser.click("form.filter button").await;
    browser.find("#q[value=MT07311]").await;
    let found = cells(&browser).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0][..3], ["MT07311", "fleet", "1"]);
    browser.check().await;
    browser.open_unchecked("/page/clients?sort=requests").await;
    assert_eq!(cells(&browser).await[0][0], "MT07311");
}
