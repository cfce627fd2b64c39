//! What the libvirt of one host can be asked: the seam between the rooms above and libvirt, or a fake of it.

use super::error::VirtError;
use super::events::LifecycleEvents;
use super::token::Token;
use super::types::{BlockInfo, Domain, JobStats, MigrateParams, Node};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// The guests of one host. Every call has a deadline and ends as done, failed or unknown ([`VirtError::unknown`]).
///
/// What makes a copy of a guest, lets one go on, sends one away or ends one carries the [`Token`] of the claim it stands
/// on: the host carries it out only when it has seen no newer one, in the same step.
#[async_trait]
pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// The host's name in the inventory.
    fn host(&self) -> &str;

    /// Connects now instead of with the first call.
    async fn connect(&self) -> Result<(), VirtError>;

    /// All domains, running or not.
    async fn domains(&self) -> Result<Vec<Domain>, VirtError>;

    /// The domain of this id, or none.
    async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, VirtError>;

    /// Makes a transient domain that stands still; it leaves no definition behind.
    async fn create(&self, uuid: Uuid, xml: &str, token: Token) -> Result<(), VirtError>;

    /// Presses the ACPI power button.
    async fn shutdown(&self, uuid: Uuid) -> Result<(), VirtError>;

    /// Asks the guest to reboot, by ACPI or its agent.
    async fn reboot(&self, uuid: Uuid) -> Result<(), VirtError>;

    /// Presses the reset button.
    async fn reset(&self, uuid: Uuid) -> Result<(), VirtError>;

    /// Ends the domain at once.
    async fn destroy(&self, uuid: Uuid, token: Token) -> Result<(), VirtError>;

    /// Pauses the processors.
    async fn suspend(&self, uuid: Uuid, token: Token) -> Result<(), VirtError>;

    /// Pauses the processors of an emulated guest at the end of the first round of its move, which is a matter of
    /// milliseconds: the one request without a token. It can end no copy and let none go on.
    async fn pause_for_switch(&self, uuid: Uuid) -> Result<(), VirtError>;

    /// Lets the processors go on.
    async fn resume(&self, uuid: Uuid, token: Token) -> Result<(), VirtError>;

    /// Has the host refuse every request of an older generation from now on, and looks at the guest after that: nothing
    /// that was asked before can change what is seen.
    async fn revoke(&self, uuid: Uuid, token: Token) -> Result<Option<Domain>, VirtError>;

    /// The live domain XML, without secrets.
    async fn xml(&self, uuid: Uuid) -> Result<String, VirtError>;

    /// Names of its libvirt snapshots; a domain that has any cannot be moved.
    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<String>, VirtError>;

    /// Sizes of a disk, named by its target (`vda`).
    async fn block_info(&self, uuid: Uuid, disk: &str) -> Result<BlockInfo, VirtError>;

    /// Grows a disk's device as the guest sees it, to so many bytes.
    async fn block_resize(&self, uuid: Uuid, disk: &str, bytes: u64) -> Result<(), VirtError>;

    /// Processors and memory of the host.
    async fn node(&self) -> Result<Node, VirtError>;

    /// The host's capabilities XML.
    async fn capabilities(&self) -> Result<String, VirtError>;

    /// What a domain of this machine and virtualisation type (`kvm`, `qemu`) can have, as XML.
    async fn domain_capabilities(&self, machine: &str, virttype: &str) -> Result<String, VirtError>;

    /// The richest processor that all these (`<cpu>` elements of domain capabilities) can give, as a `<cpu>` element.
    async fn baseline_cpu(&self, virttype: &str, cpus: &[String]) -> Result<String, VirtError>;

    /// Whether the host can give a guest this processor (a `<cpu>` element).
    async fn can_give_cpu(&self, virttype: &str, cpu: &str) -> Result<bool, VirtError>;

    /// A guest-agent command, JSON in and out.
    async fn agent(&self, uuid: Uuid, command: &str, deadline: Duration) -> Result<String, VirtError>;

    /// A QEMU monitor command, JSON in and out. libvirt marks the domain as tainted by it: for queries and
    /// `announce-self` alone.
    async fn monitor(&self, uuid: Uuid, command: &str) -> Result<String, VirtError>;

    /// Moves a running domain to another host, peer to peer; returns when it is there or has failed. When this
    /// process goes away, the source host carries on.
    async fn migrate(&self, uuid: Uuid, params: &MigrateParams, token: Token) -> Result<(), VirtError>;

    /// What the running job does, and how far it is; see [`JobStats::migrates`] before it is taken for a move.
    async fn job(&self, uuid: Uuid) -> Result<JobStats, VirtError>;

    /// What the last completed job took; after a migration asked of the target.
    async fn completed_job(&self, uuid: Uuid) -> Result<JobStats, VirtError>;

    /// Aborts the running job; the guest stays where it is.
    async fn abort_job(&self, uuid: Uuid) -> Result<(), VirtError>;

    /// Longest pause a running migration may cause.
    async fn set_max_downtime(&self, uuid: Uuid, downtime: Duration) -> Result<(), VirtError>;

    /// Bandwidth a running migration may take, in MiB/s.
    async fn set_bandwidth(&self, uuid: Uuid, mib_per_s: u64) -> Result<(), VirtError>;

    /// Starts, stops and moves of domains from now on.
    async fn lifecycle(&self) -> Result<LifecycleEvents, VirtError>;
}
