//! M4: captured requests at the other nodes, while nodes and database are killed, paused, stalled and cut off.
//!
//! The load, the faults and the model are those of the random schedules (`tests/fleet/schedule.rs`).

use crate::schedule::{Summary, summary};
use crate::{Line, Options};

/// Steps of one schedule.
const STEPS: usize = 24;

/// Schedules with random faults, until they have enough responses.
pub(crate) async fn captured(options: &Options) -> Vec<Line> {
    let enough = options.scaled(100_000, 1_000);
    let mut runs: Vec<Summary> = Vec::new();
    for seed in 1.. {
        let responses: usize = runs.iter().map(|run| run.responses).sum();
        let both = [true, false].iter().all(|mode| runs.iter().any(|run| run.refuses_alone == *mode));
        if responses >= enough as usize && both {
            break;
        }
        let steps = STEPS.min(options.scaled(100, 4) as usize);
        runs.push(summary(seed, steps).await);
    }
    let broken: Vec<_> = runs.iter().flat_map(|run| &run.broken).collect();
    broken.iter().for_each(|broken| println!("{broken}"));
    let of = |refuses: bool, figure: fn(&Summary) -> usize| -> usize {
        runs.iter().filter(|run| run.refuses_alone == refuses).map(figure).sum()
    };
    let sent = |refuses| format!("{} responses", of(refuses, |run| run.responses));
    let over = runs.iter().filter(|run| run.calls as u64 > run.limit * run.days as u64).count();
    vec![
        Line::counted(
            format!("when_alone = \"refuse\", {}: accepted twice", sent(true)),
            "0",
            of(true, |run| run.twice).to_string(),
            of(true, |run| run.twice) == 0,
        ),
        Line::printed(
            format!("when_alone = \"serve\", {}: accepted by two nodes, all of them listed", sent(false)),
            of(false, |run| run.twice).to_string(),
        ),
        Line::counted(
            format!(
                "{} schedules: rules broken (twice at the carrier, unmarked, unlisted, unaudited)",
                runs.len()
            ),
            "0",
            broken.len().to_string(),
            broken.is_empty(),
        ),
        Line::counted("schedules above the budget of their days", "0", over.to_string(), over == 0),
    ]
}
