//! What an edge does by itself: upkeep, garbage collection, scrubbing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distedge::clock::{Clock as _, SystemClock, Timestamp};
use distedge::edge::Edge;
use distedge::error::{Error, Result};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use super::config::Maintenance;

/// After a start there is other work first.
const SETTLING: Duration = Duration::from_secs(300);
/// How often the scrub looks whether it is due.
const LOOK: Duration = Duration::from_secs(3600);

/// Runs until it is dropped. Every part of the work may be cut off at any point.
pub(crate) async fn run(edge: Edge, data: PathBuf, plan: Maintenance) {
    tokio::join!(upkeep(&edge, plan.upkeep), collect(&edge, plan.garbage), scrub(&edge, &data, plan.scrub));
}

async fn upkeep(edge: &Edge, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = edge.upkeep().await {
            error!(%error, "upkeep failed");
        }
    }
}

async fn collect(edge: &Edge, every: Option<Duration>) {
    let Some(every) = every else { return };
    sleep(SETTLING.min(every)).await;
    loop {
        match edge.receiver().collect_garbage().await {
            Ok(report) => info!(removed = report.removed, freed = report.freed, "garbage collection ended"),
            Err(error) => error!(%error, "garbage collection failed"),
        }
        sleep(every).await;
    }
}

/// Scrubs when the last scrub is `every` ago, restarts in between or not.
async fn scrub(edge: &Edge, data: &Path, every: Option<Duration>) {
    let Some(every) = every else { return };
    let mark = data.join("last-scrub");
    sleep(SETTLING).await;
    loop {
        let due = i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        let last = last(&mark).unwrap_or_else(|error| {
            warn!(%error, "every blob is scrubbed again");
            Timestamp::EPOCH
        });
        let begun = SystemClock.now();
        // A clock that was set back makes it due as well.
        if last.plus(due) <= begun || last > begun {
            match edge.receiver().scrub().await {
                Ok(report) => {
                    info!(checked = report.checked, damaged = report.damaged, "scrub ended");
                    if let Err(cause) = fs::write(&mark, begun.to_string()) {
                        error!(%cause, path = %mark.display(), "the scrub's time cannot be kept");
                    }
                }
                Err(error) => error!(%error, "scrub failed"),
            }
        }
        sleep(LOOK).await;
    }
}

fn last(mark: &Path) -> Result<Timestamp> {
    match fs::read_to_string(mark) {
        Ok(text) => text.trim().parse(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Timestamp::EPOCH),
        Err(cause) => Err(Error::io(format_args!("reading {}", mark.display()), cause)),
    }
}
