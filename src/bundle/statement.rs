//! The statement: what is in a release bundle. Strict reader and writer.
//!
//! The format is an in-toto Statement v1 whose predicate has the type [`PREDICATE_TYPE`].

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bundle::constraint::Constraints;
use crate::bundle::{json, limits, statement_wire as wire};
use crate::clock::Timestamp;
use crate::digest::{Checksums, Digest};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ArtifactPath, BundleName, RepositoryName, Tenant, Version};

/// The payload type of an envelope around a statement.
pub const STATEMENT_PAYLOAD: &str = "application/vnd.in-toto+json";
/// The `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The `predicateType` of a release bundle.
pub const PREDICATE_TYPE: &str = "urn:distedge:release-bundle:v1";

/// Which bundle this is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRef {
    /// The tenant it belongs to.
    pub tenant: Tenant,
    /// The project inside the tenant; spelled like a bundle's name.
    pub project: String,
    /// Its name.
    pub name: BundleName,
    /// Its version. A name and version are written once.
    pub version: Version,
    /// Its place in the order of versions of this name, from 1 to 2^53 - 1.
    pub seq: u64,
}

impl fmt::Display for BundleRef {
    /// `name version`, as sentences show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Who made the bundle. Texts for people, at most 1,024 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The source's own id.
    pub id: String,
    /// A label of the release, such as `RC1-Approved`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The person or service that made it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// One artifact of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The repository it appears in.
    pub repository: RepositoryName,
    /// The repository's format: `generic`, `oci`, `pypi`, …
    pub format: String,
    /// The path inside the repository.
    pub path: ArtifactPath,
    /// What its bytes hash to.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Its media type, if the source knew one.
    pub media_type: Option<String>,
    /// Legacy checksums: information, never a ground for trust.
    pub checksums: Checksums,
}

impl Item {
    /// The item's name in the statement: `repository/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.repository, self.path)
    }
}

/// Another name for an item: a tag, a dist-tag, `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The repository of the alias and of its item.
    pub repository: RepositoryName,
    /// The repository's format.
    pub format: String,
    /// What is aliased: an image, a package, a folder.
    pub name: ArtifactPath,
    /// The alias itself: one path segment.
    pub alias: String,
    /// `name/alias`: the path it answers at. No item and no other alias has it.
    pub path: ArtifactPath,
    /// The index of the item it stands for.
    pub item: usize,
}

/// Says that an item is a software bill of materials, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sbom {
    /// The index of the item.
    pub item: usize,
    /// Its format, such as `cyclonedx-1.6+json`.
    pub format: String,
    /// What it describes: `bundle`, or the name of an item.
    pub covers: String,
}

/// A document about the bundle that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

/// What is in a release bundle. A value of this type obeys every rule of the format.
///
/// Items are sorted by the bytes of their [name](Item::name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    bundle: BundleRef,
    created: Timestamp,
    source: Source,
    items: Vec<Item>,
    aliases: Vec<Alias>,
    sboms: Vec<Sbom>,
    evidence: Vec<Evidence>,
    constraints: Constraints,
    bytes: u64,
}

impl Statement {
    /// Starts a statement.
    pub fn builder(bundle: BundleRef, created: Timestamp, source: Source) -> StatementBuilder {
        StatementBuilder {
            bundle,
            created,
            source,
            items: Vec::new(),
            aliases: Vec::new(),
            sboms: Vec::new(),
            evidence: Vec::new(),
            constraints: Constraints::default(),
        }
    }

    /// Reads the payload of a bundle's envelope.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another `_type` or `predicateType`;
    /// [`ErrorKind::TooLarge`] over a limit; [`ErrorKind::Invalid`] for any other fault.
    pub fn parse(payload: &[u8]) -> Result<Statement> {
        let parsed = json::parse::<wire::Statement<'_>>("the statement", payload);
        let wire = parsed.map_err(|error| match wire::Header::read(payload) {
            // A foreign predicate has members of its own: what it is matters more than how it
            // fails to be ours.
            Some(header) => header.check().err().unwrap_or(error),
            None => error,
        })?;
        wire::Header::check_types(&wire.kind, &wire.predicate_type)?;
        wire.into_statement()
    }

    /// The statement as JSON, the payload of its envelope.
    pub fn to_payload(&self) -> Vec<u8> {
        wire::to_payload(self)
    }

