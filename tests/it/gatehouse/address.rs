//! Group C: where a client says it is, and where it is.

use distedge::address::{AddressHeader, TrustedProxies};
use distedge::policy::Document;
use serde_json::json;

use super::rig::{Ask, Rig, get};
use crate::support::name;

const A: &str = "/files/app/1.0/a.bin";

/// An edge behind the proxies 203.0.113.0/28, which write `header`; `files/**` is for 10.0.0.0/8.
async fn house(header: AddressHeader) -> Rig {
    let proxies = TrustedProxies::new(vec![name("203.0.113.0/28")], header);
    let rig = Rig::with(|options| options.proxies = proxies).await;
    let inside = json!({ "name": "inside", "on": ["files/app/**"], "networks": { "allow": ["10.0.0.0/8"] } });
    rig.policy(json!({ "restrict": [inside] })).await;
    rig
}

fn proxied(forwarded: &str) -> Ask {
    get(A).from("203.0.113.1").header("x-forwarded-for", forwarded)
}

#[tokio::test]
async fn c01_a_client_that_is_no_proxy_claims_an_address() {
    let rig = house(AddressHeader::XForwardedFor).await;
    let claim = get(A).from("198.51.100.7").header("x-forwarded-for", "10.0.0.1");
    assert_eq!(claim.status(&rig.edge).await, 403);
    let entries = rig.log();
    let entry = entries.last().unwrap();
    assert_eq!(&*entry.kind, "download.denied");
    assert!(entry.ip.as_ref().unwrap().starts_with("198.51.100.0/24"), "{entry:?}");
    assert_eq!(entry.cc.unwrap().as_str(), "PL");
    // Nor does it lose what it is by claiming to be elsewhere.
    let inside = get(A).from("10.0.0.1").header("x-forwarded-for", "198.51.100.7");
    assert_eq!(inside.status(&rig.edge).await, 200);
}

#[tokio::test]
async fn c02_the_client_prepends_an_address_before_the_proxy_does() {
    let rig = house(AddressHeader::XForwardedFor).await;
    for (forwarded, expected) in [
        ("10.0.0.1, 198.51.100.7", 403),
        ("10.0.0.1,198.51.100.7", 403),
        ("198.51.100.7, 10.0.0.1", 200),
        // Another proxy of the same operator stands between.
        ("10.0.0.1, 198.51.100.7, 203.0.113.2", 403),
        ("198.51.100.7, 10.0.0.1, 203.0.113.2, 203.0.113.3", 200),
        // A proxy is never the client, whoever says so.
        ("203.0.113.2", 403),
        ("10.0.0.1", 200),
    ] {
        assert_eq!(proxied(forwarded).status(&rig.edge).await, expected, "{forwarded}");
    }
    // A proxy that names nobody.
    assert_eq!(get(A).from("203.0.113.1").status(&rig.edge).await, 403);
}

#[tokio::test]
async fn c03_the_header_comes_in_two_lines() {
    let rig = house(AddressHeader::XForwardedFor).await;
    let split = proxied("10.0.0.1").header("x-forwarded-for", "198.51.100.7");
    assert_eq!(split.status(&rig.edge).await, 403);
    let split = proxied("198.51.100.7").header("X-Forwarded-For", "10.0.0.1");
    assert_eq!(split.status(&rig.edge).await, 200);
    let split = proxied("10.0.0.1").header("x-forwarded-for", "");
    assert_eq!(split.status(&rig.edge).await, 403, "an empty last line is a hop that cannot be read");
    let mut many = proxied("10.0.0.1");
    for _ in 0..20 {
        many = many.header("x-forwarded-for", "203.0.113.2");
    }
    assert_eq!(many.status(&rig.edge).await, 403);
}

#[tokio::test]
async fn c04_a_hop_that_is_no_address() {
    let rig = house(AddressHeader::XForwardedFor).await;
    let long = format!("10.0.0.1, {}", "203.0.113.2, ".repeat(790));
    let long = long.trim_end_matches([',', ' ']);
    assert!(long.len() > 10_000);
    for forwarded in [
        "unknown",
        "1.2.3.4:99",
        "[::1]:80",
        "1.2.3.4,,",
        "10.0.0.1, unknown",
        "10.0.0.1:80",
        "[10.0.0.1]",
        "10.0.0.1,",
        "010.0.0.1",
        "10.1",
        "0x0a000001",
        "167772161",
        "10.0.0.1%eth0",
        "\"10.0.0.1\"",
        "for=10.0.0.1",
        "10.0.0.1 10.0.0.1",
        "",
        long,
    ] {
        let head: String = forwarded.chars().take(40).collect();
        assert_eq!(proxied(forwarded).status(&rig.edge).await, 403, "{head}");
        let public = get("/files/app/1.0.1/x").from("203.0.113.1").header("x-forwarded-for", forwarded);
        assert_eq!(public.status(&rig.edge).await, 403, "it is restricted as well: {head}");
    }
    rig.policy(json!({})).await;
    for forwarded in ["unknown", "1.2.3.4:99", "1.2.3.4,,", long] {
        assert_eq!(proxied(forwarded).status(&rig.edge).await, 200, "public is public");
    }
}

