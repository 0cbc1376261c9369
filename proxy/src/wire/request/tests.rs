//! Requests as real clients send them, and requests that must be refused.

use crate::operation::tests::all;
use crate::wire::request::*;
use proptest::prelude::*;

const TRANSID: &str = "1000012014101615303080000001";

fn parse(target: &str, body: &str) -> Result<Request<'static>, Refusal> {
    parse_as(target, body, true)
}

fn parse_as(target: &str, body: &str, lenient: bool) -> Result<Request<'static>, Refusal> {
    // A request borrows from the target and the body, which this test leaks.
    let (uri, body) = (Box::leak(Box::new(target.parse().unwrap())), body.to_owned().leak());
    let parts = RequestParts { uri, headers: &HeaderMap::new(), body: body.as_bytes() };
    let format = if lenient { Format::Lenient } else { Format::Strict };
    Request::parse(parts, &Accepted { operations: &all(), format }, &mut Claims::default())
}

fn target(rest: &str) -> String {
    format!("/v2/userstatusrealsingle?appid=100001&transid={TRANSID}&ebid=1&token=t{rest}")
}

fn malformed(result: Result<Request<'_>, Refusal>) -> Malformed {
    match result.expect_err("this must be refused") {
        Refusal::Malformed(malformed) => malformed,
        other => panic!("refused for another reason: {other:?}"),
    }
}

#[test]
fn parameters_may_be_in_url_or_body_in_any_order() {
    let query = format!("msisdn=14765004176&token=t&transid={TRANSID}&ebid=1&appid=100001");
    for request in [
        parse(&format!("/v2//userstatusrealsingle?{query}"), "").unwrap(),
        parse("/v2/userstatusrealsingle", &query).unwrap(),
        parse(&format!("/v2/userstatusrealsingle?{query}"), "appid=100001").unwrap(),
    ] {
        assert_eq!(request.card, Card::parse(CardKind::Msisdn, "14765004176").unwrap());
        assert_eq!(
            request.transid,
            SentTransid::of(Transid::parse(TRANSID).ok(), TRANSID, &request.appid).unwrap()
        );
        assert!(request.transid.key().is_some());
        assert_eq!(request.ebid.as_deref(), Some("1"));
    }
}

#[test]
fn empty_means_absent_and_unknown_is_ignored() {
    let request = parse(&target("&msisdn=&iccid=898602b0011430000544&imsi=&_=1&_=2&callback"), "").unwrap();
    assert_eq!(request.card.as_str(), "898602B0011430000544");
    assert_eq!(malformed(parse(&target("&msisdn="), "")), Malformed::NoCard);
    let no_token = format!("/v2/userstatusrealsingle?appid=100001&transid={TRANSID}&ebid=&token=&msisdn=1");
    assert_eq!(malformed(parse(&no_token, "")), Malformed::Missing("token"));
}

#[test]
fn doubled_parameters_are_refused() {
    assert_eq!(malformed(parse(&target("&msisdn=1&msisdn=1"), "")), Malformed::Duplicate("msisdn"));
    assert_eq!(malformed(parse(&target("&msisdn=1&ms%69sdn=2"), "")), Malformed::Duplicate("msisdn"));
    assert_eq!(malformed(parse(&target("&msisdn=1"), "msisdn=2")), Malformed::Duplicate("msisdn"));
    assert_eq!(malformed(parse(&target("&msisdn=1"), "token=t&token=t")), Malformed::Duplicate("token"));
    assert_eq!(
        malformed(parse(&target("&msisdn=1&iccid=898602B0011430000544"), "")),
        Malformed::SeveralCards
    );
}

#[test]
fn broken_encoding_is_refused_everywhere() {
    for bad in ["%", "%4", "%zz", "%00", "%ff", "%+1"] {
        assert_eq!(malformed(parse(&target(&format!("&msisdn={bad}")), "")), Malformed::Encoding, "{bad}");
        assert_eq!(
            malformed(parse(&target("&msisdn=1"), &format!("x{bad}=1"))),
            Malformed::Encoding,
            "{bad}"
        );
    }
    assert_eq!(malformed(parse(&target("&msisdn=1"), "x=\0")), Malformed::Encoding);
}

#[test]
fn a_transid_is_strict_only_when_whole_and_of_its_appid() {
    let with = |appid: &str, transid: &str| {
        parse(
            &format!("/v2/userstatusrealsingle?appid={appid}&transid={transid}&ebid=1&token=t&msisdn=1"),
            "",
        )
    };
    let lenient = |appid, transid: &str| {
        let sent = with(appid, transid).expect("a request").transid;
        assert_eq!(sent, SentTransid::Lenient(transid.to_owned()));
        let target =
            format!("/v2/userstatusrealsingle?appid={appid}&transid={transid}&ebid=1&token=t&msisdn=x");
        assert_eq!(malformed(parse_as(&target, "", false)), Malformed::Transid);
    };
    assert!(with("100001", TRANSID).unwrap().transid.key().is_some());
    lenient("100002", TRANSID);
    lenient("10000", TRANSID);
    lenient("100001", &format!("{TRANSID}0"));
    // The page's own Java and Python samples.
    lenient("A0B40O5", "A0B40O520161121001");
    lenient("A0B40MI", "2016071314451512365445");
    assert_eq!(malformed(with("1-1", TRANSID)), Malformed::AppId);
    // No client may send these: the padding of a hash does not fit into letters and digits.
    for hostile in [&format!("{TRANSID}%80"), &format!("{TRANSID}-"), &"1".repeat(49), "%E6%AD%A3"] {
        let refused = malformed(with("100001", hostile));
        assert!([Malformed::Transid, Malformed::Encoding].contains(&refused), "{hostile}");
    }
}

