//! What libvirt tells, in our own types.

use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// What a domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainState {
    /// Its processors run.
    Running,
    /// Its processors stand still; the reason says why.
    Paused,
    /// It is shutting down.
    Stopping,
    /// It does not run.
    Off,
    /// It crashed.
    Crashed,
    /// The guest sleeps.
    Suspended,
    /// libvirt does not know.
    Unknown,
}

impl DomainState {
    /// Whether there is a QEMU process.
    pub fn has_process(self) -> bool {
        !matches!(self, DomainState::Off)
    }
}

impl std::fmt::Display for DomainState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DomainState::Running => "running",
            DomainState::Paused => "paused",
            DomainState::Stopping => "stopping",
            DomainState::Off => "off",
            DomainState::Crashed => "crashed",
            DomainState::Suspended => "suspended",
            DomainState::Unknown => "unknown",
        })
    }
}

/// A domain as its host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its id, the same on every host.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: DomainState,
    /// Why, in libvirt's words (`booted`, `migrated`, `ioerror`, ...).
    pub reason: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
}

/// Sizes of a disk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BlockInfo {
    /// What the guest sees.
    pub capacity: u64,
    /// What is allocated.
    pub allocation: u64,
    /// What the host sees.
    pub physical: u64,
}

/// A host's processors and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Memory in bytes.
    pub memory: u64,
    /// Active hardware threads.
    pub cpus: u32,
    /// Processor sockets a NUMA node.
    pub sockets: u32,
    /// Cores a socket.
    pub cores: u32,
    /// Threads a core.
    pub threads: u32,
}

/// How a guest is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrateParams {
    /// The target's libvirt as the source reaches it, `qemu+tls://ADDRESS/system`.
    pub destination: String,
    /// Where the target's QEMU listens, `tcp://ADDRESS`.
    pub data: Option<String>,
    /// MiB/s at most.
    pub bandwidth: Option<u64>,
    /// Connections to spread the memory over; none for one.
    pub parallel: Option<u32>,
    /// Slow the guest down when it dirties memory faster than it can be sent.
    pub auto_converge: bool,
    /// Encrypt the memory stream.
    pub tls: bool,
    /// When to stop waiting for the outcome; the source carries on.
    pub deadline: Option<Duration>,
}

/// What kind of job runs on a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// None.
    #[default]
    None,
    /// One is running.
    Running,
    /// The last one completed.
    Completed,
    /// The last one failed.
    Failed,
    /// The last one was cancelled.
    Cancelled,
}

/// What a job on a domain does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobOperation {
    /// libvirt does not say.
    #[default]
    Unknown,
    /// The domain starts.
    Start,
    /// Its memory is saved to a file.
    Save,
    /// Its memory is read back from a file.
    Restore,
    /// It arrives from another host.
    MigrationIn,
    /// It leaves for another host.
    MigrationOut,
    /// A snapshot is taken, reverted to or deleted.
    Snapshot,
    /// Its memory is dumped to a file.
    Dump,
    /// Its disks are backed up.
    Backup,
}

impl std::fmt::Display for JobOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            JobOperation::Unknown => "a job that libvirt does not name",
            JobOperation::Start => "its start",
            JobOperation::Save => "a save of its memory",
            JobOperation::Restore => "a restore of its memory",
            JobOperation::MigrationIn => "an incoming migration",
            JobOperation::MigrationOut => "an outgoing migration",
            JobOperation::Snapshot => "a snapshot",
            JobOperation::Dump => "a memory dump",
            JobOperation::Backup => "a backup",
        })
    }
}

/// How far a job is, or what it took; the figures are those of a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JobStats {
    /// Whether one runs.
    pub kind: JobKind,
    /// What it does.
    pub operation: JobOperation,
    /// Bytes of memory to send in all.
    pub memory_total: u64,
    /// Bytes of memory sent.
    pub memory_processed: u64,
    /// Bytes of memory left in this round.
    pub memory_remaining: u64,
    /// Bytes a second as QEMU measures them.
    pub rate: u64,
    /// Bytes the guest dirties a second.
    pub dirty_rate: u64,
    /// Round over the memory.
    pub iteration: u64,
    /// Percent the guest is slowed down by.
    pub throttle: i32,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
    /// Milliseconds the guest stood still; while it runs, the expected ones.
    pub downtime_ms: u64,
}

impl JobStats {
    /// Whether a migration to another host runs; the only job that a move may follow or abort.
    pub fn migrates(&self) -> bool {
        self.kind == JobKind::Running && self.operation == JobOperation::MigrationOut
    }

    /// What another tool does to the domain: a running job that is no migration.
    pub fn other(&self) -> Option<JobOperation> {
        let migration = matches!(self.operation, JobOperation::MigrationIn | JobOperation::MigrationOut);
        (self.kind == JobKind::Running && !migration).then_some(self.operation)
    }
}
