//! What can be read of a bundle: its description, its envelope in the forms that other tools
//! verify, its statement, SBOMs and receipt.

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::json;

use super::authorize::{Asker, authorize};
use super::download::{Wish, restricted};
use super::problem::Problem;
use super::service::{Edge, may_read, nothing, withdrawn};
use super::{Admitted, Body, media};
use crate::access::{Action, Resource};
use crate::blob::BlobStoreExt as _;
use crate::bundle::{self, Envelope, Statement};
use crate::catalog::{BundleRecord, BundleState};
use crate::distribute::BundleAnswer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Algorithm, KeyId};
use crate::name::{BundleName, Holder, Version};

/// The media type of an envelope on the wire.
pub(super) const ENVELOPE_TYPE: &str = "application/vnd.in-toto.release-bundle+dsse";
/// Most bytes of SBOMs that are summarised for one answer; the others are listed without it.
const SBOM_LIMIT: u64 = 64 * 1024 * 1024;

/// Whether the asker may see a bundle: a committed or withdrawn one whose every repository they
/// may read.
pub(super) async fn may_see(edge: &Edge, asker: &Asker, record: &BundleRecord) -> Result<bool> {
    if !matches!(record.state, BundleState::Committed | BundleState::Withdrawn)
        || record.repositories.is_empty()
    {
        return Ok(false);
    }
    may_read(edge, asker, &record.repositories).await
}

pub(super) async fn respond(
    edge: &Edge,
    parts: &Parts,
    admitted: &Admitted,
    asker: &Asker,
    name: &BundleName,
    version: &Version,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    let catalog = edge.receiver().catalog();
    let record = catalog.bundle(name, version).await?;
    let everything =
        authorize(edge.policies(), asker, Action::Read, Resource::Bundle { name: Some(name) }).is_ok();
    let seen = match &record {
        Some(record) => everything || may_see(edge, asker, record).await?,
        None => false,
    };
    let Some(record) = record.filter(|_| seen) else { return Err(edge.refuse(asker)) };
    let held = [Holder(name.clone(), version.clone())];
    let request = asker.wants(Action::Read, Resource::Bundle { name: Some(name) }).with_holders(&held);
    // Who brings bundles here reads what it brought, wherever it is.
    let resource = request.resource;
    if let Err(refusal) = edge.policies().restrict(&request)
        && authorize(edge.policies(), asker, Action::Receive, resource).is_err()
    {
        edge.denied(asker, resource, &refusal);
        return Err(restricted(asker));
    }
    if rest.is_empty() {
        // Which blobs are missing costs a look at each of them; it is for who can send them.
        let sends = authorize(edge.policies(), asker, Action::Receive, Resource::Bundle { name: Some(name) });
        if sends.is_err() {
            return media::json(admitted.head, &BundleAnswer::from(&record));
        }
        let described = edge.receiver().describe(name, version).await?.ok_or_else(nothing)?;
        return media::json(admitted.head, &described);
    }
    if record.state == BundleState::Withdrawn
        && let Some(gone) = &record.gone
    {
        return Err(withdrawn(gone));
    }
    if rest == ["receipt"] {
        let receipt = catalog.receipt(name, version).await?.ok_or_else(nothing)?;
        return Ok(named(media::document(admitted.head, "application/json", receipt), "receipt.json"));
    }
    let stored = catalog.envelope(name, version).await?.ok_or_else(nothing)?;
    // The envelope goes out as it is; for everything else it is taken apart.
    let copies = if rest == ["envelope"] { 1 } else { 4 };
    let share = edge.outgoing().take(copies * stored.len() as u64)?;
    let mut response = parts_of(edge, parts, admitted, asker, stored, rest).await?;
    response.body_mut().on_end(move |_| drop(share));
    Ok(response)
}

