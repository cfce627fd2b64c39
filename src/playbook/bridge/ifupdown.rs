//! Bridges where `/etc/network/interfaces` is in charge.
//!
//! The running links are changed with `ip`, which a reboot forgets by itself; the file is written on confirmation.

use super::names::{Edit, addresses, port};
use crate::playbook::resource::Bridge;
use crate::playbook::shell::quote;
use crate::playbook::state::State;
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(super) fn edit(bridge: &Bridge, mac: &str, path: &str, text: &str, state: &State) -> Result<Edit, String> {
    let wanted = match bridge.vlan {
        None => untagged(bridge, mac, text)?,
        Some(vlan) => tagged(bridge, mac, vlan, text),
    };
    let (name, uplink, mtu) = (quote(&bridge.name), quote(&bridge.uplink), bridge.mtu);
    let port = port(bridge);
    let mut make = String::new();
    let mut revert = String::new();
    let _ = writeln!(make, "[ \"$1\" = yes ] || ip link add name {name} address {mac} type bridge");
    let _ = writeln!(make, "ip link set dev {name} address {mac}");
    if let Some(vlan) = bridge.vlan {
        let _ = writeln!(
            make,
            "ip link show dev {0} >/dev/null 2>&1 || ip link add link {uplink} name {0} type vlan id {vlan}",
            quote(&port)
        );
        let _ = writeln!(revert, "[ \"$1\" = yes ] || ip link del {}", quote(&port));
    }
    let port = quote(&port);
    let _ = writeln!(
        make,
        "ip link set dev {port} mtu {mtu} up\nip link set dev {port} master {name}\nip link set dev {name} mtu {mtu} up"
    );
    if bridge.vlan.is_none() {
        // The kernel makes its own for each address, and routers announce theirs to whoever has the address.
        let _ = writeln!(
            make,
            "for f in 4 6; do ip -$f route show dev {uplink} | grep -v -e 'proto kernel' -e 'proto ra' >/run/rackhand/routes$f-{name} || true; done"
        );
        for address in addresses(state, &bridge.uplink) {
            let address = quote(&address);
            let _ = writeln!(make, "ip addr replace {address} dev {name}\nip addr del {address} dev {uplink}");
            let _ = writeln!(revert, "ip addr replace {address} dev {uplink}");
        }
        let _ = writeln!(make, "{}", routes_to(&name, &name));
    }
    let _ = writeln!(revert, "if [ \"$1\" = no ]; then ip link set dev {port} nomaster; ip link del {name}; fi");
    if bridge.vlan.is_none() {
        let _ = writeln!(revert, "{}\nexit 0", routes_to(&name, &uplink));
    }
    // ifupdown has to know what it would have brought up itself.
    let settle = format!(
        "f=/run/network/ifstate\nif [ -e $f ] && ! grep -qx {name}={name} $f; then echo {name}={name} >>$f; fi\n"
    );
    Ok(Edit { files: BTreeMap::from([(path.to_owned(), wanted)]), make, revert, settle })
}

/// Words of a shell that give the routes of both families, as they were noted for a bridge, to a link.
fn routes_to(bridge: &str, link: &str) -> String {
    format!(
        "for f in 4 6; do while read -r r; do [ -z \"$r\" ] || ip -$f route replace $r dev {link}; done </run/rackhand/routes$f-{bridge}; done"
    )
}

/// The lines of a bridge's stanza that make it.
fn maker(bridge: &Bridge, mac: &str) -> [String; 3] {
    let Bridge { name, mtu, .. } = bridge;
    let port = port(bridge);
    [
        format!("    pre-up ip link add name {name} address {mac} type bridge 2>/dev/null || true"),
        format!("    pre-up ip link set dev {name} address {mac} mtu {mtu}"),
        format!("    pre-up ip link set dev {port} mtu {mtu} master {name} up"),
    ]
}

