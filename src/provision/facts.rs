//! What a playbook's templates know about a host.

use super::network;
use super::packages::packages;
use super::platform::HostPlatform;
use crate::error::Failure;
use crate::host::family;
use crate::inventory::{HostSpec, Inventory, MigrationNetwork, Role};
use crate::playbook::Bridge;
use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use uuid::Uuid;

/// Port of libvirt over TLS.
const LIBVIRT_TLS: u16 = 16514;

/// What templates see.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    /// The whole inventory.
    inventory: &'a Inventory,
    /// The host itself, as in the inventory.
    host: &'a HostSpec,
    /// What the host is.
    platform: &'a HostPlatform,
    /// `debian` or `redhat`.
    family: &'static str,
    /// What it needs installed.
    packages: Vec<String>,
    /// Bridges of the guests' networks.
    bridges: Vec<Bridge>,
    /// Stable id of the host for libvirt.
    host_uuid: Uuid,
    /// Its address on the network that carries migrations.
    migration_address: IpAddr,
    /// Where its libvirt listens for the others: address and port.
    libvirt_listen: SocketAddr,
}

/// The facts of a host.
///
/// # Errors
/// When its distribution is not supported, or a guests' network has no uplink there (exit 5 and 2).
pub fn facts(inventory: &Inventory, host: &HostSpec, platform: &HostPlatform) -> Result<Value, Failure> {
    let refuse = |reason: String| Failure::refused(format!("host {}: {reason}", host.name));
    let bridges = network::bridges(inventory, host, platform)?;
    if let Some((bridge, why)) = bridges.iter().find_map(|b| Some((b, network::too_low(inventory, host, platform, b)?)))
    {
        return Err(refuse(format!("bridge {}: {why}", bridge.name)));
    }
    let mut packages = packages(&platform.os, &platform.version, host, platform.is_container()).map_err(refuse)?;
    if platform.ceph_volume && host.has(Role::Osd) && !packages.iter().any(|p| p == "ceph-volume") {
        packages.push("ceph-volume".to_owned());
    }
    let facts = Facts {
        inventory,
        host,
        platform,
        family: family(&platform.os, &platform.version).map_err(refuse)?.name(),
        packages,
        bridges,
        host_uuid: host_uuid(inventory, host),
        migration_address: match inventory.networks.migration {
            MigrationNetwork::Storage => host.storage_address,
            MigrationNetwork::Management => host.address,
        },
        libvirt_listen: SocketAddr::new(host.storage_address, LIBVIRT_TLS),
    };
    Ok(Value::from(Serde(&facts)))
}

