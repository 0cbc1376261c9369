//! The command line, run to its end.

use std::path::Path;

use super::{proxy, secrets, soon};

/// What these write to standard output is what they are asked for: a token, a password, the cards of the audit.
const TELL: [&str; 2] = ["sign", "audit"];

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    /// Asserts that it did what was asked.
    #[track_caller]
    pub(crate) fn did_it(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Asserts that it failed with this exit code, and that its error says all of this.
    #[track_caller]
    pub(crate) fn failed<const N: usize>(self, code: i32, said: [&str; N]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for said in said {
            assert!(self.err.contains(said), "{said:?} is not in {self:#?}");
        }
        self
    }
}

/// Runs `cmiot-proxy` in a folder with these arguments and environment variables.
pub(crate) async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = proxy::command(folder);
    command.args(arguments).envs(environment.iter().copied());
    let output = soon(&format!("{arguments:?}"), command.output()).await.expect("the executable");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands write UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    secrets::hold_none(&format!("{arguments:?}"), &err);
    if !arguments.first().is_some_and(|command| TELL.contains(command)) {
        secrets::hold_none(&format!("{arguments:?}"), &out);
    }
    Finished { code: output.status.code(), out, err }
}
