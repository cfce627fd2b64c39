//! A rack in memory on which guests are made, started and moved, and whose ports can be put behind a trap.

use super::*;
use crate::cluster::{ClusterPort, FakeCluster, FaultyCluster, encode};
use crate::error::{Failure, Kind};
use crate::guest::address::Wish;
use crate::guest::claim::{self, Claim, Run};
use crate::guest::create::{self, Order};
use crate::guest::{Desired, Guest, GuestContext, INDEX, Machine, conclude, image, make, sample_inventory, start};
use crate::inventory::Size;
use crate::libvirt::{DomainState, FakeRack, faulty_hypervisors};
use crate::ssh::{FakeRemote, FaultyRemote, Fleet, Remote, Trap};
use crate::ui::{CancelLevel, Ui};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

pub(super) const OPTIONS: Options =
    Options { bandwidth: None, max_downtime: std::time::Duration::from_millis(500), link: None, deadline: None };

/// Three hosts and the template `tiny`.
pub(super) struct World {
    pub(super) rack: GuestContext,
    pub(super) cluster: Arc<FakeCluster>,
    pub(super) hosts: FakeRack,
}

fn remote(name: &str) -> Arc<dyn Remote> {
    Arc::new(FakeRemote::new(name).on("br-lan", "").on("full size", ""))
}

impl World {
    pub(super) async fn new() -> Self {
        let cluster = Arc::new(FakeCluster::new());
        image::sample(&cluster, "tiny").await;
        let machine = Machine { machine: "pc-q35-7.2".into(), virt: "qemu".into(), cpu: "<cpu/>".into() };
        cluster.create("machine", &encode(&machine).unwrap()).await.unwrap();
        let hosts = FakeRack::new(["h1", "h2", "h3"]);
        let inventory = Arc::new(sample_inventory());
        for host in &inventory.hosts {
            hosts.address(&inventory.migration_address(host).to_string(), &host.name);
        }
        let rack = GuestContext {
            port: cluster.clone(),
            hypervisors: hosts.hypervisors(),
            fleet: Fleet::of(["h1", "h2", "h3"].map(remote)),
            inventory,
            ui: Ui::hidden(),
            run: Run::new(),
            turns: Arc::default(),
        };
        World { rack, cluster, hosts }
    }

    /// The rack as another run sees it.
    pub(super) fn another(&self) -> GuestContext {
        GuestContext { run: Run::new(), turns: Arc::default(), ..self.rack.clone() }
    }

    /// The same, with every remote call through a trap.
    pub(super) fn behind(&self, trap: &Arc<Trap>) -> GuestContext {
        let faulty = |name: &str| Arc::new(FaultyRemote { inner: remote(name), trap: trap.clone() }) as Arc<dyn Remote>;
        GuestContext {
            port: Arc::new(FaultyCluster { inner: self.cluster.clone(), trap: trap.clone() }),
            hypervisors: faulty_hypervisors(&self.rack.hypervisors, trap),
            fleet: Fleet::of(["h1", "h2", "h3"].map(faulty)),
            ..self.another()
        }
    }

    /// A guest that is made and does not run.
    pub(super) async fn made(&self, name: &str) -> Guest {
        let plan = create::plan(&self.rack, order(name)).await.unwrap();
        conclude("create", make(&self.rack, &plan).await.unwrap()).unwrap().remove(0)
    }

    /// A guest that runs on h1.
    pub(super) async fn running(&self, name: &str) -> Guest {
        let guest = self.made(name).await;
        start(&self.rack, std::slice::from_ref(&guest), Some("h1")).await.remove(0).1.unwrap();
        guest
    }

    pub(super) async fn claim(&self, uuid: Uuid) -> Claim {
        claim::read(self.rack.port(), uuid).await.unwrap()
    }

    /// Whether a guest runs once, and its claim says where.
    pub(super) async fn runs_once(&self, uuid: Uuid) -> String {
        let places = self.hosts.places(uuid);
        assert!(places.len() == 1 && places[0].1 == DomainState::Running, "{places:?}");
        let claim = self.claim(uuid).await;
        assert_eq!((claim.phase, claim.host.as_deref()), (claim::Phase::Running, Some(places[0].0.as_str())));
        places[0].0.clone()
    }

    /// What is left in the cluster of guests.
    pub(super) async fn traces(&self) -> Vec<String> {
        let port = &self.cluster;
        let mut left: Vec<String> = Vec::new();
        for prefix in ["guest.", "claim."] {
            left.extend(port.list(prefix).await.unwrap().into_iter().map(|o| o.name));
        }
        left.extend(port.images().await.unwrap().into_iter().filter(|name| name.starts_with("vm.")));
        left.extend(port.keys(INDEX).await.unwrap().into_keys());
        left.extend(port.keys("network.lan").await.unwrap().into_keys());
        left
    }
}

pub(super) fn order(name: &str) -> Order {
    Order {
        names: vec![name.to_owned()],
        image: "tiny".parse().unwrap(),
        memory: Size::gib(1),
        cpus: 1,
        disk: Size::gib(2),
        network: "lan".into(),
        address: Wish::Auto,
        user_data: "#cloud-config\n".into(),
        tags: [].into(),
        priority: 0,
        protected: false,
        failover: crate::guest::FailoverPolicy::DataSafe,
        host: None,
        desired: Desired::Running,
    }
}

fn calm() -> watch::Receiver<CancelLevel> {
    watch::channel(CancelLevel::None).1
}

/// `rackhand migrate`, to a host.
pub(super) async fn migrate(rack: &GuestContext, name: &str, to: &str) -> Result<(), Failure> {
    let guest = rack.guest(name).await?;
    let uuid = guest.uuid;
    let facts = gather(rack, &Wanted::Guests(vec![guest]), &OPTIONS, &calm(), true).await?;
    if let Some(unmoved_guest) = facts.unsettled.get(&uuid) {
        return Err(Failure::msg(Kind::Unknown, unmoved_guest));
    }
    let plan = plan(&facts, &[uuid], Some(to));
    execute(rack, &plan, &OPTIONS, calm()).await.failure().map_or(Ok(()), Err)
}

/// `rackhand evacuate`.
pub(super) async fn evacuate(rack: &GuestContext, host: &str) -> Result<Report, Failure> {
    let evacuation = Evacuation::plan(rack, host, &OPTIONS, &calm(), true).await?;
    let evacuation = evacuation.begin(rack, true, &OPTIONS, &calm()).await?;
    if let Some(unmoved_guest) = evacuation.plan.unsettled.first() {
        return Err(Failure::msg(Kind::Unknown, unmoved_guest));
    }
    Ok(execute(rack, &evacuation.plan, &OPTIONS, calm()).await)
}
