//! Sessions of the page, in memory, and the rate limit of its log-in.
//!
//! A session holds the token that began it, not its roles: a token that a reload removes ends its sessions, and changed roles
//! apply at once. A session without a token belongs to a caller with a client certificate, or where no token is needed; it
//! gives no role by itself, and exists for its CSRF token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::clock::Clock;
use crate::gcra::{Gcra, TheoreticalArrivalTime};
use crate::peer::peer_of;
use crate::units::Secret;

/// The time without a request after which a session ends.
const IDLE: Duration = Duration::from_secs(3_600);
/// The longest life of a session.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);
/// Sessions at once; the least recently used one gives way.
const MAX_SESSIONS: usize = 1_024;
/// Failed log-ins of one peer at once, and the time in which one more is allowed.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(6);
/// Peers with failed log-ins that are remembered; beyond them, no new peer may log in until some are forgotten.
const MAX_PEERS: usize = 1_024;

/// The sessions.
pub(super) struct Sessions {
    clock: Clock,
    table: Mutex<HashMap<Id, Stored>>,
    failures: Mutex<HashMap<IpAddr, TheoreticalArrivalTime>>,
}

/// The hash of a cookie: the table is searched by it, so that the time of a search says nothing about a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Id([u8; 32]);

struct Stored {
    token: Option<Secret>,
    csrf: String,
    since: Duration,
    used: Duration,
}

/// A session.
pub(super) struct Session {
    pub(super) id: Id,
    /// The token that began it.
    pub(super) token: Option<Secret>,
    /// The value that its forms carry.
    pub(super) csrf: String,
}

