use std::net::IpAddr;

use super::*;
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::link::{Cause, KeyName, KeyState, LinkAlgorithm, LinkPolicy, MAX_GRACE, Note};
use crate::meta::MemoryStore;
use crate::name::{ArtifactPath, RepositoryName};
use crate::range::ByteRange;

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
const SIZE: u64 = 1_000;

struct World {
    store: Arc<MemoryStore>,
    vault: Arc<MemoryLinkVault>,
    tenant: Tenant,
    edge: NodeName,
    repository: RepositoryName,
    path: ArtifactPath,
}

impl World {
    fn new() -> World {
        World {
            store: Arc::default(),
            vault: Arc::default(),
            tenant: "acme".parse().unwrap(),
            edge: "edge-eu".parse().unwrap(),
            repository: "r".parse().unwrap(),
            path: "app/a".parse().unwrap(),
        }
    }

    async fn open(&self) -> Links {
        let options = LinkOptions::new(self.edge.clone());
        Links::open(self.store.clone(), &self.tenant, self.vault.clone(), options).await.unwrap()
    }

    async fn with_key(&self, algorithm: LinkAlgorithm) -> Links {
        let links = self.open().await;
        links.create_key(Some(KeyName::new("k1").unwrap()), algorithm, "user:root", NOW).await.unwrap();
        links
    }

    fn request(&self, now: Timestamp) -> LinkRequest<'_> {
        LinkRequest::new(&self.tenant, &self.edge, "GET", &self.repository, &self.path, now)
            .with_place(Some(IpAddr::from([203, 0, 113, 7])), None)
    }

    fn admit(&self, links: &Links, token: &Minted, now: Timestamp) -> Result<Admission, Cause> {
        links.admit(token.token.expose_str().unwrap(), &self.request(now)).map_err(|denied| denied.cause)
    }

    /// A whole download as far as its first byte.
    async fn get(&self, links: &Links, token: &Minted) -> Result<Transfer, Cause> {
        let admission = self.admit(links, token, NOW)?;
        let begun = admission.begin(Digest::of(b"a"), SIZE, None).await.unwrap();
        begun.map_err(|denied| denied.cause)
    }
}

fn order() -> MintOrder {
    MintOrder { resources: vec!["r/app/a".into()], ..MintOrder::default() }
}

fn once() -> MintOrder {
    MintOrder { uses: Some(1), ..order() }
}

fn note() -> Note {
    Note { reason: "lost laptop".into(), who: "user:alice".into(), at: NOW }
}

#[tokio::test]
async fn a_link_opens_until_it_is_revoked_and_stays_so() {
    let world = World::new();
    for algorithm in [LinkAlgorithm::HmacSha256, LinkAlgorithm::Ed25519] {
        let world = World { store: Arc::default(), vault: Arc::default(), ..World::new() };
        let links = world.with_key(algorithm).await;
        let (one, other) = (
            links.mint(&order(), "user:alice", NOW).await.unwrap(),
            links.mint(&order(), "x", NOW).await.unwrap(),
        );
        let running = world.get(&links, &one).await.unwrap();
        assert!(running.still_valid());
        let id = one.record.claims.id;
        links.revoke_link(id, note()).await.unwrap();
        assert!(!running.still_valid(), "a running transfer is cut");
        assert!(world.get(&links, &other).await.unwrap().still_valid());
        // The next start knows.
        let links = world.open().await;
        assert_eq!(world.admit(&links, &one, NOW).unwrap_err(), Cause::Revoked);
        world.admit(&links, &other, NOW).unwrap();
        let info = links.link(id).await.unwrap().unwrap();
        assert_eq!((info.dead, info.link.revoked), (Some("revoked"), Some(note())));
        assert_eq!(links.list(None, 1).await.unwrap().len(), 1);
        assert_eq!(links.list(Some(id.min(other.record.claims.id)), 9).await.unwrap().len(), 1);
    }
    let mut text = String::new();
    for entry in world.store.scan(&b"g"[..]..&b"h"[..], 1_000).await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&entry.value));
    }
    assert!(!text.contains("v1."), "a token is stored");
}

