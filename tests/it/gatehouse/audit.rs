//! What the log says of downloads, and what happens when it takes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use distedge::audit::{AuditSink, Entry, Event, kind};
use distedge::digest::Digest;
use distedge::edge::{AuditFull, Edge};
use distedge::error::{Error, ErrorKind, Result};
use serde_json::json;

use super::rig::{AWAY, HERE, Rig, ask, get, new_user, one, opened, order};

const A: &str = "/files/app/1.0/a.bin";
const S: &str = "/vault/s.bin";

/// Start and end of the last download, joined by the request.
fn last(rig: &Rig) -> (Entry<'static>, Entry<'static>) {
    let log = rig.log();
    let end = log.iter().rfind(|entry| &*entry.kind == kind::DOWNLOAD_END).unwrap().clone();
    let start = log.iter().find(|entry| Some(entry.seq) == end.of).unwrap().clone();
    assert_eq!(&*start.kind, kind::DOWNLOAD_START);
    (start, end)
}

fn outcome(entry: &Entry<'_>) -> (Option<u64>, Option<bool>) {
    let outcome = entry.res.as_ref().unwrap();
    (outcome.bytes, outcome.complete)
}

#[tokio::test]
async fn a_download_leaves_no_trace() {
    let rig = Rig::new().await;
    let grant = json!([{ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] }]);
    rig.policy(json!({ "grant": grant })).await;
    let (token, id) = rig.user(new_user("user:alice")).await;
    let (link, link_id) = rig.link(order(&["vault/s.bin"])).await;
    let before = rig.log().len();

    assert_eq!(get(A).from(HERE).to(&rig.edge).await.body.len(), 300_000);
    let (start, end) = last(&rig);
    assert_eq!(&**start.who.as_ref().unwrap(), "anonymous");
    assert!(start.ip.as_ref().unwrap().starts_with("10.1.1.0/24"));
    assert_eq!(start.cc.unwrap().as_str(), "DE");
    let what = start.what.as_ref().unwrap();
    assert_eq!(what.repo.as_deref(), Some("files"));
    assert_eq!(what.path.as_deref(), Some("app/1.0/a.bin"));
    assert_eq!(what.sha256.as_deref(), Some(&*Digest::of(&one()).to_hex()));
    assert_eq!((what.bundle.as_deref(), what.version.as_deref()), (Some("app"), Some("1.0")));
    assert_eq!(outcome(&end), (Some(300_000), Some(true)));

    assert_eq!(get(S).bearer(&token).status(&rig.edge).await, 200);
    let (start, end) = last(&rig);
    assert!(start.who.as_ref().unwrap().starts_with("user:~"), "{start:?}");
    assert_eq!(start.how.as_deref(), Some(&*id.to_string()));
    assert_eq!(outcome(&end), (Some(10), Some(true)));

    assert_eq!(opened(S, &link).status(&rig.edge).await, 200);
    let (start, end) = last(&rig);
    assert_eq!(start.who.as_deref(), Some(&*format!("link:{link_id}")));
    assert_eq!(outcome(&end), (Some(10), Some(true)));

    let part = get(A).header("range", "bytes=100-299").to(&rig.edge).await;
    assert_eq!(part.body.len(), 200);
    let (start, end) = last(&rig);
    let range = start.res.as_ref().and_then(|outcome| outcome.range);
    assert_eq!((range, outcome(&end)), (Some((100, 299)), (Some(200), Some(true))));

    assert_eq!(get("/files/app/latest").to(&rig.edge).await.body.len(), 300_001);
    let (start, _) = last(&rig);
    assert_eq!(start.what.as_ref().unwrap().path.as_deref(), Some("app/2.0/a.bin"));
    assert_eq!(get("/files/app/1.0/e").status(&rig.edge).await, 200);
    assert_eq!(outcome(&last(&rig).1), (Some(0), Some(true)));
    assert_eq!(rig.log().len(), before + 12, "two entries for each of six downloads");
    let text = rig.edge.metrics().to_text();
    assert!(text.contains("downloads_started_total 6\n"), "{text}");
    assert!(text.contains("{end=\"complete\"} 6\n") && text.contains("{end=\"aborted\"} 0\n"), "{text}");
}

