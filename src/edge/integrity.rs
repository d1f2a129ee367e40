//! Bytes that do not match their digest are never served whole: [`Verifier`].
//!
//! A store gives bytes as they lie on its medium. The verifier stands between it and the clients:
//! it hashes a blob the first time it is asked for and again whenever its [`Stamp`] has changed,
//! and remembers what it found. A damaged blob is set aside, reported, and refused.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::blob::{Blob, BlobInfo, BlobStore, ByteStream, Payload, Stamp};
use crate::blocking::give_way;
use crate::digest::{Digest, Hasher};
use crate::edge::Body;
use crate::error::{Error, ErrorKind, Result};
use crate::range::ByteRange;

/// Up to this size an unknown blob is hashed before its first byte is sent.
const HASH_FIRST: u64 = 8 * 1024 * 1024;
/// Up to this size the very bytes that were hashed are kept in memory and sent.
const IN_MEMORY: u64 = 256 * 1024;
/// How many blobs are remembered.
const REMEMBERED: usize = 64 * 1024;
/// How often a blob that changes while it is hashed is tried again.
const ATTEMPTS: usize = 3;
/// After this many bytes a hashing task lets others have their turn.
const TURN: u64 = 1024 * 1024;

/// Opens blobs for clients, verified.
///
/// Many clients that ask for one unknown blob at the same time cause one hash of it, at most two.
/// Under a store that has no stamps every reading is verified anew.
pub struct Verifier {
    store: Arc<dyn BlobStore>,
    memory: Mutex<Memory>,
    /// Blobs that are being hashed; waiters queue on the lock.
    flights: Mutex<HashMap<Digest, Arc<futures_util::lock::Mutex<()>>>>,
    /// Blobs that a client is being sent while they are hashed.
    streaming: Mutex<HashSet<Digest>>,
    on_damage: Box<DamageObserver>,
}

type DamageObserver = dyn Fn(&Digest, &str) + Send + Sync;

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Good,
    Damaged,
}

/// What was found, in two generations: when the younger one is full, the older one is forgotten.
#[derive(Default)]
struct Memory {
    young: HashMap<Digest, (Stamp, Verdict)>,
    old: HashMap<Digest, (Stamp, Verdict)>,
}

impl Verifier {
    /// A verifier over `store` that has seen nothing.
    pub fn new(store: Arc<dyn BlobStore>) -> Verifier {
        Verifier {
            store,
            memory: Mutex::default(),
            flights: Mutex::default(),
            streaming: Mutex::default(),
            on_damage: Box::new(|_, _| {}),
        }
    }

    /// The same verifier, calling `observer` with the digest and a sentence for each damaged blob
    /// it finds.
    #[must_use]
    pub fn with_damage_observer(
        mut self,
        observer: impl Fn(&Digest, &str) + Send + Sync + 'static,
    ) -> Verifier {
        self.on_damage = Box::new(observer);
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.store
    }

    /// All bytes of a blob.
    ///
    /// The body of a large unknown blob is hashed as it is sent, and its last piece is held back
    /// until the digest is known: damage cuts the connection before the client has it all.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if the blob is damaged or missing.
    pub async fn whole(self: &Arc<Self>, info: &BlobInfo) -> Result<Body> {
        if info.size > HASH_FIRST {
            let blob = self.opened(info).await?;
            match self.verdict(&info.digest, blob.stamp) {
                Some(Verdict::Good) => return Ok(Body::blob(blob)),
                Some(Verdict::Damaged) => return Err(damaged(&info.digest)),
                None => {}
            }
            if let Some(turn) = Streaming::begin(self, info.digest) {
                return Ok(Body::from_stream(info.size, verified_stream(turn, *info, blob)));
            }
        }
        self.verified(info).await.map(Body::blob)
    }

    /// Ranges of a blob, each inside its size. The whole blob is verified first.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if the blob is damaged or missing.
    pub async fn parts(&self, info: &BlobInfo, ranges: &[ByteRange]) -> Result<Vec<Body>> {
        let blob = self.verified(info).await?;
        let mut bodies = Vec::with_capacity(ranges.len());
        for range in ranges {
            bodies.push(match &blob.payload {
                Payload::Bytes(bytes) => {
                    let slice = usize::try_from(range.start())
                        .ok()
                        .zip(usize::try_from(range.end()).ok())
                        .filter(|(_, end)| *end <= bytes.len())
                        .map(|(start, end)| bytes.slice(start..end));
                    Body::from_bytes(slice.ok_or_else(|| damaged(&info.digest))?)
                }
                Payload::File(file) => Body::file(Arc::clone(file), *range),
                Payload::Stream(_) => {
                    let part = self.store.open(&info.digest, Some(*range)).await?;
                    let part = part.ok_or_else(|| missing(&info.digest))?;
                    if part.stamp != blob.stamp || part.range != Some(*range) {
                        return Err(unsettled(&info.digest));
                    }
                    Body::blob(part)
                }
            });
        }
        Ok(bodies)
    }

