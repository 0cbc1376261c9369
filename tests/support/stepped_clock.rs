//! A machine whose wall clock is stepped on command: an `LD_PRELOAD` library adds an offset to `CLOCK_REALTIME`.
//!
//! The monotonic clock is not changed, as by an operator or NTP that sets the time of a machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::{Machine, Proxy};

/// The preload library. Through the system call, since the allocator reads the time before any symbol can be looked up.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *step;

__attribute__((constructor)) static void map_step(void) {
    int file = open(getenv("CLOCK_STEP"), O_RDONLY);
    void *mapped = mmap(0, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) abort();
    step = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    if (clock == CLOCK_REALTIME && step) at->tv_sec += *step;
    return result;
}
"#;

impl Machine {
    /// With a wall clock that [`Proxy::set_clock_offset`] steps.
    pub(crate) fn stepped_clock(folder: &Path) -> Self {
        let [source, library, step] = ["clock.c", "clock.so", "clock.step"].map(|name| folder.join(name));
        std::fs::write(&source, LIBRARY).expect("a folder of ours");
        std::fs::write(&step, [0; 8]).expect("a folder of ours");
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]);
        assert!(build.status().expect("a C compiler").success());
        let environment = vec![("LD_PRELOAD", library.into()), ("CLOCK_STEP", step.clone().into())];
        Self::preloading(environment, step)
    }
}

impl Proxy {
    /// Steps the wall clock of a [`Machine::stepped_clock`] to this many seconds ahead of the real one.
    pub(crate) fn set_clock_offset(&self, seconds: i64) {
        // In place, since the library has the file mapped.
        let step = File::options().write(true).open(&self.machine().fault).expect("the test's folder");
        step.write_all_at(&seconds.to_ne_bytes(), 0).expect("the test's folder");
    }
}
