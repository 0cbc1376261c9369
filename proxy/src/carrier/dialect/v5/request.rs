//! Requests of API v5: JSON in the body of a POST, or a query in the URL of a GET.

use bytes::Bytes;
use cmiot_signer::Transid;
use serde::Serialize;
use zeroize::Zeroizing;

use super::tables::{self, TOKEN_PATH, TWINS};
use crate::carrier::Call;
use crate::carrier::dialect::WireCall;
use crate::config::{Account, CallMethod, TokenAccess};

/// The parameters of a request; those that are absent are not sent.
#[derive(Serialize)]
struct Parameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    appid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    transid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msisdn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iccid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imsi: Option<&'a str>,
}

/// The request for a token, with the password of this index. `None` if the account has none.
pub(super) fn token(
    base_url: &str,
    account: &Account,
    access: &TokenAccess,
    password: usize,
    transid: &Transid,
    refresh: bool,
) -> Option<WireCall> {
    let secret = std::str::from_utf8(access.secrets.get(password)?.expose()).ok()?;
    let parameters = Parameters {
        appid: Some(account.appid.as_str()),
        password: Some(secret),
        refresh: Some(if refresh { "1" } else { "0" }),
        ..Parameters::new(transid)
    };
    let call = parameters.write(base_url, access, TOKEN_PATH)?;
    Some(WireCall { wipes_reply: true, ..call })
}

/// A query about one card: its token names the account. `None` if API v5 has no twin of the operation.
pub(super) fn query(
    base_url: &str,
    access: &TokenAccess,
    token: &str,
    transid: &Transid,
    call: Call<'_>,
) -> Option<WireCall> {
    let twin = TWINS.iter().find(|twin| twin.operation == call.operation.name)?;
    let parameters = Parameters { token: Some(token), ..Parameters::new(transid) };
    let number = Some(call.card.as_str());
    let parameters = match call.card.kind() {
        cmiot_signer::CardKind::Msisdn => Parameters { msisdn: number, ..parameters },
        cmiot_signer::CardKind::Iccid => Parameters { iccid: number, ..parameters },
        cmiot_signer::CardKind::Imsi => Parameters { imsi: number, ..parameters },
    };
    parameters.write(base_url, access, twin.path)
}

impl<'a> Parameters<'a> {
    fn new(transid: &'a Transid) -> Self {
        Self {
            appid: None,
            password: None,
            transid: transid.as_str(),
            refresh: None,
            token: None,
            msisdn: None,
            iccid: None,
            imsi: None,
        }
    }

    fn write(&self, base_url: &str, access: &TokenAccess, path: &str) -> Option<WireCall> {
        let own = access.base_url.as_ref().map(ToString::to_string);
        let base_url = own.as_deref().unwrap_or(base_url).trim_end_matches('/');
        let mut url = Zeroizing::new(format!("{base_url}{path}"));
        if access.method == CallMethod::Post {
            // A vector that never grows leaves no copy behind.
            let mut body = Zeroizing::new(Vec::with_capacity(Self::ROOM));
            serde_json::to_writer(&mut *body, self).ok()?;
            return Some(WireCall { url, body: Some(Bytes::from_owner(body)), wipes_reply: false });
        }
        let mut query = form_urlencoded::Serializer::new(String::with_capacity(Self::ROOM));
        let named = [
            ("appid", self.appid),
            ("password", self.password),
            ("transid", Some(self.transid)),
            ("refresh", self.refresh),
            ("token", self.token),
            ("msisdn", self.msisdn),
            ("iccid", self.iccid),
            ("imsi", self.imsi),
        ];
        for (name, value) in named {
            value.map(|value| query.append_pair(name, value));
        }
        let query = Zeroizing::new(query.finish());
        url.reserve_exact(1 + query.len());
        url.push('?');
        url.push_str(&query);
        Some(WireCall { url, body: None, wipes_reply: false })
    }

