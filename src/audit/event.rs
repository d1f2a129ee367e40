//! One line of the log.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::access::Principal;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::name::{ArtifactPath, BundleName, RepositoryName, Version};
use crate::place::Country;

/// The kinds of event. A kind's text never changes its meaning.
pub mod kind {
    /// A download began: the first byte is about to leave.
    pub const DOWNLOAD_START: &str = "download.start";
    /// A download ended; `complete` tells whether the last byte was delivered.
    pub const DOWNLOAD_END: &str = "download.end";
    /// A download was refused.
    pub const DOWNLOAD_DENIED: &str = "download.denied";
    /// Credentials were presented and do not hold.
    pub const AUTH_FAILED: &str = "auth.failed";
    /// A control request was refused.
    pub const CONTROL_DENIED: &str = "control.denied";
    /// A user token was made.
    pub const TOKEN_CREATED: &str = "token.created";
    /// A user token was revoked.
    pub const TOKEN_REVOKED: &str = "token.revoked";
    /// A key for signed URLs was made.
    pub const LINK_KEY_CREATED: &str = "link.key.created";
    /// A key for signed URLs was retired or revoked.
    pub const LINK_KEY_CHANGED: &str = "link.key.changed";
    /// A signed URL was made.
    pub const LINK_MINTED: &str = "link.minted";
    /// Signed URLs were revoked: one, a subject's, a policy's or a key's.
    pub const LINK_REVOKED: &str = "link.revoked";
    /// A pairing token was made.
    pub const PAIRING_CREATED: &str = "pairing.created";
    /// A pairing token was redeemed.
    pub const PAIRING_REDEEMED: &str = "pairing.redeemed";
    /// A pairing token was presented and refused.
    pub const PAIRING_FAILED: &str = "pairing.failed";
    /// A pairing token was used by two keys: both are void.
    pub const PAIRING_REPLAY: &str = "pairing.replay";
    /// A pairing was confirmed.
    pub const PAIRING_CONFIRMED: &str = "pairing.confirmed";
    /// A pairing token or an unconfirmed pairing ran out.
    pub const PAIRING_EXPIRED: &str = "pairing.expired";
    /// A master token was replaced.
    pub const PAIRING_ROTATED: &str = "pairing.rotated";
    /// A pairing was revoked.
    pub const PAIRING_REVOKED: &str = "pairing.revoked";
    /// A trust document was accepted.
    pub const TRUST_ACCEPTED: &str = "trust.accepted";
    /// A policy came into force.
    pub const POLICY_CHANGED: &str = "policy.changed";
    /// A policy was refused; the old one stays in force.
    pub const POLICY_REJECTED: &str = "policy.rejected";
    /// A bundle was offered and accepted.
    pub const BUNDLE_RECEIVED: &str = "bundle.received";
    /// A bundle became visible.
    pub const BUNDLE_COMMITTED: &str = "bundle.committed";
    /// A bundle was refused.
    pub const BUNDLE_REJECTED: &str = "bundle.rejected";
    /// Other content came under the name of a bundle that is here.
    pub const BUNDLE_CONFLICT: &str = "bundle.conflict";
    /// A bundle was taken off.
    pub const BUNDLE_WITHDRAWN: &str = "bundle.withdrawn";
    /// A stored blob is damaged.
    pub const BLOB_DAMAGED: &str = "blob.damaged";
    /// Blobs that nothing needs were removed.
    pub const GC_RUN: &str = "gc.run";
    /// Stored blobs were read again.
    pub const SCRUB_RUN: &str = "scrub.run";
    /// A setting of the edge was changed.
    pub const CONFIG_CHANGED: &str = "config.changed";
    /// A person's data was erased.
    pub const PERSON_ERASED: &str = "person.erased";
    /// A source: artifacts were added.
    pub const ARTIFACT_ADDED: &str = "artifact.added";
    /// A source: labels or properties of artifacts were changed.
    pub const ARTIFACT_LABELLED: &str = "artifact.labelled";
    /// A source: artifacts were removed.
    pub const ARTIFACT_REMOVED: &str = "artifact.removed";
    /// A source: a draft of a bundle was made or replaced.
    pub const BUNDLE_CREATED: &str = "bundle.created";
    /// A source: a draft was discarded.
    pub const BUNDLE_DISCARDED: &str = "bundle.discarded";
    /// A source: a bundle was signed, or a signature that was made elsewhere was attached.
    pub const BUNDLE_SIGNED: &str = "bundle.signed";
    /// A source: it was said which edges should hold a bundle.
    pub const BUNDLE_DISTRIBUTED: &str = "bundle.distributed";
    /// A source: it was said which edges should hold a bundle no longer.
    pub const BUNDLE_RECALLED: &str = "bundle.recalled";
    /// A source: a change that takes two principals was asked for.
    pub const CHANGE_REQUESTED: &str = "change.requested";
    /// A source: a second principal agreed to a change.
    pub const CHANGE_APPROVED: &str = "change.approved";
    /// A source: a change that was asked for was refused, or given up.
    pub const CHANGE_REJECTED: &str = "change.rejected";
    /// A key of a source was made, changed or revoked.
    pub const KEY_CHANGED: &str = "key.changed";
    /// What a source knows of an edge was changed.
    pub const EDGE_CHANGED: &str = "edge.changed";
    /// A source brought edges to their desired state.
    pub const SYNC_RUN: &str = "sync.run";
    /// A log begins; the object is its name.
    pub const AUDIT_OPENED: &str = "audit.opened";
    /// Old entries were dropped; the object is the first and the last of them.
    pub const AUDIT_RETENTION: &str = "audit.retention";
    /// Events are missing here: the log says so itself.
    pub const AUDIT_GAP: &str = "audit.gap";
}

