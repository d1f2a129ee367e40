//! Checkpoints: signed notes over the size and the root of a log, and the cosignatures of witnesses.
//!
//! The forms are those of C2SP `signed-note`, `tlog-checkpoint` and `tlog-cosignature` (Ed25519,
//! `cosignature/v1`).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::{Digest, decode_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Acceptance, Algorithm, PublicKey, Signer};
use crate::merkle::{Hash, verify_consistency};

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 64 << 10;
/// The most signatures of a note. `signed-note`: verifiers must accept at least 16.
pub const MAX_SIGNATURES: usize = 64;

/// `signed-note`: Ed25519 signatures.
const ED25519: u8 = 0x01;
/// `signed-note`: timestamped Ed25519 cosignatures.
const COSIGNATURE: u8 = 0x04;

/// A line under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The key's id and the signature.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    fn parse(line: &str) -> Option<NoteSignature> {
        let (name, base64) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let bytes = STANDARD.decode(base64).ok().filter(|bytes| bytes.len() > 4)?;
        good_name(name).then(|| NoteSignature { name: name.to_owned(), bytes })
    }

    /// The line, with its end.
    pub fn to_line(&self) -> String {
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(&self.bytes))
    }

    fn is_by(&self, name: &str, id: [u8; 4]) -> bool {
        self.name == name && self.bytes.starts_with(&id)
    }
}

/// The size and the root of a log, and who signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// Their Merkle root.
    pub root: Hash,
    /// Who signed it.
    pub signatures: Vec<NoteSignature>,
}

impl Checkpoint {
    /// A checkpoint that nobody signed yet.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Checkpoint {
        Checkpoint { origin: origin.into(), size, root, signatures: Vec::new() }
    }

    /// Reads a note. Nothing it says counts before a signature is verified.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with what is wrong; extension lines are refused, because nobody could
    /// verify them.
    pub fn parse(bytes: &[u8]) -> Result<Checkpoint> {
        if bytes.len() > MAX_NOTE {
            return Err(bad("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(bad("it has control characters"));
        }
        // "The text is separated from the signatures by the last empty line in the note."
        let (body, lines) = text.rsplit_once("\n\n").ok_or_else(|| bad("it has no signatures"))?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| bad("its last line does not end"))?;
        let signatures: Option<Vec<NoteSignature>> = lines.split('\n').map(NoteSignature::parse).collect();
        let signatures = signatures.ok_or_else(|| bad("a signature line is malformed"))?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(bad("it has too many signatures"));
        }
        let [origin, size, root] = body.split('\n').collect::<Vec<_>>()[..] else {
            return Err(bad("it must have exactly an origin, a size and a root"));
        };
        let decimal = !size.is_empty()
            && size.bytes().all(|byte| byte.is_ascii_digit())
            && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| decimal).ok_or_else(|| bad("its size is no number"))?;
        let root = STANDARD.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        let root = root.ok_or_else(|| bad("its root is not 32 bytes of base64"))?;
        if !good_name(origin) {
            return Err(bad("its origin is no name"));
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, signatures })
    }

    /// The text that is signed: origin, size and root, a line each.
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The note: the text, an empty line, and the signatures.
    pub fn to_note(&self) -> String {
        let mut note = self.body();
        note.push('\n');
        self.signatures.iter().for_each(|signature| note.push_str(&signature.to_line()));
        note
    }

    /// Signs it as the log. The key's name is the origin.
    pub fn sign(&mut self, signer: &dyn Signer, now: Timestamp) -> Result<()> {
        let id = key_id(&self.origin, ED25519, &signer.public_key())?;
        let signature = signer.sign(self.body().as_bytes(), now)?;
        let bytes = [&id[..], &signature].concat();
        self.signatures.insert(0, NoteSignature { name: self.origin.clone(), bytes });
        Ok(())
    }

    /// Whether the log with this key signed it.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if not.
    pub fn verify(&self, key: &PublicKey, now: Timestamp) -> Result<()> {
        let id = key_id(&self.origin, ED25519, key)?;
        let mut found = false;
        for signature in self.signatures.iter().filter(|signature| signature.is_by(&self.origin, id)) {
            key.verify(self.body().as_bytes(), &signature.bytes[4..], &Acceptance::at(now))
                .map_err(|error| error.context("the checkpoint"))?;
            found = true;
        }
        if found {
            return Ok(());
        }
        Err(untrusted(format!("the checkpoint of {} is not signed by the key of its log", self.origin)))
    }

    /// Cosigns it as a witness called `name`: the caller has verified that it continues what this
    /// witness saw before (see [`Witness`]).
    fn cosignature(&self, name: &str, signer: &dyn Signer, now: Timestamp) -> Result<NoteSignature> {
        let id = key_id(name, COSIGNATURE, &signer.public_key())?;
        let time = now.as_unix().unsigned_abs();
        let signature = signer.sign(self.cosigned(time).as_bytes(), now)?;
        let bytes = [&id[..], &time.to_be_bytes(), &signature].concat();
        Ok(NoteSignature { name: name.to_owned(), bytes })
    }

    /// When the witness called `name` cosigned it; `None` if it did not.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if there is a line of this witness that does not hold.
    pub fn verify_cosignature(
        &self,
        name: &str,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let id = key_id(name, COSIGNATURE, key)?;
        let mut latest = None;
        for signature in self.signatures.iter().filter(|signature| signature.is_by(name, id)) {
            let time = signature.bytes[4..].first_chunk().map(|time| u64::from_be_bytes(*time));
            let time = time.filter(|time| *time <= i64::MAX as u64);
            let time = time.ok_or_else(|| untrusted(format!("the cosignature of {name} has no time")))?;
            key.verify(self.cosigned(time).as_bytes(), &signature.bytes[12..], &Acceptance::at(now))
                .map_err(|error| error.context(format_args!("the cosignature of {name}")))?;
            latest = latest.max(Some(Timestamp::from_unix(time as i64)));
        }
        Ok(latest)
    }

    /// The message of a `cosignature/v1`.
    fn cosigned(&self, time: u64) -> String {
        format!("cosignature/v1\ntime {time}\n{}", self.body())
    }
}

