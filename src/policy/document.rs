//! The policy document of a tenant: what it may say, and how it is read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::duty::Duties;
use super::read::{Reader, check_name, within};
use super::steer::Template;
use super::words::{Hours, Language, Net, Selector};
use crate::access::{Action, ActionSet, Reach};
use crate::error::{Error, Result};
use crate::json;
use crate::name::{BundleName, RepositoryName, Version};
use crate::pattern::Pattern;
use crate::place::Country;

/// Largest document, in bytes of JSON.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// Most grants, restrictions and steering rules, each.
pub const MAX_RULES: usize = 10_000;
/// Most entries of a list inside a rule.
const MAX_ENTRIES: usize = 1_000;
/// Most entries of a named list of networks or of a group.
const MAX_LIST: usize = 200_000;

/// The policy of a tenant. TOML and JSON have the same shape; `examples/edge/policy.toml` shows
/// every key.
///
/// A document is read as a whole or not at all: [`from_value`](Document::from_value) checks every
/// name and every reference in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Document {
    /// What it is for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Members of groups: users, service accounts and paired services.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<Selector>>,
    /// Lists of networks that restrictions name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Vec<Net>>,
    /// Who may do what.
    #[serde(rename = "grant", skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// From where, and when.
    #[serde(rename = "restrict", skip_serializing_if = "Vec::is_empty")]
    pub restrictions: Vec<Restriction>,
    /// Who gets which version under one address.
    #[serde(rename = "steer", skip_serializing_if = "Vec::is_empty")]
    pub steers: Vec<Steer>,
    /// What one person must not do alone.
    #[serde(skip_serializing_if = "Duties::is_empty")]
    pub duties: Duties,
}

/// Gives rights.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Grant {
    /// Its name, unique among the grants.
    pub name: String,
    /// To whom.
    pub to: Vec<Selector>,
    /// To do what.
    pub may: Vec<Action>,
    /// On what.
    pub on: Vec<Reach>,
}

/// Narrows what is granted. Every part that is set must be met; a denial wins, and what is not on
/// an allow list is denied. What could not be told (an address, a country, the bundle of an
/// artifact) never meets a part that asks for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Restriction {
    /// Its name, unique among the restrictions.
    pub name: String,
    /// What it is about; everything by default.
    pub on: Vec<Reach>,
    /// The actions it is about; `read` and `list` by default.
    pub actions: Vec<Action>,
    /// Whom it is about; everybody by default, holders of signed URLs included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<Selector>,
    /// The bundles it is about; all by default. An artifact of several bundles is restricted by
    /// each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<Pattern>,
    /// The versions of bundles it is about; all by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Pattern>,
    /// Networks of the clients.
    #[serde(skip_serializing_if = "Sides::is_empty")]
    pub networks: Sides<Net>,
    /// Countries of the clients.
    #[serde(skip_serializing_if = "Sides::is_empty")]
    pub countries: Sides<Country>,
    /// Hours in which it may be done; always by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hours>,
}

/// What is allowed and what is denied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sides<T> {
    /// Only these; `None` for all that is not denied, an empty list for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<T>>,
    /// Not these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<T>,
}

impl<T> Default for Sides<T> {
    fn default() -> Sides<T> {
        Sides { allow: None, deny: Vec::new() }
    }
}

impl<T> Sides<T> {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

/// Sends clients that ask for one path to the version that is meant for them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Steer {
    /// Its name, unique among the steering rules.
    pub name: String,
    /// The repository.
    pub repository: RepositoryName,
    /// The path that clients ask for: one path, or everything below a folder (`shop/current/**`).
    pub from: Template,
    /// The path they get: `{version}` stands for what was chosen, `**` for the same as in `from`.
    pub to: Template,
    /// The bundle whose artifact it must be.
    pub bundle: BundleName,
    /// Who gets what; see [`CompiledPolicy::steered`](super::CompiledPolicy::steered) for the order.
    pub choose: Vec<Choice>,
    /// What the others get.
    pub otherwise: Otherwise,
}

/// Clients, and what they get.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Choice {
    /// Clients in one of these countries; in every place, known or not, if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<Country>,
    /// Clients that prefer one of these languages; all if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<Language>,
    /// What they get.
    #[serde(flatten)]
    pub then: Chosen,
}

/// What a steering rule puts for `{version}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Chosen {
    /// A version of the bundle.
    Version(Version),
    /// An alias: whichever version it means at the moment.
    Alias(Version),
}

