//! The whole edge under power cuts, failing disks and unlucky interleavings.
//!
//! The stories behind it: a receipt was out and the bundle was not there after the night; half of a
//! release answered and half of it did not; a withdrawn build came back with the light; a collector
//! took the blob that a bundle had just been promised. [`image`] cuts the power, [`fault`] breaks
//! the disk, [`interleaving`] and [`conflict`] let tasks run against each other in every order.

mod conflict;
mod fault;
mod image;
mod interleaving;
mod schedule;
mod story;
mod workload;
