//! The edge service: gate, serve, receive.

pub mod body;
pub mod conditional;
pub mod content;
pub mod gate;
pub mod integrity;
pub mod problem;

use std::net::SocketAddr;

use http::{Request, Response};

pub use body::{Body, Delivered};
pub use gate::{Admitted, Gate};
pub use problem::Problem;

/// Answers requests. [`Edge`](self) is one; `server::Server` serves any.
///
/// `peer` is the address of the socket's other end, not what a header claims.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. Failures are answers too: there is no error.
    fn handle(&self, request: Request<Body>, peer: SocketAddr)
    -> impl Future<Output = Response<Body>> + Send;
}