impl Chosen {
    /// The text that takes the place of `{version}`.
    pub fn as_str(&self) -> &str {
        match self {
            Chosen::Version(version) | Chosen::Alias(version) => version.as_str(),
        }
    }
}

/// What clients get for whom no choice is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Otherwise {
    /// Nothing.
    #[default]
    Deny,
    /// This.
    #[serde(untagged)]
    Take(Chosen),
}

impl Document {
    /// Reads a document from JSON text.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) if it is over [`MAX_DOCUMENT`], not
    /// strict JSON (duplicate keys are refused), or as [`from_value`](Document::from_value).
    pub fn from_json(bytes: &[u8]) -> Result<Document> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::invalid(format!(
                "the policy has {} bytes, at most {MAX_DOCUMENT} are allowed",
                bytes.len()
            )));
        }
        Document::from_value(&json::parse("the policy", bytes)?)
    }

    /// Reads a document from a value that was read from JSON or TOML.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) with everything that is wrong, each
    /// with its place (`grant[3].may[1]: …`); for an unknown key also the one that was probably
    /// meant. What one part says of another is only looked at when every part can be read.
    pub fn from_value(value: &Value) -> Result<Document> {
        let mut reader = Reader::default();
        let document = read(&mut reader, value);
        reader.finish(document)
    }

    /// The document as JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // Every part of it has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The document as a JSON value.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

const KEYS: [&str; 7] = ["description", "groups", "networks", "grant", "restrict", "steer", "duties"];

fn read(reader: &mut Reader, value: &Value) -> Document {
    let Some(table) = reader.table(value, "", &KEYS) else { return Document::default() };
    let mut document = Document {
        description: reader.optional::<Text>(table, "", "description").map(|text| text.0),
        groups: reader.lists(table, "groups", MAX_LIST),
        networks: reader.lists(table, "networks", MAX_LIST),
        ..Document::default()
    };
    for (place, item) in reader.items(table, "", "grant", MAX_RULES) {
        document.grants.extend(grant(reader, item, &place));
    }
    for (place, item) in reader.items(table, "", "restrict", MAX_RULES) {
        document.restrictions.extend(restriction(reader, item, &place));
    }
    for (place, item) in reader.items(table, "", "steer", MAX_RULES) {
        document.steers.extend(steer(reader, item, &place));
    }
    if let Some(value) = table.get("duties") {
        document.duties = duties(reader, value);
    }
    // Places are those of what is written only as long as every part of it was read.
    if reader.is_clean() {
        check(reader, &document);
    }
    document
}

/// Any text of at most 1,000 characters.
struct Text(String);

impl std::str::FromStr for Text {
    type Err = Error;

    fn from_str(text: &str) -> Result<Text> {
        match text.chars().count() {
            0..=1000 => Ok(Text(text.to_owned())),
            more => Err(Error::invalid(format!("it has {more} characters, at most 1000 are allowed"))),
        }
    }
}

/// The name of a rule.
struct Name(String);

impl std::str::FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        check_name(text).map(|()| Name(text.to_owned())).map_err(Error::invalid)
    }
}

fn grant(reader: &mut Reader, value: &Value, place: &str) -> Option<Grant> {
    let table = reader.table(value, place, &["name", "to", "may", "on"])?;
    let name = reader.required::<Name>(table, place, "name");
    let grant = Grant {
        name: name?.0,
        to: reader.texts(table, place, "to", MAX_ENTRIES),
        may: reader.texts(table, place, "may", MAX_ENTRIES),
        on: reader.texts(table, place, "on", MAX_ENTRIES),
    };
    for (key, empty) in
        [("to", grant.to.is_empty()), ("may", grant.may.is_empty()), ("on", grant.on.is_empty())]
    {
        if empty && table.get(key).is_none_or(|value| value.as_array().is_some_and(Vec::is_empty)) {
            reader
                .fault(place, format!("{key:?} is missing: a grant says to whom, what they may and on what"));
        }
    }
    Some(grant)
}

