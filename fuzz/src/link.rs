//! Oracles of signed URLs: tokens that nobody minted, and claims against a second verifier.

use std::net::IpAddr;
use std::sync::OnceLock;

use distedge::clock::Timestamp;
use distedge::digest::{Digest, to_hex};
use distedge::key::SigningKey;
use distedge::link::{
    Claims, KeyName, LinkId, LinkKey, LinkKeys, LinkPolicies, LinkRequest, LinkResource, Revocations,
    Verifier, mint,
};
use distedge::name::{ArtifactPath, NodeName, RepositoryName, Target, Tenant};
use distedge::secret::Secret;
use serde_json::Value;

use super::json;

/// When the links of the oracles are made; they live for an hour.
pub const ISSUED: i64 = 1_800_000_000;
/// 32 bytes that everybody knows.
const HMAC_KEY: [u8; 32] = [7; 32];

struct World {
    keys: LinkKeys,
    minted: Vec<String>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let now = Timestamp::from_unix(ISSUED);
        let name = |text: &str| KeyName::new(text).unwrap();
        // RFC 8410 PKCS #8 around 32 bytes of 7.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n\
                   -----END PRIVATE KEY-----\n";
        let pair = SigningKey::from_secret(&Secret::new(pem)).unwrap();
        let keys = [
            LinkKey::hmac(name("k1"), Secret::new(HMAC_KEY), now).unwrap(),
            LinkKey::pair(name("k2"), pair, now).unwrap(),
        ];
        let mut ring = LinkKeys::new();
        let mut minted = Vec::new();
        for key in keys {
            for (number, resource) in [(1, "generic-local/app/1.0/a b.bin"), (2, "generic-local/app/1.0/")] {
                let resource = LinkResource::parse(resource).unwrap();
                let id = LinkId::from_number(number);
                let claims = Claims::new(id, "acme".parse().unwrap(), resource, now, now.plus(3_600));
                let token = mint(&key, &claims, now).unwrap();
                minted.push(token.expose_str().unwrap().to_owned());
            }
            ring.add(key).unwrap();
        }
        World { keys: ring, minted }
    })
}

/// The tokens that [`link_token`] accepts.
pub fn minted() -> &'static [String] {
    &world().minted
}

/// A token: whatever is accepted was minted, to the letter.
pub fn link_token(data: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(data) else { return false };
    let asked = Asked { target: "/generic-local/app/1.0/a%20b.bin", ..Asked::default() };
    let accepted = asked.with(|request| {
        let (revocations, policies) = (Revocations::new(), LinkPolicies::default());
        Verifier::new(&world().keys, &revocations, &policies).verify(token, request).is_ok()
    });
    let known = world().minted.iter().any(|minted| minted == token);
    assert_eq!(accepted, Some(known), "{token:?}");
    // Looking into a token needs no key and must not care.
    let _ = distedge::link::inspect(token);
    known
}

/// A request, in plain words.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: &'static str,
    /// The target without its query.
    pub target: &'static str,
    /// The tenant.
    pub tenant: &'static str,
    /// The edge.
    pub edge: &'static str,
    /// The edge's one group.
    pub group: &'static str,
    /// The client's address.
    pub client: Option<&'static str>,
    /// The client's country.
    pub country: Option<&'static str>,
    /// The moment.
    pub now: i64,
    /// What the name means: the digest of this text.
    pub content: &'static str,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            method: "GET",
            target: "/generic-local/app/1.0/a",
            tenant: "acme",
            edge: "edge-eu",
            group: "europe",
            client: Some("203.0.113.7"),
            country: Some("DE"),
            now: ISSUED + 100,
            content: "a",
        }
    }
}

impl Asked {
    /// The request that four bytes choose.
    pub fn chosen(bytes: [u8; 4]) -> Asked {
        fn pick<T: Copy>(list: &[T], at: u8) -> T {
            list[usize::from(at) % list.len()]
        }
        let [a, b, c, d] = bytes;
        Asked {
            method: pick(&["GET", "GET", "HEAD", "PUT", "get"], a),
            tenant: pick(&["acme", "acme", "acme", "globex"], a / 5),
            edge: pick(&["edge-eu", "edge-eu", "edge-us"], a / 20),
            group: pick(&["europe", "edge-us"], a / 60),
            client: pick(
                &[
                    Some("203.0.113.7"),
                    Some("::ffff:203.0.113.9"),
                    Some("2001:db8::1"),
                    None,
                    Some("203.0.114.1"),
                ],
                b,
            ),
            country: pick(&[Some("DE"), Some("FR"), None, Some("US")], b / 5),
            content: pick(&["a", "a", "b"], b / 20),
            target: pick(
                &[
                    "/generic-local/app/1.0/a",
                    "/generic-local/%61pp/1.0/a",
                    "/generic-local/app/1.0.1/a",
                    "/generic-local/app/1.0",
                    "/generic-local/app/1.0/a/b%20c",
                    "/other/app/1.0/a",
                    "/generic-local/App/1.0/a",
                    "/generic-local/app/1.0/../1.0/a",
                ],
                c,
            ),
            now: ISSUED + pick(&[100, -61, -60, 0, 3_599, 3_600, 31_536_000, 40_000_000], d),
        }
    }

