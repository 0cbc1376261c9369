//! A histogram of latencies with eight buckets per power of two: a percentile is at most an eighth too large.

/// Buckets: exact up to 7 us, then eight per power of two up to 2^32 us.
const BUCKETS: usize = 8 + 29 * 8;

/// Counts of latencies in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Box<[u32; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Histogram {
    /// Counts a latency.
    pub(super) fn record(&mut self, micros: u32) {
        let count = &mut self.0[bucket(micros)];
        *count = count.saturating_add(1);
    }

    /// Adds the counts of another one.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0.iter()) {
            *count = count.saturating_add(*more);
        }
    }

    /// The greatest latency of the bucket that this percentile falls into; none without a count.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.0.iter().map(|&count| u64::from(count)).sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.0.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        })?;
        Some(greatest(found))
    }
}

fn bucket(micros: u32) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let power = 31 - micros.leading_zeros() as usize;
    let eighth = (micros >> (power - 3)) as usize & 7;
    8 + (power - 3) * 8 + eighth
}

/// The greatest latency of a bucket.
fn greatest(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (power, eighth) = ((bucket - 8) / 8 + 3, (bucket - 8) % 8);
    (((9 + eighth) as u64) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_the_bucket_that_ends_at_or_after_it() {
        for micros in (0..2_000).chain([4_095, 4_096, 1 << 20, (1 << 31) - 1, 1 << 31, u32::MAX]) {
            let ends = greatest(bucket(micros));
            assert!(ends >= u64::from(micros) && ends <= u64::from(micros) * 9 / 8 + 1, "{micros}: {ends}");
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_counts_every_latency_of_both_histograms() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        assert_eq!(one.percentile(50), None);
        (0..90).for_each(|_| one.record(5));
        (0..10).for_each(|_| other.record(700));
        one.add(&other);
        assert_eq!((one.percentile(50), one.percentile(90)), (Some(5), Some(5)));
        assert_eq!((one.percentile(91), one.percentile(99)), (Some(703), Some(703)));
    }
}
