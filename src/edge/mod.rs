//! The edge service: gate, serve, receive.

pub mod authorize;
pub mod body;
mod budget;
pub mod conditional;
pub mod content;
mod control;
mod document;
pub mod gate;
mod governance;
pub mod integrity;
mod listing;
mod media;
pub mod metric;
#[cfg(feature = "redb")]
mod open;
pub mod problem;
mod service;

use std::net::SocketAddr;

use http::{Request, Response};

pub use body::{Body, Delivered};
pub use gate::{Admitted, Gate};
pub use governance::{AuditFull, Governance};
#[cfg(feature = "redb")]
pub use open::{EdgeOptions, Opened, new_token, open};
pub use problem::Problem;
pub use service::Edge;

/// Answers requests. [`Edge`] is one; `server::Server` serves any.
///
/// `peer` is the address of the socket's other end, not what a header claims.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. Failures are answers too: there is no error.
    fn handle(&self, request: Request<Body>, peer: SocketAddr)
    -> impl Future<Output = Response<Body>> + Send;
}