/// The name under which a log is known: `distedge/<edge>/<tenant>`.
pub fn origin(edge: &crate::name::NodeName, tenant: &crate::name::Tenant) -> String {
    format!("distedge/{edge}/{tenant}")
}

/// A log's or a witness's key as other tools take it (`signed-note`, *verifier keys*):
/// `<name>+<key id>+<base64 of the type and the key>`.
pub fn verifier_key(name: &str, cosigner: bool, key: &PublicKey) -> Result<String> {
    let kind = if cosigner { COSIGNATURE } else { ED25519 };
    let id = u32::from_be_bytes(key_id(name, kind, key)?);
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&raw(key)?);
    Ok(format!("{name}+{id:08x}+{}", STANDARD.encode(bytes)))
}

/// `SHA-256(key name || 0x0A || signature type || public key)[:4]`.
fn key_id(name: &str, kind: u8, key: &PublicKey) -> Result<[u8; 4]> {
    let digest = Digest::of(&[name.as_bytes(), b"\n", &[kind], &raw(key)?].concat());
    let [a, b, c, d, ..] = *digest.as_bytes();
    Ok([a, b, c, d])
}

fn raw(key: &PublicKey) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let text = if key.algorithm() == Algorithm::Ed25519 { key.to_text() } else { String::new() };
    let hex = text.strip_prefix("ed25519:").unwrap_or_default();
    decode_hex(hex, &mut bytes).ok_or_else(|| Error::invalid("checkpoints are signed by Ed25519 keys"))?;
    Ok(bytes)
}

/// `signed-note`: "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus".
fn good_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

#[cold]
fn bad(why: &str) -> Error {
    Error::invalid(format!("this is not a checkpoint: {why}"))
}

#[cold]
fn untrusted(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}

/// What a witness has seen of one log: the last checkpoint it cosigned.
///
/// A witness is worth what it remembers: store what [`observe`](Witness::observe) returns before the
/// cosignature leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Which log.
    pub origin: String,
    /// The key of the log.
    pub key: PublicKey,
    /// How many entries it had.
    pub size: u64,
    /// The note, as it was cosigned; empty before the first.
    pub note: String,
}

/// What came of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What the witness is to remember.
    pub witness: Witness,
    /// The note with the cosignature.
    pub checkpoint: Checkpoint,
}

impl Witness {
    /// A witness that has seen nothing of the log yet.
    pub fn new(origin: impl Into<String>, key: PublicKey) -> Witness {
        Witness { origin: origin.into(), key, size: 0, note: String::new() }
    }

    /// The checkpoint that was cosigned last.
    pub fn last(&self) -> Result<Option<Checkpoint>> {
        if self.note.is_empty() { Ok(None) } else { Checkpoint::parse(self.note.as_bytes()).map(Some) }
    }

