//! M11: two proxies with one number.

use crate::Line;
use crate::harness::{Partition, config_in, fleet_setup, folder_of};
use crate::load::three;
use crate::support::run;

/// Starts a fourth proxy with the number of the first.
pub(crate) async fn one_number() -> Vec<Line> {
    let fleet = three(|setup, _| setup).await;
    let partition = Partition::to(&fleet.server);
    let folder = folder_of(&fleet_setup(&fleet.carrier, &partition, 1, 3));
    let config = config_in(&folder);
    let ended = run(folder.path(), &["serve", "--config", config.to_str().unwrap()], &[]).await;
    let words = ended.err.lines().find(|line| line.contains("node 1 of the fleet")).unwrap_or_default();
    vec![Line::counted(
        "a second proxy with the number of node 1: exit code, words",
        "1, and the holder",
        format!("{:?}, {}", ended.code, words.trim()),
        ended.code == Some(1) && !words.is_empty(),
    )]
}
