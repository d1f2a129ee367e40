//! What the program shows: JSON or text, progress bars on a terminal or plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distedge::error::Error;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// Where results and messages go.
pub(crate) struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json, terminal: !json && std::io::stderr().is_terminal() }
    }

    /// Shows a result.
    pub(crate) fn show(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        let text = if self.json { format!("{:#}", json()) } else { text() };
        self.line(text.trim_end_matches('\n'));
    }

    /// One line of standard output. A reader that has gone away ends the program quietly.
    pub(crate) fn line(&self, text: &str) {
        if writeln!(std::io::stdout(), "{text}").is_err() {
            std::process::exit(0);
        }
    }

    /// Bytes for standard output as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        if std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Something the user should know, beside the result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }

    pub(crate) fn error(&self, error: &Error) {
        if self.json {
            self.line(&format!("{:#}", json!({"error": error.to_string(), "kind": error.kind().as_str()})));
        }
        eprintln!("error: {error}");
    }

    /// Progress over bytes; several may run at once.
    pub(crate) fn progress(&self) -> Progress {
        let bars = MultiProgress::with_draw_target(if self.terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        Progress { bars, terminal: self.terminal, silent: self.json }
    }
}

pub(crate) struct Progress {
    bars: MultiProgress,
    terminal: bool,
    silent: bool,
}

impl Progress {
    /// A line of progress under the title `title`, whose length may grow.
    pub(crate) fn bar(&self, title: &str) -> Bar {
        let bar = self.bars.add(ProgressBar::new(0));
        let style = "{prefix:20!} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left {msg}";
        // The template is a constant that a run of the program has shown to be sound.
        bar.set_style(
            ProgressStyle::with_template(style)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_prefix(title.to_owned());
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Bar {
            bar,
            bars: self.bars.clone(),
            terminal: self.terminal,
            silent: self.silent,
            items: AtomicU64::new(0),
        }
    }
}

pub(crate) struct Bar {
    bar: ProgressBar,
    bars: MultiProgress,
    terminal: bool,
    silent: bool,
    items: AtomicU64,
}

impl Bar {
    /// So many more bytes are to be done.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// So many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// One more thing is done.
    pub(crate) fn done_one(&self) {
        let items = self.items.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.set_message(format!("({items} done)"));
    }

    /// A milestone: above the bars on a terminal, a plain line elsewhere.
    pub(crate) fn say(&self, text: &str) {
        if self.terminal {
            // A terminal that cannot be written to loses a line of progress, nothing more.
            let _ = self.bars.println(text);
        } else if !self.silent {
            eprintln!("{text}");
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// `1 artifact`, `2 artifacts`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(crate) fn bytes(number: u64) -> String {
    HumanBytes(number).to_string()
}

/// Rows under headings, in columns as wide as they need.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The first characters of a digest or key id, enough to tell it from others.
pub(crate) fn short(text: &str) -> &str {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    text.get(..12).unwrap_or(text)
}
