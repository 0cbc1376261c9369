//! The carrier's operations: the path, the field of the result, and the freshness of each.
//!
//! The user-status lookup (CMIOT_API2002) is the proxy's purpose; the other operations share its signature and envelope.
//! The rows below are built in, and `[[operation]]` changes them or adds others. An operation is served when some account
//! has an ebid for it: the carrier issues one per API.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::language::{Text, text};
use crate::lifetimes::Lifetime;
use crate::units::HumanDuration;

/// One operation of the carrier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The last part of its path, which names it in configuration, keys and audit.
    pub name: &'static str,
    /// Its path under the base URL.
    pub path: &'static str,
    /// Whether API v5 has a twin of it (`carrier/dialect/v5/tables.rs`).
    pub v5: bool,
    /// Whether it changes something.
    pub kind: Kind,
    /// The field of `result[0]` that is its result: a success without it is relayed and not stored.
    pub verdict: &'static str,
    /// The freshness of its responses.
    pub keep: FreshnessRule,
    /// Parameters in addition to the card: sent to the carrier, and part of the key.
    pub parameters: &'static [&'static str],
    /// Whether any other parameter is refused: of operations that `[[operation]]` adds, or whose parameters it declares.
    pub strict: bool,
}

/// The declared parameters of one request as they are sent: `query_date=20260101&kind=2`, in the order of the row.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Parameters(Option<Arc<String>>);

impl Parameters {
    /// The longest value, in bytes.
    pub const MAX_LEN: usize = 64;

    /// From the values of an operation's parameters, in its order; those that are absent are not sent.
    ///
    /// # Errors
    /// The name of one whose value is too long, or would not be the same in a URL.
    pub fn of<T: AsRef<str>>(operation: &Operation, values: &[Option<T>]) -> Result<Self, &'static str> {
        let mut text = String::new();
        for (name, value) in operation.parameters.iter().zip(values) {
            let Some(value) = value.as_ref().map(AsRef::as_ref) else { continue };
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if value.len() > Self::MAX_LEN || !value.bytes().all(unreserved) {
                return Err(name);
            }
            let separator = if text.is_empty() { "" } else { "&" };
            text.extend([separator, name, "=", value]);
        }
        Ok(Self((!text.is_empty()).then(|| Arc::new(text))))
    }

    /// From values by name.
    ///
    /// # Errors
    /// The name that the operation does not declare, or whose value cannot be sent, and which ones it declares.
    pub fn named(operation: &Operation, given: &BTreeMap<String, String>) -> Result<Self, String> {
        if let Some(unknown) = given.keys().find(|name| !operation.parameters.contains(&name.as_str())) {
            let declared = match operation.parameters {
                [] => "no parameters".to_owned(),
                names => names.join(", "),
            };
            return Err(format!(
                "parameters: \"{}\" is not declared; {} declares {declared}",
                unknown.escape_debug(),
                operation.name
            ));
        }
        // An empty value is absent, as in a request.
        let values: Vec<Option<&String>> = operation
            .parameters
            .iter()
            .map(|name| given.get(*name).filter(|value| !value.is_empty()))
            .collect();
        Self::of(operation, &values).map_err(|name| {
            format!(
                "parameters: {name} is not 1 to {} letters, digits, \"-\", \".\", \"_\" or \"~\"",
                Self::MAX_LEN
            )
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Their text in a query.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", |text| text)
    }
}

/// Whether the operation changes something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Changes nothing: a response may be stored and shared, and the call may be retried.
    Lookup,
    /// Changes something: sent once, relayed, and audited.
    Action,
}

/// The freshness of a success. The freshness of "not found, not owned" is set in `[freshness]` for all operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreshnessRule {
    /// By STATUS, as `[freshness]` says.
    ByStatus,
    /// For this lifetime.
    Fixed(Lifetime),
    /// Until the carrier has yesterday's figures, at the next 09:00 at UTC+8; if the carrier fails, stale for this time.
    UntilNineAm(HumanDuration),
}

impl Operation {
    /// Whether it changes nothing.
    pub fn is_lookup(&self) -> bool {
        self.kind == Kind::Lookup
    }
}

/// A row of the table below.
const fn row(
    name: &'static str,
    path: &'static str,
    verdict: &'static str,
    keep: FreshnessRule,
) -> Operation {
    Operation { name, path, v5: true, kind: Kind::Lookup, verdict, keep, parameters: &[], strict: false }
}

/// Fresh for this many seconds, stale for as many more during a revalidation, and for a day if the carrier fails.
const fn seconds(fresh: u64) -> FreshnessRule {
    FreshnessRule::Fixed(Lifetime {
        fresh: HumanDuration::secs(fresh),
        stale_while_revalidate: HumanDuration::secs(fresh),
        stale_if_error: HumanDuration::secs(86_400),
    })
}

const MORNING: FreshnessRule = FreshnessRule::UntilNineAm(HumanDuration::secs(86_400));

