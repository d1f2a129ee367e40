//! What is accepted and what is not, case by case.

use std::time::Instant;

use super::forge::{self, Case, DAY, MESSAGE};
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