#[test]
fn a_bad_card_is_refused_differently_than_a_bad_request() {
    for bad in ["&msisdn=12345678901234", "&msisdn=1a", "&iccid=8986", "&imsi=1234567890123456"] {
        assert_eq!(parse(&target(bad), "").expect_err("a bad card"), Refusal::Card, "{bad}");
    }
}

#[test]
fn a_bad_head_is_refused_without_the_body() {
    let hosts = Hosts::new(["api.iot.10086.cn".to_owned()]);
    let none = HeaderMap::new();
    let check = |method: &Method, target: &str, headers: &HeaderMap| {
        check_head(method, &target.parse().unwrap(), Version::HTTP_11, headers, &hosts)
    };
    assert_eq!(check(&Method::GET, "/v2/x", &none), Ok(()));
    assert_eq!(check(&Method::POST, "http://API.iot.10086.cn/v2/x", &none), Ok(()));
    assert_eq!(check(&Method::GET, "http://example.com/v2/x", &none), Err(Refusal::ForeignHost));
    assert_eq!(check(&Method::PUT, "/v2/x", &none), Err(Refusal::Malformed(Malformed::Method)));
    let long = format!("/{}", "x".repeat(MAX_TARGET));
    assert_eq!(check(&Method::GET, &long, &none), Err(Refusal::Malformed(Malformed::TargetTooLong)));
    let chunked = HeaderMap::from_iter([(header::TRANSFER_ENCODING, "chunked".parse().unwrap())]);
    assert_eq!(check(&Method::POST, "/v2/x", &chunked), Err(Refusal::Malformed(Malformed::TransferEncoding)));
}

#[test]
fn an_authority_is_a_host_in_http_2_and_a_target_in_http_1() {
    let hosts = Hosts::new(["gw.example".to_owned()]);
    let check = |version, target: &str, named: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for host in named {
            headers.append(header::HOST, host.parse().unwrap());
        }
        check_head(&Method::GET, &target.parse().unwrap(), version, &headers, &hosts)
    };
    let host = Err(Refusal::Malformed(Malformed::Host));
    for authority in ["gw.example", "other.example:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"] {
        let target = format!("https://{authority}/v2/x");
        assert_eq!(check(Version::HTTP_2, &target, &[]), Ok(()), "{authority}");
        assert_eq!(check(Version::HTTP_2, "/v2/x", &["gw.example"]), Ok(()), "RFC 9113 8.3.1: Host alone");
        assert_eq!(check(Version::HTTP_2, &target, &["elsewhere.example"]), host, "{authority}");
        let foreign = if authority == "gw.example" { Ok(()) } else { Err(Refusal::ForeignHost) };
        assert_eq!(check(Version::HTTP_11, &target, &["elsewhere.example"]), foreign, "RFC 9112 3.2.2");
    }
    assert_eq!(check(Version::HTTP_2, "https://GW.example:443/v2/x", &["gw.EXAMPLE:443"]), Ok(()));
    assert_eq!(check(Version::HTTP_2, "https://user@gw.example/v2/x", &[]), host);
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(check(version, "/v2/x", &["gw.example", "gw.example"]), host, "{version:?}");
        assert_eq!(check(version, "/v2/x", &["whatever.example"]), Ok(()), "{version:?}");
    }
    let anywhere = hosts.clone().with_addresses();
    let by = |target: &str| {
        check_head(&Method::GET, &target.parse().unwrap(), Version::HTTP_11, &HeaderMap::new(), &anywhere)
    };
    assert_eq!([by("http://192.0.2.1:80/v2/x"), by("http://[2001:db8::1]/v2/x")], [Ok(()), Ok(())]);
    assert_eq!(by("http://other.example/v2/x"), Err(Refusal::ForeignHost));
}

proptest! {
    #[test]
    fn decoding_reverses_encoding(text in "[^\\x00]{0,40}") {
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        prop_assert_eq!(decode(&encoded).unwrap(), text);
    }

    #[test]
    fn no_query_and_no_body_panics(query in "[!-~]{0,80}", body in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(uri) = format!("/v2/userstatusrealsingle?{query}").parse::<Uri>() {
            let parts = RequestParts { uri: &uri, headers: &HeaderMap::new(), body: &body };
            let accepted = Accepted { operations: &all(), format: Format::Lenient };
            let _ = Request::parse(parts, &accepted, &mut Claims::default());
        }
    }
}
