//! LZMA2 as liblzma makes it: the presets, with the dictionary and the filters of the header.

use std::io::{Read, Write};

use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};

use super::{Checked, Source, carried, fill};
use crate::delta::medium::ReadAt;
use crate::error::{Error, ErrorKind, Result};

const BUFFER: usize = 64 << 10;
/// The flag of the slower variants of the presets (LZMA_PRESET_EXTREME).
const EXTREME: u32 = 1 << 31;
/// lc = 3, lp = 0, pb = 2.
const PROPERTIES: u8 = 0x5d;
/// How much is tried before a whole block is.
const PREFIX: u64 = 1 << 20;

/// The filters of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The size of the dictionary as LZMA2 writes it.
    pub(crate) dictionary: u8,
    /// The filter for branches before it, 0 for none.
    pub(crate) branch: u8,
}

impl Chain {
    /// Whether there are filters and dictionaries like that.
    pub(crate) fn is_known(self) -> bool {
        self.dictionary <= 40 && matches!(self.branch, 0 | 4..=11)
    }

    /// The dictionary in bytes: 2^n or 2^n + 2^(n-1).
    fn bytes(self) -> u64 {
        match self.dictionary {
            40.. => u64::from(u32::MAX),
            bits => (2 | u64::from(bits & 1)) << (bits / 2 + 11),
        }
    }

    fn filters(self, options: &LzmaOptions) -> Filters {
        let mut filters = Filters::new();
        match self.branch {
            4 => filters.x86(),
            5 => filters.powerpc(),
            6 => filters.ia64(),
            7 => filters.arm(),
            8 => filters.arm_thumb(),
            9 => filters.sparc(),
            10 => filters.arm64(),
            11 => filters.riscv(),
            _ => &mut filters,
        };
        filters.lzma2(options);
        filters
    }

    /// Decodes up to the end mark; gives the coded and the plain length.
    pub(crate) fn decode(
        self,
        coded: &dyn ReadAt,
        limit: u64,
        memory: u64,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(u64, u64)> {
        if !self.is_known() || self.bytes() > memory / 2 {
            return Err(Error::new(ErrorKind::TooLarge, "an xz block has too large a dictionary"));
        }
        let mut options = LzmaOptions::new_preset(0).map_err(damaged)?;
        options.dict_size(self.size());
        let mut decoder = Stream::new_raw_decoder(&self.filters(&options)).map_err(damaged)?;
        let mut input = vec![0; BUFFER];
        let mut output = vec![0; BUFFER];
        loop {
            let read = coded.read_at(&mut input, decoder.total_in())?;
            let mut rest = input.get(..read).unwrap_or_default();
            loop {
                let step = step(&mut decoder, rest, &mut output, Action::Run)?;
                rest = rest.get(step.used..).unwrap_or_default();
                if decoder.total_out() > limit {
                    return Err(Error::new(ErrorKind::TooLarge, "an xz block decodes to more than it may"));
                }
                out(output.get(..step.made).unwrap_or_default())?;
                if step.end {
                    return Ok((decoder.total_in(), decoder.total_out()));
                }
                if step.made < output.len() && (rest.is_empty() || step.used == 0) {
                    break;
                }
            }
            if read == 0 || !rest.is_empty() {
                return Err(Error::invalid("an xz block ends early"));
            }
        }
    }

    fn size(self) -> u32 {
        u32::try_from(self.bytes()).unwrap_or(u32::MAX)
    }
}

/// An LZMA2 encoder of liblzma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    preset: u8,
    extreme: bool,
    /// lc, lp and pb, as LZMA writes them.
    properties: u8,
    chain: Chain,
}

impl Params {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let preset = self.preset | u8::from(self.extreme) << 7;
        vec![preset, self.properties, self.chain.dictionary, self.chain.branch]
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Params> {
        let [preset, properties, dictionary, branch] = *bytes else { return Err(unknown()) };
        let chain = Chain { dictionary, branch };
        let params = Params { preset: preset & 0x7f, extreme: preset >= 0x80, properties, chain };
        // The encoder takes dictionaries from 4 KiB to 1.5 GiB; `memory` bounds them further.
        let known = params.preset <= 9 && chain.is_known() && chain.bytes() <= 1 << 30;
        if known && params.lclppb().is_some() { Ok(params) } else { Err(unknown()) }
    }

    pub(super) fn memory(self) -> u64 {
        12 * self.chain.bytes() + (8 << 20)
    }

    pub(super) fn encode(self, plain: &mut dyn Read, out: &mut dyn Write) -> Result<u64> {
        self.run(plain, out, true)
    }

    fn lclppb(self) -> Option<(u32, u32, u32)> {
        let all = u32::from(self.properties);
        let (lc, lp, pb) = (all % 9, all / 9 % 5, all / 45);
        (lc + lp <= 4 && pb <= 4).then_some((lc, lp, pb))
    }

