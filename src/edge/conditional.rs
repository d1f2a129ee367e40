//! Preconditions (RFC 9110 section 13), for representations that have a strong entity tag and a
//! time of last modification.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::digest::Digest;

/// Longest date that is read: an IMF-fixdate has 29 bytes.
const MAX_DATE: usize = 64;

/// What the preconditions of a `GET` or `HEAD` come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on; the `Range` field counts.
    Proceed,
    /// Go on and ignore `Range`: the client's part is of another representation.
    ProceedWhole,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The strong entity tag of these bytes: `"sha256:<64 hex digits>"`.
pub fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Evaluates the preconditions in the order of RFC 9110 section 13.2.2.
pub fn evaluate(headers: &HeaderMap, tag: &str, modified: Timestamp) -> Outcome {
    // Step 1 and 2: If-Match, and If-Unmodified-Since where there is no If-Match.
    if headers.contains_key(header::IF_MATCH) {
        // Section 13.1.1: an origin server MUST use the strong comparison function.
        if !any_tag(headers, header::IF_MATCH, |listed| listed == tag) {
            return Outcome::Failed;
        }
    } else if let Some(date) = date(headers, header::IF_UNMODIFIED_SINCE)
        && modified > date
    {
        return Outcome::Failed;
    }
    // Step 3 and 4: If-None-Match, and If-Modified-Since where there is no If-None-Match.
    if headers.contains_key(header::IF_NONE_MATCH) {
        // Section 13.1.2: a recipient MUST use the weak comparison function.
        if any_tag(headers, header::IF_NONE_MATCH, |listed| {
            listed.strip_prefix("W/").unwrap_or(listed) == tag
        }) {
            return Outcome::NotModified;
        }
    } else if let Some(date) = date(headers, header::IF_MODIFIED_SINCE)
        && modified <= date
    {
        return Outcome::NotModified;
    }
    // Step 5: If-Range. Several are not one validator, and so match nothing.
    let mut validators = headers.get_all(header::IF_RANGE).iter();
    match (validators.next(), validators.next()) {
        (None, _) => Outcome::Proceed,
        (Some(validator), None) if is_current(validator, tag, modified) => Outcome::Proceed,
        _ => Outcome::ProceedWhole,
    }
}

/// Section 13.1.5: entity tags are compared strongly, dates exactly.
fn is_current(validator: &HeaderValue, tag: &str, modified: Timestamp) -> bool {
    let bytes = validator.as_bytes();
    bytes == tag.as_bytes() || parse_date(bytes) == Some(modified)
}

/// Whether `*` or a tag that satisfies `accept` is in the list. A malformed list ends where it
/// stops being one.
fn any_tag(headers: &HeaderMap, name: HeaderName, accept: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        // Tags of ours are ASCII; a field with other bytes in it holds none.
        let Ok(list) = value.to_str() else { return false };
        list.trim() == "*" || tags(list).any(&accept)
    })
}

/// The entity tags of a list: `[ "W/" ] DQUOTE *etagc DQUOTE`, separated by commas.
fn tags(mut list: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        list = list.trim_start_matches([' ', '\t', ',']);
        let opening = if list.starts_with("W/") { 2 } else { 0 };
        let opaque = list.get(opening..)?.strip_prefix('"')?;
        let end = opening + 1 + opaque.find('"')? + 1;
        let (tag, rest) = list.split_at(end);
        list = rest;
        Some(tag)
    })
}

/// Section 13.1.3: a recipient MUST ignore the field if its value is not a valid HTTP-date, or if
/// there is more than one.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { parse_date(value.as_bytes()) }
}

fn parse_date(bytes: &[u8]) -> Option<Timestamp> {
    if bytes.len() > MAX_DATE {
        return None;
    }
    let moment = httpdate::parse_http_date(std::str::from_utf8(bytes).ok()?).ok()?;
    let seconds = moment.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Timestamp::from_unix(i64::try_from(seconds).ok()?))
}

