//! An issuer's key set: where it comes from, and what is kept of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::lock::Mutex;

use super::jwk::{Key, Keys, MAX_KEY_SET};
use super::jwt::refused;
use crate::blocking;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Between two attempts to bring a key set lie at least so many seconds, whatever tokens say.
const PAUSE: u64 = 60;

/// How long a request waits for a key set to be brought.
const PATIENCE: Duration = Duration::from_secs(15);

/// Brings a key set (RFC 7517 section 5) as JSON: from a file, or over the network.
///
/// # Contract
/// - **Whole or not at all**: the whole document, or an error.
/// - **It ends**: an error comes within seconds if nothing answers.
#[async_trait]
pub trait JwksSource: fmt::Debug + Send + Sync + 'static {
    /// The key set as it is at present.
    async fn fetch(&self) -> Result<Bytes>;
}

#[async_trait]
impl<S: JwksSource + ?Sized> JwksSource for Box<S> {
    async fn fetch(&self) -> Result<Bytes> {
        (**self).fetch().await
    }
}

/// A key set in a file.
#[derive(Clone, Debug)]
pub struct JwksFile(PathBuf);

impl JwksFile {
    /// The key set in the file `path`.
    pub fn new(path: impl Into<PathBuf>) -> JwksFile {
        JwksFile(path.into())
    }
}

#[async_trait]
impl JwksSource for JwksFile {
    async fn fetch(&self) -> Result<Bytes> {
        let path = self.0.clone();
        blocking::run(move || {
            let what = || format!("reading the key set {}", path.display());
            let length = std::fs::metadata(&path).map_err(|cause| Error::io(what(), cause))?.len();
            if length > MAX_KEY_SET as u64 {
                return Err(Error::invalid(format!("{}: it is too long", what())));
            }
            std::fs::read(&path).map(Bytes::from).map_err(|cause| Error::io(what(), cause))
        })
        .await
    }
}

/// How long a key set is believed. In seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JwksLimits {
    /// After this it is fetched again: a key that its issuer takes back is believed as long.
    pub fresh: u32,
    /// For so much longer it is believed if it cannot be fetched.
    pub stale: u32,
}

impl Default for JwksLimits {
    /// An hour, and a day more.
    fn default() -> JwksLimits {
        JwksLimits { fresh: 3_600, stale: 86_400 }
    }
}

/// What is known of a key set, for people who look after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct JwksState {
    /// How many of its keys can be used.
    pub keys: usize,
    /// When it was fetched.
    pub fetched: Option<Timestamp>,
    /// Why the last attempt to fetch it failed, if it did.
    pub fault: Option<String>,
}

/// An issuer's key set, fetched when it is needed and kept for a while. Clones are one key set.
///
/// - It is fetched at most once a minute, whatever keys tokens name, and by one request at a time.
/// - Who asks while it is due for renewal is answered from what is there.
/// - If it cannot be fetched, the one before it is believed for a bounded time, and then nothing is.
#[derive(Clone, Debug)]
pub struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Box<dyn JwksSource>,
    limits: JwksLimits,
    clock: Arc<dyn Clock>,
    state: RwLock<State>,
    fetching: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    fetched: Timestamp,
    attempted: Option<Timestamp>,
    fault: Option<String>,
}

impl Jwks {
    /// The key set that `source` brings.
    pub fn new(source: impl JwksSource, limits: JwksLimits, clock: Arc<dyn Clock>) -> Jwks {
        Jwks(Arc::new(Inner {
            source: Box::new(source),
            limits,
            clock,
            state: RwLock::default(),
            fetching: Mutex::new(()),
        }))
    }

    /// What is known of it.
    pub fn state(&self) -> JwksState {
        let state = self.0.state();
        let keys = state.keys.as_ref();
        JwksState {
            keys: keys.map_or(0, |keys| keys.len()),
            fetched: keys.map(|_| state.fetched),
            fault: state.fault,
        }
    }

    /// Fetches it if it is due, and a minute has passed since the last attempt. A service calls it
    /// now and then, so that requests do not have to wait.
    ///
    /// # Errors
    /// Why it could not be fetched; what is there stays.
    pub async fn refresh(&self) -> Result<()> {
        if self.0.is_due() { self.0.clone().renew().await } else { Ok(()) }
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if there is none, [`ErrorKind::Unavailable`] if no key set can
    /// be had that says so.
    pub(super) async fn key(&self, id: Option<&str>) -> Result<Key> {
        if let Some(key) = self.0.known(id) {
            if self.0.is_due() && self.0.may_attempt() && self.0.fetching.try_lock().is_some() {
                // Nobody waits for it.
                let _ = blocking::within(Duration::ZERO, self.0.clone().renew()).await;
            }
            return Ok(key);
        }
        // One that is being fetched is waited for. It goes on if this request goes away: else
        // whoever breaks off could keep the keys from ever coming.
        if self.0.may_attempt() || self.0.fetching.try_lock().is_none() {
            let _ = blocking::within(PATIENCE, self.0.clone().renew()).await;
        }
        match self.0.known(id) {
            Some(key) => Ok(key),
            None if self.0.usable().is_some() => Err(refused("its issuer has no such key")),
            None => Err(no_keys()),
        }
    }
}

impl Inner {
    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self, id: Option<&str>) -> Option<Key> {
        self.usable()?.find(id).cloned()
    }

    /// The keys, if they are young enough to be believed.
    fn usable(&self) -> Option<Arc<Keys>> {
        let limit = i64::from(self.limits.fresh) + i64::from(self.limits.stale);
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let keys = state.keys.as_ref()?;
        (self.clock.now() <= state.fetched.plus(limit)).then(|| keys.clone())
    }

    fn is_due(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.keys.is_none() || self.clock.now() > state.fetched.plus(self.limits.fresh.into())
    }

    fn may_attempt(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back does not make the pause longer.
        let since = |last: Timestamp| (self.clock.now().as_unix() - last.as_unix()).unsigned_abs();
        state.attempted.is_none_or(|last| since(last) >= PAUSE)
    }

    /// Fetches, unless somebody did just now.
    async fn renew(self: Arc<Inner>) -> Result<()> {
        let _alone = self.fetching.lock().await;
        if !self.may_attempt() {
            return Ok(());
        }
        let now = self.clock.now();
        self.change(|state| state.attempted = Some(now));
        match self.source.fetch().await.and_then(|bytes| Keys::parse(&bytes)) {
            Ok(keys) => {
                self.change(|state| {
                    state.keys = Some(Arc::new(keys));
                    state.fetched = now;
                    state.fault = None;
                });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, source = ?self.source, "a key set could not be renewed");
                self.change(|state| state.fault = Some(error.to_string()));
                Err(error)
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cold]
fn no_keys() -> Error {
    Error::new(ErrorKind::Unavailable, "the keys of the token's issuer cannot be had at the moment")
}
