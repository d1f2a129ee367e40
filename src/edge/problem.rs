//! Refusals as answers: RFC 9457 problem details, and the shape Artifactory clients expect.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use crate::edge::Body;
use crate::error::{Error, ErrorKind};

/// Longest detail shown to a client, in characters.
const MAX_DETAIL: usize = 512;

/// A refusal: a status, a stable kind, and a sentence that is safe to show to anyone.
#[derive(Clone)]
pub struct Problem(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    /// What the log is told instead of the detail.
    cause: Option<String>,
    headers: HeaderMap,
}

/// In which shape a [`Problem`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shape {
    /// `application/problem+json` (RFC 9457).
    #[default]
    Problem,
    /// `{"errors":[{"status":404,"message":"…"}]}`, for the paths under `/artifactory`.
    Artifactory,
}

impl Problem {
    /// A refusal with `status`, the last part of its `type` URN, and a sentence.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Problem {
        let detail = presentable(&detail.into());
        Problem(Box::new(Inner { status, kind, detail, cause: None, headers: HeaderMap::new() }))
    }

    /// The refusal that tells of `error`. What went wrong inside the edge is not for clients: the
    /// sentence of such an error is replaced by a general one (it belongs in the log).
    pub fn of(error: &Error) -> Problem {
        let kind = error.kind();
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let detail = match kind {
            ErrorKind::Io | ErrorKind::Internal => "The edge could not complete the request.",
            ErrorKind::Corrupted => "The stored bytes are damaged and are not served.",
            ErrorKind::NoSpace => "The edge's storage is full.",
            // The operating system's, of a file on a network for example.
            ErrorKind::TimedOut => "The edge took too long to complete the request.",
            _ => error.message(),
        };
        let mut problem = Problem::new(status, kind.as_str(), detail);
        problem.0.cause = Some(error.message().to_owned());
        if kind == ErrorKind::MethodNotAllowed {
            problem = problem.with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        problem
    }

    /// The same refusal with one more header (a challenge, `Allow`, `Retry-After`); a header of
    /// that name is replaced.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.0.headers.insert(name, value);
        self
    }

    /// The same refusal, after which an HTTP/1 connection is closed: what follows on it cannot be
    /// told apart from the refused request.
    #[must_use]
    pub fn and_close(self) -> Problem {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The last part of the `type` URN.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// The sentence.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What happened, for the log: it may name files of this machine.
    pub(super) fn cause(&self) -> &str {
        self.0.cause.as_deref().unwrap_or(&self.0.detail)
    }

    /// The answer; to a `HEAD` request it has no body.
    pub fn response(&self, head: bool, shape: Shape) -> Response<Body> {
        let title = self.0.status.canonical_reason().unwrap_or("Error");
        let (media_type, document) = match shape {
            Shape::Problem => (
                "application/problem+json",
                json!({
                    "type": format!("urn:distedge:problem:{}", self.0.kind),
                    "title": title,
                    "status": self.0.status.as_u16(),
                    "detail": self.0.detail,
                }),
            ),
            Shape::Artifactory => (
                "application/json",
                json!({ "errors": [{ "status": self.0.status.as_u16(), "message": self.0.detail }] }),
            ),
        };
        let text = document.to_string();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.0.headers.clone());
        if !head {
            *response.body_mut() = Body::from(text);
        }
        response
    }
}

/// The problem document for `error`; without a body if `head`.
pub fn response(error: &Error, head: bool) -> Response<Body> {
    Problem::of(error).response(head, Shape::Problem)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::of(&error)
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({} {}: {})", self.0.status.as_u16(), self.0.kind, self.0.detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Problem {}

/// Text that is harmless even where a viewer takes it for a page or a terminal: bounded, and
/// without control characters, markup and bidirectional overrides.
fn presentable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(MAX_DETAIL) {
        match character {
            '<' | '>' | '&' => shown.push('?'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.push('?'),
            _ if character.is_control() => shown.push('?'),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect(4096).await.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn details_are_harmless() {
        let problem = Problem::of(&Error::invalid("<script>\u{1b}[31m\u{202e}\r\nx"));
        assert_eq!(problem.detail(), "?script??[31m???x");
        let inside = Problem::of(&Error::new(ErrorKind::Internal, "/data/secret is odd"));
        assert!(!inside.detail().contains("secret"));
        assert_eq!(inside.cause(), "/data/secret is odd");
        let slow = std::io::Error::from(std::io::ErrorKind::TimedOut);
        let slow = Problem::of(&Error::io("opening /data/secret", slow));
        assert!(!slow.detail().contains("secret"));
        assert!(Problem::of(&Error::invalid("x".repeat(9000))).detail().len() <= MAX_DETAIL);
    }

    #[test]
    fn shapes() {
        let problem = Problem::of(&Error::new(ErrorKind::NotFound, "there is no such artifact"));
        let native = futures_util::FutureExt::now_or_never(text(problem.response(false, Shape::Problem)));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&native.unwrap()).unwrap(),
            json!({"type": "urn:distedge:problem:not-found", "title": "Not Found", "status": 404,
                   "detail": "there is no such artifact"})
        );
        let other = futures_util::FutureExt::now_or_never(text(problem.response(false, Shape::Artifactory)));
        assert_eq!(other.unwrap(), r#"{"errors":[{"message":"there is no such artifact","status":404}]}"#);
        let head = problem.response(true, Shape::Problem);
        assert_eq!(head.body().length(), Some(0));
        assert_ne!(head.headers()[header::CONTENT_LENGTH], "0");
    }
}