    /// What `judge` says of the request; `None` if its target is no artifact's.
    fn with(&self, judge: impl FnOnce(&LinkRequest<'_>) -> bool) -> Option<bool> {
        let target = Target::parse(self.target).ok()?;
        let [repository, path @ ..] = target.segments() else { return None };
        let repository = RepositoryName::new(repository).ok()?;
        let path = ArtifactPath::new(&path.join("/")).ok()?;
        let (tenant, edge): (Tenant, NodeName) = (self.tenant.parse().unwrap(), self.edge.parse().unwrap());
        let groups = [self.group.parse().unwrap()];
        let now = Timestamp::from_unix(self.now);
        let request = LinkRequest::new(&tenant, &edge, self.method, &repository, &path, now)
            .with_groups(&groups)
            .with_place(
                self.client.map(|client| client.parse().unwrap()),
                self.country.map(|country| country.parse().unwrap()),
            )
            .with_digest(Digest::of(self.content.as_bytes()));
        Some(judge(&request))
    }
}

/// Four bytes that choose a request, and claims, which are signed whatever they are: they open
/// exactly what the second verifier says.
pub fn link_claims(data: &[u8]) -> bool {
    let [a, b, c, d, payload @ ..] = data else { return false };
    let asked = Asked::chosen([*a, *b, *c, *d]);
    let token = signed(payload);
    let wanted = token.len() <= 2048 && !payload.is_empty() && opens(payload, &asked);
    let accepted = asked.with(|request| {
        let (revocations, policies) = (Revocations::new(), LinkPolicies::default());
        Verifier::new(&world().keys, &revocations, &policies).verify(&token, request).is_ok()
    });
    assert_eq!(accepted.unwrap_or(false), wanted, "{} for {asked:?}", String::from_utf8_lossy(payload));
    if Claims::parse(payload).is_ok() {
        let again = Claims::parse(payload).unwrap().to_payload();
        assert_eq!(Claims::parse(&again).unwrap(), Claims::parse(payload).unwrap());
    }
    wanted
}

/// A `v1` token of any payload, put together by hand.
pub fn signed(payload: &[u8]) -> String {
    let text = format!("v1.k1.{}", base64url(payload));
    let message = [b"edge-url-token\n", text.as_bytes()].concat();
    // RFC 2104: H(K xor opad, H(K xor ipad, text)), with blocks of 64 bytes.
    let pad =
        |byte: u8| -> Vec<u8> { (0..64).map(|at| HMAC_KEY.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Digest::of(&[pad(0x36), message].concat());
    let outer = Digest::of(&[pad(0x5c), inner.as_bytes().to_vec()].concat());
    format!("{text}.{}", base64url(outer.as_bytes()))
}

/// Base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(DIGITS[(word >> (18 - 6 * at)) as usize & 63] as char);
        }
    }
    text
}

