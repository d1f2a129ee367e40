//! Signed URLs: their keys, minting, listing, revocation, stored policies, and the one path under
//! which clients of Artifactory ask for the same.

use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::access::{Action, Principal, Resource};
use crate::audit::kind;
use crate::clock::Timestamp;
use crate::digest::decode_hex;
use crate::edge::authorize::authorize;
use crate::edge::problem::Problem;
use crate::edge::service::nothing;
use crate::edge::tenancy::mount;
use crate::edge::{Body, Connection, media};
use crate::error::{Error, ErrorKind};
use crate::govern::{
    KeyRecord, LinkInfo, Links, LinksApplied, MintOrder, Minted, PolicyRecord, RevocationUpdate,
};
use crate::key::PublicKey;
use crate::link::{KeyName, LinkAlgorithm, LinkId, LinkKey, LinkPolicy, LinkResource, Note, PolicyName};
use crate::name::ArtifactPath;
use crate::secret::Secret;

/// Longest wish of who mints or administers.
const QUESTION: usize = 64 << 10;
/// Longest update of revocations that is taken.
const UPDATE: usize = 8 << 20;
/// Most links of one page.
const PAGE: usize = 1_000;
/// Says the id of a link where the body is the URL alone.
const LINK_ID: HeaderName = HeaderName::from_static("x-link-id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyWish {
    #[serde(default, alias = "id")]
    name: Option<KeyName>,
    algorithm: LinkAlgorithm,
    /// A `v1` secret that was made elsewhere, in 64 hex digits.
    #[serde(default)]
    secret: Option<String>,
    /// The public half of a `v2` key that was made elsewhere.
    #[serde(default)]
    public: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeWish {
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    everything: bool,
    #[serde(default)]
    policy: Option<PolicyName>,
    #[serde(default)]
    key: Option<KeyName>,
    reason: String,
}

/// What JFrog's clients send; members that they also send and that change nothing are passed over.
#[derive(Deserialize)]
struct ForeignWish {
    repo_path: String,
    #[serde(default)]
    valid_for_secs: Option<i64>,
    /// In milliseconds since the epoch.
    #[serde(default)]
    expiry: Option<i64>,
}

#[derive(Serialize)]
struct KeyAnswer<'a> {
    id: &'a KeyName,
    #[serde(flatten)]
    record: &'a KeyRecord,
}

