//! `rackhand init --probe`: an inventory from what hosts are.

use super::Context;
use super::init_args::InitArgs;
use crate::error::{Failure, Kind};
use crate::host::{self, Disk, Facts, Nic, OwnBmc};
use crate::inventory::{
    BackupSpec, BmcKind, CephSpec, ClusterIdentity, Draft, DraftBmc, DraftHost, DraftNetwork, GuestDefaults,
    HostNetwork, HostSpec, Inventory, IpoibMode, LinkKind, LinkSpeed, Location, MigrationNetwork, Networks, Role, Size,
    SshDefaults, WatchSpec,
};
use crate::provision::refused_draft;
use crate::ssh::RemoteError;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// Smallest disk that is taken for an OSD; what is smaller is a boot medium.
const MIN_DISK: u64 = 8 << 30;

/// Looks at the hosts and drafts their inventory.
///
/// # Errors
/// When one of them cannot be looked at, or they have no network in common.
pub(super) async fn draft(args: &InitArgs, context: &Context) -> Result<Draft, Failure> {
    let inventory = provisional(args);
    let fleet = context.fleet(&inventory)?;
    let job = context.ui.job(format!("looking at {} hosts", inventory.hosts.len()));
    let names: Vec<&str> = inventory.hosts.iter().map(|h| h.name.as_str()).collect();
    let look = |host: std::sync::Arc<dyn crate::ssh::Remote>| async move {
        let (facts, bmc) = (host::gather(host.as_ref()).await?, host::own_bmc(host.as_ref()).await?);
        let refusal = no_bridge(host.as_ref(), &facts).await;
        Ok::<_, RemoteError>((facts, bmc, refusal))
    };
    let mut found = fleet.each(names.iter().copied(), look).await;
    let mut seen = Vec::new();
    let mut silent = Vec::new();
    for spec in &inventory.hosts {
        match found.remove(&spec.name) {
            Some(Ok((facts, bmc, no_bridge))) => seen.push(Probed { address: spec.address, facts, bmc, no_bridge }),
            Some(Err(error)) => silent.push((spec.address, error.to_string())),
            None => silent.push((spec.address, format!("host {}: not looked at", spec.name))),
        }
    }
    if silent.is_empty() {
        job.done("");
    } else {
        job.fail(format!("{} did not answer", silent.len()));
    }
    let trust = format!("a host that is new is trusted after `{}` was confirmed once", login(args));
    if seen.is_empty() {
        let failed: Vec<&str> = silent.iter().map(|(_, why)| why.as_str()).collect();
        return Err(Failure::new(Kind::Failed, anyhow::anyhow!("{}", failed.join("\n")))
            .hint(format!("nothing was written; {trust}")));
    }
    for (_, why) in &silent {
        context.ui.warn(format!("{why}; {trust}"));
    }
    Ok(Draft { silent, ..from_facts(args, &seen)? })
}

/// Why provisioning would refuse the guests' bridge that is drafted over the port by which the host was reached.
async fn no_bridge(host: &dyn crate::ssh::Remote, facts: &Facts) -> Option<String> {
    let address: IpAddr = host.name().parse().ok()?;
    let nic = facts.nic_with(address)?;
    match refused_draft(host, address, nic.mtu).await {
        Ok(refusal) => refusal.map(|refusal| refusal.to_string()),
        Err(failure) => Some(failure.to_string()),
    }
}

/// How a new host's key gets to where it is looked for.
fn login(args: &InitArgs) -> String {
    let known_hosts = args.known_hosts.as_ref().map(|file| format!("-o UserKnownHostsFile={} ", file.display()));
    format!("ssh {}ADDRESS", known_hosts.unwrap_or_default())
}

/// What was seen of a host that was reached by this address.
#[derive(Clone, Debug)]
struct Probed {
    address: IpAddr,
    facts: Facts,
    bmc: Option<OwnBmc>,
    no_bridge: Option<String>,
}

