//! The growth of what must stay flat: medians of the first and the last quarter of the samples.

use std::fmt;

use super::samples::Sample;

/// Growth that is tolerated, in percent of the first quarter's median.
const PERCENT: u64 = 10;

/// A quantity that must stay flat.
struct Quantity {
    name: &'static str,
    of: fn(&Sample) -> u64,
    /// Growth that is tolerated in addition.
    constant: u64,
    /// Only samples at rest count, if a quarter has any.
    at_rest: bool,
}

const QUANTITIES: [Quantity; 4] = [
    // Pages that the allocator has not returned yet.
    Quantity {
        name: "resident memory, bytes",
        of: |sample| sample.memory,
        constant: 8 << 20,
        at_rest: false,
    },
    // Connections that are just closed and opened.
    Quantity { name: "descriptors", of: |sample| sample.descriptors, constant: 16, at_rest: false },
    // A WAL that a reader kept long is truncated to 64 MiB (`WAL_KEPT` in proxy/src/store/schema.rs).
    Quantity { name: "WAL at rest, bytes", of: |sample| sample.wal, constant: 64 << 20, at_rest: true },
    // A block has 131,072 rows (`Options` in proxy/src/store/audit.rs).
    Quantity { name: "index lag, rows", of: |sample| sample.index_lag, constant: 131_072, at_rest: false },
];

/// The growth of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    name: &'static str,
    /// Medians of the first and of the last quarter.
    first: u64,
    last: u64,
    /// The greatest value of `last` that is flat.
    limit: u64,
}

impl Growth {
    /// Whether it has not grown beyond what is tolerated.
    pub(super) fn is_flat(&self) -> bool {
        self.last <= self.limit
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, first, last, limit } = self;
        let verdict = if self.is_flat() { "flat" } else { "GROWN" };
        write!(f, "{name}: median of the first quarter {first}, of the last {last}, limit {limit}: {verdict}")
    }
}

/// The growth of each quantity, from samples in the order of time.
pub(super) fn of(samples: &[Sample]) -> Vec<Growth> {
    let quarter = samples.len().div_ceil(4);
    let (first, last) = (&samples[..quarter], &samples[samples.len() - quarter..]);
    let growth = |quantity: &Quantity| {
        let [first, last] = [first, last].map(|samples| median(quantity, samples));
        let limit = first + first * PERCENT / 100 + quantity.constant;
        Growth { name: quantity.name, first, last, limit }
    };
    QUANTITIES.iter().map(growth).collect()
}

/// The median; zero without samples.
fn median(quantity: &Quantity, samples: &[Sample]) -> u64 {
    let values = |is_counted: fn(&Sample) -> bool| -> Vec<u64> {
        samples.iter().filter(|sample| is_counted(sample)).map(quantity.of).collect()
    };
    let at_rest = if quantity.at_rest { values(|sample| sample.is_at_rest) } else { Vec::new() };
    let mut values = if at_rest.is_empty() { values(|_| true) } else { at_rest };
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sample(memory: u64, wal: u64, is_at_rest: bool) -> Sample {
        Sample { memory, wal, is_at_rest, descriptors: 300, ..Sample::default() }
    }

    #[test]
    fn growth_beyond_a_tenth_and_a_constant_is_found() {
        let of_memory = |last| {
            let samples = [[sample(100 * MIB, 0, true); 4], [sample(last, 0, true); 4]].concat();
            of(&samples)[0]
        };
        assert!(of_memory(100 * MIB).is_flat() && of_memory(118 * MIB).is_flat());
        let grown = of_memory(119 * MIB);
        assert!(!grown.is_flat() && grown.to_string().ends_with("GROWN"), "{grown}");
        assert!(of_memory(50 * MIB).is_flat(), "less is no growth");
    }

    #[test]
    fn a_quarter_with_one_extreme_sample_has_its_usual_median() {
        let mut samples = [sample(100 * MIB, 0, true); 20];
        samples[19].memory = 900 * MIB;
        assert!(of(&samples).iter().all(Growth::is_flat));
    }

    #[test]
    fn the_wal_counts_while_no_command_reads_the_audit() {
        let mut samples = [sample(MIB, 4 * MIB, true); 16];
        samples[13..].fill(sample(MIB, 900 * MIB, false));
        assert!(of(&samples)[2].is_flat(), "one sample of the last quarter is at rest");
        samples[12..].fill(sample(MIB, 900 * MIB, false));
        assert!(!of(&samples)[2].is_flat(), "a command that never ends is no excuse");
        assert_eq!(of(&[]).len(), 4);
    }
}
