//! What the way to one edge may carry: so many bytes in a second, at certain hours.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::blocking;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ByteStream, Call, CallBody};

const DAY: i64 = 86_400;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Most bytes that are let through at once.
const PIECE: usize = 64 * 1024;
/// Most bytes that go without a look at the hour; a chunk that is shorter goes as a whole.
const GRANTED: usize = 1 << 20;

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

/// The limits of one link. Everything that is sent over it counts together.
#[derive(Clone, Debug)]
pub struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rate: Option<u64>,
    windows: Vec<Window>,
    clock: Arc<dyn Clock>,
    bucket: Mutex<Bucket>,
}

impl Link {
    /// A link of so many bytes in a second (`None`: as many as there are), usable in these windows
    /// (none: always).
    pub fn new(rate: Option<u64>, windows: Vec<Window>, clock: Arc<dyn Clock>) -> Link {
        let rate = rate.map(|rate| rate.max(1));
        let bucket = Mutex::new(Bucket::new(rate.unwrap_or(u64::MAX), Instant::now()));
        Link { inner: Arc::new(Inner { rate, windows, clock, bucket }) }
    }

    /// When the link opens, if it is closed.
    pub fn closed_until(&self) -> Option<Timestamp> {
        let (now, windows) = (self.inner.clock.now(), &self.inner.windows);
        if windows.is_empty() || windows.iter().any(|window| window.closes(now).is_some()) {
            return None;
        }
        windows.iter().filter_map(|window| window.opens(now)).min().or(Some(Timestamp::MAX))
    }

    /// The call, whose body goes out as fast as the link allows, and stops between two chunks when
    /// the link closes.
    pub(super) async fn shape(&self, mut call: Call) -> Call {
        if self.inner.rate.is_none() && self.inner.windows.is_empty() {
            return call;
        }
        call.body = match call.body {
            CallBody::Bytes(bytes) => {
                // Documents are short and go whenever they must, but they count.
                self.take(bytes.len()).await;
                CallBody::Bytes(bytes)
            }
            CallBody::Stream(length, stream) => CallBody::Stream(length, self.clone().shaped(stream)),
        };
        call
    }

    fn shaped(self, stream: ByteStream) -> ByteStream {
        let piece = self.inner.rate.map_or(usize::MAX, |rate| (rate / 8).clamp(256, PIECE as u64) as usize);
        let begin = Shaped { link: self, stream, rest: Bytes::new(), granted: 0, failed: false };
        Box::pin(stream::unfold(begin, move |mut shaped| async move {
            match shaped.next(piece).await {
                Ok(next) => next.map(|next| (Ok(next), shaped)),
                Err(error) => {
                    shaped.failed = true;
                    Some((Err(error), shaped))
                }
            }
        }))
    }

    async fn take(&self, bytes: usize) {
        if self.inner.rate.is_none() {
            return;
        }
        let wait = {
            let mut bucket = self.inner.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(bytes as u64, Instant::now())
        };
        blocking::sleep(wait).await;
    }
}

/// A body on its way through a link.
struct Shaped {
    link: Link,
    stream: ByteStream,
    rest: Bytes,
    /// How much of `rest` may go before the hour is looked at again.
    granted: usize,
    failed: bool,
}

impl Shaped {
    async fn next(&mut self, piece: usize) -> Result<Option<Bytes>> {
        if self.failed {
            return Ok(None);
        }
        if self.granted == 0 {
            if let Some(opens) = self.link.closed_until() {
                return Err(closed(opens));
            }
            while self.rest.is_empty() {
                match self.stream.next().await {
                    Some(chunk) => self.rest = chunk?,
                    None => return Ok(None),
                }
            }
            self.granted = self.rest.len().min(GRANTED);
        }
        let next = self.rest.split_to(self.granted.min(piece));
        self.granted -= next.len();
        self.link.take(next.len()).await;
        Ok(Some(next))
    }
}

/// Tokens for bytes: they come at a rate, and what nobody took in a quarter of a second is lost.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// When the bytes that were let through so far are paid for.
    paid: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Bucket {
        Bucket { rate, paid: now }
    }

    /// How long to wait before `bytes` more may go.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let credit = now.checked_sub(Duration::from_millis(250)).unwrap_or(now);
        let from = self.paid.max(credit);
        self.paid = from + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.paid.saturating_duration_since(now)
    }
}

#[cold]
pub(super) fn closed(opens: Timestamp) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the link's window has closed; it opens at {opens}"))
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

    #[test]
    fn a_closed_link_says_when_it_opens() {
        #[derive(Debug)]
        struct Still(Timestamp);
        impl Clock for Still {
            fn now(&self) -> Timestamp {
                self.0
            }
        }
        let link = |now: &str, windows: &[&str]| {
            let windows = windows.iter().map(|window| window.parse().unwrap()).collect();
            Link::new(None, windows, Arc::new(Still(at(now)))).closed_until()
        };
        assert_eq!(link("2026-11-22T12:00:00Z", &[]), None);
        assert_eq!(link("2026-11-22T12:00:00Z", &["11:00-13:00"]), None);
        let both = ["13:00-14:00", "12:30-12:45"];
        assert_eq!(link("2026-11-22T12:00:00Z", &both), Some(at("2026-11-22T12:30:00Z")));
    }

    #[test]
    fn all_streams_together_keep_the_rate() {
        let begin = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1000, begin);
        let mut now = begin;
        let mut sent = 0;
        // Two streams that take 100 bytes each, as fast as they are let.
        for _ in 0..50 {
            let (one, two) = (bucket.take(100, now), bucket.take(100, now));
            assert!(two > one);
            now += two;
            sent += 200;
        }
        let seconds = now.duration_since(begin).as_secs_f64();
        assert!((f64::from(sent) / seconds - 1000.0).abs() < 1.0, "{sent} bytes in {seconds} s");
        // A pause saves up a quarter of a second and no more.
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(250, now), Duration::ZERO);
        assert_eq!(bucket.take(1000, now), Duration::from_secs(1));
    }
}
