//! Programs and a web address that get every event. None of them holds the watch up: each has a queue, and what does not fit
//! into it is dropped and counted.

use super::news::News;
use crate::inventory::secret::{self, Secret};
use crate::inventory::{Inventory, WebhookSpec};
use crate::quote::{CurlConfig, Unquotable};
use crate::ssh::{Exec, Remote};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Events that may wait for a program.
const QUEUE: usize = 256;
/// How long a command may take for one event.
const COMMAND: Duration = Duration::from_secs(10);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Tries of one event, the pause doubled after each: about two minutes in all.
const TRIES: u32 = 8;
/// The first pause.
const PAUSE: Duration = Duration::from_millis(500);

/// Where events go.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    queues: Vec<(String, mpsc::Sender<Arc<str>>)>,
}

impl Sinks {
    /// The hooks and the web address of an inventory; commands run on `here`.
    pub fn of(inventory: &Inventory, here: &Arc<dyn Remote>) -> Self {
        let mut sinks = Sinks::default();
        for words in &inventory.watch.hooks {
            let (queue, events) = mpsc::channel(QUEUE);
            let name = words.first().cloned().unwrap_or_default();
            tokio::spawn(hook(Arc::clone(here), words.clone(), events));
            sinks.queues.push((name, queue));
        }
        if let Some(spec) = &inventory.watch.webhook {
            let (queue, events) = mpsc::channel(QUEUE);
            tokio::spawn(webhook(Arc::clone(here), spec.clone(), inventory.base.clone(), events));
            sinks.queues.push(("webhook".to_owned(), queue));
        }
        sinks
    }

    /// Gives an event to all; never waits.
    pub fn send(&self, news: &News) {
        let Ok(line) = serde_json::to_string(news) else { return };
        let line: Arc<str> = line.into();
        for (name, queue) in &self.queues {
            if queue.try_send(Arc::clone(&line)).is_err() {
                tracing::warn!(name, event = news.event, "an event was dropped: the program is too slow");
            }
        }
    }
}

async fn hook(here: Arc<dyn Remote>, words: Vec<String>, mut events: mpsc::Receiver<Arc<str>>) {
    while let Some(line) = events.recv().await {
        let exec = Exec::argv(words.clone()).stdin(format!("{line}\n")).deadline(COMMAND).as_login();
        match here.run(exec).await {
            Ok(output) if output.ok() => {}
            Ok(output) => tracing::warn!(hook = ?words.first(), status = output.status, "{}", output.tail()),
            Err(error) => tracing::warn!(hook = ?words.first(), %error, "a hook did not end as it should"),
        }
    }
}

