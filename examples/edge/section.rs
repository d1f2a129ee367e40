//! A TOML file taken apart key by key: what is not asked for is not known.
//!
//! Every sentence names the file and the line. The keys that may stand in a table are those the
//! program asks for, so the list in a refusal cannot differ from what is read.

use serde::de::{DeserializeOwned, IntoDeserializer as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration file's name and text, for telling where something stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The name as the user gave it.
    pub(crate) name: &'a str,
    /// What is in it.
    pub(crate) text: &'a str,
}

impl<'a> Source<'a> {
    /// The file's top table.
    pub(crate) fn section(self) -> Result<Section<'a>, String> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Section::new(self, String::new(), 0, table.into_inner())),
            Err(error) => Err(self.at(error.span().map_or(0, |span| span.start), one_line(error.message()))),
        }
    }

    fn at(self, offset: usize, what: impl std::fmt::Display) -> String {
        let before = self.text.get(..offset).unwrap_or_default();
        format!("{}, line {}: {what}", self.name, before.matches('\n').count() + 1)
    }
}

/// One table. Take what may be in it, then [`finish`](Section::finish).
#[derive(Debug)]
pub(crate) struct Section<'a> {
    source: Source<'a>,
    /// `limits.` in the table `[limits]`, empty at the top.
    prefix: String,
    offset: usize,
    entries: Vec<(Spanned<String>, Spanned<DeValue<'a>>)>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn new(source: Source<'a>, prefix: String, offset: usize, table: DeTable<'a>) -> Section<'a> {
        let owned =
            |key: Spanned<std::borrow::Cow<'a, str>>| Spanned::new(key.span(), key.into_inner().into_owned());
        let entries = table.into_iter().map(|(key, value)| (owned(key), value)).collect();
        Section { source, prefix, offset, entries, asked: Vec::new() }
    }

    /// An error at the table itself.
    pub(crate) fn error(&self, what: impl std::fmt::Display) -> String {
        self.source.at(self.offset, what)
    }

    /// The value of `key`, if it is there.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, String> {
        self.take_as(key, Ok)
    }

    /// The value of `key`, if it is there, as what `read` makes of it.
    pub(crate) fn take_as<T: DeserializeOwned, R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(T) -> Result<R, String>,
    ) -> Result<Option<R>, String> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let at = value.span().start;
        let refused = |why: String| self.source.at(at, format_args!("`{}{key}`: {why}", self.prefix));
        let value =
            T::deserialize(value.into_deserializer()).map_err(|error| refused(one_line(error.message())))?;
        read(value).map(Some).map_err(refused)
    }

    /// The table `key`; an empty one if it is not there.
    pub(crate) fn table(&mut self, key: &'static str) -> Result<Section<'a>, String> {
        let prefix = format!("{}{key}.", self.prefix);
        match self.raw(key) {
            None => Ok(Section::new(self.source, prefix, 0, DeTable::default())),
            Some(value) => self.as_table(key, prefix, value),
        }
    }

    /// The tables `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Result<Vec<Section<'a>>, String> {
        let prefix = format!("{}{key}.", self.prefix);
        let Some(value) = self.raw(key) else { return Ok(Vec::new()) };
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Array(array) => {
                array.into_iter().map(|value| self.as_table(key, prefix.clone(), value)).collect()
            }
            _ => Err(self.source.at(at, format_args!("`{key}` is written as [[{key}]]"))),
        }
    }

    /// Refuses what was not asked for.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.entries.sort_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = self.entries.first() else { return Ok(()) };
        let name = key.get_ref();
        let mut sentence = format!("unknown key `{}{name}`", self.prefix);
        match self.asked.iter().min_by_key(|known| distance(known, name)) {
            Some(near) if distance(near, name) <= 2.max(name.chars().count() / 3) => {
                sentence.push_str(&format!("; did you mean `{}{near}`?", self.prefix));
            }
            _ => {
                self.asked.sort_unstable();
                sentence.push_str(&format!("; known here are {}", self.asked.join(", ")));
            }
        }
        Err(self.source.at(key.span().start, sentence))
    }

    fn raw(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.asked.push(key);
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        Some(self.entries.swap_remove(at).1)
    }

    fn as_table(
        &self,
        key: &str,
        prefix: String,
        value: Spanned<DeValue<'a>>,
    ) -> Result<Section<'a>, String> {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => Ok(Section::new(self.source, prefix, at, table)),
            other => {
                let found = other.type_str();
                Err(self.source.at(at, format_args!("`{}{key}` is a table, this is: {found}", self.prefix)))
            }
        }
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How many characters must be added, taken away, changed or swapped with their neighbour to make
/// one word the other (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}
