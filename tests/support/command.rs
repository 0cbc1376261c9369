//! Runs a command of the executable to its end.

use std::path::Path;

use super::{proxy, secrets, within};

/// Commands whose standard output contains secrets on purpose: tokens, and card numbers of the audit.
const WITH_SECRETS: [&str; 2] = ["sign", "audit"];

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Asserts this exit code, and that standard error contains each of these texts.
    #[track_caller]
    pub(crate) fn failed<const N: usize>(self, code: i32, texts: [&str; N]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in {self:#?}");
        }
        self
    }
}

/// Runs `cmiot-proxy` in a folder with these arguments and environment variables.
pub(crate) async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = proxy::command(folder);
    command.args(arguments).envs(environment.iter().copied());
    let output = within(&format!("{arguments:?}"), command.output()).await.expect("the executable");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands write UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    secrets::assert_no_secret(&format!("{arguments:?}"), &err);
    if !arguments.first().is_some_and(|command| WITH_SECRETS.contains(command)) {
        secrets::assert_no_secret(&format!("{arguments:?}"), &out);
    }
    Output { code: output.status.code(), out, err }
}
