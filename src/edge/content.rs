//! A stored representation as an answer: headers, preconditions, ranges, bytes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::blob::BlobInfo;
use crate::clock::Timestamp;
use crate::digest::{self, Checksums};
use crate::edge::conditional::{self, Outcome};
use crate::edge::integrity::Verifier;
use crate::edge::{Body, Problem};
use crate::error::Result;
use crate::range::{ByteRange, Ranges};
use crate::secret::Secret;

const OCTETS: &str = "application/octet-stream";
/// Longest media type that is sent on.
const MAX_MEDIA_TYPE: usize = 100;

/// What is served under one name.
#[derive(Clone, Debug)]
pub struct Representation {
    /// Its bytes.
    pub info: BlobInfo,
    /// Its media type, as the publisher gave it.
    pub media_type: Option<String>,
    /// The name under which a browser saves it.
    pub file_name: String,
    /// When it became what it is.
    pub last_modified: Timestamp,
    /// Legacy checksums, for clients that ask for them.
    pub checksums: Checksums,
    /// Who may keep a copy.
    pub cache: Cache,
}

/// Who may keep a copy of an answer, and for how long without asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// Anyone, asking each time whether it still stands: it can be withdrawn.
    Public,
    /// Anyone, for a year: the address names the bytes.
    PublicImmutable,
    /// The client alone, asking each time.
    Private,
    /// The client alone, for a year.
    PrivateImmutable,
}

impl Cache {
    fn control(self) -> &'static str {
        match self {
            Cache::Public => "public, no-cache",
            Cache::PublicImmutable => "public, max-age=31536000, immutable",
            Cache::Private => "private, no-cache",
            Cache::PrivateImmutable => "private, max-age=31536000, immutable",
        }
    }

    fn is_private(self) -> bool {
        matches!(self, Cache::Private | Cache::PrivateImmutable)
    }
}

/// Which bytes of a representation an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// None: the client's copy is good (304).
    NotModified,
    /// None, but everything that would be said of them (`HEAD`).
    Head,
    /// All.
    Whole,
    /// These ranges.
    Parts(Vec<ByteRange>),
}

impl Selected {
    /// The bytes, as ranges of the representation of `size` bytes, in the order in which they are sent.
    pub fn ranges(&self, size: u64) -> Vec<ByteRange> {
        match self {
            Selected::NotModified | Selected::Head => Vec::new(),
            Selected::Whole => ByteRange::new(0, size).into_iter().collect(),
            Selected::Parts(ranges) => ranges.clone(),
        }
    }
}

/// Tells which bytes a `GET` or `HEAD` asks for, without touching any. With `single`, a request
/// for several ranges is answered with the whole, which RFC 9110 section 14.2 lets a server do.
///
/// # Errors
/// A [`Problem`] for a failed precondition and for an unsatisfiable range.
pub fn select(parts: &Parts, representation: &Representation, single: bool) -> Result<Selected, Problem> {
    let info = &representation.info;
    let tag = conditional::entity_tag(&info.digest);
    let outcome = conditional::evaluate(&parts.headers, &tag, representation.last_modified);
    match outcome {
        Outcome::Failed => {
            return Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition-failed",
                "the artifact is not the one the request is meant for",
            ));
        }
        Outcome::NotModified => return Ok(Selected::NotModified),
        // RFC 9110 section 14.2: GET is the only method for which range handling is defined.
        _ if parts.method == Method::HEAD => return Ok(Selected::Head),
        Outcome::ProceedWhole => return Ok(Selected::Whole),
        Outcome::Proceed => {}
    }
    match requested(&parts.headers, info.size) {
        Ranges::Ignore => Ok(Selected::Whole),
        Ranges::Unsatisfiable => Err(unsatisfiable(info.size)),
        Ranges::Satisfiable(ranges) if single && ranges.len() > 1 => Ok(Selected::Whole),
        Ranges::Satisfiable(ranges) => Ok(Selected::Parts(ranges)),
    }
}

