//! A binary trie from networks to countries: the longest prefix that is in it answers.

use std::net::IpAddr;

use crate::place::{Country, Network};

/// One trie for IPv4 and one for IPv6.
#[derive(Clone, Debug, Default)]
pub(super) struct Forest {
    pub(super) v4: Tree,
    pub(super) v6: Tree,
}

impl Forest {
    /// Enters `network`; `false` if it is in already.
    pub(super) fn insert(&mut self, network: Network, country: Country) -> bool {
        match network.address() {
            IpAddr::V4(address) => self.v4.insert(left(address.into()), network.prefix(), country),
            IpAddr::V6(address) => self.v6.insert(address.into(), network.prefix(), country),
        }
    }

    /// The country of the smallest network that `address` lies in.
    pub(super) fn find(&self, address: IpAddr) -> Option<Country> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(left(address.into())),
            IpAddr::V6(address) => self.v6.find(address.into()),
        }
    }
}

/// An IPv4 address as the first bits of a longer one.
fn left(address: u32) -> u128 {
    u128::from(address) << 96
}

#[derive(Clone, Debug)]
pub(super) struct Tree(Vec<Node>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    /// Where the nodes for the next bit stand; 0, which is the root, for none.
    pub(super) children: [u32; 2],
    pub(super) country: Option<Country>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree(vec![Node::default()])
    }
}

impl Tree {
    /// The node at `index`; the root is at 0.
    pub(super) fn node(&self, index: u32) -> Node {
        self.0.get(index as usize).copied().unwrap_or_default()
    }

    fn insert(&mut self, bits: u128, prefix: u8, country: Country) -> bool {
        let at = self.reach(bits, prefix) as usize;
        let free = self.0[at].country.is_none();
        if free {
            self.0[at].country = Some(country);
        }
        free
    }

    /// The node for the first `prefix` bits of `bits`, made if it is not there.
    pub(super) fn reach(&mut self, bits: u128, prefix: u8) -> u32 {
        let mut at = 0;
        for depth in 0..prefix {
            let side = bit(bits, depth);
            if self.0[at].children[side] == 0 {
                // A node for every bit of 2^25 networks would fill the memory before the index.
                self.0[at].children[side] = self.0.len() as u32;
                self.0.push(Node::default());
            }
            at = self.0[at].children[side] as usize;
        }
        at as u32
    }

    fn find(&self, bits: u128) -> Option<Country> {
        let mut node = self.0[0];
        let mut found = node.country;
        for depth in 0..128 {
            let next = node.children[bit(bits, depth)];
            if next == 0 {
                break;
            }
            node = self.0[next as usize];
            found = node.country.or(found);
        }
        found
    }
}

fn bit(bits: u128, depth: u8) -> usize {
    (bits >> (127 - depth) & 1) as usize
}
