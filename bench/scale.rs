//! The commands of a rack of a hundred hosts and five thousand guests, on a rack in memory behind the three seams: each
//! call to a host, to libvirt or to the cluster takes one round trip, and a few hosts hang. `make bench-scale` prints the table of
//! `docs/scale.md`.

use rackhand::cluster::{ClusterPort, FakeCluster, KeysChange, encode, readable};
use rackhand::error::Failure;
use rackhand::guest::address::Wish;
use rackhand::guest::claim::{self, Claim, Phase, Run};
use rackhand::guest::create::{self, Order};
use rackhand::guest::image::{BASE, Template, TemplateVersion};
use rackhand::guest::{
    Desired, Disk, DomainInventory, FailoverPolicy, Guest, GuestContext, INDEX, ImageRef, Machine, Nic, Stage, make,
    overview, read_host_states, read_reservations,
};
use rackhand::inventory::{self, Inventory, Size};
use rackhand::libvirt::{DomainState, FakeFault, FakeRack};
use rackhand::movement::{Evacuation, Options};
use rackhand::report::{CephSeen, HostMetrics, Seen, assemble, status_table};
use rackhand::ssh::{FakeRemote, Fleet, Remote};
use rackhand::ui::{CancelLevel, Ui};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// Guests on each host; each has 1 GiB.
const GUESTS: usize = 50;
/// Guests on the host that is evacuated.
const EVACUATED: usize = 100;
/// Hosts that hang, of the largest rack.
const HANGING: usize = 3;
/// How much longer a command may take with ten times as many hosts and guests: n log n of 500 and of 5,000.
const N_LOG_N: f64 = 13.7;
/// MiB that a command may take.
const MEMORY: u64 = 128;
/// The network's pool.
const LAN: &str = "{bridge: br-lan, cidr: 10.64.0.0/14, gateway: 10.64.0.1, ranges: [10.64.1.0-10.67.255.0]}";

/// A rack in memory.
struct World {
    rack: GuestContext,
    hosts: FakeRack,
    cluster: Arc<FakeCluster>,
}

/// What one command took.
struct Row {
    command: &'static str,
    /// The most it may take in the largest rack at a round trip of 30 ms.
    bar: Option<Duration>,
    took: Duration,
    note: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut small: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut growth: BTreeMap<&str, [Duration; 2]> = BTreeMap::new();
    let mut slow = false;
    let mut memory = 0;
    println!("| round trip | hosts | guests | hang | command | seconds | bar | |");
    println!("|---:|---:|---:|---:|---|---:|---:|---|");
    for (trip, hosts, hanging) in
        [(30, 3, 0), (1, 10, 0), (1, 100, 0), (1, 100, HANGING), (30, 10, 0), (30, 100, 0), (30, 100, HANGING)]
    {
        let world = World::new(hosts).await?;
        let before = forget_peak();
        let trip = Duration::from_millis(trip);
        world.slow_down(trip, hanging);
        for row in world.measure().await? {
            if hosts == 3 {
                small.insert(row.command, row.took);
            }
            if trip.as_millis() == 1 && hanging == 0 {
                growth.entry(row.command).or_default()[usize::from(hosts == 100)] = row.took;
            }
            let full = hosts == 100 && trip.as_millis() == 30;
            let over = match (row.command, row.bar) {
                // So much more than in a rack of three.
                ("guest create", Some(bar)) => row.took > bar + small.get(row.command).copied().unwrap_or_default(),
                (_, Some(bar)) => row.took > bar,
                (_, None) => false,
            };
            slow |= full && over;
            let bar = row.bar.filter(|_| full).map_or_else(String::new, |bar| format!("{:.1}", bar.as_secs_f64()));
            let verdict = if full && over { "TOO SLOW " } else { "" };
            println!(
                "| {} ms | {hosts} | {} | {hanging} | {} | {:.2} | {bar} | {verdict}{} |",
                trip.as_millis(),
                hosts * GUESTS,
                row.command,
                row.took.as_secs_f64(),
                row.note
            );
        }
        memory = memory.max(memory_of("VmHWM:").saturating_sub(before));
    }
    println!("\nFrom 10 to 100 hosts and 500 to 5,000 guests at 1 ms; n log n is {N_LOG_N:.1} times as much:\n");
    for (command, [ten, hundred]) in &growth {
        let times = hundred.as_secs_f64() / ten.as_secs_f64().max(f64::EPSILON);
        // Of what takes a few round trips, the ratio says nothing.
        let over = times > N_LOG_N && *hundred > Duration::from_millis(500);
        slow |= over;
        println!("* {command}: {times:.1} times as long{}", if over { ", MORE THAN n log n" } else { "" });
    }
    slow |= memory >= MEMORY;
    println!("\nMost memory that the commands took beside the rack in memory: {memory} MiB (bar: {MEMORY} MiB).");
    if slow { Err(Failure::failed("a command takes more than it may")) } else { Ok(()) }
}

