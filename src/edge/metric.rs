//! Counters, told as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an edge counts.
#[derive(Debug, Default)]
pub struct Metrics {
    classes: [AtomicU64; 5],
    refused: AtomicU64,
    started: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    delivered: AtomicU64,
    received: AtomicU64,
    committed: AtomicU64,
    damaged: AtomicU64,
    unrecorded: AtomicU64,
}

impl Metrics {
    /// An answer with this status went out.
    pub fn answered(&self, status: u16) {
        if let Some(class) =
            usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class))
        {
            class.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(status, 401 | 403) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An artifact's bytes begin to go out.
    pub fn download_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// So many went out, and that was all of them or not.
    pub fn download_ended(&self, bytes: u64, complete: bool) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
        let ended = if complete { &self.completed } else { &self.aborted };
        ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of blobs came in.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A bundle became visible.
    pub fn bundle_committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }

    /// A blob was found damaged.
    pub fn blob_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Something happened that the audit log did not take.
    pub fn event_lost(&self) {
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters in the Prometheus text format, version 0.0.4.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut counter = |name: &str, help: &str, samples: &[(&str, &AtomicU64)]| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "# HELP distedge_{name} {help}\n# TYPE distedge_{name} counter");
            for (labels, value) in samples {
                let _ = writeln!(text, "distedge_{name}{labels} {}", value.load(Ordering::Relaxed));
            }
        };
        let classes: Vec<String> = (1..=5).map(|class| format!("{{class=\"{class}xx\"}}")).collect();
        let responses: Vec<(&str, &AtomicU64)> =
            classes.iter().map(String::as_str).zip(self.classes.iter()).collect();
        counter("responses_total", "Answers by class of status.", &responses);
        counter("refused_total", "Requests that were not allowed.", &[("", &self.refused)]);
        counter("downloads_started_total", "Artifact downloads begun.", &[("", &self.started)]);
        let ended = [("{end=\"complete\"}", &self.completed), ("{end=\"aborted\"}", &self.aborted)];
        counter("downloads_ended_total", "Artifact downloads by how they ended.", &ended);
        counter("delivered_bytes_total", "Artifact bytes handed to clients.", &[("", &self.delivered)]);
        counter("received_bytes_total", "Blob bytes taken in from sources.", &[("", &self.received)]);
        counter("bundles_committed_total", "Bundles made visible.", &[("", &self.committed)]);
        counter("damaged_blobs_total", "Blobs found damaged and set aside.", &[("", &self.damaged)]);
        counter(
            "unrecorded_events_total",
            "Events that the audit log did not take.",
            &[("", &self.unrecorded)],
        );
        text
    }
}