/// Just enough of an inventory to reach the hosts, each named by its address.
fn provisional(args: &InitArgs) -> Inventory {
    let any = |ip: &IpAddr| IpNet::new_assert(*ip, if ip.is_ipv4() { 32 } else { 128 });
    let cidr = args.probe.first().map_or_else(|| IpNet::new_assert([0, 0, 0, 0].into(), 0), any);
    let network = HostNetwork { cidr, mtu: 1500, link: LinkKind::Ethernet, ipoib: None, speed: None };
    let distinct: BTreeSet<IpAddr> = args.probe.iter().copied().collect();
    let host = |address: IpAddr| HostSpec {
        name: address.to_string(),
        address,
        storage_address: address,
        user: None,
        port: None,
        location: Location::default(),
        roles: vec![Role::Mon],
        osds: Vec::new(),
        bmc: None,
        uplinks: BTreeMap::new(),
        reserve: None,
    };
    Inventory {
        cluster: ClusterIdentity { name: "probe".to_owned(), fsid: Uuid::new_v4() },
        ssh: SshDefaults {
            user: args.user.clone(),
            identity: args.identity.clone(),
            known_hosts: args.known_hosts.clone(),
            ..SshDefaults::default()
        },
        networks: Networks {
            management: network.clone(),
            storage: network,
            migration: MigrationNetwork::Storage,
            guests: BTreeMap::new(),
        },
        ceph: CephSpec::default(),
        guests: GuestDefaults::default(),
        hosts: distinct.into_iter().map(host).collect(),
        backup: BackupSpec::default(),
        watch: WatchSpec::default(),
        base: PathBuf::from("."),
    }
}

/// Addresses of an interface, with their networks.
fn addresses(nic: &Nic) -> impl Iterator<Item = (IpAddr, IpNet)> {
    nic.addresses.iter().filter_map(|a| a.parse::<IpNet>().ok()).map(|net| (net.addr(), net.trunc()))
}

/// Those of them that an inventory may hold: they do not change by themselves.
fn lasting(nic: &Nic) -> impl Iterator<Item = (IpAddr, IpNet)> {
    nic.lasting().filter_map(|a| a.parse::<IpNet>().ok()).map(|net| (net.addr(), net.trunc()))
}

/// A network of a host: its address in it, and the interface.
fn member<'f>(facts: &'f Facts, network: &IpNet) -> Option<(IpAddr, &'f Nic)> {
    facts.nics.iter().find_map(|nic| lasting(nic).find(|(_, net)| net == network).map(|(address, _)| (address, nic)))
}

fn from_facts(args: &InitArgs, seen: &[Probed]) -> Result<Draft, Failure> {
    let management = match args.management {
        Some(network) => network.trunc(),
        None => own_network(seen)?,
    };
    let storage = args.storage.map(|n| n.trunc()).or_else(|| fastest(seen, &management)).unwrap_or(management);
    let mut hosts = Vec::new();
    for Probed { address, facts, bmc, .. } in seen {
        let Some((storage_address, _)) = member(facts, &storage) else {
            return Err(Failure::usage(format!(
                "host {} has no address in the storage network {storage}",
                facts.hostname
            ))
            .hint("give it one, or name another network with --storage"));
        };
        let short = facts.hostname.split('.').next().unwrap_or_default().to_lowercase();
        hosts.push(DraftHost {
            name: short,
            address: *address,
            storage_address: if storage == management { *address } else { storage_address },
            osds: facts.disks.iter().filter_map(osd).collect(),
            bmc: bmc.map(|bmc| DraftBmc { kind: bmc_kind(&bmc, facts), address: bmc.address }),
            about: Some(about(facts)),
            memory: Some(Size(facts.memory.total)),
        });
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Draft {
        name: args.name.clone().unwrap_or_else(|| "rack".to_owned()),
        fsid: Uuid::new_v4(),
        user: args.user.clone(),
        identity: args.identity.clone(),
        known_hosts: args.known_hosts.clone(),
        management: network(seen, management, None),
        storage: network(seen, storage, args.storage_mtu),
        guest_ranges: args.guest_ranges.clone(),
        gateway: args.gateway,
        no_bridge: seen.iter().find_map(|p| Some(format!("host {}: {}", p.facts.hostname, p.no_bridge.as_ref()?))),
        hosts,
        silent: Vec::new(),
    })
}

/// How a BMC is spoken to: over Redfish where it speaks that; every iDRAC since the R620's does.
fn bmc_kind(bmc: &OwnBmc, facts: &Facts) -> BmcKind {
    let likely = facts.machine.vendor.starts_with("Dell");
    if bmc.redfish.unwrap_or(likely) { BmcKind::Redfish } else { BmcKind::Ipmi }
}

