//! Serves a [`Handler`] on sockets: HTTP/1.1 and HTTP/2, TLS, limits.
//!
//! ```no_run
//! # async fn run(edge: impl distedge::edge::Handler) -> distedge::error::Result<()> {
//! use distedge::server::{Server, ServerConfig};
//!
//! let server = Server::bind(ServerConfig::new(([127, 0, 0, 1], 8080).into()), edge).await?;
//! println!("listening on {}", server.local_addr());
//! server.serve(std::future::pending()).await
//! # }
//! ```

mod admission;
mod again;
mod connection;
mod meter;
mod socket;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::edge::Handler;
use crate::error::{Error, Result};
use crate::place::Network;

use admission::Admission;

/// Where and how to listen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The address to listen on; port 0 for any free one.
    pub address: SocketAddr,
    /// Certificate chain and key, for TLS.
    pub tls: Option<TlsFiles>,
    /// Whose certificates clients may or must show; `None` asks for none. It takes TLS.
    pub clients: Option<ClientTrust>,
    /// Whose word is taken for where a connection comes from; `None` takes nobody's.
    pub proxies: Option<ProxyTrust>,
    /// What connections may take.
    pub limits: Limits,
}

/// PEM files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Mutual TLS: the authorities that vouch for clients.
///
/// What a client proved becomes an [`auth::ClientCertificate`](crate::auth::ClientCertificate) in the
/// extensions of its requests. Nothing else does, a header least of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTrust {
    /// A PEM file with the certificates of the authorities.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is let in.
    pub demand: ClientDemand,
}

/// Whether clients must show a certificate. One that is shown must be good in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientDemand {
    /// A client without one is let in, and is nobody until it presents something else.
    Optional,
    /// The handshake fails without one.
    Required,
}

/// The proxies that begin their connections with a header of the PROXY protocol, version 1 or 2.
///
/// A connection from one of these networks *must* begin with the header, and ends if it does not; the
/// header comes before the TLS handshake. From anywhere else a header is what it looks like, a broken
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTrust {
    /// Where they are.
    pub networks: Vec<Network>,
}

/// What a connection may take, and how many there may be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Time for a request's head, and for the first one from the moment of the connection.
    pub header_timeout: Duration,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time between two requests.
    pub idle_timeout: Duration,
    /// Largest header block, in bytes.
    pub header_bytes: usize,
    /// Most header fields.
    pub headers: usize,
    /// Streams of one HTTP/2 connection.
    pub streams: u32,
    /// Bytes a second that a client must at least take or give while the edge waits for it.
    pub minimum_rate: u64,
    /// For how long a client may be slower than that.
    pub rate_grace: Duration,
    /// Connections from one address (IPv4), or one network of 64 bits (IPv6).
    pub connections_per_address: usize,
    /// Connections in all. `None` takes what the process's limit of open files allows, at most 8192.
    pub connections: Option<usize>,
    /// How long a graceful stop waits for running requests.
    pub drain: Duration,
}

impl ServerConfig {
    /// Plain HTTP on `address` with the default limits.
    pub fn new(address: SocketAddr) -> ServerConfig {
        ServerConfig { address, tls: None, clients: None, proxies: None, limits: Limits::default() }
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ServerConfig {
        self.tls = Some(TlsFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    /// The same, asking clients for certificates of the authorities in a PEM file.
    #[must_use]
    pub fn with_client_authorities(
        mut self,
        authorities: impl Into<PathBuf>,
        demand: ClientDemand,
    ) -> ServerConfig {
        self.clients = Some(ClientTrust { authorities: authorities.into(), demand });
        self
    }

    /// The same behind proxies in these networks, which speak the PROXY protocol.
    #[must_use]
    pub fn with_proxies(mut self, networks: impl IntoIterator<Item = Network>) -> ServerConfig {
        self.proxies = Some(ProxyTrust { networks: networks.into_iter().collect() });
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> ServerConfig {
        self.limits = limits;
        self
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            header_bytes: 16 * 1024,
            headers: 100,
            streams: 100,
            minimum_rate: 1024,
            rate_grace: Duration::from_secs(20),
            connections_per_address: 256,
            connections: None,
            drain: Duration::from_secs(30),
        }
    }
}

/// A bound listener that serves one handler.
pub struct Server<H> {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    proxies: Arc<[Network]>,
    limits: Limits,
    handler: H,
}

impl<H: Handler> Server<H> {
    /// Listens on the configured address. Connections wait until [`serve`](Server::serve).
    ///
    /// # Errors
    /// With the address or the file in the sentence, if it cannot be listened on, or if
    /// certificate and key cannot be used.
    pub async fn bind(config: ServerConfig, handler: H) -> Result<Server<H>> {
        let clients = config.clients.as_ref();
        if clients.is_some() && config.tls.is_none() {
            return Err(Error::invalid("clients show certificates in TLS, and this server has none"));
        }
        let tls = config.tls.as_ref().map(|files| tls::acceptor(files, clients)).transpose()?;
        let listening = |cause| Error::io(format_args!("listening on {}", config.address), cause);
        let listener = TcpListener::bind(config.address).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let proxies = config.proxies.map(|trust| trust.networks).unwrap_or_default();
        Ok(Server { listener, address, tls, proxies: proxies.into(), limits: config.limits, handler })
    }

    /// The address that is listened on, with the port that was found.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then lets running requests finish for as long as
    /// [`Limits::drain`] allows, and cuts what is left.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Server { listener, tls, proxies, limits, handler, .. } = self;
        let admission = Admission::new(&limits);
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                // Finished tasks are collected as they go, so that the set holds living ones alone.
                Some(ended) = connections.join_next(), if !connections.is_empty() => log_end(ended),
                (socket, peer) = accept(&listener) => {
                    let proxied = proxies.iter().any(|network| network.contains(peer.ip()));
                    let admitted = if proxied { admission.admit_proxy() } else { admission.admit(peer.ip()) };
                    let Some(place) = admitted else { continue };
                    let task = connection::Task {
                        tls: tls.clone(),
                        limits: limits.clone(),
                        handler: handler.clone(),
                        proxied,
                        peer,
                        place,
                        stopped: stopped.clone(),
                    };
                    connections.spawn(task.run(socket));
                }
            }
        }
        drop(listener);
        let _ = stopping.send(true);
        let drained = tokio::time::timeout(limits.drain, async {
            while let Some(ended) = connections.join_next().await {
                log_end(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                cut = connections.len(),
                "requests still running at the end of the drain time are cut"
            );
            connections.shutdown().await;
        }
        Ok(())
    }
}

impl<H> fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The next connection. What is wrong with one connection, or a lack of descriptors, passes.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Without this, the last bytes of an answer may wait for an acknowledgement.
                let _ = socket.set_nodelay(true);
                return (socket, SocketAddr::new(peer.ip().to_canonical(), peer.port()));
            }
            Err(error) => {
                use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
                if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
                    // Out of descriptors or memory: connections that end give some back.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

fn log_end(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
