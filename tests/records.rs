//! Audit records of requests whose client leaves, at a drain and a crash, of calls in flight, and of many refusals.

use bytes::Bytes;
use cmiot_simulator::{Gate, Rule};
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rusqlite::OpenFlags;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{
    Connection, LookupRow, MSISDN, Proxy, Query, STATUS_PATH, Setup, card_number, carrier, eventually,
};

/// Waits for the record of a request.
async fn record_of(proxy: &Proxy, query: &Query) -> LookupRow {
    eventually("a record", || async {
        proxy.audit().into_iter().find(|row| row.transid.as_deref() == Some(query.transid()))
    })
    .await
}

/// Queries one value of the newest segment.
fn one<T: rusqlite::types::FromSql>(proxy: &Proxy, sql: &str) -> T {
    let segment = rusqlite::Connection::open_with_flags(proxy.audit_file(), OpenFlags::SQLITE_OPEN_READ_ONLY);
    segment.unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Sends a lookup on an HTTP/2 connection. Aborting the task resets the stream.
fn look_up_by_http_2(sender: &SendRequest<Empty<Bytes>>, query: &Query) -> JoinHandle<bool> {
    let target = format!("http://127.0.0.1{STATUS_PATH}?{}", query.text());
    let mut sender = sender.clone();
    tokio::spawn(async move {
        let request = hyper::Request::get(target).body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.is_ok()
    })
}

/// Opens an HTTP/2 connection.
async fn http_2(proxy: &Proxy) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_look_up_whose_client_resets_its_stream_has_its_record() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Setup::with_carrier(&carrier).set("client.0.replay", "same-answer").start().await;
    let connection = http_2(&proxy).await;
    let queries: Vec<_> = (0..5).map(|n| proxy.sign(&card_number(n))).collect();
    let asked: Vec<_> = queries.iter().map(|query| look_up_by_http_2(&connection, query)).collect();
    carrier.wait_for_calls(5).await;
    // The repeated request waits for the response to the first.
    let again = look_up_by_http_2(&connection, &queries[0]);
    // The proxy reads the requests of a connection in order.
    assert!(look_up_by_http_2(&connection, &queries[0].clone().with("token", "wrong")).await.unwrap());
    again.abort();
    let left = eventually("the record of the repeated request", || async {
        proxy.audit().into_iter().find(|row| row.reason.as_deref() == Some("client-gone"))
    })
    .await;
    assert_eq!((left.outcome.as_str(), left.transid.as_deref()), ("failed", Some(queries[0].transid())));
    asked.iter().for_each(JoinHandle::abort);
    assert!(look_up_by_http_2(&connection, &queries[0].clone().with("token", "wrong")).await.unwrap());
    gate.open();
    for query in &queries {
        let record = eventually("a record", || async {
            let mut audit = proxy.audit().into_iter();
            audit.find(|row| row.transid.as_deref() == Some(query.transid()) && row.outcome == "miss")
        })
        .await;
        assert_eq!((record.code.as_str(), record.reason.as_deref()), ("0", Some("client-gone")));
        assert!(record.carrier_transid.is_some(), "the record names its call");
    }
    eventually("the metrics", || async {
        let labels = [("outcome", "miss"), ("reason", "")];
        (proxy.metrics().await.value("cmiot_lookups_total", labels)? == 5.0).then_some(())
    })
    .await;
    // The result of the first request is there for its repetition.
    proxy.get(&queries[0]).await.assert_normal();
    assert_eq!(carrier.count(), 5);
}

