//! Diff streams on their way between a host with the role mon and a repository on this machine.

use crate::error::{Failure, Kind};
use crate::ssh::{Channel, ChannelEnd, Exec, Remote};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::timeout;

/// Reads a script from stdin and becomes it; what follows on stdin is the script's.
const BOOTSTRAP: &str = "import sys;b=sys.stdin.buffer;n=int(b.readline());exec(compile(b.read(n),'rackhand','exec'))";
const READER: &str = include_str!("reader.py");
const WRITER: &str = include_str!("writer.py");
/// Bytes handed on at a time.
const CHUNK: usize = 1 << 20;
/// How long a stream may stand still. The scripts give up an operation that no OSD answers much earlier; a large disk that is
/// almost empty is looked through for some minutes without a byte.
const SILENCE: Duration = Duration::from_secs(30 * 60);
/// How long a script may take to end once its stream has.
const END: Duration = Duration::from_secs(60);

/// What is to be read of a disk.
pub(super) struct Disk {
    pub(super) image: String,
    /// The snapshot that it is a difference to.
    pub(super) from: Option<String>,
    pub(super) to: String,
}

async fn script(remote: &dyn Remote, script: &str, request: &Value) -> Result<Channel, Failure> {
    let hello = format!("{}\n{script}{request}\n", script.len());
    Ok(remote.channel(Exec::argv(["python3", "-I", "-c", BOOTSTRAP]).stdin(hello)).await?)
}

/// Waits for a script's end, which has to be a good one.
async fn ended(remote: &dyn Remote, what: &str, end: ChannelEnd) -> Result<(), Failure> {
    match end.wait(END).await? {
        Some((0, _)) => Ok(()),
        Some((status, said)) => {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
            Err(Failure::failed(format!("host {}: {what} ended with {status}: {last}", remote.name())))
        }
        None => Err(Failure::failed(format!("host {}: {what} does not end", remote.name()))),
    }
}

fn silent(remote: &dyn Remote, what: &str) -> Failure {
    let minutes = SILENCE.as_secs() / 60;
    Failure::failed(format!("host {}: {what} stands still since {minutes} minutes", remote.name()))
}

/// Sends a disk's diff stream, as the repository takes it: chunks with their length before them, and an empty one once the
/// stream is whole. Tells whether the repository took it all; where not, it says why itself.
pub(super) async fn send(remote: &dyn Remote, pool: &str, disk: &Disk, to: &Sender<Vec<u8>>) -> Result<bool, Failure> {
    let what = format!("reading disk image {}", disk.image);
    let request = json!({"pool": pool, "image": disk.image, "from": disk.from, "to": disk.to});
    let (stdin, mut stdout, end) = script(remote, READER, &request).await?.into_parts();
    loop {
        let mut chunk = vec![0; CHUNK];
        let n = timeout(SILENCE, stdout.read(&mut chunk[4..])).await.map_err(|_| silent(remote, &what))??;
        if n == 0 {
            break;
        }
        chunk.truncate(n + 4);
        chunk[..4].copy_from_slice(&u32::try_from(n)?.to_be_bytes());
        if to.send(chunk).await.is_err() {
            return Ok(false);
        }
    }
    drop(stdin);
    // Only a reader that ended well has read everything; before that, the disk is not ended for the repository.
    ended(remote, &what, end).await?;
    Ok(to.send(vec![0; 4]).await.is_ok())
}

/// Writes a diff stream to a new disk image; tells how long the stream was.
pub(super) async fn write(
    remote: &dyn Remote,
    pool: &str,
    image: &str,
    mut from: Receiver<Vec<u8>>,
) -> Result<u64, Failure> {
    let what = format!("writing disk image {image}");
    let request = json!({"pool": pool, "image": image});
    let (mut stdin, mut stdout, end) = script(remote, WRITER, &request).await?.into_parts();
    let mut broken = false;
    while let Some(chunk) = from.recv().await {
        let taken = timeout(SILENCE, stdin.write_all(&chunk)).await.map_err(|_| silent(remote, &what))?;
        if taken.is_err() {
            // What it says at its end tells why.
            broken = true;
            break;
        }
    }
    let _ = stdin.shutdown().await;
    drop((stdin, from));
    let mut said = Vec::new();
    timeout(SILENCE, stdout.read_to_end(&mut said)).await.map_err(|_| silent(remote, &what))??;
    ended(remote, &what, end).await?;
    let told = serde_json::from_slice::<Value>(&said).ok().and_then(|told| told["bytes"].as_u64());
    match told {
        Some(bytes) if !broken => Ok(bytes),
        _ => Err(Failure::msg(Kind::Unknown, format!("host {}: {what} ended without a word", remote.name()))),
    }
}

/// The streams as the repository reads them, on a thread that may block; without a sender they have ended.
#[derive(Debug, Default)]
pub(super) struct Feed {
    chunks: Option<Receiver<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Feed {
    pub(super) fn of(chunks: Receiver<Vec<u8>>) -> Self {
        Feed { chunks: Some(chunks), ..Feed::default() }
    }
}

impl Read for Feed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.chunks.as_mut().and_then(Receiver::blocking_recv) {
                Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let n = to.len().min(self.chunk.len() - self.at);
        to[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A stream as the repository writes it, on a thread that may block.
#[derive(Debug)]
pub(super) struct Drain(Option<Sender<Vec<u8>>>);

impl Drain {
    pub(super) fn of(chunks: Option<Sender<Vec<u8>>>) -> Self {
        Drain(chunks)
    }
}

impl Write for Drain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let sent = self.0.as_ref().map(|chunks| chunks.blocking_send(bytes.to_vec()));
        if sent.is_some_and(|sent| sent.is_err()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
