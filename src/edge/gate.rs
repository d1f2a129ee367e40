//! The strict request gate: what has more than one reading does not get in.
//!
//! HTTP libraries hand many dangerous requests on unchanged. [`Gate::admit`] stands before
//! everything else, for every protocol: whoever comes after it sees one host, one method, one
//! length and one parsed target. Headers that claim another target, method or host
//! (`X-Original-URL`, `X-HTTP-Method-Override`, `X-Forwarded-*`, `Forwarded`) are not read at all.

use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode, Version};

use crate::edge::Problem;
use crate::error::ErrorKind;
use crate::name::Target;

/// Longest request target, in bytes.
pub const MAX_URI: usize = 8 * 1024;
/// Most header fields.
pub const MAX_HEADERS: usize = 100;
/// Largest header block: names, values and four bytes for each field.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Which requests get in.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Lower-case host names; `None` for any.
    hosts: Option<Vec<String>>,
    max_uri: usize,
    max_headers: usize,
    max_header_bytes: usize,
}

/// What the gate read in a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Admitted {
    /// The parsed path. `OPTIONS *` has the target `/`.
    pub target: Target,
    /// One of `GET`, `HEAD`, `OPTIONS`, `PUT`, `POST`, `PATCH`, `DELETE`.
    pub method: Method,
    /// Whether the answer must have no body.
    pub head: bool,
    /// Host, in lower case, and port as the client gave them; `None` in HTTP/1.0 without `Host`.
    pub host: Option<String>,
    /// The announced length of the request's body, if it was announced.
    pub content_length: Option<u64>,
}

impl Gate {
    /// A gate that takes any host name.
    pub fn new() -> Gate {
        Gate { hosts: None, max_uri: MAX_URI, max_headers: MAX_HEADERS, max_header_bytes: MAX_HEADER_BYTES }
    }

    /// The same gate for these host names alone (without ports); another one is 421.
    #[must_use]
    pub fn with_hosts<S: AsRef<str>>(mut self, hosts: impl IntoIterator<Item = S>) -> Gate {
        self.hosts = Some(hosts.into_iter().map(|host| host.as_ref().to_ascii_lowercase()).collect());
        self
    }

    /// The same gate with other limits: bytes of the target, number of header fields, bytes of the
    /// header block.
    #[must_use]
    pub fn with_limits(mut self, uri: usize, headers: usize, header_bytes: usize) -> Gate {
        (self.max_uri, self.max_headers, self.max_header_bytes) = (uri, headers, header_bytes);
        self
    }

    /// Reads the request's head, or says why it may not pass.
    pub fn admit(&self, parts: &Parts) -> Result<Admitted, Problem> {
        self.check_size(parts)?;
        // The length comes before everything that leaves the connection open: where the body of
        // this request ends must be certain before another one is read.
        let content_length = body_length(&parts.headers)?;
        let method = method(&parts.method)?;
        let head = method == Method::HEAD;
        // RFC 9110 section 9.3.1: content in a GET request has no generally defined semantics and
        // might lead some implementations to reject the request, because of request smuggling.
        if matches!(method, Method::GET | Method::HEAD | Method::OPTIONS)
            && content_length.is_some_and(|length| length > 0)
        {
            return Err(malformed("a GET, HEAD or OPTIONS request must not have a body").and_close());
        }
        let host = self.host(parts)?;
        expectation(&parts.headers)?;
        let path = match parts.uri.path() {
            "*" if method == Method::OPTIONS => "/",
            path => path,
        };
        let target = Target::parse(path)?;
        Ok(Admitted { target, method, head, host, content_length })
    }

