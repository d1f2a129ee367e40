//! The oracles of the fuzz targets over the checked-in seeds, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use distedge::audit::segment::{Head, Segment, Tail};
use distedge::bundle::{
    Assignment, BundleRef, Constraints, EdgeEntry, Envelope, Evidence, Item, Receipt, STATEMENT_PAYLOAD,
    Source, Statement, TrustDocument, Withdrawal,
};
use distedge::clock::Timestamp;
use distedge::delta::pack::{Descriptor, PartHead, Role, Writer};
use distedge::digest::{Checksums, Digest};
use distedge::geo::StaticGeo;
use distedge::key::{Algorithm, KeySet, Signer, SigningKey, TrustedKey};

#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod oracle;

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = seeds(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|cause| panic!("{}: {cause}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn seeds_pass_their_oracles_and_reach_both_sides() {
    let mut total = 0;
    for (target, oracle) in oracle::TARGETS {
        let seeds = files(target);
        total += seeds.iter().map(|(_, seed)| seed.len()).sum::<usize>();
        let accepted = seeds.iter().filter(|(_, seed)| oracle(seed)).count();
        assert!(accepted > 0, "no seed of {target} is accepted");
        assert!(accepted < seeds.len(), "no seed of {target} is refused");
    }
    assert!(total <= 2 << 20, "the seeds have {total} bytes");
}

/// Cut, flipped and repeated seeds: a fuzzer's first steps, the same at every run.
#[test]
fn spoiled_seeds_pass_their_oracles() {
    for (target, oracle) in oracle::TARGETS {
        let slow = matches!(*target, "openpgp" | "apply" | "plan");
        for (_, seed) in files(target) {
            let step = (seed.len() / if slow { 6 } else { 40 }).max(1);
            for at in (0..seed.len()).step_by(step) {
                oracle(&seed[..at]);
                let mut spoiled = seed.clone();
                spoiled[at] ^= 1 << (at % 8);
                oracle(&spoiled);
                spoiled = seed.clone();
                spoiled.splice(at..at, seed[at..].iter().copied().take(64));
                oracle(&spoiled);
            }
        }
    }
}

/// Writes the seeds that are made by programme.
#[test]
#[ignore = "writes the seeds anew: run it by hand after a change of a format"]
fn seeds_are_written() {
    for (target, name, bytes) in made() {
        fs::create_dir_all(seeds(target)).unwrap();
        fs::write(seeds(target).join(name), bytes).unwrap();
    }
}

type Seed = (&'static str, String, Vec<u8>);

fn made() -> Vec<Seed> {
    let mut seeds = Vec::new();
    lines("target", TARGETS, &mut seeds);
    for (at, field) in RANGES.lines().enumerate() {
        for size in [1_u16, 1_000, 0xf001] {
            let bytes = [&size.to_le_bytes(), field.as_bytes()].concat();
            seeds.push(("range", format!("{at:02}-{size}"), bytes));
        }
    }
    lines("json", VALUES, &mut seeds);
    lines("query", QUERIES, &mut seeds);
    for (at, line) in PATTERNS.lines().enumerate() {
        seeds.push(("pattern", format!("{at:02}"), line.replace(' ', "\n").into_bytes()));
    }
    for (way, fields) in [FORWARDED_FOR, FORWARDED].into_iter().enumerate() {
        for (at, field) in fields.lines().enumerate() {
            let bytes = [&[way as u8], field.replace('|', "\n").as_bytes()].concat();
            seeds.push(("address", format!("{way}-{at:02}"), bytes));
        }
    }
    for (at, header) in PROXY.iter().enumerate() {
        seeds.push(("address", format!("2-{at:02}"), [b"\x02", *header].concat()));
    }
    for (at, line) in POLICIES.lines().enumerate() {
        let bytes = [line.as_bytes(), b"\n", &drawn(at as u64 + 1, 300)].concat();
        seeds.push(("policy", format!("json-{at:02}"), bytes));
    }
    for at in 0..12 {
        seeds.push(("policy", format!("drawn-{at:02}"), [vec![0], drawn(at + 50, 600)].concat()));
    }
    documents(&mut seeds);
    packs(&mut seeds);
    links(&mut seeds);
    segments(&mut seeds);
    databases(&mut seeds);
    for (at, fixture) in oracle::FIXTURES.iter().enumerate() {
        let index = at as u8;
        let mut seed = |way: u8, bytes: &[u8]| {
            let bytes = [&[way, index], bytes].concat();
            seeds.push(("openpgp", format!("{way}-{}", fixture.name), bytes));
        };
        seed(0, fixture.signature);
        seed(2, fixture.certificate);
        if let Some(binary) = dearmored(fixture.certificate) {
            seed(1, &binary);
        }
    }
    seeds
}

/// Bytes that look like chance and are the same at every run.
fn drawn(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

const FORWARDED_FOR: &str = "\
10.0.0.1, 198.51.100.7
10.0.0.1|198.51.100.7
198.51.100.7, 192.0.2.9
unknown
1.2.3.4:99
[::1]:80
1.2.3.4,,
2001:db8:2::1,2001:db8:1::9
64:ff9b::808:808
10.0.0.1, 2002:c633:6407::1";

const FORWARDED: &str = "\
for=10.0.0.1, for=198.51.100.7;by=203.0.113.43
for=10.0.0.1|proto=https;For=\"198.51.100.7:4711\"
for=\"[2001:db8:cafe::17]:_p\", for=192.0.2.9
for=unknown
for=_hidden, for=192.0.2.9
for=10.0.0.1;by=\", for=\"[2001:db8:cafe::17]\"
for=\"1\\92.0.2.9\";;for=1
for=10.0.0.1,";

const PROXY: [&[u8]; 6] = [
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET",
    b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\xff\xff",
];

const POLICIES: &str = r#"{"grant":[{"name":"all","to":["authenticated","anonymous"],"may":["read","list"],"on":["files/**"]}],"restrict":[{"name":"office","on":["files/shop/**"],"networks":{"allow":["office"],"deny":["10.0.0.1"]}}],"networks":{"office":["10.0.0.0/8"]}}
{"grant":[{"name":"ops","to":["group:ops"],"may":["read"],"on":["*"]}],"groups":{"ops":["user:ann","service:ci"]},"steer":[{"name":"one","repository":"files","from":"shop/current/**","to":"shop/{version}/**","bundle":"shop","choose":[{"countries":["DE"],"languages":["de"],"version":"1.0"},{"languages":["fr"],"alias":"stable"}],"otherwise":{"version":"2.0"}}]}
{"restrict":[{"name":"hours","bundles":["shop"],"versions":["1.*"],"hours":["mon-fri 08:00-18:00"],"principals":["link","use-case:peer"],"actions":["read","mint"]}],"duties":{"signer_may_not_distribute":true,"four_eyes":["distribute"]},"description":"x"}
{"networks":{"bad":["10.0.0.5/8"]}}
{"restrict":[{"name":"a","networks":{"allow":["0.0.0.0/0"]}}]}
{"grants":[]}
{"a":1,"a":2}"#;

fn lines(target: &'static str, text: &str, seeds: &mut Vec<Seed>) {
    for (at, line) in text.lines().enumerate() {
        seeds.push((target, format!("{at:02}"), line.as_bytes().to_vec()));
    }
}

fn dearmored(armored: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text = std::str::from_utf8(armored).ok()?;
    let (_, body) = text.split_once("\n\n")?;
    let body: String = body.lines().take_while(|line| !line.starts_with(['=', '-'])).collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// Databases of ours and of others, and corrupt ones that are small enough.
fn databases(seeds: &mut Vec<Seed>) {
    let lists = ["192.0.2.0/24,DE", "0.0.0.0/1,DE\n128.0.0.0/2,FR\n2001:db8::/32,PL\n2001:db8:8000::/33,DE"];
    for (at, list) in lists.into_iter().enumerate() {
        let geo = StaticGeo::parse(list).unwrap();
        seeds.push(("mmdb", format!("own-{at}"), geo.to_database("Own-Country", "A seed", NOW).unwrap()));
    }
    for folder in ["good", "corrupt"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo").join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if bytes.len() < 20_000 {
                seeds.push(("mmdb", path.file_stem().unwrap().to_str().unwrap().to_owned(), bytes));
            }
        }
    }
}

/// Segments of the audit log: good, torn, with stale bytes behind, with a note for an entry.
fn segments(seeds: &mut Vec<Seed>) {
    let entry = |seq: u64, rest: &str| {
        format!("{{\"seq\":{seq},\"t\":\"2026-11-22T05:00:00Z\",\"kind\":{rest}}}").into_bytes()
    };
    let note = "log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} log AAAAAAA=\n";
    let segment = Segment {
        head: Head { first: 3, open: vec![1, 2] },
        entries: vec![
            entry(3, "\"download.start\",\"who\":\"user:~AAAA\",\"ip\":\"192.0.2.0/24~AAAA\",\"req\":1"),
            entry(
                4,
                "\"download.end\",\"of\":3,\"res\":{\"bytes\":7,\"range\":[0,6],\"complete\":true},\"req\":1",
            ),
            entry(5, "\"auth.failed\",\"res\":{\"reason\":\"\\u001b[2J\\n\"}"),
            note.as_bytes().to_vec(),
        ],
        tail: Tail::Clean,
        length: 0,
    };
    let whole = segment.to_bytes();
    let mut seed = |name: &str, bytes: &[u8]| seeds.push(("audit_segment", name.into(), bytes.to_vec()));
    seed("whole", &whole);
    seed("filled", &[&whole[..], &[0; 600]].concat());
    seed("torn", &whole[..whole.len() - 9]);
    seed("head", &whole[..40]);
    let shorter = Segment { entries: segment.entries[..2].to_vec(), ..segment }.to_bytes();
    seed("stale", &[&shorter[..], &whole[shorter.len() - 30..]].concat());
    seed("damaged-head", &[b"deaudit2", &whole[8..]].concat());
}

fn packs(seeds: &mut Vec<Seed>) {
    let bytes: Vec<u8> = (0..600).map(|n| (n % 251) as u8).collect();
    let of = |bytes: &[u8]| Descriptor { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.whole(PartHead::document(Role::Trust, b"{}"), b"{}").unwrap();
    writer
        .whole(PartHead::artefact(of(&bytes), of(b"target"), vec![of(b"base"), of(b"other")]), &bytes)
        .unwrap();
    writer.whole(PartHead::artefact(of(b""), of(b"target"), Vec::new()), b"").unwrap();
    let pack = writer.finish().unwrap();
    // The same, as records without tags: kind, length, body.
    let mut records = vec![1];
    let mut at = 9;
    while at < pack.len() {
        let kind = pack[at];
        let (mut length, mut shift) = (0, 0);
        loop {
            at += 1;
            length |= usize::from(pack[at] & 0x7f) << shift;
            shift += 7;
            if pack[at] < 0x80 {
                break;
            }
        }
        at += 1;
        records.push(kind);
        records.extend_from_slice(&(length as u16).to_le_bytes());
        records.extend_from_slice(&pack[at..at + length]);
        at += length + 8;
    }
    let whole = [&[0], &pack[..]].concat();
    seeds.push(("pack", "cut".into(), whole[..whole.len() - 9].to_vec()));
    seeds.push(("pack", "pack".into(), whole));
    let mut other = records.clone();
    // Another role, and a frame of another length.
    other[4] = 9;
    seeds.push(("pack", "other-role".into(), other));
    seeds.push(("pack", "no-end".into(), records[..records.len() - 36].to_vec()));
    seeds.push(("pack", "records".into(), records));
}

fn links(seeds: &mut Vec<Seed>) {
    for (at, token) in oracle::minted().iter().enumerate() {
        seeds.push(("link_token", format!("minted-{at}"), token.clone().into_bytes()));
        let (text, tag) = token.rsplit_once('.').unwrap();
        let mut bytes = oracle::unbase64url(tag);
        bytes[3] ^= 1;
        let forged = format!("{text}.{}", oracle::base64url(&bytes));
        seeds.push(("link_token", format!("forged-{at}"), forged.into_bytes()));
        seeds.push(("link_token", format!("short-tag-{at}"), format!("{text}.AA").into_bytes()));
        let payload = oracle::unbase64url(text.rsplit_once('.').unwrap().1);
        seeds.push(("link_claims", format!("minted-{at}"), [&[0; 4][..], &payload].concat()));
    }
    for (at, line) in CLAIMS.lines().enumerate() {
        for (way, request) in [[0, 0, 0, 0], [2, 6, 1, 4], [65, 3, 4, 3]].iter().enumerate() {
            let bytes = [&request[..], line.as_bytes()].concat();
            seeds.push(("link_claims", format!("{at:02}-{way}"), bytes));
        }
    }
}

fn documents(seeds: &mut Vec<Seed>) {
    let known = oracle::signing_key();
    let pgp = SigningKey::generate(Algorithm::OpenPgp, "Fuzz <fuzz@example.test>", NOW).unwrap();
    // What the known key signs, an oracle takes for forged.
    let other = SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap();
    let small = statement(2, false);
    for (name, statement) in [("small", small.clone()), ("full", statement(12, true))] {
        seeds.push(("statement", name.into(), statement.to_payload()));
        let signers: [&dyn Signer; 2] = [&other, &pgp];
        let envelope = Envelope::seal(STATEMENT_PAYLOAD, statement.to_payload(), &signers, NOW).unwrap();
        seeds.push(("envelope", format!("{name}-signed-twice"), envelope.to_json()));
    }
    let genuine = Envelope::seal(STATEMENT_PAYLOAD, oracle::SIGNED_PAYLOAD, &[known], NOW).unwrap();
    let json = String::from_utf8(genuine.to_json()).unwrap();
    seeds.push(("envelope", "genuine".into(), json.clone().into()));
    let url_safe = json.replace('+', "-").replace("==", "");
    seeds.push(("envelope", "member-of-another".into(), url_safe.replacen('{', "{\"x\":[1,{}],", 1).into()));
    seeds.push(("envelope", "member-twice".into(), json.replacen('{', "{\"payload\":\"\",", 1).into()));
    let text = String::from_utf8(small.to_payload()).unwrap();
    for (name, from, to) in [
        ("number-with-fraction", "\"seq\":42", "\"seq\":42.0"),
        ("member-unknown", "\"seq\":42", "\"seq\":42,\"zeq\":42"),
        ("climbing-path", "shop/0", "../0"),
        ("other-predicate", "release-bundle", "else"),
    ] {
        let spoiled = text.replace(from, to);
        assert_ne!(spoiled, text, "{name} changes nothing");
        seeds.push(("statement", name.into(), spoiled.into()));
    }

    let document = trust(known, &pgp, &small);
    let text = String::from_utf8(document.to_payload()).unwrap();
    seeds.push(("trust", "document".into(), text.clone().into()));
    seeds.push((
        "trust",
        "threshold-too-high".into(),
        text.replace("\"threshold\":1", "\"threshold\":9").into(),
    ));
    seeds.push(("trust", "version-0".into(), text.replace("\"version\":3", "\"version\":0").into()));

    let bundle = small.bundle();
    let receipt = Receipt {
        edge: "e1".parse().unwrap(),
        tenant: bundle.tenant.clone(),
        bundle: bundle.name.clone(),
        version: bundle.version.clone(),
        payload: Digest::of(&small.to_payload()),
        seq: bundle.seq,
        items: 2,
        bytes: small.total_bytes(),
        root: small.root(),
        at: NOW,
    };
    let payload = receipt.seal(known, NOW).unwrap().payload;
    let text = String::from_utf8(payload.to_vec()).unwrap();
    seeds.push(("receipt", "receipt".into(), text.clone().into()));
    seeds.push(("receipt", "seq-0".into(), text.replace("\"seq\":42", "\"seq\":0").into()));
    seeds.push(("receipt", "other-digest".into(), text.replace("sha256:", "sha512:").into()));
}

fn statement(items: usize, full: bool) -> Statement {
    let bundle = BundleRef {
        tenant: "default".parse().unwrap(),
        project: "default".into(),
        name: "shop".parse().unwrap(),
        version: "1.4.0".parse().unwrap(),
        seq: 42,
    };
    let source = Source { id: "build-1".into(), ..Source::default() };
    let mut builder = Statement::builder(bundle, NOW, source);
    for at in 0..items {
        let content = at.to_string();
        builder = builder.item(Item {
            repository: if at % 2 == 0 { "generic-local" } else { "deb" }.parse().unwrap(),
            format: "generic".into(),
            path: format!("shop/{at}/straße.tar").parse().unwrap(),
            digest: Digest::of(content.as_bytes()),
            size: content.len() as u64,
            media_type: full.then(|| "application/x-tar".to_owned()),
            checksums: Checksums { sha1: full.then(|| "0".repeat(40)), md5: full.then(|| "0".repeat(32)) },
        });
    }
    let place = || ("generic-local".parse().unwrap(), "shop/0/straße.tar".parse().unwrap());
    if full {
        let (repository, path) = place();
        builder = builder.alias(repository, "shop/latest".parse().unwrap(), "tar", path);
        let (repository, path) = place();
        builder = builder.sbom(repository, path, "spdx-2.3+json", "bundle");
        let media_type = "application/vnd.in-toto.provenance+dsse".to_owned();
        builder = builder.evidence(Evidence { digest: Digest::of(b"evidence"), media_type });
        let edges = Some(vec!["label:group=eu".parse().or_else(|_| "e1".parse()).unwrap()]);
        builder = builder.constraints(Constraints { edges, ..Constraints::default() });
    }
    builder.build().unwrap()
}

fn trust(known: &SigningKey, pgp: &SigningKey, bundle: &Statement) -> TrustDocument {
    let set = |keys: &[(&SigningKey, &str)]| {
        let keys = keys.iter().map(|(key, owner)| TrustedKey::new(key.public_key(), owner, owner)).collect();
        KeySet::new(1, keys).unwrap()
    };
    let mut edge = EdgeEntry::new("e1".parse().unwrap());
    edge.labels.insert("group".into(), "eu".into());
    edge.site = Some("north".into());
    TrustDocument {
        tenant: "default".parse().unwrap(),
        version: 3,
        issued: NOW,
        expires: Timestamp::from_unix(1_950_000_000),
        root: set(&[(known, "everybody")]),
        release: set(&[(known, "everybody"), (pgp, "builder")]),
        edges: vec![edge, EdgeEntry::new("e2".parse().unwrap())],
        assignments: vec![Assignment {
            bundle: bundle.bundle().name.clone(),
            version: bundle.bundle().version.clone(),
            digest: Digest::of(&bundle.to_payload()),
            edges: vec!["e1".parse().unwrap(), "e2".parse().unwrap()],
        }],
        withdrawn: vec![Withdrawal {
            bundle: "shop".parse().unwrap(),
            version: "1.3.0".parse().unwrap(),
            digest: Digest::of(b"1.3.0"),
            reason: "bad build".into(),
            legal: false,
            at: NOW,
        }],
    }
}

const TARGETS: &str = "\
/
/generic-local/app/1.0/app.tar.gz
/artifactory/generic-local/app/
/r/%61pp/%7Euser/a+b@c:1
/r/stra%C3%9Fe/%EF%BC%8E%EF%BC%8E
/r//b
/r/../b
/r/%2e%2e/b
/r/%252e/b
/r/%2Fetc
/a%00b
/%c0%ae%c0%ae/s
/a%
/a b
x
/@scope%2fname
/a;b=c/d,e/(f)'!*$&";

const RANGES: &str = "\
bytes=0-0
bytes=0-499
bytes=500-
bytes=-500
bytes=0-0,-1
bytes=0-10,5-20,21-30,40-
BYTES=0-
bytes= 0-1 ,\t2-3,,
bytes=99999999999999999999999-
bytes=0-99999999999999999999999
bytes=5-2
bytes=-0
bytes=-
bytes=
lines=0-5
bytes=1-2-3
bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30
bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30,32-32";

const VALUES: &str = r#"null
[true,false,{"a":{"a":[]}},0,9007199254740991]
9007199254740992
-0
1.0
1e3
01
{"a":1,"a":2}
{"a":1,"\u0061":2}
"\ud83d\ude00 \"\\\/\b\f\n\r\t"
"\ud83d"
"\udc00\ud83d"
[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
[1,]
{"a" : [ ] , "b":{} }
nul
"é"
1}{"#;

const QUERIES: &str = r#"repo=generic-local
repo=generic-local and label=RC1-Approved and path~"app/1.0/**" and (prop.os=linux or prop.os=macos) and not size>1GiB
not not (name~*.deb or media="application/gzip")
label!=a and label!~b*
sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
digest!=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
size>=1KiB or size<2MiB and added<2026-11-22T05:00:00Z
path="a \"b\" \\ c"
repo=a and
repo=
(repo=a
size~1
prop.=x
added=yesterday
repo=a repo=b
and"#;

const PATTERNS: &str = "\
** a/b
app/**/*.tar.gz app/1.0/app.tar.gz
app/**/*.tar.gz app/app.tar.gz
*a*a*a*b aaaaaaaaaaaaaaaaaaaa
**/**/b/** a/b/c
a**/b a/x/b
a/***/b a/x/b
?? ab
é* ét
a/**b a/c/b
x y";

const CLAIMS: &str = r#"{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/app/1.0/a"}],"iat":1800000000,"exp":1800003600}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"p":"generic-local/app/"},{"p":"other/"}],"iat":1800000000,"nbf":1800000000,"exp":1831536000,"m":["GET","HEAD"],"aud":["edge-eu","europe"],"ip":["203.0.113.0/24","2001:db8::/32"],"cc":["DE","FR"],"bps":100,"sub":"cust-42","ep":3}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/app/1.0/a"}],"iat":1800000000,"exp":1800003600,"aud":["edge-eu"],"n":2,"sha":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/app/1.0/a"}],"iat":1800000000,"exp":1800003600,"pol":"partners"}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"p":"generic-local/app"}],"iat":1800000000,"exp":1800003600}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/app/1.0/a"}],"iat":1800000000,"exp":1800003600,"exp":1900000000}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/app/1.0/a"}],"iat":1800000000,"exp":1800003600.0}
{"v":1,"id":"01JD7ZC5N0E8T4S1Q2W3X4Y5Z6","ten":"acme","res":[{"e":"generic-local/../a"}],"iat":1800000000,"exp":1800003600,"foo":1}"#;
