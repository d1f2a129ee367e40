//! Taking back: links, subjects, everything of a tenant, keys, policies; and telling others of it.

use tracing::warn;

use super::record::{KeyRecord, LinkRecord, PolicyRecord, Revocation, RevocationUpdate, Revoked, SharedKey};
use super::{Links, Snapshot};
use crate::clock::Timestamp;
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::record::{decode, encode};
use crate::key::PublicKey;
use crate::link::{
    KeyName, KeyState, LinkId, LinkKey, LinkPolicy, MAX_GRACE, MAX_LIFETIME, Note, PolicyName, SKEW,
};
use crate::meta::{Batch, prefix_end};
use crate::secret::Secret;

/// Most revocations of one update.
const UPDATE: usize = 10_000;
/// Most revocations of one batch.
const BATCH: usize = 1_000;
/// Longest reason, in bytes.
const REASON: usize = 1_024;

impl Links {
    /// Takes back one link, whether or not it was minted here.
    pub async fn revoke_link(&self, id: LinkId, note: Note) -> Result<()> {
        let minted = self.0.minted.read::<LinkRecord>(&id.to_string()).await?;
        // Of a link from elsewhere it is known that it does not live longer than links do.
        let longest = || note.at.plus(MAX_LIFETIME);
        let expires = minted.map_or_else(longest, |(record, _)| record.claims.expires);
        let until = expires.plus(MAX_GRACE + SKEW);
        self.revoke(vec![Revocation { what: Revoked::Link { id, until }, note }]).await.map(drop)
    }

    /// Takes back every link that was minted for a subject so far. Says from which epoch on links
    /// are good.
    pub async fn revoke_subject(&self, subject: &str, note: Note) -> Result<u64> {
        let length = subject.chars().count();
        if !(1..=128).contains(&length) || subject.chars().any(char::is_control) {
            return Err(Error::invalid(
                "a subject has 1 to 128 characters, none of them a control character",
            ));
        }
        let minimum = self.snapshot().revocations.next_epoch(subject);
        let what = Revoked::Subject { subject: subject.to_owned(), minimum };
        self.revoke(vec![Revocation { what, note }]).await?;
        Ok(minimum)
    }

    /// Takes back every link of the tenant that was minted so far. Says from which epoch on links
    /// are good.
    pub async fn revoke_everything(&self, note: Note) -> Result<u64> {
        let minimum = self.snapshot().revocations.next_tenant_epoch();
        self.revoke(vec![Revocation { what: Revoked::Tenant { minimum }, note }]).await?;
        Ok(minimum)
    }

    /// Takes back a stored policy for good, with every link under it.
    pub async fn revoke_policy(&self, policy: &PolicyName, note: Note) -> Result<()> {
        let what = Revoked::Policy { policy: policy.clone() };
        self.revoke(vec![Revocation { what, note }]).await.map(drop)
    }

