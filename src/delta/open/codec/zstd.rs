//! Zstandard frames as libzstd makes them: the levels, in one stream or in jobs.

use std::io::{Read, Write};

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer};

use super::{Checked, Source, carried, fill};
use crate::delta::medium::ReadAt;
use crate::error::{Error, ErrorKind, Result};

/// Blocks hold so much; what is cut elsewhere may give other blocks.
const BUFFER: usize = 128 << 10;
/// How much is tried before a whole frame is.
const PREFIX: u64 = 512 << 10;
/// So many equal bytes do not come of another level.
const LIKE: usize = 64;
/// The levels, the most used first.
const LEVELS: [i8; 27] =
    [3, 19, 1, 9, 6, 10, 15, 12, 18, 2, 4, 5, 7, 8, 11, 13, 14, 16, 17, 20, 21, 22, -1, -2, -3, -5, -7];
/// The window from which matches far away are looked for (`--long`).
const LONG: u8 = 27;

/// An encoder of libzstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    level: i8,
    /// 0 for that of the level.
    window_log: u8,
    /// Whether the length is known at the beginning, and written.
    sized: bool,
    checksum: bool,
    /// Whether the content is cut into jobs, as with worker threads.
    jobs: bool,
    /// Whether matches far away are looked for.
    long: bool,
}

impl Params {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let flags = [self.sized, self.checksum, self.jobs, self.long];
        let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        vec![self.level.cast_unsigned(), self.window_log, flags]
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Params> {
        let [level, window_log, flags] = *bytes else { return Err(unknown()) };
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let params = Params {
            level: level.cast_signed(),
            window_log,
            sized: flag(0),
            checksum: flag(1),
            jobs: flag(2),
            long: flag(3),
        };
        let known = params.level <= 22 && matches!(window_log, 0 | 10..=LONG) && flags < 16;
        if known { Ok(params) } else { Err(unknown()) }
    }

    pub(super) fn needs_length(self) -> bool {
        self.sized
    }

    pub(super) fn memory(self) -> u64 {
        let tables: u64 = match self.level {
            22 => 800 << 20,
            21 => 420 << 20,
            20 => 230 << 20,
            13.. => 90 << 20,
            _ => 50 << 20,
        };
        let window = 1 << self.window_log;
        // A job and what comes of it are held as a whole.
        let jobs = if self.jobs { window.max(32 << 20) * 3 } else { 0 };
        tables + 2 * window + jobs
    }

    pub(super) fn encode(
        self,
        plain: &mut dyn Read,
        length: Option<u64>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        self.run(plain, length, out, true)
    }

    /// Encodes all of `plain`; without an end only what comes out by itself.
    fn run(
        self,
        plain: &mut dyn Read,
        length: Option<u64>,
        out: &mut dyn Write,
        finish: bool,
    ) -> Result<u64> {
        let mut encoder = self.encoder(length)?;
        let mut output = vec![0; zstd_safe::CCtx::out_size()];
        let (mut input, mut next) = (vec![0; BUFFER], vec![0; BUFFER]);
        let (mut have, mut total) = (fill(plain, &mut input)?, 0);
        loop {
            let following = fill(plain, &mut next)?;
            // One who knows the length ends with the last bytes, others after them.
            let last = following == 0 && (self.sized || have == 0);
            if last && !finish {
                return Ok(total);
            }
            let directive = if last { Directive::ZSTD_e_end } else { Directive::ZSTD_e_continue };
            let mut source = InBuffer::around(input.get(..have).unwrap_or_default());
            loop {
                let mut sink = OutBuffer::around(output.as_mut_slice());
                let left = encoder.compress_stream2(&mut sink, &mut source, directive).map_err(refused)?;
                let made = sink.pos();
                total += made as u64;
                let made = output.get(..made).unwrap_or_default();
                out.write_all(made).map_err(|error| carried("writing a zstd frame", error))?;
                if last && left == 0 {
                    return Ok(total);
                }
                if !last && source.pos() == have {
                    break;
                }
            }
            std::mem::swap(&mut input, &mut next);
            have = following;
        }
    }

