//! The watch in lab tests: what it tells, and what has to be true of a guest whose host was lost.

use crate::rack::{Guest, Rack};
use crate::terminal::eventually;
use rackhand::lab::guest_image::Record;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than a host takes to boot and its OSD to come up, on a busy machine.
const BOOT: Duration = Duration::from_secs(240);

/// `rackhand watch`, with what it has told so far; ended with the value.
pub struct Watch {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    /// Starts it, and waits until a watcher leads.
    pub fn leading(rack: &Rack) -> Watch {
        let watch = Watch::start(rack);
        eventually("the watch to lead", Duration::from_secs(90), || {
            rack.run(&["watch", "status"]).status.success().then_some(())
        });
        watch
    }

    /// Starts it.
    pub fn start(rack: &Rack) -> Watch {
        let mut command = rack.command(&["watch", "--events", "json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (from, to) = (child.stderr.take().unwrap(), Arc::clone(&told));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                to.lock().unwrap().push(event);
            }
        });
        Watch { child, told }
    }

    /// Kills it, as the loss of its machine would.
    pub fn dies(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has told of something of this kind, or of a variant of it (`power-unconfirmed` of `power`).
    pub fn told(&self, kind: &str, host: &str) -> Option<Value> {
        let told = self.told.lock().unwrap();
        let is = |event: &Value| {
            let rest = event["kind"].as_str().and_then(|found| found.strip_prefix(kind));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        told.iter().find(|event| is(event) && event["host"] == host).cloned()
    }

    /// Waits until it has told of something of this kind.
    pub fn tells(&self, kind: &str, host: &str, patience: Duration) -> Value {
        eventually(&format!("{kind} of {host}"), patience, || self.told(kind, host))
    }

    /// All it has told, for the message of a test that fails.
    pub fn story(&self) -> String {
        self.told.lock().unwrap().iter().map(|event| format!("{event}\n")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Moves the guest to the host unless it is there.
pub fn on(rack: &Rack, guest: &Guest, host: &str) {
    if guest.host() != host {
        rack.ok(&["migrate", &guest.name, "--to", host, "--yes"]);
    }
}

/// Waits until the guest counts on after a boot elsewhere, from all that it had answered before.
pub fn counts_on_elsewhere(guest: &Guest, before: &(String, u64), lost: &str) -> (String, u64) {
    let now = eventually(&format!("{} to count on elsewhere", guest.name), Duration::from_secs(120), || {
        guest.answer().filter(|(boot, _)| *boot != before.0)
    });
    assert!(now.1 > before.1, "{now:?} after {before:?}: what was answered is lost");
    assert_ne!(guest.host(), lost);
    now
}

/// Gives the host its power back, and lets it in again once it answers.
pub fn comes_back(rack: &Rack, host: &str) {
    rack.lab(&["power", "on", host]);
    eventually(&format!("{host} to be let in again"), BOOT, || {
        rack.run(&["readmit", host, "--yes"]).status.success().then_some(())
    });
    rack.recovers();
    let fenced = rack.json(&["fence", "list"]);
    assert!(!fenced.to_string().contains(&format!("\"{host}\"")), "{fenced}");
}

/// The disk was written by one boot after the other, in this order.
pub fn boots(history: &[Record]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    history.iter().map(|record| record.boot.as_str()).filter(|boot| seen.insert(*boot)).collect()
}