    /// The room of a request: a token or a password at most, each of whose bytes may be escaped with six.
    const ROOM: usize = 6 * tables::MAX_TOKEN + 512;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Api, Config, ConfigFile};
    use crate::operation::{self, USER_STATUS};
    use cmiot_signer::{AppId, Card, CardKind, Sequence, Stamp};

    const BASE: &str = "http://carrier.example/iot";
    const PASSWORD: &str = "a\"b +密";

    fn account(more: &str) -> Account {
        let written = format!(
            "[[account]]\nname='a'\nappid='200001'\napi='v5'\npassword='{PASSWORD}'\n{more}\n\
             [[client]]\ngroup='a'\nappid='G'\nebid='1'\npassword='p'\n"
        );
        let file = ConfigFile::parse(Path::new("p.toml"), &written).unwrap();
        let mut config = Config::check(&file, Path::new(".")).unwrap();
        let accounts = config.groups.remove("a").unwrap();
        std::sync::Arc::into_inner(accounts.into_iter().next().unwrap()).unwrap()
    }

    /// Both requests: URL and body.
    fn requests(more: &str) -> [(String, String); 2] {
        let account = account(more);
        let Api::V5(access) = &account.api else { panic!("an account of v5") };
        let transid = Transid::new(&AppId::parse("200001").unwrap(), Stamp::FIRST, Sequence::FIRST);
        let (card, none) =
            (Card::parse(CardKind::Iccid, "898600D6991330004146").unwrap(), operation::Parameters::default());
        let call = Call { operation: USER_STATUS, card: &card, parameters: &none };
        let text = |call: WireCall| {
            let body = String::from_utf8(call.body.unwrap_or_default().to_vec()).unwrap();
            ((*call.url).clone(), body)
        };
        [
            text(token(BASE, &account, access, 0, &transid, false).unwrap()),
            text(query(BASE, access, "T+/=", &transid, call).unwrap()),
        ]
    }

    #[test]
    fn a_post_has_its_secrets_in_the_body() {
        let [(url, body), (query_url, query_body)] = requests("");
        assert_eq!(url, format!("{BASE}/v5/ec/get/token"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["password"], PASSWORD);
        assert_eq!((&body["appid"], &body["refresh"]), (&"200001".into(), &"0".into()));
        assert_eq!(query_url, format!("{BASE}/v5/ec/query/sim-status"));
        let body: serde_json::Value = serde_json::from_str(&query_body).unwrap();
        assert_eq!(body["token"], "T+/=");
        assert_eq!(body["iccid"], "898600D6991330004146");
        assert!(body.get("appid").is_none() && body.get("msisdn").is_none());
    }

    #[test]
    fn a_get_has_them_percent_encoded_in_the_url_of_its_own_host() {
        let [(url, body), (query_url, _)] = requests("method='get'\nbase_url='https://own.example/x/'");
        assert!(
            url.starts_with(
                "https://own.example/x/v5/ec/get/token?appid=200001&password=a%22b+%2B%E5%AF%86&"
            ),
            "{url}"
        );
        assert_eq!(body, "");
        assert!(query_url.contains("&token=T%2B%2F%3D&iccid=898600D6991330004146"), "{query_url}");
    }

    #[test]
    fn an_operation_without_a_twin_is_not_written() {
        let account = account("");
        let Api::V5(access) = &account.api else { panic!("an account of v5") };
        let transid = Transid::new(&account.appid, Stamp::FIRST, Sequence::FIRST);
        let (card, none) =
            (Card::parse(CardKind::Msisdn, "1064800000001").unwrap(), operation::Parameters::default());
        for one in operation::BUILT_IN.iter() {
            let call = Call { operation: one, card: &card, parameters: &none };
            let written = query(BASE, access, "T", &transid, call);
            assert_eq!(written.is_some(), one.name != "querycardlifecycle", "{}", one.name);
        }
    }
}
