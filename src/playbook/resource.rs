//! What a playbook can ask for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing a host shall have. In YAML a map with one key: `- file: {path: /etc/motd, content: hello}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// These packages are installed.
    Packages(Vec<String>),
    /// A file has exactly this content.
    File(File),
    /// A file holds a marked block with this content; the rest of it is not ours.
    Block(Block),
    /// A directory exists.
    Directory(Directory),
    /// This path does not exist (files and links only).
    Absent(String),
    /// A unit of systemd is enabled, running, or neither.
    Service(Service),
    /// Kernel settings, now and after a reboot.
    Sysctl(Sysctl),
    /// Kernel modules, now and after a reboot.
    Modules(Modules),
    /// A login or system user.
    User(User),
    /// A network bridge over a port.
    Bridge(Bridge),
    /// Anything else: a command, and a probe that succeeds when it is not needed.
    Command(Command),
}

/// A file with exactly this content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// The content itself.
    #[serde(default)]
    pub content: Option<String>,
    /// Template the content is rendered from, in the playbook's `templates/`.
    #[serde(default)]
    pub template: Option<String>,
    /// Permission bits, octal.
    #[serde(default = "file_mode")]
    pub mode: String,
    /// Owner.
    #[serde(default = "root")]
    pub owner: String,
    /// Group.
    #[serde(default = "root")]
    pub group: String,
    /// Whether the content is kept out of diffs.
    #[serde(default)]
    pub secret: bool,
}

impl File {
    /// A file of root with this content, readable by all.
    pub fn new(path: impl Into<String>, content: impl Into<String>) -> Self {
        File {
            path: path.into(),
            content: Some(content.into()),
            template: None,
            mode: file_mode(),
            owner: root(),
            group: root(),
            secret: false,
        }
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: &str) -> Self {
        self.mode = mode.to_owned();
        self
    }

    /// Sets owner and group.
    #[must_use]
    pub fn owner(mut self, owner: &str, group: &str) -> Self {
        (self.owner, self.group) = (owner.to_owned(), group.to_owned());
        self
    }

    /// Keeps the content out of diffs.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The content; rendered by the time a resource is probed.
    pub(super) fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

/// A marked block in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Absolute path of the file; it is made where it is missing.
    pub path: String,
    /// What stands between the marks.
    #[serde(default)]
    pub content: Option<String>,
    /// Template the content is rendered from.
    #[serde(default)]
    pub template: Option<String>,
    /// Name in the marks, where a file has several blocks.
    #[serde(default = "block_name")]
    pub name: String,
    /// What begins a comment in that file.
    #[serde(default = "hash")]
    pub comment: String,
}

impl Block {
    /// First and last line of the block.
    pub(super) fn marks(&self) -> (String, String) {
        (format!("{} BEGIN {}", self.comment, self.name), format!("{} END {}", self.comment, self.name))
    }

    /// The block with its marks, as it stands in the file.
    pub(super) fn text(&self) -> String {
        let (begin, end) = self.marks();
        let body = self.content.as_deref().unwrap_or_default().trim_end();
        if body.is_empty() { format!("{begin}\n{end}\n") } else { format!("{begin}\n{body}\n{end}\n") }
    }
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Permission bits, octal.
    #[serde(default = "directory_mode")]
    pub mode: String,
    /// Owner.
    #[serde(default = "root")]
    pub owner: String,
    /// Group.
    #[serde(default = "root")]
    pub group: String,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, with the suffix where it is no service.
    pub unit: String,
    /// Whether it starts at boot.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Whether it runs now.
    #[serde(default)]
    pub running: Option<bool>,
    /// Whether it is masked: it cannot be started at all.
    #[serde(default)]
    pub masked: bool,
    /// Files it reads: it is restarted when one of them is newer than its last start.
    #[serde(default)]
    pub restart_on: Vec<String>,
}

/// Kernel settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// File that keeps them over a reboot.
    #[serde(default = "sysctl_file")]
    pub file: String,
    /// Settings by name: `vm.swappiness: "10"`.
    pub values: BTreeMap<String, String>,
}

/// Kernel modules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    /// File that keeps them over a reboot.
    #[serde(default = "modules_file")]
    pub file: String,
    /// Their names.
    pub names: Vec<String>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Whether it is a system user.
    #[serde(default)]
    pub system: bool,
    /// Login shell.
    #[serde(default)]
    pub shell: Option<String>,
    /// Groups it belongs to besides its own; others are left.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A network bridge over a port, its hardware address pinned to the port's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Name of the bridge.
    pub name: String,
    /// The port under it; where it has addresses and no VLAN is named, they move to the bridge.
    pub uplink: String,
    /// VLAN tag on the port; the port then keeps its addresses.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Maximum transmission unit in bytes.
    #[serde(default = "ethernet_mtu")]
    pub mtu: u32,
}

/// A command that is run where its probe fails.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What it is for, unique in the playbook.
    pub name: String,
    /// Shell script that succeeds when nothing has to be done; it changes nothing.
    pub probe: String,
    /// Shell script that says in a line what would change; it changes nothing.
    #[serde(default)]
    pub shows: Option<String>,
    /// Shell script that is run otherwise.
    pub apply: String,
    /// For a change that may cut the host off.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// Seconds it may take.
    #[serde(default = "command_limit")]
    pub limit: u64,
}

/// How a command's change is taken back unless the host can be reached over a new connection within 25 s. `apply` makes
/// it until a reboot, and may take 15 s.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Shell script that takes `apply` back, also half-way.
    pub undo: String,
    /// Shell script that makes the change permanent, run once the host was reached.
    #[serde(default)]
    pub keep: String,
}

impl Resource {
    /// The object's name in plans.
    pub fn object(&self) -> String {
        match self {
            Resource::Packages(_) => "packages".to_owned(),
            Resource::File(f) => format!("file {}", f.path),
            Resource::Block(b) => format!("block {} in {}", b.name, b.path),
            Resource::Directory(d) => format!("directory {}", d.path),
            Resource::Absent(path) => format!("file {path}"),
            Resource::Service(s) => format!("service {}", s.unit),
            Resource::Sysctl(s) => format!("sysctl {}", s.file),
            Resource::Modules(m) => format!("modules {}", m.file),
            Resource::User(u) => format!("user {}", u.name),
            Resource::Bridge(b) => format!("bridge {}", b.name),
            Resource::Command(c) => format!("command {}", c.name),
        }
    }

    /// The file whose content it sets, if any.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Resource::File(f) => Some(&f.path),
            Resource::Block(b) => Some(&b.path),
            Resource::Absent(path) => Some(path),
            Resource::Sysctl(s) => Some(&s.file),
            Resource::Modules(m) => Some(&m.file),
            _ => None,
        }
    }
}

fn root() -> String {
    "root".to_owned()
}

fn hash() -> String {
    "#".to_owned()
}

fn block_name() -> String {
    "rackhand".to_owned()
}

fn file_mode() -> String {
    "0644".to_owned()
}

fn directory_mode() -> String {
    "0755".to_owned()
}

fn sysctl_file() -> String {
    "/etc/sysctl.d/90-rackhand.conf".to_owned()
}

fn modules_file() -> String {
    "/etc/modules-load.d/rackhand.conf".to_owned()
}

fn ethernet_mtu() -> u32 {
    1500
}

fn command_limit() -> u64 {
    120
}
