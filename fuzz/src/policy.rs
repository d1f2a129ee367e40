//! Oracle of policies: the decision equals that of a slow model, which reads the document as text
//! and tries one rule after the other.

use std::net::IpAddr;
use std::sync::Arc;

use distedge::access::{
    AccessRequest, Action, Decision, Identity, LinkHolder, Peer, Principal, RefusalKind, Resource, UseCase,
};
use distedge::clock::Timestamp;
use distedge::name::{ArtifactPath, BundleName, Holder, RepositoryName, Tenant};
use distedge::policy::{CompiledPolicy, Document};
use serde_json::{Value, json};

use super::text::matches_naively;

/// A policy document in JSON, a line end, and bytes that choose requests; without a `{` in front,
/// bytes that choose both. Tells whether the document was accepted.
pub fn policy(data: &[u8]) -> bool {
    let (value, mut draw) = if data.first() == Some(&b'{') {
        let end = data.iter().rposition(|byte| *byte == b'\n').unwrap_or(data.len());
        let document = match Document::from_json(&data[..end]) {
            Ok(document) => document,
            Err(error) => {
                assert!(!error.message().is_empty());
                return false;
            }
        };
        (document.to_value(), Draw::new(data.get(end + 1..).unwrap_or_default()))
    } else {
        let mut draw = Draw::new(data);
        (some_document(&mut draw), draw)
    };
    let document = match Document::from_value(&value) {
        Ok(document) => document,
        Err(error) => panic!("{value}: {error}"),
    };
    assert_eq!(document.to_value(), Document::from_value(&document.to_value()).unwrap().to_value());
    let compiled = CompiledPolicy::new(document);
    for _ in 0..8 {
        compare(&value, &compiled, &some_request(&mut draw));
    }
    true
}

/// One decision, by the policy and by the model. Tells what it was.
pub fn compare(document: &Value, policy: &CompiledPolicy, past: &Request) -> &'static str {
    let tenant = Tenant::new("acme").unwrap();
    let request = past.request(&tenant);
    let decision = policy.decide(&request);
    let told = match &decision {
        Decision::Permit => "permit".to_owned(),
        Decision::Forbid(refusal) if refusal.kind == RefusalKind::Right => "unseen".to_owned(),
        Decision::Forbid(refusal) => format!("forbid {}", refusal.rule),
        Decision::Steer(steering) => {
            let version = steering.version.as_ref().map_or("an alias", |version| version.as_str());
            format!("steer {} {} {version} {}", steering.path, steering.bundle, steering.rule)
        }
    };
    let slow = model(document, past);
    assert_eq!(told, slow, "{past:?}\n{document:#}");
    let explained = policy.explain(&request);
    assert!(explained.agrees_with(&decision), "{explained:?}\n{decision:?}\n{past:?}\n{document:#}");
    match decision {
        Decision::Permit => "permit",
        Decision::Forbid(refusal) if refusal.kind == RefusalKind::Right => "unseen",
        Decision::Forbid(_) => "forbid",
        Decision::Steer(_) => "steer",
    }
}

/// A request that owns what it names.
#[derive(Clone, Debug)]
pub struct Request {
    principal: Principal,
    action: Action,
    repository: Option<RepositoryName>,
    path: Option<ArtifactPath>,
    public: bool,
    bundle: Option<Option<BundleName>>,
    client: Option<IpAddr>,
    country: Option<String>,
    languages: Option<String>,
    holders: Vec<Holder>,
    now: Timestamp,
}

impl Request {
    /// The same request to read what is there, by somebody who may.
    #[must_use]
    pub fn permitted(mut self) -> Request {
        self.principal = Principal::Token { name: "root".into() };
        self.action = Action::Read;
        self.repository = self.repository.or_else(|| "files".parse().ok());
        self
    }

