//! The faults of a schedule: a seed decides which, on what, and for how long.

use std::time::Duration;

use super::load::Load;
use super::random::Random;
use crate::harness::{Mode, Nodes};

/// Offsets of a node's wall clock, in seconds. Not ahead by more than the window of transids: a node that is killed then
/// does not list what it accepted alone before that step.
const STEPS: [i64; 7] = [-86_400, -3_600, -200, -30, 0, 30, 200];

/// One step: faults that begin together and end together. No two of them concern the same process or socket.
#[derive(Clone, Debug)]
pub(super) struct Step {
    faults: Vec<Fault>,
    hold: Duration,
    /// The time until the next step.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// SIGKILL of a node, which starts again at the end.
    KillNode(usize),
    /// SIGSTOP of a node.
    PauseNode(usize),
    /// SIGKILL of the postmaster and its children.
    KillServer,
    /// SIGSTOP of all processes of the server.
    PauseServer,
    /// SIGKILL of one backend: the server ends all others and recovers.
    KillBackend,
    /// A mode of the socket between a node and the server.
    Partition(usize, Mode),
    /// The connections of a node to the server are closed, once.
    Cut(usize),
    /// The wall clock of a node differs by so many seconds from now on.
    StepClock(usize, i64),
}

impl Step {
    /// So many steps. The first half of them holds each fault for a second at most; later ones may end leases.
    pub(super) fn schedule(random: &mut Random, steps: usize, nodes: usize) -> Vec<Self> {
        (0..steps).map(|step| Self::random(random, nodes, step * 2 >= steps)).collect()
    }

    fn random(random: &mut Random, nodes: usize, may_be_long: bool) -> Self {
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..=random.below(3) {
            let fault = Fault::random(random, nodes);
            if faults.iter().all(|other| other.target() != fault.target()) {
                faults.push(fault);
            }
        }
        // A lease is 6 s, and a node without a heartbeat is alone after 4.5 s.
        let is_long = may_be_long && random.below(5) == 0;
        let hold = if is_long { 5_000 + random.below(3_000) } else { 50 + random.below(950) };
        let pause = 50 + random.below(600);
        Self { faults, hold: Duration::from_millis(hold), pause: Duration::from_millis(pause) }
    }

    /// The nodes whose clocks this step sets.
    pub(super) fn stepped(&self) -> impl Iterator<Item = usize> {
        self.faults.iter().filter_map(|fault| match fault {
            Fault::StepClock(node, _) => Some(*node),
            _ => None,
        })
    }

    /// The time that it takes, without those of kills and starts.
    pub(super) fn duration(&self) -> Duration {
        self.hold + self.pause
    }

    /// Plays the step.
    pub(super) async fn play(&self, fleet: &mut Nodes, load: &Load) {
        for fault in &self.faults {
            fault.begin(fleet).await;
        }
        tokio::time::sleep(self.hold).await;
        for fault in &self.faults {
            fault.end(fleet).await;
            load.follow(fleet);
        }
        tokio::time::sleep(self.pause).await;
    }
}

/// The object of a fault.
#[derive(PartialEq)]
enum Target {
    Server,
    Node(usize),
    Partition(usize),
}

impl Fault {
    fn random(random: &mut Random, nodes: usize) -> Self {
        let node = random.index(nodes);
        match random.below(12) {
            0 | 1 => Self::KillNode(node),
            2 => Self::PauseNode(node),
            3 => Self::KillServer,
            4 => Self::PauseServer,
            5 => Self::KillBackend,
            6 => Self::Cut(node),
            7 => Self::StepClock(node, random.one_of(&STEPS)),
            _ => Self::Partition(node, mode(random)),
        }
    }

    fn target(self) -> Target {
        match self {
            Self::KillServer | Self::PauseServer | Self::KillBackend => Target::Server,
            Self::KillNode(node) | Self::PauseNode(node) | Self::StepClock(node, _) => Target::Node(node),
            Self::Partition(node, _) | Self::Cut(node) => Target::Partition(node),
        }
    }

    async fn begin(self, fleet: &mut Nodes) {
        match self {
            Self::KillNode(node) => fleet[node].kill9().await,
            Self::PauseNode(node) => fleet[node].pause(),
            Self::KillServer => fleet.server.kill(),
            Self::PauseServer => fleet.server.pause(),
            Self::KillBackend => {
                let client = fleet.server.client().await;
                let id: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
                fleet.server.kill_backend(id.try_into().unwrap());
            }
            Self::Partition(node, mode) => fleet[node].partition.set(mode),
            Self::Cut(node) => fleet[node].partition.cut().await,
            Self::StepClock(node, seconds) => fleet[node].set_clock_offset(seconds),
        }
    }

    async fn end(self, fleet: &mut Nodes) {
        match self {
            Self::KillNode(node) => fleet[node].start_again().await,
            Self::PauseNode(node) => fleet[node].resume(),
            Self::KillServer => fleet.server.start_again().await,
            Self::PauseServer => fleet.server.resume(),
            Self::KillBackend => fleet.server.ready().await,
            Self::Partition(node, _) => fleet[node].partition.set(Mode::Pass),
            Self::Cut(_) | Self::StepClock(..) => {}
        }
    }
}

fn mode(random: &mut Random) -> Mode {
    let delay = Duration::from_millis(5 + random.below(300));
    random.one_of(&[Mode::Stall, Mode::StallResponses, Mode::Reset, Mode::Refuse, Mode::Delay(delay)])
}
