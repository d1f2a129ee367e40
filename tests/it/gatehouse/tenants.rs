//! Two tenants on one edge: what is one's is nothing in the other.

use std::sync::Arc;

use distedge::edge::{Edge, Tenancy, Tenants};
use distedge::govern::MintOrder;
use serde_json::json;

use super::rig::{Ask, Got, Rig, ask, get, new_user, note, order, pack};
use crate::support::name;

struct Both {
    acme: Rig,
    globex: Rig,
    tenants: Tenants,
    tenancy: Tenancy,
}

async fn both(tenancy: Tenancy) -> Both {
    let mut acme = Rig::empty("acme", |_| {}).await;
    acme.publish(vec![
        pack("app", "1.0", 1).with("files", "a.bin", b"of acme").with("files", "only", b"acme's alone"),
        pack("sec", "1.0", 1).with("vault", "s.bin", b"secret of acme"),
    ])
    .await;
    let mut globex = Rig::empty("globex", |_| {}).await;
    globex
        .publish(vec![
            pack("app", "1.0", 1).with("files", "a.bin", b"of globex"),
            pack("sec", "1.0", 1).with("vault", "s.bin", b"secret of globex"),
        ])
        .await;
    let edges = vec![
        (name("acme"), vec!["acme.test".to_owned()], acme.edge.clone()),
        (name("globex"), vec!["globex.test".to_owned()], globex.edge.clone()),
    ];
    let tenants = Tenants::new(tenancy, edges, acme.clock.clone()).await.unwrap();
    Both { acme, globex, tenants, tenancy }
}

impl Both {
    /// A request to `path` of a tenant.
    fn at(&self, tenant: &str, method: &str, path: &str) -> Ask {
        match self.tenancy {
            Tenancy::Path => ask(method, &format!("/{tenant}{path}")),
            _ => super::rig::ask_host(method, path, &format!("{tenant}.test")),
        }
    }

    async fn ask(&self, tenant: &str, path: &str) -> Got {
        self.at(tenant, "GET", path).to(&self.tenants).await
    }
}

const TENANCIES: [Tenancy; 2] = [Tenancy::Path, Tenancy::Host];

#[tokio::test]
async fn e16_a_link_of_one_opens_something_of_the_other() {
    for tenancy in TENANCIES {
        let both = both(tenancy).await;
        let (link, _) = both.globex.link(order(&["vault/s.bin"])).await;
        let (twin, _) = both.acme.link(order(&["vault/s.bin"])).await;
        let path = |token: &str| format!("/vault/s.bin?edge_token={token}");
        assert_eq!(both.ask("globex", &path(&link)).await.body, "secret of globex");
        assert_eq!(both.ask("acme", &path(&twin)).await.body, "secret of acme");
        // Both have a key of the same name with the same secret: the tenant is in the claims.
        assert_eq!(both.ask("acme", &path(&link)).await.status, 403);
        assert_eq!(both.ask("globex", &path(&twin)).await.status, 403);
        // A key that only one has.
        let own = super::rig::key("own");
        let links = both.globex.links();
        links
            .create_key(Some(own.clone()), distedge::link::LinkAlgorithm::Ed25519, "t", crate::support::NOW)
            .await
            .unwrap();
        let minted = MintOrder { key: Some(own), algorithm: None, ..order(&["vault/s.bin"]) };
        let (link, id) = both.globex.link(minted).await;
        assert_eq!(both.ask("globex", &path(&link)).await.status, 200);
        assert_eq!(both.ask("acme", &path(&link)).await.status, 403);
        // A revocation is one tenant's.
        both.acme.links().revoke_link(id, note()).await.unwrap();
        both.acme.links().revoke_everything(note()).await.unwrap();
        assert_eq!(both.ask("globex", &path(&link)).await.status, 200);
        assert_eq!(both.ask("acme", &path(&twin)).await.status, 403);
    }
}