    /// Cosigns a checkpoint as `name`, if the log signed it and `proof` shows that it continues the
    /// last one.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] for a checkpoint of another log or key; [`ErrorKind::Conflict`] if
    /// the log has become shorter or its past is another one: that is the alarm that a witness is
    /// for.
    pub fn observe(
        &self,
        note: &[u8],
        proof: &[Hash],
        name: &str,
        signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<Observed> {
        let mut checkpoint = Checkpoint::parse(note)?;
        if checkpoint.origin != self.origin {
            return Err(untrusted(format!("this is the log {}, not {}", checkpoint.origin, self.origin)));
        }
        checkpoint.verify(&self.key, now)?;
        if let Some(last) = self.last()? {
            if checkpoint.size < last.size {
                return Err(contradicted(&last, format!("it has {} entries", checkpoint.size)));
            }
            let (old, new) = (&last.root, &checkpoint.root);
            if !verify_consistency(last.size, old, checkpoint.size, new, proof) {
                return Err(contradicted(&last, "it does not continue them".into()));
            }
        }
        // Who else signed it is not this witness's to pass on.
        let own = key_id(&self.origin, ED25519, &self.key)?;
        checkpoint.signatures.retain(|signature| signature.is_by(&self.origin, own));
        checkpoint.signatures.push(checkpoint.cosignature(name, signer, now)?);
        let note = checkpoint.to_note();
        let witness =
            Witness { origin: self.origin.clone(), key: self.key.clone(), size: checkpoint.size, note };
        Ok(Observed { witness, checkpoint })
    }
}

#[cold]
fn contradicted(last: &Checkpoint, how: String) -> Error {
    let mut root = String::new();
    last.root.iter().take(8).for_each(|byte| write!(root, "{byte:02x}").unwrap_or_default());
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the log {} was rewritten: {} entries with the root {root}… were seen before, and {how}",
            last.origin, last.size
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::merkle::{Frontier, complete, consistency, leaf};

    const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

    fn key() -> SigningKey {
        SigningKey::generate(Algorithm::Ed25519, "", NOW).unwrap()
    }

    fn leaves(salt: u8, n: usize) -> Vec<Hash> {
        (0..n).map(|at| leaf(&[salt, at as u8])).collect()
    }

    fn checkpoint(leaves: &[Hash], key: &SigningKey) -> Checkpoint {
        let mut tree = Frontier::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf, |_, _| {}));
        let mut checkpoint = Checkpoint::new("distedge/e1/default", tree.size(), tree.root());
        checkpoint.sign(key, NOW).unwrap();
        checkpoint
    }

    fn proof(leaves: &[Hash], from: u64) -> Vec<Hash> {
        let whole = |level: u32, index: u64| -> Result<Hash> {
            let start = (index << level) as usize;
            Ok(complete(&leaves[start..start + (1 << level)]))
        };
        consistency(from, leaves.len() as u64, whole).unwrap()
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let (log, other) = (key(), key());
        let signed = checkpoint(&leaves(0, 5), &log);
        let note = signed.to_note();
        assert_eq!(Checkpoint::parse(note.as_bytes()).unwrap(), signed);
        signed.verify(&log.public_key(), NOW).unwrap();
        assert_eq!(signed.verify(&other.public_key(), NOW).unwrap_err().kind(), ErrorKind::Untrusted);
        let mut moved = signed.clone();
        moved.size += 1;
        assert!(moved.verify(&log.public_key(), NOW).is_err());
        for (from, to) in
            [("\n5\n", "\n05\n"), ("\n5\n", "\n5 \n"), ("\n\n", "\nextension\n\n"), ("\n\n", "\n")]
        {
            assert!(Checkpoint::parse(note.replacen(from, to, 1).as_bytes()).is_err(), "{from:?} {to:?}");
        }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        // C2SP tlog-cosignature, the example of its introduction.
        let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let read = Checkpoint::parse(note.as_bytes()).unwrap();
        assert_eq!((read.size, read.signatures.len()), (20_852_163, 2));
        assert_eq!(read.to_note(), note);
        let time = u64::from_be_bytes(*read.signatures[1].bytes[4..].first_chunk().unwrap());
        assert_eq!(time, 1_679_315_147);
    }

    #[test]
    fn a_witness_refuses_rollback_fork_and_stranger() {
        let (log, source) = (key(), key());
        let past = leaves(0, 9);
        let witness = Witness::new("distedge/e1/default", log.public_key());
        let see = |witness: &Witness, leaves: &[Hash], proof: &[Hash], key: &SigningKey| {
            witness.observe(checkpoint(leaves, key).to_note().as_bytes(), proof, "source/s1", &source, NOW)
        };
        let first = see(&witness, &past[..5], &[], &log).unwrap();
        let cosigned = first.checkpoint.verify_cosignature("source/s1", &source.public_key(), NOW).unwrap();
        assert_eq!(cosigned, Some(NOW));
        assert_eq!(first.checkpoint.verify_cosignature("source/s1", &log.public_key(), NOW).unwrap(), None);
        // The same again, and more of the same.
        see(&first.witness, &past[..5], &[], &log).unwrap();
        let second = see(&first.witness, &past, &proof(&past, 5), &log).unwrap();
        assert_eq!(second.witness.size, 9);
        // Rollback; fork, with the best proof there is; same size, other past; another key.
        assert_eq!(see(&second.witness, &past[..5], &[], &log).unwrap_err().kind(), ErrorKind::Conflict);
        let fork = leaves(1, 12);
        let error = see(&second.witness, &fork, &proof(&fork, 9), &log).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(see(&second.witness, &fork[..9], &[], &log).unwrap_err().kind(), ErrorKind::Conflict);
        let error = see(&second.witness, &past, &[], &key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
    }
}
