//! Group E: links that are good, used where or when they are not.

use distedge::govern::MintOrder;
use distedge::link::LinkMethod;
use serde_json::json;

use super::links::{claims, forged, house, refused};
use super::rig::{AWAY, HERE, LOST, Rig, ask, one, opened, order};
use crate::support::{NOW, name};

const A: &str = "/files/app/1.0/a.bin";
const S: &str = "/vault/s.bin";

#[tokio::test]
async fn e03_a_second_early_and_a_second_late() {
    let rig = Rig::new().await;
    let minted = MintOrder { not_before: Some(NOW.plus(1_000)), ..order(&["vault/s.bin"]) };
    let (token, _) = rig.link(minted).await;
    rig.clock.advance(1_000 - 61);
    assert_eq!(refused(&rig, &token).await.status, 403);
    rig.clock.advance(1);
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200, "a minute is forgiven");
    rig.clock.advance(3_599 - 940);
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200, "exp - 1");
    rig.clock.advance(1);
    assert_eq!(refused(&rig, &token).await.status, 403, "exp");
}

#[tokio::test]
async fn e06_a_folder_and_its_neighbour() {
    let rig = Rig::new().await;
    let (token, _) = rig.link(order(&["files/app/1.0/"])).await;
    assert_eq!(opened(A, &token).to(&rig.edge).await.body, one());
    for (path, expected) in [
        ("/files/app/1.0.1/x", 403),
        ("/files/app/1.0", 403),
        ("/files/app/1.0/", 403),
        ("/files/app/2.0/a.bin", 403),
        ("/files/app/latest", 403),
        ("/files/", 403),
        ("/vault/app/1.0/a.bin", 403),
        ("/files/app/1.0/%2e%2e/2.0/a.bin", 400),
        ("/files/app/1.0/../2.0/a.bin", 400),
        ("/files/app/1.0//a.bin", 400),
        ("/files/app/1.0%2fa.bin", 400),
        ("/files/app/1.0/nothing", 404),
        ("/api/v1/status", 401),
        ("/", 200),
    ] {
        assert_eq!(opened(path, &token).status(&rig.edge).await, expected, "{path}");
    }
    for bad in [
        json!([{ "p": "files/app/1.0" }]),
        json!([{ "p": "files/app/1.0/" }]),
        json!([{ "e": "files/app/1.0/" }]),
    ] {
        let mut claims = claims();
        claims["res"] = bad.clone();
        let forged = forged(&claims.to_string());
        let got = opened("/files/app/1.0.1/x", &forged).status(&rig.edge).await;
        assert_eq!(got, 403, "{bad}");
    }
}

#[tokio::test]
async fn e15_a_country_that_nobody_can_tell() {
    let rig = Rig::with(|options| options.geo = std::sync::Arc::new(distedge::geo::NoGeo)).await;
    let german = MintOrder { countries: vec![name("DE")], ..order(&["vault/s.bin"]) };
    let (token, _) = rig.link(german.clone()).await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 403);
    let rig = Rig::new().await;
    let (token, _) = rig.link(german).await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 200);
    for away in [LOST, AWAY, "127.0.0.1", "::1", "fe80::1"] {
        assert_eq!(opened(S, &token).from(away).status(&rig.edge).await, 403, "{away}");
    }
    assert_eq!(opened(S, &token).at_no_address().status(&rig.edge).await, 403);
    let near = MintOrder { networks: vec![name("10.1.0.0/16")], ..order(&["vault/s.bin"]) };
    let (token, _) = rig.link(near).await;
    assert_eq!(opened(S, &token).from("::ffff:10.1.9.9").status(&rig.edge).await, 200);
    assert_eq!(opened(S, &token).from(LOST).status(&rig.edge).await, 403);
    assert_eq!(opened(S, &token).at_no_address().status(&rig.edge).await, 403);
    let claim = opened(S, &token).from(AWAY).header("x-forwarded-for", HERE);
    assert_eq!(claim.status(&rig.edge).await, 403);
}

#[tokio::test]
async fn e16_a_link_for_another_edge_or_method() {
    let rig = Rig::with(|options| options.groups = vec![name("eu")]).await;
    for (audience, expected) in
        [(vec!["e1"], 200), (vec!["e2"], 403), (vec!["e2", "eu"], 200), (vec!["us"], 403), (vec!["e"], 403)]
    {
        let audience = audience.into_iter().map(name).collect();
        let (token, _) = rig.link(MintOrder { audience, ..order(&["vault/s.bin"]) }).await;
        assert_eq!(opened(S, &token).status(&rig.edge).await, expected);
    }
    // A budget is one edge's: a group does not do for it.
    let counted = MintOrder { audience: vec![name("eu")], uses: Some(3), ..order(&["vault/s.bin"]) };
    let (token, _) = rig.link(counted).await;
    assert_eq!(opened(S, &token).status(&rig.edge).await, 403);
    let mut foreign = claims();
    foreign["ten"] = json!("globex");
    assert_eq!(refused(&rig, &forged(&foreign.to_string())).await.status, 403);
    let headed = MintOrder { methods: vec![LinkMethod::Head], ..order(&["vault/s.bin"]) };
    let (token, _) = rig.link(headed).await;
    assert_eq!(opened(S, &token).status(&rig.edge).await, 403);
    assert_eq!(ask("HEAD", &format!("{S}?edge_token={token}")).status(&rig.edge).await, 200);
    let (token, _) = rig.link(MintOrder { methods: vec![LinkMethod::Get], ..order(&["vault/s.bin"]) }).await;
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(ask(method, &format!("{S}?edge_token={token}")).status(&rig.edge).await, 405, "{method}");
    }
}

#[tokio::test]
async fn e17_the_clock_is_set_back_after_the_end() {
    let (rig, token, _) = house().await;
    rig.clock.advance(3_600);
    assert_eq!(refused(&rig, &token).await.status, 403);
    rig.clock.advance(-3_600);
    assert_eq!(refused(&rig, &token).await.status, 403, "time does not go back");
    rig.edge.upkeep().await.unwrap();
    let rig = rig.reopened().await;
    rig.clock.advance(-7_200);
    assert_eq!(refused(&rig, &token).await.status, 403, "nor over a restart");
}
