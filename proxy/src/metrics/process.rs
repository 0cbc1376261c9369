//! Metrics of the process: `process_*`, under the names that Prometheus clients in all languages use, and the build.
//!
//! The values are read from `/proc/self` when `/metrics` is requested. Where that is not possible, the last ones stay.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rustix::process::{Resource, getrlimit};

use super::declare::{FloatGauge, clamp};

/// The commit that was built, or `unknown`.
const COMMIT: &str = match option_env!("CMIOT_BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The target's name, or `unknown`.
const TARGET: &str = match option_env!("CMIOT_BUILD_TARGET") {
    Some(target) => target,
    None => "unknown",
};

/// The metrics of the process, in a registry without a prefix.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) registry: Registry,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_memory: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start: FloatGauge,
}

/// Registers the build as `build_info`.
pub(super) fn register_build(registry: &mut Registry) {
    let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT), ("target", TARGET)];
    registry.register("build", "Version, commit and target of this executable", Info::new(build));
}

impl Process {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let process = Self {
            registry: Registry::default(),
            cpu: Counter::default(),
            resident: Gauge::default(),
            virtual_memory: Gauge::default(),
            open_fds: Gauge::default(),
            max_fds: Gauge::default(),
            start: FloatGauge::default(),
        };
        let memory = [
            ("process_resident_memory", "Memory of the process that is in RAM", &process.resident),
            ("process_virtual_memory", "Address space of the process", &process.virtual_memory),
        ];
        for (name, help, gauge) in memory {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        registry.register_with_unit(
            "process_cpu",
            "Time that all processors have spent on the process",
            Unit::Seconds,
            process.cpu.clone(),
        );
        registry.register_with_unit(
            "process_start_time",
            "When the process began to serve, in Unix time",
            Unit::Seconds,
            process.start.clone(),
        );
        registry.register("process_open_fds", "Open file descriptors", process.open_fds.clone());
        registry.register("process_max_fds", "Limit of open file descriptors", process.max_fds.clone());
        Self { registry, ..process }
    }

    /// Sets the start of the process, in seconds of Unix time.
    pub(super) fn started(&self, at: f64) {
        self.start.set(at);
    }

    /// Reads the values.
    pub(super) fn sample(&self) {
        let limit = getrlimit(Resource::Nofile).current;
        self.max_fds.set(limit.map_or(i64::MAX, clamp));
        let Ok(process) = procfs::process::Process::myself() else { return };
        if let Ok(stat) = process.stat() {
            let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second().max(1) as f64;
            // Two scrapes at once may set them in the wrong order, by less than a tick.
            self.cpu.inner().store(cpu.to_bits(), Ordering::Relaxed);
            self.virtual_memory.set(clamp(stat.vsize));
            self.resident.set(clamp(stat.rss.saturating_mul(procfs::page_size())));
        }
        if let Ok(count) = process.fd_count() {
            self.open_fds.set(clamp(count as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_this_process() {
        let process = Process::new();
        process.sample();
        assert!(process.resident.get() > 1 << 20 && process.virtual_memory.get() >= process.resident.get());
        assert!(process.open_fds.get() >= 3 && process.max_fds.get() >= process.open_fds.get());
    }
}