/// Something that happened. What does not apply is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// One of [`kind`].
    pub kind: Cow<'static, str>,
    /// Who, as a principal prints: `user:alice`, `anonymous`, `link:01J…`.
    pub who: String,
    /// What was presented: the id of a token, a link or a key. Never a secret.
    pub credential: Option<String>,
    /// From where.
    pub client: Option<IpAddr>,
    /// From which country.
    pub country: Option<Country>,
    /// The repository.
    pub repository: Option<RepositoryName>,
    /// The path in it.
    pub path: Option<ArtifactPath>,
    /// What was there.
    pub digest: Option<Digest>,
    /// The bundle.
    pub bundle: Option<BundleName>,
    /// Its version.
    pub version: Option<Version>,
    /// What else it was about: a link's, a token's or a peer's id, a policy's version.
    pub object: Option<String>,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// Bytes delivered to the client.
    pub bytes: Option<u64>,
    /// The first and the last byte of the range that was asked for.
    pub range: Option<(u64, u64)>,
    /// Whether everything that was asked for was delivered.
    pub complete: Option<bool>,
    /// Joins the events of one request.
    pub request: Option<u64>,
}

impl Event {
    /// Something that `who` did.
    pub fn new(at: Timestamp, kind: &'static str, who: &Principal) -> Event {
        Event {
            at,
            kind: Cow::Borrowed(kind),
            who: who.to_string(),
            credential: who.credential().map(str::to_owned),
            client: None,
            country: None,
            repository: None,
            path: None,
            digest: None,
            bundle: None,
            version: None,
            object: None,
            status: None,
            reason: None,
            bytes: None,
            range: None,
            complete: None,
            request: None,
        }
    }

    /// Something that happened by itself.
    pub fn by_itself(at: Timestamp, kind: &'static str) -> Event {
        let mut event = Event::new(at, kind, &Principal::Anonymous);
        "system".clone_into(&mut event.who);
        event
    }

    /// The same event from this place.
    #[must_use]
    pub fn from_place(mut self, client: Option<IpAddr>, country: Option<Country>) -> Event {
        (self.client, self.country) = (client, country);
        self
    }

    /// The same event about an object.
    #[must_use]
    pub fn about(mut self, object: impl Into<String>) -> Event {
        self.object = Some(object.into());
        self
    }

    /// The same event about a bundle.
    #[must_use]
    pub fn about_bundle(mut self, name: &BundleName, version: &Version) -> Event {
        (self.bundle, self.version) = (Some(name.clone()), Some(version.clone()));
        self
    }

    /// The same event with a reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Event {
        self.reason = Some(reason.into());
        self
    }
}
