//! Network interfaces, from `ip -j -d addr` and /sys.

use super::facts::{IbPort, Nic};
use super::sections::{Files, Sections, all, first, lines};
use serde::Deserialize;

#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    link_type: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    master: Option<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Default, Deserialize)]
struct LinkInfo {
    #[serde(default)]
    info_kind: Option<String>,
}

/// Old versions of ip put empty objects into the list.
#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    local: String,
    #[serde(default)]
    prefixlen: u8,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    dynamic: bool,
    #[serde(default)]
    temporary: bool,
}

impl Address {
    fn text(&self) -> String {
        format!("{}/{}", self.local, self.prefixlen)
    }
}

pub(super) fn nics(sections: &Sections<'_>, files: &Files<'_>, ports: &[IbPort]) -> Vec<Nic> {
    let json = lines(sections, "net").concat();
    let found: Vec<Link> = serde_json::from_str(&json).unwrap_or_default();
    let links = found.into_iter().filter(|l| l.link_type != "loopback");
    links.map(|link| nic(link, files, ports)).collect()
}

fn nic(link: Link, files: &Files<'_>, ports: &[IbPort]) -> Nic {
    let path = |what: &str| format!("/sys/class/net/{}/{what}", link.ifname);
    let file = |what: &str| first(files, &path(what));
    let up = link.flags.iter().any(|f| f == "LOWER_UP");
    let port = ports.iter().find(|p| p.nics.contains(&link.ifname));
    // The kernel says -1 where it does not know.
    let speed = file("speed").and_then(|s| s.parse().ok()).or_else(|| port.map(|p| p.speed)).filter(|_| up);
    let event = all(files, &path("device/uevent"));
    let driver = event.iter().find_map(|line| line.strip_prefix("DRIVER=")).map(str::to_owned);
    let kind = match (link.linkinfo.info_kind, link.link_type.as_str()) {
        (Some(kind), _) if kind != "ipoib" => kind,
        (_, "ether") => "ethernet".to_owned(),
        (_, other) => other.to_owned(),
    };
    let addresses = || link.addr_info.iter().filter(|a| !a.local.is_empty() && a.scope != "link");
    Nic {
        kind,
        driver,
        mtu: link.mtu,
        link: up,
        speed,
        addresses: addresses().map(Address::text).collect(),
        dynamic: addresses().filter(|a| a.dynamic).map(Address::text).collect(),
        temporary: addresses().filter(|a| a.temporary).map(Address::text).collect(),
        numa: file("device/numa_node").and_then(|n| n.parse().ok()),
        mac: link.address,
        master: link.master,
        name: link.ifname,
    }
}
