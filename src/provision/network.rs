//! The guests' bridges of a host, and the networks in which they must not be made.

use super::platform::{self, HostPlatform};
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::playbook::{self, Bridge, Refusal, Resource};
use crate::ssh::Remote;
use std::net::IpAddr;

/// The bridges of a host.
///
/// # Errors
/// When a guests' network has no uplink there (exit 2).
pub(super) fn bridges(inventory: &Inventory, host: &HostSpec, platform: &HostPlatform) -> Result<Vec<Bridge>, Failure> {
    if !host.has(Role::Guests) {
        return Ok(Vec::new());
    }
    let mut bridges = Vec::new();
    for (name, network) in &inventory.networks.guests {
        let said = host.uplinks.get(name).or(network.uplink.as_ref());
        let Some(uplink) = said.or_else(|| platform.ports.get(&host.address)) else {
            let message = format!("host {}: network {name} has no uplink, and no port has {}", host.name, host.address);
            return Err(Failure::usage(message)
                .hint(format!("name the port under networks.guests.{name}.uplink or the host's uplinks")));
        };
        bridges.push(Bridge {
            name: network.bridge.clone(),
            uplink: uplink.clone(),
            vlan: network.vlan,
            mtu: network.mtu,
        });
    }
    Ok(bridges)
}

/// A bridge that takes over the port of the host's own networks must carry their MTU: the lower one would win.
pub(super) fn too_low(
    inventory: &Inventory,
    host: &HostSpec,
    platform: &HostPlatform,
    bridge: &Bridge,
) -> Option<Refusal> {
    let networks = &inventory.networks;
    let own = [
        ("storage", host.storage_address, networks.storage.mtu),
        ("management", host.address, networks.management.mtu),
    ];
    let shared = own.iter().filter(|(_, address, _)| platform.ports.get(address) == Some(&bridge.uplink));
    let (name, _, mtu) = shared.filter(|(_, _, mtu)| *mtu > bridge.mtu).max_by_key(|(_, _, mtu)| *mtu)?;
    if bridge.vlan.is_some() {
        return None;
    }
    Some(Refusal {
        what: format!(
            "its uplink {} carries the {name} network, whose MTU of {mtu} would sink to {}",
            bridge.uplink, bridge.mtu
        ),
        fix: format!("write `mtu: {mtu}` for its network under networks.guests, or name another port as its `uplink`"),
    })
}

/// The bridges that must not be made on a host, with the reasons: what provisioning would refuse. Changes nothing.
///
/// # Errors
/// When the host cannot be looked at, or a network has no uplink there.
pub async fn refused_bridges(
    inventory: &Inventory,
    host: &HostSpec,
    remote: &dyn Remote,
) -> Result<Vec<(Bridge, Refusal)>, Failure> {
    if !host.has(Role::Guests) || inventory.networks.guests.is_empty() {
        return Ok(Vec::new());
    }
    let platform = platform::probe_platform(remote).await?;
    let bridges = bridges(inventory, host, &platform)?;
    let low: Vec<_> = bridges.iter().map(|bridge| too_low(inventory, host, &platform, bridge)).collect();
    let found = judge(remote, bridges).await?;
    Ok(found.into_iter().zip(low).filter_map(|((bridge, found), low)| Some((bridge, low.or(found)?))).collect())
}

/// Why the guests' bridge of a new inventory must not be made over the port behind an address of a host, if so.
///
/// # Errors
/// When the host cannot be looked at.
pub async fn refused_draft(remote: &dyn Remote, address: IpAddr, mtu: u32) -> Result<Option<Refusal>, Failure> {
    let platform = platform::probe_platform(remote).await?;
    let Some(uplink) = platform.ports.get(&address).cloned() else { return Ok(None) };
    let bridge = Bridge { name: "br-lan".to_owned(), uplink, vlan: None, mtu };
    Ok(judge(remote, vec![bridge]).await?.into_iter().find_map(|(_, refusal)| refusal))
}

async fn judge(remote: &dyn Remote, bridges: Vec<Bridge>) -> Result<Vec<(Bridge, Option<Refusal>)>, Failure> {
    let resources: Vec<Resource> = bridges.iter().cloned().map(Resource::Bridge).collect();
    let state = playbook::probe_resources(remote, &resources.iter().collect::<Vec<_>>()).await?;
    let judged = |bridge: Bridge| {
        let refusal = playbook::refusal(&bridge, &state);
        (bridge, refusal)
    };
    Ok(bridges.into_iter().map(judged).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(guests: &str, storage: &str) -> Inventory {
        let text = include_str!("../../inventory.example.yaml");
        let mut inventory = crate::inventory::parse("example", text).unwrap();
        inventory.networks.storage.mtu = storage.parse().unwrap();
        for network in inventory.networks.guests.values_mut() {
            network.mtu = guests.parse().unwrap();
        }
        inventory
    }

    #[test]
    fn a_bridge_over_the_storage_port_keeps_the_storage_networks_mtu() {
        let judged = |inventory: &Inventory, vlan: Option<u16>, ports: &[&str]| {
            let host = &inventory.hosts[0];
            let addresses = [host.storage_address, host.address];
            let ports = addresses.into_iter().zip(ports.iter().map(|p| (*p).to_owned())).collect();
            let bridge = Bridge {
                name: "br-lan".into(),
                uplink: "eno1".into(),
                vlan,
                mtu: inventory.networks.guests["lan"].mtu,
            };
            too_low(inventory, host, &HostPlatform { ports, ..HostPlatform::default() }, &bridge).map(|r| r.to_string())
        };
        let both = ["eno1", "eno1"];
        let said = judged(&inventory("1500", "9000"), None, &both).unwrap();
        assert!(said.contains("eno1 carries the storage network, whose MTU of 9000 would sink to 1500"), "{said}");
        assert!(said.contains("write `mtu: 9000`"), "{said}");
        assert_eq!(judged(&inventory("9000", "9000"), None, &both), None);
        assert_eq!(judged(&inventory("1500", "9000"), Some(4), &both), None, "a tag leaves the port alone");
        assert_eq!(judged(&inventory("1500", "9000"), None, &["eno2", "eno1"]), None, "another port");
    }
}