    fn encoder(self, length: Option<u64>) -> Result<CCtx<'static>> {
        let mut encoder = CCtx::try_create().ok_or_else(|| refused(0))?;
        let mut set = |parameter| encoder.set_parameter(parameter).map_err(refused);
        set(CParameter::CompressionLevel(self.level.into()))?;
        set(CParameter::ChecksumFlag(self.checksum))?;
        set(CParameter::ContentSizeFlag(self.sized))?;
        if self.window_log > 0 {
            set(CParameter::WindowLog(self.window_log.into()))?;
        }
        if self.long {
            set(CParameter::EnableLongDistanceMatching(true))?;
        }
        if self.jobs {
            set(CParameter::NbWorkers(1))?;
        }
        if self.sized {
            encoder.set_pledged_src_size(length).map_err(refused)?;
        }
        Ok(encoder)
    }
}

/// Finds the level that makes `coded`.
pub(super) fn identify(
    coded: &dyn ReadAt,
    plain: &dyn ReadAt,
    memory: u64,
    hint: Option<Params>,
    effort: u8,
) -> Result<Option<Params>> {
    let mut head = [0; 6];
    coded.read_exact_at(&mut head, 0)?;
    // RFC 8878, section 3.1.1.1: the descriptor, then the window unless it is the whole content.
    let (descriptor, window) = (head[4], head[5]);
    let single = descriptor & 0x20 != 0;
    let sized = single || descriptor >> 6 != 0;
    let window_log = if single { 0 } else { (window >> 3) + 10 };
    // A dictionary, or a window that libzstd does not make.
    if descriptor & 3 != 0 || !single && (window & 7 != 0 || window_log > LONG) {
        return Ok(None);
    }
    let checksum = descriptor & 4 != 0;
    let fits = |params: &Params| params.sized == sized && params.checksum == checksum;
    let mut candidates: Vec<Params> = hint.into_iter().filter(fits).collect();
    let levels = match effort {
        0 => 0,
        1..=3 => 2,
        4..=5 => 10,
        _ => LEVELS.len(),
    };
    for level in LEVELS.iter().take(levels) {
        let plain = Params { level: *level, window_log: 0, sized, checksum, jobs: false, long: false };
        candidates.push(plain);
        if window_log == LONG {
            candidates.push(Params { window_log, long: true, ..plain });
        }
    }
    for params in candidates {
        if let Some(found) = attempt(params, coded, plain, memory)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Tries one encoder on the beginning and then on the whole, in one and in jobs.
fn attempt(params: Params, coded: &dyn ReadAt, plain: &dyn ReadAt, memory: u64) -> Result<Option<Params>> {
    let size = plain.size();
    let run = |params: Params, length: u64, whole: bool| -> Result<(bool, usize)> {
        let mut check = Checked::new(coded);
        let ran = params.run(&mut Source::new(plain, 0..length), Some(size), &mut check, whole);
        let right = check.judge(ran)?;
        Ok((if whole { right == Some(coded.size()) } else { right.is_some() }, check.first))
    };
    let fits = |params: &Params| params.memory() <= memory;
    let single = Params { jobs: false, ..params };
    if !fits(&single) {
        return Ok(None);
    }
    let prefix = size > 2 * PREFIX;
    let (mut right, first) = if prefix { run(single, PREFIX, false)? } else { (true, LIKE) };
    if right && !params.jobs {
        right = run(single, size, true)?.0;
        if right {
            return Ok(Some(single));
        }
    }
    // Jobs begin as one stream does. Content of half a megabyte is not cut into any.
    let jobs = Params { jobs: true, ..params };
    let likely = size > PREFIX && (right || first >= LIKE) && fits(&jobs);
    Ok((likely && run(jobs, size, true)?.0).then_some(jobs))
}

#[cold]
fn refused(code: usize) -> Error {
    let why = zstd_safe::get_error_name(code);
    Error::new(ErrorKind::Unsupported, format!("recipe: a zstd encoder is not possible: {why}"))
}

#[cold]
fn unknown() -> Error {
    Error::new(ErrorKind::Corrupted, "recipe: there is no such zstd encoder")
}