/// The IMF-fixdate of `moment`.
pub fn http_date(moment: Timestamp) -> String {
    let seconds = u64::try_from(moment.as_unix()).unwrap_or(0);
    let moment: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    httpdate::fmt_http_date(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_323_600;

    fn outcome(fields: &[(HeaderName, &str)]) -> Outcome {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        evaluate(&headers, &tag(), Timestamp::from_unix(NOW))
    }

    fn tag() -> String {
        entity_tag(&Digest::of(b"abc"))
    }

    #[test]
    fn if_none_match_is_weak_and_listed() {
        let weak = format!("W/{}", tag());
        for hit in
            [tag(), weak, format!("\"a,b\" , {}", tag()), "*".into(), format!("\"x\",,\"y\",{}", tag())]
        {
            assert_eq!(outcome(&[(header::IF_NONE_MATCH, &hit)]), Outcome::NotModified, "{hit}");
        }
        for miss in ["\"x\"", "", "x", "\"unclosed", &tag()[1..], "W/*", "\"*\""] {
            assert_eq!(outcome(&[(header::IF_NONE_MATCH, miss)]), Outcome::Proceed, "{miss}");
        }
    }

    #[test]
    fn a_tag_outranks_a_date() {
        let same = http_date(Timestamp::from_unix(NOW));
        let later = http_date(Timestamp::from_unix(NOW + 1));
        let before = http_date(Timestamp::from_unix(NOW - 1));
        assert_eq!(outcome(&[(header::IF_MODIFIED_SINCE, &same)]), Outcome::NotModified);
        assert_eq!(outcome(&[(header::IF_MODIFIED_SINCE, &later)]), Outcome::NotModified);
        assert_eq!(outcome(&[(header::IF_MODIFIED_SINCE, &before)]), Outcome::Proceed);
        assert_eq!(
            outcome(&[(header::IF_MODIFIED_SINCE, &same), (header::IF_NONE_MATCH, "\"x\"")]),
            Outcome::Proceed
        );
        assert_eq!(outcome(&[(header::IF_UNMODIFIED_SINCE, &before)]), Outcome::Failed);
        assert_eq!(outcome(&[(header::IF_UNMODIFIED_SINCE, &same)]), Outcome::Proceed);
        assert_eq!(
            outcome(&[(header::IF_UNMODIFIED_SINCE, &before), (header::IF_MATCH, &tag())]),
            Outcome::Proceed
        );
        assert_eq!(outcome(&[(header::IF_MATCH, &format!("W/{}", tag()))]), Outcome::Failed);
        assert_eq!(outcome(&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")]), Outcome::NotModified);
        assert_eq!(outcome(&[(header::IF_MATCH, "\"x\""), (header::IF_NONE_MATCH, &tag())]), Outcome::Failed);
    }

    #[test]
    fn if_range_is_strong_and_exact() {
        let same = http_date(Timestamp::from_unix(NOW));
        let later = http_date(Timestamp::from_unix(NOW + 1));
        assert_eq!(outcome(&[(header::IF_RANGE, &tag())]), Outcome::Proceed);
        assert_eq!(outcome(&[(header::IF_RANGE, &same)]), Outcome::Proceed);
        for stale in [&format!("W/{}", tag()), &later, "\"x\"", "", "*"] {
            assert_eq!(outcome(&[(header::IF_RANGE, stale)]), Outcome::ProceedWhole, "{stale}");
        }
        assert_eq!(outcome(&[(header::IF_RANGE, &tag()), (header::IF_RANGE, &tag())]), Outcome::ProceedWhole);
    }

    #[test]
    fn monstrous_dates_are_ignored() {
        for bad in ["(".repeat(60_000).as_str(), "yesterday", "0", "", "Sun, 99 Nov 2026 11:00:00 GMT"] {
            assert_eq!(outcome(&[(header::IF_MODIFIED_SINCE, bad)]), Outcome::Proceed);
            assert_eq!(outcome(&[(header::IF_UNMODIFIED_SINCE, bad)]), Outcome::Proceed);
        }
        let twice = http_date(Timestamp::from_unix(NOW));
        assert_eq!(
            outcome(&[(header::IF_MODIFIED_SINCE, &twice), (header::IF_MODIFIED_SINCE, &twice)]),
            Outcome::Proceed
        );
    }
}
