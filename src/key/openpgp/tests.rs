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
        check(&case, *expected, &open_acceptance(SystemClock.now()));
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
