//! What a link still owes its holder: free looks, ranges that go on, a budget that is neither lost
//! nor spent twice.

use distedge::digest::Digest;
use distedge::edge::Body;
use distedge::govern::MintOrder;
use distedge::link::{LinkPolicy, PolicyName, Usage};
use http::Response;
use serde_json::json;

use super::rig::{AWAY, HERE, Rig, ask, get, note, one, opened, order, pack, two};
use crate::support::{NOW, name};

const A: &str = "/files/app/1.0/a.bin";
const S: &str = "/vault/s.bin";

async fn usage(rig: &Rig, id: distedge::link::LinkId) -> Usage {
    let links = rig.links();
    links.settle().await.unwrap();
    links.link(id).await.unwrap().unwrap().usage.unwrap()
}

fn counted(resource: &str, uses: u32) -> MintOrder {
    MintOrder { uses: Some(uses), ..order(&[resource]) }
}

/// Reads at least `least` bytes, and goes away.
async fn break_off(response: Response<Body>, least: usize) -> usize {
    let mut body = response.into_body();
    let mut got = 0;
    while got < least {
        got += body.next_chunk().await.unwrap().unwrap().len();
    }
    got
}

#[tokio::test]
async fn looking_costs_a_use() {
    let rig = Rig::new().await;
    let (token, id) = rig.link(counted("files/app/1.0/a.bin", 1)).await;
    let target = format!("{A}?edge_token={token}");
    let tag = format!("\"sha256:{}\"", Digest::of(&one()).to_hex());
    let known = ask("HEAD", &target).to(&rig.edge).await;
    assert_eq!((known.status, known.header("content-length")), (200, Some("300000")));
    let tag = known.header("etag").map_or(tag, str::to_owned);
    for _ in 0..5 {
        assert_eq!(ask("HEAD", &target).status(&rig.edge).await, 200);
        let fresh = get(&target).header("if-none-match", &tag).status(&rig.edge).await;
        assert_eq!(fresh, 304, "a copy that is still good is told so");
        assert_eq!(get(&target).header("range", "bytes=300000-").status(&rig.edge).await, 416);
        assert_eq!(get(&target).header("if-match", "\"other\"").status(&rig.edge).await, 412);
        assert_eq!(ask("OPTIONS", &target).status(&rig.edge).await, 204);
    }
    assert_eq!(usage(&rig, id).await, Usage::default());
    assert_eq!(get(&target).to(&rig.edge).await.body, one());
    assert_eq!(usage(&rig, id).await, Usage { completed: 1, ..Usage::default() });
    assert_eq!(get(&target).status(&rig.edge).await, 403);
    assert_eq!(ask("HEAD", &target).status(&rig.edge).await, 200, "a look is free at the end, too");
}

