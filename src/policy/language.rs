//! Which of some languages a client prefers: `Accept-Language` (RFC 9110 section 12.5.4) with the
//! look-up of RFC 4647 section 3.4.

use super::words::Language;

/// Longest `Accept-Language` that is read, in bytes.
pub(super) const MAX_FIELD: usize = 1024;
/// Most language ranges in one.
pub(super) const MAX_RANGES: usize = 32;

/// The language ranges of a client, in the order in which it prefers them.
///
/// A field that does not follow the grammar, or is too long, prefers nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preferences<'a> {
    /// Ranges with their weights in thousandths. Those with the weight 0 come last.
    ranges: [(&'a str, u16); MAX_RANGES],
    count: usize,
}

impl<'a> Preferences<'a> {
    pub(super) fn read(field: Option<&'a str>) -> Preferences<'a> {
        let mut read = Preferences { ranges: [("", 0); MAX_RANGES], count: 0 };
        let field = field.unwrap_or_default();
        if field.len() > MAX_FIELD || read.fill(field).is_none() {
            read.count = 0;
        }
        // A stable sort: of equal weights the first comes first.
        read.ranges[..read.count].sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        read
    }

    /// Accept-Language = #( language-range [ weight ] )
    fn fill(&mut self, field: &'a str) -> Option<()> {
        for element in field.split(',').map(|element| element.trim_matches([' ', '\t'])) {
            // RFC 9110 section 5.6.1.2: a recipient MUST parse and ignore a reasonable number of
            // empty list elements.
            if element.is_empty() {
                continue;
            }
            let (range, weight) = match element.split_once(';') {
                Some((range, weight)) => (range.trim_end_matches([' ', '\t']), weight_of(weight)?),
                None => (element, 1000),
            };
            if !is_range(range) {
                return None;
            }
            *self.ranges.get_mut(self.count)? = (range, weight);
            self.count += 1;
        }
        Some(())
    }

    /// The item whose languages suit the client best; the first of those that suit it equally.
    ///
    /// RFC 4647 section 3.4: each language range in the language priority list is considered in
    /// turn, according to priority; it is progressively truncated from the end until a matching
    /// language tag is located. The range `*` is skipped. A range with the weight 0 is not
    /// acceptable (RFC 9110 section 12.4.2), so nothing is truncated to it.
    pub(super) fn best<'c, T>(&self, items: impl Iterator<Item = (&'c [Language], T)> + Clone) -> Option<T> {
        let ranges = &self.ranges[..self.count];
        for (range, _) in ranges.iter().filter(|(range, weight)| *weight > 0 && *range != "*") {
            let mut current = *range;
            loop {
                let refused =
                    ranges.iter().any(|(other, weight)| *weight == 0 && other.eq_ignore_ascii_case(current));
                let mut items = items.clone();
                let found = items.find(|(languages, _)| {
                    languages.iter().any(|language| language.as_str().eq_ignore_ascii_case(current))
                });
                match (refused, found) {
                    (false, Some((_, item))) => return Some(item),
                    _ => match truncated(current) {
                        Some(shorter) => current = shorter,
                        None => break,
                    },
                }
            }
        }
        None
    }
}

/// A range without its last subtag, and without the single letter or digit that this would leave
/// at the end.
fn truncated(range: &str) -> Option<&str> {
    let (shorter, _) = range.rsplit_once('-')?;
    match shorter.rsplit_once('-') {
        Some((shortest, single)) if single.len() == 1 => Some(shortest),
        _ if shorter.len() == 1 => None,
        _ => Some(shorter),
    }
}

/// RFC 4647 section 2.1: language-range = (1*8ALPHA *("-" 1*8alphanum)) / "*".
fn is_range(text: &str) -> bool {
    let subtag =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text == "*"
        || text.split('-').all(subtag)
            && text.bytes().take_while(|byte| *byte != b'-').all(|byte| byte.is_ascii_alphabetic())
}

/// RFC 9110 section 12.4.2: weight = OWS ";" OWS "q=" qvalue, in thousandths.
fn weight_of(text: &str) -> Option<u16> {
    let text = text.trim_start_matches([' ', '\t']);
    let value = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths =
        fraction.bytes().chain(*b"000").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(field: &str, choices: &[&str]) -> Option<usize> {
        let languages: Vec<Vec<Language>> = choices
            .iter()
            .map(|choice| choice.split(' ').map(|tag| tag.parse().unwrap()).collect())
            .collect();
        Preferences::read(Some(field))
            .best(languages.iter().enumerate().map(|(at, tags)| (tags.as_slice(), at)))
    }

    #[test]
    fn the_client_s_order_decides_and_not_that_of_the_rules() {
        let choices = ["de", "en", "pt-BR pt", "zh-Hant"];
        for (field, expected) in [
            ("de", Some(0)),
            ("en;q=0.9, de;q=0.1", Some(1)),
            ("fr, en;q=0.5, de;q=0.7", Some(0)),
            ("de-CH-1996", Some(0)),
            ("pt-PT", Some(2)),
            ("DE-at", Some(0)),
            ("zh-Hant-TW-x-private", Some(3)),
            ("zh", None),
            ("zh-Hans-CN", None),
            ("en;q=0, *", None),
            ("en-GB, en;q=0, de;q=0.1", Some(0)),
            ("*", None),
            ("*, de;q=0.2", Some(0)),
            ("", None),
            (",, de ,", Some(0)),
            ("de;q=1.000", Some(0)),
            ("de;q=0.000", None),
            ("de ; q=0.5", Some(0)),
            ("fr-x-y", None),
            ("en;q=0.5,de;q=0.5", Some(1)),
        ] {
            assert_eq!(best(field, &choices), expected, "{field}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_prefers_nothing() {
        let long = format!("de, {}", "x".repeat(MAX_FIELD));
        let many = "de,".repeat(MAX_RANGES + 1);
        for field in [
            "de;q=1.1",
            "de;q=2",
            "de;q=0.1234",
            "de;q=",
            "de;q=.5",
            "de;level=1",
            "d\u{e9}, de",
            "de--x, de",
            "4de, de",
            "de;q=0.5;x=1",
            &long,
            &many,
        ] {
            assert_eq!(best(field, &["de"]), None, "{field}");
        }
    }
}
