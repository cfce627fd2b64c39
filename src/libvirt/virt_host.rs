//! The real thing: libvirt's client library over a forwarded socket.

use super::connection::{Connection, Endpoint, spawn, tell_at_the_end};
use super::guarded::{Answer, Request, Verb, migrate_words};
use super::token::Token;
use super::types::{BlockInfo, Domain, DomainState, JobKind, JobStats, MigrateParams, Node};
use super::{Hypervisor, LifecycleEvents, VirtError, ffi};
use crate::ssh::Remote;
use async_trait::async_trait;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::error::Error;
use virt_sys as sys;

/// For what only looks. A host under load was seen to take seconds to answer.
const LOOK: Duration = Duration::from_secs(15);
/// For what starts or ends a process: QEMU opens its disks first, which waits for the storage.
const CHANGE: Duration = Duration::from_secs(60);
/// Time between two looks at a move that libvirt has taken on.
const JOB_POLL: Duration = Duration::from_millis(100);
/// A migration is watched by whoever starts it; this only bounds a forgotten one.
const MIGRATE: Duration = Duration::from_secs(6 * 3600);

/// Threads that ask for the sizes of a host's domains: libvirtd answers 5 requests of one client at a time.
const LISTERS: usize = 4;

/// The guests of one host, over its libvirt.
#[derive(Debug)]
pub struct VirtHost {
    connection: Connection,
}

impl VirtHost {
    /// Over the forwarded socket of a host; nothing is connected yet.
    pub fn over(remote: Arc<dyn Remote>) -> Self {
        VirtHost { connection: Connection::new(Endpoint::Remote(remote)) }
    }

    /// At a libvirt URI.
    pub fn at(host: impl Into<String>, uri: impl Into<String>) -> Self {
        VirtHost { connection: Connection::new(Endpoint::Uri { host: host.into(), uri: uri.into() }) }
    }

    /// A changing request, guarded by the guest's floor on the host.
    fn request(&self, verb: Verb, uuid: Uuid, token: Token) -> Result<Request<'_>, VirtError> {
        match self.connection.remote() {
            Some(remote) => Ok(Request { remote, verb, uuid, token }),
            None => Err(VirtError::Unreachable {
                host: self.connection.host().to_owned(),
                reason: "changing requests need a host over SSH".to_owned(),
            }),
        }
    }

    /// Something that only looks at a domain.
    async fn look<T: Send + 'static>(
        &self,
        uuid: Uuid,
        call: &'static str,
        work: impl FnOnce(&Handle) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, VirtError> {
        self.connection.read(call, LOOK, move |connect| work(&connect.lookup_domain_by_uuid(uuid)?)).await
    }

    /// Something that changes a domain.
    async fn change<T: Send + 'static>(
        &self,
        uuid: Uuid,
        call: &'static str,
        work: impl FnOnce(&Handle) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, VirtError> {
        self.connection.call(call, CHANGE, move |connect| work(&connect.lookup_domain_by_uuid(uuid)?)).await
    }
}

fn describe(handle: &Handle) -> Result<Domain, Error> {
    domain(handle, ffi::state(handle)?)
}

/// Puts a domain together: state and reason as read at once, and its size, which does not depend on them.
fn domain(handle: &Handle, (raw, reason): (c_int, c_int)) -> Result<Domain, Error> {
    let info = handle.info()?;
    Ok(Domain {
        name: handle.name()?,
        uuid: handle.uuid()?,
        state: state(raw),
        reason: reason_of(raw, reason),
        memory: info.max_mem << 10,
        cpus: info.nr_virt_cpu,
    })
}

fn state(raw: c_int) -> DomainState {
    match raw.cast_unsigned() {
        // A guest that waits for its disk runs.
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => DomainState::Running,
        sys::VIR_DOMAIN_PAUSED => DomainState::Paused,
        sys::VIR_DOMAIN_SHUTDOWN => DomainState::Stopping,
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Off,
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Suspended,
        _ => DomainState::Unknown,
    }
}

fn reason_of(state: c_int, reason: c_int) -> String {
    let raw = reason.cast_unsigned();
    match state.cast_unsigned() {
        sys::VIR_DOMAIN_RUNNING => virt::domain::DomainRunningReasonEnum::from_raw(raw).to_string(),
        sys::VIR_DOMAIN_PAUSED => virt::domain::DomainPausedReasonEnum::from_raw(raw).to_string(),
        sys::VIR_DOMAIN_SHUTDOWN => virt::domain::DomainShutdownReasonEnum::from_raw(raw).to_string(),
        sys::VIR_DOMAIN_SHUTOFF => virt::domain::DomainShutoffReasonEnum::from_raw(raw).to_string(),
        sys::VIR_DOMAIN_CRASHED => virt::domain::DomainCrashedReasonEnum::from_raw(raw).to_string(),
        _ => "unknown".to_owned(),
    }
}

