//! Strict JSON: one text, one reading.
//!
//! JSON readers disagree about duplicate members, large numbers, byte order marks and broken
//! surrogates, and such a disagreement between the one who checks and the one who acts is how a
//! signed document comes to mean two things. [`scan`] refuses what has more than one reading;
//! `serde_json` then only has to build values.

use serde::Deserialize;

use crate::bundle::limits;
use crate::error::{Error, ErrorKind, Result};

/// Which numbers are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Integers from 0 to 2^53 - 1, as in every document of ours.
    Integers,
    /// Whatever RFC 8259 allows, as in documents of others.
    Any,
}

/// Scans `bytes`, then builds a `T`. `what` leads the sentence of an error.
pub(crate) fn parse<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8]) -> Result<T> {
    let text = scan(bytes, Numbers::Integers).map_err(|error| error.context(what))?;
    build(what, text)
}

/// Builds a `T` from a text that was scanned.
pub(crate) fn build<'de, T: Deserialize<'de>>(what: &str, text: &'de str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| Error::invalid(format!("{what}: {cause}")))
}

/// Checks that `bytes` are one JSON text in UTF-8 without a byte order mark, without duplicate
/// members at any level, at most 32 levels deep, with numbers as `numbers` says, and with
/// nothing after it.
pub(crate) fn scan(bytes: &[u8], numbers: Numbers) -> Result<&str> {
    let text =
        std::str::from_utf8(bytes).map_err(|cause| bad(cause.valid_up_to(), "the bytes are not UTF-8"))?;
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0, keys: Vec::new(), numbers };
    scanner.value(0)?;
    scanner.blank();
    if scanner.at < bytes.len() {
        return Err(scanner.bad("there are bytes after the JSON text"));
    }
    Ok(text)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// The names of the members seen so far in every object that is open, innermost last.
    keys: Vec<Key<'a>>,
    numbers: Numbers,
}

/// A member's name: the text between the quotes, or its decoded form if it has escapes.
type Key<'a> = std::borrow::Cow<'a, str>;

impl<'a> Scanner<'a> {
    fn value(&mut self, depth: usize) -> Result<()> {
        self.blank();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(self.bad("a JSON value was expected")),
            None => Err(self.bad("the JSON text ends too early")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<()> {
        self.deeper(depth)?;
        let first = self.keys.len();
        self.at += 1;
        self.blank();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(self.bad("a member's name was expected"));
            }
            let key = self.key()?;
            let seen = &self.keys[first..];
            if seen.contains(&key) {
                return Err(self.bad(&format!("the member {:?} is given twice", shown(&key))));
            }
            if seen.len() >= limits::MEMBERS {
                return Err(self.bad("an object has too many members"));
            }
            self.keys.push(key);
            self.blank();
            self.expect(b':')?;
            self.value(depth + 1)?;
            self.blank();
            if self.take(b'}') {
                self.keys.truncate(first);
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<()> {
        self.deeper(depth)?;
        self.at += 1;
        self.blank();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.blank();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn deeper(&self, depth: usize) -> Result<()> {
        if depth < limits::DEPTH {
            return Ok(());
        }
        Err(self.bad(&format!("the JSON text nests more than {} levels", limits::DEPTH)))
    }

    fn key(&mut self) -> Result<Key<'a>> {
        let start = self.at;
        let escaped = self.string()?;
        let raw = &self.text[start..self.at];
        if !escaped {
            return Ok(Key::Borrowed(&raw[1..raw.len() - 1]));
        }
        // "\u0061" and "a" are one name.
        serde_json::from_str(raw).map(Key::Owned).map_err(|_| bad(start, "a member's name is broken"))
    }

    /// Passes a string; tells whether it has escapes.
    fn string(&mut self) -> Result<bool> {
        let mut escaped = false;
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(stop) = rest.iter().position(|byte| STOP[usize::from(*byte)]) else {
                self.at = self.bytes.len();
                return Err(self.bad("a string does not end"));
            };
            self.at += stop;
            match rest[stop] {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.bad("a string has a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        self.at += 1;
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.hex4()? {
                // RFC 8259 section 8.2: a lone surrogate is read in more than one way.
                0xd800..=0xdbff => {
                    let low = self.next() == Some(b'\\') && self.next() == Some(b'u');
                    match low.then(|| self.hex4()).transpose()? {
                        Some(0xdc00..=0xdfff) => Ok(()),
                        _ => Err(self.bad("a string has half a surrogate pair")),
                    }
                }
                0xdc00..=0xdfff => Err(self.bad("a string has half a surrogate pair")),
                _ => Ok(()),
            },
            _ => Err(self.bad("a string has an unknown escape")),
        }
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(|| self.bad("an escape is not hex"))?;
            value = value << 4 | digit;
        }
        if digits.len() < 4 {
            return Err(self.bad("a string does not end"));
        }
        self.at += 4;
        Ok(value)
    }

    fn number(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.peek() {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if self.numbers == Numbers::Any {
            let sound = serde_json::from_str::<serde_json::Number>(text).is_ok();
            return if sound { Ok(()) } else { Err(bad(start, "a number is broken")) };
        }
        let whole = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if !whole {
            return Err(bad(start, &format!("{:?} is not a whole number from 0 to 2^53 - 1", shown(text))));
        }
        match text.parse::<u64>() {
            Ok(value) if value <= limits::INTEGER => Ok(()),
            _ => Err(bad(start, &format!("{} is more than 2^53 - 1", shown(text)))),
        }
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.bad("a JSON value was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) {
            return Ok(());
        }
        match self.peek() {
            None => Err(self.bad("the JSON text ends too early")),
            Some(_) => Err(self.bad(&format!("{:?} was expected", char::from(byte)))),
        }
    }

    #[cold]
    fn bad(&self, what: &str) -> Error {
        bad(self.at, what)
    }
}

/// Bytes at which the passing of a string stops.
const STOP: [bool; 256] = {
    let mut stop = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        stop[byte] = true;
        byte += 1;
    }
    stop[b'"' as usize] = true;
    stop[b'\\' as usize] = true;
    stop
};

#[cold]
fn bad(at: usize, what: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} (byte {at})"))
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Reads an optional member that, when given, is not `null`.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
