//! Time as an argument: [`Timestamp`] and the [`Clock`] port.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

/// A moment, in whole seconds since 1970-01-01T00:00:00Z.
///
/// The text form is RFC 3339 in UTC with whole seconds, `2026-11-22T05:00:00Z`; only that
/// spelling parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59Z, the last moment with a text form.
    pub const MAX: Timestamp = Timestamp(253_402_300_799);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The moment `seconds` after the epoch, clamped to what has a text form.
    pub const fn from_unix(seconds: i64) -> Timestamp {
        if seconds < 0 {
            Timestamp(0)
        } else if seconds > Timestamp::MAX.0 {
            Timestamp::MAX
        } else {
            Timestamp(seconds)
        }
    }

    /// Seconds since the epoch.
    pub const fn as_unix(self) -> i64 {
        self.0
    }

    /// The moment `seconds` later (earlier if negative), clamped.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Timestamp {
        Timestamp::from_unix(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Timestamp> {
        let bad = || {
            let shown: String = text.chars().take(40).collect();
            Error::invalid(format!(
                "{shown:?} is not a time: expected RFC 3339 in UTC with whole seconds, like 2026-11-22T05:00:00Z"
            ))
        };
        if text.len() != 20 || !text.ends_with('Z') {
            return Err(bad());
        }
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?;
        let moment = Timestamp::from_unix(moment.unix_timestamp());
        // Leap seconds and lower-case separators would come back in another spelling.
        if moment.to_string() == text { Ok(moment) } else { Err(bad()) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment as this clock believes it.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Box<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let moment: Timestamp = "2026-11-22T05:00:00Z".parse().unwrap();
        assert_eq!(moment.as_unix(), 1_795_323_600);
        assert_eq!(moment.to_string(), "2026-11-22T05:00:00Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59Z");
        for bad in [
            "2026-11-22T05:00:00.0Z",
            "2026-11-22t05:00:00Z",
            "2026-11-22T05:00:00z",
            "2026-11-22T05:00:00+00:00",
            "2026-11-22 05:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-02-30T00:00:00Z",
            "2026-12-31T23:59:60Z",
            "",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