#[tokio::test]
async fn credentials_of_one_open_something_of_the_other() {
    for tenancy in TENANCIES {
        let both = both(tenancy).await;
        let grant =
            json!([{ "name": "g", "to": ["user:alice"], "may": ["read", "list"], "on": ["vault/**"] }]);
        both.acme.policy(json!({ "grant": grant })).await;
        both.globex.policy(json!({ "grant": grant })).await;
        let (token, id) = both.acme.user(new_user("user:alice")).await;
        let with = |tenant: &str, path: &str, token: &str| both.at(tenant, "GET", path).bearer(token);
        assert_eq!(with("acme", "/vault/s.bin", &token).to(&both.tenants).await.body, "secret of acme");
        for path in ["/vault/s.bin", "/vault/", "/files/a.bin", "/files/nothing", "/api/v1/status", "/"] {
            let foreign = with("globex", path, &token).to(&both.tenants).await;
            assert_eq!(foreign.status, 401, "{path}");
            let nobody = with("globex", path, "eut1_nobody").to(&both.tenants).await;
            assert_eq!(foreign, nobody, "{path}");
        }
        let control = with("globex", "/api/v1/tokens", both.acme.token).status(&both.tenants).await;
        assert_eq!(control, 401);
        let (own, _) = both.globex.user(new_user("user:alice")).await;
        both.acme.edge.tokens().unwrap().revoke(id, "t", "left", crate::support::NOW).await.unwrap();
        assert_eq!(with("globex", "/vault/s.bin", &own).status(&both.tenants).await, 200);
        let refused = both.globex.edge.tokens().unwrap().revoke(id, "t", "left", crate::support::NOW).await;
        assert!(refused.unwrap().is_none(), "there is no such token here");
    }
}

