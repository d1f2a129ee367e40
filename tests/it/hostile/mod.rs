//! The hostile cases, each under its number, against a whole edge on a real socket.
//!
//! A rule carries them, not a list: every case comes with spellings that no list has. What is
//! tried closer to the code, and not again here:
//!
//! | cases | where |
//! |---|---|
//! | A, as properties of the parser | `http::target`, `name::tests`, fuzz target `target` |
//! | B09, B10, B15, B18 in more sizes | `http::framing`, `http::limits` |
//! | D in more forms, validators | `http::ranges`, `range::tests` |
//! | G03, G07 OpenPGP and pairing messages; G14 (Wycheproof); G15, G16, G18, G19 | `bundle::signature`, `key::ed25519::tests`, `key::openpgp::tests` |
//! | G13 at its full size | `bundle::statement::too_much_of_everything`, `the_largest_bundle` |
//! | G21 | `bundle::signature::jfrog_envelope_verifies_and_is_unsupported` |
//! | I01 | `http::integrity`, `lane::a_flipped_bit_is_caught_reported_and_healed` |
//! | C10 | `http::peers` |
//! | K01 to K04 with short limits | `http::limits` |
//! | K07, K08 with a process of its own | `edge_process` |
//! | K05 | nothing is fetched on demand: one hash for many readers in `http::integrity` |
//! | K06, L06 | `store::fault`, `crash` |
//! | A16, D08, J, L01 to L03 and C, E, F, H | of parts that do not exist here |

mod bundles;
mod faults;
mod framing;
mod house;
mod http2;
mod paths;
mod private;
mod ranges;
mod resources;