#[tokio::test]
async fn neither_tokens_nor_secrets_are_in_the_store() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    links.create_key(Some(KeyName::new("k2").unwrap()), LinkAlgorithm::Ed25519, "x", NOW).await.unwrap();
    let mut secrets = Vec::new();
    for key in ["k1", "k2"] {
        let key = KeyName::new(key).unwrap();
        let minted = links.mint(&MintOrder { key: Some(key.clone()), ..once() }, "x", NOW).await.unwrap();
        let token = minted.token.expose_str().unwrap().to_owned();
        secrets.push(token.rsplit_once('.').unwrap().1.to_owned());
        secrets.push(token.split('.').nth(2).unwrap().to_owned());
        let secret = world.vault.secret(&key).unwrap().unwrap();
        secrets.extend(secret.expose_str().unwrap().lines().skip(1).map(str::to_owned));
        let transfer = world.get(&links, &minted).await.unwrap();
        transfer.ended(3);
    }
    links.upkeep(NOW).await.unwrap();
    let entries = world.store.scan(&b"\0"[..]..&b"\xff"[..], 10_000).await.unwrap();
    assert!(entries.len() > 6);
    for secret in secrets {
        for entry in &entries {
            assert!(!String::from_utf8_lossy(&entry.value).contains(&secret), "{:?}", entry.key);
        }
    }
}

#[tokio::test]
async fn everything_of_a_subject_a_tenant_a_policy_a_key_dies_at_once() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let policy = crate::link::PolicyName::new("partners").unwrap();
    let limited = MintOrder { policy: Some(policy.clone()), ..order() };
    assert_eq!(links.mint(&limited, "x", NOW).await.unwrap_err().kind(), ErrorKind::NotFound);
    links.set_policy(&policy, LinkPolicy::default(), "x", NOW).await.unwrap();
    let bobs = MintOrder { subject: Some("bob".into()), ..order() };
    let (bob, plain) =
        (links.mint(&bobs, "x", NOW).await.unwrap(), links.mint(&order(), "x", NOW).await.unwrap());
    let under = links.mint(&limited, "x", NOW).await.unwrap();

    assert_eq!(links.revoke_subject("bob", note()).await.unwrap(), 1);
    assert_eq!(world.admit(&links, &bob, NOW).unwrap_err(), Cause::Epoch);
    world.admit(&links, &plain, NOW).unwrap();
    let bob = links.mint(&bobs, "x", NOW).await.unwrap();
    world.admit(&links, &bob, NOW).unwrap();

    // A policy that changes limits what is out; one that goes takes its links with it.
    world.admit(&links, &under, NOW).unwrap();
    let here = LinkPolicy { networks: vec!["192.0.2.0/24".parse().unwrap()], ..LinkPolicy::default() };
    links.set_policy(&policy, here, "x", NOW).await.unwrap();
    assert_eq!(world.admit(&links, &under, NOW).unwrap_err(), Cause::Address);
    assert!(links.remove_policy(&policy).await.unwrap());
    assert_eq!(world.admit(&links, &under, NOW).unwrap_err(), Cause::PolicyGone);
    links.set_policy(&policy, LinkPolicy::default(), "x", NOW).await.unwrap();
    world.admit(&links, &under, NOW).unwrap();
    links.revoke_policy(&policy, note()).await.unwrap();
    assert_eq!(world.admit(&links, &under, NOW).unwrap_err(), Cause::PolicyGone);
    let again = links.set_policy(&policy, LinkPolicy::default(), "x", NOW).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict, "a revoked policy came back");

    assert_eq!(links.revoke_everything(note()).await.unwrap(), 2);
    for dead in [&bob, &plain] {
        assert_eq!(world.admit(&links, dead, NOW).unwrap_err(), Cause::Epoch);
    }
    let bob = links.mint(&bobs, "x", NOW).await.unwrap();
    world.admit(&links, &bob, NOW).unwrap();

    let name = KeyName::new("k1").unwrap();
    links.revoke_key(&name, note()).await.unwrap();
    assert_eq!(world.admit(&links, &bob, NOW).unwrap_err(), Cause::RevokedKey);
    assert!(world.vault.secret(&name).unwrap().is_none(), "the secret of a revoked key is forgotten");
    let links = world.open().await;
    assert_eq!(world.admit(&links, &bob, NOW).unwrap_err(), Cause::RevokedKey);
    assert_eq!(world.admit(&links, &under, NOW).unwrap_err(), Cause::RevokedKey);
    let back = links.create_key(Some(name), LinkAlgorithm::HmacSha256, "x", NOW).await;
    assert_eq!(back.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(links.sequence(), 4);
}

