//! What a log tells of the past: the [`AuditHistory`] port.

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::{Event, MemoryAudit};
use crate::clock::Timestamp;
use crate::error::Result;

/// Tells the events of the past. An ability of its own: not every log that takes events can tell
/// them again.
///
/// # Contract
/// - **Order**: events are told as they were taken.
/// - **As much as can still be told**: who was erased is told in the form that the log kept.
/// - It blocks, on files perhaps.
pub trait AuditHistory: fmt::Debug + Send + Sync + 'static {
    /// Shows the events from `from` on, before `until`, to `each`, until it answers `false`.
    ///
    /// # Errors
    /// Those of the log, and what `each` answers.
    fn events(
        &self,
        from: Timestamp,
        until: Timestamp,
        each: &mut dyn FnMut(Event) -> Result<bool>,
    ) -> Result<()>;
}

impl<H: AuditHistory + ?Sized> AuditHistory for Arc<H> {
    fn events(
        &self,
        from: Timestamp,
        until: Timestamp,
        each: &mut dyn FnMut(Event) -> Result<bool>,
    ) -> Result<()> {
        (**self).events(from, until, each)
    }
}

impl AuditHistory for MemoryAudit {
    fn events(
        &self,
        from: Timestamp,
        until: Timestamp,
        each: &mut dyn FnMut(Event) -> Result<bool>,
    ) -> Result<()> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for event in events.into_iter().filter(|event| event.at >= from && event.at < until) {
            if !each(event)? {
                break;
            }
        }
        Ok(())
    }
}
