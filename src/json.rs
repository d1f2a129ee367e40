//! Strict JSON: one text, one reading.
//!
//! JSON readers disagree about duplicate members, large numbers, byte order marks and broken
//! surrogates, and such a disagreement between the one who checks and the one who acts is how a
//! signed document comes to mean two things. This reader refuses what has more than one reading,
//! also in parts that nobody asked for. It reads straight into values, and texts without escapes
//! borrow from the input.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// Deepest nesting of JSON arrays and objects.
pub(crate) const DEPTH: usize = 32;
/// Most members of one JSON object.
pub(crate) const MEMBERS: usize = 1_024;
/// Largest integer: 2^53 - 1, which every JSON reader holds exactly.
pub(crate) const INTEGER: u64 = (1 << 53) - 1;

/// Up to so many names of one object are compared one by one.
const FEW: usize = 16;

/// Which numbers are allowed in parts that are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Integers from 0 to 2^53 - 1, as in every document of ours.
    Integers,
    /// Whatever RFC 8259 allows, as in documents of others.
    Any,
}

/// Reads a `T` from `bytes`. `what` leads the sentence of an error.
///
/// The bytes must be one JSON text in UTF-8 without a byte order mark, without duplicate members
/// at any level, at most 32 levels deep, with integers from 0 to 2^53 - 1 as the only numbers,
/// and with nothing after it.
pub(crate) fn parse<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8]) -> Result<T> {
    read(what, bytes, Numbers::Integers)
}

/// As [`parse`], with a say about the numbers in members that `T` does not name.
pub(crate) fn read<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8], numbers: Numbers) -> Result<T> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(cause) => return Err(bad(what, cause.valid_up_to(), "the bytes are not UTF-8")),
    };
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, depth: 0, keys: Vec::new(), numbers };
    let read = T::deserialize(&mut reader).and_then(|value| {
        reader.blank();
        if reader.at < bytes.len() { Err(fault("there are bytes after the JSON text")) } else { Ok(value) }
    });
    read.map_err(|fault| bad(what, reader.at, &fault.0))
}

/// Reads an optional member that, when given, is not `null`.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

struct Reader<'de> {
    text: &'de str,
    bytes: &'de [u8],
    at: usize,
    depth: usize,
    /// The names of the members seen so far in every object that is open, innermost last.
    keys: Vec<Cow<'de, str>>,
    numbers: Numbers,
}

/// What is wrong at the place where the reader stands.
#[derive(Debug)]
struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault(message.to_string())
    }
}

#[cold]
fn fault(what: impl Into<String>) -> Fault {
    Fault(what.into())
}

#[cold]
fn bad(what: &str, at: usize, message: &str) -> Error {
    Error::invalid(format!("{what}: {message} (byte {at})"))
}

impl<'de> Reader<'de> {
    /// Passes a value of any kind, as strictly as one that is read.
    fn skip(&mut self) -> Result<(), Fault> {
        match self.start()? {
            b'{' => {
                let mut object = self.object()?;
                while object.next()?.is_some() {
                    object.reader.skip()?;
                }
                Ok(())
            }
            b'[' => {
                let mut array = self.array()?;
                while array.next()? {
                    array.reader.skip()?;
                }
                Ok(())
            }
            b'"' => self.pass_string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ if self.numbers == Numbers::Any => {
                serde_json::from_str::<serde_json::Number>(self.number_text())
                    .map(|_| ())
                    .map_err(|_| fault("a JSON value was expected"))
            }
            _ => self.integer().map(|_| ()),
        }
    }

    /// The first byte of the next value.
    fn start(&mut self) -> Result<u8, Fault> {
        self.blank();
        self.peek().ok_or_else(|| fault("the JSON text ends too early"))
    }

    fn object(&mut self) -> Result<Object<'_, 'de>, Fault> {
        self.enter(b'{', "an object was expected")?;
        let first = self.keys.len();
        Ok(Object { reader: self, first, names: HashSet::new(), begun: false, ended: false })
    }

    fn array(&mut self) -> Result<Array<'_, 'de>, Fault> {
        self.enter(b'[', "an array was expected")?;
        Ok(Array { reader: self, begun: false, ended: false })
    }