    fn resource(&self) -> Resource<'_> {
        match (&self.repository, &self.bundle) {
            (Some(name), _) => Resource::Repository { name, path: self.path.as_ref(), public: self.public },
            (None, Some(name)) => Resource::Bundle { name: name.as_ref() },
            (None, None) => Resource::Edge,
        }
    }

    fn request<'a>(&'a self, tenant: &'a Tenant) -> AccessRequest<'a> {
        AccessRequest::new(tenant, &self.principal, self.action, self.resource(), self.now)
            .with_client(self.client)
            .with_country(self.country.as_ref().map(|country| country.parse().unwrap()))
            .with_languages(self.languages.as_deref())
            .with_holders(&self.holders)
    }
}

/// Bytes that choose.
#[derive(Debug)]
pub struct Draw<'a>(std::slice::Iter<'a, u8>);

impl<'a> Draw<'a> {
    /// Choices out of `bytes`; when they are used up, always the first.
    pub fn new(bytes: &'a [u8]) -> Draw<'a> {
        Draw(bytes.iter())
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn some(&mut self, choices: &[&str], most: usize) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| self.of(choices).to_owned()).collect()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

const NAMES: [&str; 3] = ["ann", "bob", "ci"];
const GROUPS: [&str; 3] = ["ops", "partners", "idp"];
const SELECTORS: [&str; 14] = [
    "anonymous",
    "authenticated",
    "user:ann",
    "user:bob",
    "user:ci",
    "service:ci",
    "service:ann",
    "group:ops",
    "group:partners",
    "group:idp",
    "peer:fra-1",
    "peer:ams-1",
    "use-case:source-edge",
    "use-case:peer",
];
const ACTIONS: [&str; 11] =
    ["read", "list", "read", "list", "read", "sign", "distribute", "receive", "mint", "audit", "administer"];
const REACHES: [&str; 20] = [
    "*",
    "edge",
    "bundle:*",
    "bundle:shop",
    "bundle:sh?p*",
    "files/**",
    "files/shop/**",
    "files/shop/current/**",
    "files/shop/1.0/app",
    "files/sh*/**",
    "docs/**",
    "**/app",
    "f*/**",
    "files/*",
    "files/shop",
    "docs/a/b*",
    "files/shop/*",
    "**",
    "files/**/app",
    "docs/",
];
const REPOSITORIES: [&str; 2] = ["files", "docs"];
const PATHS: [&str; 10] = [
    "shop",
    "shop/current/app",
    "shop/current/linux/app",
    "shop/1.0/app",
    "shop/2.0/app",
    "shopping/app",
    "a/b",
    "a/bc/app",
    "app",
    "latest",
];
const BUNDLES: [&str; 3] = ["shop", "ship", "tools"];
const VERSIONS: [&str; 4] = ["1.0", "1.1", "2.0", "stable"];
const ADDRESSES: [&str; 7] =
    ["10.0.0.1", "10.1.2.3", "192.0.2.7", "198.51.100.1", "2001:db8::1", "2001:db8:1::1", "::ffff:10.0.0.1"];
const NETS: [&str; 8] = [
    "10.0.0.0/8",
    "10.0.0.0/24",
    "192.0.2.7/32",
    "198.51.100.0/31",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "any",
    "office",
];
const COUNTRIES: [&str; 4] = ["DE", "FR", "US", "CN"];
const LANGUAGES: [&str; 5] = ["de", "de-CH", "fr", "en", "zh-Hant"];
const FIELDS: [&str; 10] = [
    "de",
    "fr, de;q=0.5",
    "de;q=0.1, fr;q=0.9",
    "de-CH-1996",
    "zh-Hant-TW-x-y",
    "*",
    "en;q=0, de;q=0.001",
    "de;q=2",
    ", ,de-AT,",
    "en-GB;q=0.8,fr;q=0.8, de ; q=0.9",
];
const HOURS: [&str; 5] =
    ["08:00-18:00", "22:00-06:00", "mon-fri 08:00-18:00", "sat,sun 00:00-24:00", "fri-mon 23:00-01:00"];

/// A sound document.
pub fn some_document(draw: &mut Draw<'_>) -> Value {
    let members = ["user:ann", "user:bob", "service:ci", "peer:fra-1"];
    let mut groups = serde_json::Map::new();
    for group in ["ops", "partners"] {
        if !draw.one_in(3) {
            groups.insert(group.into(), draw.some(&members, 3).into());
        }
    }
    let at_least_one = |mut list: Vec<String>, other: &str| {
        if list.is_empty() {
            list.push(other.to_owned());
        }
        list
    };
    let mut grants: Vec<Value> = (0..draw.below(6))
        .map(|at| {
            json!({
                "name": format!("g{at}"),
                "to": at_least_one(draw.some(&SELECTORS, 3), "user:ann"),
                "may": at_least_one(draw.some(&ACTIONS, 3), "read"),
                "on": at_least_one(draw.some(&REACHES, 3), "files/**"),
            })
        })
        .collect();
    if draw.one_in(2) {
        let everybody = ["anonymous", "authenticated", "use-case:peer"];
        grants.push(json!({ "name": "all", "to": everybody, "may": ["read", "list"], "on": ["**"] }));
    }
    let restrictions: Vec<Value> = (0..draw.below(4)).map(|at| some_restriction(draw, at)).collect();
    let steers: Vec<Value> = (0..draw.below(3)).map(|at| some_steer(draw, at)).collect();
    json!({
        "groups": groups,
        "networks": { "office": ["10.0.0.0/25", "2001:db8::/64", "192.0.2.0/29"] },
        "grant": grants,
        "restrict": restrictions,
        "steer": steers,
    })
}

fn some_restriction(draw: &mut Draw<'_>, at: usize) -> Value {
    let mut rule = json!({ "name": format!("r{at}") });
    let list = |rule: &mut Value, draw: &mut Draw<'_>, key: &str, choices: &[&str], rare: usize| {
        let list = if draw.one_in(rare) { draw.some(choices, 2) } else { Vec::new() };
        if !list.is_empty() {
            rule[key] = list.into();
        }
    };
    list(&mut rule, draw, "on", &REACHES, 2);
    list(&mut rule, draw, "actions", &ACTIONS, 4);
    list(&mut rule, draw, "principals", &SELECTORS, 3);
    list(&mut rule, draw, "bundles", &["shop", "s*", "tools"], 3);
    list(&mut rule, draw, "versions", &["1.*", "2.0", "*"], 3);
    list(&mut rule, draw, "hours", &HOURS, 3);
    for (key, choices) in [("networks", &NETS[..]), ("countries", &COUNTRIES[..])] {
        let mut sides = serde_json::Map::new();
        if draw.one_in(2) {
            sides.insert("allow".into(), draw.some(choices, 3).into());
        }
        let deny = draw.some(choices, 1);
        if !deny.is_empty() && draw.one_in(2) {
            sides.insert("deny".into(), deny.into());
        }
        if !sides.is_empty() {
            rule[key] = sides.into();
        }
    }
    if !["hours", "networks", "countries"].iter().any(|key| rule.get(key).is_some()) {
        rule["countries"] = json!({ "deny": ["CN"] });
    }
    rule
}

fn some_steer(draw: &mut Draw<'_>, at: usize) -> Value {
    let (from, to) = draw.of(&[
        ("shop/current/**", "shop/{version}/**"),
        ("shop/current/app", "shop/{version}/app"),
        ("latest", "shop/{version}/app"),
        ("shop/**", "{version}/x-{version}/**"),
        ("a/**", "fixed/**"),
    ]);
    let then = |draw: &mut Draw<'_>| (draw.of(&["version", "version", "alias"]), draw.of(&VERSIONS));
    let choose: Vec<Value> = (0..draw.below(4))
        .map(|_| {
            let (kind, version) = then(draw);
            let mut choice = json!({ kind: version });
            for (key, choices) in [("countries", &COUNTRIES[..]), ("languages", &LANGUAGES[..])] {
                let list = draw.some(choices, 2);
                if !list.is_empty() {
                    choice[key] = list.into();
                }
            }
            choice
        })
        .collect();
    let otherwise = match draw.below(3) {
        0 => json!("deny"),
        _ => {
            let (kind, version) = then(draw);
            json!({ kind: version })
        }
    };
    json!({
        "name": format!("s{at}"), "repository": draw.of(&REPOSITORIES), "from": from, "to": to, "bundle": "shop",
        "choose": choose, "otherwise": otherwise,
    })
}

/// Any request.
pub fn some_request(draw: &mut Draw<'_>) -> Request {
    let scopes = if draw.one_in(4) {
        let scopes =
            ["*:*", "read:files/**", "read,list:*", "list:docs/**", "sign:bundle:shop", "audit:edge"];
        Some(draw.some(&scopes, 2).iter().map(|scope| scope.parse().unwrap()).collect())
    } else {
        None
    };
    let identity = |draw: &mut Draw<'_>, scopes| {
        let (name, groups) = (draw.of(&NAMES).to_owned(), draw.some(&GROUPS, 2));
        Arc::new(Identity { name, groups, credential: None, scopes })
    };
    let principal = match draw.below(8) {
        0 => Principal::Anonymous,
        1 => Principal::Token { name: "root".into() },
        2..=4 => Principal::User(identity(draw, scopes)),
        5 => Principal::Service(identity(draw, scopes)),
        6 => Principal::Peer(Arc::new(Peer {
            name: draw.of(&["fra-1", "ams-1"]).parse().unwrap(),
            use_case: draw.of(&UseCase::ALL),
            credential: "c".into(),
            scopes,
        })),
        _ => Principal::Link(Arc::new(LinkHolder { id: "l".into(), key: "k".into(), subject: None })),
    };
    let action = if draw.one_in(3) {
        draw.of(&Action::ALL)
    } else {
        draw.of(&[Action::Read, Action::Read, Action::List])
    };
    let kind = draw.below(8);
    let known = |text: &str| Some(text.to_owned());
    Request {
        principal,
        action,
        repository: (kind < 6).then(|| draw.of(&REPOSITORIES).parse().unwrap()),
        path: if draw.one_in(8) { None } else { Some(draw.of(&PATHS).parse().unwrap()) },
        public: draw.one_in(4),
        bundle: (kind == 6)
            .then(|| if draw.one_in(4) { None } else { Some(draw.of(&BUNDLES).parse().unwrap()) }),
        client: if draw.one_in(4) { None } else { Some(draw.of(&ADDRESSES).parse().unwrap()) },
        country: if draw.one_in(4) { None } else { known(draw.of(&COUNTRIES)) },
        languages: if draw.one_in(4) { None } else { known(draw.of(&FIELDS)) },
        holders: (0..draw.below(3))
            .map(|_| Holder(draw.of(&BUNDLES).parse().unwrap(), draw.of(&VERSIONS).parse().unwrap()))
            .collect(),
        // 2026-11-16 is a Monday; two weeks in steps of a quarter of an hour and a second.
        now: Timestamp::from_unix(
            1_794_787_200 + (draw.below(256) * 256 + draw.below(256)) as i64 * 18 % 1_209_600,
        ),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> Vec<&'v str> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn rules<'v>(document: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    document.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// What the document says of the request, in words.
fn model(document: &Value, request: &Request) -> String {
    if !may(document, request, request.path.as_ref().map(ArtifactPath::as_str)) {
        return "unseen".into();
    }
    if let Some(answer) = steer(document, request) {
        if let Some(rule) = restriction(document, request, true) {
            return format!("forbid {rule}");
        }
        return match answer {
            Err(rule) => format!("forbid {rule}"),
            Ok((path, version, rule)) if may(document, request, Some(&path)) => {
                format!("steer {path} {version} {rule}")
            }
            Ok(_) => "unseen".into(),
        };
    }
    match restriction(document, request, false) {
        Some(rule) => format!("forbid {rule}"),
        None => "permit".into(),
    }
}

fn may(document: &Value, request: &Request, path: Option<&str>) -> bool {
    let action = request.action.as_str();
    let reaches = |reach: &str| reached(reach, request, path);
    if let Some(scopes) = request.principal.scopes() {
        let inside = |scope: &str| {
            let (actions, reach) = scope.split_once(':').unwrap();
            (actions == "*" || actions.split(',').any(|one| one == action)) && reaches(reach)
        };
        if !scopes.iter().any(|scope| inside(&scope.to_string())) {
            return false;
        }
    }
    let read_or_list = action == "read" || action == "list";
    match &request.principal {
        Principal::Token { .. } => return true,
        Principal::Link(_) => return false,
        _ if request.repository.is_some() && request.public && read_or_list => return true,
        Principal::Peer(peer) => {
            let always = match peer.use_case.as_str() {
                "source-edge" => {
                    ["receive", "withdraw", "list", "audit"].contains(&action)
                        || action == "read" && request.repository.is_none() && request.bundle.is_some()
                }
                "edge-edge" => read_or_list,
                "control" => ["administer", "audit", "mint", "list"].contains(&action),
                _ => action == "read",
            };
            if always {
                return true;
            }
        }
        _ => {}
    }
    rules(document, "grant").any(|grant| {
        list(grant, "to").iter().any(|who| is_one_of(document, who, &request.principal))
            && list(grant, "may").contains(&action)
            && list(grant, "on").iter().any(|reach| reaches(reach))
    })
}

fn is_one_of(document: &Value, who: &str, principal: &Principal) -> bool {
    let printed = principal.to_string();
    match who.split_once(':') {
        None if who == "authenticated" => {
            ["user:", "service:", "token:"].iter().any(|kind| printed.starts_with(kind))
        }
        None if who == "link" => printed.starts_with("link:"),
        None => who == printed,
        Some(("group", group)) => {
            principal.groups().iter().any(|one| one == group)
                || list(document.get("groups").unwrap_or(&Value::Null), group).contains(&printed.as_str())
        }
        Some(("use-case", case)) => {
            matches!(principal, Principal::Peer(peer) if peer.use_case.as_str() == case)
        }
        Some(_) => who == printed,
    }
}

fn reached(reach: &str, request: &Request, path: Option<&str>) -> bool {
    if reach == "*" {
        return true;
    }
    match (&request.repository, &request.bundle) {
        (Some(name), _) => {
            !reach.contains(':')
                && reach != "edge"
                && match path {
                    Some(path) => {
                        matches_naively(reach, &format!("{name}/{path}"))
                            || matches_naively(reach, &format!("{name}/{path}/"))
                    }
                    None => matches_naively(reach, &format!("{name}/")),
                }
        }
        (None, Some(Some(name))) => {
            reach.strip_prefix("bundle:").is_some_and(|pattern| matches_naively(pattern, name.as_str()))
        }
        (None, Some(None)) => reach == "bundle:*" || reach == "bundle:**",
        (None, None) => reach == "edge",
    }
}

/// The first restriction that is not met.
fn restriction(document: &Value, request: &Request, asked: bool) -> Option<String> {
    let action = request.action.as_str();
    let broken = rules(document, "restrict").find(|rule| {
        let actions = list(rule, "actions");
        let (on, principals) = (list(rule, "on"), list(rule, "principals"));
        let path = request.path.as_ref().map(ArtifactPath::as_str);
        let acts =
            if actions.is_empty() { action == "read" || action == "list" } else { actions.contains(&action) };
        let exempt = action == "administer" && matches!(request.principal, Principal::Token { .. });
        let concerned = acts
            && !exempt
            && (on.is_empty() || on.iter().any(|reach| reached(reach, request, path)))
            && (principals.is_empty()
                || principals.iter().any(|who| is_one_of(document, who, &request.principal)))
            && about_bundle(rule, request, asked);
        concerned && !met(document, rule, request)
    });
    broken.map(|rule| rule["name"].as_str().unwrap().to_owned())
}

fn about_bundle(rule: &Value, request: &Request, asked: bool) -> bool {
    let (bundles, versions) = (list(rule, "bundles"), list(rule, "versions"));
    if bundles.is_empty() && versions.is_empty() {
        return true;
    }
    let fits = |patterns: &[&str], name: &str| {
        patterns.is_empty() || patterns.iter().any(|one| matches_naively(one, name))
    };
    match (&request.repository, &request.bundle) {
        _ if asked => false,
        (Some(_), _) if request.path.is_some() && request.action != Action::List => {
            let holds =
                |holder: &Holder| fits(&bundles, holder.0.as_str()) && fits(&versions, holder.1.as_str());
            request.holders.is_empty() || request.holders.iter().any(holds)
        }
        (None, Some(Some(name))) => {
            let of_it: Vec<&Holder> = request.holders.iter().filter(|holder| holder.0 == *name).collect();
            fits(&bundles, name.as_str())
                && (of_it.is_empty() || of_it.iter().any(|holder| fits(&versions, holder.1.as_str())))
        }
        _ => false,
    }
}

fn met(document: &Value, rule: &Value, request: &Request) -> bool {
    let side = |sides: &Value, side: &str, is: &dyn Fn(&str) -> bool| {
        sides.get(side).map(|_| list(sides, side).iter().any(|one| is(one)))
    };
    if let Some(sides) = rule.get("networks") {
        let Some(client) = request.client else { return false };
        let is = |net: &str| match net {
            "any" => true,
            net if net.contains('/') => inside(net, client),
            name => list(&document["networks"], name).iter().any(|net| inside(net, client)),
        };
        if side(sides, "deny", &is) == Some(true) || side(sides, "allow", &is) == Some(false) {
            return false;
        }
    }
    if let Some(sides) = rule.get("countries") {
        let Some(country) = &request.country else { return false };
        let is = |one: &str| one == country;
        if side(sides, "deny", &is) == Some(true) || side(sides, "allow", &is) == Some(false) {
            return false;
        }
    }
    let hours = list(rule, "hours");
    hours.is_empty() || hours.iter().any(|hours| open(hours, request.now))
}

/// Compares the bits of two addresses one by one.
fn inside(net: &str, client: IpAddr) -> bool {
    let (first, prefix) = net.split_once('/').unwrap();
    let bits = |address: IpAddr| -> Vec<bool> {
        let bytes = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (first, client) = (bits(first.parse().unwrap()), bits(client));
    let prefix: usize = prefix.parse().unwrap();
    first.len() == client.len() && first[..prefix] == client[..prefix]
}

/// Whether a second of the week lies in the hours, tried day by day.
fn open(hours: &str, now: Timestamp) -> bool {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let hours = hours.trim().to_ascii_lowercase();
    let (days, times) = hours.rsplit_once(' ').unwrap_or(("mon-sun", &hours));
    let day = |name: &str| DAYS.iter().position(|day| *day == name.trim()).unwrap();
    let is_day = |at: usize| {
        days.split(',').any(|part| match part.split_once('-') {
            None => day(part) == at,
            Some((first, last)) if day(first) <= day(last) => (day(first)..=day(last)).contains(&at),
            Some((first, last)) => at >= day(first) || at <= day(last),
        })
    };
    let second = |time: &str| {
        let (hour, minute) = time.split_once(':').unwrap();
        hour.parse::<i64>().unwrap() * 3600 + minute.parse::<i64>().unwrap() * 60
    };
    let (from, until) = times.split_once('-').unwrap();
    let (from, mut until) = (second(from), second(until));
    if until <= from {
        until += 86_400;
    }
    // The epoch was a Thursday.
    let week = 7 * 86_400;
    let at = (now.as_unix() + 3 * 86_400).rem_euclid(week);
    (0..7).filter(|day| is_day(*day)).any(|day| {
        let begin = day as i64 * 86_400;
        [at, at + week].iter().any(|at| *at >= begin + from && *at < begin + until)
    })
}

/// Path, bundle with version, and name of the first steering rule about the request, or the rule that has
/// nothing for it.
fn steer(document: &Value, request: &Request) -> Option<Result<(String, String, String), String>> {
    let path = request.path.as_ref()?.as_str();
    if request.action != Action::Read {
        return None;
    }
    for rule in rules(document, "steer") {
        let word = |key: &str| rule[key].as_str().unwrap().to_owned();
        let (name, from, to) = (word("name"), word("from"), word("to"));
        if request.repository.as_ref()?.as_str() != word("repository") {
            continue;
        }
        let rest = match from.strip_suffix("**") {
            Some(folder) if path.starts_with(folder) => path[folder.len()..].to_owned(),
            None if from == path => String::new(),
            _ => continue,
        };
        let Some((kind, version)) = chosen(rule, request) else { return Some(Err(name)) };
        let target = to.replace("{version}", &version).replace("**", &rest);
        let version = if kind == "version" { &version } else { "an alias" };
        let version = format!("{} {version}", word("bundle"));
        return Some(match ArtifactPath::new(&target) {
            Ok(_) => Ok((target, version, name)),
            Err(_) => Err(name),
        });
    }
    None
}

fn chosen(rule: &Value, request: &Request) -> Option<(String, String)> {
    let then = |choice: &Value| {
        ["version", "alias"]
            .iter()
            .find_map(|key| Some(((*key).to_owned(), choice.get(key)?.as_str()?.to_owned())))
    };
    let open: Vec<&Value> = rules(rule, "choose")
        .filter(|choice| {
            let countries = list(choice, "countries");
            countries.is_empty()
                || request.country.as_ref().is_some_and(|country| countries.contains(&country.as_str()))
        })
        .collect();
    let competing: Vec<&Value> =
        open.iter().take_while(|choice| !list(choice, "languages").is_empty()).copied().collect();
    for tag in wanted(request.languages.as_deref().unwrap_or("")) {
        let found = competing
            .iter()
            .find(|choice| list(choice, "languages").iter().any(|language| language.to_lowercase() == tag));
        if let Some(found) = found {
            return then(found);
        }
    }
    let catch_all = open.iter().find(|choice| list(choice, "languages").is_empty());
    catch_all.and_then(|choice| then(choice)).or_else(|| then(&rule["otherwise"]))
}

/// Every tag that a client takes, in lower case, the best one first.
fn wanted(field: &str) -> Vec<String> {
    let mut ranges: Vec<(String, f64)> = Vec::new();
    for element in field.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let mut parts = element.split(';').map(str::trim);
        let range = parts.next().unwrap().to_lowercase();
        let weight = parts.next().map_or(1.0, |weight| weight.trim_start_matches("q=").parse().unwrap());
        if weight > 1.0 {
            return Vec::new();
        }
        ranges.push((range, weight));
    }
    let refused: Vec<String> =
        ranges.iter().filter(|range| range.1 == 0.0).map(|range| range.0.clone()).collect();
    ranges.retain(|range| range.1 > 0.0 && range.0 != "*");
    ranges.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut tags = Vec::new();
    for (range, _) in ranges {
        let mut parts: Vec<&str> = range.split('-').collect();
        while !parts.is_empty() {
            tags.push(parts.join("-"));
            parts.pop();
            while parts.last().is_some_and(|part| part.len() == 1) {
                parts.pop();
            }
        }
    }
    tags.retain(|tag| !refused.contains(tag));
    tags
}
