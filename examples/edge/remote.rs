//! Commands that ask a running edge over HTTP.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use distedge::error::{Error, ErrorKind, Result};
use distedge::secret::Secret;
use distedge::transport::{Answer, Call, HttpTransport, Transport as _, Verb};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Which edge, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The edge's address; with several tenants in paths, with the tenant's name behind it.
    #[arg(long, env = "DISTEDGE_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file with the token of who asks.
    #[arg(long, env = "DISTEDGE_AUTH_FILE", value_name = "FILE")]
    auth_file: PathBuf,
    /// A file with the certificate authorities to believe (PEM), instead of the machine's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Remote {
    /// Asks, and reads the JSON of the answer; an answer without a body is `null`.
    ///
    /// # Errors
    /// The edge's own sentence, if it refuses.
    pub(crate) async fn ask(&self, verb: Verb, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut call = Call::new(verb, path);
        if let Some(body) = body {
            call = call.with_bytes(body.to_string());
        }
        let answer = self.send(call).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        read(&answer.body)
    }

    /// Sends a call, and takes any answer that is not a refusal.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer> {
        let mut builder = HttpTransport::builder(&self.url).with_token(secret(&self.auth_file)?);
        if let Some(file) = &self.ca {
            builder = builder.with_authorities(file);
        }
        let answer = builder.with_answer_limit(1 << 30).build()?.call(call).await?;
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(refused(&answer)) }
    }
}

/// A secret in a file, without the line's end.
pub(crate) fn secret(file: &Path) -> Result<Secret> {
    let text = fs::read_to_string(file)
        .map_err(|cause| Error::io(format_args!("reading {}", file.display()), cause))?;
    Ok(Secret::new(text.trim().as_bytes()))
}

/// A JSON document.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| {
        Error::new(ErrorKind::Unsupported, format!("the edge's answer cannot be read: {cause}"))
    })
}

/// The sentence of a problem document (RFC 9457), or of what clients of Artifactory expect.
fn refused(answer: &Answer) -> Error {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let detail = document["detail"].as_str().or_else(|| document["errors"][0]["message"].as_str());
    let kind = match answer.status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        422 => ErrorKind::Unsupported,
        status if status >= 500 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    Error::new(
        kind,
        format!("the edge refuses ({}): {}", answer.status, detail.unwrap_or("it does not say why")),
    )
}
