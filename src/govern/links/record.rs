//! What is stored of links, and what is told of them. Never a token, never a secret.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::link::{Claims, KeyName, KeyState, LinkAlgorithm, LinkId, LinkPolicy, Note, PolicyName, Usage};
use crate::name::Tenant;

/// A link that was minted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub key: KeyName,
    /// Who minted it, as a principal prints.
    pub who: String,
    /// Why, by whom and when it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Note>,
}

/// A link and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkInfo {
    /// The link.
    pub link: LinkRecord,
    /// Why it opens nothing whatever the time and the place, if so: `revoked`, `epoch`, …
    pub dead: Option<&'static str>,
    /// What was used of it, if its uses are counted.
    pub usage: Option<Usage>,
}

/// A key for links, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// How it signs.
    pub algorithm: LinkAlgorithm,
    /// What it is good for.
    pub state: KeyState,
    /// When it was made, or came here.
    pub created: Timestamp,
    /// Who made it, as a principal prints.
    pub who: String,
    /// The public half of a `v2` key, in text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// The last end of a link that it signed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_expires: Option<Timestamp>,
    /// Why, by whom and when it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Note>,
}

/// A stored policy, and who stored it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// What it says.
    pub policy: LinkPolicy,
    /// Who stored it, as a principal prints.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// What was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Revoked {
    /// One link.
    Link {
        /// Its id.
        id: LinkId,
        /// Until when it must be known.
        until: Timestamp,
    },
    /// Every link of a subject below an epoch.
    Subject {
        /// The subject.
        subject: String,
        /// The least epoch that is good.
        minimum: u64,
    },
    /// Every link of the tenant below an epoch.
    Tenant {
        /// The least epoch that is good.
        minimum: u64,
    },
    /// Every link of a key.
    Key {
        /// The key.
        key: KeyName,
        /// Its algorithm.
        algorithm: LinkAlgorithm,
    },
    /// Every link under a policy.
    Policy {
        /// The policy.
        policy: PolicyName,
    },
}

/// A line of the list of revocations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What was taken back.
    pub what: Revoked,
    /// Why, by whom and when.
    pub note: Note,
}

/// The public half of a `v2` key that a node shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedKey {
    /// Its id.
    pub key: KeyName,
    /// The public half, in text.
    pub public: String,
}

/// What one node tells another of its revocations: those after `after` up to `sequence`, and the
/// public halves of its live `v2` keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationUpdate {
    /// The tenant.
    pub tenant: Tenant,
    /// The list that the numbers count in, a random name. A node whose list cannot go on, because it
    /// was put back, begins another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// What the other is known to have.
    pub after: u64,
    /// What it has with this.
    pub sequence: u64,
    /// Whether there is more than this.
    pub more: bool,
    /// The revocations, first to last.
    pub revocations: Vec<Revocation>,
    /// The live `v2` keys.
    pub keys: Vec<SharedKey>,
}

/// What a node has of another's list, and the public halves of all live `v2` keys that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinksApplied {
    /// The number of the last revocation that it has of the list.
    pub applied: u64,
    /// The keys, wherever they come from.
    pub keys: Vec<SharedKey>,
}
