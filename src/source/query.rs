//! The query language of selections.

use std::fmt;
use std::str::FromStr;

use super::artifact::Artifact;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pattern::Pattern;

/// Longest query, in bytes.
pub const MAX_QUERY: usize = 16 * 1024;
/// Most parentheses and `not`s inside one another.
pub const MAX_DEPTH: usize = 64;

/// A question about an artifact that has yes or no for an answer.
///
/// # Grammar
/// ```text
/// query    = all *( "or" all )
/// all      = one *( "and" one )
/// one      = "not" one | "(" query ")" | test
/// test     = field operator value
/// field    = "repo" | "path" | "name" | "label" | "digest" | "sha256" | "size" | "added"
///          | "media" | "prop." key
/// operator = "=" | "!=" | "~" | "!~" | "<" | "<=" | ">" | ">="
/// value    = word | '"' *( any character | '\"' | '\\' ) '"'
/// word     = 1*( any character but space, quotes, parentheses and operators )
/// ```
/// `and` binds tighter than `or`; the words `and`, `or`, `not` are lower-case.
///
/// - `~` matches a [`Pattern`]: `path~"app/1.0/**"`, `name~*.deb`.
/// - `repo`, `path`, `name` (the last segment of the path), `media` and `prop.<key>` are texts.
///   An artifact without the property or media type answers no to `=` and `~`.
/// - `label=x` asks whether the artifact has the label, `label~RC*` whether it has such a one.
/// - `digest` takes `sha256:<hex>`, `sha256` the hex alone; only `=` and `!=`.
/// - `size` (bytes; `KiB`, `MiB`, `GiB` may follow the number) and `added`
///   (`2026-11-22T05:00:00Z`) take `=`, `!=` and the four comparisons.
/// - `!=` and `!~` are the opposites of `=` and `~`.
///
/// ```
/// use distedge::source::Query;
///
/// let query: Query = r#"repo=generic-local and label=RC1-Approved and path~"app/1.0/**"
///                       and (prop.os=linux or prop.os=macos) and not size>1GiB"#.parse()?;
/// let error = "repo=a and".parse::<Query>().unwrap_err();
/// assert!(error.to_string().contains("at character 11"));
/// # Ok::<(), distedge::error::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Query {
    text: Box<str>,
    /// The question in postfix order, so that neither asking nor dropping it recurses.
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Test(Test),
    Not,
    And,
    Or,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Text(TextField, TextTest),
    Label(TextTest),
    Digest(Digest),
    Size(Comparison, u64),
    Added(Comparison, Timestamp),
}

#[derive(Clone, Debug, PartialEq)]
enum TextField {
    Repository,
    Path,
    Name,
    Media,
    Property(String),
}

#[derive(Clone, Debug, PartialEq)]
enum TextTest {
    Is(String),
    Like(Pattern),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid), with the character position at
    /// which reading stopped and what was expected there.
    pub fn new(text: &str) -> Result<Query> {
        if text.len() > MAX_QUERY {
            return Err(Error::invalid(format!(
                "the query has {} bytes, at most {MAX_QUERY} are allowed",
                text.len()
            )));
        }
        let mut parser = Parser { text, at: 0, steps: Vec::new() };
        parser.query(0)?;
        match parser.next()? {
            (_, Token::End) => Ok(Query { text: text.into(), steps: parser.steps }),
            (at, token) => {
                Err(parser.error(at, &format!("{token} is not expected there; join tests with and, or")))
            }
        }
    }

    /// The query as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The answer for `artifact`.
    pub fn matches(&self, artifact: &Artifact) -> bool {
        let mut answers = Vec::with_capacity(8);
        for step in &self.steps {
            let answer = match step {
                Step::Test(test) => test.holds(artifact),
                Step::Not => !answers.pop().unwrap_or(false),
                Step::And | Step::Or => {
                    let right = answers.pop().unwrap_or(false);
                    let left = answers.pop().unwrap_or(false);
                    if *step == Step::And { left && right } else { left || right }
                }
            };
            answers.push(answer);
        }
        answers.pop().unwrap_or(false)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(text: &str) -> Result<Query> {
        Query::new(text)
    }
}

