//! Settings that all nodes of a fleet need alike: compared by hash, with an alarm where two differ.
//!
//! A group is shared with nodes that have the same accounts in it and call the same carrier: the hash of both is part of
//! each shared key. The aliases of cards decide which card a lookup is about. Nodes with other ones share responses, but
//! look a card up, and purge it, under another number.

use std::collections::HashMap;
use std::sync::Arc;

use ring::hmac;

use super::Fleet;
use crate::alarms::{Condition, Severity};
use crate::config::{Account, Api, Config};
use crate::language::{Text, text};
use crate::store::fleet::LinkError;
use crate::store::fleet::agreement::{Compared, compare};
use crate::store::fleet::flights::SharedKey;

/// The subjects of the settings.
const CARRIER: &str = "carrier";
const ALIASES: &str = "aliases";

/// The hashes of a configuration.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The hash of the accounts and the carrier of each group, by the name of the group.
    pub groups: HashMap<Arc<str>, SharedKey>,
    carrier: SharedKey,
    aliases: SharedKey,
}

impl Fleet {
    /// Applies a configuration.
    pub fn set_agreement(&self, config: &Config) {
        let carrier = self.hash_of_carrier(config);
        let hash = |accounts: &Vec<Arc<Account>>| {
            let mut parts: Vec<String> = accounts.iter().map(|account| describe(account)).collect();
            parts.sort();
            let parts = parts.iter().map(String::as_bytes).chain([&carrier[..]]);
            self.shared_key(&parts.collect::<Vec<_>>())
        };
        let groups = config.groups.iter().map(|(name, accounts)| (Arc::clone(name), hash(accounts)));
        let groups = groups.collect();
        self.agreement.store(Arc::new(Agreement { groups, carrier, aliases: self.hash_of_aliases(config) }));
    }

    /// The hash of the base URL and of the operations' paths.
    fn hash_of_carrier(&self, config: &Config) -> SharedKey {
        let names = config.operations.names();
        let operation = |name: &str| {
            let operation = config.operations.named(name)?;
            Some(format!("{name} {}", operation.path))
        };
        let mut parts: Vec<String> = names.split(", ").filter_map(operation).collect();
        parts.sort();
        parts.push(config.carrier.base_url.to_string());
        self.shared_key(&parts.iter().map(String::as_bytes).collect::<Vec<_>>())
    }

    /// The hash of the aliases of cards. Under the key of the fleet: the table has no hash from which a card can be found.
    fn hash_of_aliases(&self, config: &Config) -> SharedKey {
        let mut lines: Vec<_> =
            config.aliases.iter().map(|(card, canonical)| (card.as_bytes(), canonical.as_bytes())).collect();
        lines.sort_unstable();
        let mut context = hmac::Context::with_key(&self.key);
        for (card, canonical) in lines {
            context.update(card);
            context.update(b" ");
            context.update(canonical);
            context.update(b"\n");
        }
        let mut key = SharedKey::default();
        key.copy_from_slice(&context.sign().as_ref()[..16]); // the tag has 32 bytes
        key
    }

    /// Stores the hashes of this node, compares them with those of the others, and alarms.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(super) async fn compare_configurations(&self, life: i64) -> Result<(), LinkError> {
        let agreement = self.agreement.load();
        let groups: Vec<_> = agreement.groups.iter().map(|(name, hash)| (&**name, *hash)).collect();
        let settings = [(CARRIER, agreement.carrier), (ALIASES, agreement.aliases)];
        let different = compare(&self.link, life, Compared::Settings, &settings).await?;
        let lines: Vec<_> = different.iter().map(|(subject, node)| setting(subject, *node)).collect();
        self.local.alarms.set_if(Condition::FleetSettings, Severity::Warning, Text::join(&lines));
        let calls_other = |node: i16| different.iter().any(|(subject, of)| subject == CARRIER && *of == node);
        let groups = compare(&self.link, life, Compared::Groups, &groups).await?;
        // With another carrier, every group differs: that is named once.
        let lines: Vec<_> = groups
            .iter()
            .filter(|(_, node)| !calls_other(*node))
            .map(|(name, node)| group(name, *node))
            .collect();
        self.local.alarms.set_if(Condition::FleetGroups, Severity::Warning, Text::join(&lines));
        Ok(())
    }
}

fn group(group: &str, node: i16) -> Text {
    text!(
        "node {node} of the fleet has other accounts in group {group}: their responses are not shared; give the accounts of \
         this group the same appids and ebids on both nodes, or the group another name",
        "集群中的节点 {node} 在组 {group} 中的账号不同：该组的响应不共享；请使两个节点上该组账号的 appid 和 ebid 一致，或改用不同的组名"
    )
}

fn setting(subject: &str, node: i16) -> Text {
    match subject {
        CARRIER => text!(
            "node {node} of the fleet calls another carrier: responses are not shared with it; give both nodes the same \
             [carrier] base_url and the same paths in [[operation]]",
            "集群中的节点 {node} 调用另一个运营商地址：与其不共享响应；请使两个节点的 [carrier] base_url 以及 [[operation]] 中的路径一致"
        ),
        _ => text!(
            "node {node} of the fleet has other aliases of cards: a card that only one of the two knows by several numbers \
             costs a call for each, and a purge by one number leaves the other; give both nodes the same [cache] alias_file",
            "集群中的节点 {node} 的卡号别名不同：只有一个节点知道有多个号码的卡，每个号码各需一次调用，按一个号码清除时另一个号码的条目会\
             保留；请使两个节点使用同样的 [cache] alias_file"
        ),
    }
}

/// The part of an account that decides to whom the carrier responds: its appid, and its ebids or its API.
fn describe(account: &Account) -> String {
    let appid = account.appid.as_str();
    match &account.api {
        Api::V2(ebids) => {
            let mut others: Vec<_> =
                ebids.others.iter().map(|(operation, ebid)| (*operation, ebid.as_str())).collect();
            others.sort_unstable();
            format!("{appid} {} {others:?}", ebids.status.as_str())
        }
        Api::V5(_) => format!("{appid} v5"),
    }
}
