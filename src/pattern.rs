//! Patterns over slash-separated names: `*`, `**`, `?`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 2048;

/// A pattern over slash-separated names.
///
/// - `?` stands for one character that is not `/`;
/// - `*` stands for any number of characters that are not `/`;
/// - `**` stands for any number of characters, `/` included; `**/` at the start of a segment
///   stands for any number of whole segments, none included;
/// - everything else stands for itself. There is no escape; a `*` in a name is matched by `?`.
///
/// Matching takes time in proportion to the length of the pattern times the length of the name,
/// whatever the pattern.
///
/// ```
/// use distedge::pattern::Pattern;
///
/// let pattern: Pattern = "generic-local/app/**/*.tar.gz".parse()?;
/// assert!(pattern.matches("generic-local/app/1.0/linux/app.tar.gz"));
/// assert!(pattern.matches("generic-local/app/app.tar.gz"));
/// assert!(!pattern.matches("generic-local/other/app.tar.gz"));
/// # Ok::<(), distedge::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// One character but `/`.
    One,
    /// Any characters but `/`.
    Star,
    /// Any characters.
    Deep,
    /// The start of `**/`: nothing, or the first character of a segment to be skipped.
    Segments,
    /// Inside the segments that `**/` skips; always follows `Segments`.
    InSegments,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if it is empty, longer than
    /// [`MAX_PATTERN`] or has control characters.
    pub fn new(text: &str) -> Result<Pattern> {
        if text.is_empty() {
            return Err(Error::invalid("a pattern is empty; \"**\" matches everything"));
        }
        if text.len() > MAX_PATTERN {
            return Err(Error::invalid(format!(
                "a pattern has {} bytes, at most {MAX_PATTERN} are allowed",
                text.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::invalid("a pattern has a control character"));
        }
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = text;
        let mut at_segment_start = true;
        while let Some(first) = rest.chars().next() {
            let (token, length) = match first {
                '*' if at_segment_start && rest.starts_with("**/") => {
                    // A run of `**/` means what one of them means.
                    if tokens.last() != Some(&Token::InSegments) {
                        tokens.extend([Token::Segments, Token::InSegments]);
                    }
                    rest = &rest[3..];
                    continue;
                }
                '*' if rest.starts_with("**") => (Token::Deep, 2),
                '*' => (Token::Star, 1),
                '?' => (Token::One, 1),
                literal => (Token::Literal(literal), literal.len_utf8()),
            };
            if !(matches!(token, Token::Star | Token::Deep) && tokens.last() == Some(&token)) {
                tokens.push(token);
            }
            at_segment_start = first == '/';
            rest = &rest[length..];
        }
        Ok(Pattern { text: text.into(), tokens })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The characters every match begins with.
    pub fn literal_prefix(&self) -> String {
        self.tokens
            .iter()
            .map_while(|token| match token {
                Token::Literal(literal) => Some(*literal),
                _ => None,
            })
            .collect()
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        // The set of tokens that may come next, for every prefix of the name in turn.
        let end = self.tokens.len();
        let mut states = vec![false; end + 1];
        let mut next = vec![false; end + 1];
        self.reach(&mut states, 0);
        for found in name.chars() {
            next.fill(false);
            let mut alive = false;
            for at in 0..end {
                if !states[at] {
                    continue;
                }
                match self.tokens[at] {
                    Token::Literal(wanted) if wanted == found => self.reach(&mut next, at + 1),
                    Token::One if found != '/' => self.reach(&mut next, at + 1),
                    Token::Star if found != '/' => self.reach(&mut next, at),
                    Token::Deep => self.reach(&mut next, at),
                    Token::Segments if found != '/' => next[at + 1] = true,
                    Token::InSegments => {
                        next[at] = true;
                        if found == '/' {
                            self.reach(&mut next, at + 1);
                        }
                    }
                    _ => continue,
                }
                alive = true;
            }
            if !alive {
                return false;
            }
            std::mem::swap(&mut states, &mut next);
        }
        states[end]
    }

    /// Marks the token `at` and every token that may follow without a character in between.
    fn reach(&self, states: &mut [bool], mut at: usize) {
        loop {
            if states[at] {
                return;
            }
            states[at] = true;
            at += match self.tokens.get(at) {
                Some(Token::Star | Token::Deep) => 1,
                Some(Token::Segments) => 2,
                _ => return,
            };
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern> {
        Pattern::new(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Pattern::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn each_wildcard_means_what_it_says() {
        for (pattern, name, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**", "ab/c", false),
            ("**", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/bc", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/d/c", true),
            ("a/**/c", "a/bc", false),
            ("a/**/**/c", "a/x/c", true),
            ("a**c", "a/b/c", true),
            ("?", "é", true),
            ("a?c", "a/c", false),
            ("*.tar.*", "x.tar.gz", true),
            ("*.tar.*", "x.tar", false),
            ("***", "a/b", true),
            ("eu-*", "eu-west-1", true),
            ("**/*.rs", "src/a/b.rs", true),
            ("**/*.rs", "b.rs", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_times_the_name() {
        let pattern = Pattern::new(&"*a".repeat(1000)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(1023))));
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Pattern::new("").is_err());
        assert!(Pattern::new("a\0b").is_err());
    }

    #[test]
    fn the_literal_prefix_ends_at_the_first_wildcard() {
        assert_eq!(Pattern::new("repo/app/1.?/x").unwrap().literal_prefix(), "repo/app/1.");
        assert_eq!(Pattern::new("**/x").unwrap().literal_prefix(), "");
    }
}