/// Case E13: of the parallel downloads of a link for one, one gets its first byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_races_have_one_winner_each() {
    let world = Arc::new(World::new());
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    for round in 0..1_000 {
        let minted = Arc::new(links.mint(&once(), "x", NOW).await.unwrap());
        let racers = if round < 20 { 100 } else { 8 };
        let tasks: Vec<_> = (0..racers)
            .map(|_| {
                let (world, links, minted) = (Arc::clone(&world), links.clone(), Arc::clone(&minted));
                tokio::spawn(async move { world.get(&links, &minted).await })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(transfer) => winners.push(transfer),
                Err(cause) => assert_eq!(cause, Cause::Used),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        winners[0].ended(SIZE);
        assert_eq!(world.get(&links, &minted).await.unwrap_err(), Cause::Used, "round {round}");
    }
}

#[tokio::test]
async fn a_budget_survives_the_process() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let minted = links.mint(&once(), "x", NOW).await.unwrap();
    let token = minted.token.expose_str().unwrap().to_owned();
    let range = |start, end| vec![ByteRange::new(start, end).unwrap()];
    let digest = Digest::of(b"a");
    let part = async |links: &Links, client: u8, range: Vec<ByteRange>| {
        let mut request = world.request(NOW);
        request.client = Some(IpAddr::from([203, 0, 113, client]));
        let admission = links.admit(&token, &request).unwrap();
        admission.begin(digest, SIZE, Some(&range)).await.unwrap().map_err(|denied| denied.cause)
    };
    let first = part(&links, 7, range(0, 400)).await.unwrap();
    first.ended(300);
    links.settle().await.unwrap();
    // The process dies while 300..1000 is on its way.
    std::mem::forget(part(&links, 7, range(300, SIZE)).await.unwrap());
    let links = world.open().await;
    assert_eq!(part(&links, 8, range(300, 301)).await.unwrap_err(), Cause::Used, "not for others");
    let usage = links.link(minted.record.claims.id).await.unwrap().unwrap().usage.unwrap();
    assert_eq!((usage.delivered, usage.reserved), (300, 700));
    let rest = part(&links, 7, range(300, SIZE)).await.unwrap();
    let head = {
        let request = LinkRequest { method: "HEAD", ..world.request(NOW) };
        links.admit(&token, &request).unwrap().begin(digest, SIZE, None).await.unwrap()
    };
    assert!(head.is_ok(), "HEAD costs nothing");
    rest.ended(700);
    assert_eq!(part(&links, 7, range(0, 1)).await.unwrap_err(), Cause::Used);
    let usage = links.link(minted.record.claims.id).await.unwrap().unwrap().usage.unwrap();
    assert_eq!((usage.completed, usage.open), (1, 0));
}

/// A transfer that is dropped without a word of what was delivered stays paid.
#[tokio::test]
async fn a_transfer_that_vanishes_gives_nothing_back() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let minted = links.mint(&once(), "x", NOW).await.unwrap();
    drop(world.get(&links, &minted).await.unwrap());
    let mut request = world.request(NOW);
    request.client = None;
    let other = links.admit(minted.token.expose_str().unwrap(), &request).unwrap();
    assert!(other.begin(Digest::of(b"a"), SIZE, None).await.unwrap().is_err());
    world.get(&links, &minted).await.unwrap();
}

#[tokio::test]
async fn a_download_that_began_in_time_may_go_on() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let minted = links.mint(&MintOrder { expires_in: Some(600), ..order() }, "x", NOW).await.unwrap();
    let cut = world.get(&links, &minted).await.unwrap();
    cut.ended(10);
    links.upkeep(NOW).await.unwrap();
    // The start after a crash knows of it too.
    let links = world.open().await;
    let token = minted.token.expose_str().unwrap();
    let later = NOW.plus(600);
    assert_eq!(world.admit(&links, &minted, later).unwrap_err(), Cause::Expired, "not without a range");
    let request = world.request(later).with_range(true);
    let resumed = links.admit(token, &request).unwrap();
    assert!(resumed.link().is_graced());
    let other = links.admit(token, &request).unwrap().begin(Digest::of(b"b"), SIZE, None).await.unwrap();
    assert_eq!(other.unwrap_err().cause, Cause::Grace);
    let running = resumed.begin(Digest::of(b"a"), SIZE, None).await.unwrap().unwrap();
    let elsewhere = LinkRequest { client: None, ..request.clone() };
    assert_eq!(links.admit(token, &elsewhere).unwrap_err().cause, Cause::Expired);
    // Ten minutes of life, ten minutes of grace.
    let over = LinkRequest { now: NOW.plus(1_200), ..request.clone() };
    assert_eq!(links.admit(token, &over).unwrap_err().cause, Cause::Expired);
    links.revoke_link(minted.record.claims.id, note()).await.unwrap();
    assert!(!running.still_valid());
    assert_eq!(links.admit(token, &request).unwrap_err().cause, Cause::Revoked);
}

