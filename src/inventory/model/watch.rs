//! How the rack is watched over.

use super::{Patience, SecretRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rack is watched over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSpec {
    /// How long a host may be silent before it can be held to be dead; where nothing is said, what goes with
    /// `ceph.failover`: 900ms with `fastest`, else 3s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<Patience>,
    /// Commands that get every event of the watch as a line of JSON on stdin, each a list of its words. They run where the
    /// watcher runs, one event at a time, for 10 s at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Vec<String>>,
    /// Where every event of the watch is posted to, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSpec>,
    /// Token that `watch --listen` asks for; needed where it listens on an address that other machines reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretRef>,
}

/// Where events are posted to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// Its URL, http or https.
    pub url: String,
    /// Name of the header that carries the secret.
    #[serde(default = "authorization")]
    pub header: String,
    /// Where that header's value comes from; sent without the header where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
}

fn authorization() -> String {
    "Authorization".to_owned()
}
