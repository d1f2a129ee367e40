//! Rights and separation of duties at the source: who may, who must not alone, and what remembers it.

use std::sync::Arc;

use async_trait::async_trait;
use distedge::access::{AccessRequest, Action, Identity, Principal, Scope};
use distedge::audit::{AuditSink, Event, MemoryAudit};
use distedge::error::{Error, ErrorKind, Result};
use distedge::key::{Algorithm, Signer as _, SigningKey};
use distedge::name::{BundleName, NodeName, Version};
use distedge::policy::{Duties, Effect, Policy, PolicySet, TokenHolders};
use distedge::source::{
    Actor, AddOptions, Authority, Change, ChangeState, EdgeRecord, NewKey, Operator, Role,
};

use super::{Bench, NOW, everything, new_bundle, parse};

/// Everybody may do what their scopes say, whoever they are.
#[derive(Debug)]
struct ByScope;

impl Policy for ByScope {
    fn evaluate(&self, request: &AccessRequest<'_>) -> Effect {
        let scopes = request.principal.scopes().unwrap_or_default();
        match scopes.iter().any(|scope| scope.contains(request.action, request.resource)) {
            true => Effect::Permit,
            false => Effect::Abstain,
        }
    }
}

fn user(name: &str, scopes: &[&str]) -> Principal {
    Principal::User(Arc::new(Identity {
        name: name.into(),
        groups: Vec::new(),
        credential: Some(format!("token-of-{name}")),
        scopes: Some(scopes.iter().map(|scope| parse::<Scope>(scope)).collect()),
    }))
}

fn alice() -> Principal {
    user("alice", &["label,bundle:files/**", "bundle,sign:bundle:shop*", "distribute:bundle:shop*"])
}

fn bob() -> Principal {
    user("bob", &["distribute,withdraw:bundle:shop*"])
}

fn carol() -> Principal {
    user("carol", &["distribute,withdraw:bundle:*"])
}

fn duties(signer_may_not_distribute: bool, four_eyes: &[Action]) -> Duties {
    let mut duties = Duties::default();
    duties.signer_may_not_distribute = signer_may_not_distribute;
    duties.four_eyes = four_eyes.iter().copied().collect();
    duties
}

/// A source with a signed bundle `shop 1.0` by alice, an edge, and who judges.
struct Court {
    bench: Bench,
    audit: Arc<MemoryAudit>,
    authority: Authority,
}

impl Court {
    async fn new(duties: Duties) -> Court {
        let bench = Bench::with_keys().await;
        let audit = Arc::new(MemoryAudit::default());
        let policies = PolicySet::new(vec![Arc::new(TokenHolders), Arc::new(ByScope)]);
        let authority = Authority::local(audit.clone()).with_policies(policies, duties);
        bench.add("files/app/one", b"1", &[]).await;
        let edge = EdgeRecord::new(parse("e1"), "https://e1.example");
        bench.source.set_edge(&edge, None).await.unwrap();
        let court = Court { bench, audit, authority };
        let actor = court.actor(alice());
        actor.create_bundle(&new_bundle("shop", "1.0", "files/**")).await.unwrap();
        actor.sign_bundle(&shop().0, &shop().1, &[]).await.unwrap();
        court
    }

    fn actor(&self, principal: Principal) -> Actor<'_> {
        self.bench.source.acting_as(principal, &self.authority)
    }

    async fn assigned(&self) -> usize {
        self.bench.source.assignments().await.unwrap().len()
    }

    fn kinds(&self) -> Vec<String> {
        self.audit.events().iter().map(|event| event.kind.to_string()).collect()
    }
}

fn shop() -> (BundleName, Version) {
    (parse("shop"), parse("1.0"))
}

fn to_e1() -> Change {
    Change::Distribute { edges: vec![parse::<NodeName>("e1")] }
}

fn withdrawal() -> Change {
    Change::Withdraw { reason: "bad build".into(), legal: false }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, rule: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    assert!(error.to_string().ends_with(&format!("({rule})")), "{error}");
}