#[tokio::test]
async fn revocations_and_public_keys_travel() {
    let (center, far) = (World::new(), World::new());
    let source = center.with_key(LinkAlgorithm::Ed25519).await;
    let (one, other) =
        (source.mint(&order(), "x", NOW).await.unwrap(), source.mint(&order(), "x", NOW).await.unwrap());
    let edge = far.open().await;
    assert_eq!(far.admit(&edge, &one, NOW).unwrap_err(), Cause::UnknownKey);
    assert_eq!(edge.apply("center", source.update(0).await.unwrap(), NOW).await.unwrap(), 0);
    let running = far.get(&edge, &one).await.unwrap();
    far.admit(&edge, &other, NOW).unwrap();
    assert!(edge.mint(&order(), "x", NOW).await.is_err(), "an edge with the public half mints");

    source.revoke_link(one.record.claims.id, note()).await.unwrap();
    let first = source.update(0).await.unwrap();
    source.revoke_subject("bob", note()).await.unwrap();
    let second = source.update(1).await.unwrap();
    let list = second.list.clone();
    assert_eq!(edge.apply("center", second.clone(), NOW).await.unwrap_err().kind(), ErrorKind::Conflict);
    let text = serde_json::to_string(&first).unwrap();
    let first: RevocationUpdate = serde_json::from_str(&text).unwrap();
    assert_eq!(edge.apply("center", first.clone(), NOW).await.unwrap(), 1);
    assert!(!running.still_valid());
    assert_eq!(edge.apply("center", second, NOW).await.unwrap(), 2);
    let generation = edge.generation();
    assert_eq!(edge.apply("center", first, NOW).await.unwrap(), 2, "an old one changes nothing");
    assert_eq!(edge.generation(), generation);
    let edge = far.open().await;
    assert_eq!((edge.applied("center", list.as_deref()).await.unwrap(), edge.sequence()), (2, 2));
    assert_eq!(far.admit(&edge, &one, NOW).unwrap_err(), Cause::Revoked);
    far.admit(&edge, &other, NOW).unwrap();

    source.revoke_key(&KeyName::new("k1").unwrap(), note()).await.unwrap();
    edge.apply("center", source.update(2).await.unwrap(), NOW).await.unwrap();
    assert_eq!(far.admit(&edge, &other, NOW).unwrap_err(), Cause::RevokedKey);
}

#[tokio::test]
async fn what_ran_out_is_forgotten() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let name = KeyName::new("k1").unwrap();
    let minted = links.mint(&once(), "x", NOW).await.unwrap();
    world.get(&links, &minted).await.unwrap().ended(SIZE);
    let revoked = links.mint(&order(), "x", NOW).await.unwrap();
    links.revoke_link(revoked.record.claims.id, note()).await.unwrap();
    links.retire_key(&name).await.unwrap();
    assert!(links.mint(&order(), "x", NOW).await.is_err());
    let end = minted.record.claims.expires;
    links.upkeep(end.plus(MAX_GRACE)).await.unwrap();
    assert_eq!(world.admit(&links, &revoked, end).unwrap_err(), Cause::Revoked, "not before its time");
    assert_eq!(links.keys().await.unwrap()[0].1.state, KeyState::VerifyOnly);
    links.upkeep(end.plus(MAX_GRACE + CLEANING + 61)).await.unwrap();
    assert!(links.keys().await.unwrap().is_empty() && world.vault.secret(&name).unwrap().is_none());
    assert_eq!(links.list(None, 9).await.unwrap().len(), 2);
    links.upkeep(end.plus(KEEP + 1)).await.unwrap();
    assert!(links.list(None, 9).await.unwrap().is_empty());
    let left = world.store.scan(&b"g"[..]..&b"h"[..], 100).await.unwrap();
    let left: Vec<String> =
        left.iter().map(|entry| String::from_utf8_lossy(&entry.key).replace('\0', "/")).collect();
    assert!(left.iter().all(|key| key.contains("link-state")), "{left:?}");
    // Numbers do not begin anew.
    assert_eq!(world.open().await.sequence(), 1);
}

#[tokio::test]
async fn a_key_whose_file_is_gone_stops_nothing_else() {
    let world = World::new();
    let links = world.with_key(LinkAlgorithm::HmacSha256).await;
    let lost = links.mint(&order(), "x", NOW).await.unwrap();
    links
        .create_key(Some(KeyName::new("k2").unwrap()), LinkAlgorithm::Ed25519, "x", NOW.plus(1))
        .await
        .unwrap();
    let kept = links.mint(&order(), "x", NOW).await.unwrap();
    world.vault.remove(&KeyName::new("k1").unwrap()).unwrap();
    let links = world.open().await;
    assert_eq!(world.admit(&links, &lost, NOW).unwrap_err(), Cause::RevokedKey);
    world.admit(&links, &kept, NOW).unwrap();
}