/// What [`base64url`] wrote.
pub fn unbase64url(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_usize, 0);
    for byte in text.bytes() {
        bits = (bits << 6 | DIGITS.iter().position(|digit| *digit == byte).unwrap()) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// The second verifier: slow, and straight from the table of the claims.
pub fn opens(payload: &[u8], asked: &Asked) -> bool {
    judged(payload, asked).is_some()
}

fn judged(payload: &[u8], asked: &Asked) -> Option<()> {
    let members = json::members(payload)?;
    let value: Value = serde_json::from_slice(payload).ok()?;
    let known = [
        "v", "id", "ten", "res", "iat", "nbf", "exp", "m", "aud", "ip", "cc", "n", "bps", "sub", "sha", "ep",
        "pol",
    ];
    let sound = members.iter().all(|member| known.contains(&member.as_str()));
    demand(sound && value["v"].as_u64()? == 1)?;
    let id = value["id"].as_str()?;
    let ulid = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"ILOU".contains(&byte);
    demand(id.len() == 26 && id.bytes().all(ulid) && id.as_bytes()[0] <= b'7')?;
    demand(value["ten"].as_str()?.parse::<Tenant>().is_ok())?;

    let target = Target::parse(asked.target).ok()?;
    let name = target.segments().join("/");
    let resources = value["res"].as_array()?;
    demand((1..=16).contains(&resources.len()) && unlike(resources))?;
    let (mut opened, mut exact) = (false, true);
    for resource in resources {
        let resource = resource.as_object()?;
        demand(resource.len() == 1)?;
        if let Some(text) = resource.get("e") {
            let (repository, path) = text.as_str()?.split_once('/')?;
            demand(repository.parse::<RepositoryName>().is_ok() && path.parse::<ArtifactPath>().is_ok())?;
            opened |= name == text.as_str()?;
        } else {
            let text = resource.get("p")?.as_str()?;
            let (repository, folder) =
                text.strip_suffix('/')?.split_once('/').unwrap_or((&text[..text.len() - 1], "x"));
            demand(repository.parse::<RepositoryName>().is_ok() && folder.parse::<ArtifactPath>().is_ok())?;
            opened |= name.starts_with(text) && name.len() > text.len();
            exact = false;
        }
    }

    let last = 253_402_300_799;
    let (issued, expires) = (value["iat"].as_u64()?, value["exp"].as_u64()?);
    demand(issued <= last && expires <= last && issued < expires && expires - issued <= 365 * 86_400)?;
    let begins = if has(&members, "nbf") { value["nbf"].as_u64()? } else { issued };
    demand(begins <= last && begins < expires)?;

    let list = |member: &str, most: usize| -> Option<Vec<String>> {
        if !has(&members, member) {
            return Some(Vec::new());
        }
        let list = value[member].as_array()?;
        demand((1..=most).contains(&list.len()) && unlike(list))?;
        list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
    };
    let methods = list("m", 2)?;
    demand(methods.iter().all(|method| method == "GET" || method == "HEAD"))?;
    let audience = list("aud", 32)?;
    demand(audience.iter().all(|name| name.parse::<NodeName>().is_ok()))?;
    let networks: Vec<(IpAddr, u32)> =
        list("ip", 16)?.iter().map(|text| network(text)).collect::<Option<_>>()?;
    let countries = list("cc", 64)?;
    let country = |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    demand(countries.iter().all(country))?;

    let counted = has(&members, "n");
    if counted {
        demand((1..=1_000_000).contains(&value["n"].as_u64()?))?;
        demand(exact && resources.len() == 1 && audience.len() == 1)?;
    }
    if has(&members, "bps") {
        demand(value["bps"].as_u64()? > 0)?;
    }
    if has(&members, "sub") {
        let subject: Vec<char> = value["sub"].as_str()?.chars().collect();
        demand((1..=128).contains(&subject.len()) && !subject.iter().any(|c| c.is_control()))?;
    }
    let mut bytes = true;
    if has(&members, "sha") {
        let sha = value["sha"].as_str()?;
        demand(sha.len() == 64 && sha.bytes().all(|byte| b"0123456789abcdef".contains(&byte)))?;
        demand(exact && resources.len() == 1)?;
        bytes = sha == to_hex(Digest::of(asked.content.as_bytes()).as_bytes());
    }
    if has(&members, "ep") {
        value["ep"].as_u64()?;
    }
    // There are no stored policies here, so none of them is there.
    demand(!has(&members, "pol"))?;

    demand(asked.now + 60 >= begins as i64 && asked.now < expires as i64)?;
    demand(value["ten"] == asked.tenant && opened && bytes)?;
    let mine = |name: &String| name == asked.edge || !counted && name == asked.group;
    demand(audience.is_empty() || audience.iter().any(mine))?;
    let allowed = |method: &str| methods.is_empty() || methods.iter().any(|own| own == method);
    demand(match asked.method {
        "GET" => allowed("GET"),
        "HEAD" => allowed("HEAD") || allowed("GET"),
        _ => false,
    })?;
    let client = asked.client.map(|client| client.parse::<IpAddr>().unwrap().to_canonical());
    let near = |(net, prefix): &(IpAddr, u32)| client.is_some_and(|client| same_bits(*net, client, *prefix));
    demand(networks.is_empty() || networks.iter().any(near))?;
    demand(countries.is_empty() || countries.iter().any(|own| asked.country == Some(own)))
}

fn demand(holds: bool) -> Option<()> {
    holds.then_some(())
}

fn has(members: &[String], member: &str) -> bool {
    members.iter().any(|own| own == member)
}

fn unlike(list: &[Value]) -> bool {
    (0..list.len()).all(|at| !list[..at].contains(&list[at]))
}

/// A network in its one spelling.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, bits): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let width = if address.is_ipv4() { 32 } else { 128 };
    demand(bits <= width && address == address.to_canonical())?;
    demand(format!("{address}/{bits}") == text)?;
    let zero: Vec<bool> = bit_list(address).split_off(bits as usize);
    demand(!zero.contains(&true))?;
    Some((address, bits))
}

fn bit_list(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
}

fn same_bits(net: IpAddr, address: IpAddr, prefix: u32) -> bool {
    let (net, address) = (bit_list(net), bit_list(address));
    net.len() == address.len() && net[..prefix as usize] == address[..prefix as usize]
}