fn restriction(reader: &mut Reader, value: &Value, place: &str) -> Option<Restriction> {
    const KEYS: [&str; 9] =
        ["name", "on", "actions", "principals", "bundles", "versions", "networks", "countries", "hours"];
    let table = reader.table(value, place, &KEYS)?;
    let name = reader.required::<Name>(table, place, "name");
    let mut restriction = Restriction {
        name: name?.0,
        on: reader.texts(table, place, "on", MAX_ENTRIES),
        actions: reader.texts(table, place, "actions", MAX_ENTRIES),
        principals: reader.texts(table, place, "principals", MAX_ENTRIES),
        bundles: reader.texts(table, place, "bundles", MAX_ENTRIES),
        versions: reader.texts(table, place, "versions", MAX_ENTRIES),
        networks: sides(reader, table.get("networks"), &within(place, "networks"), MAX_LIST),
        countries: sides(reader, table.get("countries"), &within(place, "countries"), MAX_ENTRIES),
        hours: reader.texts(table, place, "hours", MAX_ENTRIES),
    };
    // An empty list would be read as "nothing" by one and as "everything" by another.
    for key in ["on", "actions", "principals", "bundles", "versions", "hours"] {
        if table.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            reader.fault(&within(place, key), "it is empty; leave it out if everything is meant");
        }
    }
    if !["networks", "countries", "hours"].iter().any(|key| table.contains_key(*key)) {
        reader.fault(place, "it restricts nothing: expected networks, countries or hours");
    }
    if restriction.on.is_empty() {
        restriction.on.push(Reach::Everything);
    }
    if restriction.actions.is_empty() {
        restriction.actions.extend([Action::Read, Action::List]);
    }
    Some(restriction)
}

fn sides<T: std::str::FromStr<Err = Error>>(
    reader: &mut Reader,
    value: Option<&Value>,
    place: &str,
    most: usize,
) -> Sides<T> {
    let Some(table) = value.and_then(|value| reader.table(value, place, &["allow", "deny"])) else {
        return Sides::default();
    };
    if table.is_empty() {
        reader.fault(place, "it is empty: expected allow or deny");
    }
    if table.get("deny").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        reader.fault(&within(place, "deny"), "it is empty; leave it out if nothing is denied");
    }
    let allow = table.contains_key("allow").then(|| reader.texts(table, place, "allow", most));
    Sides { allow, deny: reader.texts(table, place, "deny", most) }
}

fn steer(reader: &mut Reader, value: &Value, place: &str) -> Option<Steer> {
    const KEYS: [&str; 7] = ["name", "repository", "from", "to", "bundle", "choose", "otherwise"];
    let table = reader.table(value, place, &KEYS)?;
    let name = reader.required::<Name>(table, place, "name");
    let repository = reader.required(table, place, "repository");
    let from: Option<Template> = reader.required(table, place, "from");
    let to: Option<Template> = reader.required(table, place, "to");
    let bundle = reader.required(table, place, "bundle");
    let mut choose = Vec::new();
    for (place, item) in reader.items(table, place, "choose", MAX_ENTRIES) {
        choose.extend(choice(reader, item, &place));
    }
    let otherwise = match table.get("otherwise") {
        None => Otherwise::Deny,
        Some(Value::String(text)) if text == "deny" => Otherwise::Deny,
        Some(value @ Value::Object(_)) => {
            let place = within(place, "otherwise");
            let table = reader.table(value, &place, &["version", "alias"])?;
            Otherwise::Take(chosen(reader, table, &place)?)
        }
        Some(_) => {
            reader.fault(&within(place, "otherwise"), "expected \"deny\", { version = … } or { alias = … }");
            return None;
        }
    };
    if choose.is_empty() && otherwise == Otherwise::Deny && !table.contains_key("choose") {
        reader.fault(place, "\"choose\" is missing");
    }
    let (from, to) = (from?, to?);
    if from.has_version() {
        reader.fault(&within(place, "from"), "{version} stands only in \"to\"");
    }
    if from.is_folder() != to.is_folder() {
        reader.fault(place, "\"from\" and \"to\" must both end in /** or both be one path");
    }
    Some(Steer { name: name?.0, repository: repository?, from, to, bundle: bundle?, choose, otherwise })
}

fn choice(reader: &mut Reader, value: &Value, place: &str) -> Option<Choice> {
    let table = reader.table(value, place, &["countries", "languages", "version", "alias"])?;
    for key in ["countries", "languages"] {
        if table.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            reader.fault(&within(place, key), "it is empty; leave it out if all are meant");
        }
    }
    Some(Choice {
        countries: reader.texts(table, place, "countries", MAX_ENTRIES),
        languages: reader.texts(table, place, "languages", MAX_ENTRIES),
        then: chosen(reader, table, place)?,
    })
}

