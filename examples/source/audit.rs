//! `audit …`: what the source has seen of its edges' logs, and logs verified against that.

use std::path::PathBuf;

use clap::Subcommand;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::NodeName;
use distedge::source::{Actor, HttpDial};
use serde_json::json;

use crate::output::{Output, table};

#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Show what was seen and cosigned of every edge's log.
    Status,
    /// Cosign an edge's log now; `sync` does it as well.
    Witness {
        /// The edge.
        edge: NodeName,
    },
    /// Verify a log of an edge, or an export of it, against what this source has seen.
    Verify {
        /// The edge.
        edge: NodeName,
        /// The directory of the log, or an export of it.
        path: PathBuf,
    },
    /// Write the last checkpoint that was cosigned, for others to verify the log against.
    Checkpoint {
        /// The edge.
        edge: NodeName,
    },
    /// Forget what was seen of an edge's log, because the edge was set up anew.
    Forget {
        /// The edge.
        edge: NodeName,
    },
}

impl Audit {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        match self {
            Audit::Status => {
                let seen = source.witnessed().await?;
                output.show(
                    || json!({ "witness": source.witness_name().ok(), "logs": seen }),
                    || {
                        let rows: Vec<Vec<String>> = seen
                            .iter()
                            .map(|seen| {
                                let state = match &seen.alarm {
                                    Some((at, why)) => format!("ALARM since {at}: {why}"),
                                    None => "good".into(),
                                };
                                vec![
                                    seen.edge.to_string(),
                                    seen.witness.size.to_string(),
                                    seen.at.to_string(),
                                    state,
                                ]
                            })
                            .collect();
                        table(&["EDGE", "ENTRIES", "COSIGNED", "STATE"], &rows)
                    },
                );
                Ok(())
            }
            Audit::Witness { edge } => {
                let seen = source.witness(edge, &HttpDial).await?;
                output
                    .show(|| json!(seen), || format!("Cosigned {} entries of {edge}.\n", seen.witness.size));
                Ok(())
            }
            Audit::Verify { edge, path } => {
                let report = source.verify_log(edge, path).await?;
                if let Some(flaw) = &report.flaw {
                    let message = format!("the log is not what it should be: {flaw}");
                    return Err(Error::new(ErrorKind::Mismatch, message));
                }
                output.show(
                    || {
                        let (first, end) = (report.entries.start, report.entries.end);
                        json!({ "origin": report.origin, "signed": report.size, "first": first, "end": end })
                    },
                    || {
                        let mut text = format!("{}: {} entries are signed", report.origin, report.size);
                        match report.witnessed.last() {
                            Some((_, size, at)) => {
                                text.push_str(&format!(", {size} of them were cosigned on {at}"));
                            }
                            None => text.push_str(", and this source has not seen any of them"),
                        }
                        text.push_str("; none was changed.\n");
                        text
                    },
                );
                Ok(())
            }
            Audit::Checkpoint { edge } => {
                let seen = source.witnessed().await?.into_iter().find(|seen| seen.edge == *edge);
                let seen = seen.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("nothing was seen of the log of {edge}"))
                })?;
                output.raw(seen.witness.note.as_bytes());
                Ok(())
            }
            Audit::Forget { edge } => {
                actor.forget_log(edge).await?;
                output.note(&format!("The next checkpoint of {edge} is the first one."));
                Ok(())
            }
        }
    }
}