/// The answer for what is made of an envelope.
async fn parts_of(
    edge: &Edge,
    parts: &Parts,
    admitted: &Admitted,
    asker: &Asker,
    stored: Bytes,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    let catalog = edge.receiver().catalog();
    let head = admitted.head;
    let key = key_parameter(parts)?;
    match rest {
        ["envelope"] => Ok(named(media::document(head, ENVELOPE_TYPE, stored), "release-bundle.json.dsse")),
        ["statement"] => {
            let envelope = Envelope::parse(&stored)?;
            Ok(named(media::document(head, bundle::STATEMENT_PAYLOAD, envelope.payload), "statement.json"))
        }
        ["pae"] => {
            let pae = bundle::pae_file(&Envelope::parse(&stored)?);
            Ok(named(media::document(head, "application/octet-stream", pae), "release-bundle.pae"))
        }
        ["pae.asc"] => {
            let envelope = Envelope::parse(&stored)?;
            let signature = bundle::detached_signature(&envelope, key.as_ref())?.to_vec();
            Ok(named(media::document(head, "application/pgp-signature", signature), "release-bundle.pae.asc"))
        }
        ["pae.sig"] => {
            let envelope = Envelope::parse(&stored)?;
            let signature = bundle::raw_signature(&envelope, key.as_ref())?.to_vec();
            Ok(named(media::document(head, "application/octet-stream", signature), "release-bundle.pae.sig"))
        }
        ["sigstore"] => {
            let envelope = Envelope::parse(&stored)?;
            let key = match key {
                Some(key) => key,
                None => ed25519_key(edge, &envelope).await?,
            };
            let text = bundle::sigstore_bundle(&envelope, &key)?;
            Ok(named(
                media::document(head, "application/vnd.dev.sigstore.bundle.v0.3+json", text),
                "release-bundle.sigstore.json",
            ))
        }
        ["sbom"] => sboms(edge, head, &statement(&stored)?).await,
        ["sbom", index] => {
            let statement = statement(&stored)?;
            let index: usize = index.parse().map_err(|_| nothing())?;
            let sbom = statement.sboms().get(index).ok_or_else(nothing)?;
            let item = &statement.items()[sbom.item];
            let artifact = catalog.artifact(&item.repository, &item.path).await?.ok_or_else(nothing)?;
            // The right to read this very artifact, not only the bundle's documents.
            let public = catalog.repository(&item.repository).await?.is_some_and(|known| known.public);
            let resource = Resource::Repository { name: &item.repository, path: Some(&item.path), public };
            let Ok(authorized) = authorize(edge.policies(), asker, Action::Read, resource) else {
                return Err(edge.refuse(asker));
            };
            {
                let wish = Wish {
                    asker,
                    repository: &item.repository,
                    path: &item.path,
                    public,
                    steered: false,
                    bound: false,
                };
                edge.deliver(parts, &wish, &authorized, &artifact, None).await
            }
        }
        _ => Err(nothing()),
    }
}

async fn sboms(edge: &Edge, head: bool, statement: &Statement) -> Result<Response<Body>, Problem> {
    let mut list = Vec::new();
    let mut summarised = 0;
    for (index, sbom) in statement.sboms().iter().enumerate() {
        let item = &statement.items()[sbom.item];
        let mut entry = json!({
            "index": index,
            "format": sbom.format,
            "covers": sbom.covers,
            "artifact": item.name(),
            "digest": item.digest,
            "size": item.size,
        });
        if item.size <= SBOM_LIMIT - summarised {
            summarised += item.size;
            let _share = edge.outgoing().take(2 * item.size)?;
            let bytes = edge.receiver().blobs().read(&item.digest, SBOM_LIMIT).await?;
            if let Some(summary) = bytes.and_then(|bytes| bundle::summarize(&bytes)) {
                entry["components"] = json!(summary.components);
                entry["name"] = json!(summary.name);
            }
        }
        list.push(entry);
    }
    media::json(head, &list)
}

fn statement(envelope: &[u8]) -> Result<Statement> {
    Statement::parse(&Envelope::parse(envelope)?.payload)
}

/// The first Ed25519 key of the tenant that has a signature in the envelope.
async fn ed25519_key(edge: &Edge, envelope: &Envelope) -> Result<KeyId, Problem> {
    let trust = edge.receiver().trust().await?;
    let keys = trust.iter().flat_map(|trust| &trust.release.keys).map(|trusted| &trusted.key);
    let mut ids = keys.filter(|key| key.algorithm() == Algorithm::Ed25519).map(|key| key.id());
    ids.find(|id| envelope.signatures.iter().any(|signature| signature.keyid == id.as_str())).ok_or_else(
        || {
            Problem::new(
                StatusCode::NOT_FOUND,
                ErrorKind::NotFound.as_str(),
                "No Ed25519 key has signed this bundle.",
            )
        },
    )
}

/// The `key` parameter: the id of the key whose signature is wanted.
fn key_parameter(parts: &Parts) -> Result<Option<KeyId>> {
    let query = parts.uri.query().unwrap_or_default();
    let mut ids = query.split('&').filter_map(|pair| pair.strip_prefix("key="));
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => KeyId::new(id).map(Some),
        _ => Err(Error::invalid("\"key\" is given more than once")),
    }
}

fn named(mut response: Response<Body>, file_name: &'static str) -> Response<Body> {
    // The names are constants of this file: visible ASCII without quotes.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{file_name}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    response
}
