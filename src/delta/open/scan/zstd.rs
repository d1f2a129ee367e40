//! Zstandard frames (RFC 8878), one after the other, with skippable frames between them.

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::{Frame, Scanner, le32};
use crate::delta::medium::ReadAt;
use crate::delta::open::image::Method;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: u64 = 0xfd2f_b528;
/// Skippable frames have one of sixteen magic numbers.
const SKIPPABLE: u64 = 0x184d_2a50;
/// The largest window that decoders have to take without being told to.
const WINDOW_LOG: u32 = 27;
const BUFFER: usize = 128 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    head.len() >= 8 && (le32(head, 0) == MAGIC || is_skippable(head))
}

fn is_skippable(head: &[u8]) -> bool {
    le32(head, 0) & 0xffff_fff0 == SKIPPABLE
}

pub(super) fn scan(scanner: &mut Scanner<'_, '_>, frame: &mut Frame) -> Result<()> {
    frame.joins = true;
    let end = frame.range.end;
    let mut at = frame.range.start;
    while let Some(head) = scanner.read::<8>(at..end)? {
        if is_skippable(&head) {
            at = at.saturating_add(8 + le32(&head, 4));
        } else if le32(&head, 0) == MAGIC {
            let name = frame.name.clone();
            let Some(stop) = scanner.stream(frame, Method::Zstd, at..end, None, name)? else { break };
            at = stop;
        } else {
            break;
        }
    }
    Ok(())
}

/// Decodes one frame; gives its coded and its plain length.
pub(super) fn decode(
    coded: &dyn ReadAt,
    limit: u64,
    memory: u64,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(u64, u64)> {
    let mut decoder = Decoder::new().map_err(damaged)?;
    let window_log = memory.max(1 << 11).ilog2().min(WINDOW_LOG + 1) - 1;
    decoder.set_parameter(DParameter::WindowLogMax(window_log)).map_err(damaged)?;
    let (mut total_in, mut total_out) = (0, 0);
    let mut input = vec![0; BUFFER];
    let mut output = vec![0; BUFFER];
    loop {
        let read = coded.read_at(&mut input, total_in)?;
        if read == 0 {
            return Err(Error::invalid("a zstd frame ends early"));
        }
        let mut source = InBuffer::around(input.get(..read).unwrap_or_default());
        loop {
            let mut sink = OutBuffer::around(output.as_mut_slice());
            let before = source.pos();
            let hint = decoder.run(&mut source, &mut sink).map_err(damaged)?;
            let made = sink.pos();
            total_in += (source.pos() - before) as u64;
            total_out += made as u64;
            if total_out > limit {
                return Err(Error::new(ErrorKind::TooLarge, "a zstd frame decodes to more than it may"));
            }
            out(output.get(..made).unwrap_or_default())?;
            if hint == 0 {
                return Ok((total_in, total_out));
            }
            if source.pos() == read && made < BUFFER {
                break;
            }
        }
    }
}

#[cold]
fn damaged(error: std::io::Error) -> Error {
    Error::invalid(format!("damaged zstd frame: {error}"))
}