/// A domain that ended while it was looked at is not there, which is no error.
fn unless_gone(described: Result<Domain, Error>) -> Result<Option<Domain>, Error> {
    match described {
        Err(e) if e.code().to_raw() == sys::VIR_ERR_NO_DOMAIN => Ok(None),
        other => other.map(Some),
    }
}

/// All domains: their states in one call, their sizes side by side. Neither asks a QEMU: one that hangs delays no other.
fn list(connect: &Connect) -> Result<Vec<Domain>, Error> {
    let all = ffi::states(connect)?;
    let part = all.len().div_ceil(LISTERS).max(1);
    let parts: Vec<Result<Vec<Domain>, Error>> = std::thread::scope(|scope| {
        let list_part = |part: &[(Handle, c_int, c_int)]| {
            let mut domains = Vec::with_capacity(part.len());
            for (handle, state, reason) in part {
                domains.extend(unless_gone(domain(handle, (*state, *reason)))?);
            }
            Ok(domains)
        };
        let mut parts = all.chunks(part);
        let first = parts.next();
        let beside: Vec<_> = parts.map(|part| scope.spawn(move || list_part(part))).collect();
        let mut results: Vec<_> = first.map(list_part).into_iter().collect();
        // A part that is missing must not pass for a host without these domains.
        results.extend(beside.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        results
    });
    let mut domains = Vec::with_capacity(all.len());
    for part in parts {
        domains.extend(part?);
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(domains)
}

fn node(connect: &Connect) -> Result<Node, Error> {
    let info = connect.node_info()?;
    let memory = match ffi::node_memory(connect) {
        // libvirt's test driver.
        Err(e) if e.code().to_raw() == sys::VIR_ERR_NO_SUPPORT => info.memory << 10,
        memory => memory?,
    };
    Ok(Node { memory, cpus: info.cpus, sockets: info.sockets, cores: info.cores, threads: info.threads })
}

/// Ends the watch on a thread: it talks to the daemon.
struct Watching(Option<(Connect, ffi::Watch)>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some((connect, watch)) = self.0.take() {
            // Without a thread the watch lasts as long as the program.
            let _ = spawn(move || ffi::unwatch_lifecycle(&connect, watch));
        }
    }
}

#[async_trait]
impl Hypervisor for VirtHost {
    fn host(&self) -> &str {
        self.connection.host()
    }

    async fn connect(&self) -> Result<(), VirtError> {
        self.connection.open().await
    }

    async fn domains(&self) -> Result<Vec<Domain>, VirtError> {
        self.connection.probe("list guests", LOOK, list).await
    }

    async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, VirtError> {
        match self.look(uuid, "look at the guest", describe).await {
            Ok(domain) => Ok(Some(domain)),
            Err(e) if e.no_domain() => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn create(&self, uuid: Uuid, xml: &str, token: Token) -> Result<(), VirtError> {
        self.request(Verb::Create, uuid, token)?.send(Vec::new(), Some(xml)).await.map(drop)
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<(), VirtError> {
        let press = |handle: &Handle| handle.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
        self.change(uuid, "press the power button", press).await
    }

    async fn reboot(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.change(uuid, "reboot the guest", |handle| handle.reboot(0)).await
    }

    async fn reset(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.change(uuid, "reset the guest", Handle::reset).await
    }

    async fn destroy(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.request(Verb::Destroy, uuid, token)?.send(Vec::new(), None).await.map(drop)
    }

    async fn suspend(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.request(Verb::Suspend, uuid, token)?.send(Vec::new(), None).await.map(drop)
    }

    async fn pause_for_switch(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.change(uuid, "pause the guest", Handle::suspend).await
    }

    async fn resume(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        self.request(Verb::Resume, uuid, token)?.send(Vec::new(), None).await.map(drop)
    }

    async fn revoke(&self, uuid: Uuid, token: Token) -> Result<Option<Domain>, VirtError> {
        self.request(Verb::Raise, uuid, token)?.send(Vec::new(), None).await?;
        self.domain(uuid).await
    }

    async fn xml(&self, uuid: Uuid) -> Result<String, VirtError> {
        self.look(uuid, "read the guest's definition", |handle| handle.xml_desc(0)).await
    }

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<String>, VirtError> {
        let names = |handle: &Handle| handle.list_all_snapshots(0)?.iter().map(|snapshot| snapshot.name()).collect();
        self.look(uuid, "list the guest's snapshots", names).await
    }

    async fn block_info(&self, uuid: Uuid, disk: &str) -> Result<BlockInfo, VirtError> {
        let disk = disk.to_owned();
        self.look(uuid, "look at the disk", move |handle| ffi::block_info(handle, &disk)).await
    }

    async fn block_resize(&self, uuid: Uuid, disk: &str, bytes: u64) -> Result<(), VirtError> {
        let disk = disk.to_owned();
        let resize = move |handle: &Handle| handle.block_resize(&disk, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES);
        self.change(uuid, "grow the disk", resize).await
    }

    async fn node(&self) -> Result<Node, VirtError> {
        self.connection.probe("look at the host", LOOK, node).await
    }

    async fn capabilities(&self) -> Result<String, VirtError> {
        self.connection.read("ask for capabilities", LOOK, Connect::capabilities).await
    }

    async fn domain_capabilities(&self, machine: &str, virttype: &str) -> Result<String, VirtError> {
        let (machine, virttype) = (machine.to_owned(), virttype.to_owned());
        let ask = move |connect: &Connect| {
            connect.domain_capabilities(None, Some("x86_64"), Some(&machine), Some(&virttype), 0)
        };
        self.connection.read("ask for domain capabilities", LOOK, ask).await
    }

    async fn baseline_cpu(&self, virttype: &str, cpus: &[String]) -> Result<String, VirtError> {
        let (virttype, cpus) = (virttype.to_owned(), cpus.to_vec());
        let ask = move |connect: &Connect| ffi::baseline_cpu(connect, &virttype, &cpus);
        self.connection.read("find the common processor", LOOK, ask).await
    }

    async fn can_give_cpu(&self, virttype: &str, cpu: &str) -> Result<bool, VirtError> {
        let (virttype, cpu) = (virttype.to_owned(), cpu.to_owned());
        let ask = move |connect: &Connect| ffi::can_give_cpu(connect, &virttype, &cpu);
        self.connection.read("compare processors", LOOK, ask).await
    }

    async fn agent(&self, uuid: Uuid, command: &str, deadline: Duration) -> Result<String, VirtError> {
        let command = command.to_owned();
        let seconds = i32::try_from(deadline.as_secs().max(1)).unwrap_or(i32::MAX);
        // libvirt counts by whole seconds and answers after its own; ours is the backstop.
        let backstop = deadline + Duration::from_secs(5);
        let ask =
            move |connect: &Connect| connect.lookup_domain_by_uuid(uuid)?.qemu_agent_command(&command, seconds, 0);
        self.connection.call("ask the guest agent", backstop, ask).await
    }

    async fn monitor(&self, uuid: Uuid, command: &str) -> Result<String, VirtError> {
        let command = command.to_owned();
        self.change(uuid, "ask the monitor", move |handle| handle.qemu_monitor_command(&command, 0)).await
    }

    async fn migrate(&self, uuid: Uuid, params: &MigrateParams, token: Token) -> Result<(), VirtError> {
        let until = Instant::now() + params.deadline.unwrap_or(MIGRATE);
        let words = migrate_words(uuid, params);
        if self.request(Verb::Migrate, uuid, token)?.send(words, None).await? == Answer::Done {
            return Ok(());
        }
        loop {
            sleep(JOB_POLL).await;
            // Of a guest that has left there is no job; one that cannot be asked for may run.
            let runs = self.job(uuid).await.map_or_else(|e| !e.no_domain(), |job| job.kind == JobKind::Running);
            if !runs {
                let asked =
                    self.request(Verb::Outcome, uuid, Token::new(token.generation))?.send(Vec::new(), None).await;
                match asked {
                    Ok(Answer::Done) => return Ok(()),
                    Ok(Answer::UnderWay) => {}
                    // It was asked for, so that not having its end means not knowing it.
                    Err(VirtError::Unreachable { host, reason }) => {
                        return Err(VirtError::Lost { host, call: Verb::Migrate.call(), message: reason });
                    }
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() >= until {
                let (host, call) = (self.host().to_owned(), Verb::Migrate.call());
                return Err(VirtError::TimedOut { host, call, after: params.deadline.unwrap_or(MIGRATE) });
            }
        }
    }

    async fn job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.look(uuid, "look at the job", |handle| ffi::job_stats(handle, false)).await
    }

    async fn completed_job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.look(uuid, "look at the completed job", |handle| ffi::job_stats(handle, true)).await
    }

    async fn abort_job(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.change(uuid, "abort the job", ffi::abort_job).await
    }

    async fn set_max_downtime(&self, uuid: Uuid, downtime: Duration) -> Result<(), VirtError> {
        let millis = u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX);
        self.change(uuid, "set the longest pause", move |handle| handle.migrate_set_max_downtime(millis, 0)).await
    }

    async fn set_bandwidth(&self, uuid: Uuid, mib_per_s: u64) -> Result<(), VirtError> {
        self.change(uuid, "set the bandwidth", move |handle| handle.migrate_set_max_speed(mib_per_s, 0)).await
    }

    async fn lifecycle(&self) -> Result<LifecycleEvents, VirtError> {
        let own = self.connection.sibling();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tell_at_the_end(sender.clone());
        let begin = move |connect: &Connect| {
            let watch = ffi::watch_lifecycle(connect, sender)?;
            Ok(Watching(Some((connect.clone(), watch))))
        };
        let watching = own.call("watch guests", LOOK, begin).await?;
        Ok(LifecycleEvents::new(receiver, (watching, own)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::{Lifecycle, LifecycleEvent};

    const XML: &str = "<domain type='test'><name>web</name><uuid>6f2c0b8e-3f9d-4a43-9f5e-0f9f1c7b2a11</uuid>
        <memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type>hvm</type></os></domain>";

    /// The library's own test driver; each test gets a world of its own from a file.
    fn host() -> (VirtHost, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.xml");
        std::fs::write(&file, "<node><cpu><mhz>2000</mhz><active>4</active></cpu><memory>4194304</memory></node>")
            .unwrap();
        (VirtHost::at("h1", format!("test://{}", file.display())), directory)
    }

    impl VirtHost {
        /// Starts a domain of the test driver, which has no host to guard it.
        async fn start(&self, xml: &str) -> Result<Domain, VirtError> {
            let xml = xml.to_owned();
            self.connection.call("start", CHANGE, move |connect| describe(&connect.create_domain_xml(&xml, 0)?)).await
        }

        async fn end(&self, uuid: Uuid) -> Result<(), VirtError> {
            self.change(uuid, "end", Handle::destroy).await
        }
    }

    #[tokio::test]
    async fn a_guest_is_started_seen_paused_and_ended() {
        let (host, _directory) = host();
        let web = host.start(XML).await.unwrap();
        assert_eq!((web.name.as_str(), web.state, web.memory, web.cpus), ("web", DomainState::Running, 64 << 20, 2));
        assert_eq!(host.domains().await.unwrap(), std::slice::from_ref(&web));
        assert!(matches!(host.start(XML).await, Err(VirtError::Exists { .. })));
        host.pause_for_switch(web.uuid).await.unwrap();
        assert_eq!(host.domain(web.uuid).await.unwrap().unwrap().state, DomainState::Paused);
        assert!(host.xml(web.uuid).await.unwrap().contains("<name>web</name>"));
        host.end(web.uuid).await.unwrap();
        assert_eq!(host.domain(web.uuid).await.unwrap(), None);
        assert!(host.end(web.uuid).await.unwrap_err().no_domain());
    }

    #[tokio::test]
    async fn a_list_has_every_domain_with_state_and_reason_of_one_moment() {
        let (host, _directory) = host();
        for n in 0..9 {
            let xml = XML.replace("web", &format!("g{n}")).replace("7b2a11", &format!("7b2a2{n}"));
            let domain = host.start(&xml).await.unwrap();
            if n == 4 {
                host.pause_for_switch(domain.uuid).await.unwrap();
            }
        }
        let all = host.domains().await.unwrap();
        let line = |d: &Domain| format!("{} {} {} {} {}", d.name, d.state, d.reason, d.memory >> 20, d.cpus);
        assert_eq!(all.iter().map(line).collect::<Vec<_>>().join("\n"), {
            let line = |n| format!("g{n} {} 64 2", if n == 4 { "paused user" } else { "running booted" });
            (0..9).map(line).collect::<Vec<_>>().join("\n")
        });
        for domain in all {
            assert_eq!(host.domain(domain.uuid).await.unwrap().unwrap(), domain, "one by one it is the same");
        }
    }

    #[tokio::test]
    async fn lifecycle_events_arrive() {
        // One connection of the test driver is one world: start the guest over the watching one.
        let host = VirtHost::at("h1", "test:///default");
        let mut events = host.lifecycle().await.unwrap();
        let web = host.start(XML).await.unwrap();
        host.end(web.uuid).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
            if let LifecycleEvent::Changed { uuid, change, .. } = event
                && uuid == web.uuid
            {
                seen.push(change);
            }
        }
        assert_eq!(seen, [Lifecycle::Started, Lifecycle::Stopped]);
    }

    #[tokio::test]
    async fn the_node_has_processors_and_memory() {
        let host = VirtHost::at("h1", "test:///default");
        let node = host.node().await.unwrap();
        assert_eq!((node.memory, node.cpus), (3 << 30, 16));
        assert!(host.capabilities().await.unwrap().contains("<capabilities>"));
    }
}
