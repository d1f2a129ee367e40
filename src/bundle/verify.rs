//! From the bytes of an envelope to a bundle that may be trusted: a pure function of bytes, trust
//! and time.

use crate::bundle::dsse::Envelope;
use crate::bundle::limits;
use crate::bundle::statement::{STATEMENT_PAYLOAD, Statement};
use crate::bundle::trust::TrustDocument;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::key::TrustedKey;
use crate::name::NodeName;

/// A bundle whose signatures and form were checked. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedBundle {
    envelope: Envelope,
    statement: Statement,
    payload_digest: Digest,
    signers: Vec<TrustedKey>,
}

impl VerifiedBundle {
    /// What is in the bundle.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The envelope it came in.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The digest of the statement's payload bytes: the identity of the bundle.
    pub fn payload_digest(&self) -> Digest {
        self.payload_digest
    }

    /// The keys that signed, one for each owner.
    pub fn signers(&self) -> &[TrustedKey] {
        &self.signers
    }

    /// The statement alone.
    pub fn into_statement(self) -> Statement {
        self.statement
    }
}

/// Checks the signatures of an envelope under the release keys of `trust`, then reads its
/// statement.
///
/// Whether one edge may have the bundle is another question: [`admit`].
///
/// # Errors
/// [`ErrorKind::TooLarge`] over a limit; [`ErrorKind::Unsupported`] for another payload type, or,
/// once the signatures are good, for another `_type` or `predicateType`;
/// [`ErrorKind::Untrusted`] if the signatures or the tenant do not carry it;
/// [`ErrorKind::Invalid`] for a fault of form.
pub fn verify(envelope: &[u8], trust: &TrustDocument, now: Timestamp) -> Result<VerifiedBundle> {
    // 4. Parse the envelope strictly (duplicate payload, payloadType, signatures refused);
    //    payloadType compared byte for byte; base64 or base64url, canonical.
    // 5. Build PAE once over the decoded bytes.
    let (envelope, message) = Envelope::parse_within(envelope, limits::ENVELOPE)?;
    envelope.expect_type(STATEMENT_PAYLOAD)?;

    // 6. For each signature try the keys of the release role of this tenant.
    // 7. Count distinct owners, not key ids.
    // 8. Fewer than the threshold: reject. Only now parse the payload.
    let signers: Vec<TrustedKey> =
        envelope.verify_message(&message, &trust.release, now)?.into_iter().cloned().collect();

    // 9. Statement: _type, predicateType, unknown members, subjects and items one to one and
    //    sorted by bytes, digests sha256 only, names by the path rules, no two equal after NFC
    //    and case folding in one repository, totals right.
    let statement = Statement::parse(&envelope.payload)?;

    // 10. Context: the tenant is the one whose keys signed.
    let tenant = &statement.bundle().tenant;
    if *tenant != trust.tenant {
        return Err(untrusted(format!(
            "the bundle {} belongs to the tenant {tenant}, the trust document is of {}",
            statement.bundle(),
            trust.tenant
        )));
    }
    let payload_digest = Digest::of(&envelope.payload);
    Ok(VerifiedBundle { envelope, statement, payload_digest, signers })
}

/// Whether `edge` may hold the bundle now: `trust` assigns it there with this digest, its own
/// constraints allow it, and it is not withdrawn.
///
/// # Errors
/// [`ErrorKind::Gone`] if it is withdrawn; [`ErrorKind::Conflict`] if this name and version are
/// assigned with another digest; [`ErrorKind::Untrusted`] if they are not assigned to this edge;
/// [`ErrorKind::Forbidden`] if the bundle's constraints exclude it.
pub fn admit(bundle: &VerifiedBundle, trust: &TrustDocument, edge: &NodeName) -> Result<()> {
    let named = bundle.statement.bundle();
    if named.tenant != trust.tenant {
        return Err(untrusted(format!("the bundle {named} belongs to another tenant")));
    }
    // 10. Context: ... not withdrawn. A withdrawn name and version never returns, with whatever
    //     content.
    if let Some(withdrawal) = trust.withdrawal(&named.name, &named.version) {
        return Err(Error::new(
            ErrorKind::Gone,
            format!("the bundle {named} was withdrawn at {}: {}", withdrawal.at, withdrawal.reason),
        ));
    }
    let assigned =
        trust.assignments.iter().find(|one| one.bundle == named.name && one.version == named.version);
    let Some(assigned) = assigned.filter(|one| one.edges.contains(edge)) else {
        return Err(untrusted(format!("the bundle {named} is not assigned to the edge {edge}")));
    };
    if assigned.digest != bundle.payload_digest {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the bundle {named} is assigned with the digest {}, this one has {}",
                assigned.digest, bundle.payload_digest
            ),
        ));
    }
    let Some(entry) = trust.edge(edge) else {
        return Err(untrusted(format!("the edge {edge} is not listed in the trust document")));
    };
    if !bundle.statement.constraints().permits_edge(entry) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!("the constraints of the bundle {named} exclude the edge {edge}"),
        ));
    }
    Ok(())
}

#[cold]
fn untrusted(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}
