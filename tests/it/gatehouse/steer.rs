//! One address, and for everybody what is meant for them.

use distedge::govern::MintOrder;
use serde_json::{Value, json};

use super::rig::{AWAY, Got, HERE, LOST, Rig, ask, get, new_user, opened, order, pack};

const NOW_PATH: &str = "/files/shop/now.bin";

fn rules() -> Value {
    json!({
        "name": "shop", "repository": "files", "from": "shop/now.bin", "to": "shop/{version}/app.bin",
        "bundle": "shop",
        "choose": [
            { "countries": ["DE"], "languages": ["en"], "version": "1.0-en" },
            { "countries": ["DE"], "version": "1.0-de" },
            { "countries": ["FR"], "languages": ["fr", "en"], "version": "1.0-fr" },
        ],
        "otherwise": "deny",
    })
}

async fn house() -> Rig {
    let mut rig = Rig::new().await;
    rig.publish(vec![
        pack("shop", "1.0-de", 1).with("files", "shop/1.0-de/app.bin", b"deutsch"),
        pack("shop", "1.0-en", 2).with("files", "shop/1.0-en/app.bin", b"english"),
        pack("shop", "1.0-fr", 3).with("files", "shop/1.0-fr/app.bin", b"francais"),
        // In the place of a version, but of another bundle.
        pack("stray", "9.9", 1).with("files", "shop/9.9/app.bin", b"stray"),
        pack("shop", "2.0", 4).with("files", "elsewhere/2.0/app.bin", b"two").alias(
            "shop-of",
            "latest",
            "elsewhere/2.0/app.bin",
        ),
    ])
    .await;
    rig.policy(json!({ "steer": [rules()] })).await;
    rig
}

async fn shop(rig: &Rig, from: &str, languages: &str) -> Got {
    let mut request = get(NOW_PATH).from(from);
    if !languages.is_empty() {
        request = request.header("accept-language", languages);
    }
    request.to(&rig.edge).await
}

#[tokio::test]
async fn a_client_gets_what_is_meant_for_another() {
    let rig = house().await;
    for (from, languages, expected) in [
        (HERE, "", "deutsch"),
        (HERE, "de", "deutsch"),
        (HERE, "en", "english"),
        (HERE, "en-GB;q=0.2", "english"),
        (HERE, "en;q=0, *;q=0.5", "deutsch"),
        (HERE, "fr", "deutsch"),
        (HERE, ";;;q=x,,", "deutsch"),
        ("::ffff:10.1.1.1", "", "deutsch"),
        (AWAY, "fr-CH", "francais"),
        (AWAY, "en", "francais"),
    ] {
        let got = shop(&rig, from, languages).await;
        assert_eq!((got.status, &got.body[..]), (200, expected.as_bytes()), "{from} {languages}");
        assert!(got.header("vary").unwrap().to_ascii_lowercase().contains("accept-language"), "{got:?}");
        let cache = got.header("cache-control").unwrap();
        assert!(cache.contains("private") || cache.contains("no-store"), "a shared cache would mix: {cache}");
    }
    for (from, languages) in [(AWAY, ""), (AWAY, "de"), (LOST, "de"), (LOST, ""), ("198.51.100.7", "en")] {
        let got = shop(&rig, from, languages).await;
        assert_eq!(got.status, 403, "{from} {languages}");
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }
    assert_eq!(get(NOW_PATH).at_no_address().status(&rig.edge).await, 403);
    // What it leads to can be had directly, and is then for everybody alike.
    let direct = get("/files/shop/1.0-fr/app.bin").from(HERE).to(&rig.edge).await;
    assert_eq!((direct.status, &direct.body[..]), (200, &b"francais"[..]));
    assert!(direct.header("cache-control").unwrap().contains("public"));
    // The log says what was delivered, not only what was asked for.
    let log = rig.log();
    let start = log.iter().find(|entry| &*entry.kind == "download.start").unwrap();
    assert_eq!(&**start.what.as_ref().unwrap().path.as_ref().unwrap(), "shop/1.0-de/app.bin");
    assert_eq!(&**start.what.as_ref().unwrap().version.as_ref().unwrap(), "1.0-de");
}

#[tokio::test]
async fn a_steered_path_knows_no_heads_and_ranges() {
    let rig = house().await;
    let head = ask("HEAD", NOW_PATH).from(HERE).to(&rig.edge).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("7"), 0));
    assert!(head.header("vary").unwrap().to_ascii_lowercase().contains("accept-language"));
    let part = get(NOW_PATH).from(HERE).header("range", "bytes=4-").to(&rig.edge).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"sch"[..]));
    let tag = head.header("etag").unwrap();
    let same = get(NOW_PATH).from(HERE).header("if-none-match", tag).to(&rig.edge).await;
    assert_eq!(same.status, 304);
    assert!(same.header("vary").unwrap().to_ascii_lowercase().contains("accept-language"));
    let moved = get(NOW_PATH).from(AWAY).header("accept-language", "fr").header("if-none-match", tag);
    assert_eq!(moved.status(&rig.edge).await, 200, "another client's copy is not this one's");
    // A download that was begun as another version is not continued with this one.
    let resumed = get(NOW_PATH).from(AWAY).header("accept-language", "fr").header("range", "bytes=4-");
    let resumed = resumed.header("if-range", tag).to(&rig.edge).await;
    assert_eq!((resumed.status, &resumed.body[..]), (200, &b"francais"[..]));
    assert_eq!(get("/files/shop/now.bin/").from(HERE).status(&rig.edge).await, 404);
    assert_eq!(ask("DELETE", NOW_PATH).from(HERE).status(&rig.edge).await, 405);
}