impl Sessions {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, table: Mutex::default(), failures: Mutex::default() }
    }

    /// Begins a session. Returns it with its cookie; none if the system has no random numbers.
    pub(super) fn begin(&self, token: Option<Secret>) -> Option<(Session, String)> {
        let (cookie, csrf) = (random()?, random()?);
        let (id, now) = (Id::of(&cookie), self.clock.monotonic());
        let mut table = self.table();
        table.retain(|_, stored| !stored.has_ended(now));
        if table.len() >= MAX_SESSIONS
            && let Some(oldest) = table.iter().min_by_key(|(_, stored)| stored.used).map(|(id, _)| *id)
        {
            table.remove(&oldest);
        }
        table.insert(id, Stored { token: token.clone(), csrf: csrf.clone(), since: now, used: now });
        Some((Session { id, token, csrf }, cookie))
    }

    /// The session of a cookie, which is now used again.
    pub(super) fn find(&self, cookie: &str) -> Option<Session> {
        let (id, now) = (Id::of(cookie), self.clock.monotonic());
        let mut table = self.table();
        let stored = table.get_mut(&id).filter(|stored| !stored.has_ended(now))?;
        stored.used = now;
        Some(Session { id, token: stored.token.clone(), csrf: stored.csrf.clone() })
    }

    /// Whether a session has not ended. Does not count as its use.
    pub(super) fn is_open(&self, id: Id) -> bool {
        let now = self.clock.monotonic();
        self.table().get(&id).is_some_and(|stored| !stored.has_ended(now))
    }

    /// Ends a session.
    pub(super) fn end(&self, id: Id) {
        self.table().remove(&id);
    }

    /// Runs a log-in of a peer. A failed one counts against the limit, and attempts of one moment count one after the other.
    ///
    /// # Errors
    /// The time after which the peer may try again; nothing was compared.
    pub(super) fn attempt(&self, peer: IpAddr, is_right: impl FnOnce() -> bool) -> Result<bool, Duration> {
        let (limit, now) = (Gcra::new(INTERVAL, BURST), self.clock.monotonic());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peer_of(peer);
        if failures.len() >= MAX_PEERS && !failures.contains_key(&peer) {
            // Without a failure in the last minute, a peer counts as new.
            failures.retain(|_, state| Gcra::new(INTERVAL, 1).wait(*state, now) > Duration::ZERO);
            if failures.len() >= MAX_PEERS {
                return Err(INTERVAL);
            }
        }
        let mut state = failures.get(&peer).copied().unwrap_or_default();
        let wait = limit.wait(state, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let right = is_right();
        if !right {
            limit.record(&mut state, now);
            failures.insert(peer, state);
        }
        Ok(right)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Id, Stored>> {
        // No code under this lock can panic in the middle of a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Id {
    fn of(cookie: &str) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
        Self(id)
    }
}

impl Stored {
    fn has_ended(&self, now: Duration) -> bool {
        now.saturating_sub(self.used) > IDLE || now.saturating_sub(self.since) > LONGEST
    }
}

/// 256 random bits as text.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(BASE64URL_NOPAD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn sessions() -> (Sessions, crate::clock::ManualClock) {
        let (clock, hand) = Clock::manual(Time::from_secs(1_768_449_600));
        (Sessions::new(clock), hand)
    }

    #[test]
    fn a_session_ends_an_hour_after_its_last_request_or_twelve_after_its_begin() {
        let (sessions, hand) = sessions();
        let (session, cookie) = sessions.begin(Some(Secret::new("the-token"))).unwrap();
        hand.advance(IDLE);
        assert!(sessions.is_open(session.id), "that is no use");
        let found = sessions.find(&cookie).unwrap();
        assert_eq!(found.csrf, session.csrf);
        assert_eq!(found.token.unwrap().expose(), b"the-token");
        hand.advance(IDLE + Duration::from_secs(1));
        assert!(sessions.find(&cookie).is_none());
        let (_, cookie) = sessions.begin(None).unwrap();
        for _ in 0..12 {
            hand.advance(IDLE);
            assert!(sessions.find(&cookie).is_some());
        }
        hand.advance(Duration::from_secs(1));
        assert!(sessions.find(&cookie).is_none());
    }

    #[test]
    fn a_session_that_was_ended_is_not_found_and_no_other_cookie_finds_it() {
        let (sessions, _) = sessions();
        let (session, cookie) = sessions.begin(None).unwrap();
        let (_, other) = sessions.begin(None).unwrap();
        assert_ne!(cookie, other);
        assert!(sessions.find("").is_none() && sessions.find(&session.csrf).is_none());
        sessions.end(session.id);
        assert!(sessions.find(&cookie).is_none());
        assert!(sessions.find(&other).is_some());
    }

    #[test]
    fn the_least_recently_used_session_gives_way() {
        let (sessions, hand) = sessions();
        let (_, first) = sessions.begin(None).unwrap();
        let (_, second) = sessions.begin(None).unwrap();
        hand.advance(Duration::from_secs(1));
        assert!(sessions.find(&first).is_some());
        for _ in 2..=MAX_SESSIONS {
            sessions.begin(None).unwrap();
        }
        assert!(sessions.find(&first).is_some());
        assert!(sessions.find(&second).is_none());
    }

    #[test]
    fn failed_log_ins_of_a_peer_are_limited_and_right_ones_are_not() {
        let (sessions, hand) = sessions();
        let peer = |last| IpAddr::from([192, 0, 2, last]);
        for _ in 0..100 {
            assert_eq!(sessions.attempt(peer(1), || true), Ok(true));
        }
        for _ in 0..BURST {
            assert_eq!(sessions.attempt(peer(1), || false), Ok(false));
        }
        let compared = std::cell::Cell::new(false);
        let refused = sessions.attempt(peer(1), || {
            compared.set(true);
            true
        });
        assert_eq!((refused, compared.get()), (Err(INTERVAL), false));
        assert_eq!(sessions.attempt(peer(2), || true), Ok(true), "another peer");
        hand.advance(INTERVAL);
        assert_eq!(sessions.attempt(peer(1), || true), Ok(true));
    }
}
