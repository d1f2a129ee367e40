//! Signed URLs that are minted here and honoured at the edges.
//!
//! The source keeps the pairs of `v2` keys; edges get the public halves, verify, and cannot mint.
//! What was taken back is pushed to every edge at once, and again by each
//! [`converge`](Source::converge): the edge is asked what it has of this source's list, and is sent
//! the rest. Nothing is remembered here of what an edge can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::actor::{at, told};
use super::converge::Dial;
use super::edges::EdgeRecord;
use super::pairing::accepted;
use super::{Actor, Source, Vault};
use crate::access::{Action, Principal, Resource};
use crate::audit::kind;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::{
    KeyRecord, LinkInfo, LinkOptions, LinkVault, Links, LinksApplied, MintOrder, Minted, RevocationUpdate,
};
use crate::link::{KeyName, KeyState, LinkAlgorithm, LinkId, LinkResource, Note, PolicyName};
use crate::name::NodeName;
use crate::secret::Secret;
use crate::transport::{Call, Transport, Verb};

const REVOCATIONS: &str = "/api/v1/link-revocations";
/// Edges that are told at the same time. One that does not answer keeps no other waiting.
const PARALLEL: usize = 256;
/// How often an edge is asked anew what it has, when others tell it something meanwhile.
const TURNS: usize = 8;
/// Longest reason, in bytes.
const REASON: usize = 200;

/// What is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkTarget {
    /// One link, whether or not it was minted here.
    Link(LinkId),
    /// Every link that was minted for a subject so far.
    Subject(String),
    /// Every link of the tenant that was minted so far.
    Everything,
    /// Every link under a stored policy of the edges, for good.
    Policy(PolicyName),
    /// Every link of a key, for good.
    Key(KeyName),
}

impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkTarget::Link(id) => id.fmt(f),
            LinkTarget::Subject(subject) => write!(f, "subject:{subject}"),
            LinkTarget::Everything => f.write_str("everything"),
            LinkTarget::Policy(policy) => write!(f, "policy:{policy}"),
            LinkTarget::Key(key) => write!(f, "key:{key}"),
        }
    }
}

/// A link that was minted at the source, and where it can be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignedUrl {
    /// The link.
    pub minted: Minted,
    /// Its URL at each edge that it is for.
    pub urls: Vec<(NodeName, Secret)>,
    /// The key that was made for it, if there was none. Edges have to be told of it.
    pub made: Option<KeyName>,
}

/// How it went to bring an edge what it has not of the keys and revocations.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinkPush {
    /// The edge.
    pub edge: NodeName,
    /// Why it did not get everything, if it did not; the next push goes on.
    pub error: Option<Error>,
    /// The number of the last revocation that the edge has.
    pub applied: u64,
    /// How many revocations were sent.
    pub sent: u64,
    /// Live keys that the edge does not take: another one has the name, it was revoked there, or
    /// there is no room.
    pub refused: Vec<KeyName>,
}

/// What came of a revocation.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinksRevoked {
    /// The epoch from which on links are good, where an epoch was raised.
    pub epoch: Option<u64>,
    /// The number of the last revocation.
    pub sequence: u64,
    /// How it went at each edge.
    pub edges: Vec<LinkPush>,
}

/// The secrets of link keys in the source's vault.
#[derive(Debug)]
struct LinkSecrets(Arc<dyn Vault>);

impl LinkVault for LinkSecrets {
    fn secret(&self, key: &KeyName) -> Result<Option<Secret>> {
        self.0.get(&secret_name(key))
    }

    fn put(&self, key: &KeyName, secret: &Secret) -> Result<()> {
        self.0.put(&secret_name(key), secret)
    }

    fn remove(&self, key: &KeyName) -> Result<bool> {
        self.0.remove(&secret_name(key))
    }
}

/// A vault's names have no `_`, and a key's id has no dot.
fn secret_name(key: &KeyName) -> String {
    format!("link-{}.key", key.as_str().replace('_', "."))
}