#[tokio::test]
async fn steering_leads_out_of_its_bundle() {
    let mut rig = house().await;
    let mut rule = rules();
    for (version, expected) in [("9.9", 404), ("7.7", 404), ("1.0-fr", 200), ("2.0", 404)] {
        rule["choose"] = json!([{ "version": version }]);
        rig.policy(json!({ "steer": [rule] })).await;
        assert_eq!(shop(&rig, HERE, "").await.status, expected, "{version}");
    }
    // An alias must be that bundle's, too.
    rule["to"] = json!("shop-of/{version}");
    rule["choose"] = json!([{ "alias": "latest" }]);
    rig.policy(json!({ "steer": [rule] })).await;
    assert_eq!(shop(&rig, HERE, "").await.body, "two");
    rule["bundle"] = json!("stray");
    rig.policy(json!({ "steer": [rule] })).await;
    assert_eq!(shop(&rig, HERE, "").await.status, 404);
    // What was withdrawn says so.
    rig.policy(json!({ "steer": [rules()] })).await;
    rig.house.withdraw("shop", "1.0-de");
    rig.converge().await;
    assert_eq!(shop(&rig, HERE, "").await.status, 410);
    assert_eq!(shop(&rig, HERE, "en").await.status, 200);
    rig.house.withdraw("shop", "2.0");
    rig.converge().await;
    let mut rule = rules();
    rule["to"] = json!("elsewhere/{version}/app.bin");
    rule["choose"] = json!([{ "version": "2.0" }]);
    rig.policy(json!({ "steer": [rule] })).await;
    assert_eq!(shop(&rig, HERE, "").await.status, 410);
}

#[tokio::test]
async fn steering_goes_around_rights_and_restrictions() {
    let rig = house().await;
    // A restriction of the target holds, and one of the path that was asked for.
    for on in ["files/shop/1.0-de/**", "files/shop/now.bin", "files/shop/**"] {
        let rule = json!({ "name": "r", "on": [on], "networks": { "allow": ["192.0.2.0/24"] } });
        rig.policy(json!({ "steer": [rules()], "restrict": [rule] })).await;
        assert_eq!(shop(&rig, HERE, "").await.status, 403, "{on}");
    }
    let by_version =
        json!({ "name": "r", "bundles": ["shop"], "versions": ["1.0-de"], "hours": ["01:00-01:01"] });
    rig.policy(json!({ "steer": [rules()], "restrict": [by_version] })).await;
    assert_eq!(shop(&rig, HERE, "").await.status, 403);
    assert_eq!(shop(&rig, HERE, "en").await.status, 200);
    // In a private repository there must be a right to the target, too.
    let mut rig = rig;
    rig.publish(vec![
        pack("inner", "1", 1).with("vault", "in/1/x", b"one"),
        pack("inner", "2", 2).with("vault", "in/2/x", b"two"),
    ])
    .await;
    let steer = json!({ "name": "in", "repository": "vault", "from": "in/now", "to": "in/{version}/x",
                        "bundle": "inner", "choose": [{ "countries": ["DE"], "version": "1" }, { "version": "2" }] });
    let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["vault/in/now", "vault/in/1/**"] });
    rig.policy(json!({ "steer": [steer], "grant": [grant] })).await;
    let (token, _) = rig.user(new_user("user:alice")).await;
    let alice = |from: &str| get("/vault/in/now").bearer(&token).from(from);
    assert_eq!(alice(HERE).to(&rig.edge).await.body, "one");
    assert_eq!(alice(AWAY).status(&rig.edge).await, 404);
    assert_eq!(get("/vault/in/now").status(&rig.edge).await, 401);
    let (bob, _) = rig.user(new_user("user:bob")).await;
    assert_eq!(get("/vault/in/now").bearer(&bob).status(&rig.edge).await, 404);
}

#[tokio::test]
async fn a_link_to_a_steered_path_opens_every_version() {
    let rig = house().await;
    let (token, id) = rig.link(MintOrder { uses: Some(1), ..order(&["files/shop/now.bin"]) }).await;
    assert_eq!(opened(NOW_PATH, &token).from(LOST).status(&rig.edge).await, 403);
    let got = opened(NOW_PATH, &token).from(HERE).to(&rig.edge).await;
    assert_eq!((got.status, &got.body[..]), (200, &b"deutsch"[..]));
    assert_eq!(opened(NOW_PATH, &token).from(HERE).status(&rig.edge).await, 403);
    rig.links().settle().await.unwrap();
    assert_eq!(rig.links().link(id).await.unwrap().unwrap().usage.unwrap().completed, 1);
    let (token, _) = rig.link(order(&["files/shop/1.0-de/app.bin"])).await;
    assert_eq!(opened(NOW_PATH, &token).from(HERE).status(&rig.edge).await, 403, "it is not named");
    let pinned = distedge::digest::Digest::of(b"deutsch");
    let (token, _) = rig.link(MintOrder { digest: Some(pinned), ..order(&["files/shop/now.bin"]) }).await;
    assert_eq!(opened(NOW_PATH, &token).from(HERE).status(&rig.edge).await, 200);
    let english = opened(NOW_PATH, &token).from(HERE).header("accept-language", "en");
    assert_eq!(english.status(&rig.edge).await, 403);
}