    /// Encodes all of `plain`; without an end only what comes out by itself.
    fn run(self, plain: &mut dyn Read, out: &mut dyn Write, finish: bool) -> Result<u64> {
        let preset = u32::from(self.preset) | if self.extreme { EXTREME } else { 0 };
        let mut options = LzmaOptions::new_preset(preset).map_err(refused)?;
        let (lc, lp, pb) = self.lclppb().ok_or_else(unknown)?;
        options.literal_context_bits(lc).literal_position_bits(lp).position_bits(pb);
        options.dict_size(self.chain.size());
        let mut encoder = Stream::new_raw_encoder(&self.chain.filters(&options)).map_err(refused)?;
        let mut input = vec![0; BUFFER];
        let mut output = vec![0; BUFFER];
        loop {
            let read = fill(plain, &mut input)?;
            if read == 0 && !finish {
                return Ok(encoder.total_out());
            }
            let action = if read == 0 { Action::Finish } else { Action::Run };
            let mut rest = input.get(..read).unwrap_or_default();
            loop {
                let step = step(&mut encoder, rest, &mut output, action)?;
                rest = rest.get(step.used..).unwrap_or_default();
                let made = output.get(..step.made).unwrap_or_default();
                out.write_all(made).map_err(|error| carried("writing xz data", error))?;
                if step.end {
                    return Ok(encoder.total_out());
                }
                if read > 0 && rest.is_empty() && step.made < output.len() {
                    break;
                }
            }
        }
    }
}

/// Finds the preset that makes `coded`.
pub(super) fn identify(
    coded: &dyn ReadAt,
    plain: &dyn ReadAt,
    chain: Chain,
    memory: u64,
    hint: Option<Params>,
    effort: u8,
    whole: bool,
) -> Result<Option<Params>> {
    // The first chunk says lc, lp and pb, unless it is stored.
    let mut first = [0; 6];
    let properties = match coded.read_exact_at(&mut first, 0) {
        Ok(()) if first[0] >= 0xe0 => first[5],
        _ => PROPERTIES,
    };
    let mut candidates: Vec<Params> = hint.into_iter().filter(|hint| hint.chain == chain).collect();
    for extreme in [false, true] {
        for preset in likely(chain.bytes()) {
            let params = Params { preset: *preset, extreme, properties, chain };
            if !candidates.contains(&params) {
                candidates.push(params);
            }
        }
    }
    candidates.truncate(match effort {
        0 => 0,
        1..=3 => 1,
        4..=5 => 3,
        _ => candidates.len(),
    });
    for params in candidates {
        if params.memory() > memory || params.lclppb().is_none() {
            continue;
        }
        let size = plain.size();
        if size > 2 * PREFIX {
            let mut check = Checked::new(coded);
            let ran = params.run(&mut Source::new(plain, 0..PREFIX), &mut check, false);
            if check.judge(ran)?.is_none_or(|made| made == 0) {
                continue;
            }
            if !whole {
                return Ok(Some(params));
            }
        }
        let mut check = Checked::new(coded);
        let ran = params.run(&mut Source::new(plain, 0..size), &mut check, true);
        if check.judge(ran)? == Some(coded.size()) {
            return Ok(Some(params));
        }
    }
    Ok(None)
}

/// The presets with this dictionary, the most used first; all that are used if it was chosen.
fn likely(dictionary: u64) -> &'static [u8] {
    match dictionary >> 18 {
        1 => &[0],
        4 => &[1],
        8 => &[2],
        16 => &[4, 3],
        32 => &[6, 5],
        64 => &[7],
        128 => &[8],
        256 => &[9],
        _ => &[6, 9],
    }
}

struct Taken {
    used: usize,
    made: usize,
    end: bool,
}

fn step(stream: &mut Stream, input: &[u8], output: &mut [u8], action: Action) -> Result<Taken> {
    let (total_in, total_out) = (stream.total_in(), stream.total_out());
    let status = stream.process(input, output, action).map_err(damaged)?;
    let used = (stream.total_in() - total_in) as usize;
    let made = (stream.total_out() - total_out) as usize;
    Ok(Taken { used, made, end: status == Status::StreamEnd })
}

#[cold]
fn damaged(error: liblzma::stream::Error) -> Error {
    Error::invalid(format!("damaged xz block: {error}"))
}

#[cold]
fn refused(error: liblzma::stream::Error) -> Error {
    Error::new(ErrorKind::Unsupported, format!("recipe: an xz encoder is not possible: {error}"))
}

#[cold]
fn unknown() -> Error {
    Error::new(ErrorKind::Corrupted, "recipe: there is no such xz encoder")
}
