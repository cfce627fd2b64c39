//! What a host is, as far as provisioning depends on it: a view of its facts.

use crate::error::Failure;
use crate::host::{self, Facts, Nic, Section};
use crate::ssh::{Exec, Remote};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostPlatform {
    /// `ID` of os-release: `debian`.
    pub os: String,
    /// `VERSION_ID` of os-release: `12`.
    pub version: String,
    /// `systemd-detect-virt --container`, empty on a machine.
    pub container: String,
    /// What configures the network.
    pub network: String,
    /// Whether the host's repositories have ceph-volume as a package of its own, as those of newer releases do.
    pub ceph_volume: bool,
    /// Whether there is a hardware watchdog.
    pub watchdog: bool,
    /// The port that each of its addresses is behind: where a bridge has the address, the one whose hardware address the
    /// bridge has, as ours do.
    pub ports: BTreeMap<IpAddr, String>,
    /// Units of ours that still run, left by a run that was killed. A network edit that waits to be taken back is none of
    /// them: what is on disk may have drifted, and would cut the host off. This run edits anew and stops that timer.
    pub jobs: Vec<String>,
}

impl HostPlatform {
    /// Whether the host is a container.
    pub fn is_container(&self) -> bool {
        !self.container.is_empty()
    }
}

/// What of a host provisioning depends on.
const SECTIONS: [Section; 4] = [Section::Files, Section::Net, Section::Platform, Section::Units];
/// Succeeds where the repositories have ceph-volume as a package of its own.
const OFFERS: &str = "apt-cache policy ceph-volume 2>/dev/null | grep -q '^  Candidate: [0-9]'\n";
/// How long a host may take; nothing here waits for a disk.
const DEADLINE: Duration = Duration::from_secs(30);

/// Looks at a host.
///
/// # Errors
/// When it cannot be reached.
pub async fn probe_platform(remote: &dyn Remote) -> Result<HostPlatform, Failure> {
    let looked = host::look(remote, &SECTIONS, DEADLINE);
    let (facts, offers) = tokio::try_join!(looked, remote.run(Exec::script(OFFERS, Vec::<String>::new())))?;
    Ok(HostPlatform { ceph_volume: offers.status == 0, ..of(&facts) })
}

fn of(facts: &Facts) -> HostPlatform {
    let platform = facts.platform.clone().unwrap_or_default();
    let jobs = facts.units.iter().filter(|unit| unit.name.starts_with("rackhand-"));
    let run = |unit: &&host::Unit| matches!(unit.state.as_str(), "active" | "activating");
    HostPlatform {
        os: facts.os.id.clone(),
        version: facts.os.version.clone(),
        container: platform.container,
        network: platform.network,
        watchdog: platform.watchdog,
        ceph_volume: false,
        ports: facts.nics.iter().flat_map(|nic| ports(facts, nic)).collect(),
        jobs: jobs.filter(run).map(|unit| unit.name.clone()).collect(),
    }
}

/// The port behind each address of an interface.
fn ports(facts: &Facts, nic: &Nic) -> Vec<(IpAddr, String)> {
    let below = facts.nics.iter().find(|port| port.master.as_ref() == Some(&nic.name) && port.mac == nic.mac);
    let port = &below.unwrap_or(nic).name;
    let addresses = nic.addresses.iter().filter_map(|address| address.split('/').next()?.parse().ok());
    addresses.map(|address| (address, port.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Platform, Unit};

    #[test]
    fn a_bridges_address_is_behind_the_port_that_has_its_hardware_address() {
        let nic = |name: &str, mac: &str, master: Option<&str>, addresses: &[&str]| Nic {
            name: name.to_owned(),
            mac: mac.to_owned(),
            master: master.map(str::to_owned),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            ..Nic::default()
        };
        let unit = |name: &str, state: &str| Unit { name: name.to_owned(), state: state.to_owned() };
        let mut facts = Facts {
            nics: vec![
                nic("br-lan", "02:01", None, &["10.0.0.11/24", "fd00::11/64"]),
                nic("vnet0", "02:00", Some("br-lan"), &[]),
                nic("eno1", "02:01", Some("br-lan"), &[]),
                nic("eno2", "02:02", None, &["10.1.0.11/24"]),
            ],
            platform: Some(Platform {
                container: "systemd-nspawn".into(),
                network: "networkd".into(),
                watchdog: false,
            }),
            units: vec![
                unit("rackhand-packages.service", "active"),
                unit("rackhand-old.service", "inactive"),
                unit("libvirtd.service", "active"),
            ],
            ..Facts::default()
        };
        (facts.os.id, facts.os.version) = ("debian".into(), "12".into());
        let platform = of(&facts);
        assert_eq!(
            (platform.os.as_str(), platform.version.as_str(), platform.network.as_str()),
            ("debian", "12", "networkd")
        );
        assert!(platform.is_container() && !platform.watchdog);
        assert_eq!(platform.ports[&IpAddr::from([10, 0, 0, 11])], "eno1");
        assert_eq!(platform.ports[&"fd00::11".parse::<IpAddr>().unwrap()], "eno1");
        assert_eq!(platform.ports[&IpAddr::from([10, 1, 0, 11])], "eno2");
        assert_eq!(platform.jobs, ["rackhand-packages.service"]);
    }
}
