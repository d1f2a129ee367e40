use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::access::{Identity, LinkHolder, Peer, UseCase};
use crate::clock::Timestamp;
use crate::name::{ArtifactPath, Holder, RepositoryName, Tenant};

/// 2026-11-22T05:00:00Z, a Sunday.
const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

fn compiled(document: Value) -> CompiledPolicy {
    CompiledPolicy::new(Document::from_value(&document).unwrap())
}

fn refused(document: Value) -> String {
    Document::from_value(&document).unwrap_err().message().to_owned()
}

fn user(name: &str) -> Principal {
    Principal::User(Arc::new(Identity { name: name.into(), ..Identity::default() }))
}

/// One request for an artifact.
struct Ask {
    tenant: Tenant,
    principal: Principal,
    action: Action,
    repository: RepositoryName,
    path: ArtifactPath,
    holders: Vec<Holder>,
    address: Option<&'static str>,
    country: Option<&'static str>,
    languages: Option<&'static str>,
}

impl Ask {
    fn new(principal: Principal, path: &str) -> Ask {
        Ask {
            tenant: Tenant::new("acme").unwrap(),
            principal,
            action: Action::Read,
            repository: RepositoryName::new("files").unwrap(),
            path: ArtifactPath::new(path).unwrap(),
            holders: vec![Holder("shop".parse().unwrap(), "1.0".parse().unwrap())],
            address: Some("10.0.0.1"),
            country: Some("DE"),
            languages: None,
        }
    }

    fn request(&self) -> AccessRequest<'_> {
        let resource = Resource::Repository { name: &self.repository, path: Some(&self.path), public: false };
        AccessRequest::new(&self.tenant, &self.principal, self.action, resource, NOW)
            .with_client(self.address.map(|address| address.parse().unwrap()))
            .with_country(self.country.map(|country| country.parse().unwrap()))
            .with_languages(self.languages)
            .with_holders(&self.holders)
    }
}

/// Every way in which something may be unknown, against every sort of restriction: P7, C04.
#[test]
fn every_unknown_is_denied_by_every_restriction_that_asks_for_it() {
    let networks = [
        json!({ "allow": ["10.0.0.0/8"] }),
        json!({ "allow": ["any"] }),
        json!({ "deny": ["192.0.2.0/24"] }),
        json!({ "allow": ["any"], "deny": ["192.0.2.0/24"] }),
        json!({ "allow": ["list"] }),
    ];
    let countries = [
        json!({ "allow": ["DE"] }),
        json!({ "deny": ["FR"] }),
        json!({ "allow": ["DE", "FR"], "deny": ["FR"] }),
    ];
    let about = [
        json!({}),
        json!({ "on": ["files/shop/**"] }),
        json!({ "bundles": ["shop"] }),
        json!({ "versions": ["1.*"] }),
        json!({ "bundles": ["sh*"], "versions": ["1.0"] }),
        json!({ "principals": ["user:alice", "link"] }),
        json!({ "hours": ["sat,sun 00:00-24:00"] }),
    ];
    let link = LinkHolder { id: "l".into(), key: "k".into(), subject: None };
    let mut cells = 0;
    for (key, sorts) in [("networks", &networks[..]), ("countries", &countries[..])] {
        for sort in sorts {
            for extra in &about {
                let mut rule = extra.clone();
                rule["name"] = "r".into();
                rule[key] = sort.clone();
                let policy = compiled(json!({ "networks": { "list": ["10.0.0.0/8"] }, "restrict": [rule] }));
                for principal in [user("alice"), Principal::Link(Arc::new(link.clone()))] {
                    let mut ask = Ask::new(principal, "shop/app");
                    assert_eq!(policy.restricted(&ask.request()), Ok(true), "all is known: {rule}");
                    match key {
                        "networks" => ask.address = None,
                        _ => ask.country = None,
                    }
                    let refusal = policy.restricted(&ask.request()).unwrap_err();
                    assert_eq!(
                        (refusal.kind, refusal.rule.as_str()),
                        (RefusalKind::Restriction, "r"),
                        "{rule}"
                    );
                    ask.holders.clear();
                    assert!(policy.restricted(&ask.request()).is_err(), "nor is the bundle known: {rule}");
                    cells += 3;
                }
            }
        }
    }
    assert_eq!(cells, 8 * 7 * 2 * 3);
}

