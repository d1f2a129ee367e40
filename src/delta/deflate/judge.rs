//! What has to hold for any bytes, for the fuzzer.

use super::encoder::Variant;
use super::model::Strategy;
use super::{Encoder, encode, inflate, merge, split};
use crate::error::Result;

/// Plain bytes that a judged stream may have.
const LIMIT: u64 = 1 << 20;

/// Judges one input and tells whether it was accepted. After a first byte of 0 comes a stream,
/// which goes there and back if it is one; after 1 the parts of a stream, each of the first two
/// with its length in two bytes before it; after anything else plain bytes, whose encoder the first
/// byte chooses.
///
/// # Panics
/// If bytes get lost, or more come out than the parts account for.
pub fn judge(data: &[u8]) -> bool {
    match data.split_first() {
        None => false,
        Some((0, coded)) => stream(coded).is_some(),
        Some((1, rest)) => parts(rest).is_some(),
        Some((&choice, plain)) => {
            let choice = usize::from(choice);
            let variant =
                [Variant::Stock, Variant::Chromium, Variant::ChromiumCrc, Variant::Gzip][choice & 3];
            let level = (choice >> 2) as u8 % 9 + 1;
            let strategy = if choice & 64 == 0 { Strategy::Default } else { Strategy::Runs };
            let window_bits = if choice & 128 == 0 { 15 } else { 9 };
            let encoder = Encoder::Zlib { variant, level, memory: 1, window_bits, strategy };
            let mut coded = Vec::new();
            encode(encoder, &mut &*plain, &mut coded).expect("memory takes all bytes");
            assert_eq!(stream(&coded).as_deref(), Some(plain), "{encoder:?}");
            true
        }
    }
}

/// The plain bytes, if it is a stream; then it is made again of its parts.
fn stream(coded: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let extent = inflate(&coded, 0, LIMIT, &mut |bytes| {
        plain.extend_from_slice(bytes);
        Ok(())
    });
    let coded = &coded[..extent.ok()?.coded as usize];
    let (mut parse, mut heads) = (Vec::new(), Vec::new());
    split(&coded, 0..coded.len() as u64, &mut parse, &mut heads).expect("what inflates can be split");
    assert_eq!(whole(&plain, &parse, &heads).expect("what was split can be merged"), coded);
    Some(plain)
}

fn parts(data: &[u8]) -> Option<Vec<u8>> {
    let (plain, rest) = prefixed(data)?;
    let (parse, heads) = prefixed(rest)?;
    let coded = whole(plain, parse, heads).ok()?;
    assert!(coded.len() <= plain.len() * 6 + heads.len() * 2 + 16);
    Some(coded)
}

fn prefixed(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

fn whole(mut plain: &[u8], mut parse: &[u8], mut heads: &[u8]) -> Result<Vec<u8>> {
    let mut coded = Vec::new();
    merge(&mut plain, &mut parse, &mut heads, &mut coded)?;
    Ok(coded)
}
