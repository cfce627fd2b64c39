//! An event as other programs get it.

use crate::watch::driver::Told;
use jiff::Timestamp;
use serde::Serialize;

/// An event as other programs get it: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct News {
    /// The format.
    pub schema: &'static str,
    /// The rack.
    pub rack: String,
    /// When, by the watcher's clock.
    pub at: Timestamp,
    /// What kind of thing, in a word.
    pub event: String,
    /// The host it is about, if it is about one.
    pub host: Option<String>,
    /// The guest it is about, if it is about one of that host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// It, in a sentence.
    pub text: String,
    /// What it stands on, a line a witness.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

impl News {
    /// What a watcher told.
    pub fn of(rack: &str, told: &Told, at: Timestamp) -> Self {
        News {
            schema: "rackhand.event/1",
            rack: rack.to_owned(),
            at,
            event: told.kind.clone(),
            host: told.host.clone(),
            guest: told.guest.clone(),
            text: told.text.clone(),
            evidence: told.evidence.clone(),
        }
    }
}