/// CMIOT_API2001, 2002, 2005, 2008, 2011, 2012, 2105, 2110 and 4001, in this order.
pub static BUILT_IN: [Operation; 9] = [
    row("gprsrealsingle", "/v2/gprsrealsingle", "GPRSSTATUS", seconds(10)),
    row("userstatusrealsingle", "/v2/userstatusrealsingle", "STATUS", FreshnessRule::ByStatus),
    row("gprsusedinfosingle", "/v2/gprsusedinfosingle", "total_gprs", MORNING),
    row("onandoffrealsingle", "/v2/onandoffrealsingle", "status", seconds(10)),
    row("balancerealsingle", "/v2/balancerealsingle", "balance", seconds(60)),
    row("smsusedinfosingle", "/v2/smsusedinfosingle", "sms", MORNING),
    Operation {
        v5: false,
        ..row("querycardlifecycle", "/v2/querycardlifecycle", "lifecycle", seconds(3_600))
    },
    row("querycardopentime", "/v2/querycardopentime", "opentime", seconds(86_400)),
    Operation { kind: Kind::Action, ..row("smsstatusreset", "/v2/smsstatusreset", "status", seconds(0)) },
];

/// The stop reason of a card, for operators: over API v5 only (25S02), and not served to gateways.
pub static STOP_REASON: &Operation = &row("sim-stop-reason", "", "stop_reason", seconds(0));

/// Whether an operation is built in, or changes a built-in one.
pub fn is_built_in(operation: &Operation) -> bool {
    BUILT_IN.iter().any(|one| one.name == operation.name)
}

/// The user-status lookup.
pub static USER_STATUS: &Operation = &BUILT_IN[1];

/// The operations of a configuration: those that are known, and those of them that are served.
#[derive(Clone, Debug)]
pub struct Operations {
    known: Vec<&'static Operation>,
    served: Vec<&'static Operation>,
}

/// The built-in operations, none of them served.
impl Default for Operations {
    fn default() -> Self {
        Self { known: BUILT_IN.iter().collect(), served: Vec::new() }
    }
}

/// Two rows that exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationConflict {
    Name(&'static str),
    Path { name: &'static str, path: &'static str, other: &'static str },
}

impl OperationConflict {
    /// The operation that the conflict is reported for.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Name(name) | Self::Path { name, .. } => name,
        }
    }

    /// The problem, for people.
    pub fn text(&self) -> Text {
        match self {
            Self::Name(_) => text!("there are two rows of this name", "有两行使用这个名称"),
            Self::Path { path, other, .. } => text!(
                "path = \"{path}\" is the path of \"{other}\" too: only one of them would be called",
                "path = \"{path}\" 也是 \"{other}\" 的路径：其中只有一个会被调用"
            ),
        }
    }
}

impl Operations {
    /// The built-in ones and `rows`, which replace those of their name. [`Self::serve`] sets those that are served.
    ///
    /// # Errors
    /// Every pair of rows with the same name, and of operations with the same path.
    pub fn of(rows: Vec<Operation>) -> Result<Self, Vec<OperationConflict>> {
        let mut conflicts = Vec::new();
        let mut known = Self::default().known;
        for (index, row) in rows.iter().enumerate() {
            if rows[..index].iter().any(|before| before.name == row.name) {
                conflicts.push(OperationConflict::Name(row.name));
            }
        }
        for row in rows {
            let row: &'static Operation = intern(row);
            match known.iter_mut().find(|one| one.name == row.name) {
                Some(built_in) => *built_in = row,
                None => known.push(row),
            }
        }
        for (index, one) in known.iter().enumerate() {
            if let Some(before) = known[..index].iter().find(|before| same_path(one.path, before.path)) {
                conflicts.push(OperationConflict::Path {
                    name: one.name,
                    path: one.path,
                    other: before.name,
                });
            }
        }
        if conflicts.is_empty() { Ok(Self { known, served: Vec::new() }) } else { Err(conflicts) }
    }

    /// Serves the known operations for which this returns true.
    pub fn serve(&mut self, is_served: impl Fn(&Operation) -> bool) {
        self.served = self.known.iter().copied().filter(|one| is_served(one)).collect();
    }

    /// The served operation at this path, doubled slashes folded (clients join base URLs carelessly).
    pub fn at(&self, path: &str) -> Option<&'static Operation> {
        self.served.iter().copied().find(|operation| same_path(path, operation.path))
    }

    /// The known operation of this name.
    pub fn named(&self, name: &str) -> Option<&'static Operation> {
        self.known.iter().copied().find(|operation| operation.name == name)
    }

    /// The names of all that are known, for an error text.
    pub fn names(&self) -> String {
        self.known.iter().map(|operation| operation.name).collect::<Vec<_>>().join(", ")
    }
}