#[tokio::test]
async fn each_verb_needs_its_own_right() {
    let court = Court::new(Duties::default()).await;
    let (name, version) = shop();
    let nobody = court.actor(user("mallory", &[]));
    let reader = court.actor(user("rita", &["read,list,audit:*"]));
    for actor in [&nobody, &reader, &court.actor(Principal::Anonymous)] {
        refused(actor.label(&everything("**"), &["x".into()], &[]).await, "no-grant");
        refused(actor.set_properties(&everything("**"), &Default::default()).await, "no-grant");
        refused(actor.remove(&everything("**")).await, "no-grant");
        let options = AddOptions::default();
        refused(actor.add_bytes(&parse("files"), &parse("new"), &b"2"[..], &options).await, "no-grant");
        refused(actor.create_bundle(&new_bundle("shop", "1.1", "**")).await, "no-grant");
        refused(actor.discard_bundle(&name, &version).await, "no-grant");
        refused(actor.sign_bundle(&name, &version, &[]).await, "no-grant");
        refused(actor.attach_signature(&name, &version, None, b"").await, "no-grant");
        refused(actor.change(&name, &version, to_e1()).await, "no-grant");
        refused(actor.change(&name, &version, withdrawal()).await, "no-grant");
        let key = NewKey::new("k");
        refused(actor.create_key(Role::Root, Algorithm::Ed25519, &key).await, "no-grant");
        refused(actor.revoke_key(Role::Release, "release", "why", true).await, "no-grant");
        refused(actor.set_threshold(Role::Release, 1).await, "no-grant");
        refused(actor.set_trust_days(1).await, "no-grant");
        refused(actor.remove_edge(&parse("e1")).await, "no-grant");
        refused(actor.set_edge(&EdgeRecord::new(parse("e2"), "https://e2"), None).await, "no-grant");
        refused(actor.forget_identity(&parse("e1")).await, "no-grant");
    }
    // A right reaches what it names and nothing beside it.
    let alice = court.actor(alice());
    refused(alice.sign_bundle(&parse("other"), &version, &[]).await, "no-grant");
    refused(alice.change(&name, &version, withdrawal()).await, "no-grant");
    refused(alice.create_key(Role::Release, Algorithm::Ed25519, &NewKey::new("own")).await, "no-grant");
    let options = AddOptions::default();
    refused(alice.add_bytes(&parse("secret"), &parse("x"), &b"2"[..], &options).await, "no-grant");
    assert_eq!(court.assigned().await, 0);
    let denied = court.kinds().iter().filter(|kind| *kind == "control.denied").count();
    assert_eq!(denied, 3 * 17 + 4, "every refusal leaves a trace");
    let last = court.audit.events().pop().unwrap();
    assert_eq!((last.who.as_str(), last.credential.as_deref()), ("user:alice", Some("token-of-alice")));
    // The administrator may do all of it.
    let operator = court.actor(Authority::local_operator());
    operator.create_key(Role::Release, Algorithm::Ed25519, &NewKey::new("second")).await.unwrap();
    assert_eq!(operator.change(&name, &version, to_e1()).await.unwrap().state, ChangeState::Done);
    assert_eq!(court.assigned().await, 1);
}

/// One artifact out of reach, and nothing of the selection is touched.
#[tokio::test]
async fn a_selection_is_permitted_as_a_whole() {
    let court = Court::new(Duties::default()).await;
    court.bench.add("secret/two", b"2", &[]).await;
    let alice = court.actor(alice());
    refused(alice.label(&everything("**"), &["rc".into()], &[]).await, "no-grant");
    let labelled = court.bench.source.artifacts(&everything("**")).await.unwrap();
    assert!(labelled.iter().all(|artifact| artifact.labels.is_empty()));
    assert_eq!(alice.label(&everything("files/**"), &["rc".into()], &[]).await.unwrap(), 1);

    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("deep")).unwrap();
    for path in ["a.txt", "deep/b.txt"] {
        std::fs::write(directory.path().join(path), path).unwrap();
    }
    let shallow = court.actor(user("dave", &["bundle:files/new/*"]));
    let add = async |actor: &Actor<'_>| {
        let (repository, under) = (parse("files"), parse("new"));
        let options = AddOptions::default();
        actor.add_tree(&repository, Some(&under), directory.path(), &options, &|_| {}).await
    };
    refused(add(&shallow).await, "no-grant");
    assert_eq!(court.bench.source.artifacts(&everything("files/new/**")).await.unwrap().len(), 0);
    assert_eq!(add(&alice).await.unwrap().added, 2);
}

