//! gpg and sqv as peers of the tests.
//!
//! Where they are missing, the tests that need them say so and pass; under `CI=true` they fail.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::forge::{Case, DAY, MESSAGE};

/// Whether `program` can be run here.
pub(super) fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is missing, and CI needs it");
        eprintln!("NOT RUN: {program} is missing");
    }
    found
}

/// A gpg with a home of its own.
pub(super) struct Gpg {
    home: tempfile::TempDir,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", self.home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Gpg {
    pub(super) fn new() -> Gpg {
        use std::os::unix::fs::PermissionsExt as _;
        let private = std::fs::Permissions::from_mode(0o700);
        Gpg { home: tempfile::Builder::new().prefix("gpg-").permissions(private).tempdir().unwrap() }
    }

    /// Runs gpg with `input`, at the faked time `at`.
    pub(super) fn run(&self, at: u32, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("gpg")
            .env("GNUPGHOME", self.home.path())
            .args(["--batch", "--yes", "--quiet"])
            .args(["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"])
            .args(["--allow-weak-key-signatures", "--allow-weak-digest-algos"])
            .args(["--faked-system-time", &at.to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(super) fn ok(&self, at: u32, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(at, args, input);
        assert!(output.status.success(), "gpg {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A new key; gives its fingerprint in upper-case hex.
    pub(super) fn generate(&self, at: u32, user: &str, kind: &str, usage: &str, expire: &str) -> String {
        self.ok(at, &["--quick-generate-key", user, kind, usage, expire], b"");
        let listed = self.ok(at, &["--with-colons", "--list-keys", user], b"");
        let listed = String::from_utf8(listed).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Revokes the key, with the number of the reason as gpg's menu has it.
    pub(super) fn revoke(&self, at: u32, fingerprint: &str, reason: &str) {
        let answers = format!("y\n{reason}\n\ny\n");
        let revocation = self.ok(
            at,
            &["--no-batch", "--no-tty", "--command-fd", "0", "--gen-revoke", fingerprint],
            answers.as_bytes(),
        );
        self.ok(at, &["--import"], &revocation);
    }

    pub(super) fn export(&self, at: u32, fingerprint: &str) -> Vec<u8> {
        self.ok(at, &["--armor", "--export", fingerprint], b"")
    }

    pub(super) fn sign(&self, at: u32, fingerprint: &str, more: &[&str]) -> Vec<u8> {
        let mut args = vec!["--armor", "--detach-sign", "--local-user", fingerprint];
        args.splice(0..0, more.iter().copied());
        self.ok(at, &args, MESSAGE)
    }

    /// Whether gpg itself takes the case.
    pub(super) fn accepts(&self, at: u32, case: &Case) -> bool {
        self.ok(at, &["--import"], &case.certificate);
        let paths = Paths::write(self.home.path(), case);
        let args = ["--verify", paths.signature.to_str().unwrap(), paths.message.to_str().unwrap()];
        self.run(at, &args, b"").status.success()
    }
}

struct Paths {
    certificate: PathBuf,
    signature: PathBuf,
    message: PathBuf,
}

impl Paths {
    fn write(folder: &Path, case: &Case) -> Paths {
        let paths = Paths {
            certificate: folder.join("certificate"),
            signature: folder.join("signature"),
            message: folder.join("message"),
        };
        std::fs::write(&paths.certificate, &case.certificate).unwrap();
        std::fs::write(&paths.signature, &case.signature).unwrap();
        std::fs::write(&paths.message, &case.message).unwrap();
        paths
    }
}

/// Whether sqv takes the case; its files are written into `folder`.
pub(super) fn sqv_accepts(folder: &Path, case: &Case) -> bool {
    let paths = Paths::write(folder, case);
    Command::new("sqv")
        .arg("--keyring")
        .args([&paths.certificate, &paths.signature, &paths.message])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// The name of a case and what is to become of it: `None` accepts, otherwise the refusal says this.
pub(super) const TABLE: &[(&str, Option<&str>)] = &[
    ("good-rsa-2048-sha-512", None),
    ("good-rsa-3072", None),
    ("good-ed25519", None),
    ("good-p256", None),
    ("good-p384", None),
    ("good-signing-subkey", None),
    ("good-key-expired-since", None),
    ("good-binary-form", None),
    ("p521", Some("accepted are EdDSA")),
    ("dsa", Some("accepted are EdDSA")),
    ("rsa-1024", Some("RSA with 1024 bits")),
    ("md5", Some("is over MD5")),
    ("sha-1", Some("is over SHA1")),
    ("ripemd-160", Some("is over RIPEMD160")),
    ("sha-224", Some("is over SHA224")),
    ("text-mode", Some("text mode")),
    ("cleartext-signed", Some("cleartext-signed")),
    ("inline-signed", Some("cannot be read")),
    ("signed-after-expiry", Some("expired at")),
    ("revoked-without-reason", Some("without a reason")),
    ("revoked-as-compromised", Some("revoked as compromised")),
    ("retired-before-signing", Some("was retired")),
    ("good-retired-since", None),
    ("signature-expired", Some("has expired")),
    ("critical-notation", Some("critical notation")),
    ("signed-by-another", Some("does not have")),
    ("message-changed", Some("does not fit the message")),
];

/// What gpg makes of [`TABLE`], by name.
///
/// `now` is in seconds; keys are 100 days old, signatures ten.
pub(super) fn cases(gpg: &Gpg, now: u32) -> Vec<Case> {
    let (born, at) = (now - 100 * DAY, now - 10 * DAY);
    let mut cases = Vec::new();
    let mut add = |name: &str, certificate: Vec<u8>, signature: Vec<u8>| {
        cases.push(Case { name: name.to_owned(), certificate, message: MESSAGE.to_vec(), signature });
    };

    let rsa = gpg.generate(born, "rsa2048@example.test", "rsa2048", "sign,cert", "never");
    let rsa_certificate = gpg.export(at, &rsa);
    for (name, hash) in [
        ("good-rsa-2048-sha-512", "SHA512"),
        ("md5", "MD5"),
        ("sha-1", "SHA1"),
        ("ripemd-160", "RIPEMD160"),
        ("sha-224", "SHA224"),
    ] {
        add(name, rsa_certificate.clone(), gpg.sign(at, &rsa, &["--digest-algo", hash]));
    }
    for (name, kind) in [
        ("good-rsa-3072", "rsa3072"),
        ("good-ed25519", "ed25519"),
        ("good-p256", "nistp256"),
        ("good-p384", "nistp384"),
        ("p521", "nistp521"),
        ("dsa", "dsa2048"),
        ("rsa-1024", "rsa1024"),
    ] {
        let key = gpg.generate(born, &format!("{name}@example.test"), kind, "sign,cert", "never");
        add(name, gpg.export(at, &key), gpg.sign(at, &key, &[]));
    }

    let ed = gpg.generate(born, "ed@example.test", "ed25519", "sign,cert", "never");
    let certificate = gpg.export(at, &ed);
    add("text-mode", certificate.clone(), gpg.sign(at, &ed, &["--textmode"]));
    let clear = gpg.ok(at, &["--clear-sign", "--local-user", &ed], MESSAGE);
    add("cleartext-signed", certificate.clone(), clear);
    add("inline-signed", certificate.clone(), gpg.ok(at, &["--sign", "--local-user", &ed], MESSAGE));
    add("signature-expired", certificate.clone(), gpg.sign(at, &ed, &["--default-sig-expire", "1d"]));
    let notation = ["--sig-notation", "!level@example.test=low"];
    add("critical-notation", certificate.clone(), gpg.sign(at, &ed, &notation));
    add("signed-by-another", certificate.clone(), gpg.sign(at, &rsa, &[]));
    let binary = gpg.ok(at, &["--detach-sign", "--local-user", &ed], MESSAGE);
    add("good-binary-form", gpg.ok(at, &["--export", &ed], b""), binary);
    add("message-changed", certificate.clone(), gpg.sign(at, &ed, &[]));

    let certifier = gpg.generate(born, "sub@example.test", "ed25519", "cert", "never");
    gpg.ok(born, &["--quick-add-key", &certifier, "ed25519", "sign", "never"], b"");
    add("good-signing-subkey", gpg.export(at, &certifier), gpg.sign(at, &certifier, &[]));

    // One expires 95 days after birth: after the first signature and before the second.
    let short = gpg.generate(born, "short@example.test", "ed25519", "sign,cert", "95d");
    add("good-key-expired-since", gpg.export(at, &short), gpg.sign(at, &short, &[]));
    // gpg does not sign with an expired key; it does if the expiry comes later.
    let late = gpg.generate(born, "late@example.test", "ed25519", "sign,cert", "never");
    let signature = gpg.sign(at, &late, &[]);
    let expiring = gpg.ok(born + DAY, &["--quick-set-expire", &late, "30d"], b"");
    assert!(expiring.is_empty());
    add("signed-after-expiry", gpg.export(at, &late), signature);

    for (name, menu, day) in [
        ("revoked-without-reason", "0", 1),
        ("revoked-as-compromised", "1", 1),
        ("retired-before-signing", "3", -1),
        ("good-retired-since", "3", 1),
    ] {
        let key = gpg.generate(born, &format!("{name}@example.test"), "ed25519", "sign,cert", "never");
        let signature = gpg.sign(at, &key, &[]);
        gpg.revoke(at.checked_add_signed(day * DAY as i32).unwrap(), &key, menu);
        add(name, gpg.export(at, &key), signature);
    }
    for case in &mut cases {
        if case.name == "message-changed" {
            case.message.push(b'\n');
        }
    }
    cases
}
