//! The terminal: events to stderr, the result to stdout, questions and signals.

use super::cancel_level::{CancelLevel, CompletionGuard, Interruptions, ShutdownPolicy};
use super::events::{Event, EventStyle, Job, Sink};
use super::paint;
use crate::error::{Failure, ResultExt};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How the result is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document with a `schema` field.
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether what goes to a stream is coloured.
    pub fn on(self, terminal: bool) -> bool {
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            // no-color.org: an empty value asks for nothing.
            ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// How the terminal and scripts see a command; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ui {
    output: OutputFormat,
    color: bool,
    sink: Arc<Sink>,
    interruptions: Arc<Interruptions>,
}

impl Ui {
    /// A Ui as the global flags ask for.
    pub fn new(output: OutputFormat, color: ColorChoice, quiet: bool, style: Option<EventStyle>) -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let style = style.unwrap_or(if err { EventStyle::Bars } else { EventStyle::Plain });
        let sink = Arc::new(Sink::new(style, quiet, color.on(err)));
        Ui { output, color: color.on(out), sink, interruptions: Arc::default() }
    }

    /// A Ui that shows nothing: for the shell's completion, and for tests.
    pub fn hidden() -> Self {
        Ui::new(OutputFormat::Table, ColorChoice::Never, true, Some(EventStyle::Plain))
    }

    /// Whether the result is to be JSON.
    pub fn wants_json(&self) -> bool {
        self.output == OutputFormat::Json
    }

    /// Whether jobs are drawn as lines that move.
    pub fn draws(&self) -> bool {
        self.sink.draws()
    }

    /// Something that the watch saw or did.
    pub fn tell(&self, kind: &str, host: Option<&str>, message: impl Into<String>) {
        let (kind, host, at) = (kind.to_owned(), host.map(str::to_owned), jiff::Timestamp::now());
        self.sink.emit(&Event::Watch { at, kind, host, message: message.into() });
    }

    /// Whether a person can be asked on this terminal.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Starts a job: a bar while it runs, or now and then a line, and one line at its end.
    pub fn job(&self, label: impl Into<String>) -> Job {
        Job::start(Arc::clone(&self.sink), label.into())
    }

    /// Something worth a line.
    pub fn note(&self, message: impl Into<String>) {
        let message = message.into();
        if !message.is_empty() {
            self.sink.emit(&Event::Note { message });
        }
    }

    /// Something the operator has to know; shown with `-q` too.
    pub fn warn(&self, message: impl Into<String>) {
        self.sink.emit(&Event::Warning { message: message.into() });
    }

    /// Writes the result: `document` as JSON under `schema`, or what `table` draws.
    ///
    /// # Errors
    /// When stdout cannot be written or the document is no JSON object.
    pub fn result<T: Serialize>(
        &self,
        schema: &str,
        document: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.wants_json() {
            let mut root = serde_json::Map::new();
            root.insert("schema".to_owned(), schema.into());
            match serde_json::to_value(document)? {
                serde_json::Value::Object(fields) => root.extend(fields),
                other => {
                    root.insert("items".to_owned(), other);
                }
            }
            serde_json::to_string_pretty(&serde_json::Value::Object(root))?
        } else if self.color {
            paint::words(&table(document))
        } else {
            table(document)
        };
        self.sink.suspend(|| print_line(&text))
    }

    /// Writes a line of plain text as the result (for commands whose result is a path or a file's content).
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        self.sink.suspend(|| print_line(text))
    }

    /// Writes what a command on another machine complained of, as it is.
    pub fn complain(&self, text: &str) {
        // Nothing can be done when stderr is gone.
        self.sink.suspend(|| drop(std::io::stderr().lock().write_all(text.as_bytes())));
    }

    /// Asks for a yes on the terminal, after what it is about, which whoever is asked sees with `-q` too; without a
    /// terminal the answer is a refusal that names `--yes`.
    ///
    /// # Errors
    /// When nobody can be asked, or the answer is no.
    pub async fn confirm(&self, about: &str, question: &str) -> Result<(), Failure> {
        if !self.can_ask() {
            self.note(about);
            return Err(
                Failure::refused(format!("there is no terminal to ask at: {question}")).hint("pass --yes to go ahead")
            );
        }
        let gap = if about.is_empty() { "" } else { "\n" };
        let (ui, question) = (self.clone(), format!("{about}{gap}{question} [y/N]"));
        // On a thread of its own: an interruption must be seen while the question is open.
        self.interruptions.asking.store(true, Ordering::Relaxed);
        let answer = tokio::task::spawn_blocking(move || ui.ask(&question)).await;
        self.interruptions.asking.store(false, Ordering::Relaxed);
        match answer??.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::refused("answered no; nothing was changed")),
        }
    }

    /// Asks a question on the terminal; the answer without the blanks around it. Blocks: not for an async task.
    ///
    /// # Errors
    /// When there are no more answers.
    pub fn ask(&self, question: &str) -> Result<String, Failure> {
        // Not while the answer is awaited: an interruption has to be told meanwhile.
        self.complain(&format!("{question} "));
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer)? {
            0 => Err(Failure::usage("the answers ended too early")),
            _ => Ok(answer.trim().to_owned()),
        }
    }

    /// Whether a question waits for its answer.
    pub fn is_asking(&self) -> bool {
        self.interruptions.asking.load(Ordering::Relaxed)
    }

    /// How much of a hurry the operator is in, from now on.
    pub fn cancel_level(&self) -> watch::Receiver<CancelLevel> {
        self.interruptions.follow()
    }

    /// Work begins that must not be dropped half-way; until the guard is dropped, it is told of interruptions by
    /// [`Ui::cancel_level`].
    pub fn completion_guard(&self, patience: ShutdownPolicy) -> CompletionGuard {
        self.interruptions.completion_guard(patience)
    }

    /// Follows Ctrl-C and SIGTERM until one of them means that the command is to be dropped.
    ///
    /// # Errors
    /// When signals cannot be followed.
    pub async fn interrupted(&self) -> std::io::Result<()> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let (words, drop) = self.interruptions.one_more();
            if let Some(words) = words {
                self.warn(format!("interrupted: {words}"));
            }
            if drop {
                return Ok(());
            }
        }
    }

    /// Reports a failure on stderr, with its hints.
    pub fn failure(&self, failure: &Failure) {
        self.sink.emit(&Event::Failure {
            message: format!("{failure}"),
            code: failure.kind.code(),
            hints: failure.hints.clone(),
        });
    }
}

fn print_line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        // The reader (`head`) has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.while_doing(|| "cannot write to stdout".to_owned()),
    }
}
