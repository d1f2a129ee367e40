//! User tokens on the control surface.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use super::Party;
use crate::support::TOKEN;

async fn make(party: &Party, wish: Value) -> (String, String) {
    let (status, answer) = party.as_admin(Method::POST, "/api/v1/tokens", &wish).await;
    assert_eq!(status, 201, "{answer}");
    (answer["id"].as_str().unwrap().to_owned(), answer["token"].as_str().unwrap().to_owned())
}

async fn own(party: &Party, header: (&str, &str)) -> (u16, usize) {
    let (status, list) = party.ask(Method::GET, "/api/v1/tokens", &[header], b"").await;
    (status, list.as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn a_token_comes_in_three_ways_and_under_its_own_name() {
    let party = Party::new("e1").await;
    let (id, token) = make(&party, json!({ "principal": "user:alice", "description": "laptop" })).await;
    let (other, _) = make(&party, json!({ "principal": "user:bob" })).await;
    assert_eq!(own(&party, ("authorization", &format!("Bearer {token}"))).await, (200, 1));
    assert_eq!(own(&party, ("x-jfrog-art-api", &token)).await, (200, 1));
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{token}")));
    // F02: the right secret of one token under the name or the id of another.
    for (user, status) in [("", 200), ("alice", 200), (&*id, 200), ("bob", 401), (&*other, 401)] {
        assert_eq!(own(&party, ("authorization", &basic(user))).await.0, status, "{user}");
    }
    let (_, list) = party.as_admin(Method::GET, "/api/v1/tokens", &Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains(&token[22..60]) && !list.to_string().contains("fingerprint"));
}

/// F03, and who may revoke what.
#[tokio::test]
async fn a_revoked_token_opens_nothing_from_the_next_request_on() {
    let party = Party::new("e1").await;
    let (alice, first) = make(&party, json!({ "principal": "user:alice", "ttl": 60 })).await;
    let (_, second) = make(&party, json!({ "principal": "user:alice" })).await;
    let (bob, bobs) = make(&party, json!({ "principal": "user:bob" })).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let delete = async |by: &str, id: &str| {
        let (path, bearer) = (format!("/api/v1/tokens/{id}"), bearer(by));
        party.ask(Method::DELETE, &path, &[("authorization", &bearer)], br#"{"reason":"lost"}"#).await.0
    };
    assert_eq!(delete(&second, &bob).await, 404, "not hers");
    assert_eq!(delete(&second, &alice).await, 200);
    assert_eq!(own(&party, ("authorization", &bearer(&first))).await.0, 401);
    assert_eq!(own(&party, ("authorization", &bearer(&second))).await, (200, 2));
    assert_eq!(delete(TOKEN, &bob).await, 200);
    assert_eq!(own(&party, ("authorization", &bearer(&bobs))).await.0, 401);
    assert_eq!(delete(TOKEN, "0000000000000000").await, 404);
    let kinds = party.log();
    assert_eq!(kinds.iter().filter(|kind| *kind == "token.revoked").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| *kind == "token.created").count(), 3);
}

#[tokio::test]
async fn an_expired_token_opens_nothing_even_if_the_clock_goes_back() {
    let party = Party::new("e1").await;
    let (_, token) = make(&party, json!({ "principal": "service:ci", "ttl": 60 })).await;
    let bearer = format!("Bearer {token}");
    party.clock.advance(59);
    assert_eq!(own(&party, ("authorization", &bearer)).await.0, 200);
    party.clock.advance(1);
    assert_eq!(own(&party, ("authorization", &bearer)).await.0, 401);
    // The floor under the clock rises with what is written down.
    party.edge.upkeep().await.unwrap();
    party.clock.advance(-3_600);
    assert_eq!(own(&party, ("authorization", &bearer)).await.0, 401);
}

#[tokio::test]
async fn nobody_makes_a_token_wider_than_the_own_one() {
    let party = Party::new("e1").await;
    let wish = json!({ "principal": "user:alice" });
    let (_, token) = make(&party, wish.clone()).await;
    let bearer = format!("Bearer {token}");
    let post = async |headers: &[(&str, &str)]| {
        party.ask(Method::POST, "/api/v1/tokens", headers, wish.to_string().as_bytes()).await.0
    };
    assert_eq!(post(&[("authorization", &bearer)]).await, 404, "she does not administer");
    assert_eq!(post(&[]).await, 401);
    assert_eq!(party.ask(Method::GET, "/api/v1/tokens", &[], b"").await.0, 401);
    for bad in [
        json!({ "principal": "alice" }),
        json!({ "principal": "user:alice", "ttl": 5, "expires": "2030-01-01T00:00:00Z" }),
        json!({ "principal": "user:alice", "expires": "2020-01-01T00:00:00Z" }),
        json!({ "principal": "user:alice", "scopes": ["fly:*"] }),
        json!({ "principal": "user:alice", "groups": [""] }),
        json!({ "principal": "user:alice", "admin": true }),
    ] {
        assert_eq!(party.as_admin(Method::POST, "/api/v1/tokens", &bad).await.0, 400, "{bad}");
    }
}