/// The id libvirt knows a host by.
fn host_uuid(inventory: &Inventory, host: &HostSpec) -> Uuid {
    Uuid::new_v5(&inventory.cluster.fsid, format!("host {}", host.name).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::{Library, Playbook, Resource};

    fn books(os: &str, version: &str, container: &str) -> Vec<Playbook> {
        let inventory = crate::inventory::parse("example", include_str!("../../inventory.example.yaml")).unwrap();
        let platform = HostPlatform {
            os: os.to_owned(),
            version: version.to_owned(),
            container: container.to_owned(),
            network: "networkd".to_owned(),
            watchdog: true,
            ..HostPlatform::default()
        };
        let facts = facts(&inventory, &inventory.hosts[0], &platform).unwrap();
        let library = Library::new(None);
        ["os", "network", "packages", "time", "libvirt"].map(|name| library.book(name, &facts).unwrap()).into()
    }

    #[test]
    fn every_playbook_can_be_read_on_every_distribution() {
        for (os, version) in [
            ("debian", "12"),
            ("debian", "13"),
            ("ubuntu", "22.04"),
            ("ubuntu", "24.04"),
            ("rocky", "9.4"),
            ("rhel", "10"),
        ] {
            for container in ["", "systemd-nspawn"] {
                for book in books(os, version, container) {
                    assert!(!book.description.is_empty(), "{os} {version}");
                }
            }
        }
    }

    #[test]
    fn a_network_without_an_uplink_is_over_the_management_nic() {
        let text = include_str!("../../inventory.example.yaml").replace("      uplink: eno2 ", "      # uplink: eno2 ");
        let inventory = crate::inventory::parse("example", &text).unwrap();
        let over = |host: usize, platform: &HostPlatform| {
            let bridges = network::bridges(&inventory, &inventory.hosts[host], platform);
            bridges.map(|bridges| bridges.into_iter().map(|bridge| bridge.uplink).collect::<Vec<_>>())
        };
        let mut platform = HostPlatform::default();
        assert_eq!(over(0, &platform).unwrap_err().kind, crate::error::Kind::Usage);
        platform.ports.insert(inventory.hosts[0].address, "eno9".to_owned());
        assert_eq!(over(0, &platform).unwrap(), ["eno9", "eno9"]);
        assert_eq!(over(4, &platform).unwrap(), ["eno4", "eno4"], "what its host says goes first");
    }

    #[test]
    fn the_scripts_of_the_playbooks_are_scripts() {
        for container in ["", "systemd-nspawn"] {
            for resource in books("debian", "12", container).into_iter().flat_map(|book| book.resources) {
                let Resource::Command(command) = resource else { continue };
                for script in [&command.probe, &command.apply] {
                    let read = std::process::Command::new("bash").args(["-n", "-c", script]).status().unwrap();
                    assert!(read.success(), "{}: {script}", command.name);
                }
            }
        }
    }

    #[test]
    fn a_debian_12_with_a_newer_ceph_gets_ceph_volume() {
        let inventory = crate::inventory::parse("example", include_str!("../../inventory.example.yaml")).unwrap();
        let packages = |ceph_volume| {
            let platform = HostPlatform {
                os: "debian".to_owned(),
                version: "12".to_owned(),
                ceph_volume,
                ..HostPlatform::default()
            };
            let facts = facts(&inventory, &inventory.hosts[0], &platform).unwrap();
            format!("{:?}", Library::new(None).book("packages", &facts).unwrap())
        };
        assert!(packages(true).contains("ceph-volume") && !packages(false).contains("ceph-volume"));
    }

    #[test]
    fn an_ipv6_storage_network_is_listened_on_in_brackets() {
        let mut inventory = crate::inventory::parse("example", include_str!("../../inventory.example.yaml")).unwrap();
        inventory.hosts[0].storage_address = "fd00:8::11".parse().unwrap();
        let platform = HostPlatform { os: "debian".to_owned(), version: "12".to_owned(), ..HostPlatform::default() };
        let facts = facts(&inventory, &inventory.hosts[0], &platform).unwrap();
        let book = Library::new(None).book("libvirt", &facts).unwrap();
        let all = format!("{book:?}");
        assert!(all.contains("ListenStream=[fd00:8::11]:16514"), "{all}");
    }

    #[test]
    fn a_host_that_goes_down_shuts_its_guests_down_and_starts_none() {
        for (os, version, file) in
            [("debian", "12", "/etc/default/libvirt-guests"), ("rocky", "9.4", "/etc/sysconfig/libvirt-guests")]
        {
            let libvirt = books(os, version, "").pop().unwrap();
            let position = |what: &dyn Fn(&Resource) -> bool| libvirt.resources.iter().position(what).unwrap();
            let said = position(&|r| {
                matches!(r, Resource::Block(b) if b.path == file
                && ["ON_BOOT=ignore", "ON_SHUTDOWN=shutdown"].iter().all(|w| b.content.as_deref().unwrap().contains(w)))
            });
            let runs = position(&|r| {
                matches!(r, Resource::Service(s) if s.unit == "libvirt-guests.service"
                && !s.masked && s.running == Some(true) && s.restart_on.is_empty())
            });
            let order = position(&|r| matches!(r, Resource::File(f) if f.path.contains("libvirt-guests.service.d/")));
            assert!(said < runs && order < runs, "it is told before it runs: by default it would start guests");
        }
    }

    #[test]
    fn osds_stop_before_the_monitor_of_their_host() {
        let order = |book: &Playbook| {
            let files = book.resources.iter().filter_map(|r| if let Resource::File(f) = r { Some(f) } else { None });
            let mut files = files.filter(|f| f.path == "/etc/systemd/system/ceph-osd@.service.d/rackhand-order.conf");
            files.next().and_then(|f| f.content.clone())
        };
        let inventory = crate::inventory::parse("example", include_str!("../../inventory.example.yaml")).unwrap();
        let host = &inventory.hosts[0];
        assert!(host.has(Role::Osd) && host.has(Role::Mon));
        let os = books("debian", "12", "").remove(0);
        assert_eq!(order(&os), Some(format!("[Unit]\nAfter=ceph-mon@{}.service\n", host.name)));
    }

    #[test]
    fn a_host_more_changes_nothing_on_the_others_but_what_they_must_know() {
        let more = crate::inventory::parse("example", include_str!("../../inventory.example.yaml")).unwrap();
        let mut less = more.clone();
        let new = less.hosts.pop().unwrap();
        let platform = HostPlatform { os: "debian".to_owned(), version: "12".to_owned(), ..HostPlatform::default() };
        for host in &less.hosts {
            let resources = |inventory: &Inventory| -> Vec<Resource> {
                let facts = facts(inventory, host, &platform).unwrap();
                let books = ["os", "network", "packages", "time", "libvirt"];
                let books = books.map(|name| Library::new(None).book(name, &facts).unwrap());
                books.into_iter().flat_map(|book| book.resources).collect()
            };
            let before = resources(&less);
            let changed: Vec<Resource> = resources(&more).into_iter().filter(|r| !before.contains(r)).collect();
            let objects: Vec<String> = changed.iter().map(Resource::object).collect();
            let known = [
                "block rackhand in /etc/hosts",
                "file /etc/chrony/conf.d/rackhand.conf",
                "block rackhand in /etc/libvirt/libvirtd.conf",
            ];
            assert_eq!(objects, known, "{}", host.name);
            for resource in changed {
                let text = format!("{resource:?}");
                assert!(text.contains(&new.name) || text.contains(&new.address.to_string()), "{text}");
            }
        }
    }

    #[test]
    fn one_libvirt_daemon_runs_on_both_families() {
        let masked = |os, version| {
            let libvirt = books(os, version, "").pop().unwrap();
            let units: Vec<String> = libvirt
                .resources
                .iter()
                .filter_map(|r| match r {
                    Resource::Service(s) if s.masked => Some(s.unit.clone()),
                    _ => None,
                })
                .collect();
            units
        };
        assert!(masked("debian", "12").is_empty());
        let redhat = masked("rocky", "9.4");
        for unit in ["virtqemud.socket", "virtproxyd-tls.socket", "virtsecretd-ro.socket", "virtstoraged.service"] {
            assert!(redhat.iter().any(|u| u == unit), "{unit}");
        }
    }
}
