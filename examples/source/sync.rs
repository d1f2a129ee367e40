//! `distribute`, `sync`, `status`, `trust`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use distedge::bundle::TrustDocument;
use distedge::clock::{Clock as _, SystemClock};
use distedge::distribute::Event;
use distedge::error::{Error, ErrorKind, Result};
use distedge::name::NodeName;
use distedge::source::{
    Actor, Change, ChangeState, ConvergeOptions, ConvergeProgress, EdgeOutcome, EdgeStatus, HttpDial,
    Pattern, Rule, Source,
};
use serde_json::{Value, json};

use crate::Cli;
use crate::bundles::Which;
use crate::edges::unknown;
use crate::output::{Bar, Output, bytes, count, short, table};
use crate::people::changed;

#[derive(Args)]
pub(crate) struct Distribute {
    #[command(flatten)]
    bundle: Which,
    /// Edges whose name matches (`*`, `?`).
    #[arg(long, value_name = "PATTERN")]
    edge: Vec<Pattern>,
    /// Edges of a matching site.
    #[arg(long, value_name = "PATTERN")]
    site: Vec<Pattern>,
    /// Edges in a matching city.
    #[arg(long, value_name = "PATTERN")]
    city: Vec<Pattern>,
    /// Edges in a matching country.
    #[arg(long, value_name = "PATTERN")]
    country: Vec<Pattern>,
    /// Edges with a matching label, KEY=VALUE or KEY.
    #[arg(long, value_name = "PATTERN")]
    label: Vec<Pattern>,
    /// List what would be sent to each edge, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only record it; a later `sync` brings it there.
    #[arg(long, conflicts_with = "dry_run")]
    later: bool,
    /// These edges need not hold it any more.
    #[arg(long, conflicts_with = "dry_run")]
    undo: bool,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Args)]
struct Pace {
    /// Edges at a time.
    #[arg(long, default_value_t = 8, value_name = "NUMBER")]
    parallel: usize,
    /// Uploads to one edge at a time.
    #[arg(long, default_value_t = 8, value_name = "NUMBER")]
    uploads: usize,
    /// Send whole blobs, not what differs from what an edge has.
    #[arg(long)]
    whole: bool,
    /// How much time to spend on sending less: 0 (little) to 9 (much).
    #[arg(long, value_name = "0-9", conflicts_with = "whole", value_parser = clap::value_parser!(u8).range(..=9))]
    effort: Option<u8>,
}

impl Pace {
    fn options(&self, edges: Option<BTreeSet<NodeName>>, dry_run: bool) -> ConvergeOptions {
        let Pace { parallel, uploads, whole, effort } = *self;
        ConvergeOptions { edges, parallel, uploads, dry_run, whole, effort }
    }
}

impl Distribute {
    /// Every combination of the patterns given: values of one kind are alternatives, kinds restrict
    /// each other.
    fn rules(&self) -> Vec<Rule> {
        fn choices(patterns: &[Pattern]) -> Vec<Option<Pattern>> {
            match patterns {
                [] => vec![None],
                some => some.iter().cloned().map(Some).collect(),
            }
        }
        let mut rules = Vec::new();
        for name in choices(&self.edge) {
            for site in choices(&self.site) {
                for city in choices(&self.city) {
                    for country in choices(&self.country) {
                        for label in choices(&self.label) {
                            rules.push(Rule {
                                name: name.clone(),
                                site: site.clone(),
                                city: city.clone(),
                                country: country.clone(),
                                label,
                            });
                        }
                    }
                }
            }
        }
        rules
    }

    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<ExitCode> {
        let Which { name, version } = &self.bundle;
        let source = actor.source();
        let rules = self.rules();
        if rules.contains(&Rule::default()) {
            return Err(Error::invalid(
                "no edge is named: give --edge, --site, --city, --country or --label (--edge '*' is all)",
            ));
        }
        let edges: Vec<NodeName> =
            source.matching_edges(&rules).await?.into_iter().map(|edge| edge.name).collect();
        if edges.is_empty() {
            let why = match source.edges().await?.is_empty() {
                true => "no edge is known: add one with `edge add`",
                false => "no edge matches; `edge list` shows those that are known",
            };
            return Err(Error::new(ErrorKind::NotFound, why));
        }
        let options = self.pace.options(Some(edges.iter().cloned().collect()), self.dry_run);
        if self.dry_run {
            let quiet: ConvergeProgress = Arc::new(|_, _| ());
            let outcomes = source.preview(name, version, &edges, &HttpDial, &options, &quiet).await?;
            return Ok(report(output, &outcomes, true));
        }
        let before = source.assignments_of(name, version).await?.len();
        let change = match self.undo {
            true => Change::Recall { edges: edges.clone() },
            false => Change::Distribute { edges: edges.clone() },
        };
        let change = actor.change(name, version, change).await?;
        if change.state == ChangeState::Waiting {
            changed(output, &change);
            return Ok(ExitCode::SUCCESS);
        }
        let moved = source.assignments_of(name, version).await?.len().abs_diff(before) as u64;
        output.note(&match self.undo {
            true => format!("{} should not hold {name} {version} any more.", count(moved, "edge")),
            false => {
                let edges = count(edges.len() as u64, "edge");
                format!("{name} {version} is for {edges}, {moved} of them new.")
            }
        });
        if self.later {
            output.show(|| json!({"edges": edges}), || "Recorded; run `sync` to bring it there.".to_owned());
            return Ok(ExitCode::SUCCESS);
        }
        converge(actor, output, &options).await
    }
}