#[tokio::test]
async fn who_signed_does_not_distribute() {
    let court = Court::new(duties(true, &[])).await;
    let (name, version) = shop();
    refused(court.actor(alice()).change(&name, &version, to_e1()).await, "signer-may-not-distribute");
    assert_eq!(court.assigned().await, 0);
    let record = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    assert_eq!((record.state, record.requested_by.as_str()), (ChangeState::Done, "user:bob"));
    assert_eq!(court.assigned().await, 1);
    let signed = court.bench.source.bundle(&name, &version).await.unwrap().unwrap();
    assert_eq!(signed.signatures[0].by.as_deref(), Some("user:alice"));
    // Taking it off an edge again is the same right and the same duty.
    let recall = Change::Recall { edges: vec![parse("e1")] };
    refused(court.actor(alice()).change(&name, &version, recall.clone()).await, "signer-may-not-distribute");
    court.actor(bob()).change(&name, &version, recall).await.unwrap();
    assert_eq!(court.assigned().await, 0);
}

/// The signature came from a machine of bob's, carol only carried it in: neither distributes.
#[tokio::test]
async fn who_signed_elsewhere_does_not_distribute_either() {
    let court = Court::new(duties(true, &[])).await;
    let (name, version) = (parse("shop"), parse("2.0"));
    let actor = court.actor(alice());
    actor.create_bundle(&new_bundle("shop", "2.0", "files/**")).await.unwrap();
    let pair = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let new = NewKey::new("module").with_owner("bob");
    court.bench.source.import_public_key(Role::Release, &new, pair.public_key()).await.unwrap();
    let bytes = court.bench.source.signing_bytes(&name, &version).await.unwrap();
    let signature = pair.sign(&bytes, NOW).unwrap();
    actor.attach_signature(&name, &version, Some("module"), &signature).await.unwrap();
    for signer in [alice(), bob()] {
        refused(court.actor(signer).change(&name, &version, to_e1()).await, "signer-may-not-distribute");
    }
    court.actor(carol()).change(&name, &version, to_e1()).await.unwrap();
}

/// A bundle was signed past the rules: nobody can be told apart from its signer.
#[tokio::test]
async fn an_unknown_signer_is_everybody() {
    let court = Court::new(duties(true, &[])).await;
    let bundle = (parse("shop"), parse("3.0"));
    court.bench.release("shop", "3.0", "files/**").await;
    for principal in [alice(), bob(), carol()] {
        refused(
            court.actor(principal).change(&bundle.0, &bundle.1, to_e1()).await,
            "signer-may-not-distribute",
        );
    }
}

