//! What a bridge is made of, in the words that both backends and the judge share.

use crate::playbook::resource::Bridge;
use crate::playbook::state::State;
use serde_json::Value;
use std::collections::BTreeMap;

/// How a host is to be changed for a bridge.
#[derive(Debug, Default)]
pub(super) struct Edit {
    /// The files in `/etc` afterwards, by path.
    pub files: BTreeMap<String, String>,
    /// Makes the bridge until the next reboot; `$1` says whether it was there before.
    pub make: String,
    /// Takes that back; `$1` as above.
    pub revert: String,
    /// What else has to be done once it is confirmed.
    pub settle: String,
}

/// A link of the host, as `ip -j -d addr show` tells it.
pub(super) fn link<'a>(state: &'a State, name: &str) -> Option<&'a Value> {
    state.links.iter().find(|l| l["ifname"] == name)
}

/// The port that becomes part of the bridge.
pub(super) fn port(bridge: &Bridge) -> String {
    bridge.vlan.map_or_else(|| bridge.uplink.clone(), |vlan| format!("{}.{vlan}", bridge.uplink))
}

/// The links that are made: the bridge, and the tagged port where it has one.
fn made(bridge: &Bridge) -> Vec<String> {
    let mut links = vec![bridge.name.clone()];
    links.extend(bridge.vlan.map(|_| port(bridge)));
    links
}

/// Addresses of a link that are not link-local.
pub(super) fn addresses(state: &State, name: &str) -> Vec<String> {
    let all = link(state, name).and_then(|l| l["addr_info"].as_array()).into_iter().flatten();
    let global = all.filter(|a| a["scope"] == "global" && a["dynamic"] != true);
    global.map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"])).collect()
}

/// The file of systemd-networkd that gives the bridge its addresses.
pub(super) fn address_file(bridge: &Bridge) -> String {
    format!("/etc/systemd/network/05-rackhand-{}.network", bridge.name)
}

/// Files that make udev leave the names of these links alone, by name under `/etc/systemd/network`.
///
/// The links have the port's hardware address. A rule that names the port by it (as many hosts have one) fits them
/// too: the rename fails, and systemd-networkd waits for ever for a link that udev has not finished; or it succeeds
/// when the host boots, because the port is late.
pub(super) fn link_files(bridge: &Bridge) -> impl Iterator<Item = (String, String)> {
    made(bridge).into_iter().map(|link| {
        let text = format!(
            "# Written by rackhand.\n# Not to be named like its port, whose hardware address it has.\n\
             [Match]\nOriginalName={link}\n\n[Link]\n"
        );
        (format!("05-rackhand-{link}.link"), text)
    })
}