    /// Which bundle this is.
    pub fn bundle(&self) -> &BundleRef {
        &self.bundle
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Who made it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The artifacts, sorted by the bytes of their names.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Other names for items.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// The items that are bills of materials.
    pub fn sboms(&self) -> &[Sbom] {
        &self.sboms
    }

    /// Documents about the bundle that are kept elsewhere.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Where it may go.
    pub fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// The sizes of all items, added up.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    /// The item called `repository/path`.
    pub fn item(&self, repository: &RepositoryName, path: &ArtifactPath) -> Option<&Item> {
        find(&self.items, repository, path).map(|index| &self.items[index])
    }

    /// The Merkle root over the items, as a [`Receipt`](crate::bundle::Receipt) states it.
    pub fn root(&self) -> Digest {
        crate::bundle::merkle_root(self.items.iter().map(|item| (item.name(), item.digest)))
    }
}

/// Collects what goes into a [`Statement`]; [`build`](StatementBuilder::build) checks it.
#[derive(Clone, Debug)]
pub struct StatementBuilder {
    bundle: BundleRef,
    created: Timestamp,
    source: Source,
    items: Vec<Item>,
    aliases: Vec<NewAlias>,
    sboms: Vec<NewSbom>,
    evidence: Vec<Evidence>,
    constraints: Constraints,
}

#[derive(Clone, Debug)]
struct NewAlias {
    repository: RepositoryName,
    name: ArtifactPath,
    alias: String,
    target: ArtifactPath,
}

#[derive(Clone, Debug)]
struct NewSbom {
    repository: RepositoryName,
    path: ArtifactPath,
    format: String,
    covers: String,
}

impl StatementBuilder {
    /// Adds an artifact.
    #[must_use]
    pub fn item(mut self, item: Item) -> StatementBuilder {
        self.items.push(item);
        self
    }

    /// Adds artifacts.
    #[must_use]
    pub fn items(mut self, items: impl IntoIterator<Item = Item>) -> StatementBuilder {
        self.items.extend(items);
        self
    }

    /// Makes `name/alias` another name for the item at `target`, in the same repository.
    #[must_use]
    pub fn alias(
        mut self,
        repository: RepositoryName,
        name: ArtifactPath,
        alias: &str,
        target: ArtifactPath,
    ) -> StatementBuilder {
        self.aliases.push(NewAlias { repository, name, alias: alias.into(), target });
        self
    }

    /// Says that the item at `path` is a bill of materials of this format, and what it covers.
    #[must_use]
    pub fn sbom(
        mut self,
        repository: RepositoryName,
        path: ArtifactPath,
        format: &str,
        covers: &str,
    ) -> StatementBuilder {
        self.sboms.push(NewSbom { repository, path, format: format.into(), covers: covers.into() });
        self
    }

    /// Adds a document about the bundle that is kept elsewhere.
    #[must_use]
    pub fn evidence(mut self, evidence: Evidence) -> StatementBuilder {
        self.evidence.push(evidence);
        self
    }

    /// Sets where the bundle may go.
    #[must_use]
    pub fn constraints(mut self, constraints: Constraints) -> StatementBuilder {
        self.constraints = constraints;
        self
    }

    /// Sorts, resolves and checks everything.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over a limit, [`ErrorKind::Invalid`] for any other fault.
    pub fn build(self) -> Result<Statement> {
        let mut items = self.items;
        items.sort_by(|a, b| name_bytes(a).cmp(name_bytes(b)));
        let index = |repository: &RepositoryName, path: &ArtifactPath| {
            find(&items, repository, path)
                .ok_or_else(|| Error::invalid(format!("there is no item {repository}/{path} to point at")))
        };
        let mut aliases = Vec::with_capacity(self.aliases.len());
        for new in self.aliases {
            let item = index(&new.repository, &new.target)?;
            let path = alias_path(&new.name, &new.alias)?;
            let format = items[item].format.clone();
            let NewAlias { repository, name, alias, .. } = new;
            aliases.push(Alias { repository, format, name, alias, path, item });
        }
        aliases.sort_by(|a, b| (&a.repository, &a.path).cmp(&(&b.repository, &b.path)));
        let mut sboms = Vec::with_capacity(self.sboms.len());
        for new in self.sboms {
            let item = index(&new.repository, &new.path)?;
            sboms.push(Sbom { item, format: new.format, covers: new.covers });
        }
        sboms.sort_by(|a, b| (a.item, &a.covers).cmp(&(b.item, &b.covers)));
        let bytes = total(&items)?;
        let statement = Statement {
            bundle: self.bundle,
            created: self.created,
            source: self.source,
            items,
            aliases,
            sboms,
            evidence: self.evidence,
            constraints: self.constraints,
            bytes,
        };
        statement.check()?;
        let names = statement.items.iter().map(|item| Cow::Owned(item.name())).collect();
        statement.check_names(names)?;
        Ok(statement)
    }
}

impl Statement {
    /// Joins parts that were read; the caller has checked that `names` are the items' names.
    pub(super) fn from_parts(
        head: (BundleRef, Timestamp, Source),
        items: Vec<Item>,
        aliases: Vec<Alias>,
        sboms: Vec<Sbom>,
        evidence: Vec<Evidence>,
        constraints: Constraints,
        names: Vec<Cow<'_, str>>,
    ) -> Result<Statement> {
        let bytes = total(&items)?;
        let (bundle, created, source) = head;
        let statement =
            Statement { bundle, created, source, items, aliases, sboms, evidence, constraints, bytes };
        statement.check()?;
        statement.check_names(names)?;
        Ok(statement)
    }

