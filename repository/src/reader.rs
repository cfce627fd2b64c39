//! The program that reads a disk: started in a group of its own, ended with everything it started.

use crate::error::{Error, ErrorKind, Result};
use crate::request::{Reader, ReceiveDisk};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

/// How much of what it complained about is shown, in bytes.
const TAIL: usize = 2000;

/// A reader that runs; it is ended when this is dropped.
pub(crate) struct Running {
    child: Child,
    complaints: Option<JoinHandle<String>>,
    name: String,
    ended: bool,
}

impl Running {
    /// Starts the reader of a disk.
    pub(crate) fn start(reader: &Reader, disk: &ReceiveDisk) -> Result<Self> {
        let from = disk.from_snapshot.as_deref().unwrap_or_default();
        let index = disk.index.to_string();
        let words = reader.argv.iter().map(|word| replace(word, &disk.image, from, &disk.to_snapshot, &index));
        let words: Vec<String> = words.collect();
        let (program, arguments) = words.split_first().ok_or_else(|| Error::new(ErrorKind::Request, "no reader"))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(&reader.env).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Reader, format!("{}: the reader {program} cannot be started: {error}", disk.image))
        };
        let mut child = command.spawn().map_err(failed)?;
        let complaints = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
        Ok(Self { child, complaints, name: format!("{}: the reader {program}", disk.image), ended: false })
    }

    /// What it writes.
    pub(crate) fn output(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| Error::new(ErrorKind::Reader, "the reader has no output"))
    }

    /// Waits for its end. A failure of its own explains one of the stream.
    pub(crate) fn finish<T>(mut self, read: Result<T>) -> Result<T> {
        if let Err(error) = &read
            && error.kind != ErrorKind::Stream
        {
            return read;
        }
        // A stream that breaks the rules may come from a reader that would write for ever.
        if read.as_ref().is_err_and(|error| !error.message.contains("ends before")) {
            self.kill();
        }
        let status = self.child.wait();
        let killed = std::mem::replace(&mut self.ended, true);
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let complaints = complaints.trim();
        match (status, read) {
            (Ok(status), Ok(value)) if status.success() => Ok(value),
            (Ok(status), Err(error)) if status.success() || killed => {
                let said = if complaints.is_empty() { String::new() } else { format!(" ({complaints})") };
                Err(Error { message: format!("{}{said}", error.message), ..error })
            }
            (Ok(status), _) => {
                Err(Error::new(ErrorKind::Reader, format!("{} ended with {status}: {complaints}", self.name)))
            }
            (Err(error), _) => Err(Error::new(ErrorKind::Reader, format!("{}: {error}", self.name))),
        }
    }

    fn kill(&mut self) {
        if !self.ended {
            self.ended = true;
            if let Ok(group) = i32::try_from(self.child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Replaces the placeholders, in one pass: a value is never searched for placeholders itself.
fn replace(word: &str, image: &str, from: &str, to: &str, index: &str) -> String {
    let values = [("{image}", image), ("{from}", from), ("{to}", to), ("{index}", index)];
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (mark, value) = values.into_iter().find(|(mark, _)| rest.starts_with(mark)).unwrap_or(("{", "{"));
        text.push_str(value);
        rest = &rest[mark.len()..];
    }
    text + rest
}

fn tail(mut stderr: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(TAIL);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once() {
        assert_eq!(replace("p/{image}@{to}", "{to}", "", "s", "0"), "p/{to}@s");
        assert_eq!(replace("{from}{x}{", "i", "f", "t", "0"), "f{x}{");
    }
}
