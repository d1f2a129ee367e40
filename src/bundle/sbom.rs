//! Bills of materials: which format, how many components, of what. The bytes stay as they are.
//!
//! A summary is information for people. A document that cannot be read has none, and is
//! distributed all the same.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::bundle::limits;

/// The family of formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SbomKind {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
}

/// The format of a bill of materials. Its text form is `cyclonedx-1.6+json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SbomFormat {
    /// The family.
    pub kind: SbomKind,
    /// The version of the specification, such as `1.6`.
    pub version: String,
    /// The encoding: `json`, `xml` or `tag-value`.
    pub encoding: &'static str,
}

impl fmt::Display for SbomFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SbomKind::CycloneDx => "cyclonedx",
            SbomKind::Spdx => "spdx",
        };
        write!(f, "{kind}-{}+{}", self.version, self.encoding)
    }
}

/// What a bill of materials says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbomSummary {
    /// Its format.
    pub format: SbomFormat,
    /// What it is called (SPDX) or describes (CycloneDX), if it says.
    pub name: Option<String>,
    /// How many components (CycloneDX, nested ones too) or packages (SPDX) it lists.
    pub components: u64,
}

/// Recognises and counts a bill of materials; `None` for anything else.
///
/// Read are CycloneDX in JSON and XML, and SPDX 2 in JSON and as tag-value text, up to
/// [`limits::SBOM`] bytes. No entity is expanded, no reference is followed.
pub fn summarize(bytes: &[u8]) -> Option<SbomSummary> {
    if bytes.len() > limits::SBOM {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    match text.bytes().next()? {
        b'{' => summarize_json(text),
        b'<' => summarize_xml(text),
        _ => summarize_tag_value(text),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    bom_format: Option<String>,
    spec_version: Option<String>,
    metadata: Option<Metadata>,
    components: Option<Components>,
    spdx_version: Option<String>,
    name: Option<String>,
    packages: Option<Count>,
}

#[derive(Deserialize)]
struct Metadata {
    component: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Component {
    components: Option<Components>,
}

/// A list of components, counted with what is nested in them.
struct Components(u64);

impl<'de> Deserialize<'de> for Components {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Components, D::Error> {
        let nested = |component: Component| 1 + component.components.map_or(0, |inner| inner.0);
        deserializer.deserialize_seq(Adder(nested, PhantomData)).map(Components)
    }
}

/// A list whose elements are only counted.
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_seq(Adder(|_: IgnoredAny| 1, PhantomData)).map(Count)
    }
}

/// Adds up what the function says of each element, one element at a time.
struct Adder<F, T>(F, PhantomData<T>);

impl<'de, F, T> Visitor<'de> for Adder<F, T>
where
    F: Fn(T) -> u64,
    T: Deserialize<'de>,
{
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while let Some(element) = list.next_element()? {
            sum += (self.0)(element);
        }
        Ok(sum)
    }
}

fn summarize_json(text: &str) -> Option<SbomSummary> {
    let document: Document = serde_json::from_str(text).ok()?;
    if document.bom_format.as_deref() == Some("CycloneDX") {
        return Some(SbomSummary {
            format: format(SbomKind::CycloneDx, &document.spec_version?, "json")?,
            name: document.metadata.and_then(|metadata| metadata.component?.name).and_then(shown),
            components: document.components.map_or(0, |components| components.0),
        });
    }
    Some(SbomSummary {
        format: format(SbomKind::Spdx, document.spdx_version?.strip_prefix("SPDX-")?, "json")?,
        name: document.name.and_then(shown),
        components: document.packages.map_or(0, |packages| packages.0),
    })
}

fn summarize_tag_value(text: &str) -> Option<SbomSummary> {
    let mut version = None;
    let mut name = None;
    let mut packages = 0;
    let mut quoted = false;
    for line in text.lines() {
        // SPDX 2.3 section 5: a text of several lines stands between <text> and </text>.
        if quoted {
            quoted = !line.contains("</text>");
            continue;
        }
        let Some((tag, value)) = line.split_once(':') else { continue };
        quoted = value.contains("<text>") && !value.contains("</text>");
        match tag.trim() {
            "SPDXVersion" if version.is_none() => version = Some(value.trim().to_owned()),
            "DocumentName" if name.is_none() => name = shown(value.trim().to_owned()),
            "PackageName" => packages += 1,
            _ => {}
        }
    }
    let format = format(SbomKind::Spdx, version?.strip_prefix("SPDX-")?, "tag-value")?;
    Some(SbomSummary { format, name, components: packages })
}

/// Deepest nesting of elements that is followed.
const MAX_ELEMENTS: usize = 256;

