//! The way to an edge over HTTP.

use std::sync::Arc;

use super::converge::Dial;
use super::edges::EdgeRecord;
use crate::error::Result;
use crate::transport::{Credentials, HttpTransport, Transport};

/// Reaches edges over HTTP, with TLS where their address says `https`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpDial;

impl Dial for HttpDial {
    fn dial(&self, edge: &EdgeRecord, credentials: Credentials) -> Result<Arc<dyn Transport>> {
        let mut builder = HttpTransport::builder(&edge.url).with_credentials(credentials);
        if let Some(file) = &edge.ca {
            builder = builder.with_authorities(file);
        }
        Ok(Arc::new(builder.build()?))
    }
}
