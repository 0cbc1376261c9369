//! A program that a test starts and whose addresses it reads from standard output, and the lists of a YAML file.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use yaml_rust2::Yaml;

use super::within;

/// A program that prints its addresses to standard output.
pub(crate) struct Started {
    #[allow(dead_code, reason = "the tests of a fleet use it")]
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
}

impl Started {
    /// Starts it.
    pub(crate) fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, out }
    }

    /// Kills it, and waits for its end.
    #[allow(dead_code, reason = "the tests of a fleet use it")]
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for a line with this prefix; the rest of it.
    pub(crate) async fn line(&mut self, prefix: &str) -> String {
        within(prefix, async {
            loop {
                let line = self.out.next_line().await.unwrap().expect("the program ended");
                if let Some(rest) = line.strip_prefix(prefix) {
                    return rest.to_owned();
                }
            }
        })
        .await
    }
}

/// The strings of a list.
pub(crate) fn strings(list: &Yaml) -> Vec<&str> {
    list.as_vec().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}
