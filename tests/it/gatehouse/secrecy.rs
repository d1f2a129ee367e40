//! No secret is where somebody reads: not in logs, not in answers, not in the data directory.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use distedge::access::UseCase;
use distedge::digest::to_hex;
use distedge::govern::MintOrder;
use distedge::key::{Algorithm, SigningKey};
use distedge::link::LinkAlgorithm;
use distedge::token::{
    ControlRequest, ControlSigner, NewPairing, PairingToken, Redeemer, Redemption, SIGNATURE_HEADER, Sealed,
    SignedBody,
};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::rig::{AWAY, Got, LINK_SECRET, Rig, ask, get, key, new_user, note, opened, order, root, send};
use crate::support::{NOW, name};

/// What was logged on this thread.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Captured;

    fn make_writer(&'a self) -> Captured {
        self.clone()
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// The parts of a token that are worth something to a thief.
fn parts(token: &str) -> Vec<String> {
    let (text, tag) = token.rsplit_once('.').unwrap();
    let payload = text.rsplit_once('.').unwrap().1;
    [token, tag, payload].map(str::to_owned).into()
}

#[tokio::test]
async fn e20_a_token_is_in_a_log_or_in_an_answer() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(captured.clone())
        .with_ansi(false)
        .finish();
    // With one subscriber alone, a thread without it could switch a line off for all of them.
    let _other = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish());
    let _logging = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    let mut rig = Rig::new().await;
    let (good, _) = rig.link(order(&["files/app/", "vault/s.bin"])).await;
    let (uses, _) = rig.link(MintOrder { uses: Some(1), ..order(&["vault/s.bin"]) }).await;
    let (dead, id) = rig.link(MintOrder { subject: Some("x".into()), ..order(&["vault/s.bin"]) }).await;
    rig.links().revoke_link(id, note()).await.unwrap();
    rig.links().create_key(Some(key("ed")), LinkAlgorithm::Ed25519, "t", NOW).await.unwrap();
    let signed = MintOrder { key: Some(key("ed")), algorithm: None, ..order(&["vault/s.bin"]) };
    let (signed, _) = rig.link(signed).await;
    let (user, _) = rig.user(new_user("user:alice")).await;
    let cut = format!("{}x", &good[..good.len() - 1]);
    let mut answers: Vec<Got> = Vec::new();
    for token in [&good, &uses, &dead, &signed, &cut] {
        for path in [
            "/vault/s.bin",
            "/vault/d/t.txt",
            "/files/app",
            "/files/app/",
            "/files/app/1.0",
            "/files/app/1.0/a.bin",
            "/files/app/latest",
            "/files/app/nothing",
            "/files",
            "/nowhere/x",
            "/api/v1/status",
            "/api/v1/events",
            "/artifactory/api/system/ping",
            "/artifactory/vault/s.bin",
            "/vault/%2e%2e/x",
            "/healthz",
            "/",
        ] {
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                answers.push(ask(method, &format!("{path}?edge_token={token}")).to(&rig.edge).await);
            }
            answers.push(opened(path, token).header("range", "bytes=0-1").from(AWAY).to(&rig.edge).await);
            answers.push(opened(path, token).bearer(&user).to(&rig.edge).await);
            answers.push(get(&format!("{path}?edge_token={token}&edge_token={token}")).to(&rig.edge).await);
            answers.push(get(path).bearer(token).to(&rig.edge).await);
            answers.push(get(path).header("referer", token).header("user-agent", token).to(&rig.edge).await);
        }
        answers.push(opened("/vault/s.bin", token).header("host", "other").to(&rig.edge).await);
    }
    rig.house.withdraw("sec", "1.0");
    rig.converge().await;
    answers.push(opened("/vault/s.bin", &good).to(&rig.edge).await);
    assert_eq!(answers.last().unwrap().status, 410);
    for path in ["/metrics", "/api/v1/events", "/api/v1/status", "/api/v1/tokens", "/api/v1/bundles"] {
        answers.push(get(path).bearer(rig.token).to(&rig.edge).await);
    }
    let statuses: std::collections::BTreeSet<u16> = answers.iter().map(|got| got.status).collect();
    assert!(statuses.is_superset(&[200, 206, 204, 400, 401, 403, 404, 405, 410].into()), "{statuses:?}");
    let log = captured.text();
    assert!(log.contains("distedge::access") && log.contains("/vault/s.bin"), "nothing was captured");
    let ledger = format!("{:?}", rig.log());
    assert!(ledger.contains("download.denied"));
    let links: Vec<String> =
        [&good, &uses, &dead, &signed].into_iter().flat_map(|token| parts(token)).collect();
    for secret in links.iter().chain([&user, &cut, &rig.token.to_owned()]) {
        let shown: String = secret.chars().take(12).collect();
        assert!(!log.contains(secret.as_str()), "{shown}… is in the process's log");
        assert!(!ledger.contains(secret.as_str()), "{shown}… is in the audit log");
        for got in &answers {
            let told = format!("{:?} {}", got.headers, String::from_utf8_lossy(&got.body));
            assert!(!told.contains(secret.as_str()), "{shown}… is in an answer: {told}");
        }
    }
}