impl World {
    /// A rack whose guests run, all but those of the first host's second half on hosts of their own number.
    async fn new(hosts: usize) -> Result<World, Failure> {
        let cluster = Arc::new(FakeCluster::new());
        let names: Vec<String> = (0..hosts).map(|n| format!("h{n}")).collect();
        let fake = FakeRack::new(names.iter().map(String::as_str));
        let machine = Machine { machine: "pc-q35-7.2".into(), virt: "kvm".into(), cpu: "<cpu/>".into() };
        cluster.create("machine", &encode(&machine)?).await?;
        template(&cluster).await?;
        let (mut index, mut pool) = (KeysChange::default(), KeysChange::default());
        for n in 0..hosts * GUESTS {
            // The first host has twice as many, as far as the others give some up.
            let host = if n % GUESTS == 0 && n < (EVACUATED - GUESTS) * GUESTS { 0 } else { n / GUESTS };
            let guest = guest(n);
            let running = Claim {
                generation: 2,
                phase: Phase::Running,
                host: Some(names[host].clone()),
                run: "earlier".into(),
                ..Claim::default()
            };
            cluster.create(&Guest::object(guest.uuid), &encode(&guest)?).await?;
            cluster.create(&Claim::object(guest.uuid), &encode(&running)?).await?;
            fake.put_sized(&names[host], &guest.name, guest.uuid, DomainState::Running, 1 << 29);
            index = index.add(guest.name.clone(), guest.uuid.to_string());
            pool = pool.add(guest.nics[0].address.to_string(), format!("{}/0", guest.uuid));
            pool = pool.add(format!("mac/{}", guest.nics[0].mac), format!("{}/0", guest.uuid));
        }
        cluster.change_keys(INDEX, &index).await?;
        cluster.change_keys("network.lan", &pool).await?;
        let rack = GuestContext {
            port: cluster.clone(),
            hypervisors: fake.hypervisors(),
            fleet: Fleet::of(names.iter().map(|name| Arc::new(FakeRemote::new(name).on("", "")) as Arc<dyn Remote>)),
            inventory: Arc::new(inventory(hosts)?),
            ui: Ui::hidden(),
            run: Run::new(),
            turns: Arc::default(),
        };
        Ok(World { rack, hosts: fake, cluster })
    }

    /// From now on each call takes a round trip, and the last hosts answer nothing.
    fn slow_down(&self, trip: Duration, hanging: usize) {
        self.cluster.slow(trip);
        self.hosts.slow(trip);
        let all = self.rack.inventory.hosts.iter().rev();
        all.take(hanging).for_each(|host| self.hosts.fault(&host.name, FakeFault::Silent));
    }

    async fn measure(&self) -> Result<Vec<Row>, Failure> {
        let seconds = Duration::from_secs;
        let mut rows = Vec::new();
        let mut row = |command, bar, began: Instant, note| {
            rows.push(Row { command, bar, took: began.elapsed(), note });
        };
        let began = Instant::now();
        let lines = self.status().await?;
        row("status", Some(seconds(3)), began, format!("{lines} lines"));

        let began = Instant::now();
        let seen = overview(&self.rack).await?;
        row("guest list", Some(Duration::from_millis(1500)), began, format!("{} guests", seen.guests.len()));

        let (_, cancel_level) = watch::channel(CancelLevel::None);
        let options = Options { bandwidth: None, max_downtime: Duration::from_millis(300), link: None, deadline: None };
        let began = Instant::now();
        let evacuation = Evacuation::plan(&self.rack, "h0", &options, &cancel_level, false).await?;
        row("evacuate --dry-run", Some(seconds(2)), began, format!("{} moves", evacuation.plan.moves.len()));

        let began = Instant::now();
        let plan = create::plan(&self.rack, order(&["one".to_owned()], &[])).await?;
        let made = make(&self.rack, &plan).await?;
        let made: Vec<Guest> = made.into_iter().filter_map(|(_, guest)| guest.ok()).collect();
        let started = create::start(&self.rack, &plan, &made).await;
        let started = started.iter().filter(|(_, result)| result.is_ok()).count();
        row("guest create", Some(seconds(1)), began, format!("{started} started"));

        let names: Vec<String> = (0..500).map(|n| format!("many-{n}")).collect();
        let began = Instant::now();
        let plan = create::plan(&self.rack, order(&names, &[("spread", "web")])).await;
        let placed = plan
            .map_or_else(|why| why.to_string().chars().take(60).collect(), |p| format!("{} placed", p.guests.len()));
        row("guest create --count 500, the plan", Some(seconds(1)), began, placed);

        // As many as there are hosts that answer, each on one of its own.
        let apart: Vec<String> = (0..self.rack.inventory.hosts.len()
            - HANGING.min(self.rack.inventory.hosts.len() - 1))
            .map(|n| format!("apart-{n}"))
            .collect();
        let began = Instant::now();
        let plan = create::plan(&self.rack, order(&apart, &[("apart", "new")])).await?;
        row("guest create, all apart, the plan", Some(seconds(1)), began, format!("{} placed", plan.guests.len()));
        let made: Vec<Guest> = make(&self.rack, &plan).await?.into_iter().filter_map(|(_, guest)| guest.ok()).collect();
        let began = Instant::now();
        let started = create::start(&self.rack, &plan, &made).await;
        let started = started.iter().filter(|(_, result)| result.is_ok()).count();
        let most = self.hosts.busiest();
        row(
            "guest create, all apart, their starts",
            None,
            began,
            format!("{started} started, at most {most} requests at a host"),
        );
        Ok(rows)
    }

