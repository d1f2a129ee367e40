//! How long it takes until what was taken back is refused, and until a running transfer is cut.
//!
//! ```text
//! cargo bench --bench revocation                            # 1,000 revocations, 100 transfers a kind
//! cargo bench --bench revocation -- trials=100 transfers=20
//! ```
//!
//! A source and an edge in one process, each on its own embedded stores, paired and joined by HTTP over
//! the loopback. A link is taken back at the source, which pushes; a user token is taken back at the
//! edge over HTTP. Meanwhile a client asks for the same thing every millisecond, and the time is taken
//! when the first refusal has arrived there. Transfers are revoked at all phases of the edge's second;
//! the end of one that its client does not read is seen in the kernel's table of connections.

mod common;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, memory_of, now, scratch, setting, verdict};
use distedge::access::Principal;
use distedge::clock::Timestamp;
use distedge::edge::{Edge, EdgeOptions};
use distedge::govern::MintOrder;
use distedge::key::Algorithm;
use distedge::link::{LinkId, Revocations};
use distedge::policy::Document;
use distedge::secret::Secret;
use distedge::server::{Server, ServerConfig};
use distedge::source::{
    AddOptions, Authority, ConvergeOptions, ConvergeProgress, EdgeRecord, HttpDial, LinkTarget, NewBundle,
    NewKey, PairOptions, Pattern, Role, Selection, Source,
};
use distedge::token::{NewUserToken, PairingToken, TokenPrincipal};
use distedge::transport::{Call, HttpTransport, Transport as _, Verb};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Bytes of the file whose transfers are cut.
const BIG: usize = 96 << 20;
/// Transfers at a time.
const ABREAST: u64 = 10;
const TARGET: Duration = Duration::from_secs(2);
const CUT: Duration = Duration::from_secs(5);

fn main() {
    let (trials, transfers) = (setting("trials", 1_000), setting("transfers", 100));
    let (home, away) = (scratch(), scratch());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let town = runtime.block_on(Town::new(home.path(), away.path()));
    let town = Town { runtime: Some(runtime), ..town };

    println!("{:<44} {:>6} {:>9} {:>9} {:>9}", "time until", "trials", "p50 ms", "p99 ms", "max ms");
    for what in [What::Link, What::Token] {
        let times: Vec<[Duration; 2]> = (0..trials).map(|_| town.refused(what)).collect();
        let all = |at: usize| times.iter().map(|pair| pair[at]).collect::<Vec<_>>();
        print(&format!("{}: the first refused request", what.name()), all(0), TARGET);
        print(&format!("{}: the revocation has answered", what.name()), all(1), TARGET);
    }
    for what in [What::Link, What::Token] {
        for reads in [true, false] {
            let mut times = Vec::new();
            for first in (0..transfers).step_by(ABREAST as usize) {
                let town = &town;
                thread::scope(|scope| {
                    let running: Vec<_> = (first..transfers.min(first + ABREAST))
                        .map(|at| scope.spawn(move || town.cut(what, reads, at)))
                        .collect();
                    times.extend(running.into_iter().map(|thread| thread.join().unwrap()));
                });
            }
            let how = if reads { "reading" } else { "not reading" };
            print(&format!("{}: the transfer is cut, {how}", what.name()), times, CUT);
        }
    }
    million();
}

fn print(name: &str, mut times: Vec<Duration>, goal: Duration) {
    times.sort();
    let count = times.len();
    let at = |share: usize| times[(count * share).div_ceil(100).clamp(1, count) - 1].as_secs_f64() * 1000.0;
    let reached = verdict(at(99) <= goal.as_secs_f64() * 1000.0);
    println!(
        "{name:<44} {count:>6} {:>9.1} {:>9.1} {:>9.1}   p99 <= {} s: {reached}",
        at(50),
        at(99),
        at(100),
        goal.as_secs()
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A signed URL, taken back at the source.
    Link,
    /// A user token, taken back at the edge.
    Token,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Link => "link",
            What::Token => "user token",
        }
    }
}

/// Something that opens a file, and how it is taken back.
struct Pass {
    target: String,
    header: String,
    revoke: Revoke,
}

enum Revoke {
    Link(LinkId),
    Token(String),
}