/// Answers with what was selected. `Accept-Encoding` changes nothing: the bytes that were signed
/// are the bytes that are sent.
///
/// # Errors
/// A [`Problem`] for damaged or missing bytes.
pub async fn respond(
    selected: &Selected,
    representation: &Representation,
    verifier: &Arc<Verifier>,
) -> Result<Response<Body>, Problem> {
    let info = &representation.info;
    let tag = conditional::entity_tag(&info.digest);
    let mut response = Response::new(Body::empty());
    validators(response.headers_mut(), representation, &tag);
    if *selected == Selected::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    describe(response.headers_mut(), representation);
    match selected {
        Selected::NotModified => {}
        Selected::Head => {
            verifier.check_presence(info).await?;
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(info.size));
        }
        Selected::Whole => {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(info.size));
            *response.body_mut() = verifier.whole(info).await?;
        }
        Selected::Parts(ranges) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let bodies = verifier.parts(info, ranges).await?;
            partial(&mut response, info.size, ranges, bodies)?;
        }
    }
    Ok(response)
}

/// The media type that the end of a file's name stands for.
pub fn media_type_of(file_name: &str) -> &'static str {
    let name = file_name.to_ascii_lowercase();
    const ENDINGS: &[(&str, &str)] = &[
        (".tar.gz", "application/gzip"),
        (".tgz", "application/gzip"),
        (".gz", "application/gzip"),
        (".zip", "application/zip"),
        (".whl", "application/zip"),
        (".jar", "application/java-archive"),
        (".deb", "application/vnd.debian.binary-package"),
        (".rpm", "application/x-rpm"),
        (".json", "application/json"),
        (".xml", "application/xml"),
        (".pom", "application/xml"),
        (".html", "text/html; charset=utf-8"),
        (".htm", "text/html; charset=utf-8"),
        (".txt", "text/plain; charset=utf-8"),
        (".md", "text/plain; charset=utf-8"),
        (".log", "text/plain; charset=utf-8"),
        (".asc", "application/pgp-signature"),
        (".sig", "application/pgp-signature"),
        (".svg", "image/svg+xml"),
        (".png", "image/png"),
        (".jpg", "image/jpeg"),
        (".jpeg", "image/jpeg"),
        (".pdf", "application/pdf"),
        (".js", "text/javascript"),
        (".css", "text/css"),
        (".wasm", "application/wasm"),
        (".xz", "application/x-xz"),
        (".zst", "application/zstd"),
        (".bz2", "application/x-bzip2"),
        (".tar", "application/x-tar"),
    ];
    ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map_or(OCTETS, |(_, media_type)| media_type)
}

/// What a 200, a 206 and a 304 have in common (RFC 9110 section 15.4.5).
fn validators(headers: &mut HeaderMap, representation: &Representation, tag: &str) {
    set(headers, header::ETAG, tag);
    set(headers, header::LAST_MODIFIED, &conditional::http_date(representation.last_modified));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(representation.cache.control()));
    if representation.cache.is_private() {
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
    }
}

fn describe(headers: &mut HeaderMap, representation: &Representation) {
    let digest = &representation.info.digest;
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // RFC 9530 section 3: the digest of the whole representation, on partial answers too.
    let repr_digest = format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()));
    set(headers, HeaderName::from_static("repr-digest"), &repr_digest);
    set(headers, HeaderName::from_static("x-checksum-sha256"), &digest.to_hex());
    if let Some(sha1) = hex(&representation.checksums.sha1, 20) {
        set(headers, HeaderName::from_static("x-checksum-sha1"), sha1);
    }
    if let Some(md5) = hex(&representation.checksums.md5, 16) {
        set(headers, HeaderName::from_static("x-checksum-md5"), md5);
    }
    let media_type = media_type(representation);
    set(headers, header::CONTENT_TYPE, media_type);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An artifact is somebody else's page on this origin: it gets no scripts and no origin.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"),
    );
    let kind = if is_inert(media_type) { "inline" } else { "attachment" };
    set(headers, header::CONTENT_DISPOSITION, &disposition(kind, &representation.file_name));
}

fn requested(headers: &HeaderMap, size: u64) -> Ranges {
    let mut fields = headers.get_all(header::RANGE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().map_or(Ranges::Ignore, |field| Ranges::parse(field, size)),
        // Several fields have no one meaning, and a whole answer is always right.
        _ => Ranges::Ignore,
    }
}