/// The one network that the addresses they were reached by are in.
fn own_network(seen: &[Probed]) -> Result<IpNet, Failure> {
    let mut networks = BTreeSet::new();
    for Probed { address, facts, .. } in seen {
        let own = facts.nics.iter().flat_map(addresses).find(|(own, _)| own == address);
        let (_, network) = own.ok_or_else(|| {
            Failure::usage(format!("{address} is on no interface of host {}", facts.hostname))
                .hint("name the network with --management, and give addresses that the hosts themselves have")
        })?;
        networks.insert(network);
    }
    match networks.iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok(**one),
        many => {
            let names: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(Failure::usage(format!("the hosts are in different networks: {}", names.join(", ")))
                .hint("one rack has one management network"))
        }
    }
}

/// The fastest network beside the management network that every host is in.
fn fastest(seen: &[Probed], management: &IpNet) -> Option<IpNet> {
    let first = &seen.first()?.facts;
    // Another network on the same port is not another wire.
    let beside = |nic: &&Nic| !addresses(nic).any(|(_, net)| net == *management);
    let candidates: BTreeSet<IpNet> = first.nics.iter().filter(beside).flat_map(lasting).map(|(_, net)| net).collect();
    let common = candidates.into_iter().filter(|net| {
        let apart = !net.contains(management) && !management.contains(net) && !net.addr().is_loopback();
        // What has the same address on every host is a bridge of each host's own, as libvirt's and Docker's.
        let own: BTreeSet<IpAddr> = seen.iter().filter_map(|p| member(&p.facts, net)).map(|(own, _)| own).collect();
        apart && net.prefix_len() < net.max_prefix_len() && own.len() == seen.len()
    });
    common.max_by_key(|net| {
        let infiniband = member(first, net).is_some_and(|(_, nic)| nic.kind == "infiniband");
        (infiniband, speed(seen, net), net.addr().is_ipv4())
    })
}

/// The speed that every host's port has.
fn speed(seen: &[Probed], network: &IpNet) -> Option<u64> {
    let of = |facts: &Facts| {
        let (_, nic) = member(facts, network)?;
        let port = facts.infiniband.iter().find(|p| p.nics.contains(&nic.name)).map(|p| p.speed);
        nic.speed.or(port)
    };
    seen.iter().map(|p| of(&p.facts)).min().flatten().filter(|s| *s > 0)
}

/// A network as the hosts have it.
fn network(seen: &[Probed], cidr: IpNet, mtu: Option<u32>) -> DraftNetwork {
    let nics: Vec<&Nic> = seen.iter().filter_map(|p| member(&p.facts, &cidr)).map(|(_, nic)| nic).collect();
    let mtu = mtu.or_else(|| nics.iter().map(|nic| nic.mtu).min()).filter(|mtu| *mtu != 1500);
    let infiniband = !nics.is_empty() && nics.iter().all(|nic| nic.kind == "infiniband");
    let connected = mtu.is_some_and(|mtu| mtu > IpoibMode::Datagram.max_mtu());
    let mode = if connected { IpoibMode::Connected } else { IpoibMode::Datagram };
    DraftNetwork { cidr, mtu, ipoib: infiniband.then_some(mode), speed: speed(seen, &cidr).map(LinkSpeed) }
}

/// The stable name of a disk that can become an OSD: nothing is on it.
fn osd(disk: &Disk) -> Option<PathBuf> {
    let fit =
        disk.is_empty() && disk.osd.is_none() && !disk.read_only && disk.size >= MIN_DISK && disk.transport != "usb";
    fit.then(|| disk.stable_name().map(PathBuf::from)).flatten()
}

