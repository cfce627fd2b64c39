//! The standing heartbeat stream of one host, over a connection of its own; kept up, and opened anew when it ends.

use super::beat::{LINE, Line, parse};
use super::report::Report;
use crate::ssh::{ChannelIn, ChannelOut, Exec, Remote};
use serde_json::json;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// What runs on the host.
const SCRIPT: &str = include_str!("beat.py");
/// Reads the script from stdin and becomes it.
const BOOTSTRAP: &str = "import sys;b=sys.stdin.buffer;n=int(b.readline());exec(compile(b.read(n),'beat','exec'))";
/// Beats that fit into the time a host may be silent: it is suspect after 4/9 of it, and one late beat is no reason to be.
const BEATS: u32 = 6;
/// Longest time between two beats.
const SLOWEST: Duration = Duration::from_millis(500);
/// How long a connection may take until the first line.
const CONNECT: Duration = Duration::from_secs(8);
/// Pause before the first attempt to connect anew; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lived this long was a good one: the pauses begin anew after it.
const LIVED: Duration = Duration::from_secs(10);
/// How often the host is told that somebody still listens; its script ends after 60 s without.
const KEEP: Duration = Duration::from_secs(10);
/// What the way to the asked host and back may take, beside the time that its probe has.
const TRAVEL: Duration = Duration::from_millis(300);
/// Probes that wait for their turn on a stream.
const PROBES: usize = 64;

/// How often hearts beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two beats.
    pub interval: Duration,
    /// A stream that is silent for this long is opened anew: what comes of it is late by then.
    pub give_up: Duration,
}

impl Pace {
    /// The pace for hosts that may be silent for `patience`.
    pub fn of(patience: Duration) -> Self {
        Pace { interval: (patience / BEATS).min(SLOWEST), give_up: (patience * 2).max(Duration::from_secs(3)) }
    }
}

/// Addresses that a host is to reach, each with ports of which one has to answer or refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The addresses.
    pub ask: Vec<(IpAddr, Vec<u16>)>,
    /// How long they have.
    pub within: Duration,
}

/// A probe on its way.
#[derive(Debug)]
struct Asked {
    line: String,
    number: u64,
    tell: oneshot::Sender<Vec<bool>>,
}

/// The stream that is open at the moment, if one is.
type Open = Arc<Mutex<Option<mpsc::Sender<Asked>>>>;

/// A host's standing stream; dropped, it ends.
#[derive(Debug)]
pub struct HostStream {
    open: Open,
    next: AtomicU64,
    task: JoinHandle<()>,
}

impl Drop for HostStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HostStream {
    /// Opens the stream, and keeps it up. `libvirt`: whether the host runs guests. The connection has to be its alone.
    pub fn open(remote: Arc<dyn Remote>, pace: Pace, libvirt: bool, reports: mpsc::Sender<Report>) -> Self {
        let open = Open::default();
        let task = tokio::spawn(keep(remote, pace, libvirt, reports, Arc::clone(&open)));
        HostStream { open, next: AtomicU64::new(1), task }
    }

