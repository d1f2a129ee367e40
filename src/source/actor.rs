//! Who acts at a source, and what they may: rights, separation of duties, and the trace of both.
//!
//! The methods of [`Source`] ask nobody: whoever holds a `Source` holds its stores and its keys.
//! An [`Actor`] is a source in the hands of one principal. It has the methods that change something,
//! judges each call by an [`Authority`], and has it recorded before it happens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::change::{Change, ChangeRecord, ChangeState};
use super::{
    AddOptions, AddProgress, Added, Artifact, BundleRecord, ConvergeOptions, ConvergeProgress, Dial,
    EdgeOutcome, EdgeRecord, NewBundle, NewKey, PairOptions, PairingRecord, Role, Selection, Source,
};
use crate::access::{AccessRequest, Action, Decision, Principal, Refusal, RefusalKind, Resource};
use crate::audit::{AuditSink, Event, kind};
use crate::blob::ByteStream;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Algorithm, KeyPair, PublicKey, Window};
use crate::name::{ArtifactPath, BundleName, NodeName, RepositoryName, Version};
use crate::policy::{Duties, History, PolicySet, TokenHolders};
use crate::secret::Secret;
use crate::token::PairingToken;

/// The name of the local operator, who has the source's files and presents no token.
const LOCAL: &str = "local";

/// What judges those who act at a source, and what remembers it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authority {
    /// Who may do what.
    pub policies: PolicySet,
    /// What one principal must not do alone.
    pub duties: Duties,
    /// What may be done without a token.
    pub operator: Operator,
    /// Takes what happened, before it happens.
    pub audit: Arc<dyn AuditSink>,
}

/// What the local operator may do, who has the source's files and presents no token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operator {
    /// Everything that no separation of duties is about.
    Administrator,
    /// Nothing: others act here, and each with a token.
    Refused,
    /// Administration alone, for a reason that is recorded with each act.
    BreaksGlass(String),
}

impl Authority {
    /// The local operator is the administrator, and there is nobody else.
    pub fn local(audit: Arc<dyn AuditSink>) -> Authority {
        let policies = PolicySet::new(vec![Arc::new(TokenHolders)]);
        Authority { policies, duties: Duties::default(), operator: Operator::Administrator, audit }
    }

    /// The same with these rights and duties. The set should hold [`TokenHolders`], or the local
    /// operator has no right to anything.
    #[must_use]
    pub fn with_policies(mut self, policies: PolicySet, duties: Duties) -> Authority {
        (self.policies, self.duties) = (policies, duties);
        self
    }

    /// The same with this rule for who presents no token.
    #[must_use]
    pub fn with_operator(mut self, operator: Operator) -> Authority {
        self.operator = operator;
        self
    }

    /// Whom an act is ascribed to that presents no token.
    pub fn local_operator() -> Principal {
        Principal::Token { name: LOCAL.to_owned() }
    }

    /// What stands against an act of the local operator.
    fn refuse_operator(&self, action: Action) -> Option<Refusal> {
        let duties = &self.duties;
        let dutiful = match action {
            Action::Sign => duties.signer_may_not_distribute,
            Action::Distribute => duties.signer_may_not_distribute || duties.needs_two(action),
            _ => duties.needs_two(action),
        };
        match &self.operator {
            Operator::Refused => Some(Refusal::new(
                RefusalKind::Right,
                "token-required",
                "people with tokens act at this source: present yours",
            )),
            Operator::BreaksGlass(_) if action != Action::Administer => Some(Refusal::new(
                RefusalKind::Right,
                "token-required",
                "breaking the glass opens administration alone: present a user token",
            )),
            _ if dutiful => Some(Refusal::new(
                RefusalKind::Duty,
                "duties-need-names",
                format!(
                    "duties are separated here, and to {action} it must be known who does it: present a user token"
                ),
            )),
            _ => None,
        }
    }
}