#[tokio::test]
async fn names_of_one_are_names_of_the_other() {
    for tenancy in TENANCIES {
        let both = both(tenancy).await;
        assert_eq!(both.ask("acme", "/files/a.bin").await.body, "of acme");
        assert_eq!(both.ask("globex", "/files/a.bin").await.body, "of globex");
        assert_eq!(both.ask("globex", "/files/only").await.status, 404);
        assert_eq!(both.ask("globex", "/files/only").await, both.ask("globex", "/files/onlx").await);
        assert_eq!(both.ask("globex", "/acme/files/only").await.status, 401);
        assert_eq!(both.ask("globex", "/../acme/files/only").await.status, 400);
        assert_eq!(both.ask("globex", "/%2e%2e/acme/files/only").await.status, 400);
        assert_eq!(both.ask("globex", "/..%2facme/files/only").await.status, 400);
        for (tenant, other) in [("acme", "globex"), ("globex", "acme")] {
            for path in
                ["/", "/files/", "/.well-known/distedge", "/api/v1/bundles", "/api/v1/keys", "/metrics"]
            {
                let got = both.ask(tenant, path).await;
                let told = format!("{:?} {}", got.headers, String::from_utf8_lossy(&got.body));
                assert!(!told.contains(other), "{tenant}{path}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn policies_logs_and_counters_of_one_are_those_of_the_other() {
    for tenancy in TENANCIES {
        let both = both(tenancy).await;
        let rule = json!([{ "name": "r", "on": ["files/**"], "networks": { "deny": ["10.0.0.0/8"] } }]);
        both.globex.policy(json!({ "restrict": rule })).await;
        assert_eq!(both.ask("acme", "/files/a.bin").await.status, 200);
        assert_eq!(both.ask("globex", "/files/a.bin").await.status, 403);
        assert_eq!(both.acme.edge.policies_in_force().unwrap().current().version, 0);
        let (acme, globex) = (both.acme.log(), both.globex.log());
        let told = |log: &[distedge::audit::Entry<'static>], kind: &str| {
            log.iter().filter(|entry| &*entry.kind == kind).count()
        };
        assert_eq!((told(&acme, "download.start"), told(&acme, "download.denied")), (1, 0));
        assert_eq!((told(&globex, "download.start"), told(&globex, "download.denied")), (0, 1));
        let started = |edge: &Edge| edge.metrics().to_text().contains("downloads_started_total 1\n");
        assert!(started(&both.acme.edge) && !started(&both.globex.edge));
        let origin = |rig: &Rig| rig.edge.governance().ledger.clone().unwrap().origin().to_owned();
        assert_ne!(origin(&both.acme), origin(&both.globex));
        // One's full budget, or its keys, are not the other's.
        let uses = MintOrder { uses: Some(1), ..order(&["files/a.bin"]) };
        let (a, _) = both.acme.link(uses).await;
        assert_eq!(both.ask("acme", &format!("/files/a.bin?edge_token={a}")).await.status, 200);
        assert_eq!(both.ask("acme", &format!("/files/a.bin?edge_token={a}")).await.status, 403);
        both.globex.links().revoke_key(&super::rig::key("k1"), note()).await.unwrap();
        let (again, _) = both.acme.link(order(&["files/a.bin"])).await;
        assert_eq!(both.ask("acme", &format!("/files/a.bin?edge_token={again}")).await.status, 200);
    }
}

/// What tells a tenant that is there from one that is not.
#[tokio::test]
async fn a_tenant_that_is_not_there_can_be_told_from_one_that_is() {
    let empty = Rig::empty("hidden", |options| options.repositories = Vec::new()).await;
    let first = Rig::new().await;
    let edges = vec![
        (name("default"), Vec::new(), first.edge.clone()),
        (name("hidden"), Vec::new(), empty.edge.clone()),
    ];
    let tenants = Tenants::new(Tenancy::Path, edges, first.clock.clone()).await.unwrap();
    let good = distedge::token::UserToken::mint(distedge::token::TokenId::random().unwrap()).unwrap();
    let good = good.secret().expose_str().unwrap().to_owned();
    let (foreign, _) = first.link(order(&["vault/s.bin"])).await;
    for path in [
        "/files/a.bin",
        "/files/",
        "/files",
        "/vault/s.bin",
        "/api/v1/status",
        "/api/v1/bundles",
        "/api/v1/bundles/app/1.0",
        "/api/v1/tokens",
        "/api/v1/events",
        "/api/v1/nothing",
        "/artifactory/api/system/ping",
        "/artifactory/files/a.bin",
        "/access/api/v1/service_trust/pairing_token",
        "/healthz",
        "/metrics",
        "/%2e%2e/x",
        "/a%2fb",
        "/nothing",
        "/v2/",
        "/simple/",
    ] {
        for query in [
            String::new(),
            "?edge_token=bad".into(),
            "?edge_token=".into(),
            format!("?edge_token={foreign}"),
            format!("?edge_token={}", "v".repeat(3_000)),
            format!("?edge_token={}", foreign.replacen("k1", "k2", 1)),
        ] {
            for token in [None, Some("x"), Some(&*good), Some("emt1_x"), Some(&*"y".repeat(5_000))] {
                for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS"] {
                    let mut answers = Vec::new();
                    for tenant in ["hidden", "nobody"] {
                        let mut request = ask(method, &format!("/{tenant}{path}{query}"));
                        if let Some(token) = token {
                            request = request.bearer(token);
                        }
                        answers.push(request.to(&tenants).await);
                    }
                    let shown: String = query.chars().take(30).collect();
                    assert_eq!(answers[0], answers[1], "{method} {path}{shown} with {token:?}");
                }
            }
        }
    }
    let _ = Arc::new(tenants);
}

#[tokio::test]
async fn a_host_that_no_tenant_has_is_somebodys() {
    let both = both(Tenancy::Host).await;
    for (host, expected) in [
        ("GLOBEX.test", "of globex"),
        ("globex.test:8443", "of globex"),
        ("acme.test", "of acme"),
        // Whatever is no tenant's host is the first one's.
        ("globex.test.evil.test", "of acme"),
        ("evilglobex.test", "of acme"),
        ("127.0.0.1", "of acme"),
    ] {
        let got = super::rig::ask_host("GET", "/files/a.bin", host).to(&both.tenants).await;
        assert_eq!((got.status, &got.body[..]), (200, expected.as_bytes()), "{host}");
    }
    for header in ["x-forwarded-host", "x-host", "forwarded", "x-original-host"] {
        let claim = super::rig::ask_host("GET", "/files/a.bin", "acme.test").header(header, "globex.test");
        assert_eq!(claim.to(&both.tenants).await.body, "of acme", "{header}");
    }
    let twice = super::rig::ask_host("GET", "/files/a.bin", "acme.test").header("host", "globex.test");
    assert_eq!(twice.status(&both.tenants).await, 400);
    let absolute = super::rig::ask_host("GET", "http://globex.test/files/a.bin", "acme.test");
    assert_eq!(absolute.status(&both.tenants).await, 421);
    assert_eq!(get("/globex/files/a.bin").status(&both.tenants).await, 401, "paths name no tenant here");
}
