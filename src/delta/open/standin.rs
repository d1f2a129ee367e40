//! Stands in for `deflate::{split, merge}` until they are there: the parse is the coded stream.
use std::io;
use std::ops::Range;

use crate::delta::medium::{ReadAt, Spool};
use crate::error::{Error, Result};

pub(crate) fn split(
    coded: &dyn ReadAt,
    range: Range<u64>,
    parse: &mut dyn Spool,
    heads: &mut dyn Spool,
) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut at = range.start;
    while at < range.end {
        let length = buffer.len().min((range.end - at) as usize);
        coded.read_exact_at(&mut buffer[..length], at)?;
        parse.append(&buffer[..length])?;
        at += length as u64;
    }
    heads.append(&[1, 2])
}

pub(crate) fn merge(
    plain: &mut dyn io::Read,
    parse: &mut dyn io::Read,
    heads: &mut dyn io::Read,
    out: &mut dyn io::Write,
) -> Result<u64> {
    io::copy(plain, &mut io::sink()).map_err(|e| Error::io("r", e))?;
    io::copy(heads, &mut io::sink()).map_err(|e| Error::io("r", e))?;
    io::copy(parse, out).map_err(|e| Error::io("w", e))
}