#[tokio::test]
async fn a_client_that_hangs_up_has_its_record() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let (leads, follows) = (proxy.sign(&MSISDN), proxy.sign(&MSISDN));
    let mut connections = Vec::new();
    for query in [&leads, &follows] {
        let mut connection = proxy.connect().await;
        connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
        connections.push(connection);
        carrier.wait_for_calls(1).await;
    }
    eventually("both to wait", || async {
        (proxy.metrics().await.value("cmiot_waiters", [])? == 2.0).then_some(())
    })
    .await;
    // Two clients that leave before the end of their body.
    for by_reset in [false, true] {
        let head = format!("POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n");
        let mut cut_off = proxy.connect().await;
        cut_off.send(head + "appid=").await;
        if by_reset {
            cut_off.reset();
        } else {
            cut_off.shut_down_sending().await;
        }
    }
    eventually("cut-off bodies", || async {
        let audit = proxy.audit();
        let cut_off = audit.iter().filter(|row| row.reason.as_deref() == Some("body-cut-off")).count();
        (cut_off == 2).then_some(())
    })
    .await;
    connections.into_iter().for_each(Connection::reset);
    gate.open();
    for (query, outcome) in [(leads, "miss"), (follows, "collapsed")] {
        let record = record_of(&proxy, &query).await;
        assert_eq!((record.outcome.as_str(), record.code.as_str()), (outcome, "0"));
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_drain_past_its_grace_writes_down_what_it_ends() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().gate(&Gate::new())]);
    let mut proxy = Setup::with_carrier(&carrier).set("gateway.drain_timeout", "200ms").start().await;
    let query = proxy.sign(&MSISDN);
    let mut connection = proxy.connect().await;
    connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
    // A second client leaves before the drain.
    let gone = proxy.sign(&card_number(1));
    let mut left = proxy.connect().await;
    left.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", gone.text())).await;
    carrier.wait_for_calls(2).await;
    left.reset();
    proxy.signal("TERM").await;
    connection.response().await.assert_refusal_for("73", "shutdown");
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
    for query in [&query, &gone] {
        let record = record_of(&proxy, query).await;
        assert_eq!((record.outcome.as_str(), record.code.as_str()), ("failed", "73"), "{record:?}");
        assert_eq!(record.reason.as_deref(), Some("shutdown"));
        assert!(record.carrier_transid.is_some());
    }
    let calls: i64 = one(&proxy, "SELECT count(*) FROM carrier_call WHERE fault = 'shutdown'");
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn calls_under_way_at_a_crash_are_noted_at_the_next_start() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    proxy.look_up(&card_number(1)).await.assert_normal();
    let noted = "SELECT coalesce(group_concat(detail, ';'), '') FROM note JOIN name ON name.id = what
                 WHERE text = 'unaccounted'";
    proxy.restart().await;
    assert_eq!(one::<String>(&proxy, noted), "", "none after a drain");

    // Three calls are sent; the last one gets a reply and a record.
    let gate = Gate::new();
    carrier.set_rules([Rule::card(card_number(9).number), Rule::any().gate(&gate)]);
    for n in 2..4 {
        let mut connection = proxy.connect().await;
        let query = proxy.sign(&card_number(n)).text();
        connection.send(format!("GET {STATUS_PATH}?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        carrier.wait_for_calls(3 + u64::from(n) - 2).await;
    }
    proxy.look_up(&card_number(9)).await.assert_normal();
    let numbers: Vec<u32> =
        carrier.calls().iter().map(|call| call.transid[call.transid.len() - 8..].parse().unwrap()).collect();
    proxy.kill9().await;
    for _ in 0..2 {
        proxy.start_again().await;
        let detail: String = one(&proxy, noted);
        let sent = format!("sent=2:{}-{} perhaps=", numbers[2], numbers[3]);
        assert!(detail.starts_with("appid=100001 node=00 ") && detail.contains(&sent), "{detail}");
        assert!(!detail.contains(';'), "noted once: {detail}");
        // After a drain there is nothing more to note.
        proxy.signal("TERM").await;
        assert_eq!(proxy.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn nothing_is_sent_for_whose_answer_there_would_be_no_record() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("audit.min_free", "1000000GiB");
    let proxy = setup.start().await;
    for n in 0..9 {
        proxy.look_up(&card_number(n)).await.assert_refusal_for("73", "audit unavailable");
    }
    assert!(carrier.count() <= 1, "{} calls: only the first may precede the failed write", carrier.count());
    drop(proxy);
    // With the policy `answer`, calls need no record either.
    let calls = carrier.count();
    let proxy = setup.set("audit.on_failure", "answer").start().await;
    for n in 0..9 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    assert_eq!(carrier.count(), calls + 9);
}

#[tokio::test]
async fn one_captured_request_writes_no_more_than_so_many_records() {
    let carrier = carrier().await;
    let mut proxy =
        Setup::with_carrier(&carrier).set("audit.refusals", 3).set("client.0.rate", 1).start().await;
    let captured = proxy.sign(&MSISDN);
    proxy.get(&captured).await.assert_normal();
    for _ in 0..9 {
        proxy.get(&captured).await.assert_refusal_for("7", "transid used before");
    }
    // The limit applies per reason, even with new transids.
    for _ in 0..9 {
        let foreign = proxy.sign(&MSISDN).with("ebid", "0001000000777");
        proxy.get(&foreign).await.assert_refusal_for("3", "ebid");
    }
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    let mut reasons: Vec<_> = proxy.audit().into_iter().filter_map(|row| row.reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["ebid", "ebid", "ebid", "transid-reused", "transid-reused", "transid-reused"]);
    for reason in ["ebid", "transid-reused"] {
        let sql = format!(
            "SELECT sum(count) FROM refused JOIN name ON name.id = reason
             WHERE text = '{reason}' AND peer = '127.0.0.1'"
        );
        assert_eq!(one::<i64>(&proxy, &sql), 6, "{reason}");
    }
}