#[tokio::test]
async fn a_download_that_was_broken_off_counts_as_whole() {
    let rig = Rig::new().await;
    let (link, _) = rig.link(order(&["files/app/1.0/a.bin"])).await;
    for request in [get(A), opened(A, &link), get(A).header("range", "bytes=1000-250000")] {
        let mut body = request.begun(&rig.edge).await.into_body();
        let chunk = body.next_chunk().await.unwrap().unwrap().len() as u64;
        drop(body);
        assert_eq!(outcome(&last(&rig).1), (Some(chunk), Some(false)));
    }
    drop(get(A).begun(&rig.edge).await);
    assert_eq!(outcome(&last(&rig).1), (Some(0), Some(false)), "nobody read a byte");
}

#[tokio::test]
async fn looks_count_as_downloads() {
    let rig = Rig::new().await;
    let tag = get(A).to(&rig.edge).await.header("etag").unwrap().to_owned();
    let before = rig.log().len();
    assert_eq!(ask("HEAD", A).status(&rig.edge).await, 200);
    assert_eq!(get(A).header("if-none-match", &tag).status(&rig.edge).await, 304);
    assert_eq!(get(A).header("range", "bytes=300000-").status(&rig.edge).await, 416);
    assert_eq!(get(A).header("if-match", "\"x\"").status(&rig.edge).await, 412);
    assert_eq!(get("/files/app/").status(&rig.edge).await, 200);
    assert_eq!(get("/files/app/1.0/nothing").status(&rig.edge).await, 404);
    assert_eq!(ask("OPTIONS", A).status(&rig.edge).await, 204);
    assert_eq!(get(S).status(&rig.edge).await, 401, "nor does the knock of a stranger");
    assert_eq!(rig.log().len(), before);
    assert!(rig.edge.metrics().to_text().contains("downloads_started_total 1\n"));
}

#[tokio::test]
async fn a_refusal_leaves_no_reason() {
    let rig = Rig::new().await;
    let rule = json!({ "name": "embargo-7", "on": ["files/app/**"], "countries": { "deny": ["FR"] } });
    rig.policy(json!({ "restrict": [rule] })).await;
    let (token, id) = rig.user(new_user("user:mallory")).await;
    let (link, link_id) = rig.link(order(&["vault/s.bin"])).await;
    rig.links().revoke_link(link_id, super::rig::note()).await.unwrap();
    let denied = |rig: &Rig| rig.log().pop().unwrap();

    assert_eq!(get(A).from(AWAY).status(&rig.edge).await, 403);
    let entry = denied(&rig);
    assert_eq!(&*entry.kind, kind::DOWNLOAD_DENIED);
    let reason = entry.res.as_ref().unwrap().reason.as_deref().unwrap();
    assert!(reason.contains("embargo-7"), "{reason}");
    assert_eq!(entry.what.as_ref().unwrap().path.as_deref(), Some("app/1.0/a.bin"));
    assert!(entry.ip.as_ref().unwrap().starts_with("192.0.2.0/24"));

    assert_eq!(get(S).bearer(&token).status(&rig.edge).await, 404);
    let entry = denied(&rig);
    assert_eq!((&*entry.kind, entry.how.as_deref()), (kind::DOWNLOAD_DENIED, Some(&*id.to_string())));

    assert_eq!(opened(S, &link).status(&rig.edge).await, 403);
    let entry = denied(&rig);
    assert_eq!(entry.who.as_deref(), Some(&*format!("link:{link_id}")));
    let outcome = entry.res.as_ref().unwrap();
    assert_eq!(outcome.status, Some(403));
    assert!(outcome.reason.as_deref().unwrap().contains("revoked"));

    assert_eq!(get(S).bearer("eut1_nobody").status(&rig.edge).await, 401);
    let entry = denied(&rig);
    assert_eq!(&*entry.kind, kind::AUTH_FAILED);
    assert!(!format!("{entry:?}").contains("eut1_nobody"));
    assert_eq!(get("/api/v1/events").bearer(&token).status(&rig.edge).await, 404);
    assert_eq!(&*denied(&rig).kind, kind::CONTROL_DENIED);
    assert!(rig.log().iter().all(|entry| &*entry.kind != kind::DOWNLOAD_START));
}

