//! The DSSE 1.0.2 envelope: a payload, its type, and signatures over both.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;

use crate::bundle::{json, limits};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeySet, Signer, TrustedKey, pae, pae_head};

/// A payload with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The media type of the payload; signed with it.
    pub payload_type: String,
    /// The bytes that are signed, and the bytes that are read.
    pub payload: Bytes,
    /// One to 16 signatures.
    pub signatures: Vec<Signature>,
}

/// One signature of an [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Which key is said to have signed: a hint, never a proof. May be empty.
    pub keyid: String,
    /// The signature: 64 bytes of Ed25519, or an OpenPGP signature, armored or binary.
    pub sig: Vec<u8>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "payloadType")]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<WireSignature<'a>>,
}

#[derive(Deserialize)]
struct WireSignature<'a> {
    #[serde(borrow, default)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

impl Envelope {
    /// Reads an envelope of at most 32 MiB.
    ///
    /// Base64 is read in the standard and the URL-safe alphabet, with or without padding, in
    /// canonical form. Members that DSSE does not name are passed over, as DSSE demands; members
    /// given twice are refused.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over a limit, [`ErrorKind::Invalid`] for everything else.
    pub fn parse(bytes: &[u8]) -> Result<Envelope> {
        Envelope::parse_within(bytes, limits::ENVELOPE).map(|(envelope, _)| envelope)
    }

    /// Reads an envelope of at most `most` bytes; gives its [`pae`](Envelope::pae) with it.
    pub(crate) fn parse_within(bytes: &[u8], most: usize) -> Result<(Envelope, Bytes)> {
        if bytes.len() > most {
            return Err(too_large(format!(
                "the envelope has {} bytes, at most {most} are allowed",
                bytes.len()
            )));
        }
        let wire: Wire<'_> = json::parse("the envelope", bytes)?;
        if wire.payload_type.is_empty() || wire.payload_type.len() > limits::PAYLOAD_TYPE {
            return Err(Error::invalid("the envelope: \"payloadType\" is empty or too long"));
        }
        if wire.signatures.is_empty() {
            return Err(Error::invalid("the envelope has no signature"));
        }
        if wire.signatures.len() > limits::SIGNATURES {
            return Err(too_large(format!(
                "the envelope has {} signatures, at most {} are allowed",
                wire.signatures.len(),
                limits::SIGNATURES
            )));
        }
        let mut signatures = Vec::with_capacity(wire.signatures.len());
        for (at, signature) in wire.signatures.iter().enumerate() {
            if signature.keyid.len() > limits::KEY_ID {
                return Err(too_large(format!("the key id of signature {at} is too long")));
            }
            if signature.sig.len() / 4 * 3 > limits::SIGNATURE {
                return Err(too_large(format!("signature {at} has more than {} bytes", limits::SIGNATURE)));
            }
            let sig = decode(&signature.sig)
                .ok_or_else(|| Error::invalid(format!("signature {at} is not canonical base64")))?;
            signatures.push(Signature { keyid: signature.keyid.clone().into_owned(), sig });
        }
        // The payload is decoded behind the head of its pre-authentication encoding: what is
        // verified and what is read are the same bytes in memory.
        let head = pae_head(&wire.payload_type, decoded_length(&wire.payload));
        let message = Bytes::from(
            decode_behind(head.clone().into_bytes(), &wire.payload)
                .ok_or_else(|| Error::invalid("the envelope: \"payload\" is not canonical base64"))?,
        );
        let payload = message.slice(head.len()..);
        let payload_type = wire.payload_type.into_owned();
        Ok((Envelope { payload_type, payload, signatures }, message))
    }

