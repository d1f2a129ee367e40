//! Reads a policy document: every fault with the place where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Most faults that one answer names.
const SHOWN: usize = 20;

type Table = Map<String, Value>;

/// Collects what is wrong with a document.
#[derive(Debug, Default)]
pub(super) struct Reader {
    faults: Vec<String>,
    more: usize,
}

impl Reader {
    /// Notes a fault at `place`.
    pub(super) fn fault(&mut self, place: &str, why: impl fmt::Display) {
        if self.faults.len() == SHOWN {
            self.more += 1;
        } else {
            let at = if place.is_empty() { "the document" } else { place };
            self.faults.push(format!("{at}: {why}"));
        }
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// `read` if nothing was wrong.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) with every fault.
    pub(super) fn finish<T>(self, read: T) -> Result<T> {
        if self.faults.is_empty() {
            return Ok(read);
        }
        let mut message = format!("the policy is refused: {}", self.faults.join("; "));
        if self.more > 0 {
            message.push_str(&format!("; and {} more", self.more));
        }
        Err(Error::invalid(message))
    }

    /// A table that has no other keys than `known`.
    pub(super) fn table<'v>(&mut self, value: &'v Value, place: &str, known: &[&str]) -> Option<&'v Table> {
        let Value::Object(table) = value else {
            self.fault(place, "expected a table");
            return None;
        };
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let shown: String = key.chars().take(40).collect();
            match nearest(key, known) {
                Some(near) => self.fault(place, format!("{shown:?} is not a key; did you mean {near:?}?")),
                None => self.fault(place, format!("{shown:?} is not a key; there are {}", known.join(", "))),
            }
        }
        Some(table)
    }

    /// The items of an optional list, each with its place.
    pub(super) fn items<'v>(
        &mut self,
        table: &'v Table,
        place: &str,
        key: &str,
        most: usize,
    ) -> Vec<(String, &'v Value)> {
        let place = within(place, key);
        match table.get(key) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() > most => {
                self.fault(&place, format!("it has {} entries, at most {most} are allowed", items.len()));
                Vec::new()
            }
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(at, item)| (format!("{place}[{at}]"), item)).collect()
            }
            Some(_) => {
                self.fault(&place, "expected a list");
                Vec::new()
            }
        }
    }

    /// A value written as text.
    pub(super) fn text<T: FromStr<Err = Error>>(&mut self, value: &Value, place: &str) -> Option<T> {
        let Value::String(text) = value else {
            self.fault(place, "expected a text");
            return None;
        };
        text.parse().map_err(|error: Error| self.fault(place, error.message())).ok()
    }

    /// An optional list of values written as texts.
    pub(super) fn texts<T: FromStr<Err = Error>>(
        &mut self,
        table: &Table,
        place: &str,
        key: &str,
        most: usize,
    ) -> Vec<T> {
        let items = self.items(table, place, key, most);
        items.into_iter().filter_map(|(place, item)| self.text(item, &place)).collect()
    }

    /// An optional value written as text.
    pub(super) fn optional<T: FromStr<Err = Error>>(
        &mut self,
        table: &Table,
        place: &str,
        key: &str,
    ) -> Option<T> {
        self.text(table.get(key)?, &within(place, key))
    }

    /// A value written as text that must be there.
    pub(super) fn required<T: FromStr<Err = Error>>(
        &mut self,
        table: &Table,
        place: &str,
        key: &str,
    ) -> Option<T> {
        match table.get(key) {
            Some(value) => self.text(value, &within(place, key)),
            None => {
                self.fault(place, format!("{key:?} is missing"));
                None
            }
        }
    }

    /// An optional yes or no.
    pub(super) fn flag(&mut self, table: &Table, place: &str, key: &str) -> bool {
        match table.get(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(&within(place, key), "expected true or false");
                false
            }
        }
    }

    /// A table of lists by name.
    pub(super) fn lists<T: FromStr<Err = Error>>(
        &mut self,
        table: &Table,
        key: &str,
        most: usize,
    ) -> BTreeMap<String, Vec<T>> {
        let mut found = BTreeMap::new();
        match table.get(key) {
            None => {}
            Some(Value::Object(lists)) => {
                for name in lists.keys() {
                    if let Err(why) = check_name(name) {
                        self.fault(key, why);
                    }
                    found.insert(name.clone(), self.texts(lists, key, name, most));
                }
            }
            Some(_) => self.fault(key, "expected a table of lists"),
        }
        found
    }
}

/// `key` in `place`.
pub(super) fn within(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// A name of a group, a list or a rule: 1 to 64 characters without control characters, commas and
/// colons, and no space at its ends.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let shown: String = name.chars().take(80).collect();
    if name.is_empty() || name.chars().count() > 64 {
        return Err(format!("{shown:?} is not a name: expected 1 to 64 characters"));
    }
    if name.trim() != name || name.chars().any(|c| c.is_control() || matches!(c, ':' | ',')) {
        return Err(format!(
            "{shown:?} is not a name: it must have no \":\", \",\" or control character, and no space at its ends"
        ));
    }
    Ok(())
}

/// The one of `known` that is written most like `word`, if any is at most two steps away.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    distances.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// How many letters have to be put in, taken out or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    if from.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named() {
        let known = ["name", "to", "may", "on"];
        assert_eq!(nearest("nane", &known), Some("name"));
        assert_eq!(nearest("mays", &known), Some("may"));
        assert_eq!(nearest("principals", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