/// Takes nothing while it is full.
#[derive(Debug, Default)]
struct Full(AtomicBool);

#[async_trait]
impl AuditSink for Full {
    fn record(&self, _: Event) -> Result<()> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::NoSpace, "the log is full")),
            false => Ok(()),
        }
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        self.record(event)
    }
}

/// The rig's edge with a log of its own, which is full.
fn full(rig: &Rig, rule: AuditFull) -> (Edge, Arc<Full>) {
    let sink = Arc::new(Full(AtomicBool::new(true)));
    let governance = rig.edge.governance().clone().with_audit(sink.clone()).with_audit_full(rule);
    (rig.edge.clone().with_governance(governance), sink)
}

#[tokio::test]
async fn a_full_log_lets_things_happen_without_a_trace() {
    let rig = Rig::new().await;
    let grant = json!([{ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/**"] }]);
    let rule = json!([{ "name": "r", "on": ["files/app/2.0/**"], "countries": { "allow": ["DE"] } }]);
    rig.policy(json!({ "grant": grant, "restrict": rule })).await;
    let (token, _) = rig.user(new_user("user:alice")).await;
    let (link, _) = rig.link(order(&["files/app/1.0/a.bin"])).await;
    let uses = distedge::govern::MintOrder { uses: Some(1), ..order(&["vault/s.bin"]) };
    let (counted, id) = rig.link(uses).await;
    for (when_full, public) in [(AuditFull::Deny, 503), (AuditFull::Count, 200)] {
        let (edge, sink) = full(&rig, when_full);
        assert_eq!(get(A).status(&edge).await, public, "{when_full:?}");
        for refused in [
            get(A).bearer(&token),
            get(S).bearer(&token),
            get(S).bearer(rig.token),
            opened(A, &link),
            opened(S, &counted),
            get("/files/app/2.0/a.bin"),
            get("/files/app/latest"),
        ] {
            let what = format!("{refused:?}");
            let got = refused.to(&edge).await;
            assert_eq!(got.status, 503, "{when_full:?}: {what}");
            assert_eq!(got.header("cache-control"), Some("no-store"));
        }
        // What is no download, and what is refused anyway, needs no log.
        assert_eq!(ask("HEAD", S).bearer(&token).status(&edge).await, 200);
        assert_eq!(get("/files/app/").status(&edge).await, 200);
        assert_eq!(get(S).status(&edge).await, 401);
        assert_eq!(get(S).bearer("eut1_x").status(&edge).await, 401);
        assert_eq!(get("/files/app/2.0/a.bin").from(AWAY).status(&edge).await, 403);
        sink.0.store(false, Ordering::SeqCst);
        assert_eq!(get(S).bearer(&token).status(&edge).await, 200, "it heals by itself");
    }
    rig.links().settle().await.unwrap();
    let usage = rig.links().link(id).await.unwrap().unwrap().usage.unwrap();
    assert_eq!((usage.completed, usage.open, usage.reserved), (0, 0, 0), "nothing was used up");
    assert_eq!(opened(S, &counted).status(&rig.edge).await, 200);
}

#[tokio::test]
async fn a_full_log_lets_privileges_change() {
    let rig = Rig::new().await;
    let (edge, _) = full(&rig, AuditFull::Count);
    let body = json!({ "principal": "user:eve" }).to_string();
    let post = super::rig::send(&edge, "POST", "/api/v1/tokens", rig.token, &body).await;
    assert_eq!(post.status, 503, "{post:?}");
    let made = rig.edge.tokens().unwrap().list().await.unwrap();
    assert!(made.iter().all(|record| record.revoked.is_some()), "{made:?}");
    let body = json!({ "use_case": "source-edge" }).to_string();
    let post = super::rig::send(&edge, "POST", "/api/v1/pairings/tokens", rig.token, &body).await;
    assert_eq!(post.status, 503, "{post:?}");
    let made = rig.edge.pairings().unwrap().list().await.unwrap();
    assert!(made.iter().all(|state| state.peer().is_none()), "{made:?}");
    // With a log that takes it, the same requests go through.
    let body = json!({ "principal": "user:eve" }).to_string();
    let post = super::rig::send(&rig.edge, "POST", "/api/v1/tokens", rig.token, &body).await;
    assert!(matches!(post.status, 200 | 201), "{post:?}");
    assert!(rig.log().iter().any(|entry| &*entry.kind == kind::TOKEN_CREATED));
}

#[tokio::test]
async fn the_log_does_not_survive_a_restart() {
    let rig = Rig::new().await;
    assert_eq!(get(A).status(&rig.edge).await, 200);
    let all = |rig: &Rig| -> Vec<_> { rig.log().into_iter().map(|entry| (entry.seq, entry.req)).collect() };
    let before = all(&rig);
    let rig = rig.reopened().await;
    assert_eq!(get(A).status(&rig.edge).await, 200);
    let after = all(&rig);
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 2);
    // The last two of each are a download's start and end.
    let numbers = |entries: &[(u64, Option<u64>)]| -> Vec<u64> {
        entries[entries.len() - 2..].iter().map(|(_, request)| request.unwrap()).collect()
    };
    let (first, second) = (numbers(&before), numbers(&after));
    assert!(first[0] == first[1] && second[0] == second[1] && first[0] != second[0], "{after:?}");
}

/// Every control request that widens what somebody may have, against a log that is full.
#[tokio::test]
async fn a_full_log_lets_the_edge_be_changed() {
    let rig = Rig::new().await;
    let (edge, sink) = full(&rig, AuditFull::Count);
    let link = json!({ "resources": ["vault/s.bin"] }).to_string();
    let key = json!({ "name": "k9", "algorithm": "v1" }).to_string();
    let policy =
        json!({ "grant": [{ "name": "g", "to": ["anonymous"], "may": ["read"], "on": ["vault/**"] }] });
    let limits = json!({ "networks": ["192.0.2.0/24"] }).to_string();
    for (method, target, body) in [
        ("PUT", "/api/v1/policy", policy.to_string()),
        ("PUT", "/api/v1/repositories/vault", json!({ "public": true }).to_string()),
        ("PUT", "/api/v1/repositories/fresh", json!({ "public": true }).to_string()),
        ("POST", "/api/v1/links", link),
        ("POST", "/api/v1/link-keys", key),
        ("PUT", "/api/v1/link-policies/p", limits),
    ] {
        let got = super::rig::send(&edge, method, target, rig.token, &body).await;
        assert_eq!(got.status, 503, "{method} {target}: {got:?}");
    }
    assert_eq!(get(S).status(&rig.edge).await, 401, "neither the policy nor the repository changed");
    assert_eq!(get("/fresh/").status(&rig.edge).await, 401);
    let links = rig.links();
    assert!(links.list(None, 10).await.unwrap().iter().all(|link| link.dead.is_some()));
    let live = |record: &distedge::govern::KeyRecord| record.revoked.is_none();
    assert!(links.keys().await.unwrap().iter().all(|(name, record)| name.as_str() == "k1" || !live(record)));
    assert!(links.policies().await.unwrap().is_empty());
    sink.0.store(false, Ordering::SeqCst);
    let public = json!({ "public": true }).to_string();
    let got = super::rig::send(&rig.edge, "PUT", "/api/v1/repositories/vault", rig.token, &public).await;
    assert_eq!(got.status, 200, "{got:?}");
    let log = rig.log();
    let change = log.iter().rfind(|entry| &*entry.kind == kind::CONFIG_CHANGED).unwrap();
    assert_eq!(change.what.as_ref().unwrap().repo.as_deref(), Some("vault"));
    assert_eq!(get(S).status(&rig.edge).await, 200);
}