/// Every file below `directory`, with its bytes.
fn files(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == first) {
        at += next;
        if bytes[at..].starts_with(needle) {
            return true;
        }
        at += 1;
    }
    false
}

/// A secret's text, its random part, and that part in other spellings.
fn spellings(text: &str, secret: &str) -> Vec<Vec<u8>> {
    let raw = URL_SAFE_NO_PAD.decode(secret).unwrap();
    assert!(raw.len() >= 32);
    vec![
        text.as_bytes().to_vec(),
        secret.as_bytes().to_vec(),
        STANDARD.encode(&raw).trim_end_matches('=').as_bytes().to_vec(),
        to_hex(&raw).into_bytes(),
        to_hex(&raw).to_uppercase().into_bytes(),
        raw,
    ]
}

/// The third of the parts between `_`.
fn random_part(token: &str) -> String {
    // The base64url of 32 bytes has 43 digits, and may hold a `_` itself.
    let body = token.rsplit_once('_').unwrap().0;
    body[body.len() - 43..].to_owned()
}

#[tokio::test]
async fn f13_a_secret_is_in_the_data_directory() {
    let rig = Rig::new().await;
    let mut secrets: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut add = |what: &'static str, spellings: Vec<Vec<u8>>| {
        secrets.extend(spellings.into_iter().map(|one| (what, one)));
    };
    let control = rig.token.strip_prefix("eut1_").unwrap();
    add("control token", spellings(rig.token, control));
    for at in 0..20 {
        let (token, id) = rig.user(new_user("user:alice")).await;
        assert_eq!(get("/vault/s.bin").bearer(&token).status(&rig.edge).await, 404);
        if at % 2 == 0 {
            rig.edge.tokens().unwrap().revoke(id, "t", "left", NOW).await.unwrap();
        }
        add("user token", spellings(&token, &random_part(&token)));
    }
    let made = send(&rig.edge, "POST", "/api/v1/tokens", rig.token, r#"{"principal":"service:ci"}"#).await;
    let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
    let made = made["token"].as_str().unwrap().to_owned();
    add("user token made over HTTP", spellings(&made, &random_part(&made)));
    rig.links().create_key(Some(key("ed")), LinkAlgorithm::Ed25519, "t", NOW).await.unwrap();
    for at in 0..20_u32 {
        let name = if at % 2 == 0 { "k1" } else { "ed" };
        let limited = MintOrder {
            uses: Some(at + 1),
            key: Some(key(name)),
            algorithm: None,
            ..order(&["vault/s.bin"])
        };
        let (token, id) = rig.link(limited).await;
        assert_eq!(opened("/vault/s.bin", &token).status(&rig.edge).await, 200);
        if at % 3 == 0 {
            rig.links().revoke_link(id, note()).await.unwrap();
        }
        add("link", spellings(&token, token.rsplit_once('.').unwrap().1));
    }
    let source = Arc::new(SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap());
    let pairings = rig.edge.pairings().unwrap().clone();
    for at in 0..6 {
        let (_, token) = pairings.issue(NewPairing::new(UseCase::SourceEdge), &root(), NOW).await.unwrap();
        add("pairing token", pairing_spellings(&token));
        let redeemer = Redeemer { name: name(&format!("s{at}")), base_url: None, roots: None };
        let redemption = Redemption::begin(token, &redeemer, &*source, NOW).unwrap();
        if at == 5 {
            continue;
        }
        let text = String::from_utf8(redemption.request().to_json()).unwrap();
        let answer = send(&rig.edge, "POST", "/api/v1/pairings/redeem", "", &text).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let paired = redemption.finish(&Sealed::parse(&answer.body).unwrap(), NOW).unwrap();
        let master = paired.master.secret().expose_str().unwrap().to_owned();
        add("master token", spellings(&master, &random_part(&master)));
        let confirm = String::from_utf8(paired.confirm(&*source, NOW).unwrap().to_json()).unwrap();
        let confirmed = send(&rig.edge, "POST", "/api/v1/pairings/confirm", "", &confirm).await;
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        let request = ControlRequest { method: "GET", target: "/api/v1/status" };
        let signature = ControlSigner::new(source.clone()).sign(request, SignedBody::of(b""), NOW).unwrap();
        let asked = get("/api/v1/status").bearer(&master).header(SIGNATURE_HEADER, &signature);
        assert_eq!(asked.status(&rig.edge).await, 200);
        assert_eq!(get("/api/v1/status").bearer(&master).status(&rig.edge).await, 401);
    }
    add(
        "secret of a link key, outside its file",
        vec![LINK_SECRET.to_vec(), STANDARD.encode(LINK_SECRET).into()],
    );
    rig.edge.upkeep().await.unwrap();
    rig.log();
    let search = |directory: &Path| {
        let mut found = Vec::new();
        files(directory, &mut found);
        assert!(found.iter().any(|(path, bytes)| path.ends_with("meta.redb") && holds(bytes, b"service:ci")));
        let mut hits = 0;
        for (path, bytes) in &found {
            for (what, secret) in &secrets {
                if holds(bytes, secret) {
                    hits += 1;
                    println!("a {what} is in {path}");
                }
            }
            let own = path.ends_with("links/k1.key");
            assert_eq!(holds(bytes, to_hex(&LINK_SECRET).as_bytes()), own, "{path}");
        }
        println!("{} spellings of secrets in {} files: {hits} hits", secrets.len(), found.len());
        assert_eq!(hits, 0);
    };
    search(&rig.data());
    drop(pairings);
    let rig = rig.reopened().await;
    assert_eq!(get("/vault/s.bin").bearer(&made).status(&rig.edge).await, 404);
    search(&rig.data());
}

fn pairing_spellings(token: &PairingToken) -> Vec<Vec<u8>> {
    let text = token.to_text().expose_str().unwrap().to_owned();
    let body = text.rsplit_once('_').unwrap().0.strip_prefix("ept1_").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let mut all = spellings(&text, json["seed"].as_str().unwrap());
    all.push(body.as_bytes().to_vec());
    all
}

#[cfg(unix)]
#[tokio::test]
async fn f13_a_secret_is_readable_for_others_of_the_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new().await;
    let mode = |path: &str| {
        let path = rig.data().join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o077
    };
    assert_eq!(mode("links/k1.key"), 0);
    assert_eq!(mode("identity.key"), 0);
    assert_eq!(mode("links"), 0);
    assert_eq!(mode(""), 0, "what is private over HTTP is private on the machine");
    // A key that is revoked leaves no file.
    rig.links().revoke_key(&key("k1"), note()).await.unwrap();
    assert!(!rig.data().join("links/k1.key").exists());
    let shown = json!({ "links": std::fs::read_dir(rig.data().join("links")).unwrap().count() });
    assert_eq!(shown["links"], 0);
}
