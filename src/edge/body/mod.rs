//! The one body type of requests and responses: [`Body`].

mod guard;

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body::{Frame, SizeHint};

use crate::blob::vfs::read_at;
use crate::blob::{Blob, ByteStream, Payload};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::range::ByteRange;

pub use guard::{GUARD_INTERVAL, Guard};

/// Most bytes given at once: what one slow client may hold in memory, and how finely its progress
/// is seen.
const PIECE: usize = 64 * 1024;

/// The bytes of a request or a response.
///
/// A body knows its length unless it came from a client that did not tell. It yields exactly that
/// many bytes or fails: a source that runs dry is an error, so that the connection is cut instead
/// of a short answer passing for a whole one.
pub struct Body {
    parts: VecDeque<Part>,
    /// Bytes still to come, if known.
    remaining: Option<u64>,
    given: u64,
    failed: bool,
    on_end: Option<Box<dyn FnOnce(Delivered) + Send>>,
    watch: Option<Watch>,
}

/// When the guard is asked next.
struct Watch {
    guard: Arc<Guard>,
    interval: Duration,
    asked: Instant,
}

/// How far a body got, told once when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// How many bytes were handed to the connection. The last of them may still have been in the
    /// operating system's buffers when the client went away.
    pub bytes: u64,
    /// Whether that was all of them.
    pub complete: bool,
}

enum Part {
    Bytes(Bytes),
    File { file: Arc<File>, at: u64, end: u64 },
    Stream { stream: ByteStream, remaining: u64 },
    Foreign(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Body {
        Body::new(VecDeque::new(), Some(0))
    }

    /// These bytes.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Body::of(Part::Bytes(bytes), length)
    }

    /// A stream of exactly `length` bytes.
    pub fn from_stream(length: u64, stream: ByteStream) -> Body {
        Body::of(Part::Stream { stream, remaining: length }, length)
    }

    /// A range of a file, read with positioned reads in small pieces.
    pub fn file(file: Arc<File>, range: ByteRange) -> Body {
        Body::of(Part::File { file, at: range.start(), end: range.end() }, range.len())
    }

    /// The bytes of an opened blob, or of the range that was opened.
    pub fn blob(blob: Blob) -> Body {
        let Some(range) = blob.range else { return Body::empty() };
        match blob.payload {
            Payload::Bytes(bytes) => Body::from_bytes(bytes),
            Payload::File(file) => Body::file(file, range),
            Payload::Stream(stream) => Body::from_stream(range.len(), stream),
        }
    }

    /// These bodies, one after the other.
    pub fn chain(bodies: impl IntoIterator<Item = Body>) -> Body {
        let mut whole = Body::empty();
        for mut body in bodies {
            whole.remaining =
                whole.remaining.zip(body.remaining).and_then(|(left, right)| left.checked_add(right));
            whole.parts.append(&mut body.parts);
        }
        whole
    }

    /// Another library's body, as it arrives from a connection.
    pub fn wrap<B>(body: B) -> Body
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display,
    {
        if body.is_end_stream() {
            return Body::empty();
        }
        let remaining = body.size_hint().exact();
        let part = Part::Foreign(Box::pin(Foreign(Box::pin(body))));
        Body::new(VecDeque::from([part]), remaining)
    }

    /// How many bytes are to come, if that is known.
    pub fn length(&self) -> Option<u64> {
        self.remaining
    }

    /// Calls `observer` once, when the body is dropped: after its last byte, or before. Several
    /// observers are called in the order in which they came.
    pub fn on_end(&mut self, observer: impl FnOnce(Delivered) + Send + 'static) {
        self.on_end = Some(match self.on_end.take() {
            None => Box::new(observer),
            Some(earlier) => Box::new(move |delivered| {
                earlier(delivered);
                observer(delivered);
            }),
        });
    }

    /// Fails as soon as `guard` says no, asked at most once in `interval`.
    pub fn guarded_by(&mut self, guard: Arc<Guard>, interval: Duration) {
        self.watch = Some(Watch { guard, interval, asked: Instant::now() });
    }

