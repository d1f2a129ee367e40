//! The JSON form of a statement.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bundle::constraint::Constraints;
use crate::bundle::statement::{self as model, PREDICATE_TYPE, STATEMENT_TYPE};
use crate::bundle::{json, limits};
use crate::clock::Timestamp;
use crate::digest::{Checksums, Digest};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ArtifactPath, RepositoryName};

/// What a payload says it is.
#[derive(Deserialize)]
pub(super) struct Header<'a> {
    #[serde(borrow, rename = "_type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "predicateType")]
    predicate_type: Cow<'a, str>,
}

impl<'a> Header<'a> {
    /// Reads the types of a statement whose other members may be anything.
    pub(super) fn read(payload: &'a [u8]) -> Option<Header<'a>> {
        json::read("the statement", payload, json::Numbers::Any).ok()
    }

    pub(super) fn check(&self) -> Result<()> {
        Header::check_types(&self.kind, &self.predicate_type)
    }

    pub(super) fn check_types(kind: &str, predicate_type: &str) -> Result<()> {
        let (what, found, expected) = if kind != STATEMENT_TYPE {
            ("_type", kind, STATEMENT_TYPE)
        } else if predicate_type != PREDICATE_TYPE {
            ("predicateType", predicate_type, PREDICATE_TYPE)
        } else {
            return Ok(());
        };
        let shown: String = found.chars().take(120).collect();
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the statement's \"{what}\" is {shown:?}, expected {expected:?}"),
        ))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement<'a> {
    #[serde(borrow, rename = "_type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Vec<Subject<'a>>,
    #[serde(borrow, rename = "predicateType")]
    pub(super) predicate_type: Cow<'a, str>,
    #[serde(borrow)]
    predicate: Predicate<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    digest: DigestSet,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSet {
    sha256: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate<'a> {
    bundle: model::BundleRef,
    created: Timestamp,
    source: model::Source,
    #[serde(borrow)]
    items: Vec<Item<'a>>,
    #[serde(borrow, default)]
    aliases: Vec<Alias<'a>>,
    #[serde(borrow, default)]
    sbom: Vec<Sbom<'a>>,
    #[serde(borrow, default)]
    evidence: Vec<Evidence<'a>>,
    #[serde(default)]
    constraints: Constraints,
    totals: Totals,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    s: usize,
    #[serde(borrow)]
    repo: Cow<'a, str>,
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    size: u64,
    #[serde(
        borrow,
        rename = "mediaType",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::present"
    )]
    media_type: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    sha1: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
    md5: Option<Text<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias<'a> {
    #[serde(borrow)]
    repo: Cow<'a, str>,
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    alias: Cow<'a, str>,
    s: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sbom<'a> {
    s: usize,
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    covers: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evidence<'a> {
    digest: DigestSet,
    #[serde(borrow, rename = "mediaType")]
    media_type: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    items: u64,
    bytes: u64,
}

/// A text that borrows from the input where it can, also inside an `Option`.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A SHA-256 as 64 lower-case hex digits.
struct Hex(Digest);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_hex())
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Digest::from_hex(&text.0).map(Hex).map_err(serde::de::Error::custom)
    }
}

impl Statement<'_> {
    pub(super) fn into_statement(self) -> Result<model::Statement> {
        let predicate = self.predicate;
        model::check_counts(
            predicate.items.len().max(self.subject.len()),
            predicate.aliases.len(),
            predicate.sbom.len(),
            predicate.evidence.len(),
        )?;
        if self.subject.len() != predicate.items.len() {
            return Err(Error::invalid(format!(
                "the statement has {} subjects and {} items",
                self.subject.len(),
                predicate.items.len()
            )));
        }
        let mut items = Vec::with_capacity(predicate.items.len());
        for (at, (subject, item)) in self.subject.iter().zip(predicate.items).enumerate() {
            let item =
                item.into_item(at, subject).map_err(|error| error.context(format_args!("item {at}")))?;
            items.push(item);
        }
        if let Some(at) =
            (1..self.subject.len()).find(|at| self.subject[at - 1].name >= self.subject[*at].name)
        {
            return Err(Error::invalid(format!(
                "the subjects are not sorted by the bytes of their names at {:?}",
                self.subject[at].name
            )));
        }
        let bytes: u64 = items.iter().fold(0, |sum, item| item.size.saturating_add(sum));
        if predicate.totals.items != items.len() as u64 || predicate.totals.bytes != bytes {
            return Err(Error::invalid(format!(
                "the totals say {} items of {} bytes, the items are {} of {bytes} bytes",
                predicate.totals.items,
                predicate.totals.bytes,
                items.len()
            )));
        }
        let aliases = predicate.aliases.into_iter().map(Alias::into_alias).collect::<Result<Vec<_>>>()?;
        let sboms = predicate.sbom.into_iter().map(|sbom| model::Sbom {
            item: sbom.s,
            format: sbom.format.into_owned(),
            covers: sbom.covers.into_owned(),
        });
        let evidence = predicate.evidence.into_iter().map(|evidence| model::Evidence {
            digest: evidence.digest.sha256.0,
            media_type: evidence.media_type.into_owned(),
        });
        model::Statement::from_parts(
            (predicate.bundle, predicate.created, predicate.source),
            items,
            aliases,
            sboms.collect(),
            evidence.collect(),
            predicate.constraints,
            self.subject.into_iter().map(|subject| subject.name).collect(),
        )
    }
}