    /// Asks the host which addresses it reaches; nothing where it does not say so in time. No process and no connection
    /// is started for it.
    pub async fn probe(&self, probe: &Probe) -> Option<Vec<bool>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = json!({"probe": number, "within": probe.within.as_secs_f64(), "ask": probe.ask});
        let (tell, told) = oneshot::channel();
        let asked = Asked { line: format!("{request}\n"), number, tell };
        let open = locked(&self.open).clone()?;
        open.try_send(asked).ok()?;
        let answer = timeout(probe.within + TRAVEL, told).await.ok()?.ok()?;
        (answer.len() == probe.ask.len()).then_some(answer)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the stream up until nobody wants its reports.
async fn keep(remote: Arc<dyn Remote>, pace: Pace, libvirt: bool, reports: mpsc::Sender<Report>, open: Open) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let why = one_stream(remote.as_ref(), pace, libvirt, &reports, &open).await;
        *locked(&open) = None;
        let ended = Report::Ended { host: remote.name().to_owned(), why };
        if reports.send(ended).await.is_err() {
            return;
        }
        // What is left of the connection would only be found dead after many seconds.
        remote.disconnect().await;
        if began.elapsed() >= LIVED {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One stream from its first byte to its last; why it ended.
async fn one_stream(
    remote: &dyn Remote,
    pace: Pace,
    libvirt: bool,
    reports: &mpsc::Sender<Report>,
    open: &Open,
) -> String {
    let config = json!({"interval": pace.interval.as_secs_f64(), "libvirt": libvirt});
    let stdin = format!("{}\n{SCRIPT}{config}\n", SCRIPT.len());
    let exec = Exec::argv(["python3", "-I", "-S", "-c", BOOTSTRAP]).stdin(stdin).deadline(CONNECT);
    let late = || format!("no heartbeat within {} s of connecting", CONNECT.as_secs());
    let hello = async {
        let channel = remote.channel(exec).await.map_err(|e| e.to_string())?;
        let (stdin, stdout, end) = channel.into_parts();
        let mut lines = BufReader::new(stdout);
        match next_line(&mut lines).await? {
            Some(Line::Hello(boot)) => Ok((stdin, lines, end, boot)),
            _ => Err(format!("the heartbeat does not begin: {}", crate::quote::plain(&end.stderr(), 200))),
        }
    };
    let (stdin, mut lines, end, boot) = match timeout(CONNECT, hello).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(why)) => return why,
        Err(_) => return late(),
    };
    let host = remote.name();
    if reports.send(Report::Connected { host: host.to_owned(), boot }).await.is_err() {
        return "nobody listens".to_owned();
    }
    let (ask, asked) = mpsc::channel(PROBES);
    *locked(open) = Some(ask);
    let waiting = Mutex::default();
    let why = tokio::select! {
        why = read(host, pace, &mut lines, reports, &waiting) => why,
        why = write(stdin, asked, &waiting) => why,
    };
    drop(end);
    why
}

/// Those who wait for an answer, by the number of their probe.
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Vec<bool>>>>;

async fn read(
    host: &str,
    pace: Pace,
    lines: &mut BufReader<ChannelOut>,
    reports: &mpsc::Sender<Report>,
    waiting: &Waiting,
) -> String {
    loop {
        let report = match timeout(pace.give_up, next_line(lines)).await {
            Err(_) => return format!("silent for {:.1} s", pace.give_up.as_secs_f64()),
            Ok(Err(why)) => return why,
            Ok(Ok(Some(Line::Beat(beat)))) => Report::Beat { host: host.to_owned(), beat },
            Ok(Ok(Some(Line::Probe(number, alive)))) => {
                if let Some(tell) = locked(waiting).remove(&number) {
                    // One who waits no longer needs no answer.
                    let _ = tell.send(alive);
                }
                continue;
            }
            Ok(Ok(Some(Line::Hello(_)) | None)) => Report::Garbled { host: host.to_owned() },
        };
        if reports.send(report).await.is_err() {
            return "nobody listens".to_owned();
        }
    }
}

async fn write(mut stdin: ChannelIn, mut asked: mpsc::Receiver<Asked>, waiting: &Waiting) -> String {
    let mut still_here = interval(KEEP);
    still_here.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let line = tokio::select! {
            _ = still_here.tick() => "{}\n".to_owned(),
            Some(Asked { line, number, tell }) = asked.recv() => {
                let mut waiting = locked(waiting);
                waiting.retain(|_, tell| !tell.is_closed());
                waiting.insert(number, tell);
                line
            }
        };
        let written = async {
            stdin.write_all(line.as_bytes()).await?;
            stdin.flush().await
        };
        if let Err(error) = written.await {
            return format!("cannot be written to: {error}");
        }
    }
}

/// The next line; `None` for one that cannot be read.
async fn next_line(lines: &mut BufReader<ChannelOut>) -> Result<Option<Line>, String> {
    let mut line = Vec::new();
    let read = lines.take(LINE as u64).read_until(b'\n', &mut line).await;
    match read {
        Err(error) => Err(format!("the stream broke: {error}")),
        Ok(_) if line.ends_with(b"\n") => Ok(parse(&line)),
        Ok(LINE) => Err(format!("it says more than {LINE} bytes in a line")),
        Ok(_) => Err("the stream ended".to_owned()),
    }
}
