//! The oracle of OpenPGP: nothing is accepted that was not made from a genuine signature.

use std::sync::OnceLock;

use distedge::clock::Timestamp;
use distedge::key::{Acceptance, PublicKey};

/// What `gpg` made, with whether our policy accepts it.
#[derive(Debug)]
pub struct Fixture {
    /// The directory it is in.
    pub name: &'static str,
    /// Whether the three belong together and are acceptable.
    pub good: bool,
    /// The certificate, armored or binary.
    pub certificate: &'static [u8],
    /// What is signed.
    pub message: &'static [u8],
    /// The signature.
    pub signature: &'static [u8],
}

macro_rules! fixtures {
    ($($good:literal $name:literal)*) => {
        &[$(Fixture {
            name: $name,
            good: $good,
            certificate: include_bytes!(concat!("../../tests/data/openpgp/", $name, "/certificate")),
            message: include_bytes!(concat!("../../tests/data/openpgp/", $name, "/message")),
            signature: include_bytes!(concat!("../../tests/data/openpgp/", $name, "/signature")),
        }),*]
    };
}

/// The certificates that inputs choose from.
pub const FIXTURES: &[Fixture] = fixtures! {
    true "good-ed25519"
    true "good-p256"
    true "good-p384"
    true "good-rsa-2048-sha-512"
    true "good-rsa-3072"
    true "good-signing-subkey"
    true "good-key-expired-since"
    true "good-retired-since"
    true "good-binary-form"
    false "md5"
    false "sha-1"
    false "text-mode"
    false "signature-expired"
    false "signed-after-expiry"
    false "revoked-as-compromised"
    false "critical-notation"
    false "signed-by-another"
};

/// Later than the fixtures.
const NOW: Timestamp = Timestamp::from_unix(1_893_456_000);

/// A way, a fixture, and bytes. Ways: 0, a signature for the fixture's certificate and message;
/// 1, a certificate in binary and 2, one in armor, for the fixture's message and signature.
pub fn openpgp(data: &[u8]) -> bool {
    let [way, choice, bytes @ ..] = data else { return false };
    let index = usize::from(*choice) % FIXTURES.len();
    let fixture = &FIXTURES[index];
    let acceptance = Acceptance::at(NOW);
    if way % 3 == 0 {
        let key = &keys()[index];
        // Nobody ever signed this.
        assert!(key.verify(b"another message", bytes, &acceptance).is_err(), "{}: forged", fixture.name);
        let accepted = key.verify(fixture.message, bytes, &acceptance).is_ok();
        assert!(!accepted || is_derived(bytes), "{}: forged from nothing", fixture.name);
        return accepted;
    }
    let armored = if way % 3 == 1 {
        armor(bytes)
    } else {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        text.to_owned()
    };
    let Ok(key) = PublicKey::parse(&armored) else { return false };
    let again = PublicKey::parse(&key.to_text()).unwrap_or_else(|error| panic!("{error}: {armored}"));
    assert_eq!(again.id(), key.id(), "{armored}");
    assert_eq!(again.to_text(), key.to_text(), "{armored}");
    let accepted = key.verify(fixture.message, fixture.signature, &acceptance).is_ok();
    if accepted && key.id().as_str().len() == 40 {
        // A signature of the fixture is accepted only for a certificate with the same primary key.
        assert!(keys().iter().any(|genuine| genuine.id() == key.id()), "{}: {armored}", fixture.name);
    }
    true
}

fn keys() -> &'static [PublicKey] {
    static KEYS: OnceLock<Vec<PublicKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let parse = |fixture: &Fixture| {
            let binary = || armor(fixture.certificate);
            let text = std::str::from_utf8(fixture.certificate).map_or_else(|_| binary(), str::to_owned);
            PublicKey::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", fixture.name))
        };
        FIXTURES.iter().map(parse).collect()
    })
}

/// Whether a signature has 24 bytes of the numbers of a genuine and good one: nobody guesses so many.
fn is_derived(signature: &[u8]) -> bool {
    let signature = dearmored(signature);
    FIXTURES.iter().filter(|fixture| fixture.good).any(|fixture| {
        let genuine = dearmored(fixture.signature);
        let numbers = &genuine[genuine.len() - 64..];
        numbers.windows(24).any(|run| signature.windows(24).any(|other| other == run))
    })
}

/// The bytes in an armor, read without any strictness; what is not armored stays as it is.
fn dearmored(signature: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(signature);
    let Some((_, body)) = text.split_once("-----BEGIN PGP SIGNATURE-----") else { return signature.to_vec() };
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for line in
        body.lines().take_while(|line| !line.starts_with(['=', '-'])).filter(|line| !line.contains(':'))
    {
        for value in line.bytes().filter_map(sextet) {
            (bits, count) = ((bits << 6 | value) & 0xffff, count + 6);
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
    }
    bytes
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn sextet(byte: u8) -> Option<u32> {
    ALPHABET.iter().position(|one| *one == byte).map(|at| at as u32)
}

/// Bytes as an armored public key block, with the right checksum.
fn armor(bytes: &[u8]) -> String {
    let mut crc: u32 = 0xb7_04ce;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc = if crc & 0x80_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x186_4cfb };
        }
    }
    let mut text = String::from("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n");
    for line in bytes.chunks(48) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text.push_str(&format!("={}\n-----END PGP PUBLIC KEY BLOCK-----\n", base64(&crc.to_be_bytes()[1..])));
    text
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let shown = at <= chunk.len();
            text.push(if shown { char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]) } else { '=' });
        }
    }
    text
}
