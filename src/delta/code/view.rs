//! Files as the aligner sees them: fields that hold addresses say what they point to.

use super::map::Map;
use super::site::{Kind, Sites};

fn mix(value: u32) -> u32 {
    let value = (value ^ value >> 15).wrapping_mul(0x2c1b_3c6d);
    let value = (value ^ value >> 12).wrapping_mul(0x297a_2d39);
    value ^ value >> 15
}

fn put(view: &mut [u8], at: u32, width: u32, word: u32) {
    let wide = if width == 8 { u64::from(word) << 32 | u64::from(mix(word)) } else { u64::from(word) };
    if let Some(field) = view.get_mut(at as usize..(at + width) as usize) {
        field.copy_from_slice(&wide.to_le_bytes()[..width as usize]);
    }
}

/// Every reference of code looks alike, so code matches wherever it went. References in tables
/// match nothing: there would be nothing else to tell their rows apart. `salt` tells files apart.
pub(super) fn blind(bytes: &[u8], sites: &Sites, salt: u32) -> Vec<u8> {
    let mut view = bytes.to_vec();
    for site in &sites.sites {
        let word = match site.kind() {
            Kind::Code(_) => 0,
            _ => mix(site.at().wrapping_mul(2).wrapping_add(salt)),
        };
        put(&mut view, site.at(), site.width(), word);
    }
    view
}

/// References look alike if they point to the same thing; `map` says where things of this file
/// are in the other one.
pub(super) fn labelled(bytes: &[u8], sites: &Sites, map: Option<&Map>) -> Vec<u8> {
    let mut view = bytes.to_vec();
    for site in &sites.sites {
        let target = map.map_or(site.target, |map| map.project(site.target));
        put(&mut view, site.at(), site.width(), mix(target));
    }
    view
}
