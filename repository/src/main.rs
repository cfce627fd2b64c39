//! `rackhand-store`: one request on the first line of its input, JSON lines on its output.
#![allow(clippy::disallowed_methods, reason = "a program of its own, without tokio")]

use rackhand_repository::{Error, ErrorAnswer, ErrorKind, Line, Progress, Request, Result};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A request with the definition of a guest is never longer, in bytes.
const REQUEST_LIMIT: u64 = 64 << 20;
/// How often a disk says how far it is.
const EVERY: Duration = Duration::from_millis(500);

/// A point and a disk of it.
type Task = (Option<String>, Option<u32>);

/// Where JSON lines go: the output, or the error output while the output carries a stream.
struct Lines {
    to_stderr: bool,
    told: Mutex<BTreeMap<Task, Instant>>,
}

impl Lines {
    fn say(&self, line: &Line) -> Result<()> {
        let failed = |error: String| Error::new(ErrorKind::Io, format!("the answer cannot be written: {error}"));
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.to_string()))?;
        text.push(b'\n');
        let written = match self.to_stderr {
            true => io::stderr().write_all(&text),
            false => {
                let mut output = io::stdout().lock();
                output.write_all(&text).and_then(|()| output.flush())
            }
        };
        written.map_err(|error| failed(error.to_string()))
    }

    /// Passes on progress now and then. An output that is gone ends the request.
    fn progress(&self, progress: Progress) -> Result<()> {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (progress.point.clone(), progress.disk);
            let now = Instant::now();
            if told.get(&key).is_some_and(|last| now.duration_since(*last) < EVERY) {
                return Ok(());
            }
            told.insert(key, now);
        }
        self.say(&Line::Progress(progress))
    }
}

fn request(input: &mut impl BufRead) -> Result<Request> {
    let mut line = Vec::new();
    let read = input.take(REQUEST_LIMIT).read_until(b'\n', &mut line);
    let refuse = |message: String| Error::new(ErrorKind::Request, message);
    read.map_err(|error| refuse(format!("the request cannot be read: {error}")))?;
    serde_json::from_slice(&line).map_err(|error| refuse(format!("the request is not understood: {error}")))
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("rackhand-store {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let mut input = BufReader::with_capacity(256 << 10, io::stdin());
    let asked = request(&mut input);
    let to_stderr = matches!(&asked, Ok(Request::Read(read)) if read.to.is_none());
    let lines = Lines { to_stderr, told: Mutex::new(BTreeMap::new()) };
    let report = |progress: Progress| lines.progress(progress);
    let done = asked.and_then(|request| rackhand_repository::answer(&request, &mut input, &mut io::stdout(), &report));
    let (line, code) = match done {
        Ok(done) => (Line::Done(Box::new(done)), ExitCode::SUCCESS),
        Err(Error { kind, message, point }) => (Line::Error(ErrorAnswer { kind, message, point }), ExitCode::FAILURE),
    };
    match lines.say(&line) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
