//! The one error type, and the one table from its kind to the numbers of the outside world.
//!
//! An [`Error`] is opaque: it has a [`kind`](Error::kind) to act on and a sentence to show.
//! The sentence says what went wrong and where; it never holds a secret.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one of the ways a caller can act on.
///
/// The table of [`http_status`](ErrorKind::http_status), [`oci_code`](ErrorKind::oci_code),
/// [`code`](ErrorKind::code) and [`is_retryable`](ErrorKind::is_retryable) is the only place
/// where kinds meet protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input breaks its format or a stated rule.
    Invalid,
    /// No usable credentials were presented.
    Unauthenticated,
    /// The caller is known and may not.
    Forbidden,
    /// There is no such thing, or the caller may not know of it.
    NotFound,
    /// The thing exists and does not allow this method.
    MethodNotAllowed,
    /// The state does not allow it: other content under the same name, a lost race.
    Conflict,
    /// It was here and has been withdrawn.
    Gone,
    /// More bytes, items or depth than the limit allows.
    TooLarge,
    /// The request target is longer than the limit.
    TargetTooLong,
    /// The request names another host than this one.
    Misdirected,
    /// Well-formed, and not something this version accepts.
    Unsupported,
    /// Bytes do not have the digest or the size that was promised for them.
    Mismatch,
    /// Signatures, keys or the trust document do not carry the claim.
    Untrusted,
    /// Stored data is damaged.
    Corrupted,
    /// The storage is full.
    NoSpace,
    /// The other side or a resource is not there for the moment.
    Unavailable,
    /// The other side took too long.
    TimedOut,
    /// The operating system refused an operation.
    Io,
    /// A defect of this program.
    Internal,
}

struct Row {
    kind: ErrorKind,
    name: &'static str,
    http: u16,
    oci: &'static str,
    code: i32,
    retry: bool,
}

const fn row(
    kind: ErrorKind,
    name: &'static str,
    http: u16,
    oci: &'static str,
    code: i32,
    retry: bool,
) -> Row {
    Row { kind, name, http, oci, code, retry }
}

/// Numbers in the `code` column are part of the C ABI: they are never reused.
const TABLE: &[Row] = &[
    row(ErrorKind::Invalid, "invalid", 400, "UNSUPPORTED", 1, false),
    row(ErrorKind::Unauthenticated, "unauthenticated", 401, "UNAUTHORIZED", 2, false),
    row(ErrorKind::Forbidden, "forbidden", 403, "DENIED", 3, false),
    row(ErrorKind::NotFound, "not-found", 404, "NAME_UNKNOWN", 4, false),
    row(ErrorKind::MethodNotAllowed, "method-not-allowed", 405, "UNSUPPORTED", 5, false),
    row(ErrorKind::Conflict, "conflict", 409, "DENIED", 6, false),
    row(ErrorKind::Gone, "gone", 410, "MANIFEST_UNKNOWN", 7, false),
    row(ErrorKind::TooLarge, "too-large", 413, "SIZE_INVALID", 8, false),
    row(ErrorKind::TargetTooLong, "target-too-long", 414, "NAME_INVALID", 9, false),
    row(ErrorKind::Misdirected, "misdirected", 421, "UNSUPPORTED", 10, false),
    row(ErrorKind::Unsupported, "unsupported", 422, "UNSUPPORTED", 11, false),
    row(ErrorKind::Mismatch, "mismatch", 422, "DIGEST_INVALID", 12, false),
    row(ErrorKind::Untrusted, "untrusted", 403, "DENIED", 13, false),
    row(ErrorKind::Corrupted, "corrupted", 503, "BLOB_UNKNOWN", 14, true),
    row(ErrorKind::NoSpace, "no-space", 507, "TOOMANYREQUESTS", 15, true),
    row(ErrorKind::Unavailable, "unavailable", 503, "TOOMANYREQUESTS", 16, true),
    row(ErrorKind::TimedOut, "timed-out", 504, "TOOMANYREQUESTS", 17, true),
    row(ErrorKind::Io, "io", 500, "UNKNOWN", 18, true),
    row(ErrorKind::Internal, "internal", 500, "UNKNOWN", 19, false),
];

impl ErrorKind {
    fn row(self) -> &'static Row {
        // Every kind has a row (checked by a test), so the fallback never answers.
        TABLE.iter().find(|row| row.kind == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }

    /// A stable kebab-case name, used in problem `type`s and logs.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The HTTP status code that carries this kind.
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// The OCI distribution error code that carries this kind.
    pub fn oci_code(self) -> &'static str {
        self.row().oci
    }

    /// The number of this kind in the C ABI; 0 is success and belongs to no kind.
    pub fn code(self) -> i32 {
        self.row().code
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_retryable(self) -> bool {
        self.row().retry
    }

    /// The kind with this stable name.
    pub fn from_name(name: &str) -> Option<ErrorKind> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of this crate: a kind, a sentence, and sometimes a cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a sentence for people.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// Bad input: [`ErrorKind::Invalid`].
    #[cold]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    /// An operating-system error met while doing `what` ("writing edge/meta.redb").
    ///
    /// A full disk becomes [`ErrorKind::NoSpace`], every other error [`ErrorKind::Io`].
    #[cold]
    pub fn io(what: impl fmt::Display, cause: std::io::Error) -> Error {
        // An error of this crate that went through a `Read` or a `Write` is what it was.
        let carried = cause.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        let kind = match cause.kind() {
            _ if carried.is_some() => carried.map_or(ErrorKind::Io, Error::kind),
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            std::io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("{what}: {cause}")).with_source(cause)
    }

    /// The same error with its cause kept for programs; the sentence stays as it is.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, its sentence led by what was being done: `context: sentence`.
    #[must_use]
    #[cold]
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.0.message = format!("{context}: {}", self.0.message).into();
        self
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence, without the kind.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {})", self.0.kind, self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (i, a) in TABLE.iter().enumerate() {
            assert_eq!(a.kind.row().code, a.code);
            assert_eq!(ErrorKind::from_name(a.name), Some(a.kind));
            for b in &TABLE[i + 1..] {
                assert_ne!(a.code, b.code, "{} and {}", a.name, b.name);
                assert_ne!(a.kind, b.kind);
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_from_other_io() {
        let full = Error::io("writing x", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        let denied = Error::io("writing x", std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        assert_eq!(denied.kind(), ErrorKind::Io);
        assert!(denied.to_string().starts_with("writing x: "));
    }
}