/// An artifact whose bundle is not known is taken for one of the restricted bundles.
#[test]
fn an_unknown_bundle_is_the_restricted_one() {
    for about in [json!({ "bundles": ["shop"] }), json!({ "versions": ["1.*"] })] {
        let mut rule = about;
        rule["name"] = "r".into();
        rule["countries"] = json!({ "allow": ["FR"] });
        let policy = compiled(json!({ "restrict": [rule] }));
        let mut ask = Ask::new(user("alice"), "shop/app");
        assert!(policy.restricted(&ask.request()).is_err());
        ask.holders = vec![Holder("other".parse().unwrap(), "2.0".parse().unwrap())];
        assert_eq!(policy.restricted(&ask.request()), Ok(false), "it is about another bundle");
        ask.holders.push(Holder("shop".parse().unwrap(), "1.0".parse().unwrap()));
        assert!(policy.restricted(&ask.request()).is_err(), "one of its bundles is restricted");
        ask.holders.clear();
        assert!(policy.restricted(&ask.request()).is_err());
    }
}

#[test]
fn hours_close() {
    let policy =
        compiled(json!({ "restrict": [{ "name": "office-hours", "hours": ["mon-fri 08:00-18:00"] }] }));
    let ask = Ask::new(user("alice"), "shop/app");
    assert_eq!(policy.restricted(&ask.request()).unwrap_err().rule, "office-hours");
    let mut monday = ask.request();
    monday.now = NOW.plus(86_400 + 4 * 3600);
    assert_eq!(policy.restricted(&monday), Ok(true));
}

#[test]
fn a_denial_wins_and_an_empty_allow_list_allows_nobody() {
    let rule = |networks: Value| compiled(json!({ "restrict": [{ "name": "r", "networks": networks }] }));
    let ask = Ask::new(user("alice"), "shop/app");
    let both = json!({ "allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/24"] });
    assert!(rule(both).restricted(&ask.request()).is_err());
    assert!(rule(json!({ "allow": [] })).restricted(&ask.request()).is_err());
    assert!(rule(json!({ "deny": ["any"] })).restricted(&ask.request()).is_err());
    // C07: a mapped address is the IPv4 address.
    let mut mapped = Ask::new(user("alice"), "shop/app");
    mapped.address = Some("::ffff:10.0.0.1");
    assert!(rule(json!({ "deny": ["10.0.0.0/8"] })).restricted(&mapped.request()).is_err());
    assert!(rule(json!({ "allow": ["10.0.0.0/8"] })).restricted(&mapped.request()).is_ok());
}

#[test]
fn the_control_token_can_always_mend_the_policy() {
    let policy = compiled(json!({
        "restrict": [{ "name": "nobody", "actions": ["administer", "read"], "networks": { "deny": ["any"] } }]
    }));
    let mut ask = Ask::new(Principal::Token { name: "root".into() }, "shop/app");
    assert!(policy.restricted(&ask.request()).is_err());
    ask.action = Action::Administer;
    assert_eq!(policy.restricted(&ask.request()), Ok(false));
    ask.principal = user("alice");
    assert!(policy.restricted(&ask.request()).is_err());
}