    fn enter(&mut self, open: u8, expected: &str) -> Result<(), Fault> {
        if self.start()? != open {
            return Err(fault(expected));
        }
        if self.depth == DEPTH {
            return Err(fault(format!("the JSON text nests more than {} levels", DEPTH)));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'de, str>, Fault> {
        if self.start()? != b'"' {
            return Err(fault("a string was expected"));
        }
        let start = self.at;
        let escaped = self.pass_string()?;
        let raw = &self.text[start..self.at];
        if !escaped {
            return Ok(Cow::Borrowed(&raw[1..raw.len() - 1]));
        }
        serde_json::from_str(raw).map(Cow::Owned).map_err(|_| fault("a string is broken"))
    }

    /// Passes a string; tells whether it has escapes.
    fn pass_string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        self.at += 1;
        loop {
            // Long strings are passed in blocks, which the compiler turns into vector code.
            while let Some(block) = self.bytes[self.at..].first_chunk::<32>() {
                let stops =
                    |stop: bool, byte: &u8| stop | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
                if block.iter().fold(false, stops) {
                    break;
                }
                self.at += block.len();
            }
            let rest = &self.bytes[self.at..];
            let Some(stop) = rest.iter().position(|byte| STOP[usize::from(*byte)]) else {
                return Err(fault("a string does not end"));
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
                _ => return Err(fault("a string has a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.hex4()? {
                // RFC 8259 section 8.2: a lone surrogate is read in more than one way.
                0xd800..=0xdbff => {
                    let low = self.next() == Some(b'\\') && self.next() == Some(b'u');
                    match low.then(|| self.hex4()).transpose()? {
                        Some(0xdc00..=0xdfff) => Ok(()),
                        _ => Err(fault("a string has half a surrogate pair")),
                    }
                }
                0xdc00..=0xdfff => Err(fault("a string has half a surrogate pair")),
                _ => Ok(()),
            },
            _ => Err(fault("a string has an unknown escape")),
        }
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            value = value << 4 | digit.ok_or_else(|| fault("an escape is not four hex digits"))?;
        }
        Ok(value)
    }

    fn integer(&mut self) -> Result<u64, Fault> {
        self.start()?;
        let text = self.number_text();
        if text.is_empty() {
            return Err(fault("a number was expected"));
        }
        let whole = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let value = text.parse::<u64>().ok().filter(|value| whole && *value <= INTEGER);
        value.ok_or_else(|| fault(format!("{:?} is not a whole number from 0 to 2^53 - 1", shown(text))))
    }

    fn number_text(&mut self) -> &'de str {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.peek() {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(fault("a JSON value was expected"));
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
        self.blank();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }
}

/// An object that is being read.
struct Object<'r, 'de> {
    reader: &'r mut Reader<'de>,
    /// Where the names of this object begin among those of all open ones.
    first: usize,
    /// The names of this object once they are more than a few.
    names: HashSet<Cow<'de, str>>,
    begun: bool,
    ended: bool,
}

impl<'de> Object<'_, 'de> {
    /// The name of the next member, standing before its value.
    fn next(&mut self) -> Result<Option<&Cow<'de, str>>, Fault> {
        let reader = &mut *self.reader;
        if reader.take(b'}') {
            reader.keys.truncate(self.first);
            reader.depth -= 1;
            self.ended = true;
            return Ok(None);
        }
        if self.begun && !reader.take(b',') {
            return Err(fault("\",\" or \"}\" was expected"));
        }
        self.begun = true;
        let key = reader.string()?;
        let seen = &reader.keys[self.first..];
        let twice = if seen.len() < FEW {
            seen.contains(&key)
        } else {
            // Looking through many names for each name would take the square of their number.
            if self.names.is_empty() {
                self.names.extend(seen.iter().cloned());
            }
            !self.names.insert(key.clone())
        };
        if twice {
            return Err(fault(format!("the member {:?} is given twice", shown(&key))));
        }
        if seen.len() == MEMBERS {
            return Err(fault(format!("an object has more than {} members", MEMBERS)));
        }
        if !reader.take(b':') {
            return Err(fault("\":\" was expected"));
        }
        reader.keys.push(key);
        Ok(reader.keys.last())
    }
}

impl<'de> MapAccess<'de> for Object<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        match self.next()? {
            Some(Cow::Borrowed(key)) => seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some),
            Some(Cow::Owned(key)) => seed.deserialize(StrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        seed.deserialize(&mut *self.reader)
    }
}

/// An array that is being read.
struct Array<'r, 'de> {
    reader: &'r mut Reader<'de>,
    begun: bool,
    ended: bool,
}