/// A source in the hands of one principal.
#[derive(Debug)]
pub struct Actor<'a> {
    source: &'a Source,
    authority: &'a Authority,
    principal: Principal,
}

impl Source {
    /// This source in the hands of `principal`, judged by `authority`.
    pub fn acting_as<'a>(&'a self, principal: Principal, authority: &'a Authority) -> Actor<'a> {
        Actor { source: self, authority, principal }
    }
}

impl Actor<'_> {
    /// The source, for what changes nothing.
    pub fn source(&self) -> &Source {
        self.source
    }

    /// Who acts.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    // Artifacts.

    /// As [`Source::add_bytes`]; needs `bundle` on the path.
    pub async fn add_bytes(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        bytes: impl Into<Bytes> + Send,
        options: &AddOptions,
    ) -> Result<Artifact> {
        let event = self.adds(repository, path)?;
        self.recorded(event, self.source.add_bytes(repository, path, bytes, options)).await
    }

    /// As [`Source::add_file`]; needs `bundle` on the path.
    pub async fn add_file(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        file: &Path,
        options: &AddOptions,
        progress: AddProgress<'_>,
    ) -> Result<Artifact> {
        let event = self.adds(repository, path)?;
        self.recorded(event, self.source.add_file(repository, path, file, options, progress)).await
    }

    /// As [`Source::add_stream`]; needs `bundle` on the path.
    pub async fn add_stream(
        &self,
        repository: &RepositoryName,
        path: &ArtifactPath,
        stream: ByteStream,
        options: &AddOptions,
    ) -> Result<Artifact> {
        let event = self.adds(repository, path)?;
        self.recorded(event, self.source.add_stream(repository, path, stream, options)).await
    }

    /// As [`Source::add_tree`]; needs `bundle` on every path, or nothing is added.
    pub async fn add_tree(
        &self,
        repository: &RepositoryName,
        under: Option<&ArtifactPath>,
        directory: &Path,
        options: &AddOptions,
        progress: AddProgress<'_>,
    ) -> Result<Added> {
        let mut event = self.event(kind::ARTIFACT_ADDED).about(directory.display().to_string());
        (event.repository, event.path) = (Some(repository.clone()), under.cloned());
        let permit = |path: &ArtifactPath| self.permit(Action::Bundle, at(repository, path));
        let adding = self.source.add_tree_if(&permit, repository, under, directory, options, progress);
        self.recorded(event, adding).await
    }

    /// As [`Source::label`]; needs `label` on every artifact selected, or nothing is changed.
    pub async fn label(&self, selection: &Selection, give: &[String], take: &[String]) -> Result<u64> {
        let selection = self.judged(Action::Label, selection).await?;
        let given = give.iter().map(|label| format!("+{label}"));
        let labels: Vec<String> = given.chain(take.iter().map(|label| format!("-{label}"))).collect();
        let event = self.event_on(kind::ARTIFACT_LABELLED, &selection).about(labels.join(" "));
        self.recorded(event, self.source.label(&selection.narrowed, give, take)).await
    }

    /// As [`Source::set_properties`]; needs `label` on every artifact selected, or nothing is changed.
    pub async fn set_properties(
        &self,
        selection: &Selection,
        properties: &BTreeMap<String, Option<String>>,
    ) -> Result<u64> {
        let selection = self.judged(Action::Label, selection).await?;
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        let event = self.event_on(kind::ARTIFACT_LABELLED, &selection).about(names.join(" "));
        self.recorded(event, self.source.set_properties(&selection.narrowed, properties)).await
    }

    /// As [`Source::remove`]; needs `bundle` on every artifact selected, or nothing is removed.
    pub async fn remove(&self, selection: &Selection) -> Result<u64> {
        let selection = self.judged(Action::Bundle, selection).await?;
        let event = self.event_on(kind::ARTIFACT_REMOVED, &selection);
        self.recorded(event, self.source.remove(&selection.narrowed)).await
    }

    // Bundles.

    /// As [`Source::create_bundle`]; needs `bundle` on the name. The bundle says that this principal
    /// made it; the local operator, who is no person, says who did.
    pub async fn create_bundle(&self, new: &NewBundle) -> Result<BundleRecord> {
        self.permit(Action::Bundle, named(&new.name))?;
        let event = self.event(kind::BUNDLE_CREATED).about_bundle(&new.name, &new.version);
        let by = match &self.principal {
            Principal::Token { .. } => new.by.clone(),
            person => person.to_string(),
        };
        let new = NewBundle { by, ..new.clone() };
        self.recorded(event, self.source.create_bundle(&new)).await
    }

    /// As [`Source::discard_bundle`]; needs `bundle` on the name.
    pub async fn discard_bundle(&self, name: &BundleName, version: &Version) -> Result<()> {
        self.permit(Action::Bundle, named(name))?;
        let event = self.event(kind::BUNDLE_DISCARDED).about_bundle(name, version);
        self.recorded(event, self.source.discard_bundle(name, version)).await
    }

    /// As [`Source::sign_bundle`]; needs `sign` on the name. Who signs is kept with the signature.
    pub async fn sign_bundle(
        &self,
        name: &BundleName,
        version: &Version,
        aliases: &[String],
    ) -> Result<BundleRecord> {
        self.permit(Action::Sign, named(name))?;
        let keys = if aliases.is_empty() { "the default key".to_owned() } else { aliases.join(" ") };
        let event = self.event(kind::BUNDLE_SIGNED).about_bundle(name, version).about(keys);
        let by = self.principal.to_string();
        self.recorded(event, self.source.sign_as(name, version, aliases, Some(&by))).await
    }

    /// As [`Source::attach_signature`]; needs `sign` on the name. Who attaches it counts as a signer,
    /// and so does the owner of the key that made it.
    pub async fn attach_signature(
        &self,
        name: &BundleName,
        version: &Version,
        alias: Option<&str>,
        signature: &[u8],
    ) -> Result<BundleRecord> {
        self.permit(Action::Sign, named(name))?;
        let key = alias.unwrap_or("a key that signs elsewhere");
        let event = self.event(kind::BUNDLE_SIGNED).about_bundle(name, version).about(key);
        let by = self.principal.to_string();
        self.recorded(event, self.source.attach_as(name, version, alias, signature, Some(&by))).await
    }

    /// Has `change` made, or keeps it as a request if it takes another principal: the record's state
    /// tells. Needs `distribute` or `withdraw` on the name.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] with the name of the rule; what [`Source::assign`] and
    /// [`Source::withdraw_bundle`] would refuse.
    pub async fn change(&self, name: &BundleName, version: &Version, change: Change) -> Result<ChangeRecord> {
        let action = change.action();
        self.permit(action, named(name))?;
        self.source.check_change(name, version, &change).await?;
        let by = self.principal.to_string();
        let signers = self.signers(name, version).await?;
        let history = History { signers: &signers, requester: None, approvers: &[] };
        let waits = match self.authority.duties.check(action, &by, &history) {
            Ok(()) => false,
            Err(refusal) if refusal.rule == FOUR_EYES => true,
            Err(refusal) => return Err(self.deny(action, refusal)),
        };
        let about = change.to_string();
        let (kind, state) = match waits {
            true => (kind::CHANGE_REQUESTED, ChangeState::Waiting),
            false => (change.kind(), ChangeState::Approved),
        };
        let event = self.event(kind).about_bundle(name, version).about(about);
        self.recorded(event, async {
            let record = self.source.keep_change(name, version, change, &by, state).await?;
            if waits { Ok(record) } else { self.source.carry_out(&record).await }
        })
        .await
    }

    /// Agrees to a change that another principal asked for, and has it made.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] with the name of the rule: for who asked for it, for who signed the
    /// bundle where signers may not distribute, and without the right to the change itself;
    /// [`ErrorKind::Conflict`] if it was decided already.
    pub async fn approve(&self, id: &str) -> Result<ChangeRecord> {
        let record = self.source.change_record(id).await?;
        let action = record.change.action();
        self.permit(action, named(&record.bundle))?;
        let by = self.principal.to_string();
        if record.state != ChangeState::Approved {
            undecided(&record)?;
            let signers = self.signers(&record.bundle, &record.version).await?;
            let requester = Some(record.requested_by.as_str());
            let history = History { signers: &signers, requester, approvers: &[] };
            // Nobody approves their own, whatever the duties have become since.
            let own = (record.requested_by == by).then(|| {
                let reason = format!("to {action} needs a second person besides {by}");
                Refusal::new(RefusalKind::Duty, FOUR_EYES, reason)
            });
            if let Some(refusal) = own.or_else(|| self.authority.duties.check(action, &by, &history).err()) {
                return Err(self.deny(action, refusal));
            }
            self.source.check_change(&record.bundle, &record.version, &record.change).await?;
        }
        let now = self.source.clock.now();
        let event = self.event(kind::CHANGE_APPROVED).about_bundle(&record.bundle, &record.version).about(id);
        let event = told(event, &record.change.to_string());
        self.recorded(event, async {
            let approved = self.source.move_change(id, |record| {
                // A change that was approved and not done is finished by whoever approves it again.
                if record.state == ChangeState::Approved {
                    return Ok(());
                }
                undecided(record)?;
                record.state = ChangeState::Approved;
                (record.decided_by, record.decided) = (Some(by.clone()), Some(now));
                Ok(())
            });
            self.source.carry_out(&approved.await?).await
        })
        .await
    }

    /// Refuses a change that somebody asked for, or gives up one's own.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right to the change itself; [`ErrorKind::Conflict`] if it
    /// was decided already.
    pub async fn reject(&self, id: &str, reason: &str) -> Result<ChangeRecord> {
        if reason.trim().is_empty() || reason.len() > 1024 || reason.chars().any(char::is_control) {
            return Err(Error::invalid("a rejection needs a reason of 1 to 1024 bytes on one line"));
        }
        let record = self.source.change_record(id).await?;
        let by = self.principal.to_string();
        if record.requested_by != by {
            self.permit(record.change.action(), named(&record.bundle))?;
        }
        undecided(&record)?;
        let now = self.source.clock.now();
        let event = self.event(kind::CHANGE_REJECTED).about_bundle(&record.bundle, &record.version).about(id);
        let rejecting = self.source.move_change(id, |record| {
            undecided(record)?;
            record.state = ChangeState::Rejected;
            (record.decided_by, record.decided) = (Some(by.clone()), Some(now));
            record.reason = Some(reason.to_owned());
            Ok(())
        });
        self.recorded(told(event, reason), rejecting).await
    }

    // Keys, edges and what else is administration.

    /// As [`Source::create_key`]; needs `administer`.
    pub async fn create_key(&self, role: Role, algorithm: Algorithm, new: &NewKey) -> Result<KeyPair> {
        let making = self.source.create_key(role, algorithm, new);
        self.on_key(role, &new.alias, "made", making).await
    }

    /// As [`Source::import_key`]; needs `administer`.
    pub async fn import_key(&self, role: Role, new: &NewKey, secret: &Secret) -> Result<KeyPair> {
        self.on_key(role, &new.alias, "imported", self.source.import_key(role, new, secret)).await
    }

    /// As [`Source::import_public_key`]; needs `administer`.
    pub async fn import_public_key(&self, role: Role, new: &NewKey, public: PublicKey) -> Result<KeyPair> {
        let importing = self.source.import_public_key(role, new, public);
        self.on_key(role, &new.alias, "imported, its public half", importing).await
    }

    /// As [`Source::set_default_key`]; needs `administer`.
    pub async fn set_default_key(&self, role: Role, alias: &str) -> Result<()> {
        self.on_key(role, alias, "made the default", self.source.set_default_key(role, alias)).await
    }

    /// As [`Source::set_key_window`]; needs `administer`.
    pub async fn set_key_window(&self, role: Role, alias: &str, window: Window) -> Result<()> {
        let what = format!("may sign {window}");
        self.on_key(role, alias, &what, self.source.set_key_window(role, alias, window)).await
    }

    /// As [`Source::revoke_key`]; needs `administer`.
    pub async fn revoke_key(&self, role: Role, alias: &str, reason: &str, compromised: bool) -> Result<()> {
        let what = format!("revoked: {reason}");
        self.on_key(role, alias, &what, self.source.revoke_key(role, alias, reason, compromised)).await
    }

    /// As [`Source::set_threshold`]; needs `administer`.
    pub async fn set_threshold(&self, role: Role, threshold: u32) -> Result<()> {
        let what = format!("{threshold} owners must sign");
        self.on_key(role, "threshold", &what, self.source.set_threshold(role, threshold)).await
    }

    /// As [`Source::set_trust_days`]; needs `administer`.
    pub async fn set_trust_days(&self, days: u32) -> Result<()> {
        let event = told(self.event(kind::CONFIG_CHANGED), &format!("trust documents last {days} days"));
        self.administered(event, self.source.set_trust_days(days)).await
    }

    /// As [`Source::set_edge`]; needs `administer`.
    pub async fn set_edge(&self, edge: &EdgeRecord, token: Option<&Secret>) -> Result<()> {
        self.on_edge(&edge.name, "set", self.source.set_edge(edge, token)).await
    }

    /// As [`Source::remove_edge`]; needs `administer`.
    pub async fn remove_edge(&self, name: &NodeName) -> Result<bool> {
        self.on_edge(name, "removed", self.source.remove_edge(name)).await
    }

    /// As [`Source::forget_identity`]; needs `administer`.
    pub async fn forget_identity(&self, name: &NodeName) -> Result<()> {
        self.on_edge(name, "its identity key is forgotten", self.source.forget_identity(name)).await
    }

    /// As [`Source::forget_log`]; needs `administer`.
    pub async fn forget_log(&self, edge: &NodeName) -> Result<()> {
        self.on_edge(edge, "what was seen of its log is forgotten", self.source.forget_log(edge)).await
    }

    /// As [`Source::pair`]; needs `administer`.
    pub async fn pair(
        &self,
        edge: &EdgeRecord,
        token: &PairingToken,
        options: &PairOptions,
        dial: &dyn Dial,
    ) -> Result<PairingRecord> {
        let event = self.event(kind::PAIRING_REDEEMED).about(token.id().to_string());
        let what = format!("with {}, whose key is {}", edge.name, token.issuer_fingerprint());
        self.administered(told(event, &what), self.source.pair(edge, token, options, dial)).await
    }

    /// As [`Source::rotate_pairing`]; needs `administer`.
    pub async fn rotate_pairing(&self, edge: &NodeName, dial: &dyn Dial) -> Result<PairingRecord> {
        let event = self.event(kind::PAIRING_ROTATED).about(edge.as_str());
        self.administered(event, self.source.rotate_pairing(edge, dial)).await
    }

    /// As [`Source::unpair`]; needs `administer`.
    pub async fn unpair(&self, edge: &NodeName, reason: &str, dial: &dyn Dial, force: bool) -> Result<bool> {
        let event = told(self.event(kind::PAIRING_REVOKED).about(edge.as_str()), reason);
        self.administered(event, self.source.unpair(edge, reason, dial, force)).await
    }

    /// Judges and records an act of administration that is not the source's own: tokens, policies.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without `administer`; the error of `act`.
    pub async fn administer<T>(&self, event: Event, act: impl Future<Output = Result<T>>) -> Result<T> {
        self.administered(event, act).await
    }

    /// As [`Source::converge`]. It carries out what others were permitted to decide, so it needs no
    /// right of its own.
    pub async fn converge(
        &self,
        dial: &dyn Dial,
        options: &ConvergeOptions,
        progress: &ConvergeProgress,
    ) -> Result<Vec<EdgeOutcome>> {
        let converging = self.source.converge(dial, options, progress);
        if options.dry_run {
            return converging.await;
        }
        self.recorded(self.event(kind::SYNC_RUN), converging).await
    }

    /// As [`Source::air_gap`]; needs `distribute` on every bundle that travels.
    #[cfg(feature = "delta")]
    pub async fn air_gap(
        &self,
        edge: &NodeName,
        options: &super::AirGapOptions,
        events: &crate::distribute::Events,
    ) -> Result<crate::distribute::airgap::Export> {
        let named: Vec<BundleName> = match options.bundles.as_slice() {
            [] => {
                let desired = self.source.desired().await?.remove(edge).unwrap_or_default();
                desired.into_iter().map(|record| record.name).collect()
            }
            some => some.iter().map(|(name, _)| name.clone()).collect(),
        };
        for name in &named {
            self.permit(Action::Distribute, self::named(name))?;
        }
        let event = told(self.event(kind::SYNC_RUN).about(edge.as_str()), "as volumes that are carried");
        self.recorded(event, self.source.air_gap(edge, options, events)).await
    }

    /// An event of this principal at this moment.
    pub fn event(&self, kind: &'static str) -> Event {
        let event = Event::new(self.source.clock.now(), kind, &self.principal);
        match (&self.principal, &self.authority.operator) {
            (Principal::Token { .. }, Operator::BreaksGlass(why)) => {
                event.because(format!("glass broken: {why}"))
            }
            _ => event,
        }
    }

    /// Refuses what this principal may not do, and has the refusal recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] with the name of the rule.
    pub fn permit(&self, action: Action, resource: Resource<'_>) -> Result<()> {
        let operator = match &self.principal {
            Principal::Token { .. } => self.authority.refuse_operator(action),
            _ => None,
        };
        if let Some(refusal) = operator {
            return Err(self.deny(action, refusal));
        }
        let (tenant, now) = (&self.source.profile.tenant, self.source.clock.now());
        let request = AccessRequest::new(tenant, &self.principal, action, resource, now);
        let policies = &self.authority.policies;
        let judged = match policies.decide(&request) {
            // Where this principal is cannot be told here: a restriction to places holds against it.
            Decision::Permit | Decision::Steer(_) => policies.restrict(&request).map(drop),
            Decision::Forbid(refusal) => Err(refusal),
        };
        judged.map_err(|refusal| self.deny(action, refusal))
    }

    /// What remembers the acts of this principal.
    pub(super) fn audit(&self) -> &dyn AuditSink {
        &*self.authority.audit
    }

    fn adds(&self, repository: &RepositoryName, path: &ArtifactPath) -> Result<Event> {
        self.permit(Action::Bundle, at(repository, path))?;
        let mut event = self.event(kind::ARTIFACT_ADDED);
        (event.repository, event.path) = (Some(repository.clone()), Some(path.clone()));
        Ok(event)
    }

    /// What is selected now, if `action` is permitted on all of it.
    async fn judged(&self, action: Action, selection: &Selection) -> Result<Judged> {
        let artifacts = self.source.artifacts(selection).await?;
        for artifact in &artifacts {
            self.permit(action, at(&artifact.repository, &artifact.path))?;
        }
        let count = artifacts.len();
        let narrowed = selection.clone().limited_to(&artifacts);
        Ok(Judged { narrowed, count, first: artifacts.into_iter().next() })
    }

    fn event_on(&self, kind: &'static str, selection: &Judged) -> Event {
        let mut event = self.event(kind).because(match selection.count {
            1 => "1 artifact".to_owned(),
            count => format!("{count} artifacts, of which the first is named"),
        });
        if let Some(first) = &selection.first {
            (event.repository, event.path) = (Some(first.repository.clone()), Some(first.path.clone()));
        }
        event
    }

    /// Who has signed a bundle: those who did it here, and the owners of the keys. Nobody, if that
    /// is not known of one of the signatures.
    async fn signers(&self, name: &BundleName, version: &Version) -> Result<Vec<String>> {
        let (record, _) = self.source.require(name, version).await?;
        let ring = self.source.ring(Role::Release).await?;
        let mut signers = Vec::new();
        for signature in &record.signatures {
            let Some(by) = &signature.by else { return Ok(Vec::new()) };
            signers.push(by.clone());
            if let Ok(pair) = ring.keys.pair(&signature.alias) {
                signers.push(format!("user:{}", pair.owner));
            }
        }
        Ok(signers)
    }

    async fn on_key<T>(
        &self,
        role: Role,
        alias: &str,
        what: &str,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let event = self.event(kind::KEY_CHANGED).about(format!("{} {alias}", role.as_str()));
        self.administered(told(event, what), act).await
    }

    async fn on_edge<T>(
        &self,
        name: &NodeName,
        what: &str,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let event = self.event(kind::EDGE_CHANGED).about(name.as_str());
        self.administered(told(event, what), act).await
    }

    pub(super) async fn administered<T>(
        &self,
        event: Event,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.permit(Action::Administer, Resource::Edge)?;
        self.recorded(event, act).await
    }

    /// Does what was permitted, after it was recorded: nothing happens without a trace. What then
    /// fails is recorded once more, as not done.
    pub(super) async fn recorded<T>(&self, event: Event, act: impl Future<Output = Result<T>>) -> Result<T> {
        let audit = &self.authority.audit;
        audit
            .record_durable(event.clone())
            .await
            .map_err(|error| error.context("it cannot be recorded and is not done"))?;
        let done = act.await;
        if let Err(error) = &done {
            // A log that takes no more holds the attempt, which is what has to be known.
            let _ = audit.record(told(event, &format!("not done: {error}")));
        }
        done
    }

    #[cold]
    fn deny(&self, action: Action, refusal: Refusal) -> Error {
        // The rule alone: the sentence may name a person, whom the log must be able to forget.
        let event = told(self.event(kind::CONTROL_DENIED).about(action.as_str()), &refusal.rule);
        // The refusal stands, whether or not the log takes it.
        let _ = self.authority.audit.record(event);
        Error::new(ErrorKind::Forbidden, refusal.to_string())
    }
}

/// The rule that asks for a second principal.
const FOUR_EYES: &str = "four-eyes";

/// A selection of which every artifact was judged.
struct Judged {
    narrowed: Selection,
    count: usize,
    first: Option<Artifact>,
}

pub(super) fn at<'a>(name: &'a RepositoryName, path: &'a ArtifactPath) -> Resource<'a> {
    Resource::Repository { name, path: Some(path), public: false }
}

fn named(name: &BundleName) -> Resource<'_> {
    Resource::Bundle { name: Some(name) }
}

/// The event with more said, behind what it says.
pub(super) fn told(mut event: Event, more: &str) -> Event {
    event.reason = Some(match event.reason.take() {
        Some(reason) => format!("{reason}; {more}"),
        None => more.to_owned(),
    });
    event
}

fn undecided(record: &ChangeRecord) -> Result<()> {
    let what = match record.state {
        ChangeState::Waiting => return Ok(()),
        ChangeState::Rejected => "was rejected",
        _ => "was approved",
    };
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "the change {} {what} by {}",
            record.id,
            record.decided_by.as_deref().unwrap_or("its requester")
        ),
    ))
}