    /// Signs `payload` with every one of `signers`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for no signer, too many, or one key twice; what a signer says.
    pub fn seal(
        payload_type: &str,
        payload: impl Into<Bytes>,
        signers: &[&dyn Signer],
        now: Timestamp,
    ) -> Result<Envelope> {
        if signers.is_empty() || signers.len() > limits::SIGNATURES {
            return Err(Error::invalid(format!(
                "an envelope is signed by 1 to {} keys, {} were given",
                limits::SIGNATURES,
                signers.len()
            )));
        }
        let payload = payload.into();
        let message = pae(payload_type, &payload);
        let mut signatures: Vec<Signature> = Vec::with_capacity(signers.len());
        for signer in signers {
            let keyid = signer.public_key().id().to_string();
            if signatures.iter().any(|one| one.keyid == keyid) {
                return Err(Error::invalid(format!("the key {keyid} was given twice to sign one envelope")));
            }
            signatures.push(Signature { keyid, sig: signer.sign(&message, now)? });
        }
        Ok(Envelope { payload_type: payload_type.into(), payload, signatures })
    }

    /// The envelope as JSON, base64 in the standard alphabet.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = String::with_capacity(self.payload.len() / 3 * 4 + 1024);
        out.push_str("{\"payloadType\":");
        push_string(&mut out, &self.payload_type);
        out.push_str(",\"payload\":\"");
        STANDARD.encode_string(&self.payload, &mut out);
        out.push_str("\",\"signatures\":[");
        for (at, signature) in self.signatures.iter().enumerate() {
            out.push_str(if at == 0 { "{\"keyid\":" } else { ",{\"keyid\":" });
            push_string(&mut out, &signature.keyid);
            out.push_str(",\"sig\":\"");
            STANDARD.encode_string(&signature.sig, &mut out);
            out.push_str("\"}");
        }
        out.push_str("]}");
        out.into_bytes()
    }

    /// The bytes that the signatures are over.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// The keys of `set` that signed, one for each owner.
    ///
    /// # Errors
    /// As [`KeySet::verify`].
    pub fn verify<'k>(&self, set: &'k KeySet, now: Timestamp) -> Result<Vec<&'k TrustedKey>> {
        self.verify_message(&self.pae(), set, now)
    }

    pub(crate) fn verify_message<'k>(
        &self,
        message: &[u8],
        set: &'k KeySet,
        now: Timestamp,
    ) -> Result<Vec<&'k TrustedKey>> {
        let signatures: Vec<(&str, &[u8])> =
            self.signatures.iter().map(|one| (one.keyid.as_str(), one.sig.as_slice())).collect();
        set.verify(message, &signatures, now)
    }

    pub(crate) fn expect_type(&self, expected: &str) -> Result<()> {
        if self.payload_type == expected {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the payload type is {:?}, expected {expected:?}", self.payload_type),
        ))
    }
}

/// Decodes base64 in either alphabet, not a mix, with all padding or none, unused bits zero.
fn decode(text: &str) -> Option<Vec<u8>> {
    decode_behind(Vec::new(), text)
}

/// As [`decode`], appended to `out`.
fn decode_behind(mut out: Vec<u8>, text: &str) -> Option<Vec<u8>> {
    let standard =
        |block: &[u8]| block.iter().fold(false, |found, byte| found | (*byte == b'+') | (*byte == b'/'));
    let engine: &GeneralPurpose = match (text.as_bytes().chunks(256).any(standard), text.ends_with('=')) {
        (true, true) => &STANDARD,
        (true, false) => &STANDARD_NO_PAD,
        (false, true) => &URL_SAFE,
        (false, false) => &URL_SAFE_NO_PAD,
    };
    out.reserve_exact(text.len() / 4 * 3 + 3);
    engine.decode_vec(text, &mut out).ok()?;
    Some(out)
}

/// How many bytes the base64 `text` stands for.
fn decoded_length(text: &str) -> usize {
    let digits = text.trim_end_matches('=').len();
    digits / 4 * 3 + (digits % 4).saturating_sub(1)
}

