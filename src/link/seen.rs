//! Tokens that were verified a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Claims, KeyName};
use crate::digest::Digest;

/// What is remembered of a token: what its tag was found good for.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) key: KeyName,
    pub(super) claims: Arc<Claims>,
}

/// A bounded memory of tokens whose tag and claims were found good, by their SHA-256, so that the
/// next request with the same token skips those two and nothing else. What the keys changed since
/// is forgotten.
#[derive(Debug)]
pub struct SeenTokens {
    /// Most tokens of one half.
    half: usize,
    memory: Mutex<Memory>,
}

/// Two halves: what is used moves to the young one, and when that is full the old one is dropped.
#[derive(Debug, Default)]
struct Memory {
    generation: u64,
    young: HashMap<Digest, Seen>,
    old: HashMap<Digest, Seen>,
}

impl SeenTokens {
    /// A memory of at most `most` tokens (about 1 KiB each).
    pub fn new(most: usize) -> SeenTokens {
        SeenTokens { half: (most / 2).max(1), memory: Mutex::new(Memory::default()) }
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.young.len() + memory.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn recall(&self, token: &Digest, generation: u64) -> Option<Seen> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.generation != generation {
            return None;
        }
        if let Some(seen) = memory.young.get(token) {
            return Some(seen.clone());
        }
        let seen = memory.old.remove(token)?;
        memory.keep(self.half, *token, seen.clone());
        Some(seen)
    }

    pub(super) fn remember(&self, token: Digest, generation: u64, seen: Seen) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.generation != generation {
            *memory = Memory { generation, ..Memory::default() };
        }
        memory.keep(self.half, token, seen);
    }
}

impl Default for SeenTokens {
    /// A memory of 8,192 tokens.
    fn default() -> SeenTokens {
        SeenTokens::new(8_192)
    }
}

impl Memory {
    fn keep(&mut self, half: usize, token: Digest, seen: Seen) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, seen);
    }
}