/// A source and an edge that know each other.
struct Town {
    runtime: Option<Runtime>,
    source: Source,
    edge: Edge,
    address: SocketAddr,
    admin: HttpTransport,
}

impl Town {
    async fn new(home: &std::path::Path, away: &std::path::Path) -> Town {
        let opened =
            distedge::edge::open(away, EdgeOptions::new("e1".parse().unwrap()).unwrap()).await.unwrap();
        let edge = opened.edge;
        let grant = json!({ "name": "g", "to": ["user:alice"], "may": ["read"], "on": ["files/**"] });
        let document = Document::from_value(&json!({ "grant": [grant] })).unwrap();
        edge.policies_in_force().unwrap().put(document, None, "bench", now()).await.unwrap();
        let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
        let server = Server::bind(config, edge.clone()).await.unwrap();
        let address = server.local_addr();
        tokio::spawn(server.serve(std::future::pending()));
        let url = format!("http://{address}");
        let admin = HttpTransport::builder(&url).with_token(opened.token.unwrap()).build().unwrap();

        let source = Source::create(home, &"default".parse().unwrap(), "bench").await.unwrap();
        for (role, alias) in [(Role::Root, "root"), (Role::Release, "release")] {
            source.create_key(role, Algorithm::Ed25519, &NewKey::new(alias)).await.unwrap();
        }
        let wish = json!({ "use_case": "source-edge" }).to_string();
        let call = Call::new(Verb::Post, "/api/v1/pairings/tokens").with_bytes(wish);
        let answer: Value = serde_json::from_slice(&admin.call(call).await.unwrap().body).unwrap();
        let token = PairingToken::parse(&Secret::new(answer["token"].as_str().unwrap())).unwrap();
        let record = EdgeRecord::new("e1".parse().unwrap(), url);
        source.pair(&record, &token, &PairOptions::default(), &HttpDial).await.unwrap();

        let (files, bundle, version) =
            ("files".parse().unwrap(), "app".parse().unwrap(), "1".parse().unwrap());
        for (path, bytes) in [("small", vec![7; 1024]), ("big", vec![7; BIG])] {
            let (path, options) = (path.parse().unwrap(), AddOptions::default());
            source.add_bytes(&files, &path, bytes, &options).await.unwrap();
        }
        let all = Selection::new().with_pattern(Pattern::new("**").unwrap());
        source.create_bundle(&NewBundle::new(bundle, version, all)).await.unwrap();
        let (bundle, version) = ("app".parse().unwrap(), "1".parse().unwrap());
        source.sign_bundle(&bundle, &version, &[]).await.unwrap();
        source.assign(&bundle, &version, &["e1".parse().unwrap()]).await.unwrap();
        source.create_link_key(None, &Authority::local_operator()).await.unwrap();
        let silent: ConvergeProgress = Arc::new(|_, _| ());
        let outcomes = source.converge(&HttpDial, &ConvergeOptions::default(), &silent).await.unwrap();
        assert!(outcomes[0].is_complete(), "{outcomes:?}");
        Town { runtime: None, source, edge, address, admin }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().handle().block_on(work)
    }

    fn pass(&self, what: What, path: &str) -> Pass {
        match what {
            What::Link => {
                let resources = vec![format!("files/{path}")];
                let order =
                    MintOrder { resources, audience: vec!["e1".parse().unwrap()], ..MintOrder::default() };
                let signed = self.wait(self.source.mint_link(&order, &Authority::local_operator())).unwrap();
                Pass {
                    target: signed.minted.path.expose_str().unwrap().to_owned(),
                    header: String::new(),
                    revoke: Revoke::Link(signed.minted.record.claims.id),
                }
            }
            What::Token => {
                let new = NewUserToken::new(TokenPrincipal::User("alice".into()));
                let by = Principal::Token { name: "bench".into() };
                let (record, token) = self.wait(self.edge.tokens().unwrap().mint(new, &by, now())).unwrap();
                Pass {
                    target: format!("/files/{path}"),
                    header: format!("Authorization: Bearer {}\r\n", token.expose_str().unwrap()),
                    revoke: Revoke::Token(record.id.to_string()),
                }
            }
        }
    }