impl Array<'_, '_> {
    /// Whether there is another element; stands before it.
    fn next(&mut self) -> Result<bool, Fault> {
        if self.reader.take(b']') {
            // "[1,]" does not come here: after a comma the element is read at once.
            self.reader.depth -= 1;
            self.ended = true;
            return Ok(false);
        }
        if self.begun && !self.reader.take(b',') {
            return Err(fault("\",\" or \"]\" was expected"));
        }
        self.begun = true;
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Array<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if !self.next()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.start()? {
            b'{' => self.deserialize_map(visitor),
            b'[' => self.deserialize_seq(visitor),
            b'"' => self.deserialize_str(visitor),
            b't' | b'f' => self.deserialize_bool(visitor),
            b'n' => self.deserialize_unit(visitor),
            _ => self.deserialize_u64(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.string()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.integer()?;
        visitor.visit_u64(value)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.start()? {
            b't' => self.word("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word("false").and_then(|()| visitor.visit_bool(false)),
            _ => Err(fault("true or false was expected")),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.start()?;
        self.word("null")?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.start()? == b'n' {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut object = self.object()?;
        let value = visitor.visit_map(&mut object)?;
        if object.ended { Ok(value) } else { Err(fault("an object was not read to its end")) }
    }

    /// A struct is an object. Serde's visitors would take an array for one too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut array = self.array()?;
        let value = visitor.visit_seq(&mut array)?;
        if array.ended { Ok(value) } else { Err(fault("an array was not read to its end")) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.string()?.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit_struct tuple tuple_struct
        identifier
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

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        a: u64,
        #[serde(default, deserialize_with = "present")]
        b: Option<String>,
    }

    fn pair(text: &str) -> Result<Pair> {
        parse("the pair", text.as_bytes())
    }

    fn passes(bytes: &[u8]) -> bool {
        parse::<IgnoredAny>("the text", bytes).is_ok()
    }

    #[test]
    fn one_text_has_one_reading() {
        assert_eq!(pair(r#" {"a" : 1, "b":"\u0041\n"} "#).unwrap(), Pair { a: 1, b: Some("A\n".into()) });
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1,"b":null}"#,
            r#"{"a":1,"c":1}"#,
            r#"[1,"x"]"#,
            r#"{"b":"x"}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1}x"#,
            r#"{"a":1},"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            "{\"a\":1",
            "\u{feff}{\"a\":1}",
            "",
            " ",
            "{\"a\":1,\"b\":\"\t\"}",
            r#"{"a":1,"b":"\ud800"}"#,
            r#"{"a":1,"b":"\udc00"}"#,
            r#"{"a":1,"b":"\ud800\u0041"}"#,
            r#"{"a":1,"b":"\x"}"#,
            r#"{"a":1,"b":"\u00g0"}"#,
            r#"{"a":1,"b":"\u+041"}"#,
        ] {
            assert!(pair(bad).is_err(), "{bad}");
        }
        assert!(pair(r#"{"a":1,"b":"\ud83d\ude00"}"#).is_ok());
        let why = pair(r#"{"a":1,"a":1}"#).unwrap_err().to_string();
        assert_eq!(why, "the pair: the member \"a\" is given twice (byte 10)");
    }

    #[test]
    fn numbers_are_whole_and_exact() {
        assert_eq!(pair(r#"{"a":9007199254740991}"#).unwrap().a, INTEGER);
        for bad in [
            "9007199254740992",
            "18446744073709551616",
            "1.0",
            "1e3",
            "-1",
            "-0",
            "01",
            "+1",
            "0x1",
            ".5",
            "1.",
        ] {
            assert!(pair(&format!(r#"{{"a":{bad}}}"#)).is_err(), "{bad}");
            assert!(!passes(bad.as_bytes()), "{bad}");
        }
        let foreign = br#"{"x":[1.5,-2,1e3]}"#;
        assert!(!passes(foreign));
        assert!(read::<IgnoredAny>("the text", foreign, Numbers::Any).is_ok());
        assert!(read::<IgnoredAny>("the text", b"[1.5.2]", Numbers::Any).is_err());
    }

    /// What nobody asked for is read as strictly as the rest: another reader may ask for it.
    #[test]
    fn parts_that_are_passed_over_are_strict() {
        assert!(passes(br#"{"x":[{"y":{"a":true,"b":false,"c":null,"d":"\"","e":[]}},{}]}"#));
        for bad in [
            &br#"{"x":[{"y":{"a":1,"a":1}}]}"#[..],
            br#"{"x":"\ud800"}"#,
            br#"{"x":[1,]}"#,
            br#"{"x":tru}"#,
            br#"{"x":nul}"#,
            br#"{"x":NaN}"#,
            br#"{"x":[1}]"#,
            b"{\"x\":\"\xff\"}",
            b"\"\x00\"",
        ] {
            assert!(!passes(bad), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn depth_and_members_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(passes(nested(DEPTH).as_bytes()));
        assert!(!passes(nested(DEPTH + 1).as_bytes()));
        assert!(!passes("[".repeat(10_000).as_bytes()));
        assert!(!passes("{\"a\":".repeat(10_000).as_bytes()));
        let object = |members: usize| {
            let members: Vec<_> = (0..members).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(passes(object(MEMBERS).as_bytes()));
        assert!(!passes(object(MEMBERS + 1).as_bytes()));
        let map: BTreeMap<String, u64> = parse("the map", object(3).as_bytes()).unwrap();
        assert_eq!(map.len(), 3);
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (0..=INTEGER).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn values_come_back(value in value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
            let read: serde_json::Value = parse("the value", &text.unwrap()).unwrap();
            prop_assert_eq!(read, value);
        }

        /// Never looser than `serde_json`, whatever the bytes.
        #[test]
        fn never_looser_than_serde_json(value in value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = serde_json::to_vec(&value).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            if passes(&text) {
                let again: serde_json::Value = serde_json::from_slice(&text).unwrap();
                prop_assert_eq!(parse::<serde_json::Value>("the value", &text).unwrap(), again);
            }
        }
    }
}
