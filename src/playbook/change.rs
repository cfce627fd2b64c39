//! What a plan is made of: single changes, as values that can be printed and saved.

use serde::{Deserialize, Serialize};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is not there and will be made.
    Create,
    /// It is there and differs.
    Change,
    /// It is there and has to go.
    Remove,
    /// It is there and has to be started, restarted or run.
    Run,
}

impl Action {
    /// The sign shown before a change.
    pub fn sign(self) -> char {
        match self {
            Action::Create => '+',
            Action::Change => '~',
            Action::Remove => '-',
            Action::Run => '!',
        }
    }
}

/// One change to one object of one host (or of the cluster, done from that host).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The host it is done on.
    pub host: String,
    /// The step that does it.
    pub step: String,
    /// What is changed, unique within host and step: `file /etc/hosts`, `mon h1`, `pool guests`.
    pub object: String,
    /// What is done to it.
    pub action: Action,
    /// In a few words what will be different.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Line by line what will be different; never holds a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl Change {
    /// A change without details.
    pub fn new(host: impl Into<String>, step: impl Into<String>, action: Action, object: impl Into<String>) -> Self {
        Change {
            host: host.into(),
            step: step.into(),
            object: object.into(),
            action,
            detail: String::new(),
            diff: None,
        }
    }

    /// Says in a few words what will be different.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says line by line what will be different. Secrets have to be left out by the caller.
    #[must_use]
    pub fn diff(mut self, diff: impl Into<String>) -> Self {
        self.diff = Some(diff.into());
        self
    }
}

/// Something that is wanted but cannot be done where the host is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The host.
    pub host: String,
    /// The step.
    pub step: String,
    /// What is left as it is.
    pub object: String,
    /// Why, for example `container`.
    pub reason: String,
}

/// What a probe found: what has to change, and what cannot be done here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// What has to change, in the order it will be done.
    pub changes: Vec<Change>,
    /// What cannot be done here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// What must not be done here; nothing is applied while there is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Skipped>,
}

impl Findings {
    /// Adds what another probe found.
    pub fn extend(&mut self, other: Findings) {
        self.changes.extend(other.changes);
        self.skipped.extend(other.skipped);
        self.refused.extend(other.refused);
    }
}

impl From<Vec<Change>> for Findings {
    fn from(changes: Vec<Change>) -> Self {
        Findings { changes, ..Findings::default() }
    }
}
