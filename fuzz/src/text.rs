//! Oracles of the small languages: request targets, `Range` fields, queries, patterns.

use std::collections::HashMap;
use std::sync::OnceLock;

use distedge::digest::{Checksums, Digest};
use distedge::name::{ArtifactPath, Target};
use distedge::range::{MAX_FIELD, MAX_PARTS, MAX_SPECIFIERS, Ranges};
use distedge::source::{Artifact, Pattern, Query};

/// The path of a request target: what is accepted has one spelling and cannot climb.
pub fn target(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(target) = Target::parse(text) else { return false };
    for segment in target.segments() {
        assert!(!segment.is_empty() && segment != "." && segment != "..", "{text:?}: {segment:?}");
        assert!(segment.len() <= 255, "{text:?}: {segment:?}");
        let unsafe_char = |c: char| c < ' ' || c == '\x7f' || matches!(c, '/' | '\\' | '%');
        assert!(!segment.contains(unsafe_char), "{text:?}: {segment:?}");
    }
    assert!(target.segments().len() <= text.matches('/').count(), "{text:?} has too many segments");
    assert_eq!(target.has_trailing_slash(), text.ends_with('/'), "{text:?}");
    let canonical = target.to_path();
    // The canonical spelling may be longer than what a request may have.
    if canonical.len() <= text.len() || canonical.len() <= 2048 {
        let again =
            Target::parse(&canonical).unwrap_or_else(|error| panic!("{text:?} as {canonical:?}: {error}"));
        assert_eq!(again, target, "{text:?} as {canonical:?}");
        assert_eq!(again.to_path(), canonical);
    }
    if let Ok(path) = ArtifactPath::new(&target.segments().join("/")) {
        assert!(path.segments().eq(target.segments().iter().map(String::as_str)), "{text:?} as {path}");
    }
    true
}

/// A size in two bytes, little-endian, and a `Range` field for it.
pub fn range(data: &[u8]) -> bool {
    let [low, high, field @ ..] = data else { return false };
    let Ok(field) = std::str::from_utf8(field) else { return false };
    let small = u16::from_le_bytes([*low, *high]);
    let size = if small < 0x1000 { u64::from(small) } else { u64::MAX - u64::from(small & 0xff) };
    let ranges = Ranges::parse(field, size);
    if let Ranges::Satisfiable(parts) = &ranges {
        assert!(!parts.is_empty() && parts.len() <= MAX_PARTS, "{field:?} of {size}: {parts:?}");
        let sum = parts.iter().map(|part| u128::from(part.len())).sum::<u128>();
        assert!(sum <= u128::from(size), "{field:?} of {size}: {parts:?}");
        assert!(parts.iter().all(|part| part.start() < part.end() && part.end() <= size));
        assert!(
            parts.windows(2).all(|pair| pair[0].end() < pair[1].start()),
            "{field:?} of {size}: {parts:?}"
        );
    }
    if small < 0x1000 {
        let found = match &ranges {
            Ranges::Ignore => None,
            Ranges::Unsatisfiable => Some(Vec::new()),
            Ranges::Satisfiable(parts) => Some(parts.iter().map(|part| (part.start(), part.end())).collect()),
        };
        assert_eq!(found, wanted(field, size), "{field:?} of {size}");
    }
    matches!(ranges, Ranges::Satisfiable(_))
}

