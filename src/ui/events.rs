//! Events of running jobs and how they are drawn.

use super::paint;
use crate::error::{Failure, Kind};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How events are written to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EventStyle {
    /// Bars and spinners that move.
    Bars,
    /// One line an event.
    Plain,
    /// One JSON object a line.
    Json,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It changed something.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
    /// Nobody knows yet.
    Unknown,
}

/// What happens while a command runs.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A job began.
    Started {
        /// Number of the job in this run.
        job: u64,
        /// What it does, with the host or guest it does it to.
        label: String,
    },
    /// A job moved on.
    Progress {
        /// Number of the job in this run.
        job: u64,
        /// Units done so far.
        done: u64,
        /// Units in all, 0 when unknown.
        total: u64,
        /// What is being done right now.
        message: String,
    },
    /// A job ended.
    Ended {
        /// Number of the job in this run.
        job: u64,
        /// What it did.
        label: String,
        /// How it ended.
        outcome: Outcome,
        /// What came of it.
        message: String,
        /// Wall time.
        seconds: f64,
    },
    /// Something worth a line.
    Note {
        /// The line.
        message: String,
    },
    /// Something that the watch saw or did.
    Watch {
        /// When, by this machine's clock.
        at: jiff::Timestamp,
        /// What kind of thing, in a word.
        kind: String,
        /// The host it is about, if it is about one.
        host: Option<String>,
        /// It, in a sentence.
        message: String,
    },
    /// Something the operator has to know.
    Warning {
        /// The line.
        message: String,
    },
    /// The command failed.
    Failure {
        /// What happened.
        message: String,
        /// The exit code.
        code: u8,
        /// What can be done.
        hints: Vec<String>,
    },
}

/// How often a job that is still at it says so where there are no bars.
const STILL: Duration = Duration::from_secs(15);

/// A job under way, where there are no bars.
#[derive(Debug)]
struct Running {
    label: String,
    message: String,
    began: Instant,
}

impl Running {
    fn line(&self, now: Instant) -> String {
        let at = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("...     {}{at} ({} s so far)", self.label, now.saturating_duration_since(self.began).as_secs())
    }
}

/// Where events go.
#[derive(Debug)]
pub(super) struct Sink {
    style: EventStyle,
    quiet: bool,
    color: bool,
    next: AtomicU64,
    bars: MultiProgress,
    live: Mutex<HashMap<u64, ProgressBar>>,
    running: Mutex<BTreeMap<u64, Running>>,
    ticker: Once,
}

impl Sink {
    pub(super) fn new(style: EventStyle, quiet: bool, color: bool) -> Self {
        Sink {
            style,
            quiet,
            color,
            next: AtomicU64::new(1),
            bars: MultiProgress::new(),
            live: Mutex::default(),
            running: Mutex::default(),
            ticker: Once::new(),
        }
    }

    /// Keeps in mind what runs, and says every now and then what still does: a log that is silent for minutes says
    /// nothing of whom it waits for.
    fn remember(self: &Arc<Self>, event: &Event) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { job, label } => {
                let new = Running { label: label.clone(), message: String::new(), began: Instant::now() };
                running.insert(*job, new);
                let sink = Arc::downgrade(self);
                self.ticker.call_once(|| drop(std::thread::spawn(move || tick(&sink))));
            }
            Event::Progress { job, message, .. } => {
                if let Some(job) = running.get_mut(job) {
                    job.message.clone_from(message);
                }
            }
            Event::Ended { job, .. } => drop(running.remove(job)),
            Event::Note { .. } | Event::Watch { .. } | Event::Warning { .. } | Event::Failure { .. } => {}
        }
    }

    /// Whether bars are drawn.
    pub(super) fn draws(&self) -> bool {
        self.style == EventStyle::Bars && !self.quiet
    }

    /// Takes a job's bar away without a word.
    fn withdraw(&self, job: u64) {
        if let Some(bar) = self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&job) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }

    /// Runs `f` with the bars out of the way.
    pub(super) fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.bars.suspend(f)
    }

    pub(super) fn emit(self: &Arc<Self>, event: &Event) {
        let always = matches!(event, Event::Warning { .. } | Event::Failure { .. });
        if self.quiet && !always {
            return;
        }
        match self.style {
            EventStyle::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    self.line(&line);
                }
            }
            EventStyle::Plain => {
                self.remember(event);
                if let Some(text) = self.text(event) {
                    self.line(&text);
                }
            }
            EventStyle::Bars => self.draw(event),
        }
    }

    fn text(&self, event: &Event) -> Option<String> {
        plain(event).map(|text| if self.color { paint::lines(&text) } else { text })
    }

    fn line(&self, text: &str) {
        // Nothing can be done when stderr is gone.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn draw(&self, event: &Event) {
        let Ok(mut live) = self.live.lock() else { return };
        match event {
            Event::Started { job, label } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.set_prefix(label.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                live.insert(*job, bar);
            }
            Event::Progress { job, done, total, message } => {
                if let Some(bar) = live.get(job) {
                    if *total > 0 && bar.length() != Some(*total) {
                        bar.set_length(*total);
                        if let Ok(style) = ProgressStyle::with_template(
                            "{spinner} {prefix}  [{bar:24}] {percent:>3}%  {wide_msg} {elapsed}",
                        ) {
                            bar.set_style(style);
                        }
                    }
                    bar.set_position(*done);
                    bar.set_message(message.clone());
                }
            }
            Event::Ended { job, .. } => {
                if let Some(bar) = live.remove(job) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                if let Some(text) = self.text(event) {
                    self.suspend(|| self.line(&text));
                }
            }
            Event::Note { .. } | Event::Watch { .. } | Event::Warning { .. } | Event::Failure { .. } => {
                if let Some(text) = self.text(event) {
                    self.suspend(|| self.line(&text));
                }
            }
        }
    }
}

