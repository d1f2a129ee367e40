//! Minting links, and looking them up.

use serde::Deserialize;

use super::record::{KeyRecord, LinkInfo, LinkRecord};
use super::{KEEP, Links};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::record::{decode, encode};
use crate::link::{
    Budget, Cause, Claims, DEFAULT_LIFETIME, KeyName, LinkAlgorithm, LinkId, LinkMethod, LinkResource,
    PolicyName, filled, mint, url_path,
};
use crate::meta::{Batch, prefix_end};
use crate::name::{NodeName, RepositoryName};
use crate::place::{Country, Network};
use crate::secret::Secret;

/// Most links of one page.
const PAGE: usize = 1_000;

/// What a link is to be. What is left out is not limited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MintOrder {
    /// Artifacts and folders, as `repository/path` and `repository/folder/`.
    pub resources: Vec<String>,
    /// The repository of one more resource.
    pub repository: Option<RepositoryName>,
    /// The path of that one; the whole repository, if left out.
    pub path: Option<String>,
    /// How long it lives, in seconds; 24 hours if left out, at most 365 days.
    pub expires_in: Option<i64>,
    /// When it dies, instead of how long it lives.
    pub expires: Option<Timestamp>,
    /// When it begins.
    pub not_before: Option<Timestamp>,
    /// The methods; both if left out.
    #[serde(alias = "m", deserialize_with = "filled")]
    pub methods: Vec<LinkMethod>,
    /// Edges and groups; this edge if the downloads are counted, else every one that has the key.
    #[serde(alias = "aud", deserialize_with = "filled")]
    pub audience: Vec<NodeName>,
    /// Where clients may come from.
    #[serde(alias = "ip", deserialize_with = "filled")]
    pub networks: Vec<Network>,
    /// Which countries they may come from.
    #[serde(alias = "cc", deserialize_with = "filled")]
    pub countries: Vec<Country>,
    /// How many downloads.
    #[serde(alias = "n")]
    pub uses: Option<u32>,
    /// The rate of a download, in bytes a second.
    pub bps: Option<u64>,
    /// For whom it is.
    #[serde(alias = "sub")]
    pub subject: Option<String>,
    /// The bytes alone that it opens.
    pub digest: Option<Digest>,
    /// A stored policy.
    #[serde(alias = "pol")]
    pub policy: Option<PolicyName>,
    /// The key; the newest that mints, if left out.
    #[serde(alias = "kid")]
    pub key: Option<KeyName>,
    /// The algorithm; that of the newest key, if left out.
    pub algorithm: Option<LinkAlgorithm>,
}

impl MintOrder {
    /// Everything that the link is to open.
    ///
    /// # Errors
    /// `Invalid` for what is neither an artifact's path nor a folder's, and for a path without its
    /// repository.
    pub fn opens(&self) -> Result<Vec<LinkResource>> {
        let one = match (&self.repository, &self.path) {
            (Some(repository), path) => Some(format!("{repository}/{}", path.as_deref().unwrap_or_default())),
            (None, Some(_)) => return Err(Error::invalid("a path needs its repository")),
            (None, None) => None,
        };
        one.iter().chain(&self.resources).map(|resource| LinkResource::parse(resource)).collect()
    }
}

/// A link that was minted. The token is nowhere else.
#[derive(Clone, Debug)]
pub struct Minted {
    /// What was stored of it.
    pub record: LinkRecord,
    /// The token.
    pub token: Secret,
    /// Path and query of its first resource with the token.
    pub path: Secret,
}

impl Links {
    /// Mints a link for `who`, a principal as it prints.
    ///
    /// # Errors
    /// `Invalid` for claims that do not go together, `NotFound` for a key or policy that is not
    /// here, `Conflict` for one that was revoked.
    pub async fn mint(&self, order: &MintOrder, who: &str, now: Timestamp) -> Result<Minted> {
        let _changing = self.0.changing.lock().await;
        let snapshot = self.snapshot();
        let key = snapshot.keys.minting(order.key.as_ref(), order.algorithm)?;
        let mut resources = order.opens()?;
        if resources.is_empty() {
            return Err(Error::invalid("a link opens at least one artifact or folder"));
        }
        let expires = match (order.expires, order.expires_in) {
            (Some(_), Some(_)) => return Err(Error::invalid("a link has one of expires and expires_in")),
            (Some(expires), None) => expires,
            (None, seconds) => now.plus(seconds.unwrap_or(DEFAULT_LIFETIME)),
        };
        if let Some(policy) = &order.policy
            && snapshot.policies.policy(policy).is_none()
        {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no link policy named {policy}")));
        }
        let id = LinkId::generate(now)?;
        let mut claims = Claims::new(id, self.0.tenant.clone(), resources.remove(0), now, expires);
        claims.resources.append(&mut resources);
        claims.not_before = order.not_before;
        if !order.methods.is_empty() {
            claims.methods.clone_from(&order.methods);
        }
        claims.audience.clone_from(&order.audience);
        if order.uses.is_some() && claims.audience.is_empty() {
            claims.audience.push(self.0.options.edge.clone());
        }
        claims.networks.clone_from(&order.networks);
        claims.countries.clone_from(&order.countries);
        (claims.uses, claims.bps, claims.digest) = (order.uses, order.bps, order.digest);
        (claims.subject, claims.policy) = (order.subject.clone(), order.policy.clone());
        // A link of an epoch that is over would be dead at once.
        claims.epoch = Some(snapshot.revocations.epoch(order.subject.as_deref())).filter(|epoch| *epoch > 0);
        let token = mint(key, &claims, now)?;
        let path = url_path(&claims.resources[0], &token);
        let record = LinkRecord { claims, key: key.name().clone(), who: who.to_owned(), revoked: None };
        self.keep(&record).await?;
        Ok(Minted { record, token, path })
    }