fn push_string(out: &mut String, text: &str) {
    // A string always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cold]
fn too_large(message: String) -> Error {
    Error::new(ErrorKind::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(kind: &str, payload: &str, signatures: &str) -> Result<Envelope> {
        Envelope::parse(
            format!(r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":{signatures}}}"#)
                .as_bytes(),
        )
    }

    /// DSSE 1.0.2, protocol.md, test vector.
    #[test]
    fn pae_of_the_specification() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn base64_is_read_in_both_alphabets_and_one_spelling() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("+/8=", b"\xfb\xff"),
            ("-_8=", b"\xfb\xff"),
            ("-_8", b"\xfb\xff"),
            ("AAAA", b"\0\0\0"),
            ("QQ", b"A"),
            ("QQ==", b"A"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
            assert_eq!(decoded_length(text), bytes.len(), "{text}");
        }
        for bad in ["QR==", "QR", "Q", "QQ=", "QQ===", "=", "+_8=", "QQ==QQ==", "Q Q=", "QQ\n==", " QQ", "é"]
        {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn members_that_dsse_does_not_name_are_passed_over() {
        let read = Envelope::parse(
            br#"{"x":{"y":[1]},"payload":"QQ==","payloadType":"t","signatures":[{"sig":"QQ==","cert":"z"}]}"#,
        );
        let read = read.unwrap();
        assert_eq!((read.payload.as_ref(), read.signatures[0].keyid.as_str()), (&b"A"[..], ""));
        assert_eq!(Envelope::parse(&read.to_json()).unwrap(), read);
        let (again, message) = Envelope::parse_within(&read.to_json(), 1024).unwrap();
        assert_eq!(message, again.pae());
    }

    #[test]
    fn members_given_twice_or_not_at_all_are_refused() {
        for bad in [
            &br#"{"payload":"QQ==","payload":"QQ==","payloadType":"t","signatures":[{"sig":"QQ=="}]}"#[..],
            br#"{"payload":"QQ==","payloadType":"t","payloadType":"t","signatures":[{"sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","payloadType":"t","signatures":[{"sig":"QQ=="}],"signatures":[{"sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","payloadType":"t","signatures":[{"sig":"QQ==","sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","p\u0061yload":"QQ==","payloadType":"t","signatures":[{"sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","payloadType":"t","x":1,"x":1,"signatures":[{"sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","payloadType":"t"}"#,
            br#"{"payload":"QQ==","payloadType":"","signatures":[{"sig":"QQ=="}]}"#,
            br#"{"payload":"QQ==","payloadType":"t","signatures":[]}"#,
            br#"{"payload":"QQ==","payloadType":"t","signatures":[{"keyid":null,"sig":"QQ=="}]}"#,
            br#"{"payload":null,"payloadType":"t","signatures":[{"sig":"QQ=="}]}"#,
            br#"["t","QQ==",[{"sig":"QQ=="}]]"#,
            br#"[]"#,
        ] {
            let error = Envelope::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let kind = |error: Result<Envelope>| error.unwrap_err().kind();
        assert_eq!(kind(Envelope::parse(&vec![b'x'; limits::ENVELOPE + 1])), ErrorKind::TooLarge);
        let signatures = |count: usize| format!("[{}]", vec![r#"{"sig":"QQ=="}"#; count].join(","));
        assert!(envelope("t", "QQ==", &signatures(16)).is_ok());
        assert_eq!(kind(envelope("t", "QQ==", &signatures(17))), ErrorKind::TooLarge);
        let long = format!(r#"[{{"sig":"{}"}}]"#, "A".repeat(limits::SIGNATURE / 3 * 4 + 8));
        assert_eq!(kind(envelope("t", "QQ==", &long)), ErrorKind::TooLarge);
        let long = format!(r#"[{{"keyid":"{}","sig":"QQ=="}}]"#, "a".repeat(limits::KEY_ID + 1));
        assert_eq!(kind(envelope("t", "QQ==", &long)), ErrorKind::TooLarge);
        assert_eq!(kind(envelope(&"t".repeat(256), "QQ==", &signatures(1))), ErrorKind::Invalid);
    }
}