impl Source {
    /// The signed URLs of this source: its keys, the links that it minted, what it took back.
    /// Changes that edges have to know of take effect there with
    /// [`push_links`](Source::push_links).
    pub async fn links(&self) -> Result<Links> {
        let mut known = self.links.lock().await;
        if let Some(links) = &*known {
            return Ok(links.clone());
        }
        let vault = Arc::new(LinkSecrets(self.vault.clone()));
        let options = LinkOptions::new(self.node_name()?);
        let links = Links::open(self.meta().clone(), &self.profile.tenant, vault, options).await?;
        Ok(known.insert(links).clone())
    }

    /// Makes a `v2` key; `None` for a name of its own. The newest one mints.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is or was a key of that name, or if as many are live as may be.
    pub async fn create_link_key(
        &self,
        name: Option<KeyName>,
        by: &Principal,
    ) -> Result<(KeyName, KeyRecord)> {
        let links = self.links().await?;
        links.create_key(name, LinkAlgorithm::Ed25519, &by.to_string(), self.clock.now()).await
    }

    /// Mints a link for the edges of its audience, or for all. Without a `v2` key one is made.
    ///
    /// # Errors
    /// As [`Links::mint`]; [`ErrorKind::NotFound`] for an edge that is not known here, and
    /// [`ErrorKind::Invalid`] for counted downloads at more than one edge.
    pub async fn mint_link(&self, order: &MintOrder, by: &Principal) -> Result<SignedUrl> {
        let mut edges = self.edges().await?;
        if let Some(name) = order.audience.iter().find(|name| edges.iter().all(|edge| edge.name != **name)) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no edge called {name}")));
        }
        if order.uses.is_some() && order.audience.len() != 1 {
            return Err(Error::invalid("downloads are counted by one edge: name it"));
        }
        let (links, mut order) = (self.links().await?, order.clone());
        let mut made = None;
        if order.key.is_none() {
            let algorithm = *order.algorithm.get_or_insert(LinkAlgorithm::Ed25519);
            let mints =
                |record: &KeyRecord| record.state == KeyState::Active && record.algorithm == algorithm;
            if algorithm == LinkAlgorithm::Ed25519
                && !links.keys().await?.iter().any(|(_, record)| mints(record))
            {
                made = Some(self.create_link_key(None, by).await?.0);
            }
        }
        let minted = links.mint(&order, &by.to_string(), self.clock.now()).await?;
        if !order.audience.is_empty() {
            edges.retain(|edge| order.audience.contains(&edge.name));
        }
        let path = minted.path.expose_str().unwrap_or_default();
        let url = |edge: EdgeRecord| {
            let url = Secret::new(format!("{}{path}", edge.url.trim_end_matches('/')));
            (edge.name, url)
        };
        let urls = edges.into_iter().map(url).collect();
        Ok(SignedUrl { minted, urls, made })
    }

    /// Takes back, and tells every edge at once.
    ///
    /// # Errors
    /// What [`Links`] says: then nothing was taken back. An edge that was not reached is told of in
    /// the answer, and by the next push.
    pub async fn revoke_links(
        &self,
        what: &LinkTarget,
        reason: &str,
        by: &Principal,
        dial: &dyn Dial,
    ) -> Result<LinksRevoked> {
        check_reason(reason)?;
        let links = self.links().await?;
        let note = Note { reason: reason.to_owned(), who: by.to_string(), at: self.clock.now() };
        let epoch = match what {
            LinkTarget::Link(id) => links.revoke_link(*id, note).await.map(|()| None)?,
            LinkTarget::Subject(subject) => Some(links.revoke_subject(subject, note).await?),
            LinkTarget::Everything => Some(links.revoke_everything(note).await?),
            LinkTarget::Policy(policy) => links.revoke_policy(policy, note).await.map(|()| None)?,
            LinkTarget::Key(key) => links.revoke_key(key, note).await.map(|()| None)?,
        };
        let sequence = links.sequence();
        Ok(LinksRevoked { epoch, sequence, edges: self.push_links(dial, None).await? })
    }

    /// Brings edges (`None`: all) the public keys and revocations that they do not have, all of them
    /// at the same time. How it went is told of each, in the order of their names.
    ///
    /// # Errors
    /// Only what concerns all edges.
    pub async fn push_links(
        &self,
        dial: &dyn Dial,
        edges: Option<&BTreeSet<NodeName>>,
    ) -> Result<Vec<LinkPush>> {
        let edges = self.chosen(edges).await?;
        let links = self.links().await?;
        Ok(self.push_all(&edges, dial, &links).await)
    }

    /// Has every edge told everything once more by the next push, whatever it says it has. To be done
    /// after the records of this source were put back to an earlier state.
    pub async fn begin_link_list(&self) -> Result<()> {
        let links = self.links().await?;
        let old = links.list_name().await?;
        links.rename_list(&old).await.map(drop)
    }

    async fn push_all(&self, edges: &[EdgeRecord], dial: &dyn Dial, links: &Links) -> Vec<LinkPush> {
        let pushes = stream::iter(edges).map(|edge| self.push_to(edge, dial, links));
        let mut pushes: Vec<LinkPush> = pushes.buffer_unordered(PARALLEL).collect().await;
        pushes.sort_by(|one, other| one.edge.cmp(&other.edge));
        pushes
    }

    async fn push_to(&self, edge: &EdgeRecord, dial: &dyn Dial, links: &Links) -> LinkPush {
        let mut push =
            LinkPush { edge: edge.name.clone(), error: None, applied: 0, sent: 0, refused: Vec::new() };
        let brought = async {
            let transport = dial.dial(edge, self.credentials(&edge.name).await?)?;
            bring(links, &*transport, &mut push).await
        };
        if let Err(error) = brought.await {
            tracing::warn!(edge = %edge.name, %error, "what was taken back did not get there");
            push.error = Some(error);
        }
        push
    }

    /// Tells edges what they do not have, as a part of bringing them up to date; which were not told,
    /// and why. A source without keys and revocations calls nobody, and edges without signed URLs
    /// miss nothing.
    pub(super) async fn tell_links(
        &self,
        edges: &[EdgeRecord],
        dial: &dyn Dial,
    ) -> Result<BTreeMap<NodeName, Error>> {
        let links = self.links().await?;
        links.upkeep(self.clock.now()).await?;
        if links.sequence() == 0 && links.shared_keys().is_empty() {
            return Ok(BTreeMap::new());
        }
        let pushes = self.push_all(edges, dial, &links).await;
        let failed = pushes.into_iter().filter_map(|push| {
            let error = push.error.or_else(|| (!push.refused.is_empty()).then(|| refused(&push.refused)))?;
            (error.kind() != ErrorKind::NotFound).then_some((push.edge, error))
        });
        Ok(failed.collect())
    }
}

