//! A hypervisor behind a trap: for crash tests.

use super::types::{BlockInfo, Domain, JobStats, MigrateParams, Node};
use super::{Hypervisor, Hypervisors, LifecycleEvents, Token, VirtError};
use crate::ssh::Trap;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A hypervisor whose caller is killed, or loses an answer, at one call.
#[derive(Debug)]
struct FaultyHypervisor {
    inner: Arc<dyn Hypervisor>,
    trap: Arc<Trap>,
}

/// These hypervisors behind a trap.
pub(crate) fn faulty_hypervisors(hosts: &Hypervisors, trap: &Arc<Trap>) -> Hypervisors {
    let faulty = |inner: &Arc<dyn Hypervisor>| {
        Arc::new(FaultyHypervisor { inner: Arc::clone(inner), trap: Arc::clone(trap) }) as Arc<dyn Hypervisor>
    };
    Hypervisors::of(hosts.all().map(faulty))
}

impl FaultyHypervisor {
    fn lost(&self, call: &'static str) -> impl FnOnce() -> VirtError {
        let host = self.inner.host().to_owned();
        move || VirtError::Lost { host, call, message: "the trap sprang".to_owned() }
    }
}

#[async_trait]
impl Hypervisor for FaultyHypervisor {
    fn host(&self) -> &str {
        self.inner.host()
    }

    async fn connect(&self) -> Result<(), VirtError> {
        self.trap.pass(self.inner.connect(), self.lost("connect")).await
    }

    async fn domains(&self) -> Result<Vec<Domain>, VirtError> {
        self.trap.pass(self.inner.domains(), self.lost("domains")).await
    }

    async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, VirtError> {
        self.trap.pass(self.inner.domain(uuid), self.lost("domain")).await
    }

    async fn create(&self, uuid: Uuid, xml: &str, token: Token) -> Result<(), VirtError> {
        self.trap.pass(self.inner.create(uuid, xml, token), self.lost("create")).await
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.trap.pass(self.inner.shutdown(uuid), self.lost("shutdown")).await
    }

    async fn reboot(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.trap.pass(self.inner.reboot(uuid), self.lost("reboot")).await
    }

    async fn reset(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.trap.pass(self.inner.reset(uuid), self.lost("reset")).await
    }

    async fn destroy(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.trap.pass(self.inner.destroy(uuid, token), self.lost("destroy")).await
    }

    async fn suspend(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.trap.pass(self.inner.suspend(uuid, token), self.lost("suspend")).await
    }

    async fn pause_for_switch(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.trap.pass(self.inner.pause_for_switch(uuid), self.lost("pause_for_switch")).await
    }

    async fn resume(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.trap.pass(self.inner.resume(uuid, token), self.lost("resume")).await
    }

    async fn revoke(&self, uuid: Uuid, token: Token) -> Result<Option<Domain>, VirtError> {
        self.trap.pass(self.inner.revoke(uuid, token), self.lost("revoke")).await
    }

    async fn xml(&self, uuid: Uuid) -> Result<String, VirtError> {
        self.trap.pass(self.inner.xml(uuid), self.lost("xml")).await
    }

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<String>, VirtError> {
        self.trap.pass(self.inner.snapshots(uuid), self.lost("snapshots")).await
    }

    async fn block_info(&self, uuid: Uuid, disk: &str) -> Result<BlockInfo, VirtError> {
        self.trap.pass(self.inner.block_info(uuid, disk), self.lost("block_info")).await
    }

    async fn block_resize(&self, uuid: Uuid, disk: &str, bytes: u64) -> Result<(), VirtError> {
        self.trap.pass(self.inner.block_resize(uuid, disk, bytes), self.lost("block_resize")).await
    }

    async fn node(&self) -> Result<Node, VirtError> {
        self.trap.pass(self.inner.node(), self.lost("node")).await
    }

    async fn capabilities(&self) -> Result<String, VirtError> {
        self.trap.pass(self.inner.capabilities(), self.lost("capabilities")).await
    }

    async fn domain_capabilities(&self, machine: &str, virttype: &str) -> Result<String, VirtError> {
        self.trap.pass(self.inner.domain_capabilities(machine, virttype), self.lost("domain_capabilities")).await
    }

    async fn baseline_cpu(&self, virttype: &str, cpus: &[String]) -> Result<String, VirtError> {
        self.trap.pass(self.inner.baseline_cpu(virttype, cpus), self.lost("baseline_cpu")).await
    }

    async fn can_give_cpu(&self, virttype: &str, cpu: &str) -> Result<bool, VirtError> {
        self.trap.pass(self.inner.can_give_cpu(virttype, cpu), self.lost("can_give_cpu")).await
    }

    async fn agent(&self, uuid: Uuid, command: &str, deadline: Duration) -> Result<String, VirtError> {
        self.trap.pass(self.inner.agent(uuid, command, deadline), self.lost("agent")).await
    }

    async fn monitor(&self, uuid: Uuid, command: &str) -> Result<String, VirtError> {
        self.trap.pass(self.inner.monitor(uuid, command), self.lost("monitor")).await
    }

    async fn migrate(&self, uuid: Uuid, params: &MigrateParams, token: Token) -> Result<(), VirtError> {
        self.trap.pass(self.inner.migrate(uuid, params, token), self.lost("migrate")).await
    }

    async fn job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.trap.pass(self.inner.job(uuid), self.lost("job")).await
    }

    async fn completed_job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.trap.pass(self.inner.completed_job(uuid), self.lost("completed_job")).await
    }

    async fn abort_job(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.trap.pass(self.inner.abort_job(uuid), self.lost("abort_job")).await
    }

    async fn set_max_downtime(&self, uuid: Uuid, downtime: Duration) -> Result<(), VirtError> {
        self.trap.pass(self.inner.set_max_downtime(uuid, downtime), self.lost("set_max_downtime")).await
    }

    async fn set_bandwidth(&self, uuid: Uuid, mib_per_s: u64) -> Result<(), VirtError> {
        self.trap.pass(self.inner.set_bandwidth(uuid, mib_per_s), self.lost("set_bandwidth")).await
    }

    async fn lifecycle(&self) -> Result<LifecycleEvents, VirtError> {
        self.trap.pass(self.inner.lifecycle(), self.lost("lifecycle")).await
    }
}
