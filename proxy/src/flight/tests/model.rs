//! Every interleaving of a few actors, against a reference of a few lines.
//!
//! Each method of the table is one step under its lock, so every interaction of threads is an order of such steps. The
//! actors: three requests of one key (join, then wait or leave), a purge, and the flights themselves, each of which
//! completes or panics at some moment. All orders of all choices run on the real table. After each step it agrees with the
//! [`Model`], and in the end every request has exactly the result of the flight that it joined.

use std::collections::BTreeMap;

use super::*;

/// A next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Purge,
    Complete(u64),
    Panic(u64),
}

/// The expected state.
#[derive(Clone, Default)]
struct Model {
    /// The flight that can be joined.
    joinable: Option<u64>,
    /// Flights without a result, and the results of those that ended.
    in_flight: Vec<u64>,
    ended: BTreeMap<u64, Result<u32, TaskFailed>>,
    /// Per request, the flight that it joined, and whether it still waits.
    joined: [Option<(u64, bool)>; REQUESTS],
    started: u64,
    purged: bool,
}

const REQUESTS: usize = 3;

impl Model {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for request in 0..REQUESTS {
            match self.joined[request] {
                None => steps.push(Step::Join(request)),
                // Only the first request may disconnect.
                Some((_, true)) if request == 0 => steps.push(Step::Leave(request)),
                _ => {}
            }
        }
        if !self.purged {
            steps.push(Step::Purge);
        }
        for flight in &self.in_flight {
            steps.push(Step::Complete(*flight));
            if *flight == 0 {
                steps.push(Step::Panic(*flight)); // one panic is enough
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join(request) => {
                let flight = self.joinable.unwrap_or_else(|| {
                    self.started += 1;
                    self.in_flight.push(self.started - 1);
                    self.started - 1
                });
                self.joinable = Some(flight);
                self.joined[request] = Some((flight, true));
            }
            Step::Leave(request) => {
                self.joined[request] = self.joined[request].map(|(flight, _)| (flight, false));
            }
            Step::Purge => {
                self.purged = true;
                self.joinable = None;
            }
            Step::Complete(flight) => self.end(flight, Ok(result_of(flight))),
            Step::Panic(flight) => self.end(flight, Err(TaskFailed)),
        }
    }

    fn end(&mut self, flight: u64, end: Result<u32, TaskFailed>) {
        self.in_flight.retain(|one| *one != flight);
        self.ended.insert(flight, end);
        if self.joinable == Some(flight) {
            self.joinable = None;
        }
    }
}

/// The result of a flight: each has another.
fn result_of(flight: u64) -> u32 {
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

/// Applies steps to the real table.
struct Driver {
    flights: Arc<Table>,
    waiters: [Option<Waiter<&'static str, &'static str, u32>>; REQUESTS],
    ends: BTreeMap<u64, oneshot::Sender<Result<u32, TaskFailed>>>,
    started: u64,
}

impl Driver {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Join(request) => {
                let mut end = None;
                let waiter = self.flights.join(&"card", owned_by("client"), Urgency::Miss, |_| {
                    let (sender, result) = oneshot::channel::<Result<u32, TaskFailed>>();
                    end = Some(sender);
                    async move { result.await.unwrap().expect("a defect, in a test") }
                });
                self.waiters[request] = Some(waiter.unwrap());
                if let Some(end) = end {
                    self.ends.insert(self.started, end);
                    self.started += 1;
                }
            }
            Step::Leave(request) => self.waiters[request] = None,
            Step::Purge => {
                self.flights.forget(|_| true);
            }
            Step::Complete(flight) => self.end(flight, Ok(result_of(flight))).await,
            Step::Panic(flight) => self.end(flight, Err(TaskFailed)).await,
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
    std::panic::set_hook(Box::new(|_| {})); // the panics of flights would flood the output
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
    let mut driver = Driver {
        flights: flights(10, 10, 10),
        waiters: [None, None, None],
        ends: BTreeMap::new(),
        started: 0,
    };
    for step in steps {
        model.take(*step);
        driver.take(*step).await;
        let table = driver.flights.lock();
        assert_eq!(table.in_flight, model.in_flight.len(), "{steps:?}");
        assert_eq!(driver.started, model.started, "wrong number of flights: {steps:?}");
        assert_eq!(table.flights.get("card").map(|flight| flight.number), model.joinable, "{steps:?}");
        let waiting =
            model.joined.iter().flatten().filter(|(flight, waits)| *waits && model.joinable == Some(*flight));
        let waiters = table.flights.get("card").map_or(0, |flight| flight.waiters);
        assert_eq!(waiters, waiting.count(), "{steps:?}");
    }
    for (waiter, joined) in driver.waiters.iter_mut().zip(model.joined) {
        if let (Some(waiter), Some((flight, _))) = (waiter, joined) {
            assert_eq!(waiter.result().await, model.ended[&flight], "{steps:?}");
        }
    }
    drop(driver.waiters);
    let table = driver.flights.lock();
    assert!(table.flights.is_empty() && table.clients.is_empty() && table.in_flight == 0, "{steps:?}");
    assert!(table.groups.is_empty() && table.waiting == 0, "{steps:?}");
}