    /// What `rackhand status` reads and shows; the pulses of the hosts are one call to each.
    async fn status(&self) -> Result<usize, Failure> {
        let (rack, port) = (&self.rack, self.rack.port());
        let kept = async {
            tokio::try_join!(
                readable::<Guest>(port, "guest."),
                claim::all(port),
                read_host_states(port),
                read_reservations(port, rack.hypervisors.names())
            )
        };
        let (domain_inventory, kept) = tokio::join!(DomainInventory::take(rack, true), kept);
        let (((guests, _), claims, states, reservations), domain_inventory) = (kept?, domain_inventory?);
        let host_metrics =
            rack.inventory.hosts.iter().map(|host| (host.name.clone(), Ok(HostMetrics::default()))).collect();
        let ceph = Ok(CephSeen { guests, claims, states, reservations, ..CephSeen::default() });
        let status = assemble(
            &rack.inventory,
            &Seen { host_metrics, domain_inventory, ceph, pool: "guests".to_owned(), live: Vec::new() },
            jiff::Timestamp::now(),
        );
        Ok(status_table(&status).lines().count())
    }
}

async fn template(cluster: &FakeCluster) -> Result<(), Failure> {
    let image = Template::image_name(Uuid::from_u128(1));
    cluster.image_create(&image, 32 << 20).await?;
    cluster.snapshot_create(&image, BASE, true).await?;
    let version = TemplateVersion {
        version: 1,
        image,
        size: Size::mib(32),
        sha256: String::new(),
        source: "tiny.raw".into(),
        imported: jiff::Timestamp::UNIX_EPOCH,
    };
    let template = Template { current: 1, versions: vec![version], ..Template::empty("tiny") };
    cluster.create(&Template::object("tiny"), &encode(&template)?).await?;
    Ok(())
}

fn guest(n: usize) -> Guest {
    let uuid = Uuid::from_u128(0x1000 + n as u128);
    let [_, a, b, c] = u32::try_from(n).unwrap_or_default().to_be_bytes();
    let group = |key: &str, value: usize| (key.to_owned(), value.to_string());
    Guest {
        restore: None,
        name: format!("g{n:05}"),
        uuid,
        stage: Stage::Ready,
        desired: Desired::Running,
        image: ImageRef { name: "tiny".into(), version: 1 },
        memory: Size::mib(512),
        cpus: 1,
        disks: vec![Disk { name: "disk0".into(), image: format!("vm.{uuid}.disk0"), size: Size::gib(1) }],
        nics: vec![Nic {
            network: "lan".into(),
            mac: format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"),
            address: [10, 65, b, c].into(),
        }],
        machine: Machine { machine: "pc-q35-7.2".into(), virt: "kvm".into(), cpu: "<cpu/>".into() },
        tags: [group("spread", n % 40), group("apart", n / 5)].into(),
        priority: 0,
        protected: false,
        failover: FailoverPolicy::DataSafe,
        pinned: None,
        created: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn order(names: &[String], tags: &[(&str, &str)]) -> Order {
    Order {
        names: names.to_vec(),
        image: "tiny".parse().unwrap_or_else(|_| unreachable!("a name")),
        memory: Size::mib(128),
        cpus: 1,
        disk: Size::gib(2),
        network: "lan".into(),
        address: Wish::Auto,
        user_data: "#cloud-config\n".into(),
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        priority: 0,
        protected: false,
        failover: FailoverPolicy::DataSafe,
        host: None,
        desired: Desired::Running,
    }
}

fn inventory(hosts: usize) -> Result<Inventory, Failure> {
    let mut text = format!(
        "cluster: {{name: rack, fsid: 11111111-2222-4333-8444-555555555555}}\n\
         networks:\n  management: {{cidr: 10.0.0.0/16}}\n  storage: {{cidr: 10.1.0.0/16}}\n  guests:\n    lan: {LAN}\n\
         guests: {{host_reserve: 4G, cpu_overcommit: 16}}\nhosts:\n"
    );
    for n in 0..hosts {
        let (rack, roles) = (n / 20, if n < 3 { "[mon, mgr, osd, guests]" } else { "[osd, guests]" });
        text += &format!(
            "  - {{name: h{n}, address: 10.0.1.{}, storage_address: 10.1.1.{}, osds: [/dev/disk/by-id/d{n}], \
             roles: {roles}, location: {{rack: r{rack}}}}}\n",
            n + 1,
            n + 1
        );
    }
    inventory::parse("inventory.yaml", &text).map_err(|mistakes| Failure::usage(mistakes.to_string()))
}

/// MiB that the kernel counts for this process under a name.
fn memory_of(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 10
}

/// Begins to count the most memory anew; tells what this process has now.
fn forget_peak() -> u64 {
    // Where that cannot be written, all that there ever was is counted.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    memory_of("VmRSS:")
}
