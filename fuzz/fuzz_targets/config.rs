//! A configuration: read and checked in an empty folder, so that no secret of this machine is read.
#![no_main]

use std::path::Path;

use cmiot_proxy::config::{Config, ConfigFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(file) = ConfigFile::parse(Path::new("fuzz.toml"), text) {
        let _ = Config::check(&file, Path::new("/nonexistent"));
    }
});