#[tokio::test]
async fn c05_two_headers_tell_two_stories() {
    let rig = house(AddressHeader::XForwardedFor).await;
    let both = proxied("198.51.100.7").header("forwarded", "for=10.0.0.1");
    assert_eq!(both.status(&rig.edge).await, 403);
    let both = proxied("10.0.0.1").header("forwarded", "for=198.51.100.7");
    assert_eq!(both.status(&rig.edge).await, 200);
    let rig = house(AddressHeader::Forwarded).await;
    let ask = |forwarded: &str, other: &str| {
        get(A).from("203.0.113.1").header("forwarded", forwarded).header("x-forwarded-for", other)
    };
    assert_eq!(ask("for=10.0.0.1", "198.51.100.7").status(&rig.edge).await, 200);
    for forwarded in [
        "for=198.51.100.7",
        "for=10.0.0.1, for=198.51.100.7",
        "for=_hidden",
        "for=unknown",
        "for=10.0.0.1, for=unknown",
        "for=\"[10.0.0.1]\"",
        "by=10.0.0.1",
        "for=10.0.0.1;for=10.0.0.1",
        "for",
    ] {
        assert_eq!(ask(forwarded, "10.0.0.1").status(&rig.edge).await, 403, "{forwarded}");
    }
}

#[tokio::test]
async fn c07_an_ipv4_client_on_an_ipv6_socket() {
    let rig = house(AddressHeader::None).await;
    assert_eq!(get(A).from("::ffff:10.0.0.1").status(&rig.edge).await, 200);
    assert_eq!(get(A).from("::ffff:198.51.100.7").status(&rig.edge).await, 403);
    // What a client embeds itself is no address of its own.
    for address in ["::10.0.0.1", "2002:a00:1::1", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1"] {
        assert_eq!(get(A).from(address).status(&rig.edge).await, 403, "{address}");
    }
    let denied = json!({ "name": "out", "on": ["files/**"], "networks": { "deny": ["10.0.0.0/8"] } });
    rig.policy(json!({ "restrict": [denied] })).await;
    assert_eq!(get(A).from("::ffff:10.0.0.1").status(&rig.edge).await, 403);
    assert_eq!(get(A).from("10.0.0.1").status(&rig.edge).await, 403);
    assert_eq!(get(A).from("::ffff:198.51.100.7").status(&rig.edge).await, 200);
    assert_eq!(get(A).from("2001:db8::1").status(&rig.edge).await, 200);
    for address in ["::10.0.0.1", "2002:a00:1::1", "2001:0:a00:1::1"] {
        assert_eq!(get(A).from(address).status(&rig.edge).await, 403, "{address} is unknown");
    }
    // The same through a proxy that writes what its socket shows.
    let rig = house(AddressHeader::XForwardedFor).await;
    let mapped = get(A).from("::ffff:203.0.113.1").header("x-forwarded-for", "::ffff:10.0.0.1");
    assert_eq!(mapped.status(&rig.edge).await, 200);
    let mapped = get(A).from("::ffff:203.0.113.1").header("x-forwarded-for", "10.0.0.1, ::ffff:198.51.100.7");
    assert_eq!(mapped.status(&rig.edge).await, 403);
}

#[tokio::test]
async fn c09_headers_of_other_products() {
    const HEADERS: [&str; 10] = [
        "x-real-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "fastly-client-ip",
        "x-original-forwarded-for",
        "x-envoy-external-address",
        "x-forwarded",
        "client-ip",
    ];
    let rig = house(AddressHeader::XForwardedFor).await;
    for header in HEADERS {
        let claim = get(A).from("198.51.100.7").header(header, "10.0.0.1");
        assert_eq!(claim.status(&rig.edge).await, 403, "{header} from a stranger");
        let claim = proxied("198.51.100.7").header(header, "10.0.0.1");
        assert_eq!(claim.status(&rig.edge).await, 403, "{header} through a proxy");
        let claim = get(A).from("203.0.113.1").header(header, "10.0.0.1");
        assert_eq!(claim.status(&rig.edge).await, 403, "{header} alone");
    }
}

#[tokio::test]
async fn c11_networks_that_say_two_things() {
    let rig = house(AddressHeader::None).await;
    for (side, network) in [
        ("allow", "10.0.0.5/8"),
        ("allow", "0.0.0.0/0"),
        ("allow", "::/0"),
        ("deny", "0.0.0.0/0"),
        ("allow", "1.2.3.4/33"),
        ("allow", "1.2.3.4/-1"),
        ("allow", "1.2.3.4/"),
        ("allow", "1.2.3.4/08"),
        ("allow", "1.2.3/24"),
        ("allow", "::ffff:10.0.0.0/104"),
        ("allow", "2001:db8::1/32"),
        ("deny", "10.0.0.5/8"),
        ("allow", ""),
        ("allow", "nowhere"),
    ] {
        let rule = json!({ "name": "x", "on": ["files/**"], "networks": { side: [network] } });
        let text = json!({ "restrict": [rule] }).to_string();
        let refused = Document::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(refused.kind().http_status(), 400, "{network}: {refused}");
        assert!(refused.to_string().contains("restrict[0].networks"), "{network}: {refused}");
        let put = super::rig::send(&rig.edge, "PUT", "/api/v1/policy", rig.token, &text).await;
        assert_eq!(put.status, 422, "{network}: {put:?}");
    }
    // The old one is in force all the while, and "any" says what is meant.
    assert_eq!(rig.edge.policies_in_force().unwrap().current().version, 1);
    assert_eq!(get(A).from("198.51.100.7").status(&rig.edge).await, 403);
    let any = json!({ "name": "x", "on": ["files/**"], "networks": { "allow": ["any"] } });
    rig.policy(json!({ "restrict": [any] })).await;
    assert_eq!(get(A).from("198.51.100.7").status(&rig.edge).await, 200);
    assert_eq!(get(A).at_no_address().status(&rig.edge).await, 403, "any known address");
}