    /// Whether the blob is there in its size and not known to be damaged; reads none of it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupted`] if it is not.
    pub async fn check_presence(&self, info: &BlobInfo) -> Result<()> {
        let blob = self.opened(info).await?;
        match self.verdict(&info.digest, blob.stamp) {
            Some(Verdict::Damaged) => Err(damaged(&info.digest)),
            _ => Ok(()),
        }
    }

    /// Opens a blob whose bytes have been hashed in the state they are in.
    async fn verified(&self, info: &BlobInfo) -> Result<Blob> {
        for _ in 0..ATTEMPTS {
            let blob = self.opened(info).await?;
            match self.verdict(&info.digest, blob.stamp) {
                Some(Verdict::Good) => return Ok(blob),
                Some(Verdict::Damaged) => return Err(damaged(&info.digest)),
                None => {}
            }
            let flight = Flight::of(self, info.digest);
            let _turn = flight.lock.lock().await;
            // Another one may have hashed it while this one waited.
            match self.verdict(&info.digest, blob.stamp) {
                Some(Verdict::Good) => return Ok(blob),
                Some(Verdict::Damaged) => return Err(damaged(&info.digest)),
                None => {}
            }
            if let Some(blob) = self.hash(info, blob).await? {
                return Ok(blob);
            }
        }
        Err(unsettled(&info.digest))
    }

    /// Hashes an opened blob and hands it back for reading; `None` if it changed meanwhile.
    async fn hash(&self, info: &BlobInfo, blob: Blob) -> Result<Option<Blob>> {
        let (stamp, range) = (blob.stamp, blob.range);
        let keep = info.size <= IN_MEMORY;
        let mut kept = Vec::with_capacity(if keep { info.size as usize } else { 0 });
        let mut hasher = Hasher::new();
        let mut body = Body::blob(blob);
        let mut turn = 0;
        let found = loop {
            match body.next_chunk().await {
                None => break hasher.finish(),
                // Too few or too many bytes are damage; a failing disk is not known to be.
                Some(Err(error)) if error.kind() == ErrorKind::Corrupted => break hasher.finish(),
                Some(Err(error)) => return Err(error),
                Some(Ok(chunk)) => {
                    hasher.update(&chunk);
                    if keep {
                        kept.extend_from_slice(&chunk);
                    }
                    turn += chunk.len() as u64;
                    if turn >= TURN {
                        turn = 0;
                        give_way().await;
                    }
                }
            }
        };
        let after = self.opened(info).await?;
        if after.stamp != stamp {
            return Ok(None);
        }
        if found != info.digest {
            return Err(self.damage(&info.digest, stamp, "its bytes have another digest").await);
        }
        self.remember(&info.digest, stamp, Verdict::Good);
        if keep {
            let payload = Payload::Bytes(Bytes::from(kept));
            return Ok(Some(Blob { info: *info, range, payload, stamp }));
        }
        Ok(Some(after))
    }

    /// Opens the blob whole and checks its size.
    async fn opened(&self, info: &BlobInfo) -> Result<Blob> {
        let blob = self.store.open(&info.digest, None).await?;
        let blob = blob.ok_or_else(|| missing(&info.digest))?;
        let length = blob.range.map_or(0, |range| range.len());
        if blob.info.size != info.size || length != info.size {
            let reason = format!("it has {} bytes instead of {}", blob.info.size, info.size);
            if self.verdict(&info.digest, blob.stamp) == Some(Verdict::Damaged) {
                return Err(damaged(&info.digest));
            }
            return Err(self.damage(&info.digest, blob.stamp, &reason).await);
        }
        Ok(blob)
    }