    /// Stores a link, and that its key is needed until its end.
    async fn keep(&self, record: &LinkRecord) -> Result<()> {
        let (keys, minted) = (&self.0.keys, &self.0.minted);
        let key = keys.read::<KeyRecord>(record.key.as_str()).await?;
        let Some((mut key, entry)) = key else { return Err(super::key::unknown(&record.key)) };
        let mut batch = Batch::new();
        batch.expect_unchanged(keys.key(record.key.as_str()), Some(&entry));
        if key.last_expires.is_none_or(|last| last < record.claims.expires) {
            key.last_expires = Some(record.claims.expires);
            batch.put(keys.key(record.key.as_str()), encode(&key)?);
        }
        let id = record.claims.id.to_string();
        batch.expect_unchanged(minted.key(&id), None);
        batch.put(minted.key(&id), encode(record)?);
        minted.store().commit(batch).await.map(drop)
    }

    /// A link that was minted here.
    pub async fn link(&self, id: LinkId) -> Result<Option<LinkInfo>> {
        match self.0.minted.read::<LinkRecord>(&id.to_string()).await? {
            Some((record, _)) => self.info(record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Links that were minted here, in the order of their ids, at most `limit` (1,000) after `after`.
    pub async fn list(&self, after: Option<LinkId>, limit: usize) -> Result<Vec<LinkInfo>> {
        let minted = &self.0.minted;
        let first = match after {
            // The least key above that of `after`.
            Some(after) => [minted.key(&after.to_string()), vec![0]].concat(),
            None => minted.key(""),
        };
        let end = prefix_end(&minted.key(""));
        let entries = minted.store().scan(&first[..]..&end[..], limit.clamp(1, PAGE)).await?;
        let mut links = Vec::with_capacity(entries.len());
        for entry in entries {
            links.push(self.info(decode(&entry)?).await?);
        }
        Ok(links)
    }

    async fn info(&self, link: LinkRecord) -> Result<LinkInfo> {
        let snapshot = self.snapshot();
        let (claims, revocations) = (&link.claims, &snapshot.revocations);
        let subject = claims.subject.as_deref();
        let gone = |policy: &PolicyName| snapshot.policies.policy(policy).is_none();
        let dead = if revocations.key(&link.key).is_some() {
            Some(Cause::RevokedKey)
        } else if link.revoked.is_some() || revocations.contains(claims.id) {
            Some(Cause::Revoked)
        } else if claims.epoch.unwrap_or(0) < revocations.epoch(subject) {
            Some(Cause::Epoch)
        } else {
            claims.policy.as_ref().filter(|policy| gone(policy)).map(|_| Cause::PolicyGone)
        };
        let usage = match claims.uses {
            Some(_) => Some(self.budget(claims.id).await?.usage()),
            None => None,
        };
        Ok(LinkInfo { dead: dead.map(Cause::as_str), usage, link })
    }

    async fn budget(&self, id: LinkId) -> Result<Budget> {
        self.settle().await?;
        if let Some(running) = self.stripe(id).lock().await.get(&id) {
            return Ok(running.clone());
        }
        let stored = self.0.budgets.read::<Budget>(&id.to_string()).await?;
        Ok(stored.map_or_else(Budget::new, |(budget, _)| budget))
    }

    /// Forgets links whose end is long past, their budgets, and keys that nobody needs.
    pub(super) async fn forget_links(&self, now: Timestamp) -> Result<()> {
        let over = now.plus(-KEEP);
        let mut after = None;
        loop {
            let page = self.page(after, now).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let mut batch = Batch::new();
            for (id, expires) in page {
                let id = id.to_string();
                if expires < over {
                    batch.delete(self.0.minted.key(&id));
                    batch.delete(self.0.budgets.key(&id));
                }
            }
            if !batch.changes.is_empty() {
                self.0.minted.store().commit(batch).await?;
            }
        }
        Ok(())
    }

    async fn page(&self, after: Option<LinkId>, now: Timestamp) -> Result<Vec<(LinkId, Timestamp)>> {
        let minted = &self.0.minted;
        let first =
            after.map_or_else(|| minted.key(""), |after| [minted.key(&after.to_string()), vec![0]].concat());
        // Ids begin with the time of minting: later ones cannot have ended long ago.
        let last = LinkId::from_number((u128::from(now.as_unix().unsigned_abs()) * 1000) << 80);
        let end = minted.key(&last.to_string());
        if first >= end {
            return Ok(Vec::new());
        }
        let entries = minted.store().scan(&first[..]..&end[..], PAGE).await?;
        let read =
            |entry| decode::<LinkRecord>(entry).map(|record| (record.claims.id, record.claims.expires));
        entries.iter().map(read).collect()
    }
}
