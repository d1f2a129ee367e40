//! The oracle of the strict JSON reader, which is private: it is reached through an envelope.

use std::collections::HashSet;
use std::fmt;

use distedge::bundle::{Envelope, limits};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The value of a member that DSSE does not name: accepted exactly when it has one reading.
pub fn json(data: &[u8]) -> bool {
    let mut document = br#"{"payloadType":"t","payload":"","signatures":[{"sig":""}],"x":"#.to_vec();
    document.extend_from_slice(data);
    document.push(b'}');
    let parsed = Envelope::parse(&document);
    match (members(&document), &parsed) {
        // The input may close the object's member and open others: then it is a matter of envelopes.
        (Some(members), Err(error)) if members == ["payloadType", "payload", "signatures", "x"] => {
            panic!("{}: {error}", String::from_utf8_lossy(&document));
        }
        (None, Ok(_)) => panic!("accepted: {}", String::from_utf8_lossy(&document)),
        _ => {}
    }
    parsed.is_ok()
}

/// The members of an object in strict JSON; `None` if the text is anything else.
pub(super) fn members(text: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    Strict { depth: 0, names: Some(&mut names) }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    let object = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    object.then_some(names)
}

/// Reads any value and refuses duplicate members, deep nesting and all numbers but whole ones.
struct Strict<'n> {
    depth: usize,
    names: Option<&'n mut Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict<'_> {
    fn enter<E: Error>(&self) -> Result<usize, E> {
        if self.depth < limits::DEPTH { Ok(self.depth + 1) } else { Err(E::custom("too deep")) }
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if value <= limits::INTEGER { Ok(()) } else { Err(E::custom("too large")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        while array.next_element_seed(Strict { depth, names: None })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            if !seen.insert(name.clone()) || seen.len() > limits::MEMBERS {
                return Err(A::Error::custom("twice, or too many"));
            }
            order.push(name);
            object.next_value_seed(Strict { depth, names: None })?;
        }
        if let Some(names) = self.names {
            *names = order;
        }
        Ok(())
    }
}
