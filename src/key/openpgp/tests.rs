//! What is accepted and what is not, case by case.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::forge::{self, Case, DAY, MESSAGE};
use super::gnupg::{self, Gpg};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::key::{Revocation, Window};
use crate::secret::Secret;

/// `now`, any window, no revocation.
pub(super) fn open_acceptance(now: Timestamp) -> Acceptance {
    Acceptance { now, window: Window { from: Timestamp::EPOCH, until: None }, revocation: None }
}

pub(super) fn judge(case: &Case, acceptance: &Acceptance) -> Result<()> {
    Certificate::parse(&case.certificate)?.verify(&case.message, &case.signature, acceptance)
}

pub(super) fn check(case: &Case, expected: Option<&str>, acceptance: &Acceptance) {
    match (judge(case, acceptance), expected) {
        (Ok(()), None) => {}
        (Ok(()), Some(why)) => panic!("{}: accepted, and should be refused: {why:?}", case.name),
        (Err(error), None) => panic!("{}: {error}", case.name),
        (Err(error), Some(why)) => {
            assert!(error.message().contains(why), "{}: {error:?} should say {why:?}", case.name);
            assert!(
                matches!(error.kind(), ErrorKind::Untrusted | ErrorKind::Invalid | ErrorKind::TooLarge),
                "{}: {error:?}",
                case.name
            );
        }
    }
}

#[test]
fn forged_cases_are_judged_by_the_policy() {
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    for (case, expected) in forge::cases(seconds).into_iter().chain(forge::rsa_cases(seconds)) {
        check(&case, expected, &open_acceptance(now));
    }
}

fn expected(name: &str) -> Option<&'static str> {
    gnupg::TABLE.iter().find(|(row, _)| *row == name).unwrap_or_else(|| panic!("no row {name}")).1
}