/// The port's stanzas become the bridge's, with the lines that make it; the port keeps an empty one.
fn untagged(bridge: &Bridge, mac: &str, text: &str) -> Result<String, String> {
    let Bridge { name, uplink, .. } = bridge;
    let is_bridge = |line: &str| line.split_whitespace().take(2).eq(["iface", name.as_str()]);
    let made = text.lines().any(is_bridge);
    let ours = |line: &str| {
        let line = line.trim();
        line.starts_with(&format!("pre-up ip link add name {name} "))
            || line.starts_with(&format!("pre-up ip link set dev {name} "))
            || (line.starts_with("pre-up ip link set dev ") && line.ends_with(&format!(" master {name} up")))
    };
    let mut out = String::new();
    let mut first = true;
    for line in text.lines().filter(|l| !ours(l)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["iface", link, family, method] if !made && link == uplink && method != "manual" => {
                if method == "dhcp" || method == "auto" {
                    return Err(format!("{uplink} has its address from the network ({method}); give it a static one"));
                }
                if first {
                    let _ = write!(out, "iface {uplink} inet manual\n\nauto {name}\n");
                }
                let _ = writeln!(out, "iface {name} {family} {method}");
                if first {
                    let _ = writeln!(out, "{}", maker(bridge, mac).join("\n"));
                }
                first = false;
            }
            _ => {
                let _ = writeln!(out, "{line}");
                if first && is_bridge(line) {
                    let _ = writeln!(out, "{}", maker(bridge, mac).join("\n"));
                    first = false;
                }
            }
        }
    }
    if first { Err(format!("{uplink} has no stanza with an address to move")) } else { Ok(out) }
}

/// A marked block at the end of the file.
fn tagged(bridge: &Bridge, mac: &str, vlan: u16, text: &str) -> String {
    let Bridge { name, uplink, .. } = bridge;
    let port = port(bridge);
    let (begin, end) = (format!("# BEGIN rackhand {name}"), format!("# END rackhand {name}"));
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line == begin;
        if !inside {
            let _ = writeln!(out, "{line}");
        }
        inside &= line != end;
    }
    let _ = write!(
        out,
        "{begin}\nauto {port}\niface {port} inet manual\n\
         \x20   pre-up ip link add link {uplink} name {port} type vlan id {vlan} 2>/dev/null || true\n\
         \x20   up ip link set dev {port} up\n\
         auto {name}\niface {name} inet manual\n{}\n    up ip link set dev {name} up\n{end}\n",
        maker(bridge, mac).join("\n")
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "auto lo\niface lo inet loopback\n\nauto eno1\niface eno1 inet static\n    address 10.0.0.1/24\n    gateway 10.0.0.254\n";

    fn bridge(vlan: Option<u16>) -> Bridge {
        Bridge { name: "br-lan".into(), uplink: "eno1".into(), vlan, mtu: 1500 }
    }

    #[test]
    fn the_address_moves_and_a_second_time_changes_nothing() {
        let once = untagged(&bridge(None), "02:00:00:00:00:01", DEBIAN).unwrap();
        insta::assert_snapshot!(once, @r"
        auto lo
        iface lo inet loopback

        auto eno1
        iface eno1 inet manual

        auto br-lan
        iface br-lan inet static
            pre-up ip link add name br-lan address 02:00:00:00:00:01 type bridge 2>/dev/null || true
            pre-up ip link set dev br-lan address 02:00:00:00:00:01 mtu 1500
            pre-up ip link set dev eno1 mtu 1500 master br-lan up
            address 10.0.0.1/24
            gateway 10.0.0.254
        ");
        assert_eq!(untagged(&bridge(None), "02:00:00:00:00:01", &once).unwrap(), once);
        let other = untagged(&bridge(None), "02:00:00:00:00:02", &once).unwrap();
        assert_eq!(other, once.replace("00:01", "00:02"));
    }

    #[test]
    fn a_tag_is_a_block_of_its_own() {
        let once = tagged(&bridge(Some(42)), "02:00:00:00:00:01", 42, DEBIAN);
        assert!(once.starts_with(DEBIAN) && once.contains("type vlan id 42") && once.contains("master br-lan"));
        assert_eq!(tagged(&bridge(Some(42)), "02:00:00:00:00:01", 42, &once), once);
    }

    #[test]
    fn a_port_without_an_address_of_its_own_is_refused() {
        let dhcp = "iface eno1 inet dhcp\n";
        assert!(untagged(&bridge(None), "02:00:00:00:00:01", dhcp).unwrap_err().contains("static"));
        assert!(untagged(&bridge(None), "02:00:00:00:00:01", "iface eno1 inet manual\n").is_err());
    }
}