impl Test {
    fn holds(&self, artifact: &Artifact) -> bool {
        match self {
            Test::Text(field, test) => {
                let found = match field {
                    TextField::Repository => Some(artifact.repository.as_str()),
                    TextField::Path => Some(artifact.path.as_str()),
                    TextField::Name => Some(artifact.path.file_name()),
                    TextField::Media => artifact.media_type.as_deref(),
                    TextField::Property(key) => artifact.properties.get(key).map(String::as_str),
                };
                found.is_some_and(|found| test.holds(found))
            }
            Test::Label(test) => artifact.labels.iter().any(|label| test.holds(label)),
            Test::Digest(digest) => artifact.digest == *digest,
            Test::Size(comparison, size) => comparison.holds(&artifact.size, size),
            Test::Added(comparison, added) => comparison.holds(&artifact.added, added),
        }
    }
}

impl TextTest {
    fn holds(&self, found: &str) -> bool {
        match self {
            TextTest::Is(wanted) => found == wanted,
            TextTest::Like(pattern) => pattern.matches(found),
        }
    }
}

impl Comparison {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    Operator(&'static str),
    Word(String),
    Quoted(String),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Open => f.write_str("\"(\""),
            Token::Close => f.write_str("\")\""),
            Token::Operator(operator) => write!(f, "{operator:?}"),
            Token::Word(word) | Token::Quoted(word) => {
                let shown: String = word.chars().take(60).collect();
                write!(f, "{shown:?}")
            }
            Token::End => f.write_str("the end of the query"),
        }
    }
}

/// Longest first, so that `>=` is not read as `>`.
const OPERATORS: &[&str] = &["!=", "!~", "<=", ">=", "=", "~", "<", ">"];
const FIELDS: &str = "repo, path, name, label, digest, sha256, size, added, media, prop.<key>";

