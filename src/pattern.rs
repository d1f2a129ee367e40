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
    /// Bytes of the literal prefix.
    literal: usize,
    tail: Tail,
}

/// What follows the literal prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing.
    End,
    /// One `*`.
    Star,
    /// One `**`.
    Deep,
    /// Anything else.
    Tokens,
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
        let literals = tokens.iter().take_while(|token| matches!(token, Token::Literal(_))).count();
        let literal = text.chars().take(literals).map(char::len_utf8).sum();
        let tail = match tokens[literals..] {
            [] => Tail::End,
            [Token::Star] => Tail::Star,
            [Token::Deep] => Tail::Deep,
            _ => Tail::Tokens,
        };
        Ok(Pattern { text: text.into(), tokens, literal, tail })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The characters every match begins with.
    pub fn literal_prefix(&self) -> &str {
        &self.text[..self.literal]
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_joined(&[name])
    }

    /// Whether the name that `parts` make when joined matches, without joining them. Allocates
    /// nothing for patterns of a usual length.
    pub fn matches_joined(&self, parts: &[&str]) -> bool {
        let mut wanted = &self.text.as_bytes()[..self.literal];
        for part in parts {
            let common = wanted.len().min(part.len());
            if part.as_bytes()[..common] != wanted[..common] {
                return false;
            }
            wanted = &wanted[common..];
        }
        if !wanted.is_empty() {
            return false;
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        match self.tail {
            Tail::End => length == self.literal,
            Tail::Deep => true,
            Tail::Star => {
                let rest = parts.iter().flat_map(|part| part.bytes()).skip(self.literal);
                rest.into_iter().all(|byte| byte != b'/')
            }
            Tail::Tokens => self.run(parts),
        }
    }

    fn run(&self, parts: &[&str]) -> bool {
        const FEW: usize = 96;
        let states = self.tokens.len() + 1;
        if states <= FEW {
            let (mut now, mut next) = ([false; FEW], [false; FEW]);
            self.step_through(parts, &mut now[..states], &mut next[..states])
        } else {
            self.step_through(parts, &mut vec![false; states], &mut vec![false; states])
        }
    }

    fn step_through<'a>(&self, parts: &[&str], mut states: &'a mut [bool], mut next: &'a mut [bool]) -> bool {
        // The set of tokens that may come next, for every prefix of the name in turn.
        let end = self.tokens.len();
        self.reach(states, 0);
        for found in parts.iter().flat_map(|part| part.chars()) {
            next.fill(false);
            let mut alive = false;
            for at in 0..end {
                if !states[at] {
                    continue;
                }
                match self.tokens[at] {
                    Token::Literal(wanted) if wanted == found => self.reach(next, at + 1),
                    Token::One if found != '/' => self.reach(next, at + 1),
                    Token::Star if found != '/' => self.reach(next, at),
                    Token::Deep => self.reach(next, at),
                    Token::Segments if found != '/' => next[at + 1] = true,
                    Token::InSegments => {
                        next[at] = true;
                        if found == '/' {
                            self.reach(next, at + 1);
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
    fn a_name_in_parts_matches_as_the_whole_does() {
        let long = format!("{}*/b", "a?".repeat(60));
        let names = ["files/shop/app", "files/shop/", "files/", "fil", "a/b", "files/shop2/x/y", "é/ü/x"];
        for pattern in
            ["files/shop/**", "files/*", "files/shop/app", "**/app", "f*s/sh?p/*", "é/**", "**", "*", &long]
        {
            let pattern = Pattern::new(pattern).unwrap();
            for name in names {
                let whole = pattern.matches(name);
                for (first, _) in name.char_indices() {
                    for (second, _) in name.char_indices().filter(|(at, _)| *at >= first) {
                        let parts = [&name[..first], &name[first..second], &name[second..]];
                        assert_eq!(pattern.matches_joined(&parts), whole, "{pattern} {parts:?}");
                    }
                }
            }
        }
        let long = Pattern::new(&long).unwrap();
        assert!(long.matches_joined(&[&"ab".repeat(30), &"ab".repeat(30), "cc", "/b"]));
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
