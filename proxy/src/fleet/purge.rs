//! Purges of a fleet, from the side of one node: an order to all nodes, and the orders of others in their sequence.
//!
//! A card is sealed with the key of the fleet: the database holds no card number in the clear.

use std::time::Duration;

use cmiot_signer::{Card, CardKind};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Fleet;
use crate::clock::timeout;
use crate::store::cache::{PurgeMark, Selection};
use crate::store::fleet::LinkError;
use crate::store::fleet::purge::{NodesBehind, OrderedPurge, PurgeOrder};

/// Time for one statement about purges, which is no statement of a lookup.
const LIMIT: Duration = Duration::from_secs(2);

/// Time for the order of a purge, which may have to remove every shared answer.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// Interval at which a node looks for purges of others without a notification.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for all live nodes to apply a purge.
const WAIT: Duration = Duration::from_secs(10);

/// Interval of the question which nodes have applied a purge.
const POLL: Duration = Duration::from_millis(50);

/// Age at which purges are deleted.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// The purges after a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The first step: everything, since purges that the mark does not cover are no longer known.
    pub everything: bool,
    /// The purges, in their order.
    pub purges: Vec<(Selection, bool)>,
    /// The mark after them.
    pub mark: PurgeMark,
    /// Whether there are further purges.
    pub more: bool,
}

/// A purge that cannot be ordered.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The node is alone.
    #[error("the database of the fleet is away")]
    Alone,
    /// The statement failed; after a time-out the purge may be ordered.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The system has no randomness to seal the card with.
    #[error("the card cannot be encrypted")]
    Seal,
}

impl Fleet {
    /// Orders a purge for all nodes; `soft` marks entries stale. Returns its number.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn order_purge(&self, selection: &Selection, soft: bool) -> Result<i64, OrderError> {
        if self.life().is_none() {
            return Err(OrderError::Alone);
        }
        let sealed = match &selection.card {
            Some(card) => Some(self.seal(card).ok_or(OrderError::Seal)?),
            None => None,
        };
        let card = selection.card.as_ref().map(|card| self.card_key(card));
        let order = PurgeOrder {
            card: card.as_ref(),
            group: selection.group.as_deref(),
            operation: selection.operation.as_deref(),
            status: selection.status.as_deref(),
            soft,
            sealed: sealed.as_deref(),
        };
        Ok(self.link.order_purge(&order, ORDER_LIMIT).await?)
    }

    /// The purges that a cache with this mark has not applied; none if it has applied all.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn pending_purges(&self, mark: Option<&PurgeMark>) -> Result<Option<Pending>, LinkError> {
        let applied = mark.map_or(0, |mark| mark.generation);
        let page = self.link.purges_after(applied, LIMIT).await?;
        let is_other = mark.is_some_and(|mark| mark.fleet != page.fleet);
        // A number that the database does not know yet is of commits that a failover has lost.
        let is_unknown = page.first > applied + 1 || applied > page.last;
        if !is_other && !is_unknown && mark.is_some() && page.purges.is_empty() {
            return Ok(None);
        }
        if is_other || is_unknown {
            let mark = PurgeMark { fleet: page.fleet, generation: page.last };
            return Ok(Some(Pending { everything: true, purges: Vec::new(), mark, more: false }));
        }
        let generation = page.purges.last().map_or(applied, |purge| purge.generation);
        let everything = page.purges.iter().any(|purge| self.selection(purge).is_none());
        Ok(Some(Pending {
            everything,
            purges: page.purges.iter().filter_map(|one| Some((self.selection(one)?, one.soft))).collect(),
            more: generation < page.last,
            mark: PurgeMark { fleet: page.fleet, generation },
        }))
    }

    /// Stores that this node has applied all purges up to this number.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn report_purged(&self, life: i64, generation: i64) -> Result<(), LinkError> {
        self.link.report_purged(life, generation, LIMIT).await
    }

    /// Waits until every live node has applied a purge, at most ten seconds. Returns the nodes that have not.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn wait_for_nodes(&self, generation: i64) -> Result<NodesBehind, LinkError> {
        let mut behind = self.link.nodes_behind(generation, LIMIT).await?;
        let waiting = async {
            while !behind.live.is_empty() {
                tokio::time::sleep(POLL).await;
                behind = self.link.nodes_behind(generation, LIMIT).await?;
            }
            Ok(())
        };
        match timeout(WAIT, waiting).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(behind),
        }
    }

    /// Waits until another purge may have been ordered.
    pub async fn purge_may_follow(&self) {
        let _ = timeout(INTERVAL, self.hints.purged()).await; // at the latest after the interval
    }

    /// Deletes purges that every node should have applied long ago.
    pub async fn sweep_purges(&self) {
        if self.life().is_some()
            && let Err(error) = self.link.sweep_purges(KEPT, LIMIT).await
        {
            tracing::debug!(%error, "old purges of the fleet are not deleted");
        }
    }

    /// The selection of a purge; none if its card cannot be read.
    fn selection(&self, purge: &OrderedPurge) -> Option<Selection> {
        let card = match &purge.sealed {
            Some(sealed) => Some(self.open(sealed)?),
            None => None,
        };
        Some(Selection {
            card,
            group: purge.group.as_deref().map(Into::into),
            operation: purge.operation.as_deref().map(Into::into),
            status: purge.status.clone(),
            answered_before: None,
            answered_after: None,
        })
    }

    /// Encrypts a card for the other nodes: nonce, then ciphertext and tag.
    fn seal(&self, card: &Card) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut text = format!("{}:{}", card.kind().as_str(), card.as_str()).into_bytes();
        let key = self.sealing_key()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).ok()?;
        Some([nonce.as_slice(), &text].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Card> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.sealing_key()?.open_in_place(nonce, Aad::empty(), &mut rest).ok()?;
        let (kind, number) = std::str::from_utf8(text).ok()?.split_once(':')?;
        let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
        Card::parse(kinds.into_iter().find(|one| one.as_str() == kind)?, number).ok()
    }

    /// The key that cards are encrypted with, derived from that of the fleet (RFC 5869).
    fn sealing_key(&self) -> Option<LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"cmiot-proxy fleet purge");
        let key = salt.extract(self.settings.key.expose());
        let key = key.expand(&[b"card"], &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}