impl Call<'_> {
    fn links_here(&self) -> Result<&Links, Problem> {
        self.edge.governance().links.as_ref().ok_or_else(|| self.unknown())
    }

    /// `/api/v1/link-keys`.
    pub(super) async fn link_keys(&self, rest: &[&str], body: Body) -> Answer {
        let links = self.links_here()?;
        match rest {
            [] => {
                self.methods("GET, HEAD, POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                if self.admitted.method == Method::POST {
                    return self.make_key(links, body).await;
                }
                let keys = links.keys().await?;
                let seen: Vec<KeyAnswer<'_>> =
                    keys.iter().map(|(id, record)| KeyAnswer { id, record }).collect();
                media::json(self.admitted.head, &seen)
            }
            [name, step @ ("retire" | "revoke")] => {
                self.methods("POST")?;
                self.may(Action::Administer, Resource::Edge)?;
                let name = KeyName::new(name).map_err(|_| nothing())?;
                let reason = self.reason(body).await?;
                if *step == "retire" {
                    links.retire_key(&name).await?;
                } else {
                    links.revoke_key(&name, self.noted(&reason)).await?;
                }
                let event = self.event(kind::LINK_KEY_CHANGED).about(name.to_string());
                self.record(event.because(format!("{step}: {reason}"))).await?;
                let keys = links.keys().await?;
                let found = keys.iter().find(|(own, _)| *own == name).ok_or_else(nothing)?;
                media::json(false, &KeyAnswer { id: &found.0, record: &found.1 })
            }
            _ => Err(self.unknown()),
        }
    }

    async fn make_key(&self, links: &Links, body: Body) -> Answer {
        let wish: KeyWish = self.json(body, QUESTION).await?;
        let (who, now) = (self.asker.principal.to_string(), self.asker.now);
        let named = || match wish.name.clone() {
            Some(name) => Ok(name),
            None => KeyName::generate(),
        };
        let (name, record) = match (wish.algorithm, &wish.secret, &wish.public) {
            (algorithm, None, None) => links.create_key(wish.name, algorithm, &who, now).await?,
            (LinkAlgorithm::HmacSha256, Some(hex), None) => {
                let mut bytes = zeroize::Zeroizing::new([0; 32]);
                decode_hex(hex, &mut *bytes).ok_or_else(|| {
                    Error::invalid("the secret of a v1 link key is 64 lower-case hex digits")
                })?;
                let key = LinkKey::hmac(named()?, Secret::new(bytes.as_slice()), now)?;
                links.add_key(key, &who).await?
            }
            (LinkAlgorithm::Ed25519, None, Some(public)) => {
                let key = LinkKey::public(named()?, PublicKey::parse(public)?, now)?;
                links.add_key(key, &who).await?
            }
            _ => {
                let message = "a v1 key comes with a secret, a v2 key with its public half, or neither";
                return Err(Problem::of(&Error::invalid(message)));
            }
        };
        let event = self.event(kind::LINK_KEY_CREATED).about(name.to_string());
        if let Err(problem) = self.record(event.because(format!("{} key", record.algorithm))).await {
            // What nobody can read of has not happened.
            links.revoke_key(&name, unrecorded(now)).await?;
            return Err(problem);
        }
        let mut response = media::json(false, &KeyAnswer { id: &name, record: &record })?;
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }

    /// `/api/v1/links`.
    pub(super) async fn links(&self, rest: &[&str], body: Body) -> Answer {
        let links = self.links_here()?;
        match rest {
            [] if self.admitted.method == Method::POST => {
                let order: MintOrder = self.json(body, QUESTION).await?;
                let minted = self.mint(links, &order).await?;
                let url = self.absolute(links, &minted.path);
                let answer = json!({
                    "id": minted.record.claims.id,
                    "url": url.expose_str(),
                    "path": minted.path.expose_str(),
                    "token": minted.token.expose_str(),
                    "expires": minted.record.claims.expires,
                    "key": minted.record.key,
                    "claims": minted.record.claims,
                });
                let mut response = media::json(false, &answer)?;
                *response.status_mut() = StatusCode::CREATED;
                Ok(response)
            }
            [] => {
                self.methods("GET, HEAD, POST")?;
                self.list_links(links).await
            }
            ["revoke"] => {
                self.methods("POST")?;
                self.revoke_many(links, body).await
            }
            [id] => {
                self.methods("GET, HEAD, DELETE")?;
                let id: LinkId = id.parse().map_err(|_| self.unknown())?;
                if self.admitted.method == Method::DELETE {
                    let info = self.take_back(links, id, body).await?;
                    return media::json(false, &info.as_ref().map_or_else(|| json!({ "id": id }), shown));
                }
                let info = self.own(links.link(id).await?)?;
                media::json(self.admitted.head, &shown(&info))
            }
            _ => Err(self.unknown()),
        }
    }

    /// Mints what the asker may mint: it needs the right to, and the right to read what the link
    /// opens, so that nobody gives away what they do not have.
    async fn mint(&self, links: &Links, order: &MintOrder) -> Result<Minted, Problem> {
        let resources = order.opens()?;
        // Somebody without any such right learns nothing of which resources there are.
        if resources.is_empty() {
            self.may(Action::Mint, Resource::Edge)?;
        }
        for resource in &resources {
            self.may_mint(resource).await?;
        }
        let (who, now) = (self.asker.principal.to_string(), self.asker.now);
        let minted = links.mint(order, &who, now).await?;
        let mut event = self.event(kind::LINK_MINTED).about(minted.record.claims.id.to_string());
        let first = &minted.record.claims.resources[0];
        event.repository = Some(first.repository().clone());
        event.path = first.path().cloned();
        let until = minted.record.claims.expires;
        if let Err(problem) = self.record(event.because(format!("until {until}"))).await {
            // Nobody has seen the token, and nobody is to use it.
            links.revoke_link(minted.record.claims.id, unrecorded(now)).await?;
            return Err(problem);
        }
        Ok(minted)
    }

    async fn may_mint(&self, resource: &LinkResource) -> Result<(), Problem> {
        let name = resource.repository();
        let record = self.edge.receiver().catalog().repository(name).await?;
        let public = record.is_some_and(|record| record.public);
        let judge = |path: Option<&ArtifactPath>| {
            let resource = Resource::Repository { name, path, public };
            // Where the client of the link will be is for the link's own use to tell.
            self.may(Action::Mint, resource).and_then(|()| self.has_right(Action::Read, resource))
        };
        judge(resource.path())?;
        if matches!(resource, LinkResource::Prefix { .. }) {
            // A right to a folder's name, or to some names in it, is not one to everything below it:
            // names that nobody can have thought of stand for the rest.
            let random = crate::digest::to_hex(Secret::random(12)?.expose());
            let folder = resource.path().map(|folder| format!("{folder}/")).unwrap_or_default();
            for below in [format!("{folder}{random}"), format!("{folder}{random}/{random}/{random}.x")] {
                judge(Some(&below.parse()?))?;
            }
        }
        Ok(())
    }

    async fn list_links(&self, links: &Links) -> Answer {
        let everything = self.mints_everywhere();
        if !everything && matches!(self.asker.principal, Principal::Anonymous) {
            return Err(self.unknown());
        }
        let (mut after, mut limit) = (None, 100);
        for pair in self.parts.uri.query().unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some(("after", id)) => after = Some(id.parse::<LinkId>()?),
                Some(("n", number)) => {
                    let read = number.parse().ok().filter(|number| (1..=PAGE).contains(number));
                    limit = read.ok_or_else(|| Error::invalid("n is from 1 to 1,000"))?;
                }
                _ => {}
            }
        }
        let page = links.list(after, limit).await?;
        let next = page.last().filter(|_| page.len() == limit).map(|last| last.link.claims.id);
        let who = self.asker.principal.to_string();
        let seen: Vec<Value> =
            page.iter().filter(|info| everything || info.link.who == who).map(shown).collect();
        media::json(self.admitted.head, &json!({ "links": seen, "next": next }))
    }

    /// Takes back one link: its maker may, and whoever may mint anything.
    async fn take_back(&self, links: &Links, id: LinkId, body: Body) -> Result<Option<LinkInfo>, Problem> {
        let found = links.link(id).await?;
        // A link that was minted elsewhere has no record here.
        if found.is_some() || !self.mints_everywhere() {
            self.own(found)?;
        }
        let reason = self.reason(body).await?;
        links.revoke_link(id, self.noted(&reason)).await?;
        let event = self.event(kind::LINK_REVOKED).about(id.to_string());
        self.record(event.because(reason)).await?;
        Ok(links.link(id).await?)
    }

    async fn revoke_many(&self, links: &Links, body: Body) -> Answer {
        let wish: RevokeWish = self.json(body, QUESTION).await?;
        let named = [wish.subject.is_some(), wish.everything, wish.policy.is_some(), wish.key.is_some()];
        let sensible = wish.reason.trim() == wish.reason && (1..=200).contains(&wish.reason.len());
        if named.iter().filter(|named| **named).count() != 1 || !sensible {
            let message = "one of subject, everything, policy and key, and a reason of 1 to 200 bytes";
            return Err(Problem::of(&Error::invalid(format!("what is expected here is {message}"))));
        }
        let right = if wish.subject.is_some() { Action::Mint } else { Action::Administer };
        self.may(right, Resource::Edge)?;
        let note = self.noted(&wish.reason);
        let (about, epoch) = if let Some(subject) = &wish.subject {
            (format!("subject:{subject}"), Some(links.revoke_subject(subject, note).await?))
        } else if let Some(policy) = &wish.policy {
            links.revoke_policy(policy, note).await?;
            (format!("policy:{policy}"), None)
        } else if let Some(key) = &wish.key {
            links.revoke_key(key, note).await?;
            (format!("key:{key}"), None)
        } else {
            (String::from("everything"), Some(links.revoke_everything(note).await?))
        };
        let event = self.event(kind::LINK_REVOKED).about(about.clone());
        self.record(event.because(wish.reason)).await?;
        media::json(false, &json!({ "revoked": about, "epoch": epoch, "sequence": links.sequence() }))
    }

    /// `/api/v1/link-policies`.
    pub(super) async fn link_policies(&self, rest: &[&str], body: Body) -> Answer {
        let links = self.links_here()?;
        match rest {
            [] => {
                self.methods("GET, HEAD")?;
                self.may(Action::Mint, Resource::Edge)?;
                let policies = links.policies().await?;
                let seen: Vec<Value> = policies.iter().map(|(name, record)| policy(name, record)).collect();
                media::json(self.admitted.head, &seen)
            }
            [name] => {
                self.methods("GET, HEAD, PUT, DELETE")?;
                let changes = matches!(self.admitted.method, Method::PUT | Method::DELETE);
                self.may(if changes { Action::Administer } else { Action::Mint }, Resource::Edge)?;
                let name = PolicyName::new(name)?;
                let event = self.event(kind::POLICY_CHANGED).about(format!("link-policy:{name}"));
                match self.admitted.method {
                    Method::PUT => {
                        let wish: LinkPolicy = self.json(body, QUESTION).await?;
                        let who = self.asker.principal.to_string();
                        // Before it is stored: it may widen what links open.
                        self.record(event.because("stored")).await?;
                        let record = links.set_policy(&name, wish, &who, self.asker.now).await?;
                        media::json(false, &policy(name.as_str(), &record))
                    }
                    Method::DELETE => {
                        if !links.remove_policy(&name).await? {
                            return Err(nothing());
                        }
                        self.record(event.because("removed: its links are dead")).await?;
                        media::json(false, &json!({ "id": name, "removed": true }))
                    }
                    _ => {
                        let record = links.policy(&name).await?.ok_or_else(nothing)?;
                        media::json(self.admitted.head, &policy(name.as_str(), &record))
                    }
                }
            }
            _ => Err(self.unknown()),
        }
    }

    /// `/api/v1/link-revocations`: what one node tells another. `GET` asks for those after a number,
    /// `POST` brings some, and `…/applied` tells the asker what is known here of its own list.
    pub(super) async fn link_revocations(&self, rest: &[&str], body: Body) -> Answer {
        let links = self.links_here()?;
        match rest {
            [] => self.methods("GET, HEAD, POST")?,
            ["applied"] => self.methods("GET, HEAD")?,
            _ => return Err(self.unknown()),
        }
        self.may(Action::Receive, Resource::Edge)?;
        let origin = match &self.asker.principal {
            Principal::Peer(peer) => peer.name.to_string(),
            other => other.to_string(),
        };
        if self.admitted.method == Method::POST {
            let update: RevocationUpdate = self.json(body, UPDATE).await?;
            let count = update.revocations.len();
            let applied = links.apply(&origin, update, self.asker.now).await?;
            let kind = if count > 0 { kind::LINK_REVOKED } else { kind::LINK_KEY_CHANGED };
            let event = self.event(kind).about(format!("update:{applied}"));
            self.record(event.because(format!("{count} revocations of {origin}"))).await?;
            return media::json(false, &LinksApplied { applied, keys: links.shared_keys() });
        }
        let query = self.parts.uri.query().unwrap_or_default();
        let given = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        if !rest.is_empty() {
            let applied = links.applied(&origin, given("list=")).await?;
            return media::json(self.admitted.head, &LinksApplied { applied, keys: links.shared_keys() });
        }
        let after = given("after=").unwrap_or("0");
        let after = after.parse().map_err(|_| Error::invalid("after is the number of a revocation"))?;
        media::json(self.admitted.head, &links.update(after).await?)
    }

    /// `/artifactory/api/signed/url`: the answer is a URL of ours, as text. JFrog's own has no way
    /// to take one back; here `DELETE` with the id, which a header tells, does.
    pub(super) async fn signed_url(&self, rest: &[&str], body: Body) -> Answer {
        let links = self.links_here()?;
        match rest {
            [] => {
                self.methods("POST")?;
                let wish: ForeignWish = self.json(body, QUESTION).await?;
                let now = self.asker.now;
                let expires = match (wish.valid_for_secs, wish.expiry) {
                    (Some(_), Some(_)) => {
                        let message = "one of valid_for_secs and expiry says how long the URL lives";
                        return Err(Problem::of(&Error::invalid(message)));
                    }
                    (Some(seconds), None) => Some(now.plus(seconds)),
                    (None, Some(milliseconds)) => Some(Timestamp::from_unix(milliseconds.div_euclid(1000))),
                    (None, None) => None,
                };
                let resource = wish.repo_path.trim_start_matches('/').to_owned();
                if resource.ends_with('/') {
                    return Err(Problem::of(&Error::invalid("a signed URL is for one artifact")));
                }
                let order = MintOrder { resources: vec![resource], expires, ..MintOrder::default() };
                let minted = self.mint(links, &order).await?;
                let url = self.absolute(links, &minted.path);
                let mut response = media::document(false, "text/plain", url.expose());
                *response.status_mut() = StatusCode::CREATED;
                let id = HeaderValue::try_from(minted.record.claims.id.to_string())
                    .map_err(|_| Error::new(ErrorKind::Internal, "a link's id cannot stand in a header"))?;
                response.headers_mut().insert(LINK_ID, id);
                Ok(response)
            }
            [id] => {
                self.methods("DELETE")?;
                let id: LinkId = id.parse().map_err(|_| self.unknown())?;
                self.take_back(links, id, body).await?;
                let mut response: Response<Body> = media::document(false, "text/plain", "");
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().remove(CONTENT_TYPE);
                response.headers_mut().remove(http::header::CONTENT_LENGTH);
                Ok(response)
            }
            _ => Err(self.unknown()),
        }
    }

    /// A record that the asker made, or may see because it may mint anything.
    fn own(&self, found: Option<LinkInfo>) -> Result<LinkInfo, Problem> {
        let who = self.asker.principal.to_string();
        let anonymous = matches!(self.asker.principal, Principal::Anonymous);
        let seen = found.filter(|info| self.mints_everywhere() || !anonymous && info.link.who == who);
        seen.ok_or_else(|| self.unknown())
    }

    fn mints_everywhere(&self) -> bool {
        let may = |action| authorize(self.edge.policies(), self.asker, action, Resource::Edge).is_ok();
        may(Action::Mint) || may(Action::Administer)
    }

    fn noted(&self, reason: &str) -> Note {
        Note { reason: reason.to_owned(), who: self.asker.principal.to_string(), at: self.asker.now }
    }

    /// The URL of a path of this edge: under the address that the operator named, or under which the
    /// request found it.
    fn absolute(&self, links: &Links, path: &Secret) -> Secret {
        let path = path.expose_str().unwrap_or_default();
        let mount = mount(self.parts);
        if let Some(base) = links.base() {
            return Secret::new(format!("{}{mount}{path}", base.trim_end_matches('/')));
        }
        let secure = self.parts.extensions.get::<Connection>().is_some_and(|connection| connection.secure);
        let scheme = if secure { "https" } else { "http" };
        let host = self.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        match self.parts.uri.authority().map(|authority| authority.as_str()).or(host) {
            Some(host) => Secret::new(format!("{scheme}://{host}{mount}{path}")),
            None => Secret::new(format!("{mount}{path}")),
        }
    }
}

/// Why something that was not recorded does not stay.
fn unrecorded(now: Timestamp) -> Note {
    let reason = "its making could not be recorded";
    Note { reason: reason.into(), who: "system".into(), at: now }
}

/// A link as it is shown; the token is shown to who minted it, once.
fn shown(info: &LinkInfo) -> Value {
    let claims = &info.link.claims;
    let resources: Vec<String> = claims.resources.iter().map(LinkResource::to_string).collect();
    json!({
        "id": claims.id,
        "resources": resources,
        "issued": claims.issued,
        "expires": claims.expires,
        "subject": claims.subject,
        "key": info.link.key,
        "who": info.link.who,
        "claims": claims,
        "dead": info.dead,
        "revoked": info.link.revoked,
        "usage": info.usage,
    })
}

fn policy(name: &str, record: &PolicyRecord) -> Value {
    json!({ "id": name, "policy": record.policy, "who": record.who, "at": record.at })
}
