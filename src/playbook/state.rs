//! What a host has, of all that a list of resources asks about.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What a host has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Seconds since the epoch by the host's clock.
    pub clock: f64,
    /// Seconds since its boot.
    pub uptime: f64,
    /// Whether it is a container.
    pub container: bool,
    /// Files and directories, by path.
    pub files: BTreeMap<String, FileState>,
    /// Blocks with their marks, by path and name.
    pub blocks: BTreeMap<(String, String), String>,
    /// Wanted packages that are installed.
    pub installed: BTreeSet<String>,
    /// Packages whose installation was interrupted.
    pub broken: BTreeSet<String>,
    /// Units, by the name asked for.
    pub units: BTreeMap<String, UnitState>,
    /// Kernel settings: value, and whether it can be written.
    pub sysctls: BTreeMap<String, (String, bool)>,
    /// Loaded (or built in) modules among those asked for.
    pub modules: BTreeSet<String>,
    /// Users: shell and groups.
    pub users: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Exit status of each command's probe, and what it says would change, by name.
    pub commands: BTreeMap<String, (i32, String)>,
    /// The host's links as `ip -j -d addr show` tells them.
    pub links: Vec<serde_json::Value>,
    /// Its default routes as `ip -j route show default` tells them.
    pub routes: Vec<serde_json::Value>,
    /// Whether systemd-networkd runs.
    pub networkd: bool,
    /// All files that configure the host's network, by path: ifupdown's, netplan's, systemd-networkd's.
    pub network_files: BTreeMap<String, String>,
    /// Bridges whose edit was begun since the host booted, whatever became of it.
    pub begun: BTreeSet<String>,
    /// Files of each bridge, by its name.
    pub bridges: BTreeMap<String, BridgeState>,
}

/// The files of a bridge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BridgeState {
    /// Our own files of systemd-networkd, by path.
    pub files: BTreeMap<String, String>,
    /// The file that configures the port (or did, before the bridge took it): path and content.
    pub origin: (String, String),
}

/// What is at a path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileState {
    /// `regular file`, `directory`, `symbolic link`...
    pub kind: String,
    /// Permission bits, octal without leading zero.
    pub mode: String,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// Time of its last change, in seconds since the epoch.
    pub mtime: f64,
    /// Hash of its content.
    pub sha256: String,
    /// Its content, where it differs from the wanted and may be shown.
    pub content: Option<Vec<u8>>,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `active`, `inactive`, `failed`...
    pub active: String,
    /// `enabled`, `disabled`, `static`...
    pub file: String,
    /// When it last became active, in seconds since boot.
    pub since: f64,
}

/// The hash files are compared by.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