/// Keys and records refer to an operation after its configuration is replaced, so it is never freed. Equal rows are stored
/// once.
fn intern(row: Operation) -> &'static Operation {
    use std::sync::{Mutex, PoisonError};
    static ROWS: Mutex<Vec<&'static Operation>> = Mutex::new(Vec::new());
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = BUILT_IN.iter().chain(rows.iter().copied()).find(|known| **known == row) {
        return known;
    }
    let kept: &'static Operation = Box::leak(Box::new(row));
    rows.push(kept);
    kept
}

fn same_path(asked: &str, known: &str) -> bool {
    asked == known || (asked.starts_with('/') && parts(asked).eq(parts(known)))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The built-in ones, all served.
    pub(crate) fn all() -> Operations {
        let mut operations = Operations::of(Vec::new()).unwrap();
        operations.serve(|_| true);
        operations
    }

    #[test]
    fn doubled_slashes_are_folded_and_nothing_else() {
        for path in ["/v2/userstatusrealsingle", "/v2//userstatusrealsingle", "//v2/userstatusrealsingle/"] {
            assert_eq!(all().at(path), Some(USER_STATUS), "{path}");
        }
        for path in [
            "",
            "/",
            "v2/userstatusrealsingle",
            "/v2/userstatusrealsingle/x",
            "/V2/userstatusrealsingle",
            "/v2/%75",
        ] {
            assert_eq!(all().at(path), None, "{path}");
        }
    }

    #[test]
    fn a_row_replaces_a_built_in_one_and_is_kept_once() {
        let row = Operation { path: "/v3/status", ..USER_STATUS.clone() };
        let mut operations = Operations::of(vec![row.clone()]).unwrap();
        operations.serve(|_| true);
        assert_eq!(operations.at("/v2/userstatusrealsingle"), None);
        let found = operations.at("/v3/status").unwrap();
        assert!(std::ptr::eq(
            found,
            Operations::of(vec![row]).unwrap().named("userstatusrealsingle").unwrap()
        ));
        assert_eq!(operations.known.len(), BUILT_IN.len());
    }

    #[test]
    fn a_name_and_a_path_belong_to_one_operation() {
        let new = Operation { name: "x1", path: "/v2/x1", ..USER_STATUS.clone() };
        let twice = Operations::of(vec![new.clone(), new.clone()]).unwrap_err();
        assert_eq!(twice, [OperationConflict::Name("x1")]);
        for path in ["/v2/userstatusrealsingle", "/v2//userstatusrealsingle/"] {
            let same = Operations::of(vec![Operation { path, ..new.clone() }]).unwrap_err();
            assert_eq!(same, [OperationConflict::Path { name: "x1", path, other: "userstatusrealsingle" }]);
        }
    }

    #[test]
    fn parameters_are_in_the_order_of_the_row_and_the_same_in_a_url() {
        let operation = Operation { parameters: &["query_date", "kind"], ..USER_STATUS.clone() };
        let of = |values: [Option<&str>; 2]| Parameters::of(&operation, &values);
        assert_eq!(
            of([Some("20260101"), Some("a-b.c_d~")]).unwrap().as_str(),
            "query_date=20260101&kind=a-b.c_d~"
        );
        assert_eq!(of([None, Some("2")]).unwrap().as_str(), "kind=2");
        assert!(of([None, None]).unwrap().is_empty());
        for bad in ["a b", "a&b=c", "%41", "\u{6b63}", &"1".repeat(65)] {
            assert_eq!(of([None, Some(bad)]), Err("kind"), "{bad}");
        }
    }

    #[test]
    fn parameters_by_name_are_those_of_a_request_or_refused_with_the_declared_names() {
        let operation = Operation { parameters: &["query_date", "kind"], ..USER_STATUS.clone() };
        let of = |operation: &Operation, given: &[(&str, &str)]| {
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Parameters::named(operation, &given).map(|parameters| parameters.as_str().to_owned())
        };
        let both = of(&operation, &[("kind", "2"), ("query_date", "20260101")]);
        assert_eq!(both.as_deref(), Ok("query_date=20260101&kind=2"));
        assert_eq!(of(&operation, &[("kind", "")]).as_deref(), Ok(""));
        assert_eq!(of(USER_STATUS, &[]).as_deref(), Ok(""));
        for (operation, given, said) in [
            (&operation, [("query_data", "1")], "declares query_date, kind"),
            (USER_STATUS, [("query_date", "1")], "declares no parameters"),
            (&operation, [("kind", "a b")], "kind is not"),
        ] {
            let error = of(operation, &given).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_operation_without_an_ebid_is_not_served() {
        let mut operations = Operations::of(Vec::new()).unwrap();
        operations.serve(|one| one.name == "balancerealsingle");
        assert_eq!(operations.at("/v2/userstatusrealsingle"), None);
        assert!(operations.at("/v2/balancerealsingle").is_some());
        assert!(operations.named("userstatusrealsingle").is_some(), "it is still known");
    }
}
