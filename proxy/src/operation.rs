//! What gateways may ask for: an operation is a path of the carrier and the place of its verdict.
//!
//! The user-status look-up (CMIOT_API2002) is the one served today; its sisters share the signature and the envelope.

/// One look-up of the carrier.
#[derive(PartialEq, Eq, Debug)]
pub struct Operation {
    /// The carrier's number for it, as in CMIOT_API2002.
    pub api: u16,
    /// The last part of its path, which names it in configuration, keys and audit.
    pub name: &'static str,
    /// Its path under the base URL.
    pub path: &'static str,
}

impl Operation {
    /// Whether asking changes nothing, so that an answer may be kept, shared and asked for once more.
    pub fn is_lookup(&self) -> bool {
        true
    }
}

const OPERATIONS: [Operation; 1] =
    [Operation { api: 2002, name: "userstatusrealsingle", path: "/v2/userstatusrealsingle" }];

/// The user-status look-up, which this proxy exists for.
pub const USER_STATUS: &Operation = &OPERATIONS[0];

/// The operation at this path, doubled slashes folded (clients join base URLs carelessly).
pub fn by_path(path: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| same_path(path, operation.path))
}

/// The operation of this name.
pub fn by_name(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// The names of all operations, for an error text.
pub fn names() -> String {
    OPERATIONS.map(|operation| operation.name).join(", ")
}

fn same_path(asked: &str, known: &str) -> bool {
    asked == known || (asked.starts_with('/') && parts(asked).eq(parts(known)))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_slashes_are_folded_and_nothing_else() {
        for path in ["/v2/userstatusrealsingle", "/v2//userstatusrealsingle", "//v2/userstatusrealsingle/"] {
            assert_eq!(by_path(path), Some(USER_STATUS), "{path}");
        }
        for path in [
            "",
            "/",
            "v2/userstatusrealsingle",
            "/v2/userstatusrealsingle/x",
            "/V2/userstatusrealsingle",
            "/v2/%75",
        ] {
            assert_eq!(by_path(path), None, "{path}");
        }
    }
}
