//! What happened, and who did it: the [`AuditSink`] port.

mod append;
pub mod disk;
mod entry;
mod event;
mod export;
mod keeper;
mod log;
mod note;
mod person;
mod query;
mod recover;
pub mod segment;
mod tar;
mod tile;
mod verify;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::Result;

pub use append::Health;
pub use entry::{Entry, Outcome, Text, What};
pub use event::{Event, kind};
pub use export::Format;
pub use log::{LogOptions, TileLog};
pub use note::{
    Checkpoint, MAX_NOTE, MAX_SIGNATURES, NoteSignature, Observed, Witness, origin, verifier_key,
};
pub use person::Person;
pub use query::{Line, LogQuery, MAX_PAGE, Page};
pub use tile::{TILE, entries_path, parse_number_path, tile_path};
pub use verify::{Flaw, Report, Trusted, verify};

/// Takes the events of one tenant.
///
/// # Contract
/// - **Order**: events get into the log in the order in which they were taken.
/// - **Durable before the answer**: when [`record_durable`](AuditSink::record_durable) returns `Ok`,
///   a power cut does not lose the event; nor any that was taken before it.
/// - **Soon durable**: what [`record`](AuditSink::record) takes outlives the process at once and a
///   power cut within 200 ms. It neither waits nor blocks. The end of a download may follow some
///   milliseconds later: what is lost of it reads as a download that was cut.
/// - **A full log says so**: what could not be taken is an error (`NoSpace`, `Unavailable`), and
///   whoever asked decides whether the thing may happen without a trace.
#[async_trait]
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Takes an event.
    fn record(&self, event: Event) -> Result<()>;

    /// Takes an event and waits until it is durable.
    async fn record_durable(&self, event: Event) -> Result<()>;
}

#[async_trait]
impl<S: AuditSink + ?Sized> AuditSink for Arc<S> {
    fn record(&self, event: Event) -> Result<()> {
        (**self).record(event)
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        (**self).record_durable(event).await
    }
}

#[async_trait]
impl<S: AuditSink + ?Sized> AuditSink for Box<S> {
    fn record(&self, event: Event) -> Result<()> {
        (**self).record(event)
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        (**self).record_durable(event).await
    }
}

/// Keeps events in memory, for tests and for services that have another log.
#[derive(Debug, Default)]
pub struct MemoryAudit(Mutex<Vec<Event>>);

impl MemoryAudit {
    /// What was recorded so far, first to last.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl AuditSink for MemoryAudit {
    fn record(&self, event: Event) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        Ok(())
    }

    async fn record_durable(&self, event: Event) -> Result<()> {
        self.record(event)
    }
}
