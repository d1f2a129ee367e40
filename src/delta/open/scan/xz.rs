//! .xz streams, one after the other.

use liblzma::stream::{Action, Status, Stream};

use super::{Frame, Scanner};
use crate::delta::medium::ReadAt;
use crate::delta::open::Family;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"\xfd7zXZ\0";
/// How much padding between two streams is looked through.
const PADDING: u64 = 64 << 10;
const BUFFER: usize = 64 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    let end = frame.range.end;
    let mut at = frame.range.start;
    loop {
        let name = frame.name.clone();
        let Some(stop) = scanner.stream(frame, Family::Xz, at..end, None, name)? else { break };
        at = stop;
        // Stream padding: zeros, four at a time.
        let most = end.min(stop.saturating_add(PADDING));
        while scanner.read::<4>(at..most)? == Some([0; 4]) {
            at += 4;
        }
        let magic = scanner.read::<6>(at..end)?;
        if !magic.is_some_and(|magic| is(&magic)) {
            break;
        }
    }
    Ok(())
}

/// Decodes one stream, its index and footer included; gives its coded and its plain length.
pub(super) fn decode(
    coded: &dyn ReadAt,
    limit: u64,
    memory: u64,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(u64, u64)> {
    let mut decoder = Stream::new_stream_decoder(memory, 0).map_err(damaged)?;
    let mut input = vec![0; BUFFER];
    let mut output = vec![0; BUFFER];
    loop {
        let read = coded.read_at(&mut input, decoder.total_in())?;
        let mut rest = input.get(..read).unwrap_or_default();
        loop {
            let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
            let action = if read == 0 { Action::Finish } else { Action::Run };
            let status = decoder.process(rest, &mut output, action).map_err(damaged)?;
            let used = (decoder.total_in() - before_in) as usize;
            let made = (decoder.total_out() - before_out) as usize;
            rest = rest.get(used..).unwrap_or_default();
            if decoder.total_out() > limit {
                return Err(Error::new(ErrorKind::TooLarge, "an xz stream decodes to more than it may"));
            }
            out(output.get(..made).unwrap_or_default())?;
            if status == Status::StreamEnd {
                return Ok((decoder.total_in(), decoder.total_out()));
            }
            if used == 0 && made == 0 {
                if read == 0 || !rest.is_empty() {
                    return Err(Error::invalid("an xz stream ends early"));
                }
                break;
            }
            if rest.is_empty() && made < output.len() {
                break;
            }
        }
    }
}

#[cold]
fn damaged(error: liblzma::stream::Error) -> Error {
    Error::invalid(format!("damaged xz stream: {error}"))
}
