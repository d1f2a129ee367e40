//! The way to an edge over HTTP.

use std::sync::Arc;

use super::converge::Dial;
use super::edges::EdgeRecord;
use crate::error::Result;
use crate::secret::Secret;
use crate::transport::{HttpTransport, Transport};

/// Reaches edges over HTTP, with TLS where their address says `https`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpDial;

impl Dial for HttpDial {
    fn dial(&self, edge: &EdgeRecord, token: Option<Secret>) -> Result<Arc<dyn Transport>> {
        let mut builder = HttpTransport::builder(&edge.url);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        if let Some(file) = &edge.ca {
            builder = builder.with_authorities(file);
        }
        Ok(Arc::new(builder.build()?))
    }
}
