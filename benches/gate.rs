//! CPU of one decision: the client's address behind a proxy, rights by 1,000 grants, a restriction
//! with 10,000 networks.
//!
//! ```text
//! cargo bench --bench gate                        # rounds of 1,000,000 decisions
//! cargo bench --bench gate -- rounds=5 decisions=100_000
//! ```
//!
//! Every step is timed on the same 1,024 requests, whose users, paths and addresses are drawn.
//! With `count`, a step is run and not timed: the instructions of
//! `valgrind --tool=callgrind … count only=rights decisions=10001`, less those with `decisions=1`, are
//! those of 10,000 decisions.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use distedge::access::{AccessRequest, Action, Identity, Principal, Resource};
use distedge::address::{AddressHeader, ClientAddress, TrustedProxies, client_address};
use distedge::clock::Timestamp;
use distedge::name::{ArtifactPath, Holder, RepositoryName, Tenant};
use distedge::policy::{CompiledPolicy, Document};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);
/// Requests that are drawn; a power of two. What a request brings was just parsed and is in the
/// cache: so many are.
const REQUESTS: usize = 1 << 10;

fn main() {
    let (rounds, decisions) = (setting("rounds", 7), setting("decisions", 1_000_000));
    let only = std::env::args().find_map(|argument| argument.strip_prefix("only=").map(str::to_owned));
    let policy = CompiledPolicy::new(Document::from_value(&document()).unwrap());
    let proxies = TrustedProxies::new(vec!["192.0.2.0/28".parse().unwrap()], AddressHeader::XForwardedFor);
    let peer: IpAddr = "192.0.2.1".parse().unwrap();
    let tenant = Tenant::new("default").unwrap();
    let asks: Vec<Ask> = draw();
    let request = |ask: &Ask, client: Option<IpAddr>| -> AccessRequest<'static> {
        // The bench ends with the process.
        let ask: &'static Ask = Box::leak(Box::new(ask.clone()));
        let tenant: &'static Tenant = Box::leak(Box::new(tenant.clone()));
        let resource = Resource::Repository { name: &ask.repository, path: Some(&ask.path), public: false };
        AccessRequest::new(tenant, &ask.principal, Action::Read, resource, NOW)
            .with_client(client)
            .with_holders(&ask.holders)
    };
    let requests: Vec<AccessRequest<'static>> =
        asks.iter().map(|ask| request(ask, Some(IpAddr::V4(ask.client)))).collect();
    let permitted = requests.iter().filter(|request| policy.rights(request).is_ok()).count();
    let allowed = requests.iter().filter(|request| policy.restricted(request).is_ok()).count();
    println!("{permitted} of {REQUESTS} requests have the right, {allowed} come from an allowed network");
    let address = |at: usize| {
        let known = client_address(peer, [asks[at].header.as_bytes()], &proxies);
        matches!(known, ClientAddress::Known(_))
    };
    let steps: [(&str, &dyn Fn(usize) -> bool); 4] = [
        ("address", &address),
        ("rights", &|at| policy.rights(&requests[at]).is_ok()),
        ("restrict", &|at| policy.restricted(&requests[at]).is_ok()),
        ("all", &|at| {
            let right = policy.rights(&requests[at]).is_ok();
            let place = policy.restricted(&requests[at]).is_ok();
            address(at) & right & place
        }),
    ];
    println!("{:<10} {:>12} {:>12}", "step", "median ns", "fastest ns");
    for (name, step) in steps {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        if std::env::args().any(|argument| argument == "count") {
            (0..decisions).for_each(|at| _ = black_box(step(black_box(at & (REQUESTS - 1)))));
            continue;
        }
        let mut times: Vec<f64> = (0..rounds)
            .map(|_| {
                let begun = cpu();
                for at in 0..decisions {
                    black_box(step(black_box(at & (REQUESTS - 1))));
                }
                (cpu() - begun).as_nanos() as f64 / decisions as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{name:<10} {:>12.0} {:>12.0}", times[times.len() / 2], times[0]);
    }
}

#[derive(Clone)]
struct Ask {
    principal: Principal,
    repository: RepositoryName,
    path: ArtifactPath,
    client: Ipv4Addr,
    header: String,
    holders: Vec<Holder>,
}

/// 1,000 grants: 900 of a user on a folder of its own, 90 of groups, 10 of everybody; and one
/// restriction of everything to 10,000 networks.
fn document() -> Value {
    let grant = |at: usize| match at {
        0..900 => {
            json!({ "name": format!("user {at}"), "to": [format!("user:u{at}")], "may": ["read", "list"],
                          "on": [format!("files/partner/{at}/**"), format!("bundle:b{at}")] })
        }
        900..990 => {
            json!({ "name": format!("group {at}"), "to": [format!("group:g{}", at % 30)], "may": ["read"],
                            "on": [format!("files/team-{at}/**")] })
        }
        _ => json!({ "name": format!("all {at}"), "to": ["authenticated"], "may": ["read"],
                     "on": [format!("docs/manual-{at}/*.pdf")] }),
    };
    let groups = (0..30).map(|group| {
        let members = (0..30).map(|user| json!(format!("user:u{}", group * 30 + user))).collect::<Vec<_>>();
        (format!("g{group}"), Value::from(members))
    });
    let networks: Vec<String> = (0..10_000_u32).map(|at| format!("{}/24", network(at))).collect();
    json!({
        "groups": groups.collect::<serde_json::Map<_, _>>(),
        "networks": { "customers": networks },
        "grant": (0..1_000).map(grant).collect::<Vec<_>>(),
        "restrict": [{ "name": "customers", "networks": { "allow": ["customers"] } }],
    })
}

/// Networks that do not touch each other, spread over all addresses.
fn network(at: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0100_0000 + at * 0x0001_0200)
}

fn draw() -> Vec<Ask> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |count: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % count
    };
    let mut ask = || {
        let user = below(900);
        let path = match below(10) {
            0..7 => format!("partner/{user}/1.{}/app-{}.tar.gz", below(20), below(100)),
            7..9 => format!("team-{}/x/{}", 900 + (user / 30) % 90, below(100)),
            _ => format!("partner/{}/1.0/app.tar.gz", below(900)),
        };
        let client = Ipv4Addr::from(u32::from(network(below(10_000) as u32)) + below(256) as u32);
        let identity = Identity { name: format!("u{user}"), ..Identity::default() };
        Ask {
            principal: Principal::User(Arc::new(identity)),
            repository: RepositoryName::new("files").unwrap(),
            path: ArtifactPath::new(&path).unwrap(),
            client,
            header: format!("203.0.113.{}, {client}", below(256)),
            holders: vec![Holder("shop".parse().unwrap(), "1.0".parse().unwrap())],
        }
    };
    (0..REQUESTS).map(|_| ask()).collect()
}

/// CPU time of this thread: other programs on the machine take none of it.
fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
}

fn setting(name: &str, default: usize) -> usize {
    let prefix = format!("{name}=");
    let found = std::env::args().find_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned));
    found.map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}