/// Says what still runs, as long as there is somebody to say it.
fn tick(sink: &Weak<Sink>) {
    loop {
        std::thread::sleep(STILL);
        let Some(sink) = sink.upgrade() else { return };
        let now = Instant::now();
        let running = sink.running.lock().unwrap_or_else(PoisonError::into_inner);
        let long: Vec<String> = running.values().filter(|r| now - r.began >= STILL).map(|r| r.line(now)).collect();
        drop(running);
        for line in long {
            sink.line(&line);
        }
    }
}

/// The line of an event, where it is worth one.
fn plain(event: &Event) -> Option<String> {
    match event {
        Event::Started { .. } | Event::Progress { .. } => None,
        Event::Ended { label, outcome, message, seconds, .. } => {
            let mark = match outcome {
                Outcome::Done => "ok     ",
                Outcome::Unchanged => "same   ",
                Outcome::Failed => "FAILED ",
                Outcome::Unknown => "UNKNOWN",
            };
            let tail = if message.is_empty() { String::new() } else { format!(": {message}") };
            Some(format!("{mark} {label}{tail} ({seconds:.1} s)"))
        }
        Event::Note { message } => Some(message.clone()),
        Event::Watch { at, kind, message, .. } => {
            let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
            Some(format!("{at}  {kind:<15} {message}"))
        }
        Event::Warning { message } => Some(format!("warning: {message}")),
        Event::Failure { message, hints, .. } => {
            let mut text = format!("error: {message}");
            for hint in hints {
                text.push_str("\nhint: ");
                text.push_str(hint);
            }
            Some(text)
        }
    }
}

/// A running job; dropped without an end it counts as failed.
#[derive(Debug)]
pub struct Job {
    sink: Arc<Sink>,
    id: u64,
    label: String,
    began: Instant,
    ended: bool,
}

impl Job {
    pub(super) fn start(sink: Arc<Sink>, label: String) -> Self {
        let id = sink.next.fetch_add(1, Ordering::Relaxed);
        sink.emit(&Event::Started { job: id, label: label.clone() });
        Job { sink, id, label, began: Instant::now(), ended: false }
    }

    /// Says how far it is; `total` 0 means unknown.
    pub fn progress(&self, done: u64, total: u64, message: impl Into<String>) {
        self.sink.emit(&Event::Progress { job: self.id, done, total, message: message.into() });
    }

    /// Says what it is doing right now.
    pub fn step(&self, message: impl Into<String>) {
        self.progress(0, 0, message);
    }

    /// Ends the job.
    pub fn end(mut self, outcome: Outcome, message: impl Into<String>) {
        self.finish(outcome, message.into());
    }

    /// Takes it off the screen without a word: it was there to be looked at.
    pub fn withdraw(mut self) {
        self.ended = true;
        self.sink.withdraw(self.id);
    }

    /// Ends the job as done.
    pub fn done(self, message: impl Into<String>) {
        self.end(Outcome::Done, message);
    }

    /// Ends the job as failed.
    pub fn fail(self, message: impl Into<String>) {
        self.end(Outcome::Failed, message);
    }

    /// Ends the job with what came of it; `ended` says how it ended where nothing failed.
    pub fn conclude<T>(self, result: &Result<T, Failure>, ended: impl FnOnce(&T) -> (Outcome, String)) {
        match result {
            Ok(value) => {
                let (outcome, message) = ended(value);
                self.end(outcome, message);
            }
            Err(failure) if failure.kind == Kind::Unknown => self.end(Outcome::Unknown, failure.to_string()),
            Err(failure) => self.fail(failure.to_string()),
        }
    }

    fn finish(&mut self, outcome: Outcome, message: String) {
        self.ended = true;
        self.sink.emit(&Event::Ended {
            job: self.id,
            label: self.label.clone(),
            outcome,
            message,
            seconds: self.began.elapsed().as_secs_f64(),
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Outcome::Failed, "stopped before its end".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_job_is_one_plain_line() {
        let event = Event::Ended {
            job: 1,
            label: "h1: install packages".into(),
            outcome: Outcome::Done,
            message: "12 packages".into(),
            seconds: 3.24,
        };
        assert_eq!(plain(&event).as_deref(), Some("ok      h1: install packages: 12 packages (3.2 s)"));
    }

    #[test]
    fn a_job_that_takes_long_says_so_where_there_are_no_bars() {
        let sink = Arc::new(Sink::new(EventStyle::Plain, false, false));
        let job = Job::start(Arc::clone(&sink), "h1: packages".into());
        job.step("unpacking");
        let began = sink.running.lock().unwrap()[&job.id].began;
        let line = sink.running.lock().unwrap()[&job.id].line(began + Duration::from_secs(30));
        assert_eq!(line, "...     h1: packages: unpacking (30 s so far)");
        job.done("");
        assert!(sink.running.lock().unwrap().is_empty());
    }

    #[test]
    fn a_failure_shows_its_hints() {
        let event =
            Event::Failure { message: "cannot reach h1".into(), code: 1, hints: vec!["check the cable".into()] };
        assert_eq!(plain(&event).as_deref(), Some("error: cannot reach h1\nhint: check the cable"));
    }
}
