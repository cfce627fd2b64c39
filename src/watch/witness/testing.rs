//! A host whose heart beats as a test wants it to.

use crate::ssh::{Channel, Exec, Forward, Output, Remote, RemoteError};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::sleep;

/// How a host behaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    /// It beats, with these works as the script writes them.
    Beats { disk: &'static str, libvirt: &'static str },
    /// Its streams stay open and say nothing; it takes no new connection.
    Silent,
    /// It says this instead of a beat.
    Says(String),
    /// Its streams end; it takes no new connection.
    Down,
}

/// All is well.
pub(crate) const WELL: Mode = Mode::Beats { disk: r#"{"took":0.6}"#, libvirt: r#"{"took":0.2}"# };

/// A host.
#[derive(Debug)]
pub(crate) struct BeatingHost {
    name: String,
    pause: Duration,
    mode: Arc<Mutex<Mode>>,
    /// The addresses that it does not reach; it answers no such question where there is none.
    pub(crate) unreached: Arc<Mutex<Option<BTreeSet<String>>>>,
    /// Connections so far.
    pub(crate) connects: AtomicU32,
}

impl BeatingHost {
    pub(crate) fn new(name: &str, pause: Duration) -> Arc<Self> {
        Arc::new(BeatingHost {
            name: name.to_owned(),
            pause,
            mode: Arc::new(Mutex::new(WELL)),
            unreached: Arc::new(Mutex::new(Some(BTreeSet::new()))),
            connects: AtomicU32::new(0),
        })
    }

    pub(crate) fn becomes(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

#[async_trait]
impl Remote for BeatingHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, _: Exec) -> Result<Output, RemoteError> {
        Ok(Output::default())
    }

    async fn channel(&self, _: Exec) -> Result<Channel, RemoteError> {
        match *self.mode.lock().unwrap() {
            Mode::Down => {
                return Err(RemoteError::Unreachable {
                    host: self.name.clone(),
                    reason: "no route to host".to_owned(),
                });
            }
            Mode::Silent => {}
            _ => drop(self.connects.fetch_add(1, Ordering::Relaxed)),
        }
        if *self.mode.lock().unwrap() == Mode::Silent {
            std::future::pending::<()>().await;
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(ours);
        let (mode, unreached, pause) = (Arc::clone(&self.mode), Arc::clone(&self.unreached), self.pause);
        tokio::spawn(async move {
            let (read, mut write) = tokio::io::split(theirs);
            let mut requests = BufReader::new(read).lines();
            let mut number = 0_u64;
            let _ = write.write_all(b"{\"hello\":\"rackhand-beat/1\",\"boot\":\"b1\"}\n").await;
            loop {
                tokio::select! {
                    () = sleep(pause) => {
                        number += 1;
                        let now = mode.lock().unwrap().clone();
                        let line = match now {
                            Mode::Beats { disk, libvirt } => {
                                format!("{{\"beat\":{number},\"disk\":{disk},\"libvirt\":{libvirt},\"domains\":2}}\n")
                            }
                            Mode::Silent => continue,
                            Mode::Says(line) => format!("{line}\n"),
                            Mode::Down => return,
                        };
                        if write.write_all(line.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(line)) = requests.next_line() => {
                        let request: serde_json::Value = serde_json::from_str(&line).unwrap();
                        let unreached = unreached.lock().unwrap().clone();
                        let dead = matches!(*mode.lock().unwrap(), Mode::Silent | Mode::Down);
                        if let (Some(number), Some(unreached), false) = (request["probe"].as_u64(), unreached, dead) {
                            let reaches = |ask: &serde_json::Value| !unreached.contains(ask[0].as_str().unwrap());
                            let alive: Vec<bool> = request["ask"].as_array().unwrap().iter().map(reaches).collect();
                            let answer = serde_json::json!({"probe": number, "alive": alive});
                            let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
                        }
                    }
                }
            }
        });
        Ok(Channel::new(write, read, ()))
    }

    async fn forward_socket(&self, path: &str) -> Result<Forward, RemoteError> {
        Ok(Forward::local(path))
    }
}
