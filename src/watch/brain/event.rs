//! What people are told.

use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A host has fallen silent.
    Suspected,
    /// A host that was suspected is heard again.
    Cleared,
    /// The verdict on a host has changed.
    Judged,
    /// Something would be done, and is not, for a reason that a person should know.
    Held,
    /// A fence was asked for.
    Fencing,
    /// A fence is proven.
    Fenced,
    /// A fence is not proven yet.
    FenceFailed,
    /// The guests of a host run elsewhere.
    Recovered,
    /// The recovery of a host is not through yet.
    RecoveryFailed,
    /// A fenced host is heard again.
    Returned,
    /// A host was booted anew.
    Rebooted,
    /// A host was let in again.
    Readmitted,
    /// A host falls silent and comes back again and again.
    Flapping,
    /// The watcher was not listening, and has forgotten what it heard.
    Overslept,
    /// This watcher leads from now on, or no longer does.
    Lease,
    /// A guest ended by itself, or stands still because its disk failed.
    GuestDown,
    /// A guest that was down runs again.
    GuestUp,
    /// A guest shut itself down, and stays down.
    GuestOff,
    /// A guest is down, and could not be helped so far.
    GuestFailed,
}

/// Something people are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What kind of thing.
    pub kind: EventKind,
    /// The host it is about, if it is about one.
    pub host: Option<String>,
    /// It, in a sentence.
    pub text: String,
}

impl Event {
    /// About a host.
    pub fn of(kind: EventKind, host: &str, text: impl Into<String>) -> Self {
        Event { kind, host: Some(host.to_owned()), text: text.into() }
    }

    /// About the rack, or the watcher itself.
    pub fn of_rack(kind: EventKind, text: impl Into<String>) -> Self {
        Event { kind, host: None, text: text.into() }
    }
}
