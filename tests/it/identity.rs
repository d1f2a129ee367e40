//! Places and identities as an operator configures them.

use std::fs;
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::process::{EdgeProcess, call, run};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check(directory: &Path, text: &str) -> (i32, String) {
    let file = directory.join("edge.toml");
    fs::write(&file, text).unwrap();
    let output = run(&["--check-config", "--config", file.to_str().unwrap()]);
    let sentence = said(&output).replace(&format!("{}/", directory.display()), "");
    (output.status.code().unwrap(), sentence.trim_end().to_owned())
}

#[test]
fn a_geo_database_is_made_from_a_list_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (list, database) = (dir.path().join("networks.csv"), dir.path().join("own.mmdb"));
    let (list, database) = (list.to_str().unwrap(), database.to_str().unwrap());
    fs::write(list, "10.0.0.0/8,DE\n10.8.0.0/16,FR\n2001:db8::/32,DE\n").unwrap();
    let built = run(&["geo", "build", list, database]);
    assert!(built.status.success() && said(&built).contains("3 networks"), "{}", said(&built));
    let asked = run(&["geo", "lookup", database, "10.1.2.3", "10.8.0.1", "2001:db8::1", "192.0.2.1"]);
    let lines: Vec<String> = said(&asked).lines().skip(1).map(str::to_owned).collect();
    assert_eq!(lines, ["10.1.2.3 DE", "10.8.0.1 FR", "2001:db8::1 DE", "192.0.2.1 unknown"]);
    // Another one takes its place in one step; a bad list changes nothing.
    fs::write(list, "10.0.0.0/8,D\n").unwrap();
    let refused = run(&["geo", "build", list, database]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("networks.csv: line 1"), "{}", said(&refused));
    assert!(run(&["geo", "lookup", database]).status.success());
    let not_one = run(&["geo", "lookup", list]);
    assert!(said(&not_one).contains("the geo database is damaged"), "{}", said(&not_one));
}

