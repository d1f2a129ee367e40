//! What is counted while many ask at once, and what is revoked between two requests.

use std::sync::Arc;

use distedge::govern::MintOrder;
use distedge::token::NewUserToken;
use serde_json::json;
use tokio::sync::Barrier;

use super::rig::{Rig, get, new_user, note, opened, order};
use crate::support::NOW;

const S: &str = "/vault/s.bin";

/// Asks for `S` with `token` from `many` tasks at once; how many got it, and how many 403.
async fn at_once(rig: &Rig, token: &str, many: usize) -> (usize, usize) {
    let start = Arc::new(Barrier::new(many));
    let tasks: Vec<_> = (0..many)
        .map(|at| {
            let (edge, start, token) = (rig.edge.clone(), start.clone(), token.to_owned());
            tokio::spawn(async move {
                start.wait().await;
                // Some from one address, some from others: a slot is one client's.
                let from = if at % 2 == 0 { "10.1.1.1".into() } else { format!("10.1.2.{}", at % 250) };
                opened(S, &token).from(&from).status(&edge).await
            })
        })
        .collect();
    let (mut good, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            200 => good += 1,
            403 => refused += 1,
            other => panic!("{other}"),
        }
    }
    (good, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e13_a_hundred_gets_at_once_for_one_use() {
    let rig = Rig::new().await;
    for round in 0..40 {
        let (token, id) = rig.link(MintOrder { uses: Some(1), ..order(&["vault/s.bin"]) }).await;
        assert_eq!(at_once(&rig, &token, 100).await, (1, 99), "round {round}");
        rig.links().settle().await.unwrap();
        let usage = rig.links().link(id).await.unwrap().unwrap().usage.unwrap();
        assert_eq!((usage.completed, usage.open, usage.reserved), (1, 0, 0), "round {round}");
    }
    for uses in [2, 7, 30] {
        let (token, _) = rig.link(MintOrder { uses: Some(uses), ..order(&["vault/s.bin"]) }).await;
        let (good, _) = at_once(&rig, &token, 60).await;
        assert_eq!(good, uses as usize, "{uses} uses");
    }
}

/// E12: the next request, a thousand times.
#[tokio::test]
async fn e12_a_revoked_link_opens_once_more() {
    let rig = Rig::new().await;
    let links = rig.links();
    let mut refused = 0;
    for trial in 0..1_000 {
        let (token, id) = rig.link(order(&["vault/s.bin"])).await;
        assert_eq!(opened(S, &token).status(&rig.edge).await, 200, "trial {trial}");
        links.revoke_link(id, note()).await.unwrap();
        refused += usize::from(opened(S, &token).status(&rig.edge).await == 403);
    }
    assert_eq!(refused, 1_000);
    println!("{refused} of 1000 revoked links were refused at the next request");
    // Those that were not revoked are good, and the revoked ones stay so.
    let (good, _) = rig.link(order(&["vault/s.bin"])).await;
    let (bad, id) = rig.link(order(&["vault/s.bin"])).await;
    links.revoke_link(id, note()).await.unwrap();
    drop(links);
    let rig = rig.reopened().await;
    assert_eq!(opened(S, &good).status(&rig.edge).await, 200);
    assert_eq!(opened(S, &bad).status(&rig.edge).await, 403);
}

/// F03: the next request, a thousand times, whatever the token's life.
#[tokio::test]
async fn f03_a_revoked_user_token_opens_once_more() {
    let rig = Rig::new().await;
    rig.policy(
        json!({ "grant": [{ "name": "g", "to": ["authenticated"], "may": ["read"], "on": ["vault/**"] }] }),
    )
    .await;
    let tokens = rig.edge.tokens().unwrap().clone();
    let lives = [Some(30), Some(600), Some(21_599), Some(21_600), Some(90 * 86_400), None];
    let mut refused = 0;
    for trial in 0..1_000 {
        let expires = lives[trial % lives.len()].map(|life| NOW.plus(life));
        let (token, id) = rig.user(NewUserToken { expires, ..new_user("user:alice") }).await;
        assert_eq!(get(S).bearer(&token).status(&rig.edge).await, 200, "trial {trial}");
        tokens.revoke(id, "token:admin", "left", NOW).await.unwrap().unwrap();
        refused += usize::from(get(S).bearer(&token).status(&rig.edge).await == 401);
    }
    assert_eq!(refused, 1_000);
    println!("{refused} of 1000 revoked user tokens were refused at the next request");
    // One token's end is not another's, and no public path is left to who holds a dead one.
    let (kept, _) = rig.user(new_user("user:alice")).await;
    let (gone, id) = rig.user(new_user("user:alice")).await;
    tokens.revoke(id, "token:admin", "left", NOW).await.unwrap().unwrap();
    drop(tokens);
    let rig = rig.reopened().await;
    assert_eq!(get(S).bearer(&kept).status(&rig.edge).await, 200);
    assert_eq!(get(S).bearer(&gone).status(&rig.edge).await, 401);
    assert_eq!(get("/files/app/1.0/a.bin").bearer(&gone).status(&rig.edge).await, 401);
}

/// While others revoke, mint and download, nobody gets what was revoked before they asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_is_lost_among_others() {
    let rig = Arc::new(Rig::new().await);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let (token, id) = rig.link(order(&["vault/s.bin"])).await;
                    assert_eq!(opened(S, &token).status(&rig.edge).await, 200);
                    rig.links().revoke_link(id, note()).await.unwrap();
                    assert_eq!(opened(S, &token).status(&rig.edge).await, 403);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rig.links().sequence(), 200);
}
