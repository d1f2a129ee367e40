//! A socket that notes its progress, and that closes without losing the last answer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::meter::Meter;
use crate::address::proxy::{self, Reading};
use crate::error::{Error, Result};

/// How long a closing connection reads on. A socket closed with unread bytes resets the
/// connection, and the client may lose the answer that told it why.
const LINGER: Duration = Duration::from_secs(1);
/// The first line of every HTTP/2 connection (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    meter: Arc<Meter>,
    /// Bytes that were read to find out the protocol.
    prefix: Bytes,
    closing: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, meter: Arc<Meter>) -> Socket {
        Socket { stream, meter, prefix: Bytes::new(), closing: None }
    }

    /// Whether the client speaks HTTP/2 without having been asked. Takes no more bytes from it
    /// than are needed to tell, and gives them back.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut seen = Vec::with_capacity(HTTP2_PREFACE.len());
        while seen.len() < HTTP2_PREFACE.len() {
            let before = seen.len();
            let missing = (HTTP2_PREFACE.len() - before) as u64;
            if (&mut *self).take(missing).read_buf(&mut seen).await? == 0 {
                break;
            }
            if seen[..] != HTTP2_PREFACE[..seen.len()] {
                break;
            }
        }
        let http2 = seen[..] == HTTP2_PREFACE[..];
        // What came with a proxy's header may not have been looked at to its end.
        seen.extend_from_slice(&self.prefix);
        self.prefix = Bytes::from(seen);
        Ok(http2)
    }

    /// Takes the header with which a proxy begins, and says for whom it connects. Bytes of the client
    /// that came with it are kept for whoever reads next.
    pub(super) async fn proxied(&mut self) -> Result<Reading> {
        let failed = |cause| Error::io("reading the proxy's header", cause);
        let mut seen = Vec::with_capacity(proxy::MAX_V1);
        loop {
            if self.stream.read_buf(&mut seen).await.map_err(failed)? == 0 {
                return Err(Error::invalid("the connection ended in the proxy's header"));
            }
            let reading = proxy::read(&seen)?;
            let length = match reading {
                Reading::Incomplete => continue,
                Reading::Local { length } | Reading::Unknown { length } => length,
                Reading::Proxied { length, .. } => length,
            };
            self.prefix = Bytes::from(seen).split_off(length);
            return Ok(reading);
        }
    }

    /// The two ends of the connection, for [`unacknowledged`].
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.stream.local_addr().ok().zip(self.stream.peer_addr().ok())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.meter.read_some();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        noted(&self.meter, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        noted(&self.meter, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// RFC 9112 section 9.6: a server closes in stages. It half-closes, then reads on until it
    /// receives the client's close, or is reasonably certain that the answer has arrived.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.closing = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let Socket { stream, closing: Some(deadline), .. } = &mut *self else {
            return Poll::Ready(Ok(()));
        };
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        // A client that goes on sending gets no more than this many reads in one turn.
        for _ in 0..16 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                // The client is gone, which is what was waited for.
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn noted(meter: &Meter, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match &result {
        Poll::Ready(Ok(written)) => meter.wrote(*written as u64),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => meter.blocks(),
    }
    result
}

/// How many bytes written on the connection with these ends the client has not acknowledged, where
/// the system tells (Linux).
///
/// The socket option that says so cannot be read without `unsafe`; the table of all connections
/// can. It is read when a client is suspected to be slow, and for all such clients together: what
/// was read within `age` is taken again.
pub(super) fn unacknowledged(ends: Option<(SocketAddr, SocketAddr)>, age: Duration) -> Option<u64> {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};
    type Queues = HashMap<(SocketAddr, SocketAddr), u64>;
    static TABLE: Mutex<Option<(Instant, Queues)>> = Mutex::new(None);

    let ends = ends.map(|(local, peer)| (canonical(local), canonical(peer)))?;
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if table.as_ref().is_none_or(|(read, _)| now - *read >= age) {
        let mut queues = Queues::new();
        for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            queues.extend(text.lines().filter_map(queue));
        }
        *table = Some((now, queues));
    }
    table.as_ref().and_then(|(_, queues)| queues.get(&ends).copied())
}

/// A line of the table: `sl local_address rem_address st tx_queue:rx_queue …`, all hex.
fn queue(line: &str) -> Option<((SocketAddr, SocketAddr), u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let ends = (endpoint(fields.next()?)?, endpoint(fields.next()?)?);
    let waiting = fields.nth(1)?.split_once(':')?.0;
    Some((ends, u64::from_str_radix(waiting, 16).ok()?))
}

/// An address as words of 32 bits in the machine's byte order, and a port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    if address.len() % 8 != 0 || address.len() > 32 || !address.is_ascii() {
        return None;
    }
    for (word, out) in address.as_bytes().chunks_exact(8).zip(bytes.chunks_exact_mut(4)) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        out.copy_from_slice(&word.to_ne_bytes());
    }
    match address.len() {
        8 => Some(SocketAddr::from(([bytes[0], bytes[1], bytes[2], bytes[3]], port))),
        32 => Some(canonical(SocketAddr::from((bytes, port)))),
        _ => None,
    }
}

/// Without what is not in the table: scopes, and the mapped form of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_table_of_connections_is_read() {
        let line = "   1: 0100007F:1F90 0200007F:C350 01 0000ABCD:00000000 01:00000014 00000000 0 0 1";
        let ends = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.2:50000".parse().unwrap());
        assert_eq!(queue(line), Some((ends, 0xabcd)));
        let mapped = "0000000000000000FFFF00000100007F:1F90";
        assert_eq!(endpoint(mapped), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(
            endpoint("B80D0120000000000000000001000000:0050"),
            Some("[2001:db8::1]:80".parse().unwrap())
        );
        for bad in ["", "  sl  local_address rem_address   st tx_queue rx_queue", "1: é:1 2:2 3 4:5"] {
            assert_eq!(queue(bad), None);
        }
    }
}