fn about(facts: &Facts) -> String {
    let machine = &facts.machine;
    let cpu = format!("{} x {} ({} threads)", facts.cpu.sockets, facts.cpu.model, facts.cpu.threads);
    let memory = format!("{} GiB", facts.memory.total >> 30);
    let tag = if machine.serial.is_empty() { String::new() } else { format!(", {}", machine.serial) };
    let model = format!("{} {}{tag}", machine.vendor, machine.model);
    let parts = [model.trim().to_owned(), cpu, memory, facts.os.name.clone()];
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Cpu, IbPort, Machine, Memory};
    use crate::inventory::parse;

    fn disk(id: &str, content: &[&str]) -> Disk {
        Disk {
            path: "/dev/sdx".to_owned(),
            ids: vec![
                format!("/dev/disk/by-path/pci-{id}"),
                format!("/dev/disk/by-id/scsi-{id}"),
                format!("/dev/disk/by-id/wwn-{id}"),
            ],
            size: 4 << 40,
            content: content.iter().map(|c| (*c).to_owned()).collect(),
            ..Disk::default()
        }
    }

    fn nic(name: &str, kind: &str, address: &str, mtu: u32, speed: Option<u64>) -> Nic {
        Nic {
            name: name.to_owned(),
            kind: kind.to_owned(),
            addresses: vec![address.to_owned()],
            mtu,
            speed,
            ..Nic::default()
        }
    }

    fn host(n: u8) -> Probed {
        let facts = Facts {
            hostname: format!("H{n}.example.org"),
            machine: Machine {
                vendor: "Dell Inc.".into(),
                model: "PowerEdge R720xd".into(),
                serial: format!("TAG{n}"),
                ..Machine::default()
            },
            cpu: Cpu { model: "Xeon E5-2670".into(), sockets: 2, cores: 16, threads: 32 },
            memory: Memory { total: 256 << 30, ..Memory::default() },
            nics: vec![
                nic("lo", "loopback", "127.0.0.1/8", 65536, None),
                nic("eno1", "ethernet", &format!("10.0.0.{n}/24"), 1500, Some(10_000)),
                nic("eno2", "ethernet", &format!("10.2.0.{n}/24"), 9000, Some(1000)),
                nic("ib0", "infiniband", &format!("10.1.0.{n}/24"), 65520, None),
            ],
            infiniband: vec![IbPort { nics: vec!["ib0".to_owned()], speed: 56_000, ..IbPort::default() }],
            disks: vec![
                disk(&format!("boot{n}"), &["sdx1: ext4"]),
                disk(&format!("a{n}"), &[]),
                disk(&format!("b{n}"), &[]),
            ],
            ..Facts::default()
        };
        Probed { address: [10, 0, 0, n].into(), facts, bmc: None, no_bridge: None }
    }

    #[test]
    fn hosts_become_an_inventory() {
        let facts: Vec<_> = (1..=3).map(host).collect();
        let draft = from_facts(&InitArgs::default(), &facts).unwrap();
        let inventory = parse("f.yaml", &draft.to_yaml()).map_err(|m| m.to_string()).unwrap();
        assert_eq!(inventory.networks.management.speed, Some(LinkSpeed(10_000)));
        assert_eq!(inventory.networks.storage.cidr.to_string(), "10.1.0.0/24");
        assert_eq!(inventory.networks.storage.ipoib, Some(IpoibMode::Connected));
        assert_eq!(inventory.networks.storage.speed, Some(LinkSpeed(56_000)));
        assert_eq!(inventory.guests.host_reserve, Size::gib(12));
        let first = &inventory.hosts[0];
        assert_eq!((first.name.as_str(), first.storage_address), ("h1", [10, 1, 0, 1].into()));
        assert_eq!(first.osds, [PathBuf::from("/dev/disk/by-id/wwn-a1"), "/dev/disk/by-id/wwn-b1".into()]);
        assert!(draft.to_yaml().contains("# Dell Inc. PowerEdge R720xd, TAG1; 2 x Xeon E5-2670 (32 threads); 256 GiB"));
    }

    /// One port with SLAAC: the stable and the temporary address of an announced prefix come and go.
    #[test]
    fn an_announced_prefix_is_no_storage_network() {
        let mut seen: Vec<_> = (1..=3).map(host).collect();
        for (n, probed) in (1..).zip(&mut seen) {
            let (own, temporary) = (format!("2001:db8::{n}/64"), format!("2001:db8::{n}:77/64"));
            let mut one = nic("eno1", "ethernet", &format!("10.0.0.{n}/24"), 1500, Some(10_000));
            one.addresses.extend([own.clone(), temporary.clone()]);
            one.dynamic = vec![own, temporary.clone()];
            one.temporary = vec![temporary];
            probed.facts.nics = vec![one.clone()];
        }
        let draft = from_facts(&InitArgs::default(), &seen).unwrap();
        assert_eq!(draft.storage.cidr, draft.management.cidr);
        // On a port of its own it would still go away by itself; a second network on the same port is no other wire.
        for (n, probed) in (1..).zip(&mut seen) {
            let mut own = nic("eno2", "ethernet", &format!("2001:db8:1::{n}/64"), 1500, Some(25_000));
            own.dynamic = own.addresses.clone();
            probed.facts.nics.push(own);
            probed.facts.nics[0].addresses.push(format!("10.9.0.{n}/24"));
        }
        let draft = from_facts(&InitArgs::default(), &seen).unwrap();
        assert_eq!(draft.storage.cidr, draft.management.cidr);
    }

    #[test]
    fn a_silent_host_stands_in_the_inventory_as_a_comment() {
        let seen: Vec<_> = (1..=3).map(host).collect();
        let silent = vec![([10, 0, 0, 9].into(), "host 10.0.0.9: cannot connect:\nno route".to_owned())];
        let text = Draft { silent, ..from_facts(&InitArgs::default(), &seen).unwrap() }.to_yaml();
        assert!(
            text.contains("  # 10.0.0.9 could not be looked at: host 10.0.0.9: cannot connect: no route\n"),
            "{text}"
        );
        let inventory = parse("f.yaml", &text).map_err(|m| m.to_string()).unwrap();
        assert_eq!(inventory.hosts.len(), 3);
    }

    #[test]
    fn a_bmc_that_a_host_has_is_in_its_inventory() {
        let mut seen: Vec<_> = (1..=3).map(host).collect();
        let own = |n, redfish| Some(OwnBmc { address: [10, 3, 0, n].into(), redfish });
        (seen[0].bmc, seen[1].bmc) = (own(1, None), own(2, Some(false)));
        let text = from_facts(&InitArgs::default(), &seen).unwrap().to_yaml();
        let inventory = parse("f.yaml", &text).map_err(|m| m.to_string()).unwrap();
        let kinds: Vec<_> = inventory.hosts.iter().map(|h| h.bmc.as_ref().map(|b| b.kind)).collect();
        assert_eq!(kinds, [Some(BmcKind::Redfish), Some(BmcKind::Ipmi), None]);
        // One BMC behind two hosts would be found as well.
        seen[1].bmc = seen[0].bmc;
        let text = from_facts(&InitArgs::default(), &seen).unwrap().to_yaml();
        assert!(parse("f.yaml", &text).unwrap_err().to_string().contains("its BMC 10.3.0.1 is that of host h1"));
    }

    #[test]
    fn a_new_host_is_trusted_where_its_key_is_looked_for() {
        let mut args = InitArgs::default();
        assert_eq!(login(&args), "ssh ADDRESS");
        args.known_hosts = Some("rack/known_hosts".into());
        assert_eq!(login(&args), "ssh -o UserKnownHostsFile=rack/known_hosts ADDRESS");
    }

    #[test]
    fn hosts_that_do_not_fit_together_are_refused() {
        let mut facts: Vec<_> = (1..=3).map(host).collect();
        facts[2].facts.nics[1].addresses = vec!["10.9.0.3/24".to_owned()];
        facts[2].address = [10, 9, 0, 3].into();
        assert!(from_facts(&InitArgs::default(), &facts).unwrap_err().to_string().contains("different networks"));
        facts[2].address = [192, 0, 2, 1].into();
        assert!(from_facts(&InitArgs::default(), &facts).unwrap_err().to_string().contains("no interface"));
    }

    #[test]
    fn a_network_that_provision_would_refuse_is_not_drafted() {
        let mut seen: Vec<_> = (1..=3).map(host).collect();
        let guest_ranges = vec!["10.0.0.100-10.0.0.120".parse().unwrap()];
        let args = InitArgs { guest_ranges, ..InitArgs::default() };
        let guests = |seen: &[Probed]| {
            let text = from_facts(&args, seen).unwrap().to_yaml();
            parse("f.yaml", &text).map_err(|m| m.to_string()).unwrap().networks.guests.len()
        };
        assert_eq!(guests(&seen), 1);
        seen[1].no_bridge = Some("uplink bond0 is a bond".to_owned());
        assert_eq!(guests(&seen), 0);
    }

    #[test]
    fn one_network_is_enough() {
        let mut facts: Vec<_> = (1..=3).map(host).collect();
        for host in &mut facts {
            host.facts.nics.truncate(2);
            host.facts.nics.push(nic("virbr0", "bridge", "192.168.122.1/24", 1500, None));
        }
        let draft = from_facts(&InitArgs::default(), &facts).unwrap();
        assert_eq!(draft.storage.cidr, draft.management.cidr);
        assert!(parse("f.yaml", &draft.to_yaml()).is_ok());
    }
}