#[tokio::test]
async fn a_download_in_ranges_costs_more_than_one_use() {
    let rig = Rig::new().await;
    let (token, id) = rig.link(counted("files/app/1.0/a.bin", 1)).await;
    let range =
        |from: usize, until: usize| opened(A, &token).header("range", &format!("bytes={from}-{}", until - 1));
    let bytes = one();
    for (from, until) in [(0, 100_000), (0, 100_000), (50_000, 200_000), (0, 10), (200_000, 250_000)] {
        let got = range(from, until).to(&rig.edge).await;
        assert_eq!((got.status, &got.body[..]), (206, &bytes[from..until]));
    }
    let open = usage(&rig, id).await;
    assert_eq!((open.completed, open.open, open.delivered, open.reserved), (0, 1, 250_000, 0));
    // Another client has no part in it.
    assert_eq!(range(0, 300_000).from(AWAY).status(&rig.edge).await, 403);
    let many = opened(A, &token).header("range", "bytes=250000-250009,260000-299999");
    assert_eq!(many.status(&rig.edge).await, 200, "of several ranges it is the whole");
    assert_eq!(usage(&rig, id).await.completed, 1);
    assert_eq!(range(0, 10).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_client_that_goes_away_has_lost_its_use() {
    let rig = Rig::new().await;
    let (token, id) = rig.link(counted("files/app/1.0/a.bin", 1)).await;
    let got = break_off(opened(A, &token).begun(&rig.edge).await, 70_000).await;
    let open = usage(&rig, id).await;
    assert_eq!((open.completed, open.delivered, open.reserved), (0, got as u64, 0));
    let rest = opened(A, &token).header("range", &format!("bytes={got}-")).to(&rig.edge).await;
    assert_eq!((rest.status, &rest.body[..]), (206, &one()[got..]));
    assert_eq!(usage(&rig, id).await.completed, 1);
    // One that never reads a byte has used nothing.
    let (token, id) = rig.link(counted("vault/s.bin", 1)).await;
    drop(opened(S, &token).begun(&rig.edge).await);
    assert_eq!(usage(&rig, id).await, Usage::default());
    assert_eq!(opened(S, &token).status(&rig.edge).await, 200);
    // The empty artifact has no byte, and is a use all the same.
    let (token, _) = rig.link(counted("files/app/1.0/e", 1)).await;
    assert_eq!(opened("/files/app/1.0/e", &token).status(&rig.edge).await, 200);
    assert_eq!(opened("/files/app/1.0/e", &token).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_restart_gives_uses_back() {
    let mut rig = Rig::new().await;
    let (twice, _) = rig.link(counted("vault/s.bin", 2)).await;
    let (open, open_id) = rig.link(counted("files/app/1.0/a.bin", 1)).await;
    assert_eq!(opened(S, &twice).status(&rig.edge).await, 200);
    let got = break_off(opened(A, &open).begun(&rig.edge).await, 70_000).await;
    rig.links().settle().await.unwrap();
    rig = rig.reopened().await;
    assert_eq!(usage(&rig, open_id).await.delivered, got as u64);
    assert_eq!(opened(S, &twice).status(&rig.edge).await, 200);
    assert_eq!(opened(S, &twice).status(&rig.edge).await, 403);
    rig = rig.reopened().await;
    assert_eq!(opened(S, &twice).status(&rig.edge).await, 403);
    assert_eq!(opened(A, &open).from(AWAY).status(&rig.edge).await, 403, "it is another client's");
    let rest = opened(A, &open).header("range", &format!("bytes={got}-")).to(&rig.edge).await;
    assert_eq!((rest.status, &rest.body[..]), (206, &one()[got..]));
    rig = rig.reopened().await;
    assert_eq!(opened(A, &open).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_download_that_began_in_time_cannot_be_resumed() {
    let mut rig = Rig::new().await;
    let (token, id) = rig.link(order(&["files/app/1.0/", "files/app/latest"])).await;
    let rest = |from: usize| opened(A, &token).header("range", &format!("bytes={from}-"));
    let got = break_off(opened(A, &token).begun(&rig.edge).await, 70_000).await;
    rig.clock.advance(3_601);
    assert_eq!(opened(A, &token).status(&rig.edge).await, 403, "it does not begin anew");
    assert_eq!(ask("HEAD", &format!("{A}?edge_token={token}")).status(&rig.edge).await, 403);
    assert_eq!(rest(got).from(AWAY).status(&rig.edge).await, 403, "nor for somebody else");
    assert_eq!(rest(got).at_no_address().status(&rig.edge).await, 403);
    let other = opened("/files/app/latest", &token).header("range", "bytes=5-").status(&rig.edge).await;
    assert_eq!(other, 403, "nor for what was not begun");
    let resumed = rest(got).to(&rig.edge).await;
    assert_eq!((resumed.status, &resumed.body[..]), (206, &one()[got..]));
    rig.edge.upkeep().await.unwrap();
    rig = rig.reopened().await;
    rig.clock.advance(3_597);
    assert_eq!(rest(got).status(&rig.edge).await, 206, "over a restart, until the grace ends");
    rig.clock.advance(2);
    assert_eq!(rest(got).status(&rig.edge).await, 403);
    // Revocation knows no grace.
    let (token, _) = rig.link(order(&["files/app/1.0/a.bin"])).await;
    break_off(opened(A, &token).begun(&rig.edge).await, 10).await;
    rig.clock.advance(3_601);
    let again = opened(A, &token).header("range", "bytes=9-");
    assert_eq!(again.status(&rig.edge).await, 206);
    rig.links().revoke_everything(note()).await.unwrap();
    let again = opened(A, &token).header("range", "bytes=9-");
    assert_eq!(again.status(&rig.edge).await, 403);
    assert!(rig.links().link(id).await.unwrap().unwrap().dead.is_some());
}

#[tokio::test]
async fn a_subjects_links_outlive_it() {
    let rig = Rig::new().await;
    let of = |subject: &str| MintOrder { subject: Some(subject.into()), ..order(&["vault/s.bin"]) };
    let (customer, _) = rig.link(of("customer-7")).await;
    let (other, _) = rig.link(of("customer-8")).await;
    let (nobody, _) = rig.link(order(&["vault/s.bin"])).await;
    rig.links().revoke_subject("customer-7", note()).await.unwrap();
    let (again, _) = rig.link(of("customer-7")).await;
    let rig = rig.reopened().await;
    for (token, expected) in [(&customer, 403), (&other, 200), (&nobody, 200), (&again, 200)] {
        assert_eq!(opened(S, token).status(&rig.edge).await, expected);
    }
    rig.links().revoke_everything(note()).await.unwrap();
    for token in [&customer, &other, &nobody, &again] {
        assert_eq!(opened(S, token).status(&rig.edge).await, 403);
    }
    let (fresh, _) = rig.link(of("customer-7")).await;
    assert_eq!(opened(S, &fresh).status(&rig.edge).await, 200);
}

#[tokio::test]
async fn a_stored_policy_is_gone() {
    let rig = Rig::new().await;
    let links = rig.links();
    let field = PolicyName::new("field").unwrap();
    let here: LinkPolicy = serde_json::from_value(json!({ "networks": ["10.0.0.0/8"] })).unwrap();
    links.set_policy(&field, here.clone(), "token:admin", NOW).await.unwrap();
    let (token, _) = rig.link(MintOrder { policy: Some(field.clone()), ..order(&["vault/s.bin"]) }).await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 200);
    assert_eq!(opened(S, &token).from(AWAY).status(&rig.edge).await, 403);
    links.remove_policy(&field).await.unwrap();
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 403, "not: without limits");
    links.set_policy(&field, here.clone(), "token:admin", NOW).await.unwrap();
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 200);
    links.revoke_policy(&field, note()).await.unwrap();
    assert!(links.set_policy(&field, here, "token:admin", NOW).await.is_err());
    drop(links);
    let rig = rig.reopened().await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_link_for_a_name_that_moves() {
    let mut rig = Rig::new().await;
    let latest = "/files/app/latest";
    let (follows, _) = rig.link(order(&["files/app/latest"])).await;
    let stays = MintOrder { digest: Some(Digest::of(&two())), ..order(&["files/app/latest"]) };
    let (stays, _) = rig.link(stays).await;
    let wrong = MintOrder { digest: Some(Digest::of(&one())), ..order(&["files/app/latest"]) };
    let (wrong, _) = rig.link(wrong).await;
    assert_eq!(opened(latest, &follows).to(&rig.edge).await.body, two());
    assert_eq!(opened(latest, &stays).to(&rig.edge).await.body, two());
    assert_eq!(opened(latest, &wrong).status(&rig.edge).await, 403);
    assert_eq!(ask("HEAD", &format!("{latest}?edge_token={wrong}")).status(&rig.edge).await, 403);
    assert_eq!(opened("/files/app/2.0/a.bin", &follows).status(&rig.edge).await, 403, "it is not named");
    let third = pack("app", "3.0", 3).with("files", "app/3.0/a.bin", b"three");
    rig.publish(vec![third.alias("app", "latest", "app/3.0/a.bin")]).await;
    assert_eq!(opened(latest, &follows).to(&rig.edge).await.body, "three");
    assert_eq!(opened(latest, &stays).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_link_opens_what_was_withdrawn() {
    let mut rig = Rig::new().await;
    let (exact, _) = rig.link(order(&["files/app/1.0/a.bin"])).await;
    let (uses, id) = rig.link(counted("files/app/1.0/a.bin", 1)).await;
    let (folder, _) = rig.link(order(&["files/app/1.0/"])).await;
    let (absent, _) = rig.link(order(&["files/app/9.9/a.bin"])).await;
    rig.house.withdraw("app", "1.0");
    rig.converge().await;
    for token in [&exact, &uses, &folder] {
        assert_eq!(opened(A, token).status(&rig.edge).await, 410);
        assert_eq!(opened(A, token).header("range", "bytes=0-9").status(&rig.edge).await, 410);
    }
    assert_eq!(usage(&rig, id).await, Usage::default());
    assert_eq!(opened("/files/app/9.9/a.bin", &absent).status(&rig.edge).await, 404);
    assert_eq!(opened("/files/app/9.9/a.bin", &exact).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_link_goes_around_a_restriction() {
    let rig = Rig::new().await;
    let rule = json!({ "name": "inside", "on": ["vault/**"], "networks": { "allow": ["10.0.0.0/8"] } });
    rig.policy(json!({ "restrict": [rule] })).await;
    let (token, _) = rig.link(order(&["vault/s.bin"])).await;
    let (uses, id) = rig.link(counted("vault/s.bin", 1)).await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 200);
    assert_eq!(opened(S, &token).from(AWAY).status(&rig.edge).await, 403);
    assert_eq!(opened(S, &uses).from(AWAY).status(&rig.edge).await, 403);
    assert_eq!(opened(S, &uses).at_no_address().status(&rig.edge).await, 403);
    assert_eq!(usage(&rig, id).await, Usage::default(), "what was refused is not used");
    let bound = json!({ "name": "links", "principals": ["link"], "countries": { "deny": ["DE"] } });
    rig.policy(json!({ "restrict": [bound] })).await;
    assert_eq!(opened(S, &token).from(HERE).status(&rig.edge).await, 403);
    assert_eq!(opened(S, &token).from(AWAY).status(&rig.edge).await, 200);
    assert_eq!(get(S).bearer(rig.token).from(HERE).status(&rig.edge).await, 200, "it is about links alone");
    // A link's networks and the edge's have to agree.
    let narrow = MintOrder { networks: vec![name("10.0.0.0/8")], ..order(&["vault/s.bin"]) };
    let (narrow, _) = rig.link(narrow).await;
    assert_eq!(opened(S, &narrow).from(HERE).status(&rig.edge).await, 403);
    assert_eq!(opened(S, &narrow).from(AWAY).status(&rig.edge).await, 403);
}

#[tokio::test]
async fn a_rate_is_only_written_down() {
    let rig = Rig::new().await;
    let slow = MintOrder { bps: Some(150_000), ..order(&["files/app/1.0/a.bin"]) };
    let (token, _) = rig.link(slow).await;
    let begun = std::time::Instant::now();
    let got = opened(A, &token).to(&rig.edge).await;
    assert_eq!(got.body, one());
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 1.8, "300,000 bytes at 150,000 a second took {took:.2} s");
    let ranged = opened(A, &token).header("range", "bytes=0-9999").to(&rig.edge).await;
    assert_eq!(ranged.body.len(), 10_000);
    assert_eq!(get(A).to(&rig.edge).await.body, one(), "nobody else is slowed");
}