    async fn damage(&self, digest: &Digest, stamp: Option<Stamp>, reason: &str) -> Error {
        self.remember(digest, stamp, Verdict::Damaged);
        tracing::error!(%digest, reason, "a stored blob is damaged");
        if let Some(quarantine) = self.store.as_quarantine()
            && let Err(error) = quarantine.quarantine(digest, stamp).await
        {
            tracing::error!(%digest, %error, "a damaged blob could not be set aside");
        }
        (self.on_damage)(digest, reason);
        damaged(digest)
    }

    fn verdict(&self, digest: &Digest, stamp: Option<Stamp>) -> Option<Verdict> {
        let stamp = stamp?;
        let mut memory = locked(&self.memory);
        if let Some((known, verdict)) = memory.young.get(digest) {
            return (*known == stamp).then_some(*verdict);
        }
        let (known, verdict) = *memory.old.get(digest)?;
        memory.insert(*digest, known, verdict);
        (known == stamp).then_some(verdict)
    }

    fn remember(&self, digest: &Digest, stamp: Option<Stamp>, verdict: Verdict) {
        if let Some(stamp) = stamp {
            locked(&self.memory).insert(*digest, stamp, verdict);
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Memory {
    fn insert(&mut self, digest: Digest, stamp: Stamp, verdict: Verdict) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, (stamp, verdict));
    }
}

/// A place in the queue for one blob; the queue goes away with its last place.
struct Flight<'a> {
    verifier: &'a Verifier,
    digest: Digest,
    lock: Arc<futures_util::lock::Mutex<()>>,
}

impl<'a> Flight<'a> {
    fn of(verifier: &'a Verifier, digest: Digest) -> Flight<'a> {
        let lock = Arc::clone(locked(&verifier.flights).entry(digest).or_default());
        Flight { verifier, digest, lock }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = locked(&self.verifier.flights);
        // One count is the map's, one is this place's: nobody else waits, and nobody can come
        // while the map is locked.
        if Arc::strong_count(&self.lock) <= 2 {
            flights.remove(&self.digest);
        }
    }
}

/// The right to be the one that hashes a blob while sending it.
struct Streaming {
    verifier: Arc<Verifier>,
    digest: Digest,
}

impl Streaming {
    fn begin(verifier: &Arc<Verifier>, digest: Digest) -> Option<Streaming> {
        locked(&verifier.streaming)
            .insert(digest)
            .then(|| Streaming { verifier: Arc::clone(verifier), digest })
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        locked(&self.verifier.streaming).remove(&self.digest);
    }
}

/// The bytes of `blob`, the last piece of which comes after the digest has been found right.
fn verified_stream(turn: Streaming, info: BlobInfo, blob: Blob) -> ByteStream {
    struct Reading {
        turn: Streaming,
        stamp: Option<Stamp>,
        body: Body,
        hasher: Hasher,
        held: Option<Bytes>,
    }
    let stamp = blob.stamp;
    let start = Reading { turn, stamp, body: Body::blob(blob), hasher: Hasher::new(), held: None };
    Box::pin(futures_util::stream::unfold(Some(start), move |reading| async move {
        let mut reading = reading?;
        let verifier = Arc::clone(&reading.turn.verifier);
        loop {
            match reading.body.next_chunk().await {
                Some(Ok(chunk)) => {
                    reading.hasher.update(&chunk);
                    if let Some(ready) = reading.held.replace(chunk) {
                        return Some((Ok(ready), Some(reading)));
                    }
                }
                Some(Err(error)) if error.kind() != ErrorKind::Corrupted => return Some((Err(error), None)),
                end => {
                    let intact = end.is_none() && reading.hasher.finish() == info.digest;
                    // Only the state that was read from beginning to end has a verdict.
                    let after = verifier.store.open(&info.digest, None).await;
                    let settled = matches!(&after, Ok(Some(after)) if after.stamp == reading.stamp);
                    if intact {
                        if settled {
                            verifier.remember(&info.digest, reading.stamp, Verdict::Good);
                        }
                        return reading.held.map(|last| (Ok(last), None));
                    }
                    let error = if settled {
                        verifier
                            .damage(&info.digest, reading.stamp, "its bytes have another digest or length")
                            .await
                    } else {
                        damaged(&info.digest)
                    };
                    return Some((Err(error), None));
                }
            }
        }
    }))
}

/// A panic elsewhere leaves these maps whole: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn damaged(digest: &Digest) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the stored bytes of {digest} are damaged"))
}

#[cold]
fn missing(digest: &Digest) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the stored bytes of {digest} are missing"))
}

#[cold]
fn unsettled(digest: &Digest) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the stored bytes of {digest} keep changing"))
}