#[tokio::test]
async fn a_distribution_waits_for_a_second_pair_of_eyes() {
    let court = Court::new(duties(true, &[Action::Distribute, Action::Withdraw])).await;
    let (name, version) = shop();
    let waiting = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    assert_eq!(waiting.state, ChangeState::Waiting);
    assert_eq!(court.assigned().await, 0, "nothing happens before somebody agrees");
    let again = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    assert_eq!(again.id, waiting.id, "asking twice is asking once");

    let id = waiting.id.as_str();
    refused(court.actor(bob()).approve(id).await, "four-eyes");
    refused(court.actor(alice()).approve(id).await, "signer-may-not-distribute");
    refused(court.actor(user("mallory", &["sign:*"])).approve(id).await, "no-grant");
    assert_eq!(court.assigned().await, 0);
    let done = court.actor(carol()).approve(id).await.unwrap();
    assert_eq!((done.state, done.decided_by.as_deref()), (ChangeState::Done, Some("user:carol")));
    assert_eq!(court.assigned().await, 1);
    assert_eq!(court.actor(carol()).approve(id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(court.actor(carol()).reject(id, "late").await.unwrap_err().kind(), ErrorKind::Conflict);

    // A withdrawal as well, and it outlives the process.
    let waiting = court.actor(carol()).change(&name, &version, withdrawal()).await.unwrap();
    let reopened = distedge::source::Source::open_over(court.bench.ports.clone()).await.unwrap();
    assert_eq!(reopened.change_record(&waiting.id).await.unwrap(), waiting);
    let withdrawn = async || reopened.bundle(&name, &version).await.unwrap().unwrap().withdrawn;
    assert_eq!(withdrawn().await, None);
    reopened.acting_as(bob(), &court.authority).approve(&waiting.id).await.unwrap();
    assert_eq!(withdrawn().await.unwrap().reason, "bad build");

    let kinds = court.kinds();
    for kind in ["change.requested", "change.approved", "bundle.signed", "control.denied"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn a_request_is_rejected_or_given_up_and_stays_so() {
    let court = Court::new(duties(false, &[Action::Distribute])).await;
    let (name, version) = shop();
    let first = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    refused(court.actor(user("mallory", &[])).reject(&first.id, "no").await, "no-grant");
    let rejected = court.actor(carol()).reject(&first.id, "not this week").await.unwrap();
    assert_eq!((rejected.state, rejected.reason.as_deref()), (ChangeState::Rejected, Some("not this week")));
    let error = court.actor(carol()).approve(&first.id).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("was rejected by user:carol"));
    let second = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    assert_ne!(second.id, first.id);
    court.actor(bob()).reject(&second.id, "my mistake").await.unwrap();
    assert_eq!(court.assigned().await, 0);
    let missing = court.actor(carol()).approve("000000000000").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    // What could not be done is refused when it is asked for, not when it is approved.
    let unknown = Change::Distribute { edges: vec![parse("e9")] };
    let error = court.actor(bob()).change(&name, &version, unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// The duties were relaxed between the request and its approval: still nobody approves their own.
#[tokio::test]
async fn nobody_approves_their_own() {
    let mut court = Court::new(duties(false, &[Action::Distribute])).await;
    let (name, version) = shop();
    let waiting = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    court.authority.duties = Duties::default();
    refused(court.actor(bob()).approve(&waiting.id).await, "four-eyes");
    court.actor(carol()).approve(&waiting.id).await.unwrap();
}

#[tokio::test]
async fn the_local_operator_is_no_second_person() {
    let court = Court::new(duties(true, &[Action::Distribute, Action::Withdraw])).await;
    let (name, version) = shop();
    let operator = court.actor(Authority::local_operator());
    let error = operator.sign_bundle(&name, &version, &[]).await.unwrap_err();
    assert!(error.to_string().contains("present a user token"), "{error}");
    refused(operator.change(&name, &version, to_e1()).await, "duties-need-names");
    refused(operator.change(&name, &version, withdrawal()).await, "duties-need-names");
    let waiting = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap();
    refused(operator.approve(&waiting.id).await, "duties-need-names");
    operator.set_trust_days(30).await.unwrap();
}

#[tokio::test]
async fn breaking_the_glass_opens_administration_alone_and_is_remembered() {
    let mut court = Court::new(Duties::default()).await;
    let (name, version) = shop();
    court.authority = court.authority.clone().with_operator(Operator::Refused);
    let local = Authority::local_operator;
    refused(court.actor(local()).set_trust_days(30).await, "token-required");
    refused(court.actor(local()).sign_bundle(&name, &version, &[]).await, "token-required");
    let glass = Operator::BreaksGlass("the only administrator has left".into());
    court.authority = court.authority.clone().with_operator(glass);
    refused(court.actor(local()).change(&name, &version, to_e1()).await, "token-required");
    court.actor(local()).set_trust_days(30).await.unwrap();
    let event = court.audit.events().pop().unwrap();
    assert_eq!((&*event.kind, event.who.as_str()), ("config.changed", "token:local"));
    assert!(event.reason.unwrap().contains("the only administrator has left"));
}

/// A log that takes nothing more.
#[derive(Debug)]
struct Full;

#[async_trait]
impl AuditSink for Full {
    fn record(&self, _: Event) -> Result<()> {
        Err(Error::new(ErrorKind::NoSpace, "the log is full"))
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        self.record(event)
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let mut court = Court::new(Duties::default()).await;
    let (name, version) = shop();
    court.authority.audit = Arc::new(Full);
    let error = court.actor(bob()).change(&name, &version, to_e1()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("cannot be recorded and is not done"), "{error}");
    assert_eq!(court.assigned().await, 0);
    assert!(court.bench.source.changes().await.unwrap().is_empty());
    refused(court.actor(user("mallory", &[])).change(&name, &version, to_e1()).await, "no-grant");
}

/// What failed after it was recorded is recorded once more, as not done.
#[tokio::test]
async fn the_log_tells_what_did_not_happen() {
    let court = Court::new(Duties::default()).await;
    let operator = court.actor(Authority::local_operator());
    operator.set_trust_days(0).await.unwrap_err();
    let events = court.audit.events();
    let [.., tried, failed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&*tried.kind, &*failed.kind), ("config.changed", "config.changed"));
    assert!(failed.reason.as_deref().unwrap().contains("not done: a trust document is good for"));
}
