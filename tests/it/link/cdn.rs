//! URLs for CDNs against what the libraries of others make of the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use distedge::clock::Timestamp;
use distedge::digest::decode_hex;
use distedge::error::{ErrorKind, Result};
use distedge::link::cdn::{AkamaiSigner, CdnLimits, CdnUrlSigner, CloudFrontSigner, GoogleSigner};
use distedge::secret::Secret;
use serde::Deserialize;
use sha2::{Digest as _, Sha512};

use crate::clients::tool::{good, present, python};

#[derive(Deserialize)]
struct Goldens {
    expires: i64,
    akamai_key: String,
    google_key: String,
    cloudfront: Vec<Golden>,
    google: Vec<Golden>,
    akamai: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    url: String,
    limits: Limits,
    signed: String,
    #[serde(default)]
    options: Option<Options>,
    #[serde(default)]
    acl: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    starts: Option<i64>,
    network: Option<String>,
    prefix: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    salt: Option<String>,
    session: Option<String>,
    data: Option<String>,
    #[serde(default)]
    escape_early: bool,
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn goldens() -> (String, Goldens) {
    let text = std::fs::read_to_string(path("data/cdn/goldens.json")).unwrap();
    let goldens = serde_json::from_str(&text).unwrap();
    (text, goldens)
}

fn limits(expires: i64, golden: &Golden) -> CdnLimits {
    let mut limits = CdnLimits::until(Timestamp::from_unix(expires));
    limits.starts = golden.limits.starts.map(Timestamp::from_unix);
    limits.network = golden.limits.network.as_ref().map(|network| network.parse().unwrap());
    limits.prefix = golden.limits.prefix.clone();
    limits
}

fn bytes(hex: &str) -> Secret {
    let mut bytes = vec![0; hex.len() / 2];
    decode_hex(hex, &mut bytes).unwrap();
    Secret::new(bytes)
}

/// The stand-in for a signature that `cdn_signers.py` uses.
fn stand_in(message: &[u8]) -> Result<Vec<u8>> {
    let digest = Sha512::digest(message);
    Ok([&b"\xfb\xff\xfe"[..], &digest, &digest].concat())
}

fn akamai(goldens: &Goldens, golden: &Golden) -> AkamaiSigner {
    let options = golden.options.as_ref().unwrap();
    let mut signer = AkamaiSigner::new(bytes(&goldens.akamai_key)).unwrap();
    if let Some(salt) = &options.salt {
        signer = signer.with_salt(Secret::new(salt.as_bytes()));
    }
    if let Some(session) = &options.session {
        signer = signer.with_session(session);
    }
    if let Some(data) = &options.data {
        signer = signer.with_data(data);
    }
    signer.with_escape_early(options.escape_early)
}

#[test]
fn urls_are_those_of_the_libraries() {
    let (_, goldens) = goldens();
    let cloudfront = CloudFrontSigner::new("K2JCJMDEHXQW5F", Arc::new(stand_in)).unwrap();
    let google = GoogleSigner::new("edge-key", bytes(&goldens.google_key)).unwrap();
    let signers: [(&dyn CdnUrlSigner, &[Golden]); 2] =
        [(&cloudfront, &goldens.cloudfront), (&google, &goldens.google)];
    for (signer, cases) in signers {
        assert!(cases.len() >= 3);
        for golden in cases {
            let signed = signer.sign(&golden.url, &limits(goldens.expires, golden)).unwrap();
            assert_eq!(signed.expose_str(), Some(golden.signed.as_str()), "{}", golden.name);
        }
    }
    assert!(goldens.akamai.len() >= 8);
    for golden in &goldens.akamai {
        let (signer, limits) = (akamai(&goldens, golden), limits(goldens.expires, golden));
        let token = match &golden.acl {
            Some(acl) => signer.acl_token(&acl.iter().map(String::as_str).collect::<Vec<_>>(), &limits),
            None => signer.url_token(&golden.url, &limits),
        };
        let token = token.unwrap();
        assert_eq!(token.expose_str(), Some(golden.signed.as_str()), "{}", golden.name);
        if golden.acl.is_none() {
            let url = format!("https://cdn.example.com{}", golden.url);
            let signed = signer.sign(&url, &limits).unwrap();
            assert_eq!(signed.expose_str().unwrap(), format!("{url}?__token__={}", golden.signed));
        }
    }
}

#[test]
fn a_limit_that_a_network_cannot_express_is_refused() {
    let url = "https://cdn.example.com/a";
    let until = CdnLimits::until(Timestamp::from_unix(1_800_003_600));
    let cloudfront = CloudFrontSigner::new("K1", Arc::new(stand_in)).unwrap();
    let google = GoogleSigner::new("key", Secret::new([0; 16])).unwrap();
    let akamai = AkamaiSigner::new(Secret::new([1; 32])).unwrap();
    let kind = |signer: &dyn CdnUrlSigner, limits: &CdnLimits| signer.sign(url, limits).unwrap_err().kind();
    let network = |text: &str| until.clone().for_network(text.parse().unwrap());
    assert_eq!(kind(&cloudfront, &network("2001:db8::/32")), ErrorKind::Unsupported);
    assert_eq!(kind(&google, &network("203.0.113.0/24")), ErrorKind::Unsupported);
    assert_eq!(kind(&google, &until.clone().starting(Timestamp::from_unix(5))), ErrorKind::Unsupported);
    assert_eq!(kind(&akamai, &network("203.0.113.0/24")), ErrorKind::Unsupported);
    for signer in [&cloudfront as &dyn CdnUrlSigner, &google, &akamai] {
        let prefix = |prefix: &str| until.clone().for_prefix(prefix);
        assert_eq!(kind(signer, &prefix("https://cdn.example.com/a")), ErrorKind::Invalid);
        assert_eq!(kind(signer, &prefix("https://other.example.com/")), ErrorKind::Invalid);
        assert!(signer.sign("https://cdn.example.com/*", &until).is_err());
        assert!(!format!("{signer:?}").contains("Secret"));
    }
    for bad in ["a~b", "a\nb"] {
        let signer = AkamaiSigner::new(Secret::new([1; 32])).unwrap().with_data(bad);
        assert!(signer.url_token("/a", &until).is_err(), "{bad:?}");
    }
    assert!(akamai.acl_token(&["/a!/b"], &until).is_err());
    assert!(GoogleSigner::new("key", Secret::new([0; 15])).is_err());
}

#[test]
fn the_goldens_are_what_the_libraries_print_today() {
    let probe = "import botocore.signers, akamai.edgeauth";
    if !present("botocore and akamai-edgeauth (Python)", Command::new(python()).args(["-c", probe])) {
        return;
    }
    let printed = good(Command::new(python()).arg(path("clients/cdn_signers.py")));
    assert_eq!(printed, goldens().0);
}