/// The runs of bytes that a `Range` field asks for, found byte by byte; `None` if it is ignored.
fn wanted(field: &str, size: u64) -> Option<Vec<(u64, u64)>> {
    if size == 0 || field.len() > MAX_FIELD || field.len() < 6 || !field.is_char_boundary(6) {
        return None;
    }
    if !field[..6].eq_ignore_ascii_case("bytes=") {
        return None;
    }
    let mut marked = vec![false; usize::try_from(size).unwrap()];
    let mut specifiers = 0;
    for element in field[6..].split(',').map(|element| element.trim_matches(&[' ', '\t'][..])) {
        if element.is_empty() {
            continue;
        }
        specifiers += 1;
        let dash = element.find('-')?;
        let (first, last) = (&element[..dash], &element[dash + 1..]);
        if !first.bytes().chain(last.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Any number above what 18 digits hold lies behind the end of these small sizes.
        let value = |digits: &str| {
            let digits = digits.trim_start_matches('0');
            if digits.len() > 18 { u64::MAX } else { digits.parse().unwrap_or(0) }
        };
        for (at, mark) in (0..).zip(marked.iter_mut()) {
            *mark |= match (first, last) {
                ("", "") => return None,
                ("", last) => at >= size.saturating_sub(value(last)),
                (first, "") => at >= value(first),
                (first, last) => at >= value(first) && at <= value(last),
            };
        }
        if !first.is_empty() && !last.is_empty() {
            let (first, last) = (first.trim_start_matches('0'), last.trim_start_matches('0'));
            // Numbers of any length compare by their lengths and then as texts. Beyond 64 bits
            // all are one number, "behind the end".
            let beyond =
                |digits: &str| digits.len() > 20 || digits.len() == 20 && digits > "18446744073709551615";
            if !(beyond(first) && beyond(last)) && (first.len(), first) > (last.len(), last) {
                return None;
            }
        }
    }
    if specifiers == 0 || specifiers > MAX_SPECIFIERS {
        return None;
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (at, _) in (0..).zip(&marked).filter(|(_, marked)| **marked) {
        match runs.last_mut() {
            Some(last) if last.1 == at => last.1 = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    (runs.len() <= MAX_PARTS).then_some(runs)
}

/// A query of the source: the laws of `not`, `and` and `or` hold for what is accepted.
pub fn query(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let query = match Query::new(text) {
        Ok(query) => query,
        Err(error) => {
            assert!(!error.message().is_empty());
            return false;
        }
    };
    assert_eq!(query.as_str(), text);
    let derived = |text: String| Query::new(&text).ok();
    let negated = derived(format!("not ({text})"));
    let doubled = derived(format!("({text}) and ({text})"));
    let always = derived(format!("({text}) or not ({text})"));
    let never = derived(format!("({text}) and not ({text})"));
    // Only a query that is nearly too long or too deep may not be wrapped.
    let roomy = text.len() < 4096 && text.matches('(').count() + text.matches("not").count() < 60;
    assert!(!roomy || always.is_some(), "{text:?} cannot be wrapped");
    for artifact in artifacts() {
        let answer = query.matches(artifact);
        let law = |derived: &Option<Query>, expected: bool| {
            assert!(derived.as_ref().is_none_or(|query| query.matches(artifact) == expected), "{text:?}");
        };
        law(&negated, !answer);
        law(&doubled, answer);
        law(&always, true);
        law(&never, false);
    }
    true
}

fn artifacts() -> &'static [Artifact] {
    static ARTIFACTS: OnceLock<Vec<Artifact>> = OnceLock::new();
    ARTIFACTS.get_or_init(|| {
        let artifact = |repository: &str, path: &str, size, media: Option<&str>, labels: &[&str]| Artifact {
            repository: repository.parse().unwrap(),
            path: path.parse().unwrap(),
            digest: Digest::of(path.as_bytes()),
            size,
            checksums: Checksums::default(),
            media_type: media.map(str::to_owned),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            properties: [("os".to_owned(), "linux".to_owned())].into(),
            added: "2026-11-22T05:00:00Z".parse().unwrap(),
        };
        vec![
            artifact(
                "generic-local",
                "app/1.0/app.tar.gz",
                1 << 20,
                Some("application/gzip"),
                &["RC1-Approved"],
            ),
            artifact("deb", "pool/a.deb", 0, None, &[]),
            artifact("deb", "pool/straße/É", u64::MAX, None, &["a", "b"]),
        ]
    })
}

/// A pattern, a line end, and a name: the answer is that of a naive matcher.
pub fn pattern(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Some((written, name)) = text.split_once('\n') else { return false };
    let Ok(pattern) = Pattern::new(written) else { return false };
    assert_eq!(pattern.as_str(), written);
    let answer = pattern.matches(name);
    if answer {
        assert!(name.starts_with(pattern.literal_prefix()), "{written:?} matches {name:?}");
    }
    assert!(Pattern::new("**").is_ok_and(|all| all.matches(name)), "{name:?}");
    // Names are those of artifacts: no segment of theirs is empty.
    let is_name = !name.split('/').any(str::is_empty);
    if is_name && written.len() <= 32 && name.len() <= 32 {
        assert_eq!(answer, matches_naively(written, name), "{written:?} against {name:?}");
    }
    answer
}

/// Whether a pattern matches a name, by the rules of [`Pattern`] tried one after the other.
pub(super) fn matches_naively(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    matches(&pattern, &name, true, &mut HashMap::new())
}

/// The rules of [`Pattern`], tried one after the other.
fn matches(
    pattern: &[char],
    name: &[char],
    starts_segment: bool,
    known: &mut HashMap<(usize, usize, bool), bool>,
) -> bool {
    let key = (pattern.len(), name.len(), starts_segment);
    if let Some(answer) = known.get(&key) {
        return *answer;
    }
    let mut tails = |rest: &[char], starts: bool, stop: fn(char) -> bool| {
        let end = name.iter().position(|c| stop(*c)).unwrap_or(name.len());
        (0..=end).any(|at| matches(rest, &name[at..], starts, known))
    };
    let answer = match pattern {
        [] => name.is_empty(),
        ['*', '*', '/', rest @ ..] if starts_segment => {
            let after_slashes = name.iter().enumerate().filter(|(_, c)| **c == '/').map(|(at, _)| at + 1);
            std::iter::once(0).chain(after_slashes).any(|at| matches(rest, &name[at..], true, known))
        }
        ['*', '*', rest @ ..] => tails(rest, false, |_| false),
        ['*', rest @ ..] => tails(rest, false, |c| c == '/'),
        ['?', rest @ ..] => {
            name.first().is_some_and(|c| *c != '/') && matches(rest, &name[1..], false, known)
        }
        [literal, rest @ ..] => {
            name.first() == Some(literal) && matches(rest, &name[1..], *literal == '/', known)
        }
    };
    known.insert(key, answer);
    answer
}