    /// Stores a policy. Links under it are limited by it at once, also those that are out.
    ///
    /// # Errors
    /// `Conflict` if the policy was revoked.
    pub async fn set_policy(
        &self,
        name: &PolicyName,
        policy: LinkPolicy,
        who: &str,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        policy.check()?;
        let _changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        if snapshot.revocations.policy(name).is_some() {
            let message = format!("the link policy {name} was revoked, and its links stay dead");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let record = PolicyRecord { policy: policy.clone(), who: who.to_owned(), at: now };
        self.0.policies.write(name.as_str(), &record).await?;
        snapshot.policies.set(name.clone(), policy);
        self.publish(snapshot);
        Ok(record)
    }

    /// Takes a policy away: its links are dead as long as it is. `true` if it was there.
    pub async fn remove_policy(&self, name: &PolicyName) -> Result<bool> {
        let _changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        if !snapshot.policies.remove(name) {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.delete(self.0.policies.key(name.as_str()));
        self.0.policies.store().commit(batch).await?;
        self.publish(snapshot);
        Ok(true)
    }

    /// A stored policy.
    pub async fn policy(&self, name: &PolicyName) -> Result<Option<PolicyRecord>> {
        Ok(self.0.policies.read(name.as_str()).await?.map(|(record, _)| record))
    }

    /// All stored policies, by name.
    pub async fn policies(&self) -> Result<Vec<(String, PolicyRecord)>> {
        self.0.policies.all().await
    }

    /// The number of the last revocation. It rises with each.
    pub fn sequence(&self) -> u64 {
        self.snapshot().sequence
    }

    /// Takes back; what is known already is passed over. Says how many were not.
    pub async fn revoke(&self, revocations: Vec<Revocation>) -> Result<usize> {
        if let Some(long) = revocations.iter().find(|one| one.note.reason.len() > REASON) {
            let length = long.note.reason.len();
            return Err(Error::invalid(format!("a reason has {length} bytes, at most {REASON} are allowed")));
        }
        let _changing = self.0.changing.lock().await;
        let mut taken = 0;
        for some in revocations.chunks(BATCH) {
            taken += self.revoke_some(some).await?;
        }
        Ok(taken)
    }

    async fn revoke_some(&self, revocations: &[Revocation]) -> Result<usize> {
        let mut snapshot = (*self.snapshot()).clone();
        let (mut batch, mut taken, mut secrets) = (Batch::new(), 0, Vec::new());
        for one in revocations {
            if is_known(&snapshot, &one.what) {
                continue;
            }
            taken += 1;
            snapshot.sequence += 1;
            batch.put(self.0.revoked.key(&number(snapshot.sequence)), encode(one)?);
            match &one.what {
                Revoked::Link { id, .. } => {
                    let id = id.to_string();
                    if let Some((mut record, _)) = self.0.minted.read::<LinkRecord>(&id).await? {
                        record.revoked = Some(one.note.clone());
                        batch.put(self.0.minted.key(&id), encode(&record)?);
                    }
                }
                Revoked::Key { key, algorithm } => {
                    let known = self.0.keys.read::<KeyRecord>(key.as_str()).await?;
                    let mut record = known.map(|(record, _)| record).unwrap_or(KeyRecord {
                        algorithm: *algorithm,
                        state: KeyState::Revoked,
                        created: one.note.at,
                        who: one.note.who.clone(),
                        public: None,
                        last_expires: None,
                        revoked: None,
                    });
                    (record.state, record.revoked) = (KeyState::Revoked, Some(one.note.clone()));
                    batch.put(self.0.keys.key(key.as_str()), encode(&record)?);
                    secrets.push(key.clone());
                }
                Revoked::Policy { policy } => {
                    batch.delete(self.0.policies.key(policy.as_str()));
                }
                Revoked::Subject { .. } | Revoked::Tenant { .. } => {}
            }
            snapshot.apply(one);
        }
        if taken == 0 {
            return Ok(0);
        }
        batch.put(self.0.state.key("sequence"), encode(&snapshot.sequence)?);
        self.0.revoked.store().commit(batch).await?;
        self.publish(snapshot);
        for key in &secrets {
            self.forget_secret(key).await;
        }
        Ok(taken)
    }

    /// What another node does not have that has everything up to number `after`; at most 10,000
    /// revocations, and then `more` says that there are others.
    pub async fn update(&self, after: u64) -> Result<RevocationUpdate> {
        let snapshot = self.snapshot();
        let first = self.0.revoked.key(&number(after.saturating_add(1)));
        let end = prefix_end(&self.0.revoked.key(""));
        let entries = self.0.revoked.store().scan(&first[..]..&end[..], UPDATE + 1).await?;
        let more = entries.len() > UPDATE;
        let mut sequence = snapshot.sequence.max(after);
        let mut revocations = Vec::new();
        for entry in entries.iter().take(UPDATE) {
            revocations.push(decode(entry)?);
            if more {
                let digits = entry.key.get(self.0.revoked.key("").len()..).unwrap_or_default();
                sequence =
                    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(after);
            }
        }
        let (tenant, list) = (self.0.tenant.clone(), Some(self.list_name().await?));
        let keys = self.shared_keys();
        Ok(RevocationUpdate { tenant, list, after, sequence, more, revocations, keys })
    }

    /// The public halves of the live `v2` keys.
    pub fn shared_keys(&self) -> Vec<SharedKey> {
        let snapshot = self.snapshot();
        let live = snapshot.keys.iter().filter(|key| key.state() != KeyState::Revoked);
        let shared = live.filter_map(|key| {
            Some(SharedKey { key: key.name().clone(), public: key.public_key()?.to_text() })
        });
        shared.collect()
    }

    /// The name of the list that this node's revocations are numbered in.
    pub async fn list_name(&self) -> Result<String> {
        let fresh = to_hex(Secret::random(8)?.expose());
        let named = self.0.state.change::<String, _>("list", |known| match known {
            Some(known) => Ok((None, known)),
            None => Ok((Some(fresh.clone()), fresh.clone())),
        });
        named.await
    }

    /// Gives the list another name, unless it has one other than `old` already: nobody has any of
    /// it then, and everybody is told everything. For a node whose records were put back.
    pub async fn rename_list(&self, old: &str) -> Result<String> {
        let fresh = to_hex(Secret::random(8)?.expose());
        let named = self.0.state.change::<String, _>("list", |known| match known {
            Some(known) if known != old => Ok((None, known)),
            _ => Ok((Some(fresh.clone()), fresh.clone())),
        });
        named.await
    }

    /// How far a list of `origin` was taken in.
    pub async fn applied(&self, origin: &str, list: Option<&str>) -> Result<u64> {
        let applied = self.0.state.read::<u64>(&applied_key(origin, list)).await?;
        Ok(applied.map_or(0, |(sequence, _)| sequence))
    }

    /// Takes in an update that the node `origin` made. One that is older than what was taken in
    /// before changes nothing. Says how far updates of that node were taken in.
    ///
    /// # Errors
    /// `Conflict` if something between is missing: ask for what is after [`applied`](Links::applied).
    /// `Mismatch` for another tenant's.
    pub async fn apply(&self, origin: &str, update: RevocationUpdate, now: Timestamp) -> Result<u64> {
        if update.tenant != self.0.tenant {
            return Err(Error::new(ErrorKind::Mismatch, "these revocations are another tenant's"));
        }
        if update.list.as_deref().is_some_and(|list| !is_list_name(list)) {
            return Err(Error::invalid("a list of revocations is named by 1 to 64 of a-z, 0-9 and -"));
        }
        let at = applied_key(origin, update.list.as_deref());
        let applied = self.applied(origin, update.list.as_deref()).await?;
        if update.after > applied {
            let message = format!("revocations after number {applied} are missing");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.revoke(update.revocations).await?;
        for shared in &update.keys {
            let mut taken = self.share(shared, origin, now).await;
            // The room that there is for keys is for those that are in use there.
            if taken.is_err() && self.forget_retired(origin, &update.keys).await? {
                taken = self.share(shared, origin, now).await;
            }
            if let Err(error) = taken {
                // What was revoked counts, whether or not a key has room.
                warn!(key = %shared.key, %error, "a link key from elsewhere was not taken in");
            }
        }
        let applied = applied.max(update.sequence);
        self.0.state.write(&at, &applied).await?;
        Ok(applied)
    }

    /// Forgets the keys of `origin` that it does not have itself any more, for their last link is
    /// over; `true` if there was one.
    async fn forget_retired(&self, origin: &str, live: &[SharedKey]) -> Result<bool> {
        let mut any = false;
        for (name, record) in self.keys().await? {
            let gone = record.who == origin && live.iter().all(|shared| shared.key != name);
            if gone && record.state == KeyState::VerifyOnly {
                self.forget_key(&name).await?;
                any = true;
            }
        }
        Ok(any)
    }

    async fn share(&self, shared: &SharedKey, origin: &str, now: Timestamp) -> Result<()> {
        let public = PublicKey::parse(&shared.public)?;
        if let Some(known) = self.snapshot().keys.key(shared.key.as_str()) {
            let same = known.public_key().is_some_and(|known| known.to_text() == public.to_text());
            if same || known.state() == KeyState::Revoked {
                return Ok(());
            }
            return Err(Error::new(ErrorKind::Conflict, "another key has this name here"));
        }
        let key = LinkKey::public(shared.key.clone(), public, now)?;
        self.add_key(key, origin).await.map(drop)
    }

    /// Forgets what ran out: revocations of links that are over, links, keys without live links.
    pub(super) async fn forget(&self, now: Timestamp) -> Result<()> {
        let changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        let gone = snapshot.revocations.forget(now);
        if !gone.is_empty() {
            self.forget_revocations(now).await?;
            self.publish(snapshot);
        }
        drop(changing);
        self.forget_links(now).await?;
        self.forget_keys(now).await
    }

    async fn forget_revocations(&self, now: Timestamp) -> Result<()> {
        let end = prefix_end(&self.0.revoked.key(""));
        let mut first = self.0.revoked.key("");
        loop {
            let entries = self.0.revoked.store().scan(&first[..]..&end[..], BATCH).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            first = [&last.key[..], &[0]].concat();
            let mut batch = Batch::new();
            for entry in &entries {
                if matches!(decode::<Revocation>(entry)?.what, Revoked::Link { until, .. } if until < now) {
                    batch.delete(entry.key.clone());
                }
            }
            if !batch.changes.is_empty() {
                self.0.revoked.store().commit(batch).await?;
            }
        }
    }

    async fn forget_keys(&self, now: Timestamp) -> Result<()> {
        for (name, record) in self.keys().await? {
            let over = record.last_expires.is_some_and(|last| last.plus(MAX_GRACE + SKEW) < now);
            if record.state == KeyState::VerifyOnly && over {
                self.forget_key(&name).await?;
            }
        }
        Ok(())
    }

    async fn forget_key(&self, name: &KeyName) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let mut snapshot = (*self.snapshot()).clone();
        let mut batch = Batch::new();
        batch.delete(self.0.keys.key(name.as_str()));
        self.0.keys.store().commit(batch).await?;
        snapshot.keys.remove(name);
        self.publish(snapshot);
        self.forget_secret(name).await;
        Ok(())
    }
}

/// Under which record it is kept how far a list was taken in.
fn applied_key(origin: &str, list: Option<&str>) -> String {
    match list {
        Some(list) => format!("applied:{origin}:{list}"),
        None => format!("applied:{origin}"),
    }
}

/// Whether a list may have this name.
fn is_list_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Numbers as texts in their own order.
fn number(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn is_known(snapshot: &Snapshot, what: &Revoked) -> bool {
    let revocations = &snapshot.revocations;
    match what {
        Revoked::Link { id, .. } => revocations.contains(*id),
        Revoked::Subject { subject, minimum } => revocations.epoch(Some(subject)) >= *minimum,
        Revoked::Tenant { minimum } => revocations.epoch(None) >= *minimum,
        Revoked::Key { key, .. } => revocations.key(key).is_some(),
        Revoked::Policy { policy } => revocations.policy(policy).is_some(),
    }
}
