//! What is asked of a run, what happens on the way, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::link::Link;
use super::message::Method;
#[cfg(feature = "delta")]
use super::planner::Planner;
use crate::bundle::Receipt;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::Error;
use crate::key::PublicKey;
use crate::name::{BundleName, NodeName, Version};

/// A bundle an edge should hold.
#[derive(Clone, Debug)]
pub struct BundleOffer {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: Version,
    /// The statement's digest.
    pub digest: Digest,
    /// The signed envelope.
    pub envelope: Bytes,
}

/// What an edge should have.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The edge's name; one that answers under another name is refused.
    pub edge: NodeName,
    /// The edge's identity key, once it is known; an edge with another key is refused.
    pub identity: Option<PublicKey>,
    /// The trust document's envelope.
    pub trust: Bytes,
    /// The bundles.
    pub bundles: Vec<BundleOffer>,
    /// Bundles that the edge was given earlier. Their blobs, and those of `bundles`, may be what a
    /// patch is made against; no others are.
    pub given: Vec<BundleOffer>,
}

/// How to go about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Uploads at a time.
    pub parallel: usize,
    /// Only find out what would be sent. Nothing is changed on the edge.
    pub dry_run: bool,
    /// The moment to judge receipts at.
    pub now: Timestamp,
    /// What the link may carry, and when.
    pub link: Option<Link>,
    /// Who finds out how little needs to be sent; without it blobs travel whole.
    #[cfg(feature = "delta")]
    pub planner: Option<Planner>,
}

impl Options {
    /// Eight uploads at a time, for real, whole blobs over an unlimited link.
    pub fn at(now: Timestamp) -> Options {
        Options {
            parallel: 8,
            dry_run: false,
            now,
            link: None,
            #[cfg(feature = "delta")]
            planner: None,
        }
    }

    /// The same, with patches where they are smaller.
    #[cfg(feature = "delta")]
    #[must_use]
    pub fn with_planner(mut self, planner: Planner) -> Options {
        self.planner = Some(planner);
        self
    }

    /// The same over this link.
    #[must_use]
    pub fn with_link(mut self, link: Link) -> Options {
        self.link = Some(link);
        self
    }
}

/// What happens on the way, for progress displays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The edge answered.
    Contacted,
    /// The edge took a trust document of this version.
    Trusted(u64),
    /// The edge wants this much of a bundle.
    Wanted {
        /// The bundle.
        bundle: BundleName,
        /// Its version.
        version: Version,
        /// How many blobs.
        blobs: u64,
        /// How many bytes of them.
        bytes: u64,
    },
    /// It was found out how a blob travels.
    Planned {
        /// The blob.
        digest: Digest,
        /// How.
        method: Method,
        /// Its bytes.
        size: u64,
        /// The bytes that travel.
        bytes: u64,
    },
    /// Bytes went out.
    Sent(u64),
    /// So many bytes of a blob need not go out.
    Saved(u64),
    /// A blob could not travel as planned and travels whole.
    FellBack {
        /// The blob.
        digest: Digest,
        /// Why.
        why: String,
    },
    /// A blob is complete at the edge.
    Stored(Digest),
    /// The bundle is visible at the edge, and its receipt was verified.
    Proven {
        /// The bundle.
        bundle: BundleName,
        /// Its version.
        version: Version,
    },
}

/// A blob that a dry run would send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBlob {
    /// Which.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// How much of it the edge has.
    pub have: u64,
    /// One of its names, `repository/path`.
    pub name: String,
    /// How it travels.
    pub method: Method,
    /// How many bytes of it, or in its place, travel.
    pub bytes: u64,
    /// What it is made from at the edge.
    pub bases: Vec<Digest>,
    /// Why it travels this way.
    pub why: String,
}

/// How many blobs travelled in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blobs.
    pub blobs: u64,
    /// Their sizes, added up.
    pub whole: u64,
    /// The bytes that travelled in their place.
    pub bytes: u64,
}

/// A receipt that was verified.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bundle.
    pub bundle: BundleName,
    /// Its version.
    pub version: Version,
    /// What the edge says it has.
    pub receipt: Receipt,
    /// The receipt as it was signed.
    pub envelope: Bytes,
}

/// Where an edge stands after a run.
#[derive(Debug)]
pub struct Outcome {
    /// The edge's identity key.
    pub identity: PublicKey,
    /// Verified receipts, one for each bundle the edge proves to hold.
    pub proofs: Vec<Proof>,
    /// What a dry run would send, or an interrupted run did not.
    pub plan: Vec<PlannedBlob>,
    /// Bytes that went out for blobs, those that had to be repeated included.
    pub sent_bytes: u64,
    /// Blobs that were completed.
    pub sent_blobs: u64,
    /// Bytes that whole blobs would have taken.
    pub whole_bytes: u64,
    /// What was completed, by the way it travelled.
    pub methods: BTreeMap<Method, Tally>,
    /// Blobs that could not travel as planned, and why.
    pub fell_back: Vec<(Digest, String)>,
    /// When the link opens again, if it was closed before all was done.
    pub waits: Option<Timestamp>,
    /// Bundles that did not get there, and why.
    pub failed: Vec<(BundleName, Version, Error)>,
}

/// Who is told of [`Event`]s.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;