/// Brings what the edge behind `transport` does not have.
async fn bring(links: &Links, transport: &dyn Transport, push: &mut LinkPush) -> Result<()> {
    let mut list = links.list_name().await?;
    let mut known = ask(transport, &list).await?;
    let (mut told, mut turns) = (false, 0);
    loop {
        if known.applied > links.sequence() {
            // It knows more of this list than there is: the records here are from before that.
            tracing::warn!(edge = %push.edge, "the list of revocations was put back and begins anew");
            list = links.rename_list(&list).await?;
            known = again(transport, &list, &mut turns).await?;
            continue;
        }
        push.applied = known.applied;
        let update = links.update(known.applied).await?;
        if update.list.as_ref() != Some(&list) {
            list = links.list_name().await?;
            known = again(transport, &list, &mut turns).await?;
            continue;
        }
        let missing = update.keys.iter().filter(|shared| !known.keys.contains(shared));
        push.refused = missing.map(|shared| shared.key.clone()).collect();
        if update.sequence == known.applied && (told || push.refused.is_empty()) {
            return Ok(());
        }
        known = match tell(transport, &update).await {
            Ok(known) if known.applied >= update.sequence => known,
            Ok(_) => return Err(Error::new(ErrorKind::Mismatch, "the edge did not take the revocations in")),
            // Somebody else told it something of this list, or it was set up anew.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                known = again(transport, &list, &mut turns).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        push.sent += update.revocations.len() as u64;
        told = true;
    }
}

/// What the edge has of `list`.
async fn ask(transport: &dyn Transport, list: &str) -> Result<LinksApplied> {
    answered(transport, Call::new(Verb::Get, format!("{REVOCATIONS}/applied?list={list}"))).await
}

async fn again(transport: &dyn Transport, list: &str, turns: &mut usize) -> Result<LinksApplied> {
    *turns += 1;
    if *turns > TURNS {
        let message = "the edge keeps changing what it has of the revocations; try again";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    ask(transport, list).await
}

async fn tell(transport: &dyn Transport, update: &RevocationUpdate) -> Result<LinksApplied> {
    let body = serde_json::to_vec(update).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("an update of revocations cannot be written: {cause}"))
    })?;
    answered(transport, Call::new(Verb::Post, REVOCATIONS).with_bytes(body)).await
}

