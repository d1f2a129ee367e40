//! What an anonymous client can find out: nothing that it may not know exists.

use super::house::{Lane, SECRET, SHARED};
use crate::http::rig::Reply;
use crate::support::TOKEN;

/// What tells one answer from another.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let headers = reply.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    (reply.status, headers, reply.text())
}

#[test]
fn private_and_missing_look_alike_in_every_method_and_form() {
    let pairs = [
        ("/secret-local/s.bin", "/missing-repo/s.bin"),
        ("/secret-local/s.bin", "/secret-local/nothing"),
        ("/secret-local/alias/latest", "/secret-local/alias/other"),
        ("/secret-local/alias", "/secret-local/nothing"),
        ("/secret-local/e%CC%81", "/missing-repo/e%CC%81"),
        ("/secret-local", "/missing-repo"),
        ("/secret-local/", "/missing-repo/"),
        ("/secret-local/?last=a", "/missing-repo/?last=a"),
        ("/artifactory/secret-local/s.bin", "/artifactory/missing-repo/s.bin"),
        ("/artifactory/secret-local/", "/artifactory/missing-repo/"),
        ("/api/v1/bundles/hidden/1.0", "/api/v1/bundles/missing/1.0"),
        ("/api/v1/bundles/hidden/1.0/envelope", "/api/v1/bundles/missing/1.0/envelope"),
        ("/api/v1/bundles/hidden/1.0/envelope?key=x", "/api/v1/bundles/missing/1.0/envelope?key=x"),
        ("/api/v1/bundles/hidden/1.0/statement", "/api/v1/bundles/hidden/9.9/statement"),
        ("/api/v1/bundles/hidden/1.0/sbom/0", "/api/v1/bundles/hidden/1.0/sbom/99"),
        ("/api/v1/bundles/hidden/1.0/receipt", "/api/v1/bundles/hidden/9.9/receipt"),
        ("/api/v1/bundles/hidden/1.0/nonsense", "/api/v1/bundles/missing/1.0/nonsense"),
        ("/api/v1/repositories/secret-local", "/api/v1/repositories/missing-repo"),
    ];
    for (there, missing) in pairs {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"] {
            for lines in [
                "",
                "Range: bytes=0-0\r\n",
                "If-None-Match: *\r\n",
                "If-Match: \"x\"\r\n",
                "Accept: text/html\r\n",
            ] {
                let ask = |target: &str| {
                    let mut wire = SHARED.connect();
                    wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
                    wire.reply(method == "HEAD")
                };
                let (one, other) = (ask(there), ask(missing));
                assert_eq!(told(&one), told(&other), "{method} {there} {missing} {lines:?}");
                assert!(one.status >= 400 || method == "OPTIONS", "{method} {there}");
            }
        }
    }
}