#[test]
fn faults_of_places_and_identities_are_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oidc/keys.json"),
        dir.path().join("keys.json"),
    )
    .unwrap();
    fs::write(dir.path().join("networks.csv"), "10.0.0.0/8,DE\n").unwrap();
    let oidc = "[[oidc]]\nissuer = \"https://id.acme.test\"\naudiences = [\"edge\"]\n";
    let good = format!(
        r#"[geo]
networks = "networks.csv"
{oidc}jwks_file = "keys.json"
prefix = "id:"
name_claim = ["user", "name"]
leeway_seconds = 60
max_lifetime_seconds = 3600
refresh_seconds = 300
stale_seconds = 0
groups_claim = "groups"
groups_prefix = "id/"
[[oidc.service]]
claim = "idtyp"
value = "app"
[[oidc.required]]
claim = "owner"
value = "acme"
[[oidc.group]]
claim = ["realm_access", "roles"]
value = "release"
group = "releasers"
[[client_certificate]]
name = "spiffe://acme.test/ci"
service = "builder"
groups = ["ci"]
[[client_certificate]]
fingerprint = "sha256:{}"
user = "alice"
[[tenants]]
name = "globex"
[[tenants.oidc]]
issuer = "https://id.acme.test"
audiences = ["globex"]
jwks_url = "http://127.0.0.1:9/keys"
"#,
        "0".repeat(64)
    );
    let (code, sentence) = check(dir.path(), &good);
    assert_eq!(code, 0, "{sentence}");
    // The sample's keys are these.
    let sample =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/edge/edge.toml")).unwrap();
    let keys: Vec<&str> = sample
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(key, _)| key)
        .collect();
    for key in ["database", "jwks_ca", "stale_seconds", "groups_prefix", "groups"] {
        assert!(keys.contains(&key), "{key}");
    }
    let sections = sample.split_once("#[geo]").unwrap().1;
    let sections: String =
        sections.lines().filter_map(|line| line.strip_prefix('#')).map(|line| format!("{line}\n")).collect();
    let (list, database) = (dir.path().join("networks.csv"), dir.path().join("GeoLite2-Country.mmdb"));
    assert!(run(&["geo", "build", list.to_str().unwrap(), database.to_str().unwrap()]).status.success());
    fs::write(dir.path().join("ca.pem"), "none").unwrap();
    let (code, sentence) = check(dir.path(), &format!("[geo]\n{sections}"));
    assert!(code == 2 && sentence.contains("`oidc.jwks_url`: the certificate authorities"), "{sentence}");
    let (code, sentence) = check(
        dir.path(),
        &format!(
            "[geo]\n{}",
            sections.replace("jwks_ca", "#").replace("https://id.example.com/jwks", "http://localhost/jwks")
        ),
    );
    assert_eq!(code, 0, "{sentence}");
    for (text, sentence) in [
        (oidc.to_owned(), "line 1: an [[oidc]] needs one of `jwks_file` and `jwks_url`"),
        (format!("{oidc}jwks_file = \"no.json\""), "line 4: `oidc.jwks_file`: no.json cannot be read"),
        (
            format!("{oidc}jwks_url = \"http://id.acme.test/keys\""),
            "line 4: `oidc.jwks_url`: the URL of a key set does not begin with \"https://\"",
        ),
        (
            format!("{oidc}jwks_file = \"keys.json\"\nleeway_seconds = 61"),
            "line 5: `oidc.leeway_seconds`: 61 is out of range",
        ),
        (
            format!("{oidc}jwks_file = \"keys.json\"\nname_claim = 1"),
            "line 5: `oidc.name_claim`: expected the name of a claim",
        ),
        (
            format!("{oidc}jwks_file = \"keys.json\"\nkind = \"robot\""),
            "line 5: `oidc.kind`: \"robot\" is neither",
        ),
        (
            format!("{oidc}jwks_file = \"keys.json\"\naudience = \"x\""),
            "line 5: unknown key `oidc.audience`; did you mean `oidc.audiences`?",
        ),
        (
            format!("{oidc}jwks_file = \"keys.json\"\n{oidc}jwks_file = \"keys.json\""),
            "the issuer \"https://id.acme.test\" is given twice",
        ),
        (
            "[[oidc]]\nissuer = \"x\"\naudiences = []\njwks_file = \"keys.json\"".into(),
            "line 1: an issuer of tokens has a name and at least one audience",
        ),
        ("[[oidc]]\naudiences = [\"x\"]".into(), "line 1: `issuer` is missing"),
        (
            "[[client_certificate]]\nname = \"x\"".into(),
            "line 1: a [[client_certificate]] needs one of `user` and `service`",
        ),
        (
            "[[client_certificate]]\nuser = \"x\"".into(),
            "line 1: a [[client_certificate]] needs one of `fingerprint` and `name`",
        ),
        ("[geo]\ndatabase = \"no.mmdb\"".into(), "line 2: `geo.database`: no.mmdb cannot be read"),
        ("[geo]\nmax_age_days = 3".into(), "line 1: `geo.max_age_days` and `geo.stale` need `geo.database`"),
        (
            "# No list.\n[geo]\nnetworks = \"edge.toml\"".into(),
            "edge.toml: line 2: expected a network, a comma and a country",
        ),
    ] {
        let (code, told) = check(dir.path(), &text);
        assert!(code != 0 && told.contains(sentence), "{text}\n{told}");
    }
}

/// A token that holds names its holder, who has no rights yet; one that does not is no credential.
#[test]
fn a_jwt_is_judged_before_what_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k",
        "x": URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()) });
    fs::write(dir.path().join("keys.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
    let now = distedge::clock::Clock::now(&distedge::clock::SystemClock).as_unix();
    let token = |audience: &str| {
        let claims: Value = json!({ "iss": "https://id.acme.test", "aud": audience, "sub": "alice",
            "iat": now, "exp": now + 300 });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    };
    let config = dir.path().join("edge.toml");
    let oidc =
        "[[oidc]]\nissuer = \"https://id.acme.test\"\naudiences = [\"edge\"]\njwks_file = \"keys.json\"";
    fs::write(&config, format!("[[repository]]\nname = \"private\"\n{oidc}\n")).unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let edge = EdgeProcess::start(&data, &log, &["--config", config.to_str().unwrap()]);
    let get = |token: Option<&str>| call(edge.address, "GET", "/private/a", token, b"").unwrap().status;
    assert_eq!(get(None), 401);
    assert_eq!(get(Some(&token("edge"))), 404);
    assert_eq!(get(Some(&token("shop"))), 401);
    assert_eq!(get(Some(&format!("{}x", token("edge")))), 401);
    assert_eq!(get(edge.token()), 404, "the control token still opens");
    // A key that is taken back, or a set that breaks, is seen when the set is read again.
    assert!(!fs::read_to_string(&log).unwrap().contains("eyJ"), "a token stands in the log");
}