#[test]
fn peers_may_what_their_use_case_needs() {
    let policy = CompiledPolicy::default();
    let tenant = Tenant::new("acme").unwrap();
    let may = |use_case, action, resource| {
        let peer = Peer { name: "p".parse().unwrap(), use_case, credential: "c".into(), scopes: None };
        let principal = Principal::Peer(Arc::new(peer));
        policy.rights(&AccessRequest::new(&tenant, &principal, action, resource, NOW)).is_ok()
    };
    let files = RepositoryName::new("files").unwrap();
    let artifact = Resource::Repository { name: &files, path: None, public: false };
    let told = |use_case| -> Vec<&str> {
        Action::ALL
            .into_iter()
            .filter(|action| may(use_case, *action, Resource::Edge))
            .map(Action::as_str)
            .collect()
    };
    assert_eq!(told(UseCase::SourceEdge), ["list", "receive", "withdraw", "audit"]);
    assert_eq!(told(UseCase::EdgeEdge), ["read", "list"]);
    assert_eq!(told(UseCase::Control), ["list", "mint", "audit", "administer"]);
    assert_eq!(told(UseCase::Peer), ["read"]);
    assert!(!may(UseCase::SourceEdge, Action::Read, artifact));
    assert!(may(UseCase::SourceEdge, Action::Read, Resource::Bundle { name: None }));
}

#[test]
fn scopes_narrow_even_what_is_public() {
    let policy = CompiledPolicy::default();
    let tenant = Tenant::new("acme").unwrap();
    let files = RepositoryName::new("files").unwrap();
    let resource = Resource::Repository { name: &files, path: None, public: true };
    let with = |scopes: Option<&[&str]>| {
        let scopes = scopes.map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
        let principal =
            Principal::User(Arc::new(Identity { name: "alice".into(), scopes, ..Identity::default() }));
        let request = AccessRequest::new(&tenant, &principal, Action::List, resource, NOW);
        policy.evaluate(&request)
    };
    assert_eq!(with(None), Effect::Permit);
    assert_eq!(with(Some(&["list:files/**"])), Effect::Permit);
    assert!(matches!(with(Some(&["read:files/**"])), Effect::Forbid(_)));
    assert!(matches!(with(Some(&[])), Effect::Forbid(_)));
}

#[test]
fn one_address_leads_everybody_to_their_version() {
    let policy = compiled(json!({
        "grant": [{ "name": "all", "to": ["authenticated"], "may": ["read"], "on": ["files/**"] }],
        "steer": [{
            "name": "current", "repository": "files", "from": "shop/current/**", "to": "shop/{version}/**",
            "bundle": "shop",
            "choose": [
                { "countries": ["CN"], "version": "1.0-export" },
                { "languages": ["de"], "version": "2.0-de" },
                { "languages": ["fr"], "alias": "stable" },
            ],
            "otherwise": { "version": "2.0" },
        }],
    }));
    let get = |country, languages| {
        let mut ask = Ask::new(user("alice"), "shop/current/linux/app");
        (ask.country, ask.languages) = (country, languages);
        match policy.decide(&ask.request()) {
            Decision::Steer(steering) => {
                (steering.path.to_string(), steering.version.map(|one| one.to_string()))
            }
            other => panic!("{other:?}"),
        }
    };
    let path = |version: &str| format!("shop/{version}/linux/app");
    let version = |version: &str| (path(version), Some(version.to_owned()));
    assert_eq!(get(Some("DE"), Some("de-AT, en;q=0.5")), version("2.0-de"));
    assert_eq!(get(Some("DE"), Some("fr;q=0.9, de;q=0.2")), (path("stable"), None));
    assert_eq!(get(Some("DE"), Some("ja")), version("2.0"));
    assert_eq!(get(None, None), version("2.0"));
    assert_eq!(get(Some("CN"), Some("ja")), version("1.0-export"));
    assert_eq!(
        get(Some("CN"), Some("de")),
        version("1.0-export"),
        "the choice without languages comes first"
    );
}