/// A recursive-descent parser; every recursion goes through `one`, which counts its depth.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn query(&mut self, depth: usize) -> Result<()> {
        self.all(depth)?;
        while self.take_word("or")? {
            self.all(depth)?;
            self.steps.push(Step::Or);
        }
        Ok(())
    }

    fn all(&mut self, depth: usize) -> Result<()> {
        self.one(depth)?;
        while self.take_word("and")? {
            self.one(depth)?;
            self.steps.push(Step::And);
        }
        Ok(())
    }

    fn one(&mut self, depth: usize) -> Result<()> {
        let (at, token) = self.next()?;
        if depth >= MAX_DEPTH {
            return Err(self.error(at, &format!("more than {MAX_DEPTH} levels of parentheses and not")));
        }
        match token {
            Token::Word(word) if word == "not" => {
                self.one(depth + 1)?;
                self.steps.push(Step::Not);
                Ok(())
            }
            Token::Open => {
                self.query(depth + 1)?;
                match self.next()? {
                    (_, Token::Close) => Ok(()),
                    (at, token) => Err(self.error(at, &format!("expected \")\", found {token}"))),
                }
            }
            Token::Word(word) => self.test(at, &word),
            token => Err(self.error(at, &format!("expected a test like label=RC1, found {token}"))),
        }
    }

    fn test(&mut self, field_at: usize, field: &str) -> Result<()> {
        let (operator_at, operator) = match self.next()? {
            (at, Token::Operator(operator)) => (at, operator),
            (at, token) => {
                return Err(self.error(at, &format!("expected an operator after {field:?}, found {token}")));
            }
        };
        let (value_at, value) = match self.next()? {
            (at, Token::Word(value) | Token::Quoted(value)) => (at, value),
            (at, token) => return Err(self.error(at, &format!("expected a value, found {token}"))),
        };
        let (negated, positive) = match operator {
            "!=" => (true, "="),
            "!~" => (true, "~"),
            other => (false, other),
        };
        let text_test = |parser: &Self| match positive {
            "=" => Ok(TextTest::Is(value.clone())),
            "~" => Pattern::new(&value)
                .map(TextTest::Like)
                .map_err(|error| parser.error(value_at, error.message())),
            _ => Err(parser.error(operator_at, &format!("{field} takes =, !=, ~ and !~, not {operator}"))),
        };
        let comparison =
            |parser: &Self| match positive {
                "=" => Ok(Comparison::Equal),
                "<" => Ok(Comparison::Less),
                "<=" => Ok(Comparison::LessOrEqual),
                ">" => Ok(Comparison::Greater),
                ">=" => Ok(Comparison::GreaterOrEqual),
                _ => Err(parser
                    .error(operator_at, &format!("{field} takes =, !=, <, <=, > and >=, not {operator}"))),
            };
        let test = match field {
            "repo" => Test::Text(TextField::Repository, text_test(self)?),
            "path" => Test::Text(TextField::Path, text_test(self)?),
            "name" => Test::Text(TextField::Name, text_test(self)?),
            "media" => Test::Text(TextField::Media, text_test(self)?),
            "label" => Test::Label(text_test(self)?),
            "digest" | "sha256" if positive == "=" => {
                let digest = if field == "digest" { value.parse() } else { Digest::from_hex(&value) };
                Test::Digest(digest.map_err(|error: Error| self.error(value_at, error.message()))?)
            }
            "digest" | "sha256" => {
                return Err(self.error(operator_at, &format!("{field} takes = and !=, not {operator}")));
            }
            "size" => {
                let comparison = comparison(self)?;
                let size = size(&value).ok_or_else(|| {
                    self.error(value_at, "expected a number of bytes, like 1000000 or 64MiB")
                })?;
                Test::Size(comparison, size)
            }
            "added" => {
                let comparison = comparison(self)?;
                let moment = value.parse().map_err(|error: Error| self.error(value_at, error.message()))?;
                Test::Added(comparison, moment)
            }
            _ => match field.strip_prefix("prop.") {
                Some(key) if !key.is_empty() => {
                    Test::Text(TextField::Property(key.to_owned()), text_test(self)?)
                }
                _ => {
                    let shown: String = field.chars().take(60).collect();
                    return Err(
                        self.error(field_at, &format!("{shown:?} is not a field; the fields are {FIELDS}"))
                    );
                }
            },
        };
        self.steps.push(Step::Test(test));
        if negated {
            self.steps.push(Step::Not);
        }
        Ok(())
    }

    /// Takes the next token if it is the bare word `wanted`.
    fn take_word(&mut self, wanted: &str) -> Result<bool> {
        let before = self.at;
        if let (_, Token::Word(word)) = self.next()?
            && word == wanted
        {
            return Ok(true);
        }
        self.at = before;
        Ok(false)
    }

    /// The next token and where it starts.
    fn next(&mut self) -> Result<(usize, Token)> {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            self.at = start;
            return Ok((start, Token::End));
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' => self.quoted(start, rest)?,
            _ => match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
                Some(operator) => (Token::Operator(operator), operator.len()),
                None => {
                    let end = rest
                        .find(|c: char| c.is_whitespace() || "()\"=~<>!".contains(c))
                        .unwrap_or(rest.len());
                    if end == 0 {
                        return Err(self.error(start, "\"!\" stands only in != and !~; negate with not"));
                    }
                    (Token::Word(rest[..end].to_owned()), end)
                }
            },
        };
        self.at = start + length;
        Ok((start, token))
    }

    fn quoted(&self, start: usize, rest: &str) -> Result<(Token, usize)> {
        let mut value = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, found)) = chars.next() {
            match found {
                '"' => return Ok((Token::Quoted(value), at + 1)),
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(self.error(start + at, "a \\ in quotes stands only before \" or \\")),
                },
                other => value.push(other),
            }
        }
        Err(self.error(start, "the quote that opens here is not closed"))
    }

    #[cold]
    fn error(&self, at: usize, why: &str) -> Error {
        let character = self.text[..at].chars().count() + 1;
        Error::invalid(format!("the query cannot be read at character {character}: {why}"))
    }
}