    fn revoke(&self, revoke: &Revoke) {
        match revoke {
            Revoke::Link(id) => {
                let (by, what) = (Authority::local_operator(), LinkTarget::Link(*id));
                let revoked = self.wait(self.source.revoke_links(&what, "bench", &by, &HttpDial)).unwrap();
                assert!(revoked.edges[0].error.is_none(), "{revoked:?}");
            }
            Revoke::Token(id) => {
                let body = json!({ "reason": "bench" }).to_string();
                let call = Call::new(Verb::Delete, format!("/api/v1/tokens/{id}")).with_bytes(body);
                assert_eq!(self.wait(self.admin.call(call)).unwrap().status, 200);
            }
        }
    }

    /// The times until the first refusal, and until the revocation has answered.
    fn refused(&self, what: What) -> [Duration; 2] {
        let pass = self.pass(what, "small");
        let mut client = Client::connect(self.address);
        let (status, _) = client.get_with(&pass.target, &pass.header);
        assert_eq!(status, 200);
        thread::scope(|scope| {
            let pass = &pass;
            let asking = scope.spawn(move || {
                loop {
                    let (status, _) = client.get_with(&pass.target, &pass.header);
                    if status != 200 {
                        assert!(matches!(status, 401 | 403), "{status}");
                        return Instant::now();
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            // The client is on its way.
            thread::sleep(Duration::from_millis(3));
            let begun = Instant::now();
            self.revoke(&pass.revoke);
            let answered = begun.elapsed();
            [asking.join().unwrap().saturating_duration_since(begun), answered]
        })
    }

    /// The time until the edge ends a running transfer.
    fn cut(&self, what: What, reads: bool, at: u64) -> Duration {
        let pass = self.pass(what, "big");
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\n{}\r\n", pass.target, pass.header);
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        let port = stream.local_addr().unwrap().port();
        let phase = Duration::from_millis(500 + at * 97 % 1000);
        thread::scope(|scope| {
            let server = self.address.port();
            let watching = scope.spawn(move || {
                if !reads {
                    while is_established(server, port) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    drop(stream);
                    return Instant::now();
                }
                let (mut buffer, mut got) = (vec![0; 64 << 10], 0);
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => {
                            assert!(got < BIG, "it came to its end");
                            return Instant::now();
                        }
                        Ok(read) => got += read,
                    }
                    // As fast as 3 MB a second: the whole takes half a minute.
                    thread::sleep(Duration::from_millis(20));
                }
            });
            thread::sleep(phase);
            let begun = Instant::now();
            self.revoke(&pass.revoke);
            watching.join().unwrap().saturating_duration_since(begun)
        })
    }
}

/// Whether the server's side of a connection stands, as the kernel says.
fn is_established(server: u16, client: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{server:04X}"), format!(":{client:04X}"));
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(fields[..], [_, here, there, "01"] if here.ends_with(&local) && there.ends_with(&remote))
    })
}

/// What a million revoked links take, and what one look-up among them costs.
fn million() {
    const IDS: u64 = 1_000_000;
    let id = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        LinkId::from_number(u128::from(mixed >> 16) << 80 | u128::from(number))
    };
    let before = memory_of("self", "RssAnon");
    let mut revocations = Revocations::new();
    revocations.revoke_all((0..IDS).map(|number| (id(number), Timestamp::MAX)));
    let grown = memory_of("self", "RssAnon") - before;
    println!("\n{IDS} revoked links: {:.1} MiB held, RSS grew by {grown:.1} MiB", mib(revocations.memory()));
    println!("  <= 64 MiB: {}", verdict(mib(revocations.memory()) <= 64.0));
    for (name, first) in [("that is revoked", 0), ("that is not", IDS)] {
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let begun = Instant::now();
                for step in 0..IDS {
                    let number = first + step.wrapping_mul(0x9e37_79b1) % IDS;
                    assert_eq!(revocations.contains(black_box(id(number))), first == 0);
                }
                begun.elapsed().as_nanos() as f64 / IDS as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (middle, most) = (times[3], times[6]);
        let reached = verdict(middle <= 1000.0);
        println!("  one {name}: {middle:.0} ns (median of 7 rounds, slowest {most:.0})  <= 1 us: {reached}");
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