    fn check_size(&self, parts: &Parts) -> Result<(), Problem> {
        let uri = parts.uri.path_and_query().map_or(0, |path| path.as_str().len())
            + parts.uri.authority().map_or(0, |authority| authority.as_str().len());
        if uri > self.max_uri {
            return Err(Problem::new(
                StatusCode::URI_TOO_LONG,
                ErrorKind::TargetTooLong.as_str(),
                format!("the request target has {uri} bytes, at most {} are allowed", self.max_uri),
            ));
        }
        let block: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if parts.headers.len() > self.max_headers || block > self.max_header_bytes {
            return Err(Problem::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header-too-large",
                format!(
                    "the request has {} header fields in {block} bytes; at most {} in {} are allowed",
                    parts.headers.len(),
                    self.max_headers,
                    self.max_header_bytes
                ),
            )
            .and_close());
        }
        Ok(())
    }

    /// RFC 9112 section 3.2: a server MUST respond with a 400 status code to any HTTP/1.1 request
    /// message that lacks a Host header field and to any request message that contains more than
    /// one Host header field line or a Host header field with an invalid field value.
    fn host(&self, parts: &Parts) -> Result<Option<String>, Problem> {
        let mut fields = parts.headers.get_all(header::HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(malformed("there is more than one Host").and_close());
        }
        let field = field.map(host_name).transpose()?;
        let authority =
            parts.uri.authority().map(|authority| checked_host(authority.as_str())).transpose()?;
        let host = match (authority, field) {
            (Some(authority), Some(field)) if authority != field => {
                return Err(misdirected("the request target and Host name different hosts"));
            }
            (Some(authority), _) if parts.version >= Version::HTTP_2 => Some(authority),
            (Some(_), None) => return Err(malformed("there is no Host").and_close()),
            (_, Some(field)) => Some(field),
            (None, None) if parts.version <= Version::HTTP_10 => None,
            (None, None) => return Err(malformed("there is no Host").and_close()),
        };
        if parts.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
            return Err(misdirected("the request target has a scheme that is not served here"));
        }
        if let (Some(hosts), Some(host)) = (&self.hosts, &host) {
            let name = without_port(host);
            if !hosts.iter().any(|allowed| allowed == name) {
                return Err(misdirected("this host is not served here"));
            }
        }
        Ok(host)
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

/// Off-spec: RFC 9112 section 6.1 lets a client send a chunked request body. Nothing here needs
/// one, two lengths in one message are how requests are smuggled, and so a `Transfer-Encoding` is
/// refused as a whole and a body needs a `Content-Length`.
fn body_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(
            malformed("a request body needs a Content-Length; no Transfer-Encoding is accepted").and_close()
        );
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.as_bytes();
    // RFC 9110 section 8.6: Content-Length = 1*DIGIT; a sign or a list is not one.
    let value = std::str::from_utf8(digits)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    match (value, lengths.next()) {
        (Some(value), None) => Ok(Some(value)),
        _ => Err(malformed("Content-Length is not one number").and_close()),
    }
}

fn method(method: &Method) -> Result<Method, Problem> {
    const KNOWN: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::POST,
        Method::PATCH,
        Method::DELETE,
    ];
    if KNOWN.contains(method) {
        return Ok(method.clone());
    }
    // Every registered method is spelled in capitals and `-`; those are known and not allowed
    // (405), anything else is no method at all (501, RFC 9110 section 9.1).
    if method.as_str().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::MethodNotAllowed.as_str(),
            "this method is not allowed here",
        )
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
        .and_close());
    }
    Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", "there is no such method").and_close())
}

fn host_name(value: &HeaderValue) -> Result<String, Problem> {
    value.to_str().map_err(|_| bad_host()).and_then(checked_host)
}

/// RFC 9112 section 3.2: Host = uri-host [ ":" port ]. User information is none of it.
fn checked_host(text: &str) -> Result<String, Problem> {
    let authority = Authority::from_str(text).map_err(|_| bad_host())?;
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("@");
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    let host_ok = !authority.host().is_empty()
        && authority.host().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte));
    if port_ok && host_ok { Ok(text.to_ascii_lowercase()) } else { Err(bad_host()) }
}

/// A host without the port behind it.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// RFC 9110 section 10.1.1: a server that receives an Expect field value containing a member other
/// than 100-continue MAY respond with a 417.
fn expectation(headers: &HeaderMap) -> Result<(), Problem> {
    let strange = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().any(strange) {
        return Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "expectation-failed",
            "the only expectation understood is 100-continue",
        )
        .and_close());
    }
    Ok(())
}

#[cold]
fn malformed(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid.as_str(), detail)
}

#[cold]
fn bad_host() -> Problem {
    malformed("Host is not a host name with an optional port").and_close()
}

#[cold]
fn misdirected(detail: &str) -> Problem {
    Problem::new(StatusCode::MISDIRECTED_REQUEST, ErrorKind::Misdirected.as_str(), detail)
}