fn summarize_xml(text: &str) -> Option<SbomSummary> {
    let mut rest = text;
    let mut open: Vec<&str> = Vec::new();
    let mut version = None;
    let mut name = None;
    let mut components = 0;
    while let Some(at) = rest.find('<') {
        if open == ["bom", "metadata", "component", "name"] && name.is_none() {
            name = shown(rest[..at].trim().to_owned());
        }
        rest = &rest[at..];
        if let Some(after) = skipped(rest) {
            rest = after?;
            continue;
        }
        let (tag, after) = tag(rest)?;
        rest = after;
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(local(closed)) {
                return None;
            }
            continue;
        }
        let element = local(tag);
        if open.is_empty() {
            if element != "bom" || version.is_some() {
                return None;
            }
            version = namespace_version(tag);
        }
        if element == "component" && open.last() == Some(&"components") && open.get(1) != Some(&"metadata") {
            components += 1;
        }
        if !tag.ends_with('/') {
            if open.len() == MAX_ELEMENTS {
                return None;
            }
            open.push(element);
        }
    }
    let format = format(SbomKind::CycloneDx, version?, "xml")?;
    open.is_empty().then_some(SbomSummary { format, name, components })
}

/// What follows a comment, a CDATA section or a processing instruction; `None` for a tag, and
/// `Some(None)` if it does not end. A document type is never read.
fn skipped(rest: &str) -> Option<Option<&str>> {
    let end = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")]
        .into_iter()
        .find(|(start, _)| rest.starts_with(start));
    match end {
        Some((start, end)) => Some(rest[start.len()..].split_once(end).map(|(_, after)| after)),
        None if rest.starts_with("<!") => Some(None),
        None => None,
    }
}

/// The inside of the tag at the start of `rest`, and what follows it.
fn tag(rest: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some((&rest[1..at], &rest[at + 1..])),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// The element's name without its namespace prefix.
fn local(tag: &str) -> &str {
    let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
    name.rsplit(':').next().unwrap_or(name)
}

/// The version in the namespace `http://cyclonedx.org/schema/bom/1.6`.
fn namespace_version(tag: &str) -> Option<&str> {
    let (_, after) = tag.split_once("http://cyclonedx.org/schema/bom/")?;
    after.split(['"', '\'']).next()
}

fn format(kind: SbomKind, version: &str, encoding: &'static str) -> Option<SbomFormat> {
    let sound = !version.is_empty()
        && version.len() <= 16
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    sound.then(|| SbomFormat { kind, version: version.into(), encoding })
}

/// A name that can stand in a line of text.
fn shown(name: String) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(256).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Option<(String, Option<String>, u64)> {
        summarize(text.as_bytes()).map(|one| (one.format.to_string(), one.name, one.components))
    }

    #[test]
    fn formats_are_recognised_and_counted() {
        let json = r#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,
            "metadata":{"tools":{"components":[{"name":"tool"}]},"component":{"name":"shop","type":"application"}},
            "components":[{"name":"a","components":[{"name":"b"},{"name":"c"}]},{"name":"d"}]}"#;
        assert_eq!(seen(json), Some(("cyclonedx-1.6+json".into(), Some("shop".into()), 4)));
        let xml = r#"<?xml version="1.0"?><!-- <component> -->
            <bom xmlns="http://cyclonedx.org/schema/bom/1.5" version="1"><metadata>
            <tools><components><component><name>tool</name></component></components></tools>
            <component type="application"><name>shop</name></component></metadata>
            <components><component a=">"><name><![CDATA[<component>]]></name><components><component/></components>
            </component></components></bom>"#;
        assert_eq!(seen(xml), Some(("cyclonedx-1.5+xml".into(), Some("shop".into()), 2)));
        let spdx = r#"{"spdxVersion":"SPDX-2.3","name":"shop-1.0","packages":[{"name":"a"},{"name":"b"}]}"#;
        assert_eq!(seen(spdx), Some(("spdx-2.3+json".into(), Some("shop-1.0".into()), 2)));
        let tags = "SPDXVersion: SPDX-2.2\nDocumentName: shop\n\nPackageName: a\nPackageComment: <text>x\n\
                    PackageName: not\n</text>\nPackageName: b\n";
        assert_eq!(seen(tags), Some(("spdx-2.2+tag-value".into(), Some("shop".into()), 2)));
    }

    #[test]
    fn other_documents_have_no_summary() {
        let deep = format!(
            "{}{}",
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":"#,
            "[".repeat(10_000)
        );
        let nested = format!(r#"<bom xmlns="http://cyclonedx.org/schema/bom/1.5">{}"#, "<a>".repeat(10_000));
        for other in [
            "",
            "{}",
            "[]",
            "<html></html>",
            "<bom>",
            "<!DOCTYPE bom [<!ENTITY a \"b\">]><bom xmlns=\"http://cyclonedx.org/schema/bom/1.5\"/>",
            "hello",
            r#"{"bomFormat":"CycloneDX"}"#,
            r#"{"spdxVersion":"SPDX-2.3\n+x"}"#,
            "SPDXVersion: 2.3",
            &deep,
            &nested,
        ] {
            assert_eq!(seen(other), None, "{other:.60}");
        }
        assert_eq!(summarize(b"\xff\xfe"), None);
    }
}