    fn check(&self) -> Result<()> {
        check_counts(self.items.len(), self.aliases.len(), self.sboms.len(), self.evidence.len())?;
        if self.bundle.seq == 0 || self.bundle.seq > limits::INTEGER {
            return Err(Error::invalid("\"seq\" is a number from 1 to 2^53 - 1"));
        }
        BundleName::new(&self.bundle.project).map_err(|error| error.context("\"project\""))?;
        check_text("the source's id", &self.source.id, 1)?;
        check_text("the source's label", &self.source.label, 0)?;
        check_text("the source's \"by\"", &self.source.by, 0)?;
        for item in &self.items {
            check_item(item).map_err(|error| error.context(format_args!("item {}", item.name())))?;
        }
        self.check_sizes()?;
        for alias in &self.aliases {
            let Some(item) = self.items.get(alias.item) else {
                return Err(no_item("alias", alias.item));
            };
            if item.repository != alias.repository || item.format != alias.format {
                return Err(Error::invalid(format!(
                    "the alias {}/{} points at an item of another repository or format: {}",
                    alias.repository,
                    alias.path,
                    item.name()
                )));
            }
        }
        for (at, sbom) in self.sboms.iter().enumerate() {
            if sbom.item >= self.items.len() {
                return Err(no_item("sbom", sbom.item));
            }
            check_format(&sbom.format)?;
            check_text("what an SBOM covers", &sbom.covers, 1)?;
            let twice = self.sboms[..at].iter().any(|one| one.item == sbom.item && one.covers == sbom.covers);
            if twice {
                return Err(Error::invalid(format!("the SBOM at item {} is listed twice", sbom.item)));
            }
        }
        for evidence in &self.evidence {
            check_media_type(&evidence.media_type)?;
        }
        self.constraints.check()
    }

    /// One digest is one blob, and one blob has one size.
    fn check_sizes(&self) -> Result<()> {
        let mut blobs: Vec<(&Digest, u64)> =
            self.items.iter().map(|item| (&item.digest, item.size)).collect();
        blobs.sort_unstable();
        match blobs.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1) {
            Some(pair) => Err(two_sizes(pair[0].0, pair[0].1, pair[1].1)),
            None => Ok(()),
        }
    }

    /// No two names may be one on any file system: equal after folding, or a file where another
    /// name needs a folder. `names` are the names of the items, in their order.
    fn check_names(&self, mut names: Vec<Cow<'_, str>>) -> Result<()> {
        for (item, name) in self.items.iter().zip(&mut names) {
            let plain = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
            if !plain {
                *name = Cow::Owned(format!("{}/{}", item.repository, item.path.folded()));
            }
        }
        let aliases = self.aliases.iter();
        names
            .extend(aliases.map(|alias| Cow::Owned(format!("{}/{}", alias.repository, alias.path.folded()))));
        names.sort_unstable();
        // Every name that starts with `name` follows it directly, so the names that the present
        // one starts with form a stack.
        let mut open: Vec<&str> = Vec::new();
        for name in &names {
            while open.last().is_some_and(|outer| !name.starts_with(outer)) {
                open.pop();
            }
            for outer in &open {
                match name.as_bytes().get(outer.len()) {
                    None => return Err(same_name(name)),
                    Some(b'/') => return Err(file_and_folder(outer, name)),
                    Some(_) => {}
                }
            }
            open.push(name);
        }
        Ok(())
    }
}

