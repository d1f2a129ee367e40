//! The edge service: gate, serve, receive.

pub mod authorize;
pub mod body;
mod budget;
pub mod conditional;
pub mod content;
mod control;
mod document;
mod download;
pub mod gate;
mod governance;
pub mod integrity;
#[cfg(feature = "oidc")]
mod jwks;
mod listing;
mod media;
pub mod metric;
#[cfg(feature = "redb")]
mod open;
pub mod problem;
mod sampler;
mod service;
mod tenancy;

use std::net::SocketAddr;

use http::{Request, Response};

pub use body::{Body, Delivered, GUARD_INTERVAL, Guard};
pub use gate::{Admitted, Gate};
pub use governance::{AuditFull, Governance};
#[cfg(feature = "oidc")]
pub use jwks::RemoteJwks;
#[cfg(feature = "redb")]
pub use open::{EdgeOptions, Opened, new_token, open};
pub use problem::Problem;
pub use service::Edge;
pub use tenancy::{Tenancy, Tenants};

/// Answers requests. [`Edge`] is one; `server::Server` serves any.
///
/// `peer` is the address of the client as the connection tells it, not what a header claims: the
/// socket's other end, or whom a trusted proxy named in the PROXY protocol. Where such a proxy named
/// nobody it is the unspecified address, port 0. Whether it was so is in the request's extensions, as
/// [`Connection`].
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. Failures are answers too: there is no error.
    fn handle(&self, request: Request<Body>, peer: SocketAddr)
    -> impl Future<Output = Response<Body>> + Send;
}

/// What a server knows of the connection on which a request came. It stands in the request's
/// extensions; where there is none, the connection is a plain one and `peer` is the socket's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The socket's other end.
    pub socket: SocketAddr,
    /// For whom it was made; `None` if a trusted proxy did not say.
    pub client: Option<SocketAddr>,
    /// Whether it is encrypted up to here.
    pub secure: bool,
}
