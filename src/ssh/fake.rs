//! A host that answers from a script, for tests of what is built on top.

use super::channel::Channel;
use super::error::RemoteError;
use super::exec::{Exec, Output, Remote};
use super::forward::Forward;
use async_trait::async_trait;
use std::sync::Mutex;

type Answer = Box<dyn Fn(&Exec) -> Option<Result<Output, RemoteError>> + Send + Sync>;

/// Answers each command by the first rule that matches, and remembers what was asked.
pub struct FakeRemote {
    name: String,
    rules: Vec<Answer>,
    asked: Mutex<Vec<Exec>>,
}

impl std::fmt::Debug for FakeRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeRemote({})", self.name)
    }
}

impl FakeRemote {
    /// A host without answers.
    pub fn new(name: impl Into<String>) -> Self {
        FakeRemote { name: name.into(), rules: Vec::new(), asked: Mutex::default() }
    }

    /// Answers commands whose argv or stdin contains `needle` with this stdout and status 0.
    #[must_use]
    pub fn on(self, needle: &str, stdout: impl Into<Vec<u8>>) -> Self {
        let (needle, stdout) = (needle.to_owned(), stdout.into());
        self.rule(move |exec| {
            let hit = exec.argv.join(" ").contains(&needle) || String::from_utf8_lossy(&exec.stdin).contains(&needle);
            hit.then(|| Ok(Output { status: 0, stdout: stdout.clone(), stderr: Vec::new() }))
        })
    }

    /// Answers by a rule of one's own; `None` passes on to the next.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(&Exec) -> Option<Result<Output, RemoteError>> + Send + Sync + 'static) -> Self {
        self.rules.push(Box::new(rule));
        self
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Exec> {
        self.asked.lock().map(|a| a.clone()).unwrap_or_default()
    }
}

#[async_trait]
impl Remote for FakeRemote {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        if let Ok(mut asked) = self.asked.lock() {
            asked.push(exec.clone());
        }
        self.rules.iter().find_map(|rule| rule(&exec)).unwrap_or_else(|| {
            Err(RemoteError::Unreachable {
                host: self.name.clone(),
                reason: format!("no answer scripted for {exec:?}"),
            })
        })
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        Err(RemoteError::Unreachable { host: self.name.clone(), reason: format!("no channel scripted for {exec:?}") })
    }

    async fn forward_socket(&self, remote: &str) -> Result<Forward, RemoteError> {
        Err(RemoteError::Unreachable { host: self.name.clone(), reason: format!("no socket scripted for {remote}") })
    }
}