#[test]
fn lists_show_public_things_alone() {
    for target in ["/api/v1/bundles", "/api/v1/repositories", "/.well-known/distedge", "/", "/api/v1/keys"] {
        let reply = SHARED.get(target, "");
        assert_eq!(reply.status, 200, "{target}");
        assert!(!reply.text().contains("secret") && !reply.text().contains("hidden"), "{target}");
    }
    for target in
        ["/api/v1/status", "/api/v1/trust", "/api/v1/events", "/metrics", "/api/v1/gc", "/api/v1/scrub"]
    {
        let method = if target.ends_with("gc") || target.ends_with("scrub") { "POST" } else { "GET" };
        let reply = SHARED.ask(format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(reply.status, 401, "{target}");
    }
}

#[test]
fn a_withdrawn_private_artifact_is_no_410_to_strangers() {
    let mut lane = Lane::new();
    let missing = lane.site.get("/missing-repo/x", "");
    lane.house.withdraw("hidden", "1.0");
    lane.put_trust();
    for path in [
        "/secret-local/s.bin",
        "/secret-local/alias/latest",
        "/api/v1/bundles/hidden/1.0",
        "/api/v1/bundles/hidden/1.0/envelope",
    ] {
        assert_eq!(told(&lane.site.get(path, "")), told(&missing), "{path}");
    }
    assert_eq!(lane.site.get_as_admin("/secret-local/s.bin").status, 410);
    assert_eq!(lane.site.get_as_admin("/api/v1/bundles/hidden/1.0/envelope").status, 410);
}

#[test]
fn credentials_in_every_shape_that_is_none() {
    let basic = |text: &str| {
        use base64::Engine as _;
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(text))
    };
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(SHARED.get("/secret-local/s.bin", &good).body, SECRET);
    assert_eq!(SHARED.get("/secret-local/s.bin", &basic(&format!("anyone:{TOKEN}"))).status, 200);
    for lines in [
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]),
        format!("Authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        format!("Authorization: Bearer\t{TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Token {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN},{TOKEN}\r\n"),
        "Authorization: Bearer \r\n".into(),
        "Authorization: \r\n".into(),
        "Authorization: Bearer undefined\r\n".into(),
        basic("admin:admin"),
        basic(":"),
        basic(TOKEN),
        basic(&format!("{TOKEN}:")),
        format!("{good}{good}"),
        format!("{good}X-JFrog-Art-Api: {TOKEN}\r\n"),
        format!("{good}Authorization: Bearer wrong\r\n"),
        format!("Authorization: Bearer {}\r\n", "a".repeat(5000)),
        format!("Proxy-Authorization: Bearer {TOKEN}\r\n"),
        format!("Cookie: token={TOKEN}\r\n"),
    ] {
        let reply = SHARED.get("/secret-local/s.bin", &lines);
        assert!(matches!(reply.status, 400 | 401), "{lines:?}: {}", reply.status);
        assert!(!reply.everything().contains(TOKEN), "{lines:?}");
    }
    for target in [
        format!("/secret-local/s.bin?token={TOKEN}"),
        format!("/secret-local/s.bin?access_token={TOKEN}"),
        format!("/secret-local/s.bin;{TOKEN}"),
        format!("http://x:{TOKEN}@edge.test/secret-local/s.bin"),
    ] {
        assert!(matches!(SHARED.get(&target, "").status, 400 | 401), "{target}");
    }
}

#[test]
fn private_answers_are_not_for_shared_caches() {
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let reply = SHARED.get("/secret-local/s.bin", &good);
    assert!(reply.header("cache-control").unwrap().starts_with("private"));
    assert_eq!(reply.header("vary"), Some("Authorization"));
    for target in ["/secret-local/s.bin", "/secret-local/", "/api/v1/status", "/secret-local"] {
        let reply = SHARED.get(target, "");
        assert_eq!((reply.status, reply.header("cache-control")), (401, Some("no-store")), "{target}");
    }
    for target in ["/secret-local/", "/secret-local", "/api/v1/status"] {
        assert_eq!(SHARED.get(target, &good).header("cache-control"), Some("no-store"), "{target}");
    }
}

#[test]
fn other_spellings_of_the_control_surface_open_nothing() {
    SHARED.all(
        401,
        &[
            "/api/v1/status/",
            "/api/v1/",
            "/api",
            "/api/",
            "/api/v2/status",
            "/api/v1/Status",
            "/artifactory/api/v1/status",
            "/artifactory/api/repositories",
            "/artifactory/healthz",
            "/artifactory/artifactory/generic-local/app/1.0/a.bin",
            "/artifactory/metrics",
            "/metrics/",
            "/healthz/x",
            "/healthz/",
            "/.well-known/",
            "/.well-known/other",
            "/.git/config",
            "/api/v1/bundles/..x/1.0",
        ],
    );
    SHARED.all(404, &["/v2/", "/v1/x", "/tuf/x", "/token", "/favicon.ico", "/robots.txt"]);
}
