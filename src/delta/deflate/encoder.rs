//! Known encoders, and compressing with them.

use std::io;

use super::hash::{Castagnoli, Multiplied, Rolling};
use super::model::{self, Ends, Settings, Strategy};
use crate::error::{Error, ErrorKind, Result};

/// Compresses `plain` with `encoder`; gives the number of coded bytes.
///
/// # Errors
/// Whatever `plain` and `out` report.
pub(crate) fn encode(encoder: Encoder, plain: &mut dyn io::Read, out: &mut dyn io::Write) -> Result<u64> {
    let mut pipe = Pipe { plain, out, written: 0 };
    encoder.run(&mut pipe)?;
    Ok(pipe.written)
}

struct Pipe<'a> {
    plain: &'a mut dyn io::Read,
    out: &'a mut dyn io::Write,
    written: u64,
}

impl Ends for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.plain.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("reading what is to be compressed", error)),
            }
        }
        Ok(filled)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| Error::io("writing what was compressed", error))
    }
}

/// Which hash a member of the zlib family finds matches by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// zlib as it is published; Java's and Python's, too.
    Stock,
    /// Chromium's with a multiplied hash: node since 2022.
    Chromium,
    /// Chromium's with CRC-32C: node before that.
    ChromiumCrc,
}

/// An encoder and its settings: all that its output depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    Zlib { variant: Variant, level: u8, memory: u8, window_bits: u8, strategy: Strategy },
}

impl Encoder {
    pub(super) fn run(self, ends: &mut dyn Ends) -> Result<()> {
        match self {
            Encoder::Zlib { variant, level, memory, window_bits, strategy } => {
                let settings = Settings { level, memory, window_bits, strategy };
                match variant {
                    Variant::Stock => model::compress(settings, &Rolling::new(memory), ends),
                    Variant::Chromium => model::compress(settings, &Multiplied::new(memory), ends),
                    Variant::ChromiumCrc => {
                        model::compress(settings, &Castagnoli::new(memory, level), ends)
                    }
                }
            }
        }
    }
}