#[test]
fn what_gpg_makes_is_judged_by_the_policy() {
    if !gnupg::has("gpg") {
        return;
    }
    let now = SystemClock.now();
    let gpg = Gpg::new();
    let cases = gnupg::cases(&gpg, u32::try_from(now.as_unix()).unwrap());
    assert_eq!(cases.len(), gnupg::TABLE.len());
    for case in cases {
        check(&case, expected(&case.name), &open_acceptance(now));
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openpgp")
}

/// The same without gpg, from what it once made.
#[test]
fn fixtures_are_judged_by_the_policy() {
    for (name, expected) in gnupg::TABLE {
        let read = |file: &str| std::fs::read(fixtures().join(name).join(file)).unwrap();
        let case = Case {
            name: (*name).to_owned(),
            certificate: read("certificate"),
            message: read("message"),
            signature: read("signature"),
        };
        // Later than the fixtures, whatever the clock of the machine says.
        check(&case, *expected, &open_acceptance("2030-01-01T00:00:00Z".parse().unwrap()));
    }
}

/// Writes what [`fixtures_are_judged_by_the_policy`] reads.
#[test]
#[ignore = "writes the fixtures anew: run it by hand after a change of the table"]
fn fixtures_are_written() {
    let now = u32::try_from(SystemClock.now().as_unix()).unwrap();
    for case in gnupg::cases(&Gpg::new(), now) {
        let folder = fixtures().join(&case.name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("certificate"), &case.certificate).unwrap();
        std::fs::write(folder.join("message"), &case.message).unwrap();
        std::fs::write(folder.join("signature"), &case.signature).unwrap();
    }
}

#[test]
fn a_signature_stands_in_its_window_and_before_its_revocation() {
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    let owner = forge::Owner::new(&pgp::composed::KeyType::Ed25519Legacy, seconds - 100 * DAY);
    let certificate =
        Certificate::parse(&owner.certificate(seconds - 100 * DAY, vec![forge::flags(true, true)])).unwrap();
    let day = i64::from(DAY);
    let at = now.plus(-10 * day);
    let signature = forge::sign_at(&owner.key, seconds - 10 * DAY, MESSAGE);
    let judge = |acceptance: Acceptance| certificate.verify(MESSAGE, &signature, &acceptance);

    let window = |from, until| Acceptance { window: Window { from, until }, ..open_acceptance(now) };
    judge(window(at, Some(at.plus(1)))).unwrap();
    for outside in [window(at.plus(1), None), window(Timestamp::EPOCH, Some(at))] {
        assert!(judge(outside).unwrap_err().message().contains("outside the window"));
    }

    let revoked = |at, compromised| Acceptance {
        revocation: Some(Revocation { at, reason: "laptop lost".into(), compromised }),
        ..open_acceptance(now)
    };
    judge(revoked(at.plus(1), false)).unwrap();
    let late = judge(revoked(at, false)).unwrap_err();
    assert!(late.message().contains("laptop lost") && late.kind() == ErrorKind::Untrusted, "{late}");
    assert!(judge(revoked(now, true)).unwrap_err().message().contains("compromised"));

    // The clock of an edge may be a little behind that of the signer.
    judge(Acceptance { now: at.plus(-MAX_AHEAD), ..open_acceptance(now) }).unwrap();
    let early = judge(Acceptance { now: at.plus(-MAX_AHEAD - 1), ..open_acceptance(now) }).unwrap_err();
    assert!(early.message().contains("from the future"), "{early}");
}

/// A signature of a thousand packets, or of 64 MiB, is refused by its size and not by its weight.
#[test]
fn floods_are_refused_at_once() {
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    let owner = forge::Owner::new(&pgp::composed::KeyType::Ed25519Legacy, seconds - DAY);
    let certificate = owner.certificate(seconds - DAY, vec![forge::flags(true, true)]);
    let one = forge::sign_at(&owner.key, seconds, MESSAGE);
    let line = format!("{}\n", "A".repeat(64));
    let flood = format!("-----BEGIN PGP SIGNATURE-----\n\n{}", line.repeat(64 * 1024 * 1024 / line.len()));
    let many_keys = [certificate.clone(), forge::sign_at(&owner.key, seconds, MESSAGE).repeat(500)].concat();
    let parsed = Certificate::parse(&certificate).unwrap();

    for (name, signature) in [
        ("1,000 packets", one.repeat(1_000)),
        ("300 packets", one.repeat(300)),
        ("1,000 small packets", [0xc2, 0].repeat(1_000)),
        ("64 MiB of armor", flood.into_bytes()),
        ("64 MiB of packets", one.repeat(64 * 1024 * 1024 / one.len())),
    ] {
        let begun = Instant::now();
        let refusal = parsed.verify(MESSAGE, &signature, &open_acceptance(now)).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(refusal.kind(), ErrorKind::TooLarge, "{name}: {refusal}");
        assert!(took.as_millis() < 50, "{name} took {took:?}");
    }
    let begun = Instant::now();
    assert!(Certificate::parse(&many_keys).is_err());
    assert!(Certificate::parse(&vec![0x99; 64 * 1024 + 1]).is_err());
    assert!(begun.elapsed().as_millis() < 50);
}

#[test]
fn what_is_signed_here_stands() {
    let now = SystemClock.now();
    let key = SecretCertificate::generate("Acme releases <releases@acme.example>", now).unwrap();
    let signature = key.sign(MESSAGE, now).unwrap();
    assert!(signature.starts_with(b"-----BEGIN PGP SIGNATURE-----\n"));
    let certificate = key.certificate();
    certificate.verify(MESSAGE, &signature, &open_acceptance(now)).unwrap();
    assert!(certificate.verify(b"other", &signature, &open_acceptance(now)).is_err());
    assert_eq!(certificate.fingerprint().len(), 40);
    assert!(!format!("{key:?}").contains("secret"));

    let again = SecretCertificate::parse(&key.to_secret()).unwrap();
    assert_eq!(again.certificate().to_armored(), certificate.to_armored());
    let by_again = again.sign(MESSAGE, now.plus(60)).unwrap();
    let read = Certificate::parse(certificate.to_armored().as_bytes()).unwrap();
    read.verify(MESSAGE, &by_again, &open_acceptance(now)).unwrap();

    let early = key.sign(MESSAGE, now.plus(-1)).unwrap_err();
    assert!(early.message().contains("was made at"), "{early}");
    for bad in ["", "a\nb", &"x".repeat(257)] {
        assert_eq!(SecretCertificate::generate(bad, now).unwrap_err().kind(), ErrorKind::Invalid);
    }

    let case = Case {
        name: "ours".into(),
        certificate: certificate.to_armored().into_bytes(),
        message: MESSAGE.to_vec(),
        signature,
    };
    if gnupg::has("gpg") {
        let seconds = u32::try_from(now.as_unix()).unwrap();
        assert!(Gpg::new().accepts(seconds, &case));
    }
    if gnupg::has("sqv") {
        assert!(gnupg::sqv_accepts(tempfile::tempdir().unwrap().path(), &case));
    }
}

#[test]
fn secret_keys_of_gpg_sign_unless_they_are_rsa_or_locked() {
    if !gnupg::has("gpg") {
        return;
    }
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    let (gpg, born) = (Gpg::new(), seconds - DAY);
    let export = |fingerprint: &str| {
        Secret::new(gpg.ok(seconds, &["--armor", "--export-secret-keys", fingerprint], b""))
    };
    for (kind, usage) in [("ed25519", "sign,cert"), ("nistp256", "sign,cert"), ("nistp384", "sign,cert")] {
        let fingerprint = gpg.generate(born, &format!("{kind}@example.test"), kind, usage, "never");
        let key = SecretCertificate::parse(&export(&fingerprint)).unwrap();
        let signature = key.sign(MESSAGE, now).unwrap();
        let exported = gpg.export(seconds, &fingerprint);
        let certificate = Certificate::parse(&exported).unwrap();
        certificate.verify(MESSAGE, &signature, &open_acceptance(now)).unwrap();
        let case = Case { name: kind.into(), certificate: exported, message: MESSAGE.to_vec(), signature };
        assert!(gpg.accepts(seconds, &case), "{kind}");
    }

    // The primary key stays at home: gpg leaves a stub of it.
    let certifier = gpg.generate(born, "sub@example.test", "ed25519", "cert", "never");
    gpg.ok(born, &["--quick-add-key", &certifier, "ed25519", "sign", "never"], b"");
    let whole = SecretCertificate::parse(&export(&certifier)).unwrap();
    whole.certificate().verify(MESSAGE, &whole.sign(MESSAGE, now).unwrap(), &open_acceptance(now)).unwrap();
    let stub = gpg.ok(seconds, &["--armor", "--export-secret-subkeys", &certifier], b"");
    let stub = SecretCertificate::parse(&Secret::new(stub)).unwrap();
    stub.certificate().verify(MESSAGE, &stub.sign(MESSAGE, now).unwrap(), &open_acceptance(now)).unwrap();

    let rsa = gpg.generate(born, "rsa@example.test", "rsa2048", "sign,cert", "never");
    let refusal = SecretCertificate::parse(&export(&rsa)).unwrap_err();
    assert!(refusal.message().contains("let gpg sign"), "{refusal}");
    assert_eq!(refusal.kind(), ErrorKind::Unsupported);
    assert!(Certificate::parse(export(&rsa).expose()).unwrap_err().message().contains("secret key"));
    assert!(SecretCertificate::parse(&Secret::new(gpg.export(seconds, &rsa))).is_err());
}

/// Certificates and signatures cut short and bent at every place, without a panic.
#[test]
fn damage_anywhere_is_refused() {
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    let owner = forge::Owner::new(&pgp::composed::KeyType::Ed25519Legacy, seconds - DAY);
    let certificate = owner.certificate(seconds - DAY, vec![forge::flags(true, true)]);
    let signature = forge::sign_at(&owner.key, seconds, MESSAGE);
    let whole = Certificate::parse(&certificate).unwrap();
    let acceptance = open_acceptance(now);
    whole.verify(MESSAGE, &signature, &acceptance).unwrap();
    for end in 0..signature.len() {
        assert!(whole.verify(MESSAGE, &signature[..end], &acceptance).is_err(), "cut at {end}");
    }
    for bit in 0..signature.len() * 8 {
        let mut bent = signature.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(whole.verify(MESSAGE, &bent, &acceptance).is_err(), "bit {bit}");
    }
    for end in 0..certificate.len() {
        let verdict = Certificate::parse(&certificate[..end])
            .and_then(|certificate| certificate.verify(MESSAGE, &signature, &acceptance));
        assert!(verdict.is_err(), "cut at {end}");
    }
    for bit in 0..certificate.len() * 8 {
        let mut bent = certificate.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let verdict = Certificate::parse(&bent)
            .and_then(|certificate| certificate.verify(MESSAGE, &signature, &acceptance));
        assert!(verdict.is_err(), "bit {bit}");
    }
}
