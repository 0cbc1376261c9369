//! The shares of an account's limits among the nodes of a fleet.
//!
//! | limit | shared | of a node that is alone |
//! | --- | --- | --- |
//! | calls of a day | the limit less the reserves, in blocks | its reserve, `reserve_percent` of the limit |
//! | calls per second | the limit less the shares of the nodes that may be alone | the limit divided by `nodes`, rounded down |
//! | calls at once | | always the limit divided by `nodes`, rounded down, and at least one |

use std::num::NonZeroU32;

use crate::store::fleet::pace::Pace;
use crate::store::fleet::quota::DayLimits;

/// About how many blocks the calls of a day make per node.
const BLOCKS_PER_DAY: u64 = 200;

/// The greatest block.
const MAX_BLOCK: u64 = 1_000;

/// The shares of the calls of a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DayShares {
    /// Calls per block.
    pub block: u64,
    /// Calls that each node keeps for the time when it is alone.
    pub reserve: u64,
    /// The limits of a grant.
    pub limits: DayLimits,
}

impl DayShares {
    /// The shares of `limit` calls per day.
    pub fn new(limit: u64, nodes: u32, reserve_percent: u32) -> Self {
        let nodes = u64::from(nodes.max(1));
        let reserve = percent(limit, reserve_percent);
        let reserves = reserve.saturating_mul(nodes).min(limit);
        let block = (limit / nodes.saturating_mul(BLOCKS_PER_DAY)).clamp(1, MAX_BLOCK);
        Self { block, reserve, limits: DayLimits { limit, ceiling: limit - reserves, reserves } }
    }
}

/// The shares of `per_second` calls per second.
pub fn pace(per_second: NonZeroU32, nodes: u32) -> Pace {
    let nodes = nodes.max(1);
    Pace { per_second: per_second.get(), alone: per_second.get() / nodes, nodes }
}

/// The calls at once of each node.
pub fn at_once(limit: NonZeroU32, nodes: u32) -> NonZeroU32 {
    NonZeroU32::new(limit.get() / nodes.max(1)).unwrap_or(NonZeroU32::MIN)
}

fn percent(limit: u64, percent: u32) -> u64 {
    // Without the overflow of limit * percent.
    let (hundreds, rest) = (limit / 100, limit % 100);
    hundreds.saturating_mul(u64::from(percent)).saturating_add(rest * u64::from(percent) / 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shares_of_ten_thousand_calls_among_three_nodes() {
        let shares = DayShares::new(10_000, 3, 2);
        assert_eq!((shares.block, shares.reserve, shares.limits.ceiling), (16, 200, 9_400));
        let shares = DayShares::new(300, 3, 2);
        assert_eq!((shares.block, shares.reserve, shares.limits.ceiling), (1, 6, 282));
    }

    #[test]
    fn a_limit_below_the_number_of_nodes_leaves_one_call_at_once_and_no_rate_for_a_node_alone() {
        let two = NonZeroU32::new(2).unwrap();
        assert_eq!(at_once(two, 3).get(), 1);
        assert_eq!(pace(two, 3).alone, 0);
    }

    proptest! {
        #[test]
        fn all_shares_together_are_within_the_limit(
            limit in 0_u64..=u64::MAX,
            nodes in 1_u32..=100,
            reserve_percent in 0_u32..=10,
            per_second in 1_u32..=u32::MAX,
        ) {
            // As the configuration is checked.
            prop_assume!(reserve_percent * nodes <= 90);
            let shares = DayShares::new(limit, nodes, reserve_percent);
            let all = u128::from(shares.limits.ceiling) + u128::from(nodes) * u128::from(shares.reserve);
            prop_assert_eq!(all, u128::from(limit));
            prop_assert!((1..=1_000).contains(&shares.block));
            let pace = pace(NonZeroU32::new(per_second).unwrap(), nodes);
            prop_assert!(u64::from(pace.alone) * u64::from(nodes) <= u64::from(per_second));
        }
    }
}