/// A number of bytes with an optional binary unit.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Checksums;

    fn artifact() -> Artifact {
        Artifact {
            repository: "generic-local".parse().unwrap(),
            path: "app/1.0/app.tar.gz".parse().unwrap(),
            digest: Digest::of(b"x"),
            size: 2048,
            checksums: Checksums::default(),
            media_type: None,
            labels: ["RC1-Approved".to_owned(), "tested".to_owned()].into(),
            properties: [("os".to_owned(), "linux".to_owned()), ("note".to_owned(), "a \"b\" \\".to_owned())]
                .into(),
            added: "2026-11-22T05:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn every_operator_and_precedence() {
        for (query, expected) in [
            ("repo=generic-local", true),
            ("repo = generic-local", true),
            ("repo!=generic-local", false),
            ("label=RC1-Approved and path~\"app/1.0/**\" and prop.os=linux and not size>1000000", true),
            ("label~RC*", true),
            ("label!=tested", false),
            ("label=nope or label=tested and size=2KiB", true),
            ("(label=nope or label=tested) and size<2KiB", false),
            ("not (label=nope or size>=3KiB)", true),
            ("not not label=tested", true),
            ("name=app.tar.gz", true),
            ("name!~*.deb", true),
            ("prop.arch=amd64", false),
            ("prop.arch!=amd64", true),
            ("media=a/b", false),
            ("added>2026-01-01T00:00:00Z and added<=2026-11-22T05:00:00Z", true),
            ("prop.note=\"a \\\"b\\\" \\\\\"", true),
            ("size<=2048", true),
            ("sha256=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", true),
            ("digest=sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", true),
        ] {
            assert_eq!(Query::new(query).unwrap().matches(&artifact()), expected, "{query}");
        }
    }

    #[test]
    fn a_bad_query_is_told_where_it_breaks() {
        for (query, position, words) in [
            ("", 1, "the end of the query"),
            ("repo=a and", 11, "the end of the query"),
            ("repo=a label=b", 8, "join tests"),
            ("répo=a", 1, "is not a field"),
            ("repo>a", 5, "takes =, !=, ~ and !~"),
            ("size~5", 5, "not ~"),
            ("size>many", 6, "number of bytes"),
            ("size>99999999999999999999", 6, "number of bytes"),
            ("size>18014398509481984KiB", 6, "number of bytes"),
            ("(repo=a", 8, "expected \")\""),
            ("repo=a)", 7, "is not expected"),
            ("repo=\"a", 6, "not closed"),
            ("repo=\"a\\n\"", 8, "stands only before"),
            ("repo=(a)", 6, "expected a value"),
            ("repo a", 6, "expected an operator"),
            ("! repo=a", 1, "negate with not"),
            ("prop.=a", 1, "is not a field"),
            ("digest=abc", 8, "is not a digest"),
            ("digest~abc", 7, "takes = and !="),
            ("added>yesterday", 7, "is not a time"),
            ("and", 4, "expected an operator"),
        ] {
            let error = Query::new(query).unwrap_err().to_string();
            assert!(error.contains(&format!("at character {position}:")), "{query}: {error}");
            assert!(error.contains(words), "{query}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_length_is_not_recursion() {
        let deep = |levels: usize| format!("{}repo=a{}", "(".repeat(levels), ")".repeat(levels));
        assert!(Query::new(&deep(MAX_DEPTH - 1)).is_ok());
        assert!(Query::new(&deep(MAX_DEPTH)).unwrap_err().to_string().contains("levels"));
        assert!(Query::new(&"(".repeat(MAX_QUERY)).is_err());
        assert!(Query::new(&format!("{}repo=a", "not ".repeat(4000))).is_err());
        assert!(Query::new(&"a".repeat(MAX_QUERY + 1)).unwrap_err().to_string().contains("at most"));
        let long = vec!["size>1"; 1400].join(" and ");
        assert!(Query::new(&long).unwrap().matches(&artifact()));
    }
}
