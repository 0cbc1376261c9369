//! The load of a schedule: gateways that send new requests and captured ones to nodes at random, and note each response.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::model::Received;
use super::random::Random;
use crate::harness::Nodes;
use crate::support::{Connection, Gateway, STATUS_PATH, card_number, secrets};

/// Gateways that send at once.
const GATEWAYS: usize = 12;

/// Cards that are looked up again and again: mostly hits.
const KNOWN_CARDS: u64 = 20;

/// Pause of a gateway between two requests, so that a run is as long as its faults and not as large as the machine is fast.
const PAUSE: Duration = Duration::from_millis(20);

/// The load. It ends with [`Load::stop`].
pub(super) struct Load {
    state: Arc<State>,
    gateways: JoinSet<()>,
}

struct State {
    gateway: Gateway,
    addresses: Mutex<Vec<SocketAddr>>,
    /// Requests that were sent, which are sent again at random.
    captured: Mutex<Vec<Captured>>,
    responses: Mutex<Vec<Received>>,
    next_card: AtomicU32,
    is_stopped: AtomicBool,
}

/// A signed request.
#[derive(Clone, Debug)]
struct Captured {
    transid: String,
    target: String,
}

impl Load {
    /// Starts the gateways.
    pub(super) fn start(nodes: &Nodes, random: &mut Random) -> Self {
        let gateway = nodes[0].gateway.clone();
        let state = Arc::new(State {
            gateway,
            addresses: Mutex::default(),
            captured: Mutex::default(),
            responses: Mutex::default(),
            next_card: AtomicU32::new(1_000),
            is_stopped: AtomicBool::new(false),
        });
        let mut load = Self { state, gateways: JoinSet::new() };
        load.follow(nodes);
        for _ in 0..GATEWAYS {
            load.gateways.spawn(send(Arc::clone(&load.state), random.fork()));
        }
        load
    }

    /// Sends to the addresses that the nodes have now.
    pub(super) fn follow(&self, nodes: &Nodes) {
        *self.state.addresses.lock().unwrap() = nodes.iter().map(|node| node.address).collect();
    }

    /// Number of responses so far.
    pub(super) fn responses(&self) -> usize {
        self.state.responses.lock().unwrap().len()
    }

    /// Stops the gateways, and sends the last captured requests to each node again.
    pub(super) async fn stop(mut self) -> Vec<Received> {
        const REPEATED: usize = 300;
        self.state.is_stopped.store(true, Ordering::Release);
        while let Some(ended) = self.gateways.join_next().await {
            ended.unwrap();
        }
        let captured = self.state.captured.lock().unwrap().clone();
        for captured in captured.iter().rev().take(REPEATED) {
            self.state.send_to_all(captured).await;
        }
        let responses = self.state.responses.lock().unwrap();
        responses.clone()
    }
}

async fn send(state: Arc<State>, mut random: Random) {
    while !state.is_stopped.load(Ordering::Acquire) {
        let nodes = state.addresses.lock().unwrap().len();
        match random.below(10) {
            0..=4 => state.send(random.index(nodes), &state.new_request(&mut random)).await,
            5..=6 => state.send_to_all(&state.new_request(&mut random)).await,
            _ => {
                let captured = state.captured_request(&mut random);
                if let Some(captured) = captured {
                    state.send(random.index(nodes), &captured).await;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl State {
    /// Signs a request without registering its token: searching the logs for thousands of tokens takes longer than the
    /// run, and other tests search for theirs.
    fn new_request(&self, random: &mut Random) -> Captured {
        let card = match random.below(10) {
            0..=6 => u32::try_from(random.below(KNOWN_CARDS)).expect("a small number"),
            _ => self.next_card.fetch_add(1, Ordering::Relaxed),
        };
        let Gateway { appid, ebid, password, .. } = &self.gateway;
        let transid = self.gateway.transid();
        let token = secrets::token(appid, password, &transid);
        let card = card_number(card);
        let target = format!(
            "{STATUS_PATH}?appid={appid}&transid={transid}&ebid={ebid}&token={token}&{}={}",
            card.kind, card.number
        );
        let captured = Captured { transid, target };
        self.captured.lock().unwrap().push(captured.clone());
        captured
    }

    /// One of the last requests or of all requests.
    fn captured_request(&self, random: &mut Random) -> Option<Captured> {
        const LAST: usize = 50;
        let captured = self.captured.lock().unwrap();
        let from = if random.below(2) == 0 { captured.len().saturating_sub(LAST) } else { 0 };
        (!captured.is_empty()).then(|| captured[from + random.index(captured.len() - from)].clone())
    }

    async fn send_to_all(&self, captured: &Captured) {
        let nodes = self.addresses.lock().unwrap().len();
        let mut sent: Vec<_> = (0..nodes).map(|node| Box::pin(self.send(node, captured))).collect();
        std::future::poll_fn(|context| {
            sent.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if sent.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Sends a request to a node, and notes the response if one arrives.
    async fn send(&self, node: usize, captured: &Captured) {
        let address = self.addresses.lock().unwrap()[node];
        let Ok(mut connection) = Connection::try_to(address).await else { return };
        let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", captured.target);
        if connection.try_send(request).await.is_err() {
            return;
        }
        let Some(response) = connection.try_response().await else { return };
        let received = Received { node, transid: captured.transid.clone(), code: response.code() };
        self.responses.lock().unwrap().push(received);
    }
}