fn chosen(reader: &mut Reader, table: &serde_json::Map<String, Value>, place: &str) -> Option<Chosen> {
    match (table.contains_key("version"), table.contains_key("alias")) {
        (true, false) => reader.required(table, place, "version").map(Chosen::Version),
        (false, true) => reader.required(table, place, "alias").map(Chosen::Alias),
        _ => {
            reader.fault(place, "expected one of version and alias");
            None
        }
    }
}

fn duties(reader: &mut Reader, value: &Value) -> Duties {
    let keys = ["signer_may_not_distribute", "four_eyes"];
    let Some(table) = reader.table(value, "duties", &keys) else { return Duties::default() };
    let four_eyes: Vec<Action> = reader.texts(table, "duties", "four_eyes", MAX_ENTRIES);
    for (at, action) in four_eyes.iter().enumerate() {
        if !matches!(action, Action::Distribute | Action::Withdraw) {
            reader.fault(
                &format!("duties.four_eyes[{at}]"),
                "only distribute and withdraw wait for a second person",
            );
        }
    }
    Duties {
        signer_may_not_distribute: reader.flag(table, "duties", "signer_may_not_distribute"),
        four_eyes: four_eyes.into_iter().collect::<ActionSet>(),
    }
}

/// What can only be told from the document as a whole.
fn check(reader: &mut Reader, document: &Document) {
    for (name, members) in &document.groups {
        for (at, member) in members.iter().enumerate() {
            if !matches!(member, Selector::User(_) | Selector::Service(_) | Selector::Peer(_)) {
                reader.fault(&format!("groups.{name}[{at}]"), "a member is a user, a service or a peer");
            }
        }
    }
    for (name, nets) in &document.networks {
        for (at, net) in nets.iter().enumerate() {
            if !matches!(net, Net::Network(_)) {
                reader
                    .fault(&format!("networks.{name}[{at}]"), "a list has networks, no lists and no \"any\"");
            }
        }
        if matches!(name.parse(), Ok(Net::Any | Net::Network(_)) | Err(_)) {
            reader.fault(
                "networks",
                format!("{name:?} reads like an address; choose another name for the list"),
            );
        }
    }
    let mut names = BTreeSet::new();
    for (at, grant) in document.grants.iter().enumerate() {
        let place = format!("grant[{at}]");
        if !names.insert(("grant", grant.name.as_str())) {
            reader.fault(&place, format!("there is another grant with the name {:?}", grant.name));
        }
        for (at, to) in grant.to.iter().enumerate() {
            if *to == Selector::Link {
                reader.fault(
                    &format!("{place}.to[{at}]"),
                    "nothing is granted to signed URLs: what one opens, it says itself",
                );
            }
        }
        reaches(reader, &place, &grant.on);
    }
    for (at, restriction) in document.restrictions.iter().enumerate() {
        let place = format!("restrict[{at}]");
        if !names.insert(("restrict", restriction.name.as_str())) {
            reader
                .fault(&place, format!("there is another restriction with the name {:?}", restriction.name));
        }
        reaches(reader, &place, &restriction.on);
        let lists = [
            ("allow", restriction.networks.allow.as_deref().unwrap_or_default()),
            ("deny", &restriction.networks.deny),
        ];
        for (side, nets) in lists {
            for (at, net) in nets.iter().enumerate() {
                if let Net::List(name) = net
                    && !document.networks.contains_key(name)
                {
                    reader.fault(
                        &format!("{place}.networks.{side}[{at}]"),
                        format!("{name:?} is neither a network nor a list under [networks]"),
                    );
                }
            }
        }
    }
    for (at, steer) in document.steers.iter().enumerate() {
        if !names.insert(("steer", steer.name.as_str())) {
            reader.fault(
                &format!("steer[{at}]"),
                format!("there is another steer with the name {:?}", steer.name),
            );
        }
    }
}

/// A pattern without a `/` names no artifact: `files` is meant as `files/**`.
fn reaches(reader: &mut Reader, place: &str, reaches: &[Reach]) {
    for (at, reach) in reaches.iter().enumerate() {
        if let Reach::Artifacts(pattern) = reach
            && !pattern.as_str().contains('/')
            && !pattern.as_str().contains("**")
        {
            reader.fault(
                &format!("{place}.on[{at}]"),
                format!("{pattern} reaches nothing: what is in a repository is reached by {pattern}/**"),
            );
        }
    }
}