fn partial(response: &mut Response<Body>, size: u64, ranges: &[ByteRange], bodies: Vec<Body>) -> Result<()> {
    if let [range] = ranges {
        set(response.headers_mut(), header::CONTENT_RANGE, &content_range(range, size));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(range.len()));
        *response.body_mut() = Body::chain(bodies);
        return Ok(());
    }
    // RFC 9110 section 14.6. The boundary is random, so that no artifact can contain it on purpose.
    let boundary = digest::to_hex(Secret::random(16)?.expose());
    let media_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let media_type = media_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or(OCTETS);
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    for (range, body) in ranges.iter().zip(bodies) {
        let lead = if pieces.is_empty() { "" } else { "\r\n" };
        pieces.push(Body::from(format!(
            "{lead}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {}\r\n\r\n",
            content_range(range, size)
        )));
        pieces.push(body);
    }
    pieces.push(Body::from(format!("\r\n--{boundary}--\r\n")));
    let body = Body::chain(pieces);
    if let Some(length) = body.length() {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = body;
    set(response.headers_mut(), header::CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
    Ok(())
}

fn content_range(range: &ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start(), range.end() - 1)
}

#[cold]
fn unsatisfiable(size: u64) -> Problem {
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range-not-satisfiable",
        format!("the artifact has {size} bytes, and none of them is in the range"),
    );
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

fn media_type(representation: &Representation) -> &str {
    match representation.media_type.as_deref() {
        Some(media_type) if is_media_type(media_type) => media_type,
        Some(_) => OCTETS,
        None => media_type_of(&representation.file_name),
    }
}

/// RFC 9110 section 8.3.1: type "/" subtype, and whatever parameters are printable.
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or("").trim_end();
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    text.len() <= MAX_MEDIA_TYPE
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Types that a browser may show in its window: nothing in them runs. Everything else is saved.
fn is_inert(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "text/plain"
            | "application/json"
            | "image/png"
            | "image/jpeg"
            | "image/gif"
            | "image/webp"
            | "image/avif"
    )
}

/// RFC 6266: a plain name that every client understands, and the exact one as RFC 8187 has it.
fn disposition(kind: &str, file_name: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || " !#$&'()+,-.=@[]^_`{}~".contains(character);
    let fallback: String = file_name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if fallback == file_name {
        return format!("{kind}; filename=\"{fallback}\"");
    }
    let mut exact = String::new();
    for byte in file_name.bytes() {
        // attr-char of RFC 8187 section 3.2.1.
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            exact.push(byte as char);
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{kind}; filename=\"{fallback}\"; filename*=UTF-8''{exact}")
}

/// Legacy checksums come from documents: nothing but hex of the right length is sent on.
fn hex(text: &Option<String>, bytes: usize) -> Option<&str> {
    let text = text.as_deref()?;
    digest::decode_hex(text, &mut vec![0; bytes]).map(|()| text)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value.as_bytes())) {
        Ok(value) => {
            headers.insert(name, value);
        }
        // Every value made here is ASCII without control characters; one that is not is left out.
        Err(_) => tracing::error!(%name, "a header value is not fit to be sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(disposition("inline", "a b.txt"), "inline; filename=\"a b.txt\"");
        assert_eq!(
            disposition("attachment", "a\"\r\nSet-Cookie: x.html"),
            "attachment; filename=\"a___Set-Cookie_ x.html\"; filename*=UTF-8''a%22%0D%0ASet-Cookie%3A%20x.html"
        );
        assert_eq!(
            disposition("attachment", "näme.svg"),
            "attachment; filename=\"n_me.svg\"; filename*=UTF-8''n%C3%A4me.svg"
        );
    }

    #[test]
    fn what_can_run_is_not_inert() {
        for active in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/xml",
            "text/javascript",
            "application/pdf",
            "application/octet-stream",
            "x/y",
            "multipart/related",
            "text/css",
        ] {
            assert!(!is_inert(active), "{active}");
        }
        assert!(is_inert("text/plain; charset=utf-8"));
        for bad in ["", "text", "text/", "/x", "text/html\r\nX: y", "te xt/html", "text/é", &"a/".repeat(60)]
        {
            assert!(!is_media_type(bad), "{bad:?}");
        }
    }
}
