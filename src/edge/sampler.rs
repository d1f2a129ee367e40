//! Bounds how many events of a kind that anyone can cause get into the log.

use std::sync::{Mutex, PoisonError};

use crate::access::Principal;
use crate::audit::Event;
use crate::clock::Timestamp;

/// Most such events of one second.
const MOST: u32 = 100;

/// Lets so many events of a second pass, counts the others, and says with the next one that passes
/// how many there were: a flood of bad requests must not become a flood of log entries. Those of
/// whom nobody knows are counted apart, so that no stranger can drown what somebody known does.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    strangers: Mutex<State>,
    known: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    second: Timestamp,
    passed: u32,
    dropped: u64,
}

impl Sampler {
    /// The event, if it may pass.
    pub(super) fn admit(&self, mut event: Event) -> Option<Event> {
        let stranger = event.credential.is_none() && event.who == Principal::Anonymous.to_string();
        let state = if stranger { &self.strangers } else { &self.known };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.second != event.at {
            (state.second, state.passed) = (event.at, 0);
        }
        if state.passed >= MOST {
            state.dropped += 1;
            return None;
        }
        state.passed += 1;
        let dropped = std::mem::take(&mut state.dropped);
        if dropped > 0 {
            let reason = event.reason.take().unwrap_or_default();
            event.reason = Some(format!("{reason} [{dropped} events before this one were only counted]"));
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::kind;

    #[test]
    fn a_flood_is_counted_and_told() {
        let sampler = Sampler::default();
        let nobody = Principal::Anonymous;
        let at = |second| Event::new(Timestamp::from_unix(second), kind::AUTH_FAILED, &nobody).because("bad");
        let passed = (0..1000).filter(|_| sampler.admit(at(1)).is_some()).count();
        assert_eq!(passed, MOST as usize);
        let root = Principal::Token { name: "root".into() };
        let known = Event::new(Timestamp::from_unix(1), kind::CONTROL_DENIED, &root);
        assert!(sampler.admit(known).is_some(), "strangers drown nobody else");
        let next = sampler.admit(at(2)).unwrap();
        assert_eq!(next.reason.unwrap(), "bad [900 events before this one were only counted]");
        assert_eq!(sampler.admit(at(2)).unwrap().reason.unwrap(), "bad");
    }
}