#[derive(Args)]
pub(crate) struct Sync {
    /// Only this edge; all if not given.
    #[arg(long, value_name = "NAME")]
    edge: Vec<NodeName>,
    /// List what would be sent, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do it again every so many seconds, until interrupted. Other commands run in between.
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) watch: Option<u64>,
    #[command(flatten)]
    pace: Pace,
}

impl Sync {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<ExitCode> {
        converge(actor, output, &self.options()).await
    }

    /// Converges again and again. The source is open only while there is work, so that other
    /// commands get their turn.
    pub(crate) async fn watch(&self, cli: &Cli, seconds: u64, output: &Output) -> Result<ExitCode> {
        let options = self.options();
        let round = async || -> Result<ExitCode> {
            let desk = crate::open(cli, output).await?;
            converge(&desk.actor(), output, &options).await
        };
        // A directory without a source is told at once, not every round.
        round().await?;
        let rounds = async {
            loop {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                // An edge that fails is told of in the report, and tried again in the next round.
                if let Err(error) = round().await {
                    output.error(&error);
                }
            }
        };
        tokio::select! {
            () = rounds => Ok(ExitCode::SUCCESS),
            result = tokio::signal::ctrl_c() => {
                result.map_err(|cause| Error::io("waiting for an interrupt", cause))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn options(&self) -> ConvergeOptions {
        let edges = (!self.edge.is_empty()).then(|| self.edge.iter().cloned().collect());
        self.pace.options(edges, self.dry_run)
    }
}

async fn converge(actor: &Actor<'_>, output: &Output, options: &ConvergeOptions) -> Result<ExitCode> {
    let progress = output.progress();
    let bars: Arc<Mutex<BTreeMap<NodeName, Bar>>> = Arc::default();
    let shared = bars.clone();
    let events: ConvergeProgress = Arc::new(move |edge: &NodeName, event: Event| {
        let mut bars = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(edge.clone()).or_insert_with(|| progress.bar(edge.as_str()));
        match event {
            Event::Trusted(version) => bar.say(&format!("{edge}: trust document {version} is in force")),
            Event::Wanted { bundle, version, blobs, bytes: wanted } => {
                bar.expect(wanted);
                if blobs > 0 {
                    bar.say(&format!(
                        "{edge}: {bundle} {version} wants {}, {}",
                        count(blobs, "blob"),
                        bytes(wanted)
                    ));
                }
            }
            Event::Sent(sent) => bar.advance(sent),
            Event::Saved(saved) => bar.advance(saved),
            Event::FellBack { digest, why } => bar.say(&format!("{edge}: {digest} is sent whole: {why}")),
            Event::Stored(_) => bar.done_one(),
            Event::Proven { bundle, version } => bar.say(&format!("{edge}: {bundle} {version} is proven")),
            _ => {}
        }
    });
    let outcomes = actor.converge(&HttpDial, options, &events).await;
    for bar in bars.lock().unwrap_or_else(PoisonError::into_inner).values() {
        bar.finish();
    }
    Ok(report(output, &outcomes?, options.dry_run))
}

fn report(output: &Output, outcomes: &[EdgeOutcome], dry_run: bool) -> ExitCode {
    output.show(
        || outcomes.iter().map(to_json).collect(),
        || {
            let mut text = String::new();
            for outcome in outcomes {
                text += &sentences(outcome, dry_run);
            }
            if outcomes.is_empty() { "No edge is known.".to_owned() } else { text }
        },
    );
    // Who waits for its hours has not failed.
    let fine = |one: &EdgeOutcome| one.error.is_none() && one.failed.is_empty() && one.links.is_none();
    if outcomes.iter().all(fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn to_json(outcome: &EdgeOutcome) -> Value {
    let plan: Vec<Value> = outcome
        .plan
        .iter()
        .map(|blob| {
            json!({
                "digest": blob.digest, "size": blob.size, "have": blob.have, "name": blob.name,
                "method": blob.method, "bytes": blob.bytes, "bases": blob.bases, "why": blob.why,
            })
        })
        .collect();
    let failed: Vec<Value> = outcome
        .failed
        .iter()
        .map(|(name, version, error)| json!({"bundle": name, "version": version, "error": error.to_string()}))
        .collect();
    let methods: serde_json::Map<String, Value> = outcome
        .methods
        .iter()
        .map(|(method, tally)| {
            let tally = json!({"blobs": tally.blobs, "whole": tally.whole, "bytes": tally.bytes});
            (method.as_str().to_owned(), tally)
        })
        .collect();
    let fell_back: Vec<Value> =
        outcome.fell_back.iter().map(|(digest, why)| json!({"digest": digest, "why": why})).collect();
    json!({
        "edge": outcome.edge,
        "error": outcome.error.as_ref().map(ToString::to_string),
        "failed": failed,
        "proven": outcome.proven,
        "sent": {"blobs": outcome.sent_blobs, "bytes": outcome.sent_bytes, "whole": outcome.whole_bytes},
        "methods": methods,
        "fell_back": fell_back,
        "waits": outcome.waits,
        "links": outcome.links.as_ref().map(ToString::to_string),
        "plan": plan,
        "drift": outcome.drift,
    })
}

fn sentences(outcome: &EdgeOutcome, dry_run: bool) -> String {
    let edge = &outcome.edge;
    if let Some(error) = &outcome.error {
        return format!("{edge}: not reached, drift {}: {error}\n", outcome.drift);
    }
    let mut text = String::new();
    if dry_run {
        let left: u64 = outcome.plan.iter().map(|blob| blob.size - blob.have).sum();
        let travels: u64 = outcome.plan.iter().map(|blob| blob.bytes).sum();
        let blobs = count(outcome.plan.len() as u64, "blob");
        text += &format!("{edge}: would be sent {blobs}, {}\n", instead(travels, left));
        for blob in &outcome.plan {
            let base = blob.bases.first().map(|base| format!(" of {}", short(&base.to_string())));
            text += &format!(
                "  {:>10}  {}{}  {}  {}\n",
                bytes(blob.bytes),
                blob.method.as_str(),
                base.unwrap_or_default(),
                short(&blob.digest.to_string()),
                blob.name
            );
            if !blob.why.is_empty() {
                text += &format!("  {:>10}  {}\n", "", blob.why);
            }
        }
    } else {
        let sent = instead(outcome.sent_bytes, outcome.whole_bytes);
        text += &format!(
            "{edge}: {} proven, {} sent ({sent}), drift {}\n",
            count(outcome.proven, "bundle"),
            count(outcome.sent_blobs, "blob"),
            outcome.drift
        );
    }
    if let Some(opens) = outcome.waits {
        text += &format!("{edge}: waits for its window, which opens at {opens}\n");
    }
    if let Some(error) = &outcome.links {
        text += &format!("{edge}: the keys and revocations of signed URLs did not get there: {error}\n");
    }
    for (name, version, error) in &outcome.failed {
        text += &format!("{edge}: {name} {version} did not get there: {error}\n");
    }
    text
}

/// `1.2 MiB instead of 14.0 MiB (8.6 %)`.
fn instead(sent: u64, whole: u64) -> String {
    if sent >= whole {
        return bytes(sent);
    }
    let share = sent as f64 * 100.0 / whole as f64;
    format!("{} instead of {} ({share:.1} %)", bytes(sent), bytes(whole))
}

#[derive(Args)]
pub(crate) struct Status {
    /// Show one edge with its receipts.
    edge: Option<NodeName>,
    /// Ask the edges, instead of telling what they last proved.
    #[arg(long)]
    check: bool,
}

impl Status {
    /// Brings `status` to what the edges say now. Nothing changes, here or there.
    async fn ask(&self, source: &Source, status: &mut [EdgeStatus]) -> Result<()> {
        let edges = status.iter().map(|status| status.edge.name.clone()).collect();
        let options = ConvergeOptions { edges: Some(edges), dry_run: true, ..ConvergeOptions::default() };
        let quiet: ConvergeProgress = Arc::new(|_, _| ());
        for outcome in source.converge(&HttpDial, &options, &quiet).await? {
            let Some(status) = status.iter_mut().find(|status| status.edge.name == outcome.edge) else {
                continue;
            };
            match outcome.error {
                // What it proved before is all there is.
                Some(error) => status.contact.error = Some(error.to_string()),
                None => {
                    (status.proven, status.drift) = (outcome.proven, outcome.drift);
                    status.contact.contacted = Some(SystemClock.now());
                    status.contact.error = outcome
                        .failed
                        .first()
                        .map(|(name, version, error)| format!("the bundle {name} {version}: {error}"));
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn run(&self, source: &Source, output: &Output) -> Result<()> {
        let mut status = source.status().await?;
        if let Some(name) = &self.edge {
            status.retain(|status| status.edge.name == *name);
            if status.is_empty() {
                return Err(unknown(name));
            }
        }
        if self.check {
            self.ask(source, &mut status).await?;
        }
        let receipts = match &self.edge {
            Some(name) => source.receipts(name).await?,
            None => Vec::new(),
        };
        output.show(
            || match &self.edge {
                Some(_) => json!({"edge": status.first(), "receipts": receipts}),
                None => json!(status),
            },
            || {
                let rows: Vec<_> = status
                    .iter()
                    .map(|status| {
                        vec![
                            status.edge.name.to_string(),
                            status.desired.to_string(),
                            status.proven.to_string(),
                            status.drift.to_string(),
                            status.contact.contacted.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                            status.contact.error.clone().unwrap_or_default(),
                        ]
                    })
                    .collect();
                let mut text =
                    table(&["EDGE", "DESIRED", "PROVEN", "DRIFT", "LAST CONTACT", "LAST ERROR"], &rows);
                if self.edge.is_some() {
                    if let Some(identity) = status.first().and_then(|status| status.contact.identity.as_ref())
                    {
                        text += &format!("Identity key {}\n", identity.id());
                    }
                    let rows: Vec<_> = receipts
                        .iter()
                        .map(|receipt| {
                            vec![
                                format!("{} {}", receipt.bundle, receipt.version),
                                receipt.items.to_string(),
                                bytes(receipt.bytes),
                                receipt.at.to_string(),
                                receipt.root.to_string(),
                            ]
                        })
                        .collect();
                    text += &table(&["RECEIPT", "ARTIFACTS", "SIZE", "SINCE", "ROOT"], &rows);
                }
                text
            },
        );
        Ok(())
    }
}

#[derive(Subcommand)]
pub(crate) enum Trust {
    /// Show the trust document as edges should have it, signing it anew if that is due.
    Show,
    /// Write its signed envelope.
    Export {
        /// Where to; standard output if not given.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Set for how many days the following documents are good.
    Days {
        /// 1 to 3650.
        days: u32,
    },
}

impl Trust {
    pub(crate) async fn run(&self, actor: &Actor<'_>, output: &Output) -> Result<()> {
        let source = actor.source();
        match self {
            Trust::Show => {
                let document = TrustDocument::parse_unverified(&source.trust().await?)?;
                output.show(
                    || json!(document),
                    || {
                        format!(
                            "Trust document {} of tenant {}, signed {}, good until {}.\n\
                             {} and {}; {} known; {} assigned, {} withdrawn.",
                            document.version,
                            document.tenant,
                            document.issued,
                            document.expires,
                            count(document.root.keys.len() as u64, "root key"),
                            count(document.release.keys.len() as u64, "release key"),
                            count(document.edges.len() as u64, "edge"),
                            count(document.assignments.len() as u64, "bundle"),
                            document.withdrawn.len(),
                        )
                    },
                );
            }
            Trust::Export { output: file } => {
                let envelope = source.trust().await?;
                match file {
                    Some(file) => {
                        std::fs::write(file, &envelope)
                            .map_err(|cause| Error::io(format!("writing {}", file.display()), cause))?;
                        output.note(&format!("Wrote the trust document to {}.", file.display()));
                    }
                    None => output.raw(&envelope),
                }
            }
            Trust::Days { days } => {
                actor.set_trust_days(*days).await?;
                output.show(
                    || json!({"days": days}),
                    || format!("Trust documents are good for {}.", count(u64::from(*days), "day")),
                );
            }
        }
        Ok(())
    }
}