/// The bytes of the item's name, for comparing without building it.
fn name_bytes(item: &Item) -> impl Iterator<Item = u8> {
    item.repository.as_str().bytes().chain([b'/']).chain(item.path.as_str().bytes())
}

fn find(items: &[Item], repository: &RepositoryName, path: &ArtifactPath) -> Option<usize> {
    let wanted = || repository.as_str().bytes().chain([b'/']).chain(path.as_str().bytes());
    items.binary_search_by(|item| name_bytes(item).cmp(wanted())).ok()
}

fn total(items: &[Item]) -> Result<u64> {
    let sum = items.iter().try_fold(0_u64, |sum, item| sum.checked_add(item.size));
    sum.filter(|sum| *sum <= limits::INTEGER)
        .ok_or_else(|| Error::invalid("the sizes of the items add up to more than 2^53 - 1 bytes"))
}

/// The path at which an alias answers.
pub(super) fn alias_path(name: &ArtifactPath, alias: &str) -> Result<ArtifactPath> {
    if alias.contains('/') {
        return Err(Error::invalid(format!("the alias {alias:?} is more than one path segment")));
    }
    ArtifactPath::new(&format!("{name}/{alias}")).map_err(|error| error.context("an alias"))
}

pub(super) fn check_counts(items: usize, aliases: usize, sboms: usize, evidence: usize) -> Result<()> {
    if items == 0 {
        return Err(Error::invalid("a bundle has at least one item"));
    }
    let counts = [
        ("items", items, limits::ITEMS),
        ("aliases", aliases, limits::ALIASES),
        ("SBOM entries", sboms, limits::SBOMS),
        ("evidence entries", evidence, limits::EVIDENCE),
    ];
    match counts.iter().find(|(_, count, most)| count > most) {
        Some((what, count, most)) => Err(Error::new(
            ErrorKind::TooLarge,
            format!("the statement has {count} {what}, at most {most} are allowed"),
        )),
        None => Ok(()),
    }
}

fn check_item(item: &Item) -> Result<()> {
    if item.size > limits::INTEGER {
        return Err(Error::invalid("the size is more than 2^53 - 1"));
    }
    check_format(&item.format)?;
    if let Some(media_type) = &item.media_type {
        check_media_type(media_type)?;
    }
    let hex = |text: &Option<String>, length: usize| {
        text.as_ref().is_none_or(|text| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    if !hex(&item.checksums.sha1, 40) || !hex(&item.checksums.md5, 32) {
        return Err(Error::invalid("a legacy checksum is not lower-case hex of its length"));
    }
    Ok(())
}

fn check_format(format: &str) -> Result<()> {
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".+-_".contains(&byte);
    if format.is_empty() || format.len() > 64 || !format.bytes().all(byte) {
        let shown: String = format.chars().take(80).collect();
        return Err(Error::invalid(format!("{shown:?} is not a format: 1 to 64 of a-z 0-9 . + - _")));
    }
    Ok(())
}

/// A media type goes into a header field: printable ASCII, `type/subtype` and parameters.
fn check_media_type(text: &str) -> Result<()> {
    let visible = text.len() <= 255 && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*%'`|~".contains(&b))
    };
    let shaped = essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    if visible && shaped {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::invalid(format!("{shown:?} is not a media type")))
}

/// A text for people: no control characters, between `least` and 1,024 bytes.
pub(super) fn check_text(what: &str, text: &str, least: usize) -> Result<()> {
    if text.len() < least || text.len() > limits::TEXT || text.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{what} is not {least} to {} bytes without control characters",
            limits::TEXT
        )));
    }
    Ok(())
}

#[cold]
fn no_item(what: &str, index: usize) -> Error {
    Error::invalid(format!("an entry of \"{what}\" points at item {index}, which does not exist"))
}

#[cold]
fn two_sizes(digest: &Digest, one: u64, other: u64) -> Error {
    Error::invalid(format!("{digest} has {one} bytes in one item and {other} bytes in another"))
}

#[cold]
fn same_name(name: &str) -> Error {
    Error::invalid(format!("two names of the bundle are the same after case folding: {name:?}"))
}

#[cold]
fn file_and_folder(outer: &str, inner: &str) -> Error {
    Error::invalid(format!("{outer:?} is an artifact or alias and cannot be the folder of {inner:?}"))
}
