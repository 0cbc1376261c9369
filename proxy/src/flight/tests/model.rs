//! Every interleaving of a small cast, against a reference of a few lines.
//!
//! Each method of the table is one step under its lock, so what threads can do to each other is an order of such steps.
//! The cast: three askers of one key (join, then wait or leave), a purge, and the flights themselves, each of which
//! lands or dies at some moment. All orders of all choices are played on the real table; after each step it agrees
//! with the [`Model`], and in the end everybody has exactly what the flight that they boarded brought.

use std::collections::BTreeMap;

use super::*;

/// What can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Purge,
    Land(u64),
    Die(u64),
}

/// What must be so.
#[derive(Clone, Default)]
struct Model {
    /// The flight that can be joined.
    joinable: Option<u64>,
    /// Flights under way, and what became of those that ended.
    flying: Vec<u64>,
    ended: BTreeMap<u64, Result<u32, TaskFailed>>,
    /// Which flight an asker boarded, and whether it sits there still.
    boarded: [Option<(u64, bool)>; ASKERS],
    departed: u64,
    purged: bool,
}

const ASKERS: usize = 3;

impl Model {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for asker in 0..ASKERS {
            match self.boarded[asker] {
                None => steps.push(Step::Join(asker)),
                // The first asker is the one that may hang up.
                Some((_, true)) if asker == 0 => steps.push(Step::Leave(asker)),
                _ => {}
            }
        }
        if !self.purged {
            steps.push(Step::Purge);
        }
        for flight in &self.flying {
            steps.push(Step::Land(*flight));
            if *flight == 0 {
                steps.push(Step::Die(*flight)); // one that dies is enough
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join(asker) => {
                let flight = self.joinable.unwrap_or_else(|| {
                    self.departed += 1;
                    self.flying.push(self.departed - 1);
                    self.departed - 1
                });
                self.joinable = Some(flight);
                self.boarded[asker] = Some((flight, true));
            }
            Step::Leave(asker) => {
                self.boarded[asker] = self.boarded[asker].map(|(flight, _)| (flight, false));
            }
            Step::Purge => {
                self.purged = true;
                self.joinable = None;
            }
            Step::Land(flight) => self.end(flight, Ok(landing(flight))),
            Step::Die(flight) => self.end(flight, Err(TaskFailed)),
        }
    }

    fn end(&mut self, flight: u64, end: Result<u32, TaskFailed>) {
        self.flying.retain(|one| *one != flight);
        self.ended.insert(flight, end);
        if self.joinable == Some(flight) {
            self.joinable = None;
        }
    }
}

/// What a flight brings: each something of its own.
fn landing(flight: u64) -> u32 {
    100 + u32::try_from(flight).unwrap()
}

/// All orders, depth first, as lists of steps.
fn orders(model: &Model, done: &mut Vec<Step>, each: &mut impl FnMut(&[Step])) {
    let steps = model.steps();
    if steps.is_empty() {
        return each(done);
    }
    for step in steps {
        let mut next = model.clone();
        next.take(step);
        done.push(step);
        orders(&next, done, each);
        done.pop();
    }
}

/// The real table, driven step by step.
struct Stage {
    flights: Arc<Table>,
    seats: [Option<Waiter<&'static str, &'static str, u32>>; ASKERS],
    ends: BTreeMap<u64, oneshot::Sender<Result<u32, TaskFailed>>>,
    departed: u64,
}

impl Stage {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Join(asker) => {
                let mut end = None;
                let seat = self.flights.join(&"card", some("client"), Urgency::Miss, |_| {
                    let (ends, ended) = oneshot::channel::<Result<u32, TaskFailed>>();
                    end = Some(ends);
                    async move { ended.await.unwrap().expect("a defect, in a test") }
                });
                self.seats[asker] = Some(seat.unwrap());
                if let Some(end) = end {
                    self.ends.insert(self.departed, end);
                    self.departed += 1;
                }
            }
            Step::Leave(asker) => self.seats[asker] = None,
            Step::Purge => {
                self.flights.forget(|_| true);
            }
            Step::Land(flight) => self.end(flight, Ok(landing(flight))).await,
            Step::Die(flight) => self.end(flight, Err(TaskFailed)).await,
        }
    }

    async fn end(&mut self, flight: u64, end: Result<u32, TaskFailed>) {
        let before = self.flights.in_flight();
        self.ends.remove(&flight).unwrap().send(end).unwrap();
        while self.flights.in_flight() == before {
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn every_interleaving_agrees_with_the_model() {
    std::panic::set_hook(Box::new(|_| {})); // flights that die would fill the screen
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut played = 0_u32;
    orders(&Model::default(), &mut Vec::new(), &mut |steps| {
        played += 1;
        runtime.block_on(play(steps));
    });
    let _ = std::panic::take_hook();
    assert!(played > 1_000, "{played}");
}

async fn play(steps: &[Step]) {
    let mut model = Model::default();
    let mut stage =
        Stage { flights: flights(10, 10, 10), seats: [None, None, None], ends: BTreeMap::new(), departed: 0 };
    for step in steps {
        model.take(*step);
        stage.take(*step).await;
        let table = stage.flights.lock();
        assert_eq!(table.in_flight, model.flying.len(), "{steps:?}");
        assert_eq!(stage.departed, model.departed, "a flight too many or too few: {steps:?}");
        assert_eq!(table.flights.get("card").map(|flight| flight.number), model.joinable, "{steps:?}");
        let aboard =
            model.boarded.iter().flatten().filter(|(flight, sits)| *sits && model.joinable == Some(*flight));
        let waiters = table.flights.get("card").map_or(0, |flight| flight.waiters);
        assert_eq!(waiters, aboard.count(), "{steps:?}");
    }
    for (seat, boarded) in stage.seats.iter_mut().zip(model.boarded) {
        if let (Some(seat), Some((flight, _))) = (seat, boarded) {
            assert_eq!(seat.result().await, model.ended[&flight], "{steps:?}");
        }
    }
    drop(stage.seats);
    let table = stage.flights.lock();
    assert!(table.flights.is_empty() && table.clients.is_empty() && table.in_flight == 0, "{steps:?}");
    assert!(table.groups.is_empty() && table.waiting == 0, "{steps:?}");
}
