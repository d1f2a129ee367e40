//! Names that are safe by construction, and the one parser from a request target to segments.
//!
//! A value of one of these types has been checked: it can stand in a path, a key or a log line.
//! Nothing here folds case or normalises: one thing has one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::error::{Error, ErrorKind, Result};

/// Longest artifact path, in bytes.
pub const MAX_PATH: usize = 1024;
/// Longest path segment, in bytes.
pub const MAX_SEGMENT: usize = 255;
/// Most segments of an artifact path.
pub const MAX_SEGMENTS: usize = 64;
/// Longest path of a request target, in bytes as sent.
pub const MAX_TARGET: usize = 2048;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text` and takes it as a name.
            pub fn new(text: &str) -> Result<$name> {
                let check: fn(&str) -> Result<(), String> = $check;
                match check(text) {
                    Ok(()) => Ok($name(text.into())),
                    Err(why) => Err(bad_name($what, text, &why)),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                $name::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                $name::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A tenant: 1-63 of `a-z 0-9 -`, led by a letter or digit (a DNS label).
    Tenant, "tenant name", |text| label(text, 63, b"-", false)
);
name!(
    /// A node's name (edge or source): 1-64 of `a-z 0-9 . -`, led by a letter or digit.
    NodeName, "node name", |text| label(text, 64, b".-", false)
);
name!(
    /// A repository: 1-64 of `a-z 0-9 . _ -`, led by a letter or digit, and none of the
    /// [reserved](RESERVED) first segments of an edge's address space.
    RepositoryName, "repository name", |text| {
        label(text, 64, b"._-", false)?;
        if RESERVED.contains(&text) { Err("it is reserved for the edge itself".into()) } else { Ok(()) }
    }
);
name!(
    /// A bundle's name: 1-128 of `A-Z a-z 0-9 . _ -`, led by a letter or digit.
    BundleName, "bundle name", |text| label(text, 128, b"._-", true)
);
name!(
    /// A bundle's version: 1-128 of `A-Z a-z 0-9 . _ + ~ -`, led by a letter or digit.
    /// Versions are compared as bytes; their order is that of `seq`, not of the text.
    Version, "version", |text| label(text, 128, b"._+~-", true)
);
name!(
    /// A path inside a repository: `/`-separated segments without a leading or trailing `/`.
    ///
    /// At most [`MAX_PATH`] bytes and [`MAX_SEGMENTS`] segments of 1-[`MAX_SEGMENT`] bytes; Unicode
    /// NFC; no control characters, no `\`, no `%`, no `.` or `..` segment.
    ArtifactPath, "artifact path", check_path
);

/// A bundle that holds an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder(pub BundleName, pub Version);

/// First segments of a request target that never name a repository.
pub const RESERVED: &[&str] = &[
    "access",
    "api",
    "artifactory",
    "v1",
    "v2",
    "tuf",
    "healthz",
    "readyz",
    "metrics",
    "token",
    "lookaside",
    "favicon.ico",
    "robots.txt",
];

#[cold]
fn bad_name(what: &str, text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(120).collect();
    let article = if what.starts_with('a') { "an" } else { "a" };
    Error::invalid(format!("{shown:?} is not {article} {what}: {why}"))
}

fn label(text: &str, most: usize, punctuation: &[u8], upper: bool) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("it has {} bytes, 1 to {most} are allowed", text.len()));
    }
    for (at, byte) in text.bytes().enumerate() {
        let letter =
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || (upper && byte.is_ascii_uppercase());
        if !letter && (at == 0 || !punctuation.contains(&byte)) {
            let found = text[..].chars().find(|c| !c.is_ascii() || *c as u32 == u32::from(byte));
            return Err(format!("{:?} is not allowed there", found.unwrap_or('?')));
        }
    }
    if text.contains("..") {
        return Err("it contains \"..\"".into());
    }
    Ok(())
}

fn check_path(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > MAX_PATH {
        return Err(format!("it has {} bytes, at most {MAX_PATH} are allowed", text.len()));
    }
    let mut segments = 0;
    for segment in text.split('/') {
        segments += 1;
        match segment {
            "" => return Err("it has an empty segment".into()),
            "." | ".." => return Err(format!("it has a {segment:?} segment")),
            _ if segment.len() > MAX_SEGMENT => {
                return Err(format!(
                    "a segment has {} bytes, at most {MAX_SEGMENT} are allowed",
                    segment.len()
                ));
            }
            _ => {}
        }
    }
    if segments > MAX_SEGMENTS {
        return Err(format!("it has {segments} segments, at most {MAX_SEGMENTS} are allowed"));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '\\' | '%')) {
        return Err(format!("{bad:?} is not allowed"));
    }
    if !is_nfc(text) {
        return Err("it is not in Unicode normalisation form C".into());
    }
    Ok(())
}

impl ArtifactPath {
    /// The segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The form under which two paths of one repository must differ: NFC, then a case fold
    /// (upper, then lower, so that `ß` and `SS` meet), then NFC again.
    pub fn folded(&self) -> String {
        if self.0.is_ascii() {
            return self.0.to_ascii_lowercase();
        }
        let upper: String = self.0.nfc().flat_map(char::to_uppercase).collect();
        upper.chars().flat_map(char::to_lowercase).nfc().collect()
    }
}

/// The path of a request target, split and decoded once.
///
/// What an HTTP server, a router and a file store disagree about never gets this far: a target
/// that has more than one reading is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    segments: Vec<String>,
    trailing_slash: bool,
}

impl Target {
    /// Parses the raw path of an origin-form target, without its query.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for bytes outside RFC 3986 `pchar` and `/`, an empty segment, a bad
    /// escape, a decoded control byte, `/`, `\` or `%`, a `.` or `..` segment, or bytes that are
    /// not UTF-8; [`ErrorKind::NotFound`] for a segment over [`MAX_SEGMENT`] bytes;
    /// [`ErrorKind::TargetTooLong`] over [`MAX_TARGET`] bytes.
    pub fn parse(path: &str) -> Result<Target> {
        if path.len() > MAX_TARGET {
            return Err(Error::new(
                ErrorKind::TargetTooLong,
                format!("the path has {} bytes, at most {MAX_TARGET} are allowed", path.len()),
            ));
        }
        let rest = path.strip_prefix('/').ok_or_else(|| bad_target("it does not start with \"/\""))?;
        if let Some(bad) = path.bytes().find(|byte| !is_target_byte(*byte)) {
            return Err(bad_target(&format!("byte 0x{bad:02x} must be percent-encoded or is not allowed")));
        }
        // RFC 3986 section 2.4: split into components before decoding.
        let mut target = Target { segments: Vec::new(), trailing_slash: false };
        let mut raw = rest.split('/').peekable();
        let mut too_long = false;
        while let Some(segment) = raw.next() {
            if segment.is_empty() {
                if raw.peek().is_some() {
                    return Err(bad_target("it has an empty segment"));
                }
                target.trailing_slash = true;
                break;
            }
            let segment = decode_segment(segment)?;
            too_long |= segment.len() > MAX_SEGMENT;
            target.segments.push(segment);
        }
        if too_long {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("a path segment has more than {MAX_SEGMENT} bytes; nothing has such a name"),
            ));
        }
        Ok(target)
    }

    /// The decoded segments.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// Whether the path ended in `/` (true for `/` itself).
    pub fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// The one canonical spelling of this path.
    pub fn to_path(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            encode_segment(segment, &mut path);
        }
        if self.trailing_slash {
            path.push('/');
        }
        path
    }
}

#[cold]
fn bad_target(why: &str) -> Error {
    Error::invalid(format!("the request target cannot be read: {why}"))
}

/// RFC 3986 section 3.3: pchar = unreserved / pct-encoded / sub-delims / ":" / "@".
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte)
}

fn decode_segment(segment: &str) -> Result<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |digit: Option<u8>| digit.and_then(|digit| (digit as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(bad_target("a \"%\" is not followed by two hex digits"));
        };
        let byte = (high << 4 | low) as u8;
        if byte < 0x20 || matches!(byte, 0x7f | b'/' | b'\\' | b'%') {
            return Err(bad_target(&format!("%{byte:02X} is not allowed")));
        }
        decoded.push(byte);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| bad_target("a segment is not UTF-8"))?;
    if decoded == "." || decoded == ".." {
        return Err(bad_target("it has a \".\" or \"..\" segment"));
    }
    Ok(decoded)
}

/// Appends `segment` to `out`, percent-encoding what is not unreserved (RFC 3986 section 2.3).
pub fn encode_segment(segment: &str, out: &mut String) {
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(DIGITS[usize::from(byte >> 4)] as char);
            out.push(DIGITS[usize::from(byte & 15)] as char);
        }
    }
}

/// The percent-encoded form of a `/`-separated path.
pub fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            out.push('/');
        }
        encode_segment(segment, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_targets_are_refused() {
        for bad in [
            "",
            "x",
            "//a",
            "/a//b",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/a/%2e%2e%2fs",
            "/%2F%2Fetc",
            "/%252e%252e/s",
            "/a%00.txt",
            "/a\\b",
            "/a%5cb",
            "/%c0%ae%c0%ae/s",
            "/%zz",
            "/a%",
            "/a%4",
            "/é",
            "/a%0d%0ab",
            "/a%7f",
            "/a b",
            "/a\"b",
            "/a%1fb",
            "/..",
            "/%2E",
            "/a/..",
            "/a|b",
            "/a^b",
            "/a`b",
            "/{a}",
            "/<a>",
        ] {
            assert_eq!(Target::parse(bad).map_err(|e| e.kind()), Err(ErrorKind::Invalid), "{bad}");
        }
        assert_eq!(Target::parse(&format!("/{}", "a".repeat(256))).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            Target::parse(&format!("/{}", "a".repeat(9000))).unwrap_err().kind(),
            ErrorKind::TargetTooLong
        );
    }

    #[test]
    fn legal_spellings_meet() {
        let plain = Target::parse("/r/app/1.0/a.bin").unwrap();
        assert_eq!(Target::parse("/r/%61pp/1.0/a.bin").unwrap(), plain);
        assert_eq!(plain.to_path(), "/r/app/1.0/a.bin");
        let slash = Target::parse("/r/").unwrap();
        assert!(slash.has_trailing_slash());
        assert_eq!(slash.segments(), ["r"]);
        assert!(Target::parse("/").unwrap().segments().is_empty());
        assert_eq!(Target::parse("/%EF%BC%8E%EF%BC%8E").unwrap().segments(), ["．．"]);
    }

    #[test]
    fn paths_are_safe() {
        for bad in [
            "",
            "/x",
            "x/",
            "a//b",
            "../x",
            "a/../b",
            ".",
            "a\0b",
            "a\\b",
            "a%b",
            "e\u{301}",
            "a\nb",
            &"a/".repeat(65),
        ] {
            assert!(ArtifactPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(ArtifactPath::new(&"a".repeat(256)).is_err());
        let path = ArtifactPath::new("Straße/É.BIN").unwrap();
        assert_eq!(path.folded(), ArtifactPath::new("STRASSE/é.bin").unwrap().folded());
        assert_eq!(path.file_name(), "É.BIN");
    }

    #[test]
    fn labels() {
        assert!(RepositoryName::new("generic-local").is_ok());
        for bad in ["", "api", "Upper", "-x", ".x", "a/b", "a..b", "é", &"a".repeat(65)] {
            assert!(RepositoryName::new(bad).is_err(), "{bad:?}");
        }
        assert!(Version::new("1.4.0-rc.1+build~2").is_ok());
        assert!(BundleName::new("Shop_api").is_ok());
        assert!(BundleName::new("a:b").unwrap_err().to_string().contains("':'"));
    }
}