async fn answered(transport: &dyn Transport, call: Call) -> Result<LinksApplied> {
    let answer = transport.call(call).await?;
    if answer.status == 404 {
        return Err(Error::new(ErrorKind::NotFound, "the edge honours no signed URLs"));
    }
    accepted(&answer)?;
    serde_json::from_slice(&answer.body).map_err(|_| {
        Error::new(ErrorKind::Unsupported, "what the edge says of its revocations cannot be read")
    })
}

/// Signed URLs in the hands of one principal.
impl Actor<'_> {
    /// As [`Source::create_link_key`]; needs `administer`.
    pub async fn create_link_key(&self, name: Option<KeyName>) -> Result<(KeyName, KeyRecord)> {
        let about = name.as_ref().map_or_else(|| "a new name".to_owned(), ToString::to_string);
        let event = self.event(kind::LINK_KEY_CREATED).about(about);
        self.administered(event, self.source().create_link_key(name, self.principal())).await
    }

    /// As [`Links::retire_key`]; needs `administer`.
    pub async fn retire_link_key(&self, name: &KeyName, reason: &str) -> Result<KeyRecord> {
        check_reason(reason)?;
        let event =
            told(self.event(kind::LINK_KEY_CHANGED).about(name.as_str()), &format!("retire: {reason}"));
        let act = async { self.source().links().await?.retire_key(name).await };
        self.administered(event, act).await
    }

    /// As [`Source::mint_link`]; needs `mint` and `read` on everything that the link opens, so that
    /// nobody gives away what they do not have.
    pub async fn mint_link(&self, order: &MintOrder) -> Result<SignedUrl> {
        let resources = order.opens()?;
        if resources.is_empty() {
            self.permit(Action::Mint, Resource::Edge)?;
        }
        for resource in &resources {
            self.may_mint(resource)?;
        }
        let signed = self.source().mint_link(order, self.principal()).await?;
        let claims = &signed.minted.record.claims;
        let mut event = self.event(kind::LINK_MINTED).about(claims.id.to_string());
        event.repository = Some(claims.resources[0].repository().clone());
        event.path = claims.resources[0].path().cloned();
        let key = signed.made.as_ref().map(|key| self.event(kind::LINK_KEY_CREATED).about(key.as_str()));
        let minted = told(event, &format!("until {}", claims.expires));
        for event in key.into_iter().chain([minted]) {
            if let Err(error) = self.audit().record_durable(event).await {
                // Nobody has seen the token, and nobody is to use it.
                let note = Note {
                    reason: "its making could not be recorded".into(),
                    who: "system".into(),
                    at: claims.issued,
                };
                self.source().links().await?.revoke_link(claims.id, note).await?;
                return Err(error.context("it cannot be recorded and is not done"));
            }
        }
        Ok(signed)
    }

    /// The links that this principal minted, or all of them for who may mint everywhere; as
    /// [`Links::list`].
    pub async fn list_links(&self, after: Option<LinkId>, limit: usize) -> Result<Vec<LinkInfo>> {
        let mut links = self.source().links().await?.list(after, limit).await?;
        let who = self.principal().to_string();
        if links.iter().any(|info| info.link.who != who) && self.permit(Action::Mint, Resource::Edge).is_err()
        {
            links.retain(|info| info.link.who == who);
        }
        Ok(links)
    }

    /// As [`Source::revoke_links`]. One's own link needs no right, another's and a subject's need
    /// `mint`, everything else `administer`.
    pub async fn revoke_links(
        &self,
        what: &LinkTarget,
        reason: &str,
        dial: &dyn Dial,
    ) -> Result<LinksRevoked> {
        check_reason(reason)?;
        match what {
            LinkTarget::Link(id) => {
                let found = self.source().links().await?.link(*id).await?;
                if found.is_none_or(|info| info.link.who != self.principal().to_string()) {
                    self.permit(Action::Mint, Resource::Edge)?;
                }
            }
            LinkTarget::Subject(_) => self.permit(Action::Mint, Resource::Edge)?,
            _ => self.permit(Action::Administer, Resource::Edge)?,
        }
        let event = told(self.event(kind::LINK_REVOKED).about(what.to_string()), reason);
        self.recorded(event, self.source().revoke_links(what, reason, self.principal(), dial)).await
    }

    /// As [`Source::push_links`]. It carries out what others were permitted to decide, so it needs no
    /// right of its own.
    pub async fn push_links(
        &self,
        dial: &dyn Dial,
        edges: Option<&BTreeSet<NodeName>>,
    ) -> Result<Vec<LinkPush>> {
        let event = told(self.event(kind::SYNC_RUN), "the keys and revocations of signed URLs");
        self.recorded(event, self.source().push_links(dial, edges)).await
    }

    /// As [`Source::begin_link_list`]; needs `administer`.
    pub async fn begin_link_list(&self) -> Result<()> {
        let event =
            told(self.event(kind::CONFIG_CHANGED), "edges are told all revocations of links once more");
        self.administered(event, self.source().begin_link_list()).await
    }

    fn may_mint(&self, resource: &LinkResource) -> Result<()> {
        let name = resource.repository();
        let judge = |resource: Resource<'_>| {
            self.permit(Action::Mint, resource).and_then(|()| self.permit(Action::Read, resource))
        };
        judge(Resource::Repository { name, path: resource.path(), public: false })?;
        if matches!(resource, LinkResource::Prefix { .. }) {
            // A right to some names in a folder is not one to everything below it: names that nobody
            // can have thought of stand for the rest.
            let random = crate::digest::to_hex(Secret::random(12)?.expose());
            let folder = resource.path().map(|folder| format!("{folder}/")).unwrap_or_default();
            for below in [format!("{folder}{random}"), format!("{folder}{random}/{random}/{random}.x")] {
                judge(at(name, &below.parse()?))?;
            }
        }
        Ok(())
    }
}

fn check_reason(reason: &str) -> Result<()> {
    let sensible = reason.trim() == reason && (1..=REASON).contains(&reason.len());
    if sensible && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::invalid(format!("a reason has 1 to {REASON} bytes on one line")))
}

#[cold]
fn refused(keys: &[KeyName]) -> Error {
    let keys: Vec<&str> = keys.iter().map(KeyName::as_str).collect();
    let message = format!("the edge does not take the link key {}", keys.join(", "));
    Error::new(ErrorKind::Conflict, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryVault;

    #[test]
    fn two_keys_have_two_secrets() {
        let secrets = LinkSecrets(Arc::new(MemoryVault::new()));
        let key = |text: &str| KeyName::new(text).unwrap();
        for name in ["a_b", "a-b", "ab", "9_"] {
            secrets.put(&key(name), &Secret::new(name)).unwrap();
        }
        for name in ["a_b", "a-b", "ab", "9_"] {
            assert_eq!(secrets.secret(&key(name)).unwrap().unwrap().expose(), name.as_bytes());
        }
        assert!(secrets.remove(&key("a_b")).unwrap() && secrets.secret(&key("a_b")).unwrap().is_none());
        assert!(secrets.secret(&key("a-b")).unwrap().is_some());
    }
}
