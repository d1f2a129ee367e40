//! The way to an edge: HTTP.

use std::sync::Arc;

use distedge::error::{Error, ErrorKind, Result};
use distedge::secret::Secret;
use distedge::source::{Dial, EdgeRecord};
use distedge::transport::Transport;

/// Reaches edges over HTTP.
#[derive(Debug)]
pub(crate) struct Http;

impl Dial for Http {
    fn dial(&self, _edge: &EdgeRecord, _token: Option<Secret>) -> Result<Arc<dyn Transport>> {
        Err(Error::new(ErrorKind::Unsupported, "no HTTP client yet"))
    }
}
