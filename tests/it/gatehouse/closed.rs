//! What cannot be told opens nothing: every kind of doubt against every kind of rule. Groups J and
//! the matrix of what fails closed.

use std::sync::Arc;
use std::time::Duration;

use distedge::geo::{GeoResolver, MaxMindGeo, NoGeo, Stale, StaticGeo};
use distedge::govern::MintOrder;
use serde_json::{Value, json};

use super::rig::{AWAY, Ask, HERE, LOST, Rig, get, new_user, opened, order, pack};
use crate::support::{NOW, name};

/// Who asks: known, of an unknown country, from the wrong place, from an unknown address.
const CLIENTS: [&str; 4] = [HERE, LOST, AWAY, ""];

fn at(ask: Ask, client: &str) -> Ask {
    if client.is_empty() { ask.at_no_address() } else { ask.from(client) }
}

/// What each rule should say to each of [`CLIENTS`], with a database of countries and without one.
const RULES: [(&str, &str, [bool; 4], [bool; 4]); 6] = [
    ("networks", r#"{"allow":["10.0.0.0/8"]}"#, [true, true, false, false], [true, true, false, false]),
    ("networks", r#"{"deny":["192.0.2.0/24"]}"#, [true, true, false, false], [true, true, false, false]),
    ("countries", r#"{"allow":["DE"]}"#, [true, false, false, false], [false; 4]),
    ("countries", r#"{"deny":["FR"]}"#, [true, false, false, false], [false; 4]),
    // NOW is 2026-11-22T05:00:00Z.
    ("hours", r#"["00:00-24:00"]"#, [true; 4], [true; 4]),
    ("hours", r#"["01:00-01:01"]"#, [false; 4], [false; 4]),
];

async fn house(geo: Arc<dyn GeoResolver>) -> Rig {
    let mut rig = Rig::with(|options| options.geo = geo).await;
    rig.publish(vec![
        pack("b0", "1.0", 1)
            .with("files", "b0/x", b"x")
            .bound(json!({ "nets": { "allow": ["10.0.0.0/8"] } })),
        pack("b1", "1.0", 1)
            .with("files", "b1/x", b"x1")
            .bound(json!({ "nets": { "deny": ["192.0.2.0/24"] } })),
        pack("b2", "1.0", 1).with("files", "b2/x", b"x2").bound(json!({ "countries": { "allow": ["DE"] } })),
        pack("b3", "1.0", 1).with("files", "b3/x", b"x3").bound(json!({ "countries": { "deny": ["FR"] } })),
        pack("b4", "1.0", 1).with("files", "b4/x", b"x4").bound(json!({ "nets": { "allow": [] } })),
    ])
    .await;
    rig
}

/// Every rule against every client; `told`: whether countries can be told.
async fn matrix(rig: &Rig, told: bool) {
    let (user, _) = rig.user(new_user("user:alice")).await;
    let grant = json!([{ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] }]);
    let (link, _) = rig.link(order(&["vault/s.bin"])).await;
    for (part, rule, with, without) in RULES {
        let rule: Value = serde_json::from_str(rule).unwrap();
        let expected = if told { with } else { without };
        rig.policy(json!({ "grant": grant, "restrict": [{ "name": "r", "on": ["files/app/**", "vault/**"], part: rule }] }))
            .await;
        for (client, expected) in CLIENTS.into_iter().zip(expected) {
            let expected = if expected { 200 } else { 403 };
            let what = format!("{part} {rule} for {client:?}, countries told: {told}");
            let public = get("/files/app/1.0/a.bin");
            assert_eq!(at(public, client).status(&rig.edge).await, expected, "public: {what}");
            let alias = get("/files/app/latest");
            assert_eq!(at(alias, client).status(&rig.edge).await, expected, "alias: {what}");
            let listing = get("/files/app/");
            assert_eq!(at(listing, client).status(&rig.edge).await, expected, "listing: {what}");
            let own = get("/vault/s.bin").bearer(&user);
            assert_eq!(at(own, client).status(&rig.edge).await, expected, "user: {what}");
            let linked = opened("/vault/s.bin", &link);
            assert_eq!(at(linked, client).status(&rig.edge).await, expected, "link: {what}");
            let root = get("/vault/s.bin").bearer(rig.token);
            let root = at(root, client).status(&rig.edge).await;
            assert_eq!(root, expected, "the control token is no way around: {what}");
        }
    }
    rig.policy(json!({})).await;
    for (bundle, with, without) in [
        ("b0", [true, true, false, false], [true, true, false, false]),
        ("b1", [true, true, false, false], [true, true, false, false]),
        ("b2", [true, false, false, false], [false; 4]),
        ("b3", [true, false, false, false], [false; 4]),
        ("b4", [false; 4], [false; 4]),
    ] {
        let path = format!("files/{bundle}/x");
        let (link, _) = rig.link(order(&[&path])).await;
        for (client, expected) in CLIENTS.into_iter().zip(if told { with } else { without }) {
            let expected = if expected { 200 } else { 403 };
            let signed = at(get(&format!("/{path}")), client).status(&rig.edge).await;
            assert_eq!(signed, expected, "{bundle} for {client:?}");
            let linked = at(opened(&format!("/{path}"), &link), client).status(&rig.edge).await;
            assert_eq!(linked, expected, "{bundle} by a link for {client:?}");
            let root = at(get(&format!("/{path}")).bearer(rig.token), client).status(&rig.edge).await;
            assert_eq!(root, expected, "{bundle} by the control token for {client:?}");
        }
    }
    for (network, country, expected) in [
        (Some("10.0.0.0/8"), None, [true, true, false, false]),
        (None, Some("DE"), [told, false, false, false]),
        (Some("10.0.0.0/8"), Some("DE"), [told, false, false, false]),
    ] {
        let networks = network.into_iter().map(name).collect();
        let countries = country.into_iter().map(name).collect();
        let (link, _) = rig.link(MintOrder { networks, countries, ..order(&["vault/s.bin"]) }).await;
        for (client, expected) in CLIENTS.into_iter().zip(expected) {
            let status = at(opened("/vault/s.bin", &link), client).status(&rig.edge).await;
            assert_eq!(status, if expected { 200 } else { 403 }, "{network:?} {country:?} for {client:?}");
        }
    }
    for client in CLIENTS {
        let free = at(get("/files/app/1.0/a.bin"), client).status(&rig.edge).await;
        assert_eq!(free, 200, "what nothing restricts is for everyone");
    }
}

#[tokio::test]
async fn doubt_opens_a_door() {
    matrix(&house(Arc::new(super::rig::world())).await, true).await;
}

#[tokio::test]
async fn doubt_opens_a_door_where_no_country_is_known() {
    matrix(&house(Arc::new(NoGeo)).await, false).await;
}

#[tokio::test]
async fn doubt_opens_a_door_after_a_restart_or_with_an_expired_trust() {
    let rig = house(Arc::new(super::rig::world())).await.reopened().await;
    // The trust document has run out: what is here stays as it was, and nothing new comes.
    rig.clock.advance(91 * 86_400);
    matrix(&rig, true).await;
}

/// Of several bundles that hold one artifact, each has its say.
#[tokio::test]
async fn one_bundle_lifts_what_another_signed() {
    let mut rig = Rig::new().await;
    let same = b"the same bytes under the same name";
    rig.publish(vec![
        pack("free", "1.0", 1).with("files", "both/x", same),
        pack("bound", "1.0", 1)
            .with("files", "both/x", same)
            .bound(json!({ "countries": { "allow": ["DE"] } })),
    ])
    .await;
    assert_eq!(get("/files/both/x").from(HERE).status(&rig.edge).await, 200);
    assert_eq!(get("/files/both/x").from(AWAY).status(&rig.edge).await, 403);
    let here = json!({ "name": "r", "on": ["files/both/**"], "countries": { "allow": ["FR"] } });
    rig.policy(json!({ "restrict": [here] })).await;
    assert_eq!(get("/files/both/x").from(HERE).status(&rig.edge).await, 403, "own rules only add to it");
    assert_eq!(get("/files/both/x").from(AWAY).status(&rig.edge).await, 403);
    rig.policy(json!({})).await;
    // Withdrawing the one that bound it frees the artifact.
    rig.house.withdraw("bound", "1.0");
    rig.converge().await;
    assert_eq!(get("/files/both/x").from(AWAY).status(&rig.edge).await, 200);
}

/// A restriction on another name of an artifact.
#[tokio::test]
async fn an_alias_goes_around_a_restriction() {
    let rig = Rig::new().await;
    for on in ["files/app/latest", "files/app/2.0/a.bin", "files/app/2.0/**"] {
        let rule = json!({ "name": "r", "on": [on], "networks": { "allow": ["10.0.0.0/8"] } });
        rig.policy(json!({ "restrict": [rule] })).await;
        assert_eq!(get("/files/app/latest").from(AWAY).status(&rig.edge).await, 403, "{on}");
        let here = get("/files/app/latest").from(HERE).to(&rig.edge).await;
        assert_eq!(here.status, 200);
        assert!(here.header("cache-control").unwrap().contains("private"), "{on}: {here:?}");
    }
    let rule = json!({ "name": "r", "on": ["files/**"], "bundles": ["app"], "versions": ["2.*"],
                       "networks": { "allow": ["10.0.0.0/8"] } });
    rig.policy(json!({ "restrict": [rule] })).await;
    assert_eq!(get("/files/app/latest").from(AWAY).status(&rig.edge).await, 403);
    assert_eq!(get("/files/app/2.0/a.bin").from(AWAY).status(&rig.edge).await, 403);
    assert_eq!(get("/files/app/1.0/a.bin").from(AWAY).status(&rig.edge).await, 200);
}

#[tokio::test]
async fn without_a_policy_private_things_are_open() {
    let rig = Rig::new().await;
    assert_eq!(rig.edge.policies_in_force().unwrap().current().version, 0);
    let (user, _) = rig.user(new_user("user:alice")).await;
    assert_eq!(get("/vault/s.bin").status(&rig.edge).await, 401);
    assert_eq!(get("/vault/s.bin").bearer(&user).status(&rig.edge).await, 404);
    assert_eq!(get("/vault/").bearer(&user).status(&rig.edge).await, 404);
    assert_eq!(get("/api/v1/events").bearer(&user).status(&rig.edge).await, 404);
    assert_eq!(get("/files/app/1.0/a.bin").bearer(&user).status(&rig.edge).await, 200);
}

fn database(built: i64) -> Arc<MaxMindGeo> {
    let rows = "8.8.8.0/24,US\n10.1.0.0/16,DE\n";
    let bytes = StaticGeo::parse(rows).unwrap().to_database("Test-Country", "test", NOW.plus(built)).unwrap();
    Arc::new(MaxMindGeo::from_bytes(bytes).unwrap())
}

#[tokio::test]
async fn j03_an_address_that_no_database_knows() {
    let rig = Rig::with(|options| options.geo = database(0)).await;
    let rule = json!({ "name": "r", "on": ["files/app/**"], "countries": { "deny": ["US"] } });
    rig.policy(json!({ "restrict": [rule] })).await;
    assert_eq!(get("/files/app/1.0/a.bin").from("10.1.1.1").status(&rig.edge).await, 200);
    for address in [
        "8.8.8.8",
        "8.8.9.1",
        "127.0.0.1",
        "::1",
        "10.2.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "fe80::1",
        "fc00::1",
        "0.0.0.0",
        "255.255.255.255",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(get("/files/app/1.0/a.bin").from(address).status(&rig.edge).await, 403, "{address}");
        assert_eq!(get("/files/app/1.0.1/x").from(address).status(&rig.edge).await, 403, "{address}");
    }
    rig.policy(json!({})).await;
    for address in ["8.8.9.1", "127.0.0.1", "::1", "fe80::1"] {
        assert_eq!(get("/files/app/1.0/a.bin").from(address).status(&rig.edge).await, 200, "{address}");
    }
}

#[tokio::test]
async fn j04_a_database_that_is_too_old() {
    let clock = crate::support::FixedClock::new();
    let aged = |stale| {
        let rows = "10.1.0.0/16,DE\n";
        let built = NOW.plus(-40 * 86_400);
        let bytes = StaticGeo::parse(rows).unwrap().to_database("Test-Country", "test", built).unwrap();
        let geo = MaxMindGeo::from_bytes(bytes).unwrap().with_clock(clock.clone());
        Arc::new(geo.with_max_age(Duration::from_secs(30 * 86_400), stale))
    };
    let rule = json!([{ "name": "r", "on": ["files/app/**"], "countries": { "allow": ["DE"] } }]);
    for (stale, expected) in [(Stale::Deny, 403), (Stale::Serve, 200)] {
        let rig = Rig::with(|options| options.geo = aged(stale)).await;
        rig.policy(json!({ "restrict": rule })).await;
        assert_eq!(get("/files/app/1.0/a.bin").from(HERE).status(&rig.edge).await, expected);
        assert!(rig.edge.governance().geo.state().degraded.is_some());
    }
}
