//! Signed URLs as others see them: vectors, spoiled tokens, a second verifier, CDN libraries.

mod cdn;
mod edge;
mod spoiled;
mod vector;
