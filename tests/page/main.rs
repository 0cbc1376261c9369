//! Tests of the operators' page in a real Chromium, which chromedriver drives over the WebDriver protocol.
//!
//! Few tests with many steps, since each starts a browser of its own. `cargo xtask ci page` installs Debian's browser and
//! axe-core, and runs these tests. The simplest tests come first.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

// The path makes this folder the parent of `support.rs`, whose modules are in `tests/support/`.
#[path = ".."]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the other end-to-end tests use the rest")]
    pub(crate) mod support;
}
use shared::support;

// The browser: its start, its pages, its console, and the checks that hold on every page.
mod browser;

// Steps that several tests make.
mod pages;

// The rules of every page: both languages, sizes and themes; without scripts; by the keyboard alone.
mod every_page;

// The facts, against the simulator's counts; sort and filter.
mod facts;

// The acts: refresh, purge, show a card, verify; the live tail.
mod acts;

// Ten thousand clients.
mod many;

// Pages of other origins, and scripts in the text of others.
mod security;

// The demo, and the README's screenshots of it.
mod screenshots;
