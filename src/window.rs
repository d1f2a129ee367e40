//! Hours of the week.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::error::{Error, Result};

const DAY: i64 = 86_400;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Hours at which a link may be used, in UTC: `22:00-06:00`, or `sat,sun 00:00-24:00`.
///
/// A window that ends before it begins goes past midnight; its days are those on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Minutes after midnight.
    from: u32,
    until: u32,
    /// One bit per day, Monday first.
    days: u8,
}

impl Window {
    /// When the window that is open at `now` closes; `None` if it is closed.
    pub fn closes(&self, now: Timestamp) -> Option<Timestamp> {
        // The one of today, or the one that began yesterday.
        [0, -1].into_iter().find_map(|day| {
            let (opens, closes) = self.on(now, day)?;
            (opens <= now && now < closes).then_some(closes)
        })
    }

    /// When the window opens next, after `now`.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        (0..=7).find_map(|day| self.on(now, day).map(|(opens, _)| opens).filter(|opens| *opens > now))
    }

    /// Begin and end of the window that begins `day` days after the day of `now`.
    fn on(&self, now: Timestamp, day: i64) -> Option<(Timestamp, Timestamp)> {
        let midnight = now.as_unix().div_euclid(DAY) + day;
        // 1970-01-01 was a Thursday.
        let weekday = (midnight + 3).rem_euclid(7);
        if midnight < 0 || self.days & (1 << weekday) == 0 {
            return None;
        }
        let length = match self.until > self.from {
            true => self.until - self.from,
            false => 24 * 60 - self.from + self.until,
        };
        let opens = Timestamp::from_unix(midnight * DAY + i64::from(self.from) * 60);
        Some((opens, opens.plus(i64::from(length) * 60)))
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Window> {
        let bad = || {
            let shown: String = text.chars().take(60).collect();
            Error::invalid(format!(
                "{shown:?} is not a window: expected hours in UTC like 22:00-06:00, or sat,sun 00:00-24:00"
            ))
        };
        let (days, hours) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let minutes = |text: &str| -> Option<u32> {
            let (hour, minute) = text.split_once(':')?;
            let number = |text: &str| -> Option<u32> {
                (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
                    .then(|| text.parse().ok())?
            };
            let (hour, minute) = (number(hour)?, number(minute)?);
            (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
        };
        let (from, until) = hours.split_once('-').ok_or_else(bad)?;
        let (from, until) = (minutes(from).ok_or_else(bad)?, minutes(until).ok_or_else(bad)?);
        if from == until || from == 24 * 60 {
            return Err(bad());
        }
        let mut mask = 0_u8;
        for day in days.split(',').map(str::trim).filter(|_| !days.trim().is_empty()) {
            let day = day.to_ascii_lowercase();
            let at = DAYS.iter().position(|known| *known == day).ok_or_else(bad)?;
            mask |= 1 << at;
        }
        Ok(Window { from, until, days: if mask == 0 { 0x7f } else { mask } })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != 0x7f {
            let days = DAYS.iter().enumerate().filter(|(at, _)| self.days & (1 << at) != 0);
            let days: Vec<&str> = days.map(|(_, day)| *day).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let (from, until) = (self.from, self.until);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Window, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
        // 2026-11-22 is a Sunday.
        let window: Window = "sat 22:00-06:00".parse().unwrap();
        assert_eq!(window.closes(at("2026-11-21T22:00:00Z")), Some(at("2026-11-22T06:00:00Z")));
        assert_eq!(window.closes(at("2026-11-22T05:59:59Z")), Some(at("2026-11-22T06:00:00Z")));
        assert_eq!(window.closes(at("2026-11-22T06:00:00Z")), None);
        assert_eq!(window.closes(at("2026-11-22T22:30:00Z")), None, "Sunday is not its day");
        assert_eq!(window.opens(at("2026-11-22T06:00:00Z")), Some(at("2026-11-28T22:00:00Z")));
        assert_eq!(window.opens(at("2026-11-21T22:00:00Z")), Some(at("2026-11-28T22:00:00Z")));
        let daily: Window = "08:30-24:00".parse().unwrap();
        assert_eq!(daily.closes(at("2026-11-22T23:59:59Z")), Some(at("2026-11-23T00:00:00Z")));
        assert_eq!(daily.opens(at("2026-11-22T08:29:59Z")), Some(at("2026-11-22T08:30:00Z")));
        assert_eq!(daily.opens(at("2026-11-22T09:00:00Z")), Some(at("2026-11-23T08:30:00Z")));
    }

    #[test]
    fn windows_are_written_as_they_are_read() {
        for text in ["22:00-06:00", "sat,sun 00:00-24:00", "mon 01:02-03:04"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "22:00",
            "22:00-22:00",
            "24:00-01:00",
            "1:00-2:00",
            "25:00-26:00",
            "x 01:00-02:00",
            "01:60-02:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