    /// What says whether the body may go on, if something does.
    pub fn guard(&self) -> Option<&Arc<Guard>> {
        self.watch.as_ref().map(|watch| &watch.guard)
    }

    /// The same bytes, at most so many of them in a second; observers and guard stay with it. Of a
    /// length that is not known, nothing is limited.
    #[must_use]
    pub fn limited(mut self, bytes_per_second: u64) -> Body {
        let Some(length) = self.remaining else { return self };
        let (on_end, watch) = (self.on_end.take(), self.watch.take());
        let mut outer = Body::from_stream(length, guard::slowly(self, bytes_per_second));
        (outer.on_end, outer.watch) = (on_end, watch);
        outer
    }

    /// The same bytes, which fail before the last of them is given unless they have this digest:
    /// nobody is given a whole body that is not what was signed.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] for a body without bytes that should have some, and for one
    /// whose length is not told.
    pub fn held_to(mut self, digest: Digest) -> Result<Body> {
        match self.remaining {
            Some(0) if digest == Digest::of(b"") => Ok(self),
            Some(length) if length > 0 => {
                let on_end = self.on_end.take();
                let mut outer = Body::from_stream(length, held(self, digest));
                outer.on_end = on_end;
                Ok(outer)
            }
            _ => Err(not_as_signed()),
        }
    }

    /// The bytes as a stream of chunks.
    pub fn into_stream(self) -> ByteStream {
        Box::pin(futures_util::stream::unfold(self, |mut body| async move {
            body.next_chunk().await.map(|chunk| (chunk, body))
        }))
    }