#[test]
fn a_document_is_refused_with_the_place_of_every_fault() {
    let unreadable = refused(json!({
        "grnt": [],
        "networks": { "bad": ["10.0.0.5/8"] },
        "grant": [
            { "name": "a", "to": ["user:x"], "may": ["read", "reed"], "on": ["files/**"] },
            { "name": "a", "to": ["user:x"], "may": ["read"], "on": ["*"], "onn": 1 },
            { "name": "b", "to": [], "may": ["read"], "on": ["*"] },
        ],
        "restrict": [
            { "name": "r", "networks": { "allow": ["0.0.0.0/0", "1.2.3.4/33", "offise"] } },
            { "name": "s" },
            { "name": "t", "countries": { "deny": [] }, "bundles": [] },
        ],
        "duties": { "four_eyes": ["read"], "signer_may_not_distribute": "yes" },
    }));
    for fault in [
        "the document: \"grnt\" is not a key; did you mean \"grant\"?",
        "networks.bad[0]: \"10.0.0.5/8\" is not a network",
        "grant[0].may[1]: \"reed\" is not an action",
        "grant[1]: \"onn\" is not a key; did you mean \"on\"?",
        "grant[2]: \"to\" is missing",
        "restrict[0].networks.allow[0]: \"0.0.0.0/0\" is every address: write \"any\"",
        "restrict[0].networks.allow[1]: \"1.2.3.4/33\" is not a network",
        "restrict[1]: it restricts nothing",
        "restrict[2].countries.deny: it is empty",
        "restrict[2].bundles: it is empty",
        "duties.four_eyes[0]: only distribute and withdraw",
        "duties.signer_may_not_distribute: expected",
    ] {
        assert!(unreadable.contains(fault), "{fault}\n{unreadable}");
    }
    let unsound = refused(json!({
        "groups": { "ops": ["group:x"] },
        "networks": { "10.0.0.1": [], "bad": ["10.0.0.0/8", "any"] },
        "grant": [
            { "name": "a", "to": ["user:x"], "may": ["read"], "on": ["files"] },
            { "name": "a", "to": ["link"], "may": ["read"], "on": ["*"] },
        ],
    }));
    for fault in [
        "groups.ops[0]: a member is",
        "networks.bad[1]: a list has networks",
        "networks: \"10.0.0.1\" reads like an address",
        "grant[0].on[0]: files reaches nothing",
        "grant[1]: there is another grant",
        "grant[1].to[0]: nothing is granted to signed URLs",
    ] {
        assert!(unsound.contains(fault), "{fault}\n{unsound}");
    }
    let typos: Vec<Value> = (0..25).map(|at| json!({ "name": at.to_string(), "tooo": 1 })).collect();
    assert!(refused(json!({ "grant": typos })).ends_with("more"));
    assert!(
        refused(json!({ "restrict": [{ "name": "r", "networks": { "allow": ["offise"] } }] }))
            .contains("restrict[0].networks.allow[0]: \"offise\" is neither a network nor a list")
    );
    assert!(refused(json!([])).contains("expected a table"));
    let twice = Document::from_json(br#"{"grant":[],"grant":[]}"#).unwrap_err();
    assert!(twice.message().contains("grant"), "{twice}");
}

#[test]
fn an_unsound_steering_rule_is_refused() {
    let steer = |changes: Value| {
        let mut rule = json!({
            "name": "s", "repository": "files", "from": "a/**", "to": "b/{version}/**", "bundle": "shop",
            "choose": [{ "version": "1" }],
        });
        for (key, value) in changes.as_object().unwrap() {
            rule[key] = value.clone();
        }
        Document::from_value(&json!({ "steer": [rule] }))
    };
    assert!(steer(json!({})).is_ok());
    for changes in [
        json!({ "from": "a/{version}/**" }),
        json!({ "from": "a/b" }),
        json!({ "from": "**" }),
        json!({ "from": "a/*" }),
        json!({ "to": "../{version}/**" }),
        json!({ "to": "/b/**" }),
        json!({ "to": "b/{versoin}/**" }),
        json!({ "choose": [{}] }),
        json!({ "choose": [{ "version": "1", "alias": "2" }] }),
        json!({ "choose": [{ "version": "1/2" }] }),
        json!({ "choose": [{ "version": "1", "countries": ["de"] }] }),
        json!({ "choose": [{ "version": "1", "languages": ["*"] }] }),
        json!({ "choose": [{ "version": "1", "languages": [] }] }),
        json!({ "otherwise": "allow" }),
        json!({ "otherwise": {} }),
        json!({ "repository": "api" }),
    ] {
        assert!(steer(changes.clone()).is_err(), "{changes}");
    }
}

#[test]
fn an_explanation_tells_every_rule_up_to_the_one_that_decides() {
    let policy = compiled(json!({
        "grant": [
            { "name": "ops", "to": ["group:ops"], "may": ["read"], "on": ["*"] },
            { "name": "partner", "to": ["user:alice"], "may": ["read"], "on": ["files/shop/**"] },
        ],
        "restrict": [
            { "name": "docs", "on": ["docs/**"], "countries": { "allow": ["FR"] } },
            { "name": "office", "networks": { "allow": ["10.0.0.0/8"] } },
            { "name": "export", "bundles": ["shop"], "countries": { "deny": ["DE"] } },
        ],
    }));
    let ask = Ask::new(user("alice"), "shop/app");
    let explained = policy.explain(&ask.request());
    assert!(explained.agrees_with(&policy.decide(&ask.request())));
    let chain: Vec<_> = explained.steps.iter().map(|step| (step.rule.as_str(), step.verdict)).collect();
    assert_eq!(
        chain,
        [
            ("ops", Verdict::Silent),
            ("partner", Verdict::Permits),
            ("docs", Verdict::Silent),
            ("office", Verdict::Permits),
            ("export", Verdict::Denies),
        ]
    );
    assert_eq!((explained.decision, explained.rule.as_str()), (Outcome::Forbid, "export"));
    let written = serde_json::to_value(&explained).unwrap();
    assert_eq!(written["decision"], "forbid");
    assert_eq!(written["steps"][1]["stage"], "grant");
    let stranger = Ask::new(user("bob"), "shop/app");
    assert_eq!(policy.explain(&stranger.request()).decision, Outcome::Unseen);
}

#[test]
fn a_described_request_is_judged_as_a_real_one() {
    let tenant = Tenant::new("acme").unwrap();
    let described: Described = serde_json::from_value(json!({
        "principal": "user:alice", "groups": ["ops"], "repository": "files", "path": "shop/app",
        "bundle": "shop", "version": "1.0", "address": "::ffff:10.0.0.1", "country": "DE", "languages": "de",
        "at": "2026-11-22T05:00:00Z",
    }))
    .unwrap();
    let question = described.question(Timestamp::EPOCH).unwrap();
    let request = question.request(&tenant);
    assert_eq!((request.now, request.action), (NOW, Action::Read));
    assert_eq!(request.client, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(request.holders.len(), 1);
    assert!(!question.lacks_holders());
    for bad in [
        json!({ "path": "a" }),
        json!({ "version": "1" }),
        json!({ "repository": "files", "bundle": "shop" }),
        json!({ "principal": "peer:x" }),
        json!({ "principal": "root" }),
    ] {
        let described: Described = serde_json::from_value(bad.clone()).unwrap();
        assert!(described.question(NOW).is_err(), "{bad}");
    }
    assert!(serde_json::from_value::<Described>(json!({ "pth": "a" })).is_err());
}

#[test]
fn a_replay_tells_whom_a_policy_would_shut_out_and_let_in() {
    let tenant = Tenant::new("acme").unwrap();
    let grant = |to: &[&str]| json!([{ "name": "g", "to": to, "may": ["read"], "on": ["files/**"] }]);
    let old = compiled(json!({ "grant": grant(&["user:alice", "user:bob"]) }));
    let new = compiled(json!({
        "grant": grant(&["user:alice", "user:carol"]),
        "restrict": [{ "name": "office", "networks": { "allow": ["10.0.0.0/8"] } }],
    }));
    let past = |who: &str, second: i64, address: Option<&str>, allowed: bool| {
        let mut past = PastRequest::new(NOW.plus(second), who, Action::Read, "files".parse().unwrap());
        past.path = Some("shop/app".parse().unwrap());
        past.client = address.map(|address| address.parse().unwrap());
        past.allowed = allowed;
        past
    };
    let requests = [
        past("user:alice", 0, Some("10.0.0.1"), true),
        past("user:alice", 1, Some("192.0.2.1"), true),
        past("user:bob", 2, Some("10.0.0.1"), true),
        past("user:bob", 3, Some("10.0.0.1"), true),
        past("user:carol", 4, Some("10.0.0.1"), false),
        past("link:x", 5, None, true),
        past("peer:unknown", 6, None, true),
    ];
    let run = |old: Option<&CompiledPolicy>, requests: &mut dyn Iterator<Item = PastRequest>| {
        let mut replaying = replay(tenant.clone(), old.cloned(), new.clone());
        requests.for_each(|past| replaying.judge(past));
        replaying.report()
    };
    for old in [Some(&old), None] {
        let report = run(old, &mut requests.clone().into_iter());
        assert_eq!((report.judged, report.skipped), (6, 1));
        assert_eq!((report.newly_denied, report.newly_allowed, report.left_out), (4, 1, 0));
        let first = &report.changes[0];
        assert_eq!((first.who.as_str(), first.rule.as_str(), first.requests), ("user:bob", "no-grant", 2));
        assert_eq!((first.first, first.last), (NOW.plus(2), NOW.plus(3)));
        assert_eq!(first.example, "files/shop/app");
        assert!(report.changes.iter().any(|change| change.who == "link:x" && change.rule == "office"));
        assert!(report.changes.iter().any(|change| change.who == "user:carol" && change.allowed));
    }
    let mut many = (0..2_000).map(|at| past(&format!("user:u{at}"), 0, None, true));
    let report = run(None, &mut many);
    assert_eq!((report.newly_denied, report.changes.len(), report.left_out), (2_000, MAX_CHANGES, 1_000));
}

#[derive(Debug)]
struct Never;

impl Policy for Never {
    fn evaluate(&self, _: &AccessRequest<'_>) -> Effect {
        Effect::Forbid(Refusal::new(RefusalKind::Restriction, "never", "closed"))
    }
}

#[test]
fn forbid_overrides_permit_and_silence_denies() {
    let tenant = Tenant::new("default").unwrap();
    let name = RepositoryName::new("r").unwrap();
    let (anonymous, holder) = (Principal::Anonymous, Principal::Token { name: "t".into() });
    let ask = |set: &PolicySet, principal, action, public| {
        let resource = Resource::Repository { name: &name, path: None, public };
        set.decide(&AccessRequest::new(&tenant, principal, action, resource, Timestamp::EPOCH))
    };
    let set = PolicySet::new(vec![Arc::new(PublicRead), Arc::new(TokenHolders)]);
    assert_eq!(ask(&set, &anonymous, Action::Read, true), Decision::Permit);
    assert_eq!(ask(&set, &holder, Action::Withdraw, false), Decision::Permit);
    for (action, public) in [(Action::Read, false), (Action::Receive, true), (Action::Administer, true)] {
        assert!(matches!(ask(&set, &anonymous, action, public), Decision::Forbid(_)), "{action:?}");
    }
    let closed = PolicySet::new(vec![Arc::new(PublicRead), Arc::new(Never)]);
    assert!(
        matches!(ask(&closed, &anonymous, Action::Read, true), Decision::Forbid(refusal) if refusal.reason == "closed")
    );
    assert!(matches!(ask(&PolicySet::default(), &holder, Action::Read, true), Decision::Forbid(_)));
}