async fn webhook(
    here: Arc<dyn Remote>,
    spec: WebhookSpec,
    base: std::path::PathBuf,
    mut events: mpsc::Receiver<Arc<str>>,
) {
    while let Some(line) = events.recv().await {
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            match post(here.as_ref(), &spec, &base, &line).await {
                Ok(()) => break,
                Err(Refused { why, again }) => {
                    let last = attempt == TRIES || !again;
                    tracing::warn!(attempt, last, "the webhook did not take an event: {why}");
                    if last {
                        break;
                    }
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

/// A request that was not taken.
struct Refused {
    why: String,
    /// Whether it may be taken later.
    again: bool,
}

async fn post(here: &dyn Remote, spec: &WebhookSpec, base: &Path, line: &str) -> Result<(), Refused> {
    let final_ = |why: String| Refused { why, again: false };
    let secret = match &spec.secret {
        // Fetched anew each time: it may have been replaced.
        Some(from) => Some(secret::resolve(from, base).await.map_err(|e| Refused { why: e.to_string(), again: true })?),
        None => None,
    };
    let config = config(spec, secret.as_ref(), line).map_err(|error| final_(error.to_string()))?;
    let exec = Exec::argv(["curl", "-q", "--config", "-"]).stdin(config.text()).deadline(REQUEST * 2).as_login();
    let output = here.run(exec).await.map_err(|error| Refused { why: error.to_string(), again: true })?;
    let text = output.text();
    let code = text.trim_end().rsplit('\n').next().and_then(|end| end.split(' ').next()).unwrap_or_default();
    match code {
        code if code.len() == 3 && code.starts_with('2') => Ok(()),
        "408" | "425" | "429" | "000" | "" => Err(Refused { why: output.tail(), again: true }),
        code if code.starts_with('4') || code.starts_with('3') => Err(final_(format!("HTTP {code}"))),
        code => Err(Refused { why: format!("HTTP {code}"), again: true }),
    }
}

fn config(spec: &WebhookSpec, secret: Option<&Secret>, line: &str) -> Result<CurlConfig, Unquotable> {
    let mut config = CurlConfig::new()
        .set("url", &spec.url)?
        .set("proto", "=http,https")?
        .flag("globoff")
        .flag("silent")
        .flag("show-error")
        .set("max-time", &REQUEST.as_secs().to_string())?
        .set("output", "/dev/null")?
        .set("header", "Content-Type: application/json")?
        .set("data-raw", line)?;
    if let Some(secret) = secret {
        config = config.set("header", &format!("{}: {}", spec.header, secret.expose()))?;
    }
    Ok(config.with_status())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;
    use crate::ssh::{FakeRemote, Output};
    use std::sync::Mutex;

    const INVENTORY: &str = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\nnetworks:\n  \
        management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\nhosts:\n  \
        - {name: h1, address: 10.0.0.11, storage_address: 10.0.1.11, roles: [mon, mgr]}\n";

    fn news(text: &str) -> News {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let (rack, event, host) = ("rack".to_owned(), "fenced".to_owned(), Some("h1".to_owned()));
        let (schema, text) = ("rackhand.event/1", text.to_owned());
        News { schema, rack, at, event, host, guest: None, text, evidence: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_gets_each_event_on_its_stdin_in_order_and_a_slow_one_loses_the_rest() {
        let text = format!("{INVENTORY}watch: {{hooks: [[/bin/page, --now]]}}\n");
        let inventory = inventory::parse("inventory.yaml", &text).unwrap();
        let remote = Arc::new(FakeRemote::new("here").on("/bin/page --now", ""));
        let here: Arc<dyn Remote> = Arc::clone(&remote) as Arc<dyn Remote>;
        let sinks = Sinks::of(&inventory, &here);
        for n in 0..QUEUE + 10 {
            sinks.send(&news(&format!("event {n}\nwith a second line")));
        }
        sleep(Duration::from_secs(1)).await;
        let asked = remote.asked();
        assert_eq!(asked.len(), QUEUE, "the rest was dropped, nobody waited");
        for (n, exec) in asked.iter().enumerate() {
            let line = String::from_utf8_lossy(&exec.stdin).into_owned();
            assert_eq!(line.lines().count(), 1, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["text"], format!("event {n}\nwith a second line"));
            assert!(!exec.root);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_is_tried_again_until_it_takes_the_event_and_its_secret_is_on_stdin_alone() {
        let text = format!(
            "{INVENTORY}watch: {{webhook: {{url: 'https://page.example/x', header: X-Token, secret: {{inline: s3cret}}}}}}\n"
        );
        let inventory = inventory::parse("inventory.yaml", &text).unwrap();
        let codes = Mutex::new(vec!["200", "403", "503", "000"]);
        let remote = Arc::new(FakeRemote::new("here").rule(move |_| {
            let code = codes.lock().unwrap().pop().unwrap_or("500");
            Some(Ok(Output { status: 0, stdout: format!("\n{code} ").into_bytes(), stderr: Vec::new() }))
        }));
        let here: Arc<dyn Remote> = Arc::clone(&remote) as Arc<dyn Remote>;
        let sinks = Sinks::of(&inventory, &here);
        // 000, 503 and 403: refused for good; then the next one.
        sinks.send(&news("one"));
        sinks.send(&news("two"));
        sleep(Duration::from_secs(10)).await;
        let bodies: Vec<String> =
            remote.asked().iter().map(|exec| String::from_utf8_lossy(&exec.stdin).into_owned()).collect();
        let of = |word: &str| bodies.iter().filter(|body| body.contains(word)).count();
        assert_eq!((of(r#"\"text\":\"one\""#), of(r#"\"text\":\"two\""#)), (3, 1), "{bodies:?}");
        assert!(bodies.iter().all(|body| body.contains("header = \"X-Token: s3cret\"")));
        assert!(remote.asked().iter().all(|exec| !exec.argv.join(" ").contains("s3cret")));
        // One that is down for long loses the event, and is asked for the next one.
        sinks.send(&news("three"));
        sleep(Duration::from_secs(600)).await;
        let asked = remote.asked().len();
        assert_eq!(asked, 4 + TRIES as usize);
    }
}