    /// All bytes, if there are at most `limit`; one more is `TooLarge`.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes> {
        if self.remaining.is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let Some(first) = self.next_chunk().await.transpose()? else { return Ok(Bytes::new()) };
        let mut rest = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await.transpose()? {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            if rest.len() + chunk.len() > limit {
                return Err(too_large(limit));
            }
            rest.extend_from_slice(&chunk);
        }
        let whole = if rest.is_empty() { first } else { rest.freeze() };
        if whole.len() > limit { Err(too_large(limit)) } else { Ok(whole) }
    }

    /// The next chunk; `None` after the last.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    fn new(parts: VecDeque<Part>, remaining: Option<u64>) -> Body {
        Body { parts, remaining, given: 0, failed: false, on_end: None, watch: None }
    }

    fn of(part: Part, length: u64) -> Body {
        let parts = if length == 0 { VecDeque::new() } else { VecDeque::from([part]) };
        Body::new(parts, Some(length))
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        if let Some(watch) = &mut self.watch
            && watch.asked.elapsed() >= watch.interval
        {
            watch.asked = Instant::now();
            if !watch.guard.holds() {
                return Poll::Ready(Some(Err(self.fail(guard::cut()))));
            }
        }
        loop {
            let Some(part) = self.parts.front_mut() else {
                return Poll::Ready(match self.remaining {
                    Some(missing) if missing > 0 => Some(Err(self.fail(short(missing)))),
                    _ => None,
                });
            };
            let chunk = match ready!(part.poll(context)) {
                None => {
                    self.parts.pop_front();
                    continue;
                }
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(self.fail(error)))),
            };
            let length = chunk.len() as u64;
            if let Some(remaining) = &mut self.remaining {
                match remaining.checked_sub(length) {
                    Some(left) => *remaining = left,
                    None => return Poll::Ready(Some(Err(self.fail(long())))),
                }
            }
            self.given += length;
            return Poll::Ready(Some(Ok(chunk)));
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        self.parts.clear();
        error
    }

    fn is_spent(&self) -> bool {
        self.failed || self.remaining == Some(0) || (self.remaining.is_none() && self.parts.is_empty())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(observer) = self.on_end.take() {
            observer(Delivered { bytes: self.given, complete: !self.failed && self.is_spent() });
        }
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::from_bytes(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::from_bytes(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::from_bytes(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::from_bytes(text)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("remaining", &self.remaining)
            .field("given", &self.given)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.poll_chunk(context).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        // A failed body must be polled again: its error is what cuts the connection.
        !self.failed && self.is_spent()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Part {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match self {
            Part::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Part::Bytes(bytes) => Poll::Ready(Some(Ok(bytes.split_to(bytes.len().min(PIECE))))),
            Part::File { at, end, .. } if at == end => Poll::Ready(None),
            Part::File { file, at, end } => Poll::Ready(Some(read_piece(file, at, *end))),
            Part::Stream { remaining: 0, .. } => Poll::Ready(None),
            Part::Stream { stream, remaining } => {
                Poll::Ready(match ready!(stream.poll_next_unpin(context)) {
                    None => Some(Err(short(*remaining))),
                    Some(Err(error)) => Some(Err(error)),
                    Some(Ok(chunk)) => match remaining.checked_sub(chunk.len() as u64) {
                        None => Some(Err(long())),
                        Some(left) => {
                            *remaining = left;
                            Some(Ok(chunk))
                        }
                    },
                })
            }
            Part::Foreign(body) => Poll::Ready(loop {
                match ready!(body.as_mut().poll_frame(context)) {
                    None => break None,
                    Some(Err(error)) => break Some(Err(error)),
                    // Trailers carry nothing that is used here.
                    Some(Ok(frame)) => {
                        if let Ok(chunk) = frame.into_data() {
                            break Some(Ok(chunk));
                        }
                    }
                }
            }),
        }
    }
}

/// Gives a foreign body this crate's error. Boxed, because pinning a field takes `unsafe`.
struct Foreign<B>(Pin<Box<B>>);

impl<B> http_body::Body for Foreign<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.0.as_mut().poll_frame(context).map_err(broke_off)
    }
}

fn read_piece(file: &File, at: &mut u64, end: u64) -> Result<Bytes> {
    let mut piece = vec![0; (end - *at).min(PIECE as u64) as usize];
    let mut filled = 0;
    while filled < piece.len() {
        match read_at(file, &mut piece[filled..], *at + filled as u64) {
            Ok(0) => return Err(short(end - *at - filled as u64)),
            Ok(read) => filled += read,
            Err(error) => return Err(Error::io("reading a stored file", error)),
        }
    }
    *at += filled as u64;
    Ok(Bytes::from(piece))
}

/// The chunks of `body`, one behind: the last one goes out only when all have the digest.
fn held(body: Body, digest: Digest) -> ByteStream {
    let begin = (body, Hasher::new(), None::<Bytes>, false);
    Box::pin(futures_util::stream::unfold(begin, move |(mut body, mut hasher, mut held, ended)| async move {
        if ended {
            return None;
        }
        loop {
            match body.next_chunk().await {
                Some(Ok(chunk)) => {
                    hasher.update(&chunk);
                    if let Some(before) = held.replace(chunk) {
                        return Some((Ok(before), (body, hasher, held, false)));
                    }
                }
                Some(Err(error)) => return Some((Err(error), (body, hasher, None, true))),
                None if hasher.finish() != digest => {
                    return Some((Err(not_as_signed()), (body, Hasher::new(), None, true)));
                }
                None => return held.map(|last| (Ok(last), (body, Hasher::new(), None, true))),
            }
        }
    }))
}

#[cold]
fn not_as_signed() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the body is not what the request's signature says")
}

#[cold]
fn broke_off(cause: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the sender broke off its body: {cause}"))
}

#[cold]
fn short(missing: u64) -> Error {
    Error::new(ErrorKind::Corrupted, format!("the bytes end {missing} bytes too early"))
}

#[cold]
fn long() -> Error {
    Error::new(ErrorKind::Corrupted, "there are more bytes than were announced")
}

#[cold]
fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the body is longer than the limit of {limit} bytes"))
}