impl Item<'_> {
    fn into_item(self, at: usize, subject: &Subject<'_>) -> Result<model::Item> {
        if self.s != at {
            return Err(Error::invalid(format!("\"s\" is {}, the subject of this item is {at}", self.s)));
        }
        let named = subject.name.strip_prefix(&*self.repo).and_then(|rest| rest.strip_prefix('/'));
        if named != Some(&*self.path) {
            return Err(Error::invalid(format!(
                "the subject is called {:?}, the item is {:?} in {:?}",
                subject.name, self.path, self.repo
            )));
        }
        if self.size > limits::INTEGER {
            return Err(Error::invalid("\"size\" is more than 2^53 - 1"));
        }
        Ok(model::Item {
            repository: RepositoryName::new(&self.repo)?,
            format: self.format.into_owned(),
            path: ArtifactPath::new(&self.path)?,
            digest: subject.digest.sha256.0,
            size: self.size,
            media_type: self.media_type.map(|text| text.0.into_owned()),
            checksums: Checksums {
                sha1: self.sha1.map(|text| text.0.into_owned()),
                md5: self.md5.map(|text| text.0.into_owned()),
            },
        })
    }
}

impl Alias<'_> {
    fn into_alias(self) -> Result<model::Alias> {
        let name = ArtifactPath::new(&self.name)?;
        let path = model::alias_path(&name, &self.alias)?;
        Ok(model::Alias {
            repository: RepositoryName::new(&self.repo)?,
            format: self.format.into_owned(),
            name,
            alias: self.alias.into_owned(),
            path,
            item: self.s,
        })
    }
}

pub(super) fn to_payload(statement: &model::Statement) -> Vec<u8> {
    let text = |text: &'_ Option<String>| text.clone().map(|text| Text(Cow::Owned(text)));
    let items = statement.items().iter().enumerate();
    let wire = Statement {
        kind: STATEMENT_TYPE.into(),
        subject: statement
            .items()
            .iter()
            .map(|item| Subject { name: item.name().into(), digest: DigestSet { sha256: Hex(item.digest) } })
            .collect(),
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Predicate {
            bundle: statement.bundle().clone(),
            created: statement.created(),
            source: statement.source().clone(),
            items: items
                .map(|(s, item)| Item {
                    s,
                    repo: item.repository.as_str().into(),
                    format: item.format.as_str().into(),
                    path: item.path.as_str().into(),
                    size: item.size,
                    media_type: text(&item.media_type),
                    sha1: text(&item.checksums.sha1),
                    md5: text(&item.checksums.md5),
                })
                .collect(),
            aliases: statement
                .aliases()
                .iter()
                .map(|alias| Alias {
                    repo: alias.repository.as_str().into(),
                    format: alias.format.as_str().into(),
                    name: alias.name.as_str().into(),
                    alias: alias.alias.as_str().into(),
                    s: alias.item,
                })
                .collect(),
            sbom: statement
                .sboms()
                .iter()
                .map(|sbom| Sbom {
                    s: sbom.item,
                    format: sbom.format.as_str().into(),
                    covers: sbom.covers.as_str().into(),
                })
                .collect(),
            evidence: statement
                .evidence()
                .iter()
                .map(|evidence| Evidence {
                    digest: DigestSet { sha256: Hex(evidence.digest) },
                    media_type: evidence.media_type.as_str().into(),
                })
                .collect(),
            constraints: statement.constraints().clone(),
            totals: Totals { items: statement.items().len() as u64, bytes: statement.total_bytes() },
        },
    };
    // Strings and integers always serialise.
    serde_json::to_vec(&wire).unwrap_or_default()
}
