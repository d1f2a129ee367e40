//! Who is at the other end: what a proxy says in the PROXY protocol, what a client proves in TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use distedge::auth::ClientCertificate;
use distedge::digest::Digest;
use distedge::edge::{Body, Connection, Handler};
use distedge::error::ErrorKind;
use distedge::server::{ClientDemand, Limits, Server, ServerConfig};
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::rustls;

use super::rig::{Reply, Wire};

/// Says what it was told of the connection, and of the certificate.
#[derive(Clone)]
struct Told;

impl Handler for Told {
    async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let connection = request.extensions().get::<Connection>();
        let certificate = request.extensions().get::<ClientCertificate>();
        let connection = connection.map_or("plain".into(), |connection| {
            let client = connection.client.map_or("unknown".into(), |client| client.to_string());
            format!("{} for {client} secure={}", connection.socket.ip(), connection.secure)
        });
        let certificate = certificate.map_or("none".into(), |certificate| {
            format!("{} {}", certificate.fingerprint, certificate.names.join(" "))
        });
        Response::new(Body::from(format!("{peer}|{connection}|{certificate}")))
    }
}

struct Listener {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Listener {
    fn new(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Listener {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut limits = Limits::default();
        limits.header_timeout = Duration::from_millis(600);
        limits.handshake_timeout = Duration::from_secs(5);
        limits.connections_per_address = 3;
        let config = ServerConfig::new(([127, 0, 0, 1], 0).into()).with_limits(limits);
        let server = runtime.block_on(Server::bind(configure(config), Told)).unwrap();
        let address = server.local_addr();
        runtime.spawn(server.serve(std::future::pending()));
        Listener { address, runtime: Some(runtime) }
    }

    fn behind(networks: &[&str]) -> Listener {
        Listener::new(|config| config.with_proxies(networks.iter().map(|text| text.parse().unwrap())))
    }

    /// What the handler was told, of a connection that begins with `header`.
    fn told(&self, header: &[u8]) -> Vec<String> {
        let mut wire = Wire::to(self.address);
        wire.send([header, GET.as_bytes()].concat());
        told(&wire.reply(false))
    }

    /// Whether the connection that begins with `header` ends without an answer of the handler.
    fn ends(&self, header: &[u8]) -> bool {
        let mut wire = Wire::to(self.address);
        wire.send([header, GET.as_bytes()].concat());
        wire.try_reply(false).is_none_or(|reply| reply.status == 400) && wire.is_closed()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

fn told(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200);
    reply.text().split('|').map(str::to_owned).collect()
}

/// A header of version 2: command, family and protocol, and what follows the length.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

/// `192.0.2.7:4711` to `198.51.100.1:443`.
fn v2_tcp4() -> Vec<u8> {
    v2(1, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb])
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

#[test]
fn c10_a_proxy_says_for_whom_it_connects() {
    let listener = Listener::behind(&["10.0.0.0/8", "127.0.0.0/8"]);
    for header in [V1, &v2_tcp4()] {
        let told = listener.told(header);
        assert_eq!(told[0], "192.0.2.7:4711");
        assert_eq!(told[1], "127.0.0.1 for 192.0.2.7:4711 secure=false");
    }
    let v6 = listener.told(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n");
    assert_eq!(v6[0], "[2001:db8::7]:4711");
    // A mapped address is the address that is meant.
    assert_eq!(listener.told(b"PROXY TCP6 ::ffff:192.0.2.8 ::1 4711 443\r\n")[0], "192.0.2.8:4711");
    // LOCAL is the proxy itself: a health check.
    let local = listener.told(&v2(0, 0, &[]));
    assert!(local[0].starts_with("127.0.0.1:") && local[1] == "plain", "{local:?}");
    // A client that the proxy does not name is nobody, and least of all the proxy.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(1, 0, &[])] {
        assert_eq!(listener.told(&header)[..2], ["0.0.0.0:0", "127.0.0.1 for unknown secure=false"]);
    }
    // Requests behind the first have the same client, and bytes that came with the header are not lost.
    let mut wire = Wire::to(listener.address);
    for byte in V1 {
        wire.send([*byte]);
    }
    wire.send(GET.repeat(2));
    for _ in 0..2 {
        assert_eq!(told(&wire.reply(false))[0], "192.0.2.7:4711");
    }
    wire.send(
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\r\n",
    );
    assert_eq!(told(&wire.reply(false))[0], "192.0.2.7:4711");
}

#[test]
fn c10_a_proxy_that_does_not_say_it_well_is_cut() {
    let listener = Listener::behind(&["127.0.0.1/32"]);
    let mut short = v2_tcp4();
    short[15] = 4;
    let mut version = v2_tcp4();
    version[12] = 0x31;
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 443\r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        &[b"PROXY TCP4 ", [b'1'; 200].as_slice()].concat(),
        &short,
        &version,
        &v2(7, 0x11, &[0; 12]),
        &v2(1, 0x11, &[0; 60_000]),
    ] {
        assert!(listener.ends(header), "{:?}", header.escape_ascii().to_string());
    }
    // One that promises more than it sends, or sends nothing, is waited for and cut.
    let mut long = v2_tcp4();
    long[14] = 3;
    for header in [&b""[..], b"PROXY TCP4 192.0", &long] {
        let begun = Instant::now();
        let mut wire = Wire::to(listener.address);
        wire.send(header);
        assert!(wire.try_reply(false).is_none());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(listener.told(V1)[0], "192.0.2.7:4711");
}

/// Anybody could claim any address.
#[test]
fn c10_nobody_else_says_for_whom_they_connect() {
    let elsewhere = Listener::behind(&["10.0.0.0/8"]);
    let without = Listener::new(|config| config);
    for listener in [&elsewhere, &without] {
        for header in [V1, &v2_tcp4(), &v2(0, 0, &[])] {
            assert!(listener.ends(header));
        }
        let told = listener.told(b"");
        assert!(told[0].starts_with("127.0.0.1:") && told[1] == "plain", "{told:?}");
    }
}

/// One proxy brings many clients: its address is not the one that is counted.
#[test]
fn a_proxys_clients_are_counted_one_by_one() {
    let listener = Listener::behind(&["127.0.0.1/32"]);
    let held = |client: u8| {
        let mut wire = Wire::to(listener.address);
        wire.send(format!("PROXY TCP4 192.0.2.{client} 198.51.100.1 1 443\r\n{GET}"));
        wire.try_reply(false).map(|_| wire)
    };
    let many: Vec<Wire> = (0..40).map(|client| held(client).expect("another client")).collect();
    let greedy: Vec<Wire> = (0..10).filter_map(|_| held(99)).collect();
    assert_eq!((many.len(), greedy.len()), (40, 3));
}

// Mutual TLS.

struct Pki {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Pki {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority("clients");
        std::fs::write(dir.path().join("clients.pem"), authority.pem()).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Pki { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn listener(&self, demand: ClientDemand, proxies: &[&str]) -> Listener {
        Listener::new(|config| {
            config
                .with_tls(self.path("cert.pem"), self.path("key.pem"))
                .with_client_authorities(self.path("clients.pem"), demand)
                .with_proxies(proxies.iter().map(|text| text.parse().unwrap()))
        })
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

type Presented = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate for a client with these names, good until `year`.
fn client(authority: &CertifiedIssuer<'static, KeyPair>, names: Vec<SanType>, year: i32) -> Presented {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    (certificate.der().clone(), key)
}

fn names() -> Vec<SanType> {
    vec![
        SanType::DnsName("build.example".try_into().unwrap()),
        SanType::URI("spiffe://example/ci".try_into().unwrap()),
        SanType::Rfc822Name("ci@example.com".try_into().unwrap()),
        SanType::IpAddress([192, 0, 2, 1].into()),
    ]
}

/// One request over TLS, after `header`; `None` if the server does not let the client in.
fn ask(listener: &Listener, root: &Path, shown: Option<&Presented>, header: &[u8]) -> Option<Vec<String>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((certificate, key)) => {
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    listener.runtime.as_ref().unwrap().block_on(async {
        let mut socket = TcpStream::connect(listener.address).await.unwrap();
        socket.write_all(header).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await.ok()?;
        // With a header that claims what only a handshake proves.
        let request = "GET /x HTTP/1.1\r\nHost: a\r\nX-Client-Cert: forged\r\nX-Forwarded-Client-Cert: \
                       Hash=00;URI=spiffe://example/admin\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        if answer.is_empty() {
            return None;
        }
        read.unwrap();
        let body = answer.rsplit("\r\n\r\n").next().unwrap();
        Some(body.split('|').map(str::to_owned).collect())
    })
}

#[test]
fn a_certificate_that_is_shown_is_verified_and_told() {
    let pki = Pki::new();
    let root = pki.path("cert.pem");
    let good = client(&pki.authority, names(), 2100);
    let expired = client(&pki.authority, names(), 2021);
    let foreign = client(&authority("clients"), names(), 2100);
    let told = format!("{} build.example spiffe://example/ci ci@example.com", Digest::of(&good.0));
    for demand in [ClientDemand::Optional, ClientDemand::Required] {
        let listener = pki.listener(demand, &[]);
        // Twice: a session that is resumed would not be verified anew.
        for _ in 0..2 {
            let answer = ask(&listener, &root, Some(&good), b"").unwrap();
            assert_eq!(answer[2], told);
            assert!(answer[1].ends_with("secure=true"), "{answer:?}");
        }
        for bad in [&expired, &foreign] {
            assert_eq!(ask(&listener, &root, Some(bad), b""), None, "{demand:?}");
        }
        let without = ask(&listener, &root, None, b"");
        match demand {
            ClientDemand::Required => assert_eq!(without, None),
            _ => assert_eq!(without.unwrap()[2], "none", "a header makes no certificate"),
        }
    }
}

#[test]
fn a_proxys_header_comes_before_the_handshake() {
    let pki = Pki::new();
    let root = pki.path("cert.pem");
    let good = client(&pki.authority, Vec::new(), 2100);
    let listener = pki.listener(ClientDemand::Required, &["127.0.0.1/32"]);
    for header in [V1, &v2_tcp4()] {
        let answer = ask(&listener, &root, Some(&good), header).unwrap();
        assert_eq!(answer[0], "192.0.2.7:4711");
        assert_eq!(answer[1], "127.0.0.1 for 192.0.2.7:4711 secure=true");
        assert_eq!(answer[2].trim_end(), Digest::of(&good.0).to_string(), "no names, a fingerprint");
    }
    assert_eq!(ask(&listener, &root, Some(&good), b""), None);
    let direct = pki.listener(ClientDemand::Required, &[]);
    assert_eq!(ask(&direct, &root, Some(&good), V1), None);
}

#[tokio::test]
async fn authorities_that_cannot_be_used_are_told_at_the_start() {
    let pki = Pki::new();
    let bind = async |config: ServerConfig| match Server::bind(config, Told).await {
        Ok(_) => panic!("it was taken"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            error.to_string()
        }
    };
    let config = || ServerConfig::new(([127, 0, 0, 1], 0).into());
    let tls = || config().with_tls(pki.path("cert.pem"), pki.path("key.pem"));
    let plain = config().with_client_authorities(pki.path("clients.pem"), ClientDemand::Required);
    assert!(bind(plain).await.contains("this server has none"));
    for (file, content) in [
        ("missing.pem", None),
        ("empty.pem", Some("")),
        ("key-only.pem", Some(include_str!("../../data/openpgp/good-ed25519/message"))),
        ("broken.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    ] {
        if let Some(content) = content {
            std::fs::write(pki.path(file), content).unwrap();
        }
        let said = bind(tls().with_client_authorities(pki.path(file), ClientDemand::Optional)).await;
        assert!(said.contains(file), "{said}");
    }
}
